"""Where the drift window of a source is kept, and which of its measurements counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs import io
from jobs.errors import Fault
from jobs.evaluation import drift
from jobs.io import Lake
from tests.conftest import AS_OF

SOURCE = "online_retail:/data/a b"


@pytest.fixture
def shelf(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake").open()


def measured(
    lake: Lake, as_of: datetime, days: object, source: str = SOURCE, **more: object
) -> None:
    facts = {"source": source, "as_of": as_of.isoformat(), "drift_window_days": days,
             "verdict": "measured", **more}  # fmt: skip
    io.write_json(drift.file(lake, source, as_of), facts)


def test_the_place_of_a_measurement_names_the_source_and_the_run_date(shelf):
    found = drift.file(shelf, SOURCE, AS_OF).relative_to(shelf.root)
    assert found == Path("staleness/online_retail__data_a_b/2017-12-01/staleness.json")


def test_a_source_with_a_long_name_has_a_place_too(shelf):
    measured(shelf, AS_OF, 3.0, source="/" + "deep/" * 200)
    assert drift.newest(shelf, "/" + "deep/" * 200, AS_OF).days == 3.0


def test_the_newest_measurement_up_to_the_night_counts(shelf):
    for days_ago, window in ((9, 9.0), (2, 7.0), (0, 6.0), (-1, 5.0)):
        measured(shelf, AS_OF - timedelta(days=days_ago), window, low=4.0, high=None)
    assert drift.newest(shelf, SOURCE, AS_OF).days == 6.0
    before = drift.newest(shelf, SOURCE, AS_OF - timedelta(days=1))
    assert (before.days, before.low, before.high) == (7.0, 4.0, None)
    assert before.as_of == AS_OF - timedelta(days=2)


def test_a_measurement_that_cannot_tell_is_no_clear_one(shelf):
    measured(shelf, AS_OF - timedelta(days=1), 28.0, verdict="flat")
    assert drift.newest(shelf, SOURCE, AS_OF).clear
    measured(shelf, AS_OF, 28.0, verdict="unclear", low=1.5)
    assert not drift.newest(shelf, SOURCE, AS_OF).clear


def test_where_nothing_was_measured_there_is_no_window(shelf):
    assert drift.newest(shelf, SOURCE, AS_OF) is None
    measured(shelf, AS_OF, 9.0, source="online_retail:/data/a_b")
    assert drift.newest(shelf, SOURCE, AS_OF) is None, "another source under the same name"
    measured(shelf, datetime(2018, 1, 1, tzinfo=UTC), 9.0)
    assert drift.newest(shelf, SOURCE, AS_OF) is None, "measured after the night"


@pytest.mark.parametrize("days", [None, 0.0, -1.0, float("nan"), "soon"])
def test_a_file_that_is_no_measurement_is_a_fault_and_not_a_missing_one(shelf, days):
    measured(shelf, AS_OF, days)
    with pytest.raises(Fault, match="is no measurement of a drift window"):
        drift.newest(shelf, SOURCE, AS_OF)


def test_a_file_cut_short_is_a_fault(shelf):
    io.write_text(drift.file(shelf, SOURCE, AS_OF), '{"source": ')
    with pytest.raises(Fault, match="run `make staleness` again or remove the file"):
        drift.newest(shelf, SOURCE, AS_OF)
