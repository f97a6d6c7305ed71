"""Content neighbours: items that few people chose yet, near in content to what a person chose.

A new item has no behaviour to be found by; what it is stands in for that until people choose it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from jobs.errors import Fault
from jobs.params import check
from jobs.retrieval import matrix
from jobs.retrieval.matrix import Interactions, candidate_rows
from jobs.retrieval.nearest import nearest
from jobs.retrieval.neighbours import Seeds, nominate, strongest

NAME = "content_neighbours"


@dataclass(frozen=True)
class Params:
    """Which items count as cold and which of a person's items speak."""

    # An item that more people chose is found by behaviour.
    max_people: int = 3
    # Cold neighbours kept an item.
    neighbours: int = 20
    # Items that speak for a person: few, since every one costs a search.
    seeds: int = 30
    # A seed's say halves in this many days since the person's last event on it.
    half_life_days: float = 60.0
    # What an item that nobody chose yet counts against one that somebody did: most of an old
    # catalogue that never sold never will.
    unsold_share: float = 0.2

    def __post_init__(self) -> None:
        check(self.max_people >= 0, "max_people must not be negative")
        check(self.neighbours >= 1, "neighbours must be at least 1")
        check(self.seeds >= 1, "seeds must be at least 1")
        check(self.half_life_days > 0, "half_life_days must be positive")
        check(0 <= self.unsold_share <= 1, "unsold_share must be in 0..1")


@dataclass(frozen=True)
class Cold:
    """The catalogue and the cold neighbours in it of each item that speaks for somebody.

    ``item_ids``: sorted; ``near``: (n_items, n_items) float32 CSR over them; ``place``: (n_known,)
    where each of the interactions' items stands in them.
    """

    item_ids: pa.StringArray
    near: sp.csr_matrix
    place: np.ndarray


def cold(
    interactions: Interactions,
    content: pa.Table,
    as_of_us: int,
    params: Params,
    choosers: np.ndarray | None = None,
    seed: int = 0,
) -> Cold:
    """The cold neighbours of all items that speak for the people of ``interactions``.

    ``content``: item_id and vector (of length 1) of every item that may be named: none that was not
    known at ``as_of_us`` (microseconds since 1970 UTC). ``choosers``: (n_items,) how many people
    chose each of ``interactions.item_ids``; None counts those of ``interactions``, which must then
    hold everybody. Raises ``Fault`` where an item with interactions has no content vector.
    """
    content = content.sort_by("item_id")
    item_ids = content["item_id"].combine_chunks()
    if isinstance(item_ids, pa.ChunkedArray):
        item_ids = pa.concat_arrays(item_ids.chunks)
    place = matrix.positions(interactions.item_ids, item_ids)
    if (place < 0).any():
        raise Fault(
            f"{NAME}: {int((place < 0).sum())} items with interactions have no content vector; "
            "run the step content_embeddings again for this night"
        )
    if choosers is None:
        choosers = np.bincount(interactions.matrix.indices, minlength=len(place))
    chosen_by = np.zeros(len(item_ids), np.int64)
    chosen_by[place] = choosers
    seeds = strongest(interactions, params.seeds, as_of_us, params.half_life_days)
    speaking = np.unique(place[seeds.weights.indices])
    near = cold_neighbours(matrix.vectors_of(content), speaking, chosen_by, params, seed)
    return Cold(item_ids, near, place)


def candidates(
    interactions: Interactions, found: Cold, as_of_us: int, depth: int, params: Params
) -> pa.Table:
    """Each person's top ``depth`` cold items by content, in the columns of ``candidates``.

    ``interactions``: of some or all of the people that ``found`` was made for, at the same time.
    """
    n_items = len(found.item_ids)
    seeds = _over_catalogue(
        strongest(interactions, params.seeds, as_of_us, params.half_life_days),
        found.place,
        n_items,
    )
    own = sp.csr_matrix(
        (
            interactions.matrix.data,
            found.place[interactions.matrix.indices],
            interactions.matrix.indptr,
        ),
        shape=(len(interactions.person_ids), n_items),
    )
    nominated = nominate(seeds, found.near, np.ones(n_items, bool), depth, own)
    return candidate_rows(NAME, nominated, interactions.person_ids, found.item_ids)


def cold_neighbours(
    vectors: np.ndarray, speaking: np.ndarray, chosen_by: np.ndarray, params: Params, seed: int
) -> sp.csr_matrix:
    """(n_items, n_items) float32 CSR: the nearest cold items of each of the items ``speaking``.

    ``vectors``: (n_items, dim) float32 of length 1; ``speaking``: ascending items;
    ``chosen_by``: (n_items,) people.
    """
    cold = np.flatnonzero(chosen_by <= params.max_people)
    # One more, since a cold item that speaks is its own nearest.
    rows, cosines = nearest(vectors[speaking], vectors[cold], params.neighbours + 1, seed)
    found = rows >= 0
    left = np.repeat(speaking, found.sum(axis=1))
    right = cold[rows[found]]
    strength = cosines[found] * np.where(chosen_by[right] > 0, 1.0, params.unsold_share)
    kept = (left != right) & (strength > 0)
    return sp.csr_matrix(
        (strength[kept].astype(np.float32), (left[kept], right[kept])), shape=(len(vectors),) * 2
    )


def _over_catalogue(seeds: Seeds, place: np.ndarray, n_items: int) -> Seeds:
    """The same seeds with columns of the catalogue; ``place`` ascends, so they stay sorted."""
    weights = sp.csr_matrix(
        (seeds.weights.data, place[seeds.weights.indices], seeds.weights.indptr),
        shape=(seeds.weights.shape[0], n_items),
    )
    return Seeds(weights, seeds.last_times)
