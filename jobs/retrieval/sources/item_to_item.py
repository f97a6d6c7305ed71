"""Item to item: what the people who chose this item also chose.

Neighbours by shrunken cosine over the people two items share. Whether a person chose an item
counts, not how much: on Complete Journey (cut 2017-10-06, 28 days after, recall@100 of items new to
the person) cosine on weights reached 0.017 to 0.021, on presence 0.068 to 0.070, with shrinkage
0.083; TF-IDF stayed at 0.068, BM25 at 0.028 or below, since both favour items almost nobody chose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from jobs.params import check
from jobs.retrieval.matrix import Interactions, candidate_rows
from jobs.retrieval.neighbours import nominate, strongest

NAME = "item_to_item"


@dataclass(frozen=True)
class Params:
    """How neighbours are counted and which of a person's items speak."""

    # Neighbours kept an item; 100 found nothing more, 30 lost 8 %.
    neighbours: int = 50
    # Added to both items' numbers of people, so that two items of two people are no twins.
    shrinkage: float = 10.0
    # An item that fewer people chose has no neighbours to speak of.
    min_people: int = 2
    # Items that speak for a person; the strongest lately.
    seeds: int = 100
    # A seed's say halves in this many days since the person's last event on it.
    half_life_days: float = 60.0
    # Leave out what the person already chose: buying again has its own source.
    new_only: bool = True

    def __post_init__(self) -> None:
        check(self.neighbours >= 1, "neighbours must be at least 1")
        check(self.shrinkage >= 0, "shrinkage must not be negative")
        check(self.min_people >= 1, "min_people must be at least 1")
        check(self.seeds >= 1, "seeds must be at least 1")
        check(self.half_life_days > 0, "half_life_days must be positive")


def candidates(
    interactions: Interactions,
    similarity: sp.csr_matrix,
    as_of_us: int,
    allowed: np.ndarray,
    depth: int,
    params: Params,
) -> pa.Table:
    """Each person's top ``depth`` neighbours of their items, in the columns of ``candidates``.

    ``similarity`` comes from :func:`neighbours`; ``allowed``: (n_items,) bool over
    ``interactions.item_ids``; ``as_of_us``: microseconds since 1970 UTC.
    """
    seeds = strongest(interactions, params.seeds, as_of_us, params.half_life_days)
    own = interactions.matrix if params.new_only else None
    nominated = nominate(seeds, similarity, allowed, depth, own)
    return candidate_rows(NAME, nominated, interactions.person_ids, interactions.item_ids)


def neighbours(matrix: sp.csr_matrix, params: Params) -> sp.csr_matrix:
    """(n_items, n_items) float32 CSR: each item's nearest others by shrunken cosine, not itself.

    ``matrix``: (n_people, n_items). The similarity of a and b is the number of people with both,
    over sqrt((people of a + shrinkage) x (people of b + shrinkage)).
    """
    from implicit.nearest_neighbours import all_pairs_knn

    people_of = np.bincount(matrix.indices, minlength=matrix.shape[1])
    share = np.where(people_of >= params.min_people, 1 / np.sqrt(people_of + params.shrinkage), 0)
    presence = matrix.astype(np.float64, copy=True)
    presence.data = share[presence.indices]
    presence.eliminate_zeros()
    # An item is its own first neighbour, so one more is asked for and it is then taken out.
    found = all_pairs_knn(presence, params.neighbours + 1, show_progress=False).tocsr()
    found.setdiag(0)
    found.eliminate_zeros()
    found.sort_indices()
    return found.astype(np.float32)
