"""Which logged rows can be judged by their chances, and the policies that a log itself gives."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.diagnosis.policies.estimators import Target

# What became of a row; the first that fits.
DEEP, MOVED, NO_CHANCE, CERTAIN, THIN, MIXED, JUDGED = OUTCOMES = (
    "left out: below the places that are judged",
    "left out: the page showed the list in another order",
    "left out: without a propensity above 0 and up to 1",
    "left out: propensity 1, nothing else could have stood there",
    "left out: its context has fewer rows than items at places",
    "left out: its context mixes lists of different candidates",
    "judged",
)
# A context whose inverse propensities add up to clearly less than its items has requests that
# could not get them all: its items are no candidates of each request.
MIXED_BELOW, MIXED_SIGMAS = 0.8, 3.0


def outcomes(rows: pa.Table, request: np.ndarray, places: int) -> np.ndarray:
    """(n,) the place in ``OUTCOMES`` of what becomes of each row; ``request``: (n,) codes.

    A list whose places the page moved is left out whole: which of its rows stayed depends on the
    items. Whether a context can be judged is asked of the rows that are left.
    """
    position, chance = rows["position"].to_numpy(), rows["propensity"].to_numpy()
    where = rows["shown_position"].fill_null(-1).to_numpy()
    moved = np.bincount(request, (where >= 0) & (where != position))[request] > 0
    with np.errstate(invalid="ignore"):
        unknown = ~((chance > 0) & (chance <= 1))
        certain = chance >= 1 - 1e-9
    found = np.select(
        [position > places, moved, unknown, certain],
        [OUTCOMES.index(one) for one in (DEEP, MOVED, NO_CHANCE, CERTAIN)],
        OUTCOMES.index(JUDGED),
    )
    left = np.flatnonzero(found == OUTCOMES.index(JUDGED))
    if len(left):
        part = rows.select(["release_id", "segment", "item_id"]).take(pa.array(left))
        context, item = codes(context_of(part))[0], codes(part["item_id"])[0]
        found[left] = _of_contexts(context, item, position[left], chance[left])
    return found


def _of_contexts(
    context: np.ndarray, item: np.ndarray, position: np.ndarray, chance: np.ndarray
) -> np.ndarray:
    """(n,) the outcome of the row's context, ``THIN``, ``MIXED`` or ``JUDGED``.

    The inverse chance of a row is, on the mean, the number of items that its request could get.
    """
    rows = np.bincount(context)
    of_pair, _, _ = pairs(context, item)
    items = np.bincount(of_pair, minlength=len(rows))
    depth = np.zeros(len(rows), np.int64)
    np.maximum.at(depth, context, position)
    weight = 1.0 / (items[context] * chance)
    mean = np.bincount(context, weight) / rows
    spread = np.sqrt(np.maximum(np.bincount(context, weight**2) / rows - mean**2, 0) / rows)
    of_context = np.select(
        [rows < items * depth, mean + MIXED_SIGMAS * spread < MIXED_BELOW],
        [OUTCOMES.index(THIN), OUTCOMES.index(MIXED)],
        OUTCOMES.index(JUDGED),
    )
    return of_context[context]


def uniform(context: np.ndarray, item: np.ndarray, places: int) -> Target:
    """Any item of its context at any place; ``context``, ``item``: (pairs,) codes."""
    chance = 1.0 / np.bincount(context)[context]
    return Target(
        context=np.tile(context, places),
        place=np.repeat(np.arange(places), len(context)),
        item=np.tile(item, places),
        chance=np.tile(chance, places),
    )


def greedy(context: np.ndarray, item: np.ndarray, strength: np.ndarray, places: int) -> Target:
    """The strongest items of each context in order, ties by the item's code; all (pairs,)."""
    order = np.lexsort((item, -strength, context))
    context, item = context[order], item[order]
    place = np.arange(len(context)) - np.searchsorted(context, context)
    top = place < places
    return Target(context[top], place[top], item[top], np.ones(int(top.sum())))


def pairs(context: np.ndarray, item: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(pairs,) the contexts and their items, by context, and (n,) each row's pair."""
    size = int(item.max(initial=-1)) + 1
    found, row = np.unique(context * size + item, return_inverse=True)
    return found // size, found % size, row


def context_of(rows: pa.Table) -> pa.ChunkedArray:
    """What was released to whom; within it all are taken to have the same candidates."""
    return pc.binary_join_element_wise(rows["release_id"], rows["segment"], "\x1f")


def codes(values: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """(n,) codes of equal texts, and the texts, sorted, in the order of the codes."""
    found = values.combine_chunks().dictionary_encode()
    order = pc.sort_indices(found.dictionary)
    place = np.empty(len(order), np.int64)
    place[order.to_numpy()] = np.arange(len(order))
    return place[found.indices.to_numpy()], found.dictionary.take(order)
