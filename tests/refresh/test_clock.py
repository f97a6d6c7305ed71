"""A refresh of a moment that is yet to come is refused, and one that serves is told of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs import lock
from jobs.__main__ import command
from jobs.errors import Fault
from jobs.io import Lake
from jobs.refresh import route
from jobs.release import releases, rollback
from tests.release import nights

NOW = nights.day(1) + timedelta(hours=2)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake").open()


def test_a_moment_of_the_past_is_refreshed_whatever_the_clock_says(lake: Lake) -> None:
    nights.whole(lake)
    for as_of in (nights.day(-300), NOW, NOW + timedelta(minutes=4)):
        route.check_clock(lake, as_of, NOW)


def test_a_moment_beyond_the_clock_is_refused(lake: Lake) -> None:
    with pytest.raises(
        Fault,
        match=r"refresh: 2017-12-02T030000 is later than this machine's clock, which says "
        r"2017-12-02 02:00 UTC; give an earlier AS_OF",
    ):
        route.check_clock(lake, NOW + timedelta(hours=1), NOW)


def test_a_release_of_a_time_to_come_is_told_of_and_rolled_back(lake: Lake) -> None:
    first = nights.whole(lake)
    ahead = nights.whole(lake, nights.day(30), "run-2")
    with pytest.raises(Fault, match=rf"the release {ahead} serves and is of .*make rollback"):
        route.check_clock(lake, NOW, NOW)
    rollback.rollback(lake, first, None, "test")
    assert releases.current_id(lake) == first
    route.check_clock(lake, NOW, NOW)
    route.check_clock(lake, nights.day(31), nights.day(31))


def test_the_command_refuses_and_lets_the_lake_go(lake: Lake) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    with pytest.raises(Fault, match="is later than this machine's clock"):
        command(["open-refresh", f"--lake={lake.root}", f"--as-of={tomorrow.isoformat()}"])
    assert lock.holder_of(lake) is None
    assert not route.file(lake).exists()
