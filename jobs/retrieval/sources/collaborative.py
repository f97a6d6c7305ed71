"""Collaborative: the items whose vectors a person's vector agrees with most.

Exact: every person against every item that is allowed, so eligibility is known before the best
are taken, and no list depends on how an approximate index was cut into cells.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from jobs.retrieval.matrix import Nominated, candidate_rows

NAME = "collaborative"
# Scores held at a time, 4 bytes each and as much again while they are partitioned.
BLOCK = 16_000_000


def top_items(
    person_ids: pa.StringArray,
    person_vectors: np.ndarray,
    item_ids: pa.StringArray,
    item_vectors: np.ndarray,
    allowed: np.ndarray,
    depth: int,
    seen: sp.csr_matrix | None = None,
) -> pa.Table:
    """Each person's ``depth`` items of largest inner product, in the columns of ``candidates``.

    ``person_vectors``: (n_people, dim) float32; ``item_vectors``: (n_items, dim) float32;
    ``allowed``: (n_items,) bool; ``seen``: (n_people, n_items) CSR whose stored pairs are left out.
    """
    nominated = best(person_vectors, item_vectors, allowed, depth, seen)
    return candidate_rows(NAME, nominated, person_ids, item_ids)


def best(
    person_vectors: np.ndarray,
    item_vectors: np.ndarray,
    allowed: np.ndarray,
    depth: int,
    seen: sp.csr_matrix | None = None,
) -> Nominated:
    """As :func:`top_items`, in positions. Ties go to the lower item position.

    A person who has fewer items left gets fewer.
    """
    kept = np.flatnonzero(allowed)
    items = np.ascontiguousarray(item_vectors[kept])
    people = np.ascontiguousarray(person_vectors)
    depth = min(depth, len(kept))
    if depth == 0 or len(people) == 0:
        nothing = np.zeros(0, np.int64)
        return Nominated(nothing, nothing, nothing, np.zeros(0, np.float32))
    if seen is None:
        columns, scores = _search(people, items, depth)
    else:
        columns, scores = _multiply(people, items, depth, seen[:, kept])
    left = np.isfinite(scores)
    person, place = np.nonzero(left)
    return Nominated(person, kept[columns[left]], place + 1, scores[left])


def _search(people: np.ndarray, items: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """(n_people, depth) columns and scores by FAISS, which takes a third less time than a partition
    of the product; a person whose last place is tied is done by the product."""
    import faiss

    metric = faiss.METRIC_INNER_PRODUCT
    wide, found = faiss.knn(people, items, min(depth + 1, len(items)), metric=metric)
    order = np.lexsort((found, -wide), axis=1)
    wide = np.take_along_axis(wide, order, axis=1)
    columns = np.take_along_axis(found, order, axis=1)[:, :depth]
    scores = wide[:, :depth]
    if depth < len(items):
        tied = np.flatnonzero(wide[:, depth - 1] == wide[:, depth])
        if len(tied):
            columns[tied], scores[tied] = _multiply(people[tied], items, depth, None)
    return columns, scores


def _multiply(
    people: np.ndarray, items: np.ndarray, depth: int, seen: sp.csr_matrix | None
) -> tuple[np.ndarray, np.ndarray]:
    """(n_people, depth) columns and scores by the whole product, block by block; a pair that was
    seen scores minus infinity."""
    step = max(1, BLOCK // len(items))
    parts = []
    for first in range(0, len(people), step):
        scores = people[first : first + step] @ items.T
        if seen is not None:
            block = seen[first : first + step]
            rows = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
            scores[rows, block.indices] = -np.inf
        parts.append(_top(scores, depth))
    columns, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
    return columns, scores


def _top(scores: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """(n_rows, depth) columns and scores of the largest in each row, ties by column.

    A partition alone chooses freely among scores equal to the last one kept; those rows are
    sorted whole.
    """
    n_rows, n_columns = scores.shape
    if depth == n_columns:
        columns = np.tile(np.arange(n_columns), (n_rows, 1))
    else:
        columns = np.argpartition(scores, n_columns - depth, axis=1)[:, n_columns - depth :]
        last = np.take_along_axis(scores, columns, axis=1).min(axis=1)
        tied = np.flatnonzero((scores == last[:, None]).sum(axis=1) > 1)
        if len(tied):
            order = np.argsort(-scores[tied], axis=1, kind="stable")
            columns[tied] = order[:, :depth]
    columns.sort(axis=1)
    values = np.take_along_axis(scores, columns, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1)
