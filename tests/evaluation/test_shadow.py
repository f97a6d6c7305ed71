"""Lists beside lists: how alike, and who gains."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from jobs.evaluation import shadow
from jobs.evaluation.shadow import Lists

DEPTH = 3


def lists(*each: list[int], first: int = 0) -> Lists:
    """A person per list of items, coded from ``first``."""
    rows = [
        (first + person, item, rank)
        for person, items in enumerate(each)
        for rank, item in enumerate(items, start=1)
    ]
    person, item, rank = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return Lists.of(person, item, rank, DEPTH)


def test_equal_lists_are_alike_in_every_measure() -> None:
    one = lists([1, 2, 3], [4, 5, 6])
    assert shadow.overlap(one, one, 2, DEPTH).tolist() == [1.0, 1.0]
    assert shadow.rank_biased_overlap(one, one, 2, DEPTH) == pytest.approx([1.0, 1.0])


def test_lists_without_a_common_item_are_alike_in_none() -> None:
    one, other = lists([1, 2, 3]), lists([4, 5, 6])
    assert shadow.overlap(one, other, 1, DEPTH).tolist() == [0.0]
    assert shadow.rank_biased_overlap(one, other, 1, DEPTH).tolist() == [0.0]


def test_order_counts_for_one_measure_and_not_for_the_other() -> None:
    one, other = lists([1, 2, 3]), lists([3, 2, 1])
    assert shadow.overlap(one, other, 1, DEPTH).tolist() == [1.0]
    # Common items at depths 1, 2, 3: none, one of two, three of three.
    weight = 0.9 ** np.arange(3)
    by_hand = (weight * [0, 1 / 2, 1]).sum() / weight.sum()
    assert shadow.rank_biased_overlap(one, other, 1, DEPTH) == pytest.approx([by_hand])


def test_rank_correlation_is_kendalls_of_the_common_items() -> None:
    one = lists([1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3])
    other = lists([1, 2, 3], [3, 2, 1], [1, 9, 2], [7, 8, 3])
    found = shadow.rank_correlation(one, other, 4, DEPTH)
    assert found[:3].tolist() == [1.0, -1.0, 1.0]
    assert np.isnan(found[3])  # of one common item nothing is known
    rng = np.random.default_rng(0)
    order = rng.permutation(10)
    long = [Lists.of(np.zeros(10, np.int64), items, np.arange(1, 11), 10)
            for items in (np.arange(10), order)]  # fmt: skip
    by_scipy = stats.kendalltau(np.arange(10), np.argsort(order)).statistic
    assert shadow.rank_correlation(*long, 1, 10) == pytest.approx([by_scipy])


def test_places_beyond_the_depth_do_not_count() -> None:
    assert len(lists([1, 2, 3, 4, 5]).item) == DEPTH


def test_only_people_with_a_list_in_both_are_compared() -> None:
    people, ours, theirs = shadow.both(lists([1, 2], [3]), lists([9], [8], first=1))
    assert people.tolist() == [1]
    assert (ours.person.tolist(), ours.item.tolist()) == ([0], [3])
    assert theirs.item.tolist() == [9]


def test_who_bought_what_only_the_candidate_listed_gains_its_discount() -> None:
    ours, theirs = lists([1, 2, 3], [1, 2, 3], [1, 2, 3]), lists([1, 2, 7], [7, 2, 3], [1, 2, 3])
    bought = (np.array([0, 1]), np.array([7, 1]))
    gain = shadow.gained(ours, theirs, bought, 3, DEPTH)
    assert gain[0] == pytest.approx(1 / np.log2(4))  # at the third place, of one item wanted
    assert gain[1] == pytest.approx(-1.0)
    assert np.isnan(gain[2])
