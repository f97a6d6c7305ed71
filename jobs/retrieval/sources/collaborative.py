"""Collaborative: the items whose vectors a person's vector agrees with most.

Exact: the whole product of people and items, block by block. It measured faster than an
approximate index up to some 100 k items, and it knows eligibility before the best are taken.
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
    depth = min(depth, len(kept))
    n_people = len(person_vectors)
    if depth == 0 or n_people == 0:
        nothing = np.zeros(0, np.int64)
        return Nominated(nothing, nothing, nothing, np.zeros(0, np.float32))
    step = max(1, BLOCK // len(kept))
    parts = []
    for first in range(0, n_people, step):
        scores = person_vectors[first : first + step] @ items.T
        if seen is not None:
            block = seen[first : first + step][:, kept]
            rows = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
            scores[rows, block.indices] = -np.inf
        parts.append(_top(scores, depth))
    columns = np.concatenate([part[0] for part in parts])
    scores = np.concatenate([part[1] for part in parts])
    left = np.isfinite(scores)
    person, place = np.nonzero(left)
    return Nominated(person, kept[columns[left]], place + 1, scores[left])


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
