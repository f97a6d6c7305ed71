"""The time from the first signal to the purchase, against the time to serving."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa
import pytest

from jobs.signals.audits import conversion
from jobs.signals.audits.audits import Params
from tests.conftest import AS_OF

HISTORY = (
    "event_id string, person_id string, item_id string, event_type string, event_time timestamp, "
    "received_time timestamp, value double"
)
ITEMS = [("sofa", "Home > Sofas"), ("milk", "Food > Dairy"), ("odd", None)]


@pytest.fixture
def history(session):
    """Events of (person, item, type, hours before the run date, value), received at once."""

    def make(*events):
        rows = [
            (f"e{n:03d}", person, item, kind, AS_OF - timedelta(hours=hours),
             AS_OF - timedelta(hours=hours), value)
            for n, (person, item, kind, hours, value) in enumerate(events)
        ]  # fmt: skip
        return session.createDataFrame(rows, HISTORY)

    return make


@pytest.fixture
def items(session):
    return session.createDataFrame(ITEMS, "item_id string, category string")


def found(frame) -> list[tuple[str, float]]:
    """(item, window in hours) of each conversion."""
    since = AS_OF - timedelta(days=84)
    rows = conversion.conversions(frame, since, 28).toArrow().to_pylist()
    return sorted(
        (row["item_id"], (row["bought"] - row["first"]).total_seconds() / 3600) for row in rows
    )


def test_the_window_runs_from_the_first_signal_since_the_last_purchase(history):
    frame = history(
        ("p", "sofa", "view", 500, None), ("p", "sofa", "purchase", 400, 9.0),
        ("p", "sofa", "view", 300, None), ("p", "sofa", "add_to_cart", 250, None),
        ("p", "sofa", "purchase", 200, 9.0), ("p", "sofa", "view", 100, None),
    )  # fmt: skip
    assert found(frame) == [("sofa", 100.0), ("sofa", 100.0)]


def test_signals_of_other_items_people_or_months_lead_nowhere(history):
    frame = history(
        ("p", "milk", "view", 30, None), ("q", "sofa", "view", 30, None),
        ("p", "sofa", "view", 20 + 24 * 28 + 1, None), ("p", "sofa", "reject", 40, None),
        ("p", "sofa", "purchase", 20, 9.0),
    )  # fmt: skip
    assert found(frame) == []


def test_a_signal_just_within_the_look_back_counts(history):
    frame = history(("p", "sofa", "view", 20 + 24 * 28, None), ("p", "sofa", "purchase", 20, 9.0))
    assert found(frame) == [("sofa", 24.0 * 28)]


def test_a_view_in_the_moment_of_the_purchase_came_before_it(history):
    frame = history(("p", "sofa", "purchase", 20, 9.0), ("p", "sofa", "view", 20, None))
    assert found(frame) == [("sofa", 0.0)]


def test_serving_takes_the_wait_for_the_next_run_date_and_the_night(session):
    rows = [(AS_OF - timedelta(hours=h), AS_OF - timedelta(hours=r)) for h, r in
            ((30, 29), (6, 5), (26, 24), (25, 24.5))]  # fmt: skip
    frame = session.createDataFrame(rows, "first timestamp, received timestamp")
    hours = frame.select(conversion.serving_hours(AS_OF, 2.0, 24.0).alias("h")).toArrow()["h"]
    # 29 h before: waits 5 h. 5 h before: waits 5. At a run date: waits for the next one, 24 h.
    assert hours.to_pylist() == [1 + 5 + 2, 1 + 5 + 2, 2 + 24 + 2, 0.5 + 0.5 + 2]


def decisions(item: str, hours: float, people: int) -> list[tuple]:
    return [
        event
        for n in range(people)
        for event in (
            (f"{item}{n}", item, "view", 60 + hours, None),
            (f"{item}{n}", item, "purchase", 60, 9.0),
        )
    ]  # fmt: skip


def windows(history, items, *events, **params) -> dict[str, dict]:
    rows = conversion.windows(history(*events), items, AS_OF, 2.0, Params(**params)).toArrow()
    return {row["category"]: row for row in rows.to_pylist()}


def test_a_category_decided_before_serving_is_late(history, items):
    events = [*decisions("sofa", 200, 40), *decisions("milk", 1, 40), *decisions("odd", 1, 3)]
    rows = windows(history, items, *events)
    assert {name: row["late"] for name, row in rows.items()} == {
        "Home": False, "Food": True, "": False
    }  # fmt: skip
    food = rows["Food"]
    assert (food["conversions"], food["window_median_hours"], food["decided_before"]) == (40, 1, 1)
    assert food["window_p25_hours"] == food["window_p75_hours"] == 1
    # Viewed 61 h before the run date: 13 h to the next one, and the night's 2.
    assert food["serving_median_hours"] == 15
    assert food["revenue_share"] == pytest.approx(40 / 83)
    assert rows["Home"]["decided_before"] == 0


def test_categories_are_cut_to_the_depth_asked_for(history, items):
    rows = windows(history, items, *decisions("sofa", 5, 2), category_depth=2)
    assert list(rows) == ["Home > Sofas"]


def test_a_shop_that_logs_purchases_alone_has_no_windows():
    days = pa.table({"event_type": ["purchase", "return"]})
    assert not conversion.logs_signals(days)
    row = conversion.none(3.0, 24.0).to_pylist()
    assert [(r["category"], r["conversions"], r["serving_median_hours"]) for r in row] == [
        ("", 0, 15.0)
    ]
