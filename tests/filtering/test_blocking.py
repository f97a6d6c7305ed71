"""Pairs that a person should not see for now, on histories small enough to judge by eye."""

from __future__ import annotations

import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from jobs import io
from jobs.filtering import blocking
from jobs.filtering.blocking import Gaps
from jobs.filtering.filters import Params
from jobs.signals.past import Record
from jobs.signals.shop import Catalogue
from jobs.tables import TABLES
from tests.filtering.test_filters import AS_OF, catalogue


def history(rows: list[tuple]) -> pa.Table:
    """Events as (person, item, type, day of 2017, quantity), in the order of persons."""
    made = []
    for place, (person, item, kind, day, quantity) in enumerate(sorted(rows)):
        at = datetime(2017, 1, 1, 12, tzinfo=UTC) + timedelta(days=day - 1)
        made.append({
            "event_id": f"e{place}", "person_id": person, "item_id": item, "event_type": kind,
            "event_time": at, "received_time": at, "session": f"s{place}", "basket": f"b{place}",
            "quantity": float(quantity), "event_date": at.date(), "resolved_by": "key",
            "key_type": "account", "key": person,
        })  # fmt: skip
    return pa.Table.from_pylist(made, TABLES["history"].schema)


def blocked(rows: list[tuple], items: pa.Table | None = None, **chosen) -> list[tuple]:
    """Blocks as (person, item, reason, since's date, until's date), sorted."""
    known = (
        catalogue([{"item_id": i} for i in sorted({r[1] for r in rows})])
        if items is None
        else items
    )
    people = pa.array(sorted({row[0] for row in rows}))
    of_items = Catalogue.of(known)
    with tempfile.TemporaryDirectory() as folder:
        io.write_arrow(Path(folder), history(rows))
        record = Record(Path(folder), AS_OF, of_items.ids)
        found = blocking.blocked_pairs(record, people, of_items.narrow, Params(**chosen))
    assert found.schema == TABLES["blocked_pairs"].schema
    return sorted(
        (
            row["person_id"], row["item_id"], row["reason"], row["since"].date(),
            row["until"].date() if row["until"] else None,
        )
        for row in found.to_pylist()
    )  # fmt: skip


def test_an_item_that_went_back_whole_is_blocked_and_a_part_of_it_is_not():
    rows = [
        ("whole", "x", "purchase", 300, 2), ("whole", "x", "return", 305, 2),
        ("part", "x", "purchase", 300, 2), ("part", "x", "return", 305, 1),
        ("again", "x", "purchase", 300, 1), ("again", "x", "return", 305, 1),
        ("again", "x", "purchase", 310, 1),
        ("before", "x", "return", 305, 1),
        ("pieces", "x", "purchase", 300, 0.3), ("pieces", "x", "return", 305, 0.1),
        ("pieces", "x", "return", 306, 0.2),
    ]  # fmt: skip
    assert blocked(rows) == [
        ("before", "x", "returned", date(2017, 11, 1), None),
        ("pieces", "x", "returned", date(2017, 11, 2), None),
        ("whole", "x", "returned", date(2017, 11, 1), None),
    ]


def test_a_reject_blocks_until_the_item_is_bought():
    rows = [
        ("no", "x", "reject", 305, 1),
        ("changed", "x", "reject", 305, 1), ("changed", "x", "purchase", 306, 1),
        ("viewed", "x", "reject", 305, 1), ("viewed", "x", "view", 306, 1),
    ]  # fmt: skip
    assert [row[:3] for row in blocked(rows)] == [
        ("no", "x", "rejected"), ("viewed", "x", "rejected"),
    ]  # fmt: skip


def slow_item(item: str, gap: int, buyers: int, last: int = 200) -> list[tuple]:
    """``buyers`` people who buy the item twice, ``gap`` days apart, the second on day ``last``."""
    return [
        (f"{item}-buyer{n}", item, "purchase", day, 1)
        for n in range(buyers)
        for day in (last - gap, last)
    ]


NEWEST = 331  # 2017-11-27; as_of is 2017-12-01, day 335


def test_just_bought_blocks_for_the_items_low_gap_after_the_last_purchase_day():
    rows = [*slow_item("soap", 20, 5), ("ann", "soap", "purchase", NEWEST, 1)]
    assert blocked(rows, repurchase_min_gaps=5) == [
        ("ann", "soap", "just_bought", date(2017, 11, 27), date(2017, 12, 17))
    ]
    over = [*slow_item("soap", 20, 5), ("ann", "soap", "purchase", NEWEST - 16, 1)]
    assert blocked(over, repurchase_min_gaps=5) == []


def test_an_item_bought_week_by_week_or_with_too_few_gaps_is_never_just_bought():
    weekly = [*slow_item("milk", 7, 5), ("ann", "milk", "purchase", NEWEST, 1)]
    assert blocked(weekly, repurchase_min_gaps=5) == []
    few = [*slow_item("soap", 20, 4), ("ann", "soap", "purchase", NEWEST, 1)]
    assert blocked(few, repurchase_min_gaps=5) == []


def test_a_category_speaks_for_an_item_with_too_few_gaps_of_its_own():
    items = catalogue([
        {"item_id": "soap", "category": "CLEANING"}, {"item_id": "bleach", "category": "CLEANING"},
        {"item_id": "tape"},
    ])  # fmt: skip
    rows = [
        *slow_item("soap", 20, 5),
        ("ann", "bleach", "purchase", NEWEST, 1),
        ("ann", "tape", "purchase", NEWEST, 1),
    ]
    assert [row[:3] for row in blocked(rows, items, repurchase_min_gaps=5)] == [
        ("ann", "bleach", "just_bought")
    ]


def test_who_buys_an_item_faster_than_the_others_is_blocked_for_the_own_gap_only():
    rows = slow_item("soap", 20, 30)
    rows += [("eve", "soap", "purchase", day, 1) for day in (NEWEST - 5, NEWEST)]
    assert blocked(rows, repurchase_min_gaps=5) == [
        ("eve", "soap", "just_bought", date(2017, 11, 27), date(2017, 12, 2))
    ]


def test_the_low_gap_is_the_exact_lower_quantile():
    random_gaps = np.random.default_rng(5).integers(1, 60, 40).tolist()
    chosen = Params(repurchase_min_gaps=1, repurchase_min_days=1, repurchase_quantile=0.35)
    gaps = Gaps()
    for some in (random_gaps[:25], random_gaps[25:]):
        gaps.add(np.zeros(len(some), np.int64), np.array(some))
    found = blocking.waits(gaps, np.array([-1]), chosen)
    assert found.tolist() == [int(np.quantile(random_gaps, 0.35, method="lower"))]


def test_each_items_low_gap_is_its_own_or_its_categorys_whoever_stands_beside_it():
    random = np.random.default_rng(8)
    category = np.array([0, 1, 0, -1, 1, -1, 2])
    of = [random.integers(1, 90, size).tolist() for size in (37, 4, 2, 3, 23, 51, 0)]
    chosen = Params(repurchase_min_gaps=20, repurchase_min_days=5, repurchase_quantile=0.137,
                    repurchase_max_days=60)  # fmt: skip
    gaps = Gaps()
    for item, days in enumerate(of):
        gaps.add(np.full(len(days), item), np.array(days, np.int64))
    expected = []
    for item, days in enumerate(of):
        beside = [other for other in range(len(of)) if category[other] == category[item] >= 0]
        shared = [gap for other in beside for gap in of[other]]
        told = days if len(days) >= 20 else shared
        low = int(np.quantile(told, 0.137, method="lower")) if len(told) >= 20 else 0
        expected.append(min(low, 60) if low >= 5 else 0)
    assert blocking.waits(gaps, category, chosen).tolist() == expected
    assert len(set(expected)) > 3


def test_days_are_what_lies_between_and_a_moment_says_which_came_last():
    rows = [
        # Twice on a day is no gap; what went back in between makes none either.
        ("a", "x", "purchase", 300, 1), ("a", "x", "purchase", 300, 1),
        ("a", "x", "return", 310, 1), ("a", "x", "purchase", 331, 1),
        ("b", "y", "purchase", 331, 2), ("b", "y", "return", 331, 2),
    ]  # fmt: skip
    chosen = {"repurchase_min_gaps": 1, "repurchase_min_days": 1}
    assert blocked(rows, **chosen) == [
        ("a", "x", "just_bought", date(2017, 11, 27), date(2017, 12, 28)),
        ("b", "y", "returned", date(2017, 11, 27), None),
    ]


def test_what_nobody_known_did_to_what_nobody_knows_is_left_out(tmp_path):
    pairs = (("a", "x"), ("a", "new"), ("z", "x"))
    rows = [(person, item, "reject", 300, 1) for person, item in pairs]
    io.write_arrow(tmp_path, history(rows))
    record = Record(tmp_path, AS_OF, pa.array(["w", "x"]))
    found = blocking.blocked_pairs(record, pa.array(["a", "b"]), np.array([-1, -1]), Params())
    assert [(row["person_id"], row["item_id"]) for row in found.to_pylist()] == [("a", "x")]
    nobody = blocking.blocked_pairs(record, pa.array([], pa.string()), np.array([-1, -1]), Params())
    assert nobody.num_rows == 0


def test_a_block_never_lasts_longer_than_its_ceiling():
    rows = [*slow_item("tv", 190, 5), ("ann", "tv", "purchase", NEWEST, 1)]
    until = blocked(rows, repurchase_min_gaps=5, repurchase_max_days=30)[-1][-1]
    assert until == date(2017, 11, 27) + timedelta(days=30)


def test_people_read_in_blocks_are_blocked_as_all_at_once(monkeypatch):
    random = np.random.default_rng(3)
    kinds = ("purchase", "purchase", "purchase", "return", "reject", "view")
    rows = [
        (f"p{random.integers(40):02d}", f"i{random.integers(6)}", kinds[random.integers(6)],
         int(random.integers(200, 335)), 1)
        for _ in range(2_000)
    ]  # fmt: skip
    chosen = {"repurchase_min_gaps": 5, "repurchase_min_days": 1, "repurchase_quantile": 0.5}
    whole = blocked(rows, **chosen)
    assert {row[2] for row in whole} == {"returned", "rejected", "just_bought"}
    monkeypatch.setattr(blocking, "BLOCK", 7)
    assert blocked(rows, **chosen) == whole


def test_gaps_counted_little_by_little_are_those_counted_at_once():
    random = np.random.default_rng(4)
    item, days = random.integers(0, 9, 5_000), random.integers(1, 30, 5_000)
    once, often = Gaps(), Gaps()
    once.add(item, days)
    for first in range(0, 5_000, 100):
        often.add(item[first : first + 100], days[first : first + 100])
        often.counted()
    for left, right in zip(once.counted(), often.counted(), strict=True):
        np.testing.assert_array_equal(left, right)
    assert once.counted()[2].sum() == 5_000


def test_nobody_and_nothing_are_blocked_for_nothing():
    assert blocked([("a", "x", "view", 300, 1)]) == []
