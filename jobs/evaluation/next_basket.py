"""TIFU-KNN: a person's own items by recency in two scales, and those of the people most alike.

Hu, He, Gao and Zhang, "Modeling personalized item frequency information for next-basket
recommendation" (SIGIR 2020). Li et al. (2023) find it among the best next-basket methods on data
like a grocer's, ahead of neural ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from jobs.evaluation.baselines import Purchases, Scorer, nearest


@dataclass(frozen=True)
class Tifu:
    """``groups``: parts that a person's baskets are cut into, oldest first; ``group_decay`` and
    ``within_decay``: what a group, and a basket within its group, counts of the next younger one's;
    ``neighbours``: people; ``alpha``: the say of the person's own vector, the neighbours have the
    rest."""

    groups: int = 7
    group_decay: float = 0.7
    within_decay: float = 0.9
    neighbours: int = 300
    alpha: float = 0.7


def vectors(purchases: Purchases, params: Tifu) -> sp.csr_matrix:
    """(n_people, n_items) float32 CSR: the persons' vectors of decayed item frequencies.

    A group's vector is the mean over its baskets, a person's the mean over the groups. Whoever has
    fewer baskets than ``groups`` has a group for each.
    """
    count = np.zeros(purchases.n_people, np.int64)
    np.maximum.at(count, purchases.person, purchases.basket + 1)
    baskets = count[purchases.person]
    groups = np.minimum(params.groups, baskets)
    # The group g of m holds the baskets from ceil(g n / m) until before ceil((g + 1) n / m).
    group = purchases.basket * groups // baskets
    first = -(-group * baskets // groups)
    end = -(-(group + 1) * baskets // groups)
    within = params.within_decay ** (end - 1 - purchases.basket) / (end - first)
    across = params.group_decay ** (groups - 1 - group) / groups
    return purchases.counted(within * across)


def scorer(own: sp.csr_matrix, neighbours: int, alpha: float) -> Scorer:
    """``alpha`` times a person's own vector and the rest times the mean of their ``neighbours``
    nearest others, by Euclidean distance. ``own`` comes from :func:`vectors`; people without a
    basket are nobody's neighbours."""
    squares = np.asarray(own.multiply(own).sum(axis=1)).ravel().astype(np.float32)
    turned = own.T.tocsr()
    without = np.diff(own.indptr) == 0

    def score(rows: np.ndarray) -> np.ndarray:
        distance = squares[rows][:, None] + squares - 2 * (own[rows] @ turned).toarray()
        distance[:, without] = np.inf
        distance[np.arange(len(rows)), rows] = np.inf
        # Largest is nearest: 1 at no distance, 0 where there is nobody.
        chosen = nearest(1 / (1 + np.maximum(distance, 0)), neighbours)
        chosen.data[:] = 1.0
        size = np.maximum(np.diff(chosen.indptr), 1)
        chosen = sp.diags((1 / size).astype(np.float32)) @ chosen
        return (alpha * own[rows] + (1 - alpha) * (chosen @ own)).toarray().astype(np.float32)

    return score
