"""Airflow on this machine: its home under ``var/airflow``, its database, who uses it.

Configuration is by environment alone, and what the user's environment says already stays, so
that Postgres is one variable away (``AIRFLOW__DATABASE__SQL_ALCHEMY_CONN``); the home is always
ours, so that nobody's own Airflow is touched.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import secrets
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from tools.lockfile import held

ROOT = Path(__file__).resolve().parent.parent
DAG_IDS = ("nightly", "hourly_refresh", "diagnose", "retrain")


class InUse(Exception):
    """Another process runs nights or the UI from this home."""


def home() -> Path:
    """Airflow's home: ``var/airflow`` of this checkout, or ``NIGHTJAR_AIRFLOW_HOME``."""
    return Path(os.environ.get("NIGHTJAR_AIRFLOW_HOME") or ROOT / "var" / "airflow").resolve()


def set_environment() -> None:
    """Point Airflow at our home and DAGs; call it before anything imports airflow."""
    folder = home()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["AIRFLOW_HOME"] = str(folder)
    # Task processes import jobs from here, and Spark's Python is this one.
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    os.environ["PYSPARK_PYTHON"] = sys.executable
    defaults = {
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__PARALLELISM": str(max(2, (os.cpu_count() or 2) // 2)),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(folder / "passwords.json"),
        # On a loaded disk a writer may keep others waiting for longer than SQLite's 5 seconds.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db?timeout=60",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
        # A demonstration's nights start when somebody asks; cron is for a deployment.
        "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "SCARF_ANALYTICS": "false",
        "DO_NOT_TRACK": "1",
    }
    for name, value in {**defaults, **_keys(folder)}.items():
        os.environ.setdefault(name, value)
    _settings(folder / "config")


def _settings(folder: Path) -> None:
    """Put our settings of the database where Airflow looks for them, unless somebody's own lie
    there."""
    folder.mkdir(exist_ok=True)
    ours = ROOT / "tools" / "airflow_local_settings.py"
    there = folder / ours.name
    text = ours.read_text(encoding="utf-8")
    own = there.read_text(encoding="utf-8") if there.exists() else ""
    if own and own.partition("\n")[0] != text.partition("\n")[0]:
        return
    if own != text:
        made = folder / f"{ours.name}.{os.getpid()}"
        shutil.copyfile(ours, made)
        made.replace(there)


def _keys(folder: Path) -> dict[str, str]:
    """The secrets that Airflow's processes share, made once: without them each makes its own,
    and the API refuses every task as a stranger."""
    path = folder / "keys.json"
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
        return dict(json.loads(path.read_text()))
    made = {
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(32),
        "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(32),
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    }
    _write_private(path, made)
    return made


def _write_private(path: Path, value: dict[str, str]) -> None:
    """Write JSON that this user alone may read."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump(value, file)


@contextlib.contextmanager
def alone(purpose: str) -> Iterator[None]:
    """Hold this home for one process; a second one gets ``InUse`` that says who is here.

    The in-process runner and a scheduler would both start the tasks of one run, so they must
    never share a database at one time.
    """
    folder = home()
    folder.mkdir(parents=True, exist_ok=True)

    def refusal(holder: str) -> InUse:
        return InUse(
            f"a night or the UI is already running here: {holder} uses {folder}; wait for it "
            "to end or stop it (from the UI, trigger the night there)"
        )

    with held(folder / "in_use", purpose, refusal):
        yield


def migrate() -> bool:
    """Create or upgrade the metadata database where its version is not ours; whether it did.

    About a second for a new SQLite file, against 4 to 12 s of ``airflow db migrate``.
    """
    from airflow import __version__

    address = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    stamp = home() / "database.json"
    now = {"airflow": __version__, "database": address.rpartition("@")[2]}
    file = Path(address.removeprefix("sqlite:///").partition("?")[0])
    lost = address.startswith("sqlite:///") and not file.exists()
    if stamp.exists() and not lost and json.loads(stamp.read_text()) == now:
        return False
    # What Airflow tells of its tables and libraries is nothing for who starts a shop's pipeline.
    with warnings.catch_warnings(action="ignore"):
        logging.disable(logging.INFO)
        try:
            from airflow.utils.db import initdb

            initdb()
        finally:
            logging.disable(logging.NOTSET)
    stamp.write_text(json.dumps(now) + "\n")
    return True


def password() -> str:
    """The UI's password for ``admin``, made up once and kept in the home for this user alone."""
    path = Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError, KeyError):
        return str(json.loads(path.read_text())["admin"])
    made = secrets.token_urlsafe(12)
    _write_private(path, {"admin": made})
    return made


def end_unfinished_runs() -> list[str]:
    """Mark as failed what a killed process left running, so that it blocks no other night."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState, State, TaskInstanceState
    from sqlalchemy import select

    ended = []
    with create_session() as session:
        ours, running_now = DagRun.dag_id.in_(DAG_IDS), DagRun.state == DagRunState.RUNNING
        running = select(DagRun).where(ours, running_now)
        for run in session.scalars(running):
            for task in run.get_task_instances(session=session):
                if task.state not in State.finished:
                    was_running = task.state == TaskInstanceState.RUNNING
                    left = (
                        TaskInstanceState.FAILED
                        if was_running
                        else TaskInstanceState.UPSTREAM_FAILED
                    )
                    task.set_state(left, session=session)
            run.set_state(DagRunState.FAILED)
            ended.append(run.run_id)
    return ended
