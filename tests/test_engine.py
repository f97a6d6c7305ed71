"""The engine of a run: started when the run opens, or put off until a step needs one."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import engine
from jobs.__main__ import command
from jobs.errors import Fault
from jobs.io import Lake
from jobs.spark import Engine, engine_file, promise_file
from tests.conftest import AS_OF


def test_an_engine_that_was_put_off_starts_once_where_a_step_asks_and_ends_with_the_run(tmp_path):
    lake = Lake(tmp_path / "lake").open()
    conf = {"spark.driver.memory": "1g"}
    engine.promise(lake, "local[1]", conf)
    assert not engine_file(lake).exists()
    assert promise_file(lake).stat().st_mode & 0o777 == 0o600  # settings may be secrets
    try:
        started = engine.of(lake)
        assert started.alive()
        assert started.master == "local[1]"
        told = Path(f"/proc/{started.pid}/cmdline").read_bytes()
        assert b"spark.driver.memory=1g" in told
        # The next step finds it.
        assert engine.of(lake) == started == Engine.load(engine_file(lake))
    finally:
        line = [f"--lake={lake.root}", "--run-id=run", f"--as-of={AS_OF:%Y-%m-%d}", "--source=s"]
        command(["close-night", *line])
    assert not started.alive()
    assert not engine_file(lake).exists()
    assert not promise_file(lake).exists()


def test_what_is_no_master_is_refused_when_it_is_given_and_not_when_it_is_needed(tmp_path):
    lake = Lake(tmp_path / "lake").open()
    with pytest.raises(Fault, match="'yarn' is no master"):
        engine.promise(lake, "yarn", {})
    with pytest.raises(Fault, match="no engine runs for this lake"):
        engine.of(lake)
