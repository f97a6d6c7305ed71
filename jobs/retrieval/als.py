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
    # The same shift for the seed of this model against the night's.
    seed: int = 42

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
