"""How events become intent."""

from __future__ import annotations

import math
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from jobs import io
from jobs.signals import interactions
from jobs.signals.past import Record
from jobs.tables import EVENT_TYPES, TIME
from tests.conftest import AS_OF

SCHEMA = pa.schema([
    ("person_id", pa.string()), ("item_id", pa.string()), ("event_type", pa.string()),
    ("event_time", TIME), ("received_time", TIME), ("value", pa.float64()),
])  # fmt: skip


def record(folder, *events) -> Record:
    """A history of (person, item, type, days ago, value) events, each received when it happened."""
    rows = [
        (person, item, kind, *[AS_OF - timedelta(days=days)] * 2, value)
        for person, item, kind, days, value in sorted(events, key=lambda event: event[0])
    ]
    columns = [pa.array(column, field.type)
               for column, field in zip(zip(*rows, strict=True), SCHEMA, strict=True)]  # fmt: skip
    io.write_arrow(folder, pa.table(columns, schema=SCHEMA))
    return Record(folder, AS_OF, pa.array(sorted({item for _, item, *_ in events})))


@pytest.fixture
def weigh(tmp_path):
    """The weight of each item of one person, from (item, type, days ago, value) events."""

    def run(*events, **params) -> dict[str, float]:
        made = record(tmp_path, *[("p", *event) for event in events])
        found = interactions.interactions(made, pa.array(["p"]), interactions.Params(**params))
        return {row["item_id"]: row["weight"] for row in found.to_pylist()}

    return run


def test_a_pair_is_counted_with_its_first_and_last_event(tmp_path):
    made = record(
        tmp_path, ("a", "x", "view", 9, None), ("a", "x", "purchase", 5, 3.0),
        ("a", "x", "return", 4, 3.0), ("a", "x", "purchase", 2, 3.0), ("b", "x", "view", 1, None),
        ("a", "y", "view", 0, None),
    )  # fmt: skip
    (a, b) = interactions.of_everybody(
        made, pa.array(["a", "b", "c"]), interactions.Params()
    ).to_pylist()
    days = [AS_OF - timedelta(days=days) for days in (9, 2)]
    assert (a["person_id"], a["events"], a["purchases"]) == ("a", 4, 1.0)
    assert [a["first_time"], a["last_time"]] == days
    assert (b["person_id"], b["events"], b["purchases"], b["weight"]) == ("b", 1, 0.0, 0.03)


def test_people_in_blocks_have_the_rows_of_all_at_once(tmp_path, monkeypatch):
    random = np.random.default_rng(1)
    made = record(tmp_path, *[
        (f"p{random.integers(30):02d}", f"i{random.integers(9)}",
         EVENT_TYPES[random.integers(len(EVENT_TYPES))], float(random.uniform(0.1, 300)),
         float(random.uniform(0, 50)))
        for _ in range(900)
    ])  # fmt: skip
    people = pa.array([f"p{number:02d}" for number in range(30)])
    whole = interactions.of_everybody(made, people, interactions.Params())
    assert 50 < whole.num_rows < 270, "what went back has no row"
    monkeypatch.setattr(interactions, "BLOCK", 4)
    assert interactions.of_everybody(made, people, interactions.Params()).equals(whole)


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
