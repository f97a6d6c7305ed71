"""Metrics against hand-worked examples."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.evaluation import metrics

PERSON = np.array([0, 0, 0, 1, 1])
SCORE = np.array([0.2, 0.9, 0.5, 1.0, 2.0])
BOUGHT = np.array([True, False, True, False, True])


def test_ranks_run_from_the_highest_score_in_each_person():
    assert metrics.ranks(PERSON, SCORE).tolist() == [2, 0, 1, 1, 0]


def test_ties_keep_the_order_of_the_rows():
    assert metrics.ranks(np.zeros(3, int), np.ones(3)).tolist() == [0, 1, 2]


def test_ndcg_of_a_hand_worked_example():
    rank = metrics.ranks(PERSON, SCORE)
    found = metrics.ndcg(PERSON, rank, BOUGHT, np.array([2, 3]), k=3)
    first = (1 / np.log2(3) + 1 / np.log2(4)) / (1 + 1 / np.log2(3))
    second = 1 / (1 + 1 / np.log2(3) + 1 / np.log2(4))
    assert found == pytest.approx([first, second])


def test_a_perfect_list_has_ndcg_1_and_an_empty_one_0():
    rank = np.array([0, 1])
    found = metrics.ndcg(np.array([0, 0]), rank, np.array([True, True]), np.array([5, 1]), k=2)
    assert found == pytest.approx([1.0, 0.0])


def test_recall_counts_what_was_bought_outside_the_list_too():
    rank = metrics.ranks(PERSON, SCORE)
    assert metrics.recall(PERSON, rank, BOUGHT, np.array([2, 4]), k=2) == pytest.approx([0.5, 0.25])


def test_the_interval_holds_the_mean_and_narrows_with_people():
    generator = np.random.default_rng(0)
    few, many = generator.normal(size=50), generator.normal(size=5_000)
    low, high = metrics.interval(few, seed=1)
    assert low < few.mean() < high
    narrow = metrics.interval(many, seed=1)
    assert narrow[1] - narrow[0] < (high - low) / 5
    assert metrics.interval(few, seed=1) == (low, high)
