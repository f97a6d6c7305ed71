"""An engine that stands for a lake: runs find it warm, and leave it alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobs import spark
from jobs.__main__ import command
from jobs.errors import Fault
from jobs.io import Lake
from jobs.spark import engine_file, standing_file

CONF = {"spark.driver.memory": "1g"}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[spark.Engine]:
    """A process that stands in for one."""
    waits = [sys.executable, "-c", "import time; time.sleep(600)", "SparkConnectServer"]
    process = subprocess.Popen(waits, start_new_session=True)
    made = spark.Engine("sc://localhost:1", "secret", process.pid, "local[*]", conf=CONF)
    while not made.alive():  # until the new process has its own name
        time.sleep(0.01)
    yield made
    process.kill()
    process.wait()


def test_an_engine_that_stands_is_used_by_runs_that_ask_for_the_same(tmp_path, engine):
    file = tmp_path / "standing.json"
    assert spark.standing(file, "local[*]", CONF) is None
    engine.save(file)
    found = spark.standing(file, "local[*]", CONF)
    assert found == replace(engine, ours=False)
    assert spark.standing(file, "local[2]", CONF) is None
    assert spark.standing(file, "local[*]", {}) is None
    found.stop()
    assert engine.alive()
    engine.stop()
    assert not engine.alive()
    assert spark.standing(file, "local[*]", CONF) is None


def test_a_second_one_for_a_lake_and_somebody_elses_are_refused(tmp_path, engine):
    file = tmp_path / "standing.json"
    engine.save(file)
    second = spark.stand(file, "local[*]", tmp_path / "log", CONF)
    with pytest.raises(Fault, match=f"one stands for this lake already .process {engine.pid}"):
        second.__enter__()
    assert file.exists()
    elsewhere = spark.stand(tmp_path / "other.json", "sc://elsewhere:1", tmp_path / "log", {})
    with pytest.raises(Fault, match="sc://elsewhere:1 is run elsewhere"):
        elsewhere.__enter__()


def test_runs_find_it_warm_and_it_ends_with_its_command(tmp_path):
    lake = Lake(tmp_path / "lake").open()
    conf = [f"--conf={name}={value}" for name, value in CONF.items()]
    line = [sys.executable, "-m", "jobs", "engine", f"--lake={lake.root}", *conf]
    root = Path(__file__).resolve().parent.parent
    keeper = subprocess.Popen(line, cwd=root, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + spark.START_SECONDS
        while not standing_file(lake).exists() and time.monotonic() < deadline:
            assert keeper.poll() is None, keeper.stderr.read()
            time.sleep(0.1)
        stands = spark.Engine.load(standing_file(lake))
        assert standing_file(lake).stat().st_mode & 0o777 == 0o600
        run = [f"--lake={lake.root}", "--as-of=2024-01-02", f"--source={tmp_path}"]
        for name in ("first", "second"):
            command(["open-night", *run, f"--run-id={name}", *conf])
            used = spark.Engine.load(engine_file(lake))
            assert used == replace(stands, ours=False)
            assert used.session().range(3).count() == 3
            command(["close-night", *run, f"--run-id={name}"])
            assert not engine_file(lake).exists()
            assert stands.alive()
        keeper.send_signal(signal.SIGTERM)
        told = keeper.communicate(timeout=60)[1]
        assert keeper.returncode == 143
        assert f"stands_for={lake.root}" in told
        assert stands.token not in told
        assert not stands.alive()
        assert not standing_file(lake).exists()
    finally:
        if keeper.poll() is None:
            keeper.send_signal(signal.SIGTERM)
            keeper.communicate(timeout=60)


def test_a_command_whose_engine_ends_says_so(tmp_path):
    lake = Lake(tmp_path / "lake").open()
    line = [sys.executable, "-m", "jobs", "engine", f"--lake={lake.root}"]
    root = Path(__file__).resolve().parent.parent
    keeper = subprocess.Popen(line, cwd=root, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + spark.START_SECONDS
    while not standing_file(lake).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(spark.Engine.load(standing_file(lake)).pid, signal.SIGKILL)
    told = keeper.communicate(timeout=60)[1]
    assert keeper.returncode == 2
    assert "has ended" in told
    assert not standing_file(lake).exists()
