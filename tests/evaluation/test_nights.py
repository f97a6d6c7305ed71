"""Which nights can be judged, and when one that lies there can be taken as it is."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from jobs import io
from jobs.errors import Fault
from jobs.evaluation import nights
from jobs.evaluation.nights import Made
from jobs.sources.source import Source

DAYS = timedelta(days=7)
TIME = pa.timestamp("us", tz="UTC")


def day(number: int) -> datetime:
    return datetime(2024, 3, 1, tzinfo=UTC) + timedelta(days=number)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Views on each of the days 0 to 40, purchases until the day 20."""
    rows = [(day(n), "view") for n in range(41)] + [(day(n), "purchase") for n in range(21)]
    times, kinds = zip(*rows, strict=True)
    io.write_arrow(tmp_path / "events", pa.table({
        "event_time": pa.array(times, TIME), "event_type": list(kinds),
    }))  # fmt: skip
    return Source("shop", tmp_path, "contract", "", {})


def test_cuts_that_the_source_covers_pass(source):
    nights.check_cuts(source, [day(1), day(20)], DAYS)


@pytest.mark.parametrize(
    ("cut", "sentence"),
    [
        (-3, "the cut 2024-02-27 is not after the first event, of 2024-03-01"),
        (0, "the cut 2024-03-01 is not after the first event"),
        (21, "nobody bought anything in the 7 days after the cut 2024-03-22"),
        (35, r"7 days after the cut 2024-04-05 are not covered.*2024-04-10, so give cuts up to "
             "2024-04-04"),
    ],
)  # fmt: skip
def test_a_cut_that_cannot_be_judged_is_refused(source, cut, sentence):
    with pytest.raises(Fault, match=sentence):
        nights.check_cuts(source, [day(cut)], DAYS)


def test_the_last_cut_named_passes_and_all_faults_are_told_at_once(source):
    with pytest.raises(Fault, match=r"first event.*not covered") as fault:
        nights.check_cuts(source, [day(-3), day(60)], timedelta(days=30))
    last = re.search(r"cuts up to (\S+)", str(fault.value))
    assert last is not None
    nights.check_cuts(
        source, [datetime.fromisoformat(last[1]).replace(tzinfo=UTC)], timedelta(days=30)
    )


def test_a_source_without_events_is_refused(tmp_path):
    nothing = pa.table({"event_time": pa.array([], TIME), "event_type": pa.array([], pa.string())})
    io.write_arrow(tmp_path / "events", nothing)
    with pytest.raises(Fault, match="has no events"):
        nights.check_cuts(Source("shop", tmp_path, "contract", "", {}), [day(1)], DAYS)


# --- reuse -----------------------------------------------------------------------------------
def test_the_code_of_a_night_is_what_it_imports_and_not_what_judges_it():
    files = {path.relative_to(nights.ROOT).as_posix() for path in nights.closure([nights.ENTRY])}
    assert {"jobs/__main__.py", "jobs/night.py", "jobs/io.py"} <= files
    steps = {
        path.relative_to(nights.ROOT).as_posix()
        for path in nights.closure(["jobs.retrieval.candidates"])
    }
    assert {"jobs/retrieval/als.py", "jobs/retrieval/sources/pools.py"} <= steps
    assert not {"jobs/evaluation/baselines.py", "jobs/pages/docs.py"} & (files | steps)
    assert nights.code_of_night() == nights.code_of_night()


def test_a_night_is_taken_only_where_nothing_it_was_made_of_has_changed(tmp_path):
    lake = nights.lake_of(tmp_path, "a/b:c", day(0))
    made = Made("a/b:c", "s", "2024-03-01", "2024-03-29", {"candidates": {"depth": 5}}, "code")
    assert not nights.is_made(lake, made)
    io.write_json(lake.root / "night.json", made.__dict__)
    assert nights.is_made(lake, made)
    for change in ({"state": "t"}, {"params": {}}, {"code": "other"}, {"until": "2024-03-30"}):
        assert not nights.is_made(lake, Made(**(made.__dict__ | change)))


def test_cuts_share_the_conversions_of_a_source_and_nothing_else(tmp_path):
    one, other = (nights.lake_of(tmp_path, "shop", day(n)) for n in (0, 1))
    (one.root / "sources" / "x").mkdir()
    assert (other.root / "sources" / "x").is_dir()
    assert one.root != other.root
    assert nights.lake_of(tmp_path, "shop", day(0)).root == one.root


def test_a_folder_whose_files_changed_is_another_source(tmp_path):
    source = Source("shop", tmp_path, "contract", "", {})
    io.write_arrow(tmp_path / "events", pa.table({"a": [1]}))
    before = nights.state_of(source)
    assert nights.state_of(source) == before
    io.write_arrow(tmp_path / "events", pa.table({"a": [1, 2]}), part=1)
    assert nights.state_of(source) != before
    assert nights.state_of(Source("x", Path("sources/x/d1"), "x", "1", {})) == "d1"


# --- what came after -------------------------------------------------------------------------
def test_purchases_after_the_cut_belong_to_the_persons_known_at_it(session):
    rows = [
        ("account", "1", "account:1", "a", "purchase", day(0), 2.0, "x"),
        ("account", "1", "account:1", "a", "purchase", day(2), 3.0, "y"),
        ("account", "1", "account:1", "a", "view", day(2), None, None),
        ("account", "1", "account:1", "a", "purchase", day(-1), 9.0, "w"),
        ("account", "1", "account:1", "a", "purchase", day(7), 9.0, "z"),
        # A cookie that was a person of its own at the cut and was merged later.
        ("cookie", "c", "account:1", "b", "purchase", day(1), None, "u"),
        # A key that nobody knew then, of a person whom somebody knew, and of a stranger.
        ("cookie", "d", "account:1", "e", "purchase", day(1), 1.0, "v"),
        ("cookie", "f", "account:9", "e", "purchase", day(1), 1.0, "t"),
    ]
    later = session.createDataFrame(
        [(*row, "key") for row in rows],
        "key_type string, key string, person_id string, item_id string, event_type string, "
        "event_time timestamp, value double, basket string, resolved_by string",
    )  # fmt: skip
    keyed = session.createDataFrame(
        [("account", "1", "account:1"), ("cookie", "c", "cookie:c")],
        "key_type string, key string, person_id string",
    )
    found = nights.bought_after(later, keyed, day(0), day(7)).toArrow()
    assert sorted(tuple(row.values()) for row in found.to_pylist()) == [
        ("account:1", "a", 5.0, 2), ("account:1", "e", 1.0, 1), ("cookie:c", "b", 0.0, 1),
    ]  # fmt: skip
