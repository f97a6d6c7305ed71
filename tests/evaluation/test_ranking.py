"""Lists from scores: ties, masks, blocks, against a sort of everything."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from jobs.evaluation import ranking
from jobs.filtering.allowed import Allowed
from jobs.retrieval import matrix


def allowed(n_people: int, n_items: int, *blocked: tuple[int, int]) -> Allowed:
    keys = [person * n_items + item for person, item in blocked]
    return Allowed(
        np.zeros(n_people, int), np.ones((1, n_items), bool), np.array(sorted(keys), np.int64)
    )


def test_the_best_come_first_ties_by_code_and_short_lists_end_in_minus_one():
    scores = np.array([[1.0, 3, 3, 2], [-np.inf, 0, -np.inf, -1]])
    assert ranking.best(scores, 3).tolist() == [[1, 2, 3], [1, 3, -1]]
    assert ranking.best(scores, 6)[0].tolist() == [1, 2, 3, 0, -1, -1]


@pytest.mark.parametrize("values", [1_000, 5])
def test_many_columns_are_ranked_as_by_a_sort_of_everything(values):
    scores = np.random.default_rng(1).integers(0, values, (7, 3_000)).astype(np.float32)
    scores[:, ::3] = -np.inf
    whole = np.argsort(-scores, axis=1, kind="stable")[:, :20]
    assert (ranking.best(scores, 20) == whole).all()


def test_nobody_is_listed_what_they_may_not_get_and_the_new_only_list_leaves_out_the_known():
    masks = np.array([[True, True, True, True, False], [False, True, True, True, True]])
    rules = Allowed(np.array([0, 1]), masks, np.array([0 * 5 + 1]))
    known = sp.csr_matrix(np.array([[0, 0, 1, 0], [0, 1, 0, 0]], np.float32))
    whole, fresh = ranking.rank(
        lambda rows: np.tile(np.array([4.0, 3, 2, 1]), (len(rows), 1)), np.array([7, 8]), rules,
        known, 3,
    )  # fmt: skip
    assert whole.tolist() == [[0, 2, 3], [1, 2, 3]]
    assert fresh.tolist() == [[0, 3, -1], [2, 3, -1]]


def test_people_are_ranked_block_by_block_with_the_same_result(monkeypatch):
    generator = np.random.default_rng(2)
    scores = generator.random((9, 6))
    rules = allowed(9, 6, (0, 3), (5, 0), (8, 5))
    known = sp.random(9, 6, 0.3, format="csr", random_state=4)
    at_once = ranking.rank(lambda rows: scores[rows].copy(), np.arange(9), rules, known, 4)
    monkeypatch.setattr(ranking, "SCORES", 12)
    in_blocks = ranking.rank(lambda rows: scores[rows].copy(), np.arange(9), rules, known, 4)
    for one, other in zip(at_once, in_blocks, strict=True):
        assert (one == other).all()
    assert 3 not in at_once[0][0]


def test_rows_become_lists_that_close_up():
    found = ranking.from_places(
        np.array([1, 0, 1, 1]), np.array([5, 6, 7, 8]), np.array([9, 1, 2, 4]), 3, 2
    )
    assert found.tolist() == [[6, -1], [7, 8], [-1, -1]]


def test_keys_are_found_among_known_ones():
    known = np.array([2, 5, 9])
    assert matrix.among(np.array([1, 2, 9, 10]), known).tolist() == [False, True, True, False]
    assert not matrix.among(np.array([1]), np.zeros(0, int)).any()
    pairs = allowed(2, 3, (1, 2)).holds(np.array([0, 1]), np.array([2, 2]))
    assert pairs.tolist() == [True, False]
