"""Events before a cut become purchases, affinity and what is wanted, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.evaluation import snapshot
from jobs.evaluation.snapshot import DAY, Events


def events(*rows: tuple[int, int, int, float, float]) -> Events:
    """Rows of person, item, basket (-1: a view), day, day received; two people, four items."""
    person, item, basket, day, received = (np.array(column) for column in zip(*rows, strict=True))
    time, known = ((np.maximum(one, day) * DAY).astype(np.int64) for one in (day, received))
    return Events(person, item, basket, time, known, 2, 4)


SEEN = events(
    (0, 1, 30, 5, 5), (0, 0, 10, 8, 8), (0, 1, 10, 8, 8), (0, 1, 10, 8, 8), (0, 2, -1, 9, 9),
    (1, 3, 20, 1, 1), (1, 3, 40, 2, 12),
)  # fmt: skip


def test_purchases_are_items_of_baskets_once_baskets_in_the_order_of_their_time():
    found = SEEN.purchases(10 * DAY)
    assert found.person.tolist() == [0, 0, 0, 1, 1]
    assert found.basket.tolist() == [0, 1, 1, 0, 1], "basket 30 came before basket 10"
    assert found.item.tolist() == [1, 0, 1, 3, 3]
    assert found.age.tolist() == [5, 2, 2, 9, 8]


def test_nothing_that_was_received_later_is_known_before():
    before = SEEN.before(10 * DAY)
    assert len(before.person) == 6
    assert before.purchases(10 * DAY).counted(np.ones(4)).toarray()[1].tolist() == [0, 0, 0, 1]
    assert not len(SEEN.before(0).purchases(0).person)


def test_affinity_is_the_logarithm_of_one_more_than_the_events():
    found = SEEN.affinity().toarray()
    assert found[0] == pytest.approx(np.log([2, 4, 2, 1]))
    assert found[1] == pytest.approx(np.log([1, 1, 1, 3]))


def test_what_is_wanted_stands_once_with_all_that_was_paid():
    judged = np.array([1])
    found = snapshot.wanted(
        np.array([0, 0, 0]), np.array([5, 3, 3]), np.array([1.0, 2.0, 4.0]), judged, SEEN
    )
    assert found.item.tolist() == [3, 5]
    assert found.money.tolist() == [6, 1]
    assert found.again.tolist() == [True, False]


def test_only_a_purchase_makes_an_item_known_not_a_view():
    found = snapshot.wanted(np.array([0, 0]), np.array([2, 1]), np.ones(2), np.array([0]), SEEN)
    assert found.again.tolist() == [True, False], "item 1 was bought, item 2 only seen"
