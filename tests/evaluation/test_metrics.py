"""Metrics against hand-worked examples."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, ndcg_score

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


# --- the measures of a backtest --------------------------------------------------------------
# Person 0 is listed b, c, a and wants a and c; person 1 is listed e, d and wants e and two others.
RANK = np.array([2, 0, 1, 1, 0])
WANTED = np.array([2, 3])


def test_precision_counts_the_places_that_a_short_list_leaves_empty():
    found = metrics.precision(PERSON, RANK, BOUGHT, 2, k=3)
    assert found == pytest.approx([2 / 3, 1 / 3])
    assert metrics.precision(PERSON, RANK, BOUGHT, 3, k=1) == pytest.approx([0, 1, 0])


def test_a_hit_is_any_relevant_item_among_the_first():
    assert metrics.hit_rate(PERSON, RANK, BOUGHT, 3, k=1).tolist() == [0.0, 1.0, 0.0]
    assert metrics.hit_rate(PERSON, RANK, BOUGHT, 3, k=2).tolist() == [1.0, 1.0, 0.0]


def test_average_precision_of_a_hand_worked_example():
    # Person 0: hits at the places 2 and 3, precisions 1/2 and 2/3, of two wanted.
    found = metrics.average_precision(PERSON, RANK, BOUGHT, WANTED, k=3)
    assert found == pytest.approx([(1 / 2 + 2 / 3) / 2, 1 / 3])
    assert metrics.average_precision(PERSON, RANK, BOUGHT, WANTED, k=2) == pytest.approx(
        [(1 / 2) / 2, 1 / 2]
    )


def test_gains_of_a_hand_worked_example():
    gain = np.array([1.0, 0.0, 4.0, 0.0, 2.0])
    ideal = np.array([[4.0, 1.0], [8.0, 2.0]])
    found = metrics.gain_ndcg(PERSON, RANK, gain, ideal)
    second = 1 / np.log2(3)
    assert found == pytest.approx([4 * second / (4 + second), 2 / (8 + 2 * second)])


def test_who_paid_nothing_has_no_revenue_to_gain():
    nobody = np.zeros(0, int)
    assert np.isnan(metrics.gain_ndcg(nobody, nobody, np.zeros(0), np.zeros((1, 2)))).all()


def test_the_measures_agree_with_scikit_learn():
    """Its NDCG and average precision on dense rows, every item ranked, are another's code."""
    generator = np.random.default_rng(5)
    people, items, k = 40, 30, 10
    score = generator.permuted(np.tile(np.arange(items, dtype=float), (people, 1)), axis=1)
    money = np.where(generator.random((people, items)) < 0.2, generator.random(score.shape), 0.0)
    money[:, 0] = 0.5  # everybody wants something
    person = np.repeat(np.arange(people), items)
    rank = metrics.ranks(person, score.ravel())
    relevant, wanted = money.ravel() > 0, (money > 0).sum(axis=1)
    binary = [ndcg_score([m > 0], [s], k=k) for m, s in zip(money, score, strict=True)]
    assert metrics.ndcg(person, rank, relevant, wanted, k) == pytest.approx(binary)
    weighted = [ndcg_score([m], [s], k=k) for m, s in zip(money, score, strict=True)]
    ideal = -np.sort(-money, axis=1)[:, :k]
    assert metrics.gain_ndcg(person, rank, money.ravel(), ideal) == pytest.approx(weighted)
    whole = [average_precision_score(m > 0, s) for m, s in zip(money, score, strict=True)]
    found = metrics.average_precision(person, rank, relevant, wanted, items)
    assert found == pytest.approx(whole)
