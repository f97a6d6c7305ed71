"""How alike items are: for every item that may be served, those most like it.

Alike are items that the same people choose (shrunken cosine of item-to-item, and the angle between
collaborative vectors) and that are described alike (content vectors). Behaviour counts as far as
both items have it, so an item nobody chose yet is placed by its content alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from jobs.errors import Fault
from jobs.ordering.beside import Beside, Pairs
from jobs.retrieval import matrix
from jobs.retrieval.content_embeddings import unit
from jobs.retrieval.nearest import nearest
from jobs.retrieval.sources import item_to_item

if TYPE_CHECKING:
    from jobs.ordering.item_lists import Params

BLOCK = 200_000  # pairs scored at a time, 1 kB each


@dataclass(frozen=True)
class Known:
    """What is known of every item, row i of all belonging to the item of code i.

    ``content``, ``factors``: (n_items, dim) float32 of length 1, zeros where an item has none;
    ``people``: (n_items,) how many chose it; ``crowd``: (n_items, n_items) float32 CSR, the
    item-to-item neighbours.
    """

    content: np.ndarray
    factors: np.ndarray
    people: np.ndarray
    crowd: sp.csr_matrix


def known(
    item_ids: pa.StringArray,
    interactions: matrix.Interactions,
    factors: pa.Table,
    content: pa.Table,
    params: Params,
) -> Known:
    """Everything in the order of ``item_ids``, which are sorted.

    Raises ``Fault`` where an item has no content vector or interactions name an unknown item.
    """
    described = matrix.positions(item_ids, content["item_id"].combine_chunks())
    chosen = matrix.positions(interactions.item_ids, item_ids)
    with_factors = matrix.positions(factors["item_id"], item_ids)
    unknown = int((chosen < 0).sum() + (with_factors < 0).sum())
    if (described < 0).any() or unknown:
        raise Fault(
            f"item_lists: {int((described < 0).sum())} items have no content vector and "
            f"{unknown} items with interactions or factors are not in items; run the steps "
            "catalogue, content_embeddings and embeddings again for this night"
        )
    learnt = matrix.vectors_of(factors)
    aligned = np.zeros((len(item_ids), learnt.shape[1]), np.float32)
    aligned[with_factors] = unit(learnt)
    people = np.zeros(len(item_ids), np.int64)
    people[chosen] = np.bincount(interactions.matrix.indices, minlength=len(chosen))
    crowd = item_to_item.neighbours(
        interactions.matrix, item_to_item.Params(neighbours=params.neighbours)
    ).tocoo()
    return Known(
        content=unit(matrix.vectors_of(content)[described]),
        factors=aligned,
        people=people,
        crowd=sp.csr_matrix(
            (crowd.data, (chosen[crowd.row], chosen[crowd.col])), shape=(len(item_ids),) * 2
        ),
    )


def pairs(known: Known, beside: Beside, search: int, params: Params, seed: int) -> Pairs:
    """The ``search`` nearest of each served item, and those with its crowd, among what may stand
    beside it, with how alike they are."""
    parts = [
        (left, right, _score(known, left, right, params))
        for left, right in _candidates(known, beside, search, params, seed)
    ]
    nothing = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return Pairs(*(np.concatenate(part) for part in zip(nothing, *parts, strict=True)))


def _candidates(
    known: Known, beside: Beside, search: int, params: Params, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Candidate pairs (item, other), a class of items at a time, each among what it may show."""
    trust = known.people / (known.people + params.known_people)
    share = (params.behaviour * trust).astype(np.float32)[:, None]
    # The product of two such rows is content x content and behaviour x behaviour, weighted by how
    # well both are known: near enough to the score to find its best in one search.
    joint = np.hstack([known.content * np.sqrt(1 - share), known.factors * np.sqrt(share)])
    joint = unit(joint)
    for ours, shown in beside.classes():
        others = np.flatnonzero(shown)
        # One more, since an item is its own nearest.
        rows, _ = nearest(joint[ours], joint[others], search + 1, seed)
        found = rows >= 0
        near = np.repeat(ours, found.sum(axis=1)), others[rows[found]]
        crowd = known.crowd[ours].tocoo()
        crowded = shown[crowd.col]
        left = np.concatenate([near[0], ours[crowd.row[crowded]]])
        right = np.concatenate([near[1], crowd.col[crowded]])
        # Sorted and compared: numpy's own unique hashes, which took eight times as long.
        keys = np.sort((left * len(shown) + right)[left != right])
        keys = keys[np.diff(keys, prepend=-1) > 0]
        yield keys // len(shown), keys % len(shown)


def _score(known: Known, left: np.ndarray, right: np.ndarray, params: Params) -> np.ndarray:
    """(n_pairs,) float64 how alike the two items of each pair are."""
    trust = known.people / (known.people + params.known_people)
    score = np.empty(len(left))
    for first in range(0, len(left), BLOCK):
        one, two = left[first : first + BLOCK], right[first : first + BLOCK]
        weight = params.behaviour * trust[one] * trust[two]
        by_content = np.einsum("ij,ij->i", known.content[one], known.content[two])
        by_choice = np.einsum("ij,ij->i", known.factors[one], known.factors[two])
        score[first : first + BLOCK] = (1 - weight) * by_content + weight * by_choice
    score += params.shared_crowd * np.asarray(known.crowd[left, right]).ravel()
    return np.asarray(score * (params.unknown_share + (1 - params.unknown_share) * trust[right]))
