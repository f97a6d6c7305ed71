"""Bought together: pairs that share baskets more often than chance lets expect.

Significance is Dunning's log-likelihood ratio ("Accurate methods for the statistics of surprise and
coincidence", 1993): raw counts only say what sells, and lift alone favours pairs seen twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from jobs.params import check
from jobs.retrieval.matrix import Interactions, candidate_rows, encode, positions
from jobs.retrieval.neighbours import nominate, strongest

NAME = "bought_together"
# Cells of the co-occurrence counts made at a time, 12 bytes each: about 200 MB.
BLOCK = 16_000_000
PAIRS = pa.schema(
    [("item_id", pa.string()), ("other_item_id", pa.string()), ("score", pa.float64()),
     ("support", pa.int64())]
)  # fmt: skip


@dataclass(frozen=True)
class Params:
    """Which pairs count and which of a person's items speak."""

    # Baskets that must hold both items: fewer are hearsay, and most of the cells.
    min_support: int = 5
    # The likelihood ratio that a pair must pass: chi-square at one degree of freedom, p = 0.001.
    min_ratio: float = 10.83
    # Only this many of a basket's items are paired, its most frequently sold: a wholesaler's
    # basket of a thousand lines would add a million pairs that mean nothing.
    basket_cap: int = 100
    # Partners kept an item.
    partners: int = 50
    # Items that speak for a person, the strongest lately; 50 with a half-life of 30 days lost 4 %.
    seeds: int = 100
    # A seed's say halves in this many days since the person's last event on it.
    half_life_days: float = 60.0
    # Leave out what the person already chose: buying again has its own source.
    new_only: bool = True

    def __post_init__(self) -> None:
        check(self.min_support >= 1, "min_support must be at least 1")
        check(self.min_ratio >= 0, "min_ratio must not be negative")
        check(self.basket_cap >= 2, "basket_cap must be at least 2")
        check(self.partners >= 1, "partners must be at least 1")
        check(self.seeds >= 1, "seeds must be at least 1")
        check(self.half_life_days > 0, "half_life_days must be positive")


def candidates(
    interactions: Interactions,
    together: pa.Table,
    as_of_us: int,
    allowed: np.ndarray,
    depth: int,
    params: Params,
) -> pa.Table:
    """Each person's top ``depth`` partners of their items, in the columns of ``candidates``.

    ``together`` comes from :func:`pairs`; ``allowed``: (n_items,) bool over
    ``interactions.item_ids``; ``as_of_us``: microseconds since 1970 UTC.
    """
    item_ids = interactions.item_ids
    left = positions(together["item_id"], item_ids)
    right = positions(together["other_item_id"], item_ids)
    # A pair with an item that nobody has intent for any more (all returned) has no seed.
    known = (left >= 0) & (right >= 0)
    strength = together["score"].to_numpy().astype(np.float32)[known]
    partners = sp.csr_matrix(
        (strength, (left[known], right[known])), shape=(len(item_ids), len(item_ids))
    )
    seeds = strongest(interactions, params.seeds, as_of_us, params.half_life_days)
    own = interactions.matrix if params.new_only else None
    nominated = nominate(seeds, partners, allowed, depth, own)
    return candidate_rows(NAME, nominated, interactions.person_ids, item_ids)


def pairs(history: pa.Table, params: Params) -> pa.Table:
    """Item pairs with significant positive association, both ways round, best first in each item.

    ``history``: person_id, basket, item_id, event_type; only purchases count. The result has
    item_id, other_item_id, support (baskets with both) and score: the share of the item's baskets
    that hold the other, its support less one deviation of a count (support - sqrt(support)).
    """
    bought = history.filter(pc.equal(history["event_type"], "purchase"))
    item_ids, items = encode(bought["item_id"])
    _, people = encode(bought["person_id"])
    _, names = encode(bought["basket"])
    # A basket's name is the shop's own and may repeat across people.
    _, baskets = np.unique(people * (names.max(initial=0) + 1) + names, return_inverse=True)
    presence = _presence(baskets, items, len(item_ids))
    n_baskets = presence.shape[0]
    of_item = np.asarray(presence.sum(axis=0)).ravel().astype(np.int64)
    capped = _cap(presence, of_item, params)
    parts = [
        _significant(left, right, support, of_item, n_baskets, params)
        for left, right, support in _counts(capped, params.min_support)
    ]
    left, right, support, score = (np.concatenate(part) for part in zip(*parts, strict=True))
    return pa.table(
        [item_ids.take(pa.array(left)), item_ids.take(pa.array(right)), score, support],
        schema=PAIRS,
    )


def log_likelihood_ratio(
    both: np.ndarray, left: np.ndarray, right: np.ndarray, total: int
) -> np.ndarray:
    """Dunning's G² of each 2x2 table, float64.

    ``both``, ``left``, ``right``: baskets with both items, with the one, with the other; ``total``:
    all baskets.
    """
    both, left, right = (np.asarray(a, dtype=np.float64) for a in (both, left, right))
    whole = np.asarray(total, dtype=np.float64)
    cells = (both, left - both, right - both, whole - left - right + both)
    margins = (left, whole - left, right, whole - right)
    inside = np.sum([_xlogx(cell) for cell in cells], axis=0)
    return 2 * (inside + _xlogx(whole) - np.sum([_xlogx(margin) for margin in margins], axis=0))


def _xlogx(count: np.ndarray) -> np.ndarray:
    return count * np.log(np.maximum(count, 1e-300))


def _presence(baskets: np.ndarray, items: np.ndarray, n_items: int) -> sp.csr_matrix:
    """(n_baskets, n_items) float32 CSR of ones."""
    n_baskets = int(baskets.max(initial=-1)) + 1
    presence = sp.csr_matrix(
        (np.ones(len(items), np.float32), (baskets, items)), shape=(n_baskets, n_items)
    )
    presence.data[:] = 1
    return presence


def _cap(presence: sp.csr_matrix, of_item: np.ndarray, params: Params) -> sp.csr_matrix:
    """Without items too rare for any pair, and each basket's most frequent ``basket_cap`` items."""
    basket = np.repeat(np.arange(presence.shape[0]), np.diff(presence.indptr))
    frequent = of_item[presence.indices] >= params.min_support
    basket, item = basket[frequent], presence.indices[frequent]
    order = np.lexsort((item, -of_item[item], basket))
    basket, item = basket[order], item[order]
    place = np.arange(len(basket)) - np.searchsorted(basket, basket)
    kept = place < params.basket_cap
    return _matrix(basket[kept], item[kept], presence.shape)


def _matrix(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sp.csr_matrix:
    return sp.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)


def _counts(
    presence: sp.csr_matrix, min_support: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of different items with enough baskets in common: (left, right, support) blocks.

    A block's cells before the cut are at most about ``BLOCK``, whatever the number of baskets.
    """
    by_item = presence.T.tocsr()
    basket_size = np.diff(presence.indptr)
    work = np.add.reduceat(
        np.append(basket_size[by_item.indices], 0), np.minimum(by_item.indptr[:-1], by_item.nnz)
    ) * (np.diff(by_item.indptr) > 0)
    edges = np.flatnonzero(np.diff(np.cumsum(work) // BLOCK)) + 1
    limits = [0, *edges.tolist(), by_item.shape[0]]
    for first, last in itertools.pairwise(limits):
        counts = (by_item[first:last] @ presence).tocoo()
        enough = (counts.data >= min_support) & (counts.row + first != counts.col)
        left = counts.row[enough].astype(np.int64) + first
        yield left, counts.col[enough].astype(np.int64), counts.data[enough].astype(np.int64)


def _significant(
    left: np.ndarray,
    right: np.ndarray,
    support: np.ndarray,
    of_item: np.ndarray,
    n_baskets: int,
    params: Params,
) -> tuple[np.ndarray, ...]:
    """The pairs that pass the test, at most ``partners`` an item, with their score."""
    ratio = log_likelihood_ratio(support, of_item[left], of_item[right], n_baskets)
    together_more = support * float(n_baskets) > of_item[left] * of_item[right].astype(np.float64)
    passed = (ratio >= params.min_ratio) & together_more
    left, right, support = left[passed], right[passed], support[passed]
    score = (support - np.sqrt(support)) / of_item[left]
    order = np.lexsort((right, -score, left))
    place = np.arange(len(order)) - np.searchsorted(left[order], left[order])
    order = order[place < params.partners]
    return left[order], right[order], support[order], score[order]
