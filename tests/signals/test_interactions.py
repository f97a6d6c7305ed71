"""How events become intent."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from jobs.signals import interactions
from tests.conftest import AS_OF

SCHEMA = (
    "person_id string, item_id string, event_type string, event_time timestamp, "
    "received_time timestamp, value double"
)


@pytest.fixture
def weigh(session):
    """The weight of each item of one person, from (item, type, days ago, value) events."""

    def run(*events, **params) -> dict[str, float]:
        rows = [
            ("p", item, kind, AS_OF - timedelta(days=days), AS_OF - timedelta(days=days), value)
            for item, kind, days, value in events
        ]
        found = interactions.interactions(
            session.createDataFrame(rows, SCHEMA), AS_OF, interactions.Params(**params)
        )
        return {row["item_id"]: row["weight"] for row in found.toArrow().to_pylist()}

    return run


def test_a_purchase_says_more_than_a_cart_and_far_more_than_a_view(weigh):
    found = weigh(("p", "purchase", 1, None), ("c", "add_to_cart", 1, None), ("v", "view", 1, None))
    assert found["p"] > found["c"] > 10 * found["v"] > 0


def test_the_last_week_counts_3_to_5_times_old_behaviour_and_falls_smoothly(weigh):
    found = weigh(*[(str(day), "purchase", day, None) for day in (1, 7, 8, 30, 365)])
    assert found["1"] == found["7"] == pytest.approx(1.0)
    assert 0.95 < found["8"] < 1.0
    assert 3 <= found["1"] / found["365"] <= 5
    assert found["8"] > found["30"] > found["365"]


def test_value_counts_by_its_logarithm(weigh):
    found = weigh(("cheap", "purchase", 1, 1.0), ("dear", "purchase", 1, 100.0))
    assert found["dear"] / found["cheap"] == pytest.approx(
        (1 + 0.1 * math.log(101)) / (1 + 0.1 * math.log(2))
    )


def test_what_went_back_leaves_no_intent(weigh):
    assert weigh(
        ("kept", "purchase", 3, 5.0),
        ("returned", "purchase", 3, 5.0), ("returned", "return", 2, 5.0),
        ("rejected", "view", 2, None), ("rejected", "reject", 1, None),
    ).keys() == {"kept"}  # fmt: skip
