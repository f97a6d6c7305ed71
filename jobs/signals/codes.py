"""Texts and rows of several tables as integers, which are equal where these are.

Millions of keys are compared so without a text or a Python object a row: what is held is a number
a row, and each distinct text once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

WIDE = pa.large_string()  # offsets of 64 bits: a hundred million keys outgrow those of 32
MOST = 2**62  # codes stay below it


def of_texts(*columns: pa.ChunkedArray) -> tuple[pa.LargeStringArray, list[np.ndarray]]:
    """The distinct texts of all columns, and for each column (n_rows,) int64: where its texts stand
    among them, -1 for null."""
    chunks = [chunk for column in columns for chunk in column.cast(WIDE).chunks]
    encoded = pa.chunked_array(chunks, WIDE).dictionary_encode().chunks  # by one dictionary
    distinct = encoded[0].dictionary if encoded else pa.array([], WIDE)
    places = [pc.fill_null(chunk.indices, -1).to_numpy() for chunk in encoded]
    found = np.concatenate([np.zeros(0, np.int64), *places])
    return distinct, np.split(found, np.cumsum([len(column) for column in columns])[:-1])


def of_rows(names: Sequence[str], *tables: pa.Table) -> list[pa.Int64Array]:
    """(n_rows,) int64 of each table: equal where rows of any of them agree in these columns of
    texts; null where one of a row's texts is, since null agrees with nothing."""
    size = sum(rows.num_rows for rows in tables)
    found, missing, below = np.zeros(size, np.int64), np.zeros(size, bool), 1
    for name in names:
        distinct, parts = of_texts(*(rows[name] for rows in tables))
        base, places = max(len(distinct), 1), np.concatenate(parts)
        if below * base > MOST:  # numbered anew, they are no more than the rows
            found, below = np.unique(found, return_inverse=True)[1], size
        found, below = found * base + np.maximum(places, 0), below * base
        missing |= places < 0
    ends = np.cumsum([rows.num_rows for rows in tables])[:-1]
    of_table = zip(np.split(found, ends), np.split(missing, ends), strict=True)
    return [pa.array(values, pa.int64(), mask=nulls) for values, nulls in of_table]


def places(asked: pa.Array, known: pa.Array) -> pa.Int32Array:
    """(n_asked,) where each value stands in ``known``, whose values are distinct; null for null,
    and for one that is not there."""
    return pc.index_in(asked, value_set=known, skip_nulls=True)
