"""Bad input and bad places: one clear error, and nothing that was published changes."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from jobs import io, lock, params, spark
from jobs.__main__ import check_overrides, command
from jobs.errors import Busy, Fault, GateRed
from jobs.io import Lake
from jobs.night import scratch_folder
from jobs.refresh import route
from jobs.sources import contract
from jobs.spark import engine_file
from tests import small_shop

DATE = "2024-03-01"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    small_shop.write(folder)
    return folder


@pytest.fixture
def step(lake: Lake, shop: Path):
    """Run one command of a night that holds the lake: ``step("run", "events")``."""
    lock.acquire(lake, "mine")

    def run(*words: str, as_of: str = DATE, source: Path = shop) -> None:
        command(
            [*words, f"--as-of={as_of}", f"--source={source}", "--run-id=mine",
             f"--lake={lake.root}"]
        )  # fmt: skip

    return run


def published(lake: Lake) -> dict[str, str]:
    """Every pointer of the lake and what it names."""
    return {
        str(path.relative_to(lake.root)): path.read_text()
        for path in sorted(lake.root.glob("tables/*/*/PUBLISHED"))
    }


def test_a_run_date_before_the_first_event_says_when_the_first_one_is(step, lake):
    step("run", "source", as_of="2020-01-01")
    step("gate", "source", as_of="2020-01-01")
    before = published(lake)
    with pytest.raises(Fault, match=r"no event received before 2020-01-01; its first is received"):
        step("run", "events", as_of="2020-01-01")
    assert published(lake) == before


def test_a_source_without_rows_is_refused(step, tmp_path):
    empty = tmp_path / "empty"
    io.write_arrow(empty / "events", contract.schema("events").empty_table())
    step("run", "source", source=empty)
    with pytest.raises(GateRed, match="source_tables"):
        step("gate", "source", source=empty)


def test_a_night_on_a_lake_that_another_holds_is_refused_by_name(lake, shop):
    lock.acquire(lake, "theirs")
    with pytest.raises(Fault, match=r"in use by the run theirs on .* since"):
        command(
            ["open-night", f"--as-of={DATE}", f"--source={shop}", "--run-id=mine",
             f"--lake={lake.root}"]
        )  # fmt: skip
    with pytest.raises(Fault, match="held by theirs"):
        command(["run", "source", f"--as-of={DATE}", "--run-id=mine", f"--lake={lake.root}"])
    holder = lock.holder_of(lake)
    assert holder is not None
    assert holder["owner"] == "theirs"


def test_a_night_that_cannot_clear_what_a_killed_one_left_lets_the_lake_go(lake, shop):
    io.write_text(route.file(lake), "{")
    with pytest.raises(json.JSONDecodeError):
        command(
            ["open-night", f"--as-of={DATE}", f"--source={shop}", "--run-id=mine",
             f"--lake={lake.root}"]
        )  # fmt: skip
    assert lock.holder_of(lake) is None


def test_a_late_close_leaves_a_run_that_took_the_lake_meanwhile_alone(lake, monkeypatch):
    spark.Engine("sc://localhost:1", "", 2**22 + 1, "local[1]").save(engine_file(lake))
    kept = scratch_folder(lake) / "theirs"

    def taken_meanwhile():
        lock.acquire(lake, "theirs")
        spark.Engine("sc://localhost:2", "", 0, "local[1]").save(engine_file(lake))
        kept.mkdir(parents=True)

    monkeypatch.setattr(spark, "release_session", taken_meanwhile)
    command(["close-night", f"--as-of={DATE}", "--run-id=mine", f"--lake={lake.root}"])
    assert spark.Engine.load(engine_file(lake)).url == "sc://localhost:2"
    assert kept.is_dir()
    assert lock.holder_of(lake)["owner"] == "theirs"


def test_the_lock_of_a_dead_engine_or_past_its_time_is_taken_over(lake):
    lock.acquire(lake, "dead")
    spark.Engine("sc://localhost:1", "", 2**22 + 1, "local[1]").save(engine_file(lake))
    lock.acquire(lake, "mine")
    assert lock.holder_of(lake)["owner"] == "mine"
    with pytest.raises(Busy, match="in use by the run mine"):  # its engine has yet to start
        lock.acquire(lake, "third")
    late = {**lock.holder_of(lake), "owner": "slow", "host": "elsewhere"}
    late["expires"] = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    io.write_json(lock.path(lake), late)
    lock.acquire(lake, "mine")
    assert lock.holder_of(lake)["owner"] == "mine"


def test_the_lock_of_a_run_from_before_the_machine_was_started_again_is_taken_over(lake):
    lock.acquire(lake, "refresh", brief=True)  # which has no engine that could be seen to be dead
    with pytest.raises(Busy):
        lock.acquire(lake, "next")
    io.write_json(lock.path(lake), {**lock.holder_of(lake), "boot": "another start"})
    lock.acquire(lake, "next")
    assert lock.holder_of(lake)["owner"] == "next"


def test_of_many_who_find_a_dead_run_one_takes_the_lake(lake):
    lock.acquire(lake, "dead")
    spark.Engine("sc://localhost:1", "", 2**22 + 1, "local[1]").save(engine_file(lake))
    start = multiprocessing.get_context("spawn")
    ready = start.Barrier(4)
    with start.Pool(4, _ready_at, (ready,)) as pool:
        owners = [f"run {number}" for number in range(4)]
        took = pool.starmap(_takes, [(lake, owner) for owner in owners], chunksize=1)
    assert [owner for owner in took if owner] == [lock.holder_of(lake)["owner"]]


def _ready_at(barrier) -> None:
    global _barrier
    _barrier = barrier


def _takes(lake, owner: str) -> str | None:
    _barrier.wait()
    try:
        lock.acquire(lake, owner)
    except Busy:
        return None
    return owner


def test_a_night_is_no_refresh_by_what_a_killed_one_of_its_name_left(lake, shop):
    io.write_json(
        route.file(lake),
        {"run_id": "mine", "base": "20171130T000000Z", "night": "20171130T000000Z"},
    )
    where = [f"--as-of={DATE}", f"--source={shop}", "--run-id=mine", f"--lake={lake.root}"]
    engine_file(lake).unlink()  # the shared one, which is not this lake's to end
    command(["open-night", *where, "--master=sc://localhost:1"])
    assert route.under_way(lake, "mine") is None


def test_closing_somebody_elses_night_touches_nothing(lake):
    lock.acquire(lake, "theirs")
    command(["close-night", f"--as-of={DATE}", "--run-id=mine", f"--lake={lake.root}"])
    assert lock.holder_of(lake)["owner"] == "theirs"
    assert engine_file(lake).exists()


def test_an_engine_that_is_killed_at_work_is_said_at_once_and_the_lake_let_go(shop, tmp_path):
    lake = Lake(tmp_path / "lake").open()

    def jobs(*words: str) -> subprocess.Popen[str]:
        where = (f"--as-of={DATE}", f"--source={shop}", "--run-id=mine", f"--lake={lake.root}")
        return subprocess.Popen(
            [sys.executable, "-m", "jobs", *words, *where], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def done(process: subprocess.Popen[str]) -> tuple[int, str]:
        # The client's own patience is ten minutes and more.
        _, told = process.communicate(timeout=240)
        return process.returncode, told

    assert done(jobs("open-night"))[0] == 0
    engine = spark.Engine.load(engine_file(lake))
    try:
        for verb in ("run", "gate"):
            assert done(jobs(verb, "source"))[0] == 0
        at_work = jobs("run", "events")
        staged = lake.staged("events", io.parse_as_of(DATE))
        while at_work.poll() is None and not (staged.exists() and any(staged.iterdir())):
            time.sleep(0.05)
    finally:
        os.killpg(engine.pid, signal.SIGKILL)
    found = [done(at_work), done(jobs("run", "events"))]
    assert [code for code, _ in found] == [2, 2]
    for _, told in found:
        assert f"(process {engine.pid}) has ended" in told
        assert f"Its log ({engine.log}) ends:" in told
    assert lake.at("events", DATE) is None
    assert done(jobs("close-night"))[0] == 0
    assert lock.holder_of(lake) is None


def test_a_step_killed_while_it_wrote_leaves_no_rest_in_the_next_attempt(step, lake):
    as_of = io.parse_as_of(DATE)
    step("run", "source")
    step("gate", "source")
    half = lake.staged("events", as_of) / "events"
    half.mkdir(parents=True)
    (half / "part-99999.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(Fault, match="events"):
        step("gate", "events")
    step("run", "events")
    step("gate", "events")
    folder = lake.published("events", as_of).table("events")
    assert "part-99999.parquet" not in {path.name for path in folder.iterdir()}
    assert io.count_rows(folder) > 1_000


def test_running_a_day_again_leaves_equal_rows_and_one_attempt(step, lake):
    as_of = io.parse_as_of(DATE)

    def rows() -> pa.Table:
        for name in ("source", "events"):
            step("run", name)
            step("gate", name)
        return io.read_arrow(lake.published("events", as_of).table("events")).sort_by("event_id")

    assert rows().equals(rows())
    home = lake.root / "tables" / "events" / DATE
    assert len([path for path in home.iterdir() if path.is_dir()]) == 1


def test_an_empty_newest_day_is_red_and_publishes_nothing(step, lake, shop, tmp_path):
    stopped = tmp_path / "stopped"
    shutil.copytree(shop, stopped)
    rows = io.read_arrow(stopped / "events")
    last = datetime(2024, 2, 29, tzinfo=UTC)
    kept = [moment is None or moment < last for moment in rows["event_time"].to_pylist()]
    shutil.rmtree(stopped / "events")
    io.write_arrow(stopped / "events", rows.filter(pa.array(kept)))
    for name in ("source", "events"):
        step("run", name, source=stopped)
        if name == "source":
            step("gate", name, source=stopped)
    with pytest.raises(GateRed, match="events_volume"):
        step("gate", "events", source=stopped)
    assert not any("events" in name for name in published(lake))


def test_every_unknown_or_mistyped_override_is_named_at_once():
    wrong = {
        "events": {"max_events": 3, "late_after_hours": "soon"},
        "evnets": {},
        "recommendations": {"surfaces": {"homepage": {"length": 0}}},
    }
    with pytest.raises(Fault) as caught:
        check_overrides(wrong)
    text = str(caught.value)
    for part in (
        "events has no parameter 'max_events'", "events.late_after_hours is 'soon'",
        "there is no step 'evnets'", "length must be 1 to 500",
    ):  # fmt: skip
        assert part in text


@pytest.mark.parametrize("text", ["{", "[]", '{"events": 3}'])
def test_overrides_that_are_no_object_of_objects_are_refused(text):
    with pytest.raises(Fault, match=r"expected|not JSON"):
        params.from_json(text)


def test_overrides_of_a_mapping_change_only_what_they_name():
    from jobs.signals import interactions

    built = params.build(interactions.Params, {"type_weights": {"view": 0.5}})
    assert built.type_weights["view"] == 0.5
    assert built.type_weights["purchase"] == interactions.Params().type_weights["purchase"]
    with pytest.raises(Fault, match="type_weights"):
        check_overrides({"interactions": {"type_weights": {"wish": 1.0}}})


@pytest.mark.parametrize("text", ["yesterday", "2017-13-01", "", "01/12/2017"])
def test_a_run_date_that_is_none_is_refused(text):
    with pytest.raises(Fault, match="YYYY-MM-DD"):
        io.parse_as_of(text)


def test_a_run_date_with_a_zone_is_turned_to_utc():
    assert io.parse_as_of("2017-12-01T02:00+02:00") == datetime(2017, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize("root", ["s3://bucket/lake", "gs://b", "HDFS://nn/lake"])
def test_an_object_store_is_refused_as_lake(root):
    with pytest.raises(Fault, match="object store"):
        Lake(root)


def test_a_lake_that_cannot_be_written_is_refused(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(Fault, match="cannot be written"):
        Lake(blocked / "lake").open()


def test_a_reader_never_sees_half_of_a_publication(lake):
    as_of = io.parse_as_of(DATE)
    for attempt, number in (("one", 1), ("two", 2)):
        staged = lake.staged("events", as_of)
        io.write_arrow(staged / "events", pa.table({"n": [number]}))
        if attempt == "two":
            # The staged folder has been renamed, and the pointer is not yet moved.
            target = lake.root / "tables" / "events" / DATE / attempt
            staged.rename(target)
            assert lake.published("events", as_of).attempt == "one"
            target.rename(staged)
        lake.publish("events", as_of, attempt)
    found = lake.published("events", as_of)
    assert (found.attempt, io.count_rows(found.table("events"))) == ("two", 1)
    assert json.dumps(published(lake)) == json.dumps({f"tables/events/{DATE}/PUBLISHED": "two\n"})
