"""From the items a person chose lately to their neighbours, with the seed that spoke loudest.

Item-to-item, bought-together and content neighbours differ in what a neighbour is; how a person's
seeds nominate through neighbours is the same for all and lives here.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from jobs.retrieval.matrix import Interactions, Nominated, among
from jobs.signals.past import runs

DAY = 86_400_000_000  # microseconds
# Contributions expanded at a time, 24 bytes each with their keys and sort order: about 200 MB.
BLOCK = 4_000_000


@dataclass(frozen=True)
class Seeds:
    """The items that speak for each person: ``weights`` (n_people, n_items) float32 CSR with
    sorted columns; ``last_times`` (nnz,) int64 microseconds in its order."""

    weights: sp.csr_matrix
    last_times: np.ndarray


def strongest(
    interactions: Interactions, count: int, as_of_us: int, half_life_days: float
) -> Seeds:
    """The ``count`` items of most lately shown intent per person.

    A seed's weight is the square root of the pair's weight, so that a staple bought weekly does not
    speak for everything, halved every ``half_life_days`` since the pair's last event.
    """
    matrix = interactions.matrix
    age = np.maximum(as_of_us - interactions.last_times, 0) / DAY
    weights = np.sqrt(matrix.data) * np.exp2(-age / half_life_days).astype(np.float32)
    people = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    kept = np.sort(first_of_each(people, matrix.indices, weights, count)[0])
    starts = np.searchsorted(people[kept], np.arange(matrix.shape[0] + 1))
    chosen = sp.csr_matrix(
        (weights[kept].astype(np.float32), matrix.indices[kept], starts), shape=matrix.shape
    )
    return Seeds(chosen, interactions.last_times[kept])


def nominate(
    seeds: Seeds,
    neighbours: sp.csr_matrix,
    allowed: np.ndarray,
    depth: int,
    own: sp.csr_matrix | None,
) -> Nominated:
    """Each person's ``depth`` best neighbours of their seeds.

    ``neighbours``: (n_items, n_items) CSR, row i the neighbours of item i with their strength. A
    candidate's score is the sum over the person's seeds of seed weight x strength, and its seed the
    one that added most. ``allowed`` (n_items,) bool and ``own`` (n_people, n_items; those pairs
    are left out; None leaves all in) are applied before the best are taken. Ties go to the lower
    position. Memory is bounded by ``BLOCK``, whatever the number of people.
    """
    keep = neighbours.multiply(sp.csr_matrix(allowed.astype(np.float32)[None, :])).tocsr()
    keep.eliminate_zeros()
    keep.sort_indices()
    fan_out = np.diff(keep.indptr)
    weights = seeds.weights
    per_person = np.add.reduceat(
        np.append(fan_out[weights.indices], 0), np.minimum(weights.indptr[:-1], weights.nnz)
    ) * (np.diff(weights.indptr) > 0)
    parts = []
    for first, last in _blocks(per_person):
        parts.append(_nominate_block(seeds, keep, fan_out, depth, own, first, last))
    joined = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
    return Nominated(*joined)


def _nominate_block(
    seeds: Seeds,
    neighbours: sp.csr_matrix,
    fan_out: np.ndarray,
    depth: int,
    own: sp.csr_matrix | None,
    first: int,
    last: int,
) -> tuple[np.ndarray, ...]:
    weights, n_items = seeds.weights, neighbours.shape[0]
    pairs = np.arange(weights.indptr[first], weights.indptr[last])
    seed = weights.indices[pairs]
    person = np.repeat(
        np.arange(first, last, dtype=np.int64), np.diff(weights.indptr[first : last + 1])
    )
    counts = fan_out[seed]
    # One row per (seed pair, neighbour): where in ``neighbours`` it lies, and from which pair.
    pair = np.repeat(np.arange(len(pairs)), counts)
    place = np.arange(len(pair)) + np.repeat(
        neighbours.indptr[seed] - np.concatenate(([0], np.cumsum(counts)[:-1])), counts
    )
    key = (person[pair] - first) * n_items + neighbours.indices[place]
    added = weights.data[pairs][pair] * neighbours.data[place]
    if own is not None:
        block = own[first:last]
        rows = np.repeat(np.arange(last - first, dtype=np.int64), np.diff(block.indptr))
        fresh = ~among(key, rows * n_items + block.indices)
        key, added, pair = key[fresh], added[fresh], pair[fresh]
    order = np.argsort(key, kind="stable")
    key, added, pair = key[order], added[order], pair[order]
    starts = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1]))) if len(key) else key
    if len(starts) == 0:
        nothing = np.zeros(0, np.int64)
        return nothing, nothing, nothing, np.zeros(0), nothing, nothing
    # Double precision: the sum of a block must not depend on where the block begins.
    score = np.add.reduceat(added.astype(np.float64), starts)
    loudest = _first_maximum(added, starts)
    group_person, group_item = key[starts] // n_items, key[starts] % n_items
    best, rank = first_of_each(group_person, group_item, score, depth)
    from_pair = pair[loudest[best]]
    return (
        group_person[best] + first, group_item[best], rank, score[best],
        seed[from_pair].astype(np.int64), seeds.last_times[pairs[from_pair]],
    )  # fmt: skip


def _blocks(sizes: np.ndarray) -> list[tuple[int, int]]:
    """Consecutive rows whose sizes add to about ``BLOCK`` at most, as (first, last) pairs."""
    edges = np.flatnonzero(np.diff(np.cumsum(sizes) // BLOCK)) + 1
    limits = [0, *edges.tolist(), len(sizes)]
    return list(itertools.pairwise(limits))


def first_of_each(
    group: np.ndarray, item: np.ndarray, score: np.ndarray, depth: int
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the ``depth`` highest scores in each group, best first, and their ranks from 1.

    ``group`` ascends; ties go to the lower item; ``depth`` is 1 or more, and no score is NaN.
    """
    rows = np.flatnonzero(_in_reach(group, score, depth))
    order = rows[np.lexsort((item[rows], -score[rows], group[rows]))]
    starts, of_group = runs(group[order])
    rank = np.arange(1, len(order) + 1) - starts[of_group]
    kept = rank <= depth
    return order[kept], rank[kept]


def _in_reach(group: np.ndarray, score: np.ndarray, depth: int) -> np.ndarray:
    """(n,) bool: whether fewer than ``depth`` rows of the group score higher. What does not need no
    place in an order, and is most of what a person's neighbours add up to."""
    reach = np.ones(len(group), bool)
    starts, _ = runs(group)
    sizes = np.diff(starts, append=len(group))
    for first, size in zip(starts[sizes > depth], sizes[sizes > depth], strict=True):
        part = score[first : first + size]
        reach[first : first + size] = part >= np.partition(part, size - depth)[size - depth]
    return reach


def _first_maximum(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The index of the first maximum in each run of values that begins at ``starts``."""
    top = np.repeat(
        np.maximum.reduceat(values, starts), np.diff(np.concatenate((starts, [len(values)])))
    )
    equal = np.flatnonzero(values == top)
    return equal[np.searchsorted(equal, starts)]
