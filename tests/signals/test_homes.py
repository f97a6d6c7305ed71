"""What those who live with a person bought is theirs, and a measure of the person's pairs."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.signals import measures
from jobs.signals.homes import Homes
from tests.signals.pasts import equal, past_of

ITEMS = ["bread", "milk", "tea"]
BREAD, MILK, TEA = 0, 1, 2
PEOPLE = ["ann", "ben", "cid", "dot", "eve"]
HOMES = {"ann": "ann", "ben": "ann", "cid": "ann", "dot": "dot", "eve": "eve"}


def homes(refused: str = "") -> Homes:
    names = PEOPLE[::-1]
    return Homes.of(pa.table({
        "person_id": names, "household_id": [HOMES[name] for name in names],
        "personalised": [name != refused for name in names],
    }))  # fmt: skip


def watched(*rows: tuple, blocks: int = 2, refused: str = "") -> Homes:
    made = homes(refused)
    people = made.people.to_pylist()
    parts = [people[first : first + blocks] for first in range(0, len(people), blocks)]
    pasts = [
        past_of(*[row for row in rows if row[0] in part], people=part, items=ITEMS)
        for part in parts
    ]
    assert list(made.watching(pasts)) == pasts, "who reads them gets what there was"
    return made


def pair(made: Homes, person: str, item: int) -> dict[str, float]:
    found = made.mates(pa.array([person]), len(ITEMS)).pairs.at(np.array([item]))
    return {name: float(column[0]) for name, column in found.items()}


def test_the_others_purchases_are_a_measure_of_the_pair_and_ones_own_are_not():
    made = watched(
        ("ann", "milk", "purchase", 60), ("ann", "milk", "purchase", 6),
        ("ben", "milk", "purchase", 120), ("ben", "tea", "purchase", 3), ("cid", "tea", "view", 1),
        ("dot", "milk", "purchase", 1),
    )  # fmt: skip
    of_ann, of_ben, of_cid = (pair(made, name, MILK) for name in ("ann", "ben", "cid"))
    assert of_ann == {"h_decayed_60": 0.25, "h_days_since": 120}
    assert of_ben == {"h_decayed_60": pytest.approx(0.5 + 2**-0.1), "h_days_since": 6}
    assert of_cid == {"h_decayed_60": pytest.approx(0.75 + 2**-0.1), "h_days_since": 6}
    assert pair(made, "ben", TEA)["h_decayed_60"] == 0, "one's own, and another's look, are none"
    assert math.isnan(pair(made, "ben", TEA)["h_days_since"])


def test_who_lives_alone_has_no_mates():
    made = watched(("dot", "milk", "purchase", 1), ("eve", "milk", "purchase", 1))
    found = made.mates(pa.array(PEOPLE), len(ITEMS))
    assert found.persons["h_mates"].tolist() == [2, 2, 2, 0, 0]
    assert len(found.pairs.key) == 0
    assert {*found.persons, *found.pairs.values} == set(measures.HOUSEHOLD)


def test_who_refused_lends_nothing_and_borrows_nothing():
    bought = [("ben", "milk", "purchase", 60), ("cid", "tea", "purchase", 60)]
    made = watched(*bought, refused="ann")
    assert pair(made, "ann", MILK)["h_decayed_60"] == 0
    assert pair(made, "cid", MILK)["h_decayed_60"] == 0.5
    assert made.mates(pa.array(PEOPLE), len(ITEMS)).persons["h_mates"].tolist() == [0, 1, 1, 0, 0]
    # Their events are in no history; were one there, it would be nobody's measure.
    strange = watched(("ann", "milk", "purchase", 60), *bought, refused="ann")
    assert pair(strange, "cid", MILK)["h_decayed_60"] == 0.5


def test_a_shop_without_people_has_no_homes():
    nobody = pa.array([], pa.string())
    none = Homes.of(pa.table({
        "person_id": nobody, "household_id": nobody, "personalised": pa.array([], pa.bool_()),
    }))  # fmt: skip
    assert len(none.mates(nobody, len(ITEMS)).pairs.key) == 0


purchases = st.lists(
    st.tuples(
        st.sampled_from(PEOPLE), st.sampled_from(ITEMS), st.just("purchase"), st.integers(1, 90)
    ),
    max_size=30,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(purchases, st.integers(1, 5))
def test_every_pair_is_what_counting_by_hand_gives_whatever_the_blocks(rows, blocks):
    made = watched(*rows, blocks=blocks)
    for person in PEOPLE:
        for number, item in enumerate(ITEMS):
            days = {
                (who, day)
                for who, what, _, day in rows
                if what == item and who != person and HOMES[who] == HOMES[person]
            }
            found = pair(made, person, number)
            assert found["h_decayed_60"] == pytest.approx(sum(2 ** (-day / 60) for _, day in days))
            if days:
                assert found["h_days_since"] == min(day for _, day in days)
    alone, together = (made.mates(pa.array(who), len(ITEMS)) for who in (["cid"], PEOPLE))
    keys = np.arange(len(ITEMS))
    equal(alone.pairs.at(keys), together.pairs.at(keys + 2 * len(ITEMS)))
