"""Alternating least squares on the interaction matrix: fit, warm start, alignment.

Implicit-feedback matrix factorisation (Hu, Koren, Volinsky, 2008) as the library ``implicit``
computes it with conjugate gradients. Every row is solved alone, so the number of threads does not
change a bit of the result; the one dense product between (YtY) is held to one BLAS thread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from jobs.params import check


@dataclass(frozen=True)
class Params:
    """The factorisation. Chosen on Complete Journey, cut 2017-10-06, by recall@100 of the 28 days
    after; the measurements stand in docs/decisions/embeddings.md."""

    # Dimensions of the space. 128 found 12 % more of what was bought again but less of what was
    # new to the person, which is what this source is for, at three times the cost.
    factors: int = 64
    # Rounds of a cold fit; recall is flat beyond 8.
    iterations: int = 8
    # Rounds of a warm start from last night's factors.
    warm_iterations: int = 2
    # Shrinks vectors of people and items with few interactions towards zero.
    regularization: float = 5.0
    # Confidence of a pair of average weight against 1 for a pair never seen. Relative to the mean,
    # so that a change of the weights' unit changes nothing.
    confidence: float = 6.0

    def __post_init__(self) -> None:
        check(1 <= self.factors <= 1024, "factors must be in 1..1024")
        check(self.iterations >= 1, "iterations must be at least 1")
        check(self.warm_iterations >= 1, "warm_iterations must be at least 1")
        check(self.regularization > 0, "regularization must be positive")
        check(self.confidence > 0, "confidence must be positive")


@dataclass(frozen=True)
class Factors:
    """``people``: (n_people, factors) float32; ``items``: (n_items, factors) float32. The intent of
    person p for item i is ``people[p] @ items[i]``."""

    people: np.ndarray
    items: np.ndarray


def fit(
    matrix: sp.csr_matrix, params: Params, seed: int, start: Factors | None = None
) -> Factors:
    """Factorise (n_people, n_items) weights; a pure function of its arguments.

    ``start`` gives each row's vector to begin from and then only ``warm_iterations`` are made.
    """
    from implicit.als import AlternatingLeastSquares

    weights = matrix.astype(np.float32, copy=True)
    weights.data *= params.confidence / weights.data.mean(dtype=np.float64)
    begin = start or random_start(matrix.shape, params.factors, seed)
    with threadpool_limits(limits=1, user_api="blas"):
        model = AlternatingLeastSquares(
            factors=params.factors,
            regularization=params.regularization,
            iterations=params.iterations if start is None else params.warm_iterations,
            dtype=np.float32,
            random_state=seed,
        )
        model.user_factors = begin.people.astype(np.float32, copy=True)
        model.item_factors = begin.items.astype(np.float32, copy=True)
        model.fit(weights, show_progress=False)
    return Factors(model.user_factors, model.item_factors)


def random_start(shape: tuple[int, int], factors: int, seed: int) -> Factors:
    """Small seeded vectors in [0, 0.01) for (n_people, n_items) rows, as ``implicit`` begins."""
    generator = np.random.default_rng(seed)
    people, items = (
        generator.random((rows, factors), dtype=np.float32) * np.float32(0.01) for rows in shape
    )
    return Factors(people, items)


def warm_start(cold: Factors, shared: Factors, people: np.ndarray, items: np.ndarray) -> Factors:
    """``cold`` with the rows that a predecessor knows replaced by its vectors.

    ``people``: (n_people,) int64, the row in ``shared.people`` of each person, -1 where the
    predecessor does not know them; ``items`` likewise.
    """
    return Factors(
        np.where(people[:, None] >= 0, shared.people[people], cold.people),
        np.where(items[:, None] >= 0, shared.items[items], cold.items),
    )


def rotation(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """The orthogonal (dim, dim) float64 matrix R that brings ``new @ R`` closest to ``old``.

    Both are (n_rows, dim), row by row the same thing (Schönemann's orthogonal Procrustes, 1966).
    """
    left, _, right = np.linalg.svd(new.astype(np.float64).T @ old.astype(np.float64))
    return left @ right


def rotate(factors: Factors, turn: np.ndarray) -> Factors:
    """Both sides turned by an orthogonal matrix, which keeps every inner product."""
    return Factors(
        (factors.people @ turn).astype(np.float32), (factors.items @ turn).astype(np.float32)
    )


def moved(new: np.ndarray, old: np.ndarray, tolerance: float) -> np.ndarray:
    """(n_rows,) bool: rows that lie further from their old vector than ``tolerance`` x its norm."""
    return np.linalg.norm(new - old, axis=1) > tolerance * np.linalg.norm(old, axis=1)
