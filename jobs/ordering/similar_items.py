"""For every item that may be served, the list of items most like it.

Reads ``items``, ``rules_in_force``, ``ineligible_items``, ``interactions``, ``item_factors`` and
``content_vectors``. Writes ``similar_items`` (a row per place of an item's list).

Alike are items that the same people choose (shrunken cosine of item-to-item, and the angle between
collaborative vectors) and that are described alike (content vectors). Behaviour counts as far as
both items have it, so an item nobody chose yet is placed by its content alone.

Filtered before the list is filled: an item that nobody may get is in no list and has none; a flag
(alcohol, say) may only appear beside items that carry it too, since these lists know no person and
thus no restriction; an item sold in some regions only may not appear beside one sold in more. What
a business rule bans on every surface and in every region is like an item that nobody may get.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from jobs.errors import Fault
from jobs.filtering import filters
from jobs.night import Night
from jobs.ordering import rules
from jobs.params import check
from jobs.retrieval import matrix
from jobs.retrieval.content_embeddings import unit
from jobs.retrieval.nearest import nearest
from jobs.retrieval.neighbours import first_of_each
from jobs.retrieval.sources import item_to_item

BLOCK = 200_000  # pairs scored at a time, 1 kB each


@dataclass(frozen=True)
class Params:
    """What a list holds and how alike is judged."""

    # Places of a list.
    length: int = 20
    # Neighbours looked at for each item before the best are taken.
    search: int = 30
    # The say of collaborative vectors against content where both items are well known.
    behaviour: float = 0.4
    # An item that this many people chose is half known: below, its vector is mostly noise.
    known_people: float = 20.0
    # What a shared crowd (item-to-item, 0 to 1) adds to the score. At 1.0 a grocer's milk was most
    # like eggs and petrol: staples share everybody, and go together without being alike.
    shared_crowd: float = 0.25
    # Item-to-item neighbours looked at.
    neighbours: int = 20
    # What an item that nobody chose counts against a well known one: of a grocer's thirty equal
    # milks, most have not sold for months, and a list of those helps nobody.
    unknown_share: float = 0.7

    def __post_init__(self) -> None:
        check(self.length >= 1, "length must be at least 1")
        check(self.search >= self.length, "search must not be below length")
        check(0 <= self.behaviour <= 1, "behaviour must be in 0..1")
        check(self.known_people > 0, "known_people must be positive")
        check(self.shared_crowd >= 0, "shared_crowd must not be negative")
        check(self.neighbours >= 1, "neighbours must be at least 1")
        check(0 <= self.unknown_share <= 1, "unknown_share must be in 0..1")


@dataclass(frozen=True)
class Catalogue:
    """What is known of every item, row i of all belonging to ``item_ids[i]`` (sorted).

    ``content``, ``factors``: (n_items, dim) float32 of length 1, zeros where an item has none;
    ``people``: (n_items,) how many chose it; ``crowd``: (n_items, n_items) float32 CSR, the
    item-to-item neighbours; ``classes``: (n_items,) codes of (flags, regions), -1 for an item that
    nobody may get; ``beside``: (n_classes, n_classes) bool, whether an item of the second class may
    stand in a list of the first.
    """

    item_ids: pa.StringArray
    content: np.ndarray
    factors: np.ndarray
    people: np.ndarray
    crowd: sp.csr_matrix
    classes: np.ndarray
    beside: np.ndarray


def run(night: Night, params: Params) -> None:
    """Stage ``similar_items``."""
    items = night.arrow("items", [*rules.ITEM_COLUMNS, "regions"]).sort_by("item_id")
    nobody = pc.field("kind") == filters.EVERYONE[0]
    ineligible = night.arrow("ineligible_items", ["item_id", "kind", "value"], nobody)
    banned = rules.banned(night.arrow("rules_in_force"), items).filter(nobody)
    for_nobody = pa.concat_tables([ineligible, banned])
    rows = night.arrow("interactions", ["person_id", "item_id", "weight", "last_time"])
    factors, content = night.arrow("item_factors"), night.arrow("content_vectors")
    known = catalogue(items, for_nobody, matrix.build(rows), factors, content, params)
    lists = similar(known, params, night.seed)
    night.write("similar_items", lists)
    served = int((known.classes >= 0).sum())
    listed = pc.count_distinct(lists["item_id"]).as_py()
    night.notes["lists"] = {"served_items": served, "items_with_a_list": listed}


def catalogue(
    items: pa.Table,
    for_nobody: pa.Table,
    interactions: matrix.Interactions,
    factors: pa.Table,
    content: pa.Table,
    params: Params,
) -> Catalogue:
    """Everything in the order of ``items`` (item_id, flags, regions), which is sorted by id.

    Raises ``Fault`` where an item has no content vector or interactions name an unknown item.
    """
    item_ids = items["item_id"].combine_chunks()
    described = matrix.positions(item_ids, content["item_id"].combine_chunks())
    chosen = matrix.positions(interactions.item_ids, item_ids)
    with_factors = matrix.positions(factors["item_id"], item_ids)
    unknown = int((chosen < 0).sum() + (with_factors < 0).sum())
    if (described < 0).any() or unknown:
        raise Fault(
            f"similar_items: {int((described < 0).sum())} items have no content vector and "
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
    classes, beside = classify(items)
    classes[matrix.positions(for_nobody["item_id"], item_ids)] = -1
    return Catalogue(
        item_ids=item_ids,
        content=unit(matrix.vectors_of(content)[described]),
        factors=aligned,
        people=people,
        crowd=sp.csr_matrix(
            (crowd.data, (chosen[crowd.row], chosen[crowd.col])), shape=(len(item_ids),) * 2
        ),
        classes=classes,
        beside=beside,
    )


def classify(items: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """(n_items,) codes of equal (flags, regions), and which class may stand beside which.

    Flags are compared without case and outer spaces, as restrictions are. Null regions are
    everywhere.
    """
    keys = [
        (
            frozenset(flag.strip().casefold() for flag in flags or ()),
            None if regions is None else frozenset(regions),
        )
        for flags, regions in zip(
            items["flags"].to_pylist(), items["regions"].to_pylist(), strict=True
        )
    ]
    code_of: dict[tuple, int] = {}
    codes = np.array([code_of.setdefault(key, len(code_of)) for key in keys], dtype=np.int64)
    kinds = list(code_of)
    beside = np.array(
        [
            [
                theirs[0] <= ours[0]
                and (theirs[1] is None or (ours[1] is not None and ours[1] <= theirs[1]))
                for theirs in kinds
            ]
            for ours in kinds
        ]
    )
    return codes, beside


def similar(known: Catalogue, params: Params, seed: int) -> pa.Table:
    """The table ``similar_items``: each served item's best ``length`` others, ties by item id."""
    parts = [
        _best(known, left, right, params) for left, right in _pairs_by_class(known, params, seed)
    ]
    nothing = (np.zeros(0, np.int64),) * 3 + (np.zeros(0),)
    left, right, rank, score = (np.concatenate(part) for part in zip(nothing, *parts, strict=True))
    order = np.lexsort((rank, left))
    return pa.table(
        {
            "item_id": known.item_ids.take(pa.array(left[order])),
            "rank": rank[order].astype(np.int32),
            "similar_item_id": known.item_ids.take(pa.array(right[order])),
            "score": score[order],
        }
    )


def _pairs_by_class(
    known: Catalogue, params: Params, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Candidate pairs (item, other), a class of items at a time, each among what it may show."""
    trust = known.people / (known.people + params.known_people)
    share = (params.behaviour * trust).astype(np.float32)[:, None]
    # The product of two such rows is content x content and behaviour x behaviour, weighted by how
    # well both are known: near enough to the score to find its best in one search.
    joint = np.hstack([known.content * np.sqrt(1 - share), known.factors * np.sqrt(share)])
    joint = unit(joint)
    served = known.classes >= 0
    for code in range(len(known.beside)):
        ours = np.flatnonzero(known.classes == code)
        shown = served & known.beside[code][known.classes]
        others = np.flatnonzero(shown)
        if len(ours) == 0:
            continue
        # One more, since an item is its own nearest.
        rows, _ = nearest(joint[ours], joint[others], params.search + 1, seed)
        found = rows >= 0
        near = np.repeat(ours, found.sum(axis=1)), others[rows[found]]
        crowd = known.crowd[ours].tocoo()
        crowded = shown[crowd.col]
        left = np.concatenate([near[0], ours[crowd.row[crowded]]])
        right = np.concatenate([near[1], crowd.col[crowded]])
        # Sorted and compared: numpy's own unique hashes, which took eight times as long.
        pairs = np.sort((left * len(served) + right)[left != right])
        pairs = pairs[np.diff(pairs, prepend=-1) > 0]
        yield pairs // len(served), pairs % len(served)


def _best(
    known: Catalogue, left: np.ndarray, right: np.ndarray, params: Params
) -> tuple[np.ndarray, ...]:
    """Pairs sorted by the first: the best of each item, as (item, other, rank, score)."""
    trust = known.people / (known.people + params.known_people)
    score = np.empty(len(left))
    for first in range(0, len(left), BLOCK):
        one, two = left[first : first + BLOCK], right[first : first + BLOCK]
        weight = params.behaviour * trust[one] * trust[two]
        by_content = np.einsum("ij,ij->i", known.content[one], known.content[two])
        by_choice = np.einsum("ij,ij->i", known.factors[one], known.factors[two])
        score[first : first + BLOCK] = (1 - weight) * by_content + weight * by_choice
    score += params.shared_crowd * np.asarray(known.crowd[left, right]).ravel()
    score *= params.unknown_share + (1 - params.unknown_share) * trust[right]
    kept, rank = first_of_each(left, right, score, params.length)
    return left[kept], right[kept], rank, score[kept]
