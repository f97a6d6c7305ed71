"""Exact search for the best items that each person may get, filtered before it is cut.

A person meets the items of the person's group alone, the longest vectors first, and stops where
what is left is too short to reach the last place of the list (the bound of Cauchy and Schwarz, as
in LEMP: Teflioudi, Gemulla and Mykytiuk, 2015). So no list depends on how an approximate index was
cut into cells, and nothing is fetched that a filter then takes away.

A product of matrices may differ in its last bit by what stands beside a row (OpenBLAS' kernels for
Haswell and Zen). It only finds; what is found is scored again, pair by pair.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from threadpoolctl import threadpool_info, threadpool_limits

from jobs.filtering.allowed import Allowed
from jobs.retrieval.matrix import Nominated

# People of a group, and items, whose scores a thread makes at a time: 8 MB of them stay in the
# cache from the product to the passes that select among them. Of fitted vectors, whose lengths
# differ, the first part holds nearly all that is listed, and most people stop after it.
PEOPLE = 1024
ITEMS = 2048
# A product in single precision may exceed the product of its lengths by 64 roundings of 6e-8.
SLACK = 1 + 1e-5
# So many more than asked for are found, so that no last bit decides who is among them.
SPARE = 4
# People whose found pairs are scored again at a time.
RESCORED = 128
# Behind every key of a score.
NOTHING = np.iinfo(np.uint64).max


def best(
    person_vectors: np.ndarray, item_vectors: np.ndarray, allowed: Allowed, depth: int
) -> Nominated:
    """Each person's ``depth`` items of largest inner product among those that ``allowed`` leaves.

    ``person_vectors``: (n_people, dim) float32; ``item_vectors``: (n_items, dim) float32. Ties go
    to the lower item position; a person who has fewer items left gets fewer. As many threads as
    BLAS may use; their number does not change a bit of the result.
    """
    n_people, n_items = len(person_vectors), len(item_vectors)
    depth = min(depth, n_items)
    keys = np.full((n_people, depth), NOTHING)
    if keys.size:
        wide = min(depth + SPARE, n_items)
        ranged = _Ranged.of(item_vectors)
        blocked = _blocked(allowed, n_people, n_items)

        def search(share: tuple[int, np.ndarray]) -> None:
            group, rows = share
            kept = np.flatnonzero(allowed.masks[group, ranged.item])
            people = person_vectors[rows]
            found = _search(people, ranged, kept, blocked[rows], wide)
            keys[rows] = _scored(found, people, item_vectors)[:, :depth]

        threads = _threads()
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(search, _shares(allowed.group)):
                pass
    person, place = np.nonzero(keys != NOTHING)
    found = keys[person, place]
    return Nominated(person, _item(found), place + 1, _score(found))


@dataclass(frozen=True)
class _Ranged:
    """Items by falling length: ``item`` and ``length``, (n_items,), and ``vectors``, (n_items, dim)
    float32."""

    item: np.ndarray
    length: np.ndarray
    vectors: np.ndarray

    @staticmethod
    def of(vectors: np.ndarray) -> _Ranged:
        length = _length(vectors)
        order = np.argsort(-length, kind="stable")
        return _Ranged(order, length[order], vectors[order])


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))


def _threads() -> int:
    """The threads that BLAS may use."""
    blas = [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]
    return max(blas, default=os.cpu_count() or 1)


def _shares(group: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """People of one group, ``PEOPLE`` of them at a time: group and ascending positions."""
    order = np.argsort(group, kind="stable")
    firsts = np.flatnonzero(np.diff(group[order], prepend=-1))
    return [
        (int(group[rows[0]]), rows[first : first + PEOPLE])
        for rows in np.split(order, firsts[1:])
        for first in range(0, len(rows), PEOPLE)
    ]


def _blocked(allowed: Allowed, n_people: int, n_items: int) -> sp.csr_matrix:
    """(n_people, n_items) bool: the pairs that are blocked."""
    person, item = np.divmod(allowed.blocked, allowed.masks.shape[1])
    inside = item < n_items
    starts = np.searchsorted(person[inside], np.arange(n_people + 1))
    item = item[inside]
    return sp.csr_matrix((np.ones(len(item), bool), item, starts), shape=(n_people, n_items))


def _search(
    people: np.ndarray, items: _Ranged, kept: np.ndarray, blocked: sp.csr_matrix, depth: int
) -> np.ndarray:
    """(n_people, depth) keys of each person's best, ascending; ``kept``: the places among ``items``
    that all of them may get; ``blocked``: (n_people, n_items)."""
    keys = np.full((len(people), depth), NOTHING)
    length = _length(people)
    out = _Out.of(blocked, items, kept)
    held = np.empty(len(people) * min(ITEMS, len(kept)), np.float32)
    left = np.arange(len(people))
    for first in range(0, len(kept), ITEMS):
        part = kept[first : first + ITEMS]
        floor = _score(keys[left, -1])
        near = length[left] * items.length[part[0]] * SLACK >= floor
        left, floor = left[near], floor[near]
        if not len(left):
            break
        scores = held[: len(left) * len(part)].reshape(len(left), len(part))
        np.matmul(people[left], items.vectors[part].T, out=scores)
        out.take(scores, left, first)
        if np.isneginf(floor).any():
            floor = np.maximum(floor, _floor(scores, depth))
        keys[left] = _merged(keys[left], scores, floor, items.item[part])
    return keys


def _scored(keys: np.ndarray, people: np.ndarray, items: np.ndarray) -> np.ndarray:
    """The keys (n_people, depth) of the same items, ascending, by scores that are each summed by
    itself."""
    scored = np.full_like(keys, NOTHING)
    for first in range(0, len(keys), RESCORED):
        part = slice(first, first + RESCORED)
        item = np.where(keys[part] == NOTHING, 0, _item(keys[part]))
        scores = (items[item] * people[part, None, :]).sum(axis=2)
        scored[part] = np.where(keys[part] == NOTHING, NOTHING, _keys(scores, item))
    scored.sort(axis=1)
    return scored


@dataclass(frozen=True)
class _Out:
    """Pairs that are left out, by row and by place among the kept items."""

    row: np.ndarray
    place: np.ndarray
    n_rows: int

    @staticmethod
    def of(blocked: sp.csr_matrix, items: _Ranged, kept: np.ndarray) -> _Out:
        place = np.full(blocked.shape[1], -1)
        place[items.item[kept]] = np.arange(len(kept))
        row = np.repeat(np.arange(blocked.shape[0]), np.diff(blocked.indptr))
        column = place[blocked.indices]
        return _Out(row[column >= 0], column[column >= 0], blocked.shape[0])

    def take(self, scores: np.ndarray, left: np.ndarray, first: int) -> None:
        """Take them out of the scores of the rows ``left`` for the places from ``first`` on."""
        at = np.full(self.n_rows, -1)
        at[left] = np.arange(len(left))
        row, column = at[self.row], self.place - first
        inside = (row >= 0) & (column >= 0) & (column < scores.shape[1])
        scores[row[inside], column[inside]] = -np.inf


def _floor(scores: np.ndarray, depth: int) -> np.ndarray:
    """(n_rows,) a value that the ``depth`` largest of each row reach and few others do: the
    ``depth``-th largest of the maxima of disjoint sets of columns; minus infinity where there are
    too few columns to tell."""
    n_rows, n_columns = scores.shape
    width = max(1, min(64, n_columns // (4 * depth)))
    sets = n_columns // width
    if sets < depth:
        return np.full(n_rows, -np.inf, scores.dtype)
    tops = scores[:, : width * sets].reshape(n_rows, width, sets).max(axis=1)
    return np.partition(tops, sets - depth, axis=1)[:, sets - depth]


def _merged(
    keys: np.ndarray, scores: np.ndarray, floor: np.ndarray, items: np.ndarray
) -> np.ndarray:
    """The best of each row of ``keys`` (n_rows, depth) and of the scores that reach the floor."""
    n_rows, n_columns = scores.shape
    depth = keys.shape[1]
    flat = np.flatnonzero(scores >= floor[:, None])
    starts = np.searchsorted(flat, np.arange(n_rows + 1) * n_columns)
    counts = np.diff(starts)
    row = np.repeat(np.arange(n_rows), counts)
    both = np.full((n_rows, depth + counts.max()), NOTHING)
    both[:, :depth] = keys
    found = scores.ravel()[flat]
    both[row, depth + np.arange(len(flat)) - starts[row]] = np.where(
        found > -np.inf, _keys(found, items[flat - row * n_columns]), NOTHING
    )
    both.sort(axis=1)
    return both[:, :depth]


# --- a score and an item as one number, which sorts ten times as fast as the two -----------------
def _keys(scores: np.ndarray, items: np.ndarray) -> np.ndarray:
    """(n,) uint64 that ascend as scores fall, and of equal scores as items rise."""
    # Zero has no sign here, so that zeros tie.
    bits = _turned((scores + np.float32(0.0)).view(np.uint32))
    return (bits.astype(np.uint64) << np.uint64(32)) | items.astype(np.uint64)


def _item(keys: np.ndarray) -> np.ndarray:
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _score(keys: np.ndarray) -> np.ndarray:
    """(n,) float32, minus infinity of ``NOTHING``."""
    scores = _turned((keys >> np.uint64(32)).astype(np.uint32)).view(np.float32)
    return np.where(keys == NOTHING, np.float32(-np.inf), scores)


def _turned(bits: np.ndarray) -> np.ndarray:
    """The bits of floats as whole numbers that fall as the floats rise; applied again, the bits.
    Those of positive floats rise with them, those of negative ones fall already."""
    return np.where(bits >> np.uint32(31), bits, bits ^ np.uint32(0x7FFFFFFF))
