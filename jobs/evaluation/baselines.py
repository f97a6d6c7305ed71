"""The simple methods of the field that published lists are held against, on arrays.

Each makes a ``Scorer``: given (n_rows,) codes of people it returns (n_rows, n_items) scores of
every item, so that people are scored block by block and memory does not grow with people times
items. Where a method leaves items equal or says nothing of them, their popularity decides, so that
each fills its lists (as GP-TopFreq does in Li et al., "A Next Basket Recommendation Reality Check",
2023).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

Scorer = Callable[[np.ndarray], np.ndarray]

# What popularity adds to a score at most: less than any difference that a method means.
FILL = 1e-6
# The dual form of EASE inverts a matrix of people, the primal form one of items.
EASE_PEOPLE, EASE_ITEMS = 6_000, 5_000
# Items whose column of the dual form is computed at a time.
ITEMS_AT_A_TIME = 8_192


@dataclass(frozen=True)
class Purchases:
    """Items in baskets before an instant, a basket's item once, ascending by person, then time.

    ``person``, ``item``: (n,) codes; ``basket``: (n,) int64, the place of the basket among all its
    person's from 0, oldest first; ``age``: (n,) float64 days before the instant, 0 or more.
    """

    n_people: int
    n_items: int
    person: np.ndarray
    item: np.ndarray
    basket: np.ndarray
    age: np.ndarray

    def counted(self, weight: np.ndarray) -> sp.csr_matrix:
        """(n_people, n_items) float32 CSR: the ``weight`` (n,) of each pair's rows, summed."""
        pairs = (self.person, self.item)
        shape = (self.n_people, self.n_items)
        found = sp.coo_matrix((weight, pairs), shape=shape).tocsr().astype(np.float32)
        found.sort_indices()
        return found


def popularity(purchases: Purchases, days: float = np.inf) -> np.ndarray:
    """(n_items,) float32: in how many baskets of the last ``days`` each item was."""
    recent = purchases.item[purchases.age <= days]
    return np.bincount(recent, minlength=purchases.n_items).astype(np.float32)


def same_for_all(popular: np.ndarray) -> Scorer:
    """Everybody's list by ``popular`` (n_items,)."""
    return lambda rows: np.tile(popular.astype(np.float32), (len(rows), 1))


def frequency(purchases: Purchases, half_life_days: float = np.inf) -> sp.csr_matrix:
    """(n_people, n_items): in how many of their baskets each person's item was.

    A basket counts half for every ``half_life_days`` of its age: exponential forgetting, as Ding
    and Li ("Time weight collaborative filtering", 2005) apply it to ratings.
    """
    return purchases.counted(np.exp2(-purchases.age / half_life_days))


def own(frequencies: sp.csr_matrix, popular: np.ndarray) -> Scorer:
    """Each person's own frequent items, popular ones behind them."""
    return filled(lambda rows: frequencies[rows].toarray(), popular)


def filled(scorer: Scorer, popular: np.ndarray) -> Scorer:
    """``scorer`` with ties and gaps decided by popularity, in double precision: beside a score of 1
    single precision would not tell the popularity of most items apart."""
    fill = FILL * popular.astype(np.float64) / max(popular.max(initial=0), 1)
    return lambda rows: scorer(rows) + fill


def item_knn(affinity: sp.csr_matrix, neighbours: int, shrinkage: float) -> Scorer:
    """Item-based neighbours (Sarwar et al., 2001; Deshpande and Karypis, 2004).

    ``affinity``: (n_people, n_items) CSR of positive weights. Items are alike by the cosine of who
    chose them, with ``shrinkage`` added to both numbers of people; each of a person's items speaks,
    by its weight, for its ``neighbours`` nearest, itself among them. What one person alone chose
    has no neighbours.
    """
    from implicit.nearest_neighbours import all_pairs_knn

    people_of = np.bincount(affinity.indices, minlength=affinity.shape[1])
    presence = affinity.astype(np.float64, copy=True)
    share = np.where(people_of > 1, 1 / np.sqrt(np.maximum(people_of, 1) + shrinkage), 0.0)
    presence.data = share[presence.indices]
    presence.eliminate_zeros()
    alike = all_pairs_knn(presence, neighbours + 1, show_progress=False).tocsr()
    alike = alike.astype(np.float32)
    return lambda rows: (affinity[rows] @ alike).toarray()


def user_knn(affinity: sp.csr_matrix, neighbours: int) -> Scorer:
    """User-based neighbours (Herlocker et al., 1999): what those chose who are most alike by the
    cosine of their weights, each counted by it. A person is no neighbour of themselves."""
    norms = np.sqrt(np.asarray(affinity.multiply(affinity).sum(axis=1)).ravel())
    unit = sp.diags(1 / np.maximum(norms, 1e-12)) @ affinity
    unit = unit.astype(np.float32).tocsr()
    turned = unit.T.tocsr()

    def scorer(rows: np.ndarray) -> np.ndarray:
        alike = (unit[rows] @ turned).toarray()
        alike[np.arange(len(rows)), rows] = 0.0
        return (nearest(alike, neighbours) @ affinity).toarray()

    return scorer


def nearest(alike: np.ndarray, count: int) -> sp.csr_matrix:
    """The ``count`` largest positive values of each row of (n_rows, n) ``alike``, no others."""
    count = min(count, alike.shape[1])
    columns = np.argpartition(-alike, count - 1, axis=1)[:, :count]
    values = np.take_along_axis(alike, columns, axis=1)
    kept = values > 0
    ends = np.r_[0, np.cumsum(kept.sum(axis=1))]
    return sp.csr_matrix((values[kept], columns[kept], ends), shape=alike.shape)


def inner_products(people: np.ndarray, items: np.ndarray) -> Scorer:
    """Factors of a factorisation as fitted: ``people`` (n_people, dim), ``items`` (n_items, dim)
    (Hu, Koren and Volinsky, 2008)."""
    turned = np.ascontiguousarray(items.T, dtype=np.float32)
    return lambda rows: people[rows].astype(np.float32) @ turned


def ease(affinity: sp.csr_matrix, regularization: float) -> tuple[Scorer, int]:
    """EASE (Steck, "Embarrassingly shallow autoencoders for sparse data", 2019) on who chose what,
    and how many items it ranks.

    With P = (X'X + lI)^-1 its weights are B = I - P / diag(P), and the scores are XB. For few
    people all items are ranked, by the dual form X P = (XX' + lI)^-1 X; with more than
    ``EASE_PEOPLE`` only the ``EASE_ITEMS`` that most people chose, and no others have a score.
    """
    presence = affinity.astype(np.float32, copy=True)
    presence.data[:] = 1.0
    if affinity.shape[0] <= EASE_PEOPLE:
        return ease_dual(presence, regularization), affinity.shape[1]
    people_of = np.bincount(presence.indices, minlength=presence.shape[1])
    chosen = np.sort(np.argsort(-people_of, kind="stable")[:EASE_ITEMS])
    weights = ease_weights(presence[:, chosen], regularization)

    def scorer(rows: np.ndarray) -> np.ndarray:
        scores = np.zeros((len(rows), presence.shape[1]), np.float32)
        scores[:, chosen] = presence[rows][:, chosen] @ weights
        return scores

    return scorer, len(chosen)


def ease_weights(presence: sp.csr_matrix, regularization: float) -> np.ndarray:
    """(n_items, n_items) float32 weights B of EASE in its primal form; the diagonal is 0."""
    gram = (presence.T @ presence).toarray().astype(np.float64)
    gram[np.diag_indices_from(gram)] += regularization
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights.astype(np.float32)


def ease_dual(presence: sp.csr_matrix, regularization: float) -> Scorer:
    """The scores XB of EASE by the inverse of a matrix of people instead of items."""
    gram = (presence @ presence.T).toarray().astype(np.float64)
    gram[np.diag_indices_from(gram)] += regularization
    inverse = np.linalg.inv(gram).astype(np.float32)
    by_item = presence.T.tocsr()
    n_items = presence.shape[1]
    diagonal = np.empty(n_items)
    for first in range(0, n_items, ITEMS_AT_A_TIME):
        block = by_item[first : first + ITEMS_AT_A_TIME]
        explained = block.multiply(block @ inverse).sum(axis=1)
        diagonal[first : first + block.shape[0]] = np.asarray(explained).ravel()
    diagonal = ((1 - diagonal) / regularization).astype(np.float32)

    def scorer(rows: np.ndarray) -> np.ndarray:
        projected = (by_item @ inverse[:, rows]).T
        return presence[rows].toarray() - projected / diagonal

    return scorer
