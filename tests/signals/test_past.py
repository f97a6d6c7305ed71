"""The past as arrays: everything before the instant, nothing from it on."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa

from jobs import io
from jobs.signals import past
from jobs.signals.past import BOUGHT, Record
from jobs.tables import EVENT_TYPES
from tests.conftest import AS_OF
from tests.signals.pasts import past_of, table

ITEMS = pa.array(["bread", "milk"])


def record(folder, *rows: tuple, parts: int = 1) -> Record:
    """A record whose rows lie in so many files, sorted by person."""
    rows_ = table(*rows).sort_by([("person_id", "ascending"), ("event_time", "ascending")])
    size = -(-rows_.num_rows // parts)
    for number in range(parts):
        io.write_arrow(folder / "history", rows_.slice(number * size, size), number)
    return Record(folder / "history", AS_OF, ITEMS)


def test_events_stand_by_person_item_and_time_with_their_age_in_days():
    found = past_of(("q", "milk", "view", 1.5), ("p", "milk", "purchase", 3),
                    ("p", "bread", "purchase", 2), ("p", "milk", "purchase", 10))  # fmt: skip
    assert found.person.tolist() == [0, 0, 0, 1]
    assert found.item.tolist() == [0, 1, 1, 1]
    assert found.age.tolist() == [2.0, 10.0, 3.0, 1.5]
    assert [EVENT_TYPES[kind] for kind in found.kind] == ["purchase"] * 3 + ["view"]


def test_nothing_is_read_that_happened_or_came_at_the_instant_or_later(tmp_path):
    late = {"received_time": AS_OF}
    made = record(
        tmp_path, ("p", "milk", "purchase", 2), ("p", "bread", "purchase", 0),
        ("p", "bread", "purchase", -1), ("p", "bread", "purchase", 5, late),
    )  # fmt: skip
    found = made.of(pa.array(["p"]))
    assert found.item.tolist() == [1]
    assert found.age.tolist() == [2.0]


def test_what_was_unknown_at_the_instant_is_left_out(tmp_path):
    made = record(tmp_path, ("p", "milk", "purchase", 2), ("p", "novelty", "purchase", 3))
    assert made.of(pa.array(["p"])).item.tolist() == [1]


def test_a_block_holds_its_people_whole_whatever_file_they_lie_in(tmp_path):
    rows = [(f"p{n % 5}", "milk", "purchase", 1 + n) for n in range(20)]
    made = record(tmp_path, *rows, parts=4)
    people = pa.array([f"p{n}" for n in range(5)])
    blocks = list(made.blocks(people, size=2))
    assert [block.n_people for block in blocks] == [2, 2, 1]
    assert [len(block.age) for block in blocks] == [8, 8, 4]
    whole = made.of(people)
    assert [age for block in blocks for age in block.age] == whole.age.tolist()


def test_what_tells_of_purchases_is_read_alone(tmp_path):
    rows = [("p", "milk", kind, days) for days, kind in enumerate(EVENT_TYPES, start=1)]
    (block,) = record(tmp_path, *rows).blocks(pa.array(["p"]), BOUGHT)
    assert sorted(EVENT_TYPES[kind] for kind in block.kind) == ["purchase", "reject", "return"]


def test_people_without_a_past_are_nobody_elses(tmp_path):
    made = record(tmp_path, ("a", "milk", "purchase", 2), ("c", "milk", "purchase", 3))
    found = made.of(pa.array(["a", "b", "c"]))
    assert found.person.tolist() == [0, 2]
    assert len(made.of(pa.array(["b"])).age) == 0
    assert len(made.of(pa.array([], pa.string())).age) == 0


def test_baskets_of_two_people_are_two_whatever_their_names():
    same = {"basket": "till 1"}
    found = past_of(("p", "milk", "purchase", 2, same), ("q", "milk", "purchase", 2, same))
    assert found.basket[0] != found.basket[1]


def test_a_purchase_that_went_back_is_not_kept_and_a_later_one_is():
    found = past.kept_purchases(past_of(
        ("p", "milk", "purchase", 9), ("p", "milk", "return", 8), ("p", "milk", "purchase", 2),
        ("p", "bread", "purchase", 9), ("p", "bread", "reject", 1),
        ("q", "bread", "purchase", 9), ("q", "milk", "view", 1),
    ))  # fmt: skip
    assert list(zip(found.person, found.item, found.age, strict=True)) == [(0, 1, 2.0), (1, 0, 9.0)]


def test_an_as_of_within_a_day_counts_its_hours(tmp_path):
    made = record(tmp_path, ("p", "milk", "purchase", 2))
    later = Record(made.folder, AS_OF + timedelta(hours=6), ITEMS)
    assert later.of(pa.array(["p"])).age.tolist() == [2.25]
