"""What a past says of a person, a pair and a category."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.signals import behaviour, measures
from jobs.signals.behaviour import Lines
from jobs.signals.past import PURCHASE, Past
from tests.signals.pasts import equal, past_of

ITEMS = ["bread", "milk", "tea"]
BREAD, MILK, TEA = 0, 1, 2


def pair(past, person: int, item: int) -> dict[str, float]:
    found = behaviour.pairs(Lines.of(past), len(ITEMS)).at(np.array([person * len(ITEMS) + item]))
    return {name: float(column[0]) for name, column in found.items()}


def test_the_measures_of_a_pair_by_hand():
    past = past_of(
        ("p", "milk", "purchase", 30), ("p", "milk", "purchase", 20), ("p", "milk", "purchase", 6),
        ("p", "bread", "purchase", 25), ("p", "bread", "purchase", 2), items=ITEMS,
    )  # fmt: skip
    found = pair(past, 0, MILK)
    assert found["baskets"] == 3
    assert found["decayed_30"] == pytest.approx(2**-1 + 2 ** (-2 / 3) + 2**-0.2)
    # Of the person's baskets, newest first: bread, milk, milk, bread, milk.
    assert found["decayed_baskets_2"] == pytest.approx(2**-0.5 + 2**-1 + 2**-2)
    assert (found["baskets_7"], found["baskets_28"], found["baskets_84"]) == (1, 2, 3)
    assert (found["days_since"], found["days_since_first"]) == (6, 30)
    assert (found["baskets_since"], found["baskets_since_first"]) == (1, 4)
    assert (found["mean_gap"], found["last_gap"], found["gap_deviation"]) == (12, 14, 2)
    assert found["due"] == 0.5
    assert found["basket_share"] == 3 / 5
    assert (found["quantity"], found["value"], found["place"]) == (1, 2, 1)


def test_a_pair_bought_once_has_no_gap_and_one_never_bought_nothing_but_zeros():
    past = past_of(("p", "milk", "purchase", 30), items=ITEMS)
    once, never = pair(past, 0, MILK), pair(past, 0, TEA)
    assert once["baskets"] == 1
    assert math.isnan(once["mean_gap"])
    assert math.isnan(once["due"])
    assert (never["baskets"], never["decayed_7"], never["baskets_84"]) == (0, 0, 0)
    assert math.isnan(never["days_since"])
    assert math.isnan(never["place"])
    assert set(once) == set(measures.PAIR)


def test_two_lines_of_one_basket_are_one_purchase_of_their_sum():
    past = past_of(("p", "milk", "purchase", 3, {"quantity": 2.0, "value": 5.0}),
                   ("p", "milk", "purchase", 3, {"quantity": 1.0, "value": 4.0}),
                   items=ITEMS)  # fmt: skip
    found = pair(past, 0, MILK)
    assert (found["baskets"], found["quantity"], found["value"]) == (1, 3, 9)


def test_looks_and_carts_are_interest_and_no_purchase():
    past = past_of(("p", "tea", "view", 14), ("p", "tea", "click", 28),
                   ("p", "tea", "add_to_cart", 14), items=ITEMS)  # fmt: skip
    key = np.array([TEA, MILK])
    found = behaviour.interest(past, len(ITEMS)).at(key)
    assert found["looks_decayed_14"].tolist() == [0.75, 0]
    assert found["carts_decayed_14"].tolist() == [0.5, 0]
    assert found["days_since_interest"][0] == 14
    assert math.isnan(found["days_since_interest"][1])
    assert found["session_interest"].tolist() == [2, 0], "the click was a session before"
    assert pair(past, 0, TEA)["baskets"] == 0


HOUR = 1 / 24


def test_the_measures_of_the_latest_session_by_hand():
    past = past_of(
        ("p", "milk", "view", 3), ("p", "milk", "purchase", 3),
        ("p", "tea", "view", 1 + HOUR), ("p", "bread", "view", 1 + HOUR),
        ("p", "bread", "purchase", 1 + HOUR / 2), ("p", "tea", "remove_from_cart", 1),
        ("p", "milk", "return", 0.5), ("r", "milk", "return", 2),
        people=["p", "q", "r"], items=ITEMS,
    )  # fmt: skip
    found = behaviour.sessions(past, len(ITEMS))
    assert set(found) == set(measures.SESSION)
    assert found["s_days_since"][0] == 1
    assert math.isnan(found["s_days_since"][1])
    assert math.isnan(found["s_days_since"][2]), "what went back is no visit"
    assert found["s_wanted"].tolist() == [3, 0, 0]
    assert found["s_items"].tolist() == [2, 0, 0]
    kinds = behaviour.leanings(past, np.array([0, 0, -1]), "broad")
    own = {name: column.tolist() for name, column in kinds.at(np.array([0, 2])).items()}
    assert own["broad_session"] == [pytest.approx(1 / 3 * 2), 0]
    assert own["broad_interest_14"] == [
        pytest.approx(2 ** (-3 / 14) + 2 ** (-(1 + HOUR) / 14)), 0
    ]  # fmt: skip


def test_a_pause_of_half_an_hour_does_not_end_a_session_and_a_longer_one_does():
    minute = HOUR / 60
    rows = [
        ("p", "milk", "view", 61 * minute), ("p", "tea", "view", 30 * minute),
        ("p", "bread", "view", 0.001 * minute), ("q", "milk", "view", 90 * minute),
        ("q", "tea", "view", 60 * minute + 29.9 * minute),
    ]  # fmt: skip
    for order in (rows, rows[::-1]):
        past = past_of(*order, people=["p", "q"], items=ITEMS)
        latest = zip(past.person.tolist(), past.item.tolist(), past.latest.tolist(), strict=True)
        assert list(latest) == [
            (0, BREAD, True), (0, MILK, False), (0, TEA, True), (1, MILK, True), (1, TEA, True)
        ]  # fmt: skip


def test_who_did_nothing_has_no_session():
    past = past_of(people=["p"], items=ITEMS)
    assert behaviour.sessions(past, len(ITEMS))["s_wanted"].tolist() == [0]
    assert len(behaviour.leanings(past, np.array([0, 0, 0]), "narrow").key) == 0


def test_the_measures_of_a_person_by_hand():
    past = past_of(
        ("p", "milk", "purchase", 40), ("p", "bread", "purchase", 40),
        ("p", "milk", "purchase", 10), people=["p", "q"], items=ITEMS,
    )  # fmt: skip
    found = {n: c.tolist() for n, c in behaviour.persons(Lines.of(past), len(ITEMS)).items()}
    assert set(found) == set(measures.PERSON)
    assert found["p_baskets"] == [2, 0]
    assert (found["p_days_since"][0], found["p_gap"][0]) == (10, 30)
    assert (found["p_baskets_28"], found["p_baskets_84"]) == ([1, 0], [2, 0])
    assert (found["p_lines"][0], found["p_lines_28"], found["p_items"]) == (1.5, [1, 0], [2, 0])
    assert (found["p_repeated"][0], found["p_paid"][0]) == (0.5, 2)
    for name in ("p_days_since", "p_gap", "p_lines", "p_repeated", "p_paid"):
        assert math.isnan(found[name][1]), name


def test_the_measures_of_a_category_by_hand():
    past = past_of(("p", "milk", "purchase", 40), ("p", "bread", "purchase", 40),
                   ("p", "bread", "purchase", 10), ("p", "tea", "purchase", 1),
                   items=ITEMS)  # fmt: skip
    kinds = behaviour.categories(Lines.of(past), np.array([0, 0, -1]), "narrow")
    found = {name: column.tolist() for name, column in kinds.at(np.array([0])).items()}
    assert found["narrow_baskets"] == [2]
    assert found["narrow_days_since"] == [10]
    assert found["narrow_due"] == [pytest.approx(10 / 30)]
    assert found["narrow_decayed_14"] == [pytest.approx(2 * 2 ** (-40 / 14) + 2 ** (-10 / 14))]
    assert len(kinds.key) == 1, "an item without a category speaks for none"


purchases = st.lists(
    st.tuples(
        st.sampled_from("pqr"), st.sampled_from(ITEMS), st.just("purchase"), st.integers(1, 60)
    ),
    min_size=1, max_size=30,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(purchases)
def test_pairs_are_what_counting_by_hand_gives(rows):
    past = past_of(*rows, people=list("pqr"), items=ITEMS)
    for code, person in enumerate("pqr"):
        days = sorted({row[3] for row in rows if row[0] == person})
        place = {day: number for number, day in enumerate(days)}
        for number, item in enumerate(ITEMS):
            mine = sorted({row[3] for row in rows if row[:2] == (person, item)})
            found = pair(past, code, number)
            assert found["baskets"] == len(mine)
            assert found["decayed_60"] == pytest.approx(sum(2 ** (-day / 60) for day in mine))
            if mine:
                assert found["days_since"] == mine[0]
                assert found["baskets_since"] == place[mine[0]]
            if len(mine) > 1:
                gaps = np.diff(mine)
                assert found["mean_gap"] == pytest.approx(gaps.mean())
                assert found["gap_deviation"] == pytest.approx(gaps.std(), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(purchases, st.randoms(use_true_random=False))
def test_a_persons_measures_depend_on_no_order_and_on_nobody_else(rows, random):
    mixed = list(rows)
    random.shuffle(mixed)
    whole = Lines.of(past_of(*mixed, people=list("pqr"), items=ITEMS))
    alone = [row for row in rows if row[0] == "q"]
    if not alone:
        return
    own = Lines.of(past_of(*alone, people=["q"], items=ITEMS))
    keys = np.arange(len(ITEMS))
    equal(
        behaviour.pairs(whole, len(ITEMS)).at(keys + len(ITEMS)),
        behaviour.pairs(own, len(ITEMS)).at(keys),
    )
    equal(
        {name: column[1:2] for name, column in behaviour.persons(whole, len(ITEMS)).items()},
        behaviour.persons(own, len(ITEMS)),
    )


def test_a_person_of_a_million_events_is_counted_like_anybody():
    n_items, times = 5_000, 200
    n = n_items * times
    item = np.repeat(np.arange(n_items), times)
    age = np.tile(np.arange(times, 0, -1) + 0.5, n_items)
    crowd = Past(
        1, np.zeros(n, np.int64), item, np.full(n, PURCHASE, np.int8), age,
        np.tile(np.arange(times), n_items), np.ones(n), np.full(n, 2.0), age == age.min(),
    )  # fmt: skip
    lines = Lines.of(crowd)
    found = behaviour.pairs(lines, n_items).at(np.array([0, n_items - 1]))
    assert found["baskets"].tolist() == [times, times]
    assert found["mean_gap"].tolist() == [1.0, 1.0]
    assert found["days_since"].tolist() == [1.5, 1.5]
    assert behaviour.persons(lines, n_items)["p_baskets"].tolist() == [times]
