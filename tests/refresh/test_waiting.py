"""A refresh and a night that want one lake: one waits or is refused, and nothing interleaves."""

from __future__ import annotations

import math
import multiprocessing
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from jobs import io, lock
from jobs.__main__ import command, take
from jobs.errors import Busy
from jobs.io import Lake
from jobs.refresh import route
from jobs.refresh.route import Refresh

CHAIN = Refresh("2024-03-01", "2024-03-01")
SOON = 0.02  # seconds between two looks


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake").open()


def refreshing(lake: Lake, run_id: str) -> None:
    """A refresh at work, as its first task leaves the lake."""
    lock.acquire(lake, run_id, brief=True)
    io.write_json(route.file(lake), {"run_id": run_id, **asdict(CHAIN)})


def over(lake: Lake, run_id: str) -> None:
    route.close(lake, run_id)
    lock.release(lake, run_id)


@pytest.mark.parametrize("who", ["a-night", "the-next-hour"])
def test_a_refresh_at_work_is_waited_for(lake: Lake, who: str) -> None:
    refreshing(lake, "the-hour")
    ended = threading.Timer(0.5, over, (lake, "the-hour"))
    began = time.monotonic()
    ended.start()
    take(lake, who, brief=True, patience=60, pause=SOON)
    ended.join()
    assert time.monotonic() - began >= 0.5
    assert lock.holder_of(lake)["owner"] == who  # type: ignore[index]


def test_a_refresh_that_has_not_chosen_its_base_yet_or_has_let_it_go_is_waited_for(
    lake: Lake,
) -> None:
    lock.acquire(lake, "the-hour", brief=True)
    lock.renew(lake, "the-hour")  # as each of its steps does
    ended = threading.Timer(0.3, lock.release, (lake, "the-hour"))
    ended.start()
    take(lake, "a-night", brief=False, patience=60, pause=SOON)
    ended.join()
    assert lock.holder_of(lake)["owner"] == "a-night"  # type: ignore[index]


def test_who_has_waited_long_enough_is_refused_and_told_who_is_at_work(lake: Lake) -> None:
    refreshing(lake, "the-hour")
    began = time.monotonic()
    with pytest.raises(Busy, match=r"in use by the run the-hour .* wait for it to end"):
        take(lake, "a-night", brief=False, patience=0.3, pause=SOON)
    assert time.monotonic() - began >= 0.3
    assert lock.holder_of(lake)["owner"] == "the-hour"  # type: ignore[index]
    assert route.under_way(lake, "the-hour") == CHAIN


def test_a_night_at_work_is_not_waited_for(lake: Lake) -> None:
    lock.acquire(lake, "a-night")
    # What a killed refresh left behind makes no refresh of the night.
    io.write_json(route.file(lake), {"run_id": "killed", **asdict(CHAIN)})
    with pytest.raises(Busy, match="in use by the run a-night"):
        take(lake, "the-hour", brief=True, patience=math.inf, pause=math.inf)


@pytest.mark.parametrize("verb", ["open-refresh", "open-night"])
def test_a_command_that_is_refused_changes_nothing_for_who_is_at_work(
    lake: Lake, verb: str
) -> None:
    lock.acquire(lake, "a-night")
    there = {path: path.read_bytes() for path in lake.root.rglob("*") if path.is_file()}
    with pytest.raises(Busy, match="in use by the run a-night"):
        command([verb, f"--lake={lake.root}", "--as-of=2024-03-01T01:00", "--run-id=other"])
    assert {p: p.read_bytes() for p in lake.root.rglob("*") if p.is_file()} == there


def worked(lake: Lake, run_id: str) -> None:
    """A whole refresh in a process of its own, which writes down when it begins and ends."""
    take(lake, run_id, brief=True, patience=60, pause=SOON)
    io.write_json(route.file(lake), {"run_id": run_id, **asdict(CHAIN)})
    for word in ("begins", "ends"):
        with open(lake.root / "told", "a", encoding="utf-8") as told:
            told.write(f"{run_id} {word}\n")
        time.sleep(0.2)
        assert route.under_way(lake, run_id) == CHAIN
    over(lake, run_id)


def test_of_refreshes_at_once_each_ends_before_the_next_begins(lake: Lake) -> None:
    # The first is at work when the others come, as an hour is that takes longer than an hour.
    refreshing(lake, "first")
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=worked, args=(lake, f"hour-{n}")) for n in range(3)]
    for other in others:
        other.start()
    time.sleep(0.3)
    assert not (lake.root / "told").exists()
    over(lake, "first")
    for other in others:
        other.join(120)
    assert [other.exitcode for other in others] == [0, 0, 0]
    told = (lake.root / "told").read_text().split()
    assert told[::2] == [name for name in told[::4] for _ in range(2)]
    assert told[1::2] == ["begins", "ends"] * 3
    assert lock.holder_of(lake) is None
