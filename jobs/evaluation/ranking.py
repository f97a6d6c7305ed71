"""Lists from scores: only what a person may get, the best first.

A list of lists is (n_people, length) int64 codes of items, best first, -1 where a list is short.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp

from jobs.evaluation.baselines import Scorer
from jobs.filtering.allowed import Allowed

# Scores held at a time: 8 bytes each, and a few times as much while they are ranked.
SCORES = 4_000_000
SETS = 64


def rank(
    scorer: Scorer, people: np.ndarray, allowed: Allowed, known: sp.csr_matrix, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Two lists of lists: of all that each person may get, and of what is new to them.

    ``people``: (n,) codes for ``scorer``; ``known``: (n, n_columns) CSR, whose stored pairs are not
    new. Ties go to the lower code.
    """
    whole, fresh = [], []
    for first, last in blocks(len(people), known.shape[1]):
        scores = scorer(people[first:last])
        allowed.mask(scores, first)
        whole.append(best(scores, length))
        mine = known[first:last]
        scores[np.repeat(np.arange(last - first), np.diff(mine.indptr)), mine.indices] = -np.inf
        fresh.append(best(scores, length))
    return np.concatenate(whole), np.concatenate(fresh)


def blocks(n_people: int, n_items: int) -> Iterator[tuple[int, int]]:
    """Consecutive people whose scores of all items are ``SCORES`` at most, as (first, last)."""
    step = max(1, SCORES // max(n_items, 1))
    for first in range(0, n_people, step):
        yield first, min(first + step, n_people)


def best(scores: np.ndarray, length: int) -> np.ndarray:
    """(n_rows, length): the columns of the largest finite scores of each row."""
    n_rows, n_columns = scores.shape
    found = np.full((n_rows, length), -1, np.int64)
    depth = min(length, n_columns)
    if not depth or not n_rows:
        return found
    floor = _floor(scores, depth)
    rows, columns = np.divmod(
        np.flatnonzero((scores >= floor[:, None]) & (scores > -np.inf)), n_columns
    )
    order = np.lexsort((columns, -scores[rows, columns], rows))
    rows, columns = rows[order], columns[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = place < depth
    found[rows[kept], place[kept]] = columns[kept]
    return found


def _floor(scores: np.ndarray, depth: int) -> np.ndarray:
    """(n_rows,) a value that the ``depth`` largest of each row reach and few others do: the
    ``depth``-th largest of the maxima of disjoint sets of columns, or the exact one."""
    n_rows, n_columns = scores.shape
    width = min(SETS, n_columns // (4 * depth))
    if width > 1:
        sets = n_columns // width
        scores = scores[:, : width * sets].reshape(n_rows, width, sets).max(axis=1)
    return np.partition(scores, scores.shape[1] - depth, axis=1)[:, scores.shape[1] - depth]


def from_places(
    person: np.ndarray, item: np.ndarray, place: np.ndarray, n_people: int, length: int
) -> np.ndarray:
    """Lists of lists from rows: people by place from 0, items by ``place`` (n,), lowest first,
    closed up; a pair stands once."""
    order = np.lexsort((item, place, person))
    person, item = person[order], item[order]
    at = np.arange(len(person)) - np.searchsorted(person, person)
    found = np.full((n_people, length), -1, np.int64)
    kept = at < length
    found[person[kept], at[kept]] = item[kept]
    return found
