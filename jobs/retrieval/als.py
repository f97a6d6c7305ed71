"""Alternating least squares on the interaction matrix: fit, the next night, alignment.

Implicit-feedback matrix factorisation (Hu, Koren, Volinsky, 2008) by conjugate gradients (Takács,
Pilászy, Tikk, 2011), whose steps are those of the library ``implicit``. A vector is always a few
steps away from zero: steps find the directions first that much speaks for, so stopping early leaves
out what little does (a regularisation of its own: Hanke, 1995). Going on from the vector of the
round before, as ``implicit`` does, comes nearer to the equations with every round and night, and
finds less. Every row is solved alone, so the number of threads does not change a bit of the result;
the one dense product between (YtY) is held to one BLAS thread.
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


@dataclass(frozen=True)
class Solver:
    """How vectors are found: ``steps`` of conjugate gradients, ``regularization``, and the
    ``confidence`` of a pair of average weight, where a pair never seen has 1."""

    steps: int
    regularization: float
    confidence: float

    def solved(self, weights: sp.csr_matrix, by: np.ndarray) -> np.ndarray:
        """(n_rows, factors) float32: the vectors of the rows of ``weights``, confidences as of
        :func:`confidences`, by those of its columns. A pure function of its arguments, bit by
        bit."""
        from implicit.cpu.als import AlternatingLeastSquares

        found = np.zeros((weights.shape[0], by.shape[1]), np.float32)
        with threadpool_limits(limits=1, user_api="blas"):
            model = AlternatingLeastSquares(factors=by.shape[1], dtype=np.float32)
            model.cg_steps = self.steps
            model.solver(weights, found, by, self.regularization, num_threads=0)
        return found

    def fit(self, matrix: sp.csr_matrix, items: np.ndarray, rounds: int) -> Factors:
        """Factorise (n_people, n_items) positive weights, beginning from ``items``, (n_items,
        factors): in each round people by items, then items by people."""
        weights = confidences(matrix, self.confidence, mean_weight(matrix))
        turned = weights.T.tocsr()
        for _ in range(rounds):
            people = self.solved(weights, items)
            items = self.solved(turned, people)
        return Factors(people, items)

    def fold_in(self, matrix: sp.csr_matrix, items: np.ndarray, mean: float) -> np.ndarray:
        """(n_people, factors) float32: the vectors of people in a space whose ``items`` stand.

        ``matrix``: (n_people, n_items), *all* that each of them ever chose: from the newest choices
        alone a vector forgets everything else, and is worse than the one it replaces. ``mean``: the
        average weight of the matrix that the space was fitted to.
        """
        return self.solved(confidences(matrix, self.confidence, mean), items)

    def onward(
        self, matrix: sp.csr_matrix, items: np.ndarray, changed: np.ndarray, new: np.ndarray
    ) -> Factors:
        """The space of ``items`` brought up to date: the vectors of all people by the items as they
        were, then of the items that ``changed``, then once more of who chose one that is ``new``.
        All other items stand, and with them the axes of the space.

        ``matrix``: as of :meth:`fit`; ``changed``, ``new``: (n_items,) bool, what is new is changed
        as well.
        """
        weights = confidences(matrix, self.confidence, mean_weight(matrix))
        items, rows = items.copy(), np.flatnonzero(changed)
        people = self.solved(weights, items)
        items[rows] = self.solved(weights.T.tocsr()[rows], people)
        # By what stood for a new item until now nothing could be said of them.
        chose = np.flatnonzero(weights[:, np.flatnonzero(new)].getnnz(axis=1))
        people[chose] = self.solved(weights[chose], items)
        return Factors(people, items)


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


def random_start(n_items: int, factors: int, seed: int) -> np.ndarray:
    """(n_items, factors) float32: small seeded vectors in [0, 0.01), as ``implicit`` begins."""
    generator = np.random.default_rng(seed)
    return generator.random((n_items, factors), dtype=np.float32) * np.float32(0.01)


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
