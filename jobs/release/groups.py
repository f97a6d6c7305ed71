"""Rows that belong together, as integers: what lists and pools are checked and written by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def codes(rows: pa.Table, names: Sequence[str]) -> np.ndarray:
    """(n_rows,) int64: equal where the rows agree in the columns ``names``."""
    found = np.zeros(rows.num_rows, np.int64)
    for name in names:
        encoded = one(rows[name]).dictionary_encode()
        found = found * len(encoded.dictionary) + encoded.indices.to_numpy()
    return found


def in_order(group: np.ndarray, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows' positions group by group, each by rank, and where each group starts therein."""
    places = np.lexsort((ranks, group))
    starts = np.flatnonzero(np.diff(group[places], prepend=-1))
    return places, starts


def runs(rows: pa.Table, names: Sequence[str]) -> np.ndarray:
    """Where each run of rows begins that agree in the columns ``names``."""
    begins = np.ones(rows.num_rows, bool)
    begins[1:] = False
    for name in names:
        column = one(rows[name])
        differ = pc.not_equal(column[1:], column[:-1]).fill_null(True)
        begins[1:] |= differ.to_numpy(zero_copy_only=False)
    return np.flatnonzero(begins)


def ranked(starts: np.ndarray, size: int) -> np.ndarray:
    """(size,) int64: 1, 2, … within each group of rows in order; ``starts`` as above."""
    lengths = np.diff(np.append(starts, size))
    return np.arange(size) - np.repeat(starts, lengths) + 1


def one(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
