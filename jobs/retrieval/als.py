"""Alternating least squares on the interaction matrix: fit, the next night, alignment.

Implicit-feedback matrix factorisation (Hu, Koren, Volinsky, 2008) as the library ``implicit``
computes it with conjugate gradients. Every row is solved alone, so the number of threads does not
change a bit of the result; the one dense product between (YtY) is held to one BLAS thread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from threadpoolctl import threadpool_limits


@dataclass(frozen=True)
class Factors:
    """``people``: (n_people, factors) float32; ``items``: (n_items, factors) float32. The intent of
    person p for item i is ``people[p] @ items[i]``."""

    people: np.ndarray
    items: np.ndarray


def fit(
    matrix: sp.csr_matrix,
    *,
    factors: int,
    iterations: int,
    regularization: float,
    confidence: float,
    start: Factors,
) -> Factors:
    """Factorise (n_people, n_items) positive weights, beginning from ``start``.

    ``confidence`` is that of a pair of average weight; a pair never seen has 1. A pure function of
    its arguments, bit by bit.
    """
    from implicit.als import AlternatingLeastSquares

    weights = confidences(matrix, confidence, mean_weight(matrix))
    with threadpool_limits(limits=1, user_api="blas"):
        model = AlternatingLeastSquares(
            factors=factors, regularization=regularization, iterations=iterations, dtype=np.float32
        )
        model.user_factors = start.people.astype(np.float32, copy=True)
        model.item_factors = start.items.astype(np.float32, copy=True)
        model.fit(weights, show_progress=False)
    return Factors(model.user_factors, model.item_factors)


def fold_in(
    matrix: sp.csr_matrix,
    items: np.ndarray,
    *,
    regularization: float,
    confidence: float,
    mean: float,
) -> np.ndarray:
    """The vectors of people in a space whose ``items``, (n_items, factors), stand: the solution by
    least squares of each, to which :func:`fit` comes near.

    ``matrix``: (n_people, n_items), *all* that each of them ever chose: from the newest choices
    alone a vector forgets everything else, and is worse than the one it replaces. ``mean``: the
    average weight of the matrix that the space was fitted to. Returns (n_people, factors) float32.
    """
    weights = confidences(matrix, confidence, mean)
    base = items.astype(np.float64)
    with threadpool_limits(limits=1, user_api="blas"):
        seen_by_all = base.T @ base + regularization * np.eye(base.shape[1])
        found = np.zeros((weights.shape[0], base.shape[1]), np.float32)
        for row in range(weights.shape[0]):
            mine = slice(weights.indptr[row], weights.indptr[row + 1])
            vectors, sure = base[weights.indices[mine]], weights.data[mine].astype(np.float64)
            gram = seen_by_all + (vectors * (sure - 1.0)[:, None]).T @ vectors
            found[row] = np.linalg.solve(gram, vectors.T @ sure)
    return found


def mean_weight(matrix: sp.csr_matrix) -> float:
    """The average weight of a pair that is stored."""
    return float(matrix.data.mean(dtype=np.float64))


def confidences(matrix: sp.csr_matrix, confidence: float, mean: float) -> sp.csr_matrix:
    """(n_people, n_items) float32: ``confidence`` for a pair of weight ``mean``, in proportion, and
    1 at least."""
    weights = matrix.astype(np.float32, copy=True)
    weights.data *= np.float32(confidence / mean)
    # What was seen never counts less than what was not: a view among purchases falls below 1, and
    # left there it cost a simulated shop 4 % of recall@100. Complete Journey has no such pair.
    np.maximum(weights.data, np.float32(1.0), out=weights.data)
    return weights


def random_start(shape: tuple[int, int], factors: int, seed: int) -> Factors:
    """Small seeded vectors in [0, 0.01) for (n_people, n_items) rows, as ``implicit`` begins."""
    generator = np.random.default_rng(seed)
    people, items = (
        generator.random((rows, factors), dtype=np.float32) * np.float32(0.01) for rows in shape
    )
    return Factors(people, items)


def placed(before: Factors, others: Factors, people: np.ndarray, items: np.ndarray) -> Factors:
    """The vectors of ``before`` in another order; of whom and what it does not know ``others``,
    whose rows stand in that order.

    ``people``: (n_people,) int64, the row in ``before.people`` of each person, -1 where there is
    none; ``items`` likewise.
    """
    return Factors(
        np.where(people[:, None] >= 0, before.people[people], others.people),
        np.where(items[:, None] >= 0, before.items[items], others.items),
    )


def onward(
    matrix: sp.csr_matrix,
    start: Factors,
    changed: np.ndarray,
    new: np.ndarray,
    *,
    regularization: float,
    confidence: float,
) -> Factors:
    """``start`` brought up to date: the vectors of all people by the items as they were, then of
    the items that ``changed``, then once more of who chose one that is ``new``. All other items
    stand, and with them the axes of the space.

    Less than a round of :func:`fit`, and better as a start of tomorrow than whole rounds: a chain
    of nights that fit everything anew is a fit of many rounds, which finds less. ``matrix``: as of
    :func:`fit`; ``changed``, ``new``: (n_items,) bool, what is new is changed as well. A pure
    function of its arguments, bit by bit.
    """
    from implicit.cpu.als import AlternatingLeastSquares

    solve = AlternatingLeastSquares(factors=start.items.shape[1], dtype=np.float32).solver
    weights = confidences(matrix, confidence, mean_weight(matrix))
    people, items = (side.astype(np.float32, copy=True) for side in (start.people, start.items))

    def again(side: np.ndarray, rows: np.ndarray, theirs: sp.csr_matrix, by: np.ndarray) -> None:
        some = side[rows]
        solve(theirs[rows], some, by, regularization, num_threads=0)
        side[rows] = some

    with threadpool_limits(limits=1, user_api="blas"):
        solve(weights, people, items, regularization, num_threads=0)
        again(items, np.flatnonzero(changed), weights.T.tocsr(), people)
        # By what stood for a new item until now nothing could be said of them.
        chose = np.flatnonzero(weights[:, np.flatnonzero(new)].getnnz(axis=1))
        again(people, chose, weights, items)
    return Factors(people, items)


def rotation(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """The orthogonal (dim, dim) float64 matrix R that brings ``new @ R`` closest to ``old``.

    Both are (n_rows, dim), row by row the same thing (Schönemann's orthogonal Procrustes, 1966).
    """
    # Of so small a matrix threads make no speed: they wait for each other in a loop, which cost 0.8
    # processor seconds of a fit's 1.3 where one thread takes 0.04.
    with threadpool_limits(limits=1, user_api="blas"):
        left, _, right = np.linalg.svd(new.astype(np.float64).T @ old.astype(np.float64))
        return left @ right


def rotate(factors: Factors, turn: np.ndarray) -> Factors:
    """Both sides turned by an orthogonal matrix, which keeps every inner product."""
    with threadpool_limits(limits=1, user_api="blas"):
        people, items = factors.people @ turn, factors.items @ turn
    return Factors(people.astype(np.float32), items.astype(np.float32))


def moved(new: np.ndarray, old: np.ndarray, tolerance: float) -> np.ndarray:
    """(n_rows,) bool: rows that lie further from their old vector than ``tolerance`` x its norm."""
    return np.linalg.norm(new - old, axis=1) > tolerance * np.linalg.norm(old, axis=1)
