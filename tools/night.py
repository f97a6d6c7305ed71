"""``make run``: one night of the ``nightly`` DAG in this process, from source to release.

The same DAG file that a scheduler runs, as a real DagRun that the UI shows afterwards, but with
every task in one process: the heavy imports are paid once, and while the engine's JVM starts.
Reads SOURCE, AS_OF, LAKE, PARAMS and MASTER from the environment; an empty value is not given.
Exit codes: 0 published, 1 red gate or failed step, 2 bad input, 130 stopped by a signal.
"""

from __future__ import annotations

import time

BEGAN = time.monotonic()

import contextlib  # noqa: E402 the clock starts before anything else
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
from collections.abc import Iterator, Mapping  # noqa: E402
from datetime import UTC, date, datetime  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from tools import airflow_home, heavy  # noqa: E402
from tools.asked import source_of  # noqa: E402

# The newest day that Complete Journey fills before its last month, which is kept for judging.
DEFAULT_AS_OF = "2017-12-01"


class BadInput(Exception):
    """A value that was given cannot be used; the text says which and what to do."""


def main() -> int:
    airflow_home.set_environment()
    from tools import progress

    try:
        conf = trigger(os.environ)
        with airflow_home.alone("make run"), signals():
            return _night(conf)
    except (BadInput, airflow_home.InUse) as unable:
        print(f"error: {unable}", file=sys.stderr)
        return 2
    except progress.Stopped:
        print("\nstopped; the engine is gone and nothing was published", file=sys.stderr)
        return 130


def trigger(values: Mapping[str, str]) -> dict[str, Any]:
    """What the trigger form would hold: the DAG's params that were given, checked.

    Raises ``BadInput`` for a date or JSON that cannot be read.
    """
    conf: dict[str, Any] = {}
    source = values.get("SOURCE")
    if source:
        conf["source"] = source_of(source)
    as_of = values.get("AS_OF") or ("" if source else DEFAULT_AS_OF)
    if not as_of:
        raise BadInput(
            f"AS_OF is not given; write SOURCE={source} AS_OF=YYYY-MM-DD, the first "
            "day that the night does not read"
        )
    try:
        conf["as_of"] = date.fromisoformat(as_of).isoformat()
    except ValueError:
        raise BadInput(f"AS_OF: {as_of!r} is not a date; write YYYY-MM-DD") from None
    if values.get("LAKE"):
        lake = values["LAKE"]
        conf["lake"] = lake if "://" in lake else str(Path(lake).expanduser().resolve())
    if values.get("PARAMS"):
        try:
            conf["params"] = json.loads(values["PARAMS"])
        except json.JSONDecodeError as error:
            raise BadInput(
                f'PARAMS is not JSON ({error}); write {{"step": {{"parameter": value}}}}'
            ) from None
    return conf


def _night(conf: dict[str, Any]) -> int:
    from rich.console import Console

    source = conf.get("source", "completejourney")
    state, told = run("nightly", conf, f"The night of {conf['as_of']}, source {source}")
    seconds = time.monotonic() - BEGAN
    from tools import closing

    lake = lake_of(conf)
    as_of = datetime.fromisoformat(conf["as_of"]).replace(tzinfo=UTC)
    console = Console()
    closing.show(console, lake, as_of, told.tasks, seconds)
    if state == "success" and told.tasks:
        closing.show_release(console, lake, as_of)
        return 0
    closing.show_failure(console, lake, as_of, told.tasks)
    return 1


def lake_of(conf: Mapping[str, Any]) -> Any:
    """The lake that a run with these params uses."""
    from jobs.__main__ import DEFAULT_LAKE
    from jobs.io import Lake

    return Lake(conf.get("lake") or os.environ.get("NIGHTJAR_LAKE") or DEFAULT_LAKE)


def run(dag_id: str, conf: dict[str, Any], title: str) -> tuple[str, Any]:
    """Run a DAG in this process, a line a task under the title; returns the DagRun's state and
    the ``progress.Progress`` with its tasks."""
    from tools import progress

    if os.environ.get("MASTER"):
        os.environ["AIRFLOW_CONN_NIGHTJAR_SPARK"] = json.dumps(
            {"conn_type": "spark", "host": os.environ["MASTER"]}
        )
    logs = Path(os.environ["AIRFLOW__LOGGING__BASE_LOG_FOLDER"])
    with progress.quiet(logs / "night.log") as terminal:
        told = progress.Progress(terminal, logs, BEGAN)
        print(f"{title}; logs in {logs}", file=terminal, flush=True)
        return _run_dag(dag_id, conf, told), told


def _run_dag(dag_id: str, conf: dict[str, Any], told: Any) -> str:
    """Run the DAG to its end and return the DagRun's state; ends its traces when stopped."""
    if airflow_home.migrate():
        print(f"  ✓ Airflow's metadata in {airflow_home.home()}", file=told.terminal, flush=True)
    airflow_home.end_unfinished_runs()
    from airflow.dag_processing.dagbag import BundleDagBag
    from airflow.sdk.exceptions import ParamValidationError
    from airflow.sdk.listener import get_listener_manager

    folder = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    bag = BundleDagBag(dag_folder=folder, bundle_path=folder, bundle_name="dags-folder")
    dag = bag.dags.get(dag_id)
    if dag is None:
        raise BadInput(f"{folder} holds no DAG {dag_id}: {bag.import_errors}")
    get_listener_manager().add_listener(told)
    threading.Thread(target=heavy.load, daemon=True).start()
    try:
        run = dag.test(run_conf=conf)
    except ParamValidationError as error:
        raise BadInput(f"params: {error}") from None
    except BaseException:
        _clean_up(conf, told.run_id)
        raise
    return str(run.state.value if hasattr(run.state, "value") else run.state)


def _clean_up(conf: dict[str, Any], run_id: str) -> None:
    """End the engine, let the lake go and mark the run as failed, undisturbed by more signals."""
    from jobs.__main__ import command

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if run_id:
        lake = [f"--lake={conf['lake']}"] if "lake" in conf else []
        command(["close-night", f"--as-of={conf['as_of']}", f"--run-id={run_id}", *lake])
    airflow_home.end_unfinished_runs()


@contextlib.contextmanager
def signals() -> Iterator[None]:
    """Turn Ctrl-C, a terminate and a hang-up into ``Stopped`` inside the block."""
    from tools.progress import Stopped

    def stop(number: int, frame: Any) -> None:
        raise Stopped

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
