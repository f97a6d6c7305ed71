"""A person's vector in a space that stands, from all that the person did."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from jobs.retrieval import als

TASTES, PER_TASTE, PEOPLE = 8, 30, 400
SOLVER = als.Solver(steps=3, regularization=5.0, confidence=4.0)


def drawn(random: np.random.Generator, tastes: np.ndarray, count: int) -> np.ndarray:
    """(n_people, n_items) how often each person chose each item of its tastes."""
    chosen = np.zeros((len(tastes), TASTES * PER_TASTE), np.float32)
    for person, own in enumerate(tastes):
        items = own[random.integers(len(own), size=count)] * PER_TASTE
        np.add.at(chosen[person], items + random.integers(PER_TASTE, size=count), 1.0)
    return chosen


def hit_share(vectors: np.ndarray, items: np.ndarray, wanted: np.ndarray) -> float:
    """Of what people want, the share among the hundred items of largest product."""
    best = np.argsort(-(vectors @ items.T), axis=1)[:, :100]
    return float(np.take_along_axis(wanted > 0, best, axis=1).sum() / (wanted > 0).sum())


def test_the_whole_history_beats_the_old_vector_and_the_newest_events_alone_are_worse_than_it() -> (
    None
):
    random = np.random.default_rng(3)
    tastes = np.array([random.choice(TASTES, 4, replace=False) for _ in range(PEOPLE)])
    before = drawn(random, tastes, 30)
    # The last hour shows one taste of the four, and half of the people found a new one.
    lately = drawn(random, tastes[:, :1], 3)
    found = np.array([random.choice(np.setdiff1d(np.arange(TASTES), own)) for own in tastes])
    lately[: PEOPLE // 2] = drawn(random, found[: PEOPLE // 2, None], 8)
    after = np.concatenate(
        [np.column_stack([tastes[: PEOPLE // 2], found[: PEOPLE // 2]]),
         np.column_stack([tastes[PEOPLE // 2 :], tastes[PEOPLE // 2 :, :1]])]
    )  # fmt: skip
    wanted = drawn(random, after, 20)
    matrix = sp.csr_matrix(before)
    space = SOLVER.fit(matrix, als.random_start(matrix.shape[1], 16, 1), 8)
    mean = als.mean_weight(matrix)
    whole, delta = (
        SOLVER.fold_in(sp.csr_matrix(rows), space.items, mean) for rows in (before + lately, lately)
    )
    stale = hit_share(space.people, space.items, wanted)
    assert hit_share(delta, space.items, wanted) < stale - 0.05
    assert hit_share(whole, space.items, wanted) > stale + 0.01


def test_folding_in_what_was_fitted_gives_the_fitted_vectors() -> None:
    random = np.random.default_rng(5)
    tastes = np.array([random.choice(TASTES, 3, replace=False) for _ in range(PEOPLE)])
    matrix = sp.csr_matrix(drawn(random, tastes, 30))
    space = SOLVER.fit(matrix, als.random_start(matrix.shape[1], 16, 1), 15)
    again = SOLVER.fold_in(matrix, space.items, als.mean_weight(matrix))
    # Items were moved once more after people.
    near = np.linalg.norm(again - space.people, axis=1) / np.linalg.norm(space.people, axis=1)
    assert np.median(near) < 0.05


def test_who_did_nothing_has_the_vector_of_nobody() -> None:
    items = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    empty = sp.csr_matrix((1, 6), dtype=np.float32)
    np.testing.assert_array_equal(SOLVER.fold_in(empty, items, 1.0), np.zeros((1, 4)))
