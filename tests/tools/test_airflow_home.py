"""Airflow's home on this machine: whose it is, and that one process uses it at a time."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest
from sqlalchemy import create_engine, text

from tools import airflow_home


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NIGHTJAR_AIRFLOW_HOME", str(tmp_path / "home"))
    for name in [name for name in os.environ if name.startswith(("AIRFLOW", "PYSPARK_PYTHON"))]:
        monkeypatch.delenv(name)
    before = dict(os.environ)
    yield tmp_path / "home"
    os.environ.clear()
    os.environ.update(before)


def test_somebody_elses_airflow_home_is_never_used(home, monkeypatch):
    monkeypatch.setenv("AIRFLOW_HOME", "/somebody/elses")
    airflow_home.set_environment()
    assert os.environ["AIRFLOW_HOME"] == str(home)
    address = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    assert address.startswith(f"sqlite:///{home}/airflow.db?")
    # Who finds the database taken waits as long as a loaded disk may take.
    with create_engine(address).connect() as database:
        assert database.execute(text("PRAGMA busy_timeout")).scalar() == 60_000


def test_a_database_of_the_users_choice_stays(home, monkeypatch):
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://x")
    airflow_home.set_environment()
    assert os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == "postgresql://x"


def test_all_processes_share_the_secrets_and_nobody_else_reads_them(home, monkeypatch):
    airflow_home.set_environment()
    first = os.environ["AIRFLOW__API_AUTH__JWT_SECRET"]
    monkeypatch.delenv("AIRFLOW__API_AUTH__JWT_SECRET")
    airflow_home.set_environment()
    assert os.environ["AIRFLOW__API_AUTH__JWT_SECRET"] == first
    assert airflow_home.password() == airflow_home.password()
    for name in ("keys.json", "passwords.json"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600


def test_a_second_process_is_told_who_is_here(home):
    code = (
        "import sys; from tools import airflow_home\n"
        "try:\n"
        "    with airflow_home.alone('make run'): pass\n"
        "except airflow_home.InUse as told: sys.exit(str(told))\n"
    )
    with airflow_home.alone("make ui"):
        shown = subprocess.run(
            [sys.executable, "-c", code],
            cwd=airflow_home.ROOT, env=dict(os.environ), capture_output=True, text=True,
        )  # fmt: skip
    assert f"make ui (process {os.getpid()}) uses {home}" in shown.stderr
    subprocess.run([sys.executable, "-c", code], cwd=airflow_home.ROOT, check=True)


def test_what_airflow_writes_within_a_savepoint_waits_for_its_turn(home):
    code = (
        "import sqlite3; from tools import airflow_home; airflow_home.set_environment()\n"
        "from airflow import settings; from airflow.utils.session import create_session\n"
        "from sqlalchemy import text\n"
        "other = sqlite3.connect(airflow_home.home() / 'airflow.db', timeout=0)\n"
        "with create_session() as session: session.execute(text('CREATE TABLE runs (name)'))\n"
        "with create_session() as session, session.begin_nested():\n"
        "    session.execute(text('SELECT * FROM runs')).all()\n"
        "    try:\n"
        "        with other: other.execute(\"INSERT INTO runs VALUES ('other')\")\n"
        "    except sqlite3.OperationalError as error: print(error)\n"
        "    session.execute(text(\"INSERT INTO runs VALUES ('ours')\"))\n"
        "with other: other.execute(\"INSERT INTO runs VALUES ('later')\")\n"
        "print(*other.execute('SELECT name FROM runs'))\n"
    )
    airflow_home.set_environment()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=airflow_home.ROOT, env=dict(os.environ), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["database is locked", "('ours',) ('later',)"]


def test_somebodys_own_settings_of_airflow_are_left_as_they_are(home):
    airflow_home.set_environment()
    there = home / "config" / "airflow_local_settings.py"
    assert "BEGIN IMMEDIATE" in there.read_text()
    there.write_text(there.read_text() + "# of an earlier version\n")
    airflow_home.set_environment()
    assert "earlier version" not in there.read_text()
    there.write_text("def task_policy(task): ...\n")
    airflow_home.set_environment()
    assert there.read_text() == "def task_policy(task): ...\n"
