"""TIFU-KNN on baskets of one or two items, worked by hand after the paper."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from jobs.evaluation import next_basket
from jobs.evaluation.next_basket import Tifu
from tests.evaluation.test_baselines import purchases


def test_a_vector_is_the_mean_of_groups_each_the_mean_of_its_baskets():
    # Four baskets of person 0 in two groups: [a, ab] and [b, c].
    bought = purchases(
        (0, 0, 0, 40), (0, 0, 1, 30), (0, 1, 1, 30), (0, 1, 2, 20), (0, 2, 3, 10), people=1
    )
    found = next_basket.vectors(bought, Tifu(groups=2, group_decay=0.5, within_decay=0.8))
    older = np.array([0.8 + 1, 1, 0, 0]) / 2
    younger = np.array([0, 0.8, 1, 0]) / 2
    assert found.toarray()[0] == pytest.approx((0.5 * older + younger) / 2)


def test_who_has_fewer_baskets_than_groups_has_a_group_for_each():
    bought = purchases((0, 0, 0, 9), (0, 1, 1, 5), people=1)
    found = next_basket.vectors(bought, Tifu(groups=7, group_decay=0.5, within_decay=0.1))
    assert found.toarray()[0] == pytest.approx([0.25, 0.5, 0, 0])


def test_baskets_are_dealt_to_groups_as_evenly_as_can_be():
    # Five baskets of an item each in two groups: the older has three.
    bought = purchases(*((0, n, n, 9 - n) for n in range(5)), people=1, items=5)
    found = next_basket.vectors(bought, Tifu(groups=2, group_decay=1.0, within_decay=1.0))
    assert found.toarray()[0] == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 4, 1 / 4])


def test_the_neighbours_have_the_rest_of_the_say():
    # Persons 0 and 1 lie near one another, 2 far off, 3 has no basket.
    own = sp.csr_matrix(np.array([[1, 0, 0], [1, 1, 0], [0, 0, 3], [0, 0, 0]], np.float32))
    nearest = next_basket.scorer(own, neighbours=1, alpha=0.75)(np.array([0, 2]))
    assert nearest[0] == pytest.approx([0.75 + 0.25, 0.25, 0])
    two = next_basket.scorer(own, neighbours=2, alpha=0.75)(np.array([0]))
    assert two[0] == pytest.approx([0.75 + 0.125, 0.125, 0.375])
    everybody = next_basket.scorer(own, neighbours=9, alpha=0.75)(np.array([0]))
    assert everybody == pytest.approx(two), "who has no basket is nobody's neighbour"
