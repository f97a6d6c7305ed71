"""What the adapters share: writing contract tables as Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs import io
from jobs.sources import contract

ROWS_PER_GROUP = 256_000  # small enough for parallel reading, large enough for dictionaries


def write(folder: Path, table: str, part: int = 0, /, **columns: Any) -> int:
    """Write columns (arrays by name; the rest is null) as one file of a contract table.

    Returns the rows written. Dictionary arrays stay compact and are read as plain texts.
    """
    declared = contract.schema(table)
    unknown = sorted(set(columns) - set(declared.names))
    if unknown:
        raise ValueError(f"{table} has no column {', '.join(unknown)}")
    given = {name: _fit(values, declared.field(name).type) for name, values in columns.items()}
    length = len(next(iter(given.values())))
    # Absent columns are written too, as nulls: every file of a table has one schema.
    rows = pa.table(
        {
            field.name: given[field.name] if field.name in given else pa.nulls(length, field.type)
            for field in declared
        }
    )
    home = folder / table
    home.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        rows,
        home / f"part-{part:05d}.parquet",
        compression=io.COMPRESSION,
        row_group_size=ROWS_PER_GROUP,
        store_schema=False,
    )
    return rows.num_rows


def _fit(values: Any, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    if not isinstance(values, pa.Array | pa.ChunkedArray):
        values = pa.array(values)
    if pa.types.is_dictionary(values.type) and values.type.value_type == kind:
        return values
    return values.cast(kind)


def constant(text: str, length: int) -> pa.DictionaryArray:
    """The same text in every row."""
    return pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(length, dtype=np.int8)), pa.array([text])
    )


def texts(lists: Iterable[Mapping[str, str] | None]) -> pa.Array:
    """Attributes: a map of texts a row, null where there is none."""
    return pa.array([list(each.items()) if each else None for each in lists], contract.ATTRIBUTES)
