"""Which rows of a source count, and why the others do not."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs.signals import events, judging
from jobs.sources import contract
from tests.conftest import AS_OF

NOON = datetime(2017, 11, 30, 12, tzinfo=UTC)


def row(event_id: str, **changes) -> dict:
    """A sound purchase, with changes."""
    return {
        "event_id": event_id, "event_time": NOON, "key_type": "account", "key": "a",
        "event_type": "purchase", "item_id": "milk", "quantity": 1.0, "value": 2.5,
    } | changes  # fmt: skip


def judged(session, rows, params=None) -> pa.Table:
    """The rows with their outcomes, of which Spark and Arrow say the same, in whatever order."""
    raw = pa.Table.from_pylist(list(rows), contract.schema("events"))
    params = params or events.Params()
    found = judging.judge(raw, AS_OF, params)
    frame = session.createDataFrame(raw).coalesce(1)
    by_spark = events.judge(frame, AS_OF, params).toArrow().cast(found.schema)
    ours, theirs = (Counter(map(repr, one.to_pylist())) for one in (found, by_spark))
    assert ours == theirs
    return found


@pytest.fixture
def judge(session):
    """Outcomes by event id; an id with several deliveries lists theirs, sorted."""

    def run(*rows: dict, **params) -> dict[str, list[str]]:
        outcomes: dict[str, list[str]] = {}
        for one in judged(session, rows, events.Params(**params)).to_pylist():
            outcomes.setdefault(one["event_id"], []).append(one["outcome"])
        return {name: sorted(found) for name, found in outcomes.items()}

    return run


def test_a_blank_session_is_none(session):
    rows = [row(f"e{n}", session_id=name) for n, name in enumerate(("", "  ", "s"))]
    found = judged(session, rows).to_pylist()
    assert {one["event_id"]: one["session_id"] for one in found} == {
        "e0": None, "e1": None, "e2": "s",
    }  # fmt: skip


def test_each_impossible_row_is_quarantined_with_its_reason(judge):
    found = judge(
        row("good"),
        row("no key", key=None),
        row("blank key", key="  "),
        row("no key type", key_type=None),
        row("no item", item_id=""),
        row("no time", event_time=None, received_time=NOON),
        row("future", event_time=datetime(2018, 2, 1, tzinfo=UTC), received_time=NOON),
        row("clocks", event_time=NOON, received_time=NOON - timedelta(minutes=6)),
        row("tolerated", event_time=NOON, received_time=NOON - timedelta(minutes=4)),
        row("negative", value=-0.01),
        row("nothing", quantity=0.0),
        row("nan", value=float("nan")),
        row("type", event_type="wish"),
    )
    assert found == {
        "good": ["kept"],
        "no key": ["rejected: no_key"],
        "blank key": ["rejected: no_key"],
        "no key type": ["rejected: no_key"],
        "no item": ["rejected: no_item"],
        "no time": ["rejected: no_time"],
        "future": ["rejected: time_in_the_future"],
        "clocks": ["rejected: time_in_the_future"],
        "tolerated": ["kept"],
        "negative": ["rejected: negative_price"],
        "nothing": ["rejected: quantity_not_positive"],
        "nan": ["rejected: not_a_number"],
        "type": ["rejected: unknown_type"],
    }


def test_an_equal_repeat_is_a_duplicate_and_an_older_revision_is_superseded(judge):
    found = judge(
        row("twice"), row("twice"),
        row("mended", value=1.0), row("mended", value=2.0, revision=2),
        row("mended", value=1.5, revision=1),
    )  # fmt: skip
    assert found == {
        "twice": ["duplicate", "kept"],
        "mended": ["kept", "superseded", "superseded"],
    }


def test_the_newest_revision_received_by_then_counts(session):
    later = datetime(2017, 12, 2, tzinfo=UTC)
    rows = [
        row("e", value=1.0),
        row("e", value=2.0, revision=1, received_time=NOON),
        row("e", value=3.0, revision=2, received_time=later),
    ]
    kept = judged(session, rows).filter(pc.field("outcome") == "kept").to_pylist()
    assert [(one["value"], one["revision"]) for one in kept] == [(2.0, 1)]


@pytest.mark.parametrize(
    "name", ["key_type", "session_id", "channel", "region", "campaign", "request_id"]
)
def test_of_deliveries_that_differ_in_one_column_a_rerun_takes_the_same(session, name):
    rows = [row("e", **{name: value}) for value in ("b", "a", None) if value or name != "key_type"]
    found = []
    for given in (rows, rows[::-1]):
        kept = judged(session, given).filter(pc.field("outcome") == "kept")
        found.append(kept[name].to_pylist())
    assert found == [["a"], ["a"]]


def test_an_event_was_first_received_with_its_earliest_delivery_known_by_then(session):
    early, late = NOON - timedelta(hours=5), AS_OF + timedelta(hours=1)
    rows = [
        row("mended", event_time=early, received_time=NOON, revision=1),
        row("mended", event_time=early, received_time=early),
        row("mended", event_time=early, received_time=late, revision=2),
        row("once", received_time=NOON, campaign="spring"),
        row("no clock"),
    ]
    kept = judged(session, rows).filter(pc.field("outcome") == "kept").to_pylist()
    found = {one["event_id"]: (one["received_time"], one["first_received"]) for one in kept}
    assert found == {"mended": (NOON, early), "once": (NOON, NOON), "no clock": (NOON, NOON)}
    assert {one["event_id"]: one["campaign"] for one in kept}["once"] == "spring"


def test_late_data_is_accepted_by_its_received_time(judge):
    late = datetime(2017, 11, 20, tzinfo=UTC)
    found = judge(
        row("late", event_time=late, received_time=NOON),
        row("too late", event_time=late, received_time=AS_OF),
        row("not yet", event_time=datetime(2017, 12, 1, tzinfo=UTC)),
    )
    assert found == {
        "late": ["kept_late"],
        "too late": ["not_yet_received"],
        "not yet": ["not_yet_received"],
    }


def test_a_key_with_the_volume_of_a_bot_is_quarantined_for_that_day_only(judge):
    day_before = datetime(2017, 11, 29, 12, tzinfo=UTC)
    busy = [row(f"bot {i}", key="bot") for i in range(4)]
    found = judge(
        *busy, row("calm day", key="bot", event_time=day_before), row("other"),
        max_events_per_key_day=3,
    )  # fmt: skip
    assert {name: found[name] for name in ("calm day", "other")} == {
        "calm day": ["kept"],
        "other": ["kept"],
    }
    assert all(found[f"bot {i}"] == ["rejected: bot_like_volume"] for i in range(4))


def test_hostile_strings_come_through_as_they_are(session):
    hostile = "../../etc/passwd\n'; DROP TABLE events; -- \u202e\u00e9\U0001f95b"
    kept = judged(session, [row(hostile, item_id=hostile)]).to_pylist()
    assert [(one["event_id"], one["item_id"]) for one in kept] == [(hostile, hostile)]


@pytest.mark.parametrize("seed", range(3))
def test_drawn_deliveries_are_judged_alike_by_spark_and_arrow(session, seed):
    random = np.random.default_rng(seed)

    def one_of(*values):
        return values[random.integers(len(values))]

    def at():
        return AS_OF + timedelta(hours=int(random.integers(-60, 4)))

    often = 12  # sound values for one that is not
    rows = [
        row(
            one_of(*(f"e{n}" for n in range(600)), None, " "),
            event_time=one_of(*[at()] * often, None), received_time=one_of(*[at()] * often, None),
            revision=one_of(0, 1, 2, None), key=one_of(*"abc" * often, " ", None),
            key_type=one_of("account", "cookie"), session_id=one_of("s", "t", " ", None),
            item_id=one_of(*["milk", "rye"] * often, "", None),
            event_type=one_of(*["purchase", "view"] * often, "wish", None),
            quantity=one_of(*[1.0, 2.0, None] * often, 0.0, float("nan")),
            value=one_of(*[2.5, -0.0, None] * often, -1.0, float("nan")),
            channel=one_of("web", None),
        )
        for _ in range(900)
    ]  # fmt: skip
    params = events.Params(max_events_per_key_day=6, late_after_hours=6)
    found = judged(session, rows, params)
    outcomes = {*found["outcome"].to_pylist()}
    assert {"kept", "kept_late", "duplicate", "superseded", "not_yet_received"} <= outcomes
    assert {f"rejected: {name}" for name in ("bot_like_volume", "no_time", "no_key")} <= outcomes


def test_no_delivery_is_judged_to_nothing():
    none = contract.schema("events").empty_table()
    assert judging.judge(none, AS_OF, events.Params()).num_rows == 0


def test_volume_holds_the_newest_day_against_the_same_weekday():
    thursdays = [date(2017, 11, 9), date(2017, 11, 16), date(2017, 11, 23)]
    days = [*thursdays, thursdays[0], date(2017, 11, 30), date(2017, 11, 29)]
    found = events.volume(np.array(days, "datetime64[D]"), AS_OF, weeks=26).to_pylist()[0]
    assert (found["day"], found["weekday"]) == (date(2017, 11, 30), 4)
    assert (found["rows"], found["history_days"], found["history_median"]) == (1, 3, 1.0)
    assert found["ratio"] == 1.0


def test_an_empty_newest_day_has_ratio_0():
    days = np.array([date(2017, 11, 16), date(2017, 11, 23)], "datetime64[D]")
    found = events.volume(days, AS_OF, weeks=26).to_pylist()[0]
    assert (found["rows"], found["ratio"]) == (0, 0.0)
