"""The tables of a source as Arrow tables, for who needs some of their rows and no engine.

Reads what :func:`jobs.sources.contract.read` reads and gives the same rows, with exactly the
columns and types of the contract; writes nothing. A table is read a group of rows at a time, and of
a group that holds no row that is asked for only the columns that say so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.errors import Fault
from jobs.release.groups import one
from jobs.sources import contract
from jobs.sources.contract import ATTRIBUTES, IDS, TEXT, TEXTS, TIME, Contracted, File


@dataclass(frozen=True)
class Where:
    """Which rows are asked for: ``holds`` gives (n_rows,) booleans for these ``columns``."""

    columns: Sequence[str]
    holds: Callable[[pa.Table], pa.Array | pa.ChunkedArray]


def read(
    folder: Path, table: str, only: Collection[str] | None = None,
    columns: Sequence[str] | None = None, where: Where | None = None,
) -> pa.Table | None:  # fmt: skip
    """The rows of a contract table; ``None`` where the source has no such (optional) table.

    ``only``: of the table's Parquet files, those with these paths under the folder; ``columns``:
    those that are given, all if None. Raises ``Fault`` as :func:`contract.read` does.
    """
    known = {column.name: column for column in contract.CONTRACT[table]}
    files = contract.files(folder, table, only)
    if files is None:
        return None
    if contract.in_yaml(folder, table):
        rows = [dict(zip(known, row, strict=True)) for row in contract.read_yaml(folder, table)]
        return pa.Table.from_pylist(rows, contract.schema(table)).select(columns or [*known])
    return of_files(table, files, columns, where)


def of_files(
    table: str, files: Sequence[File], columns: Sequence[str] | None = None,
    where: Where | None = None,
) -> pa.Table:  # fmt: skip
    """What :func:`read` gives of these files, for who reads them more than once: to look at each
    one's footer takes as long as to read a few of its rows."""
    known = {column.name: column for column in contract.CONTRACT[table]}
    chosen = [known[name] for name in columns or known]
    schema = pa.schema([(column.name, column.type) for column in chosen])
    parts = (part for file in files for part in _parts(table, file, chosen, where))
    return pa.concat_tables([schema.empty_table(), *parts])


def _parts(
    table: str, file: File, chosen: Sequence[Contracted], where: Where | None
) -> Iterator[pa.Table]:
    probed = [one for one in contract.CONTRACT[table] if where and one.name in where.columns]
    try:
        # Arrow takes the old INT96 for nanoseconds, of which the years after 2262 are out.
        with pq.ParquetFile(file.path, coerce_int96_timestamp_unit="us") as parquet:
            for group in range(parquet.num_row_groups):
                if where is None:
                    yield _normal(parquet, group, file, chosen)
                    continue
                held = pc.fill_null(where.holds(_normal(parquet, group, file, probed)), False)
                if pc.any(held, min_count=0).as_py():
                    yield _normal(parquet, group, file, chosen).filter(held)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise Fault(f"source: {file.path} cannot be read: {reason}; write it again") from error


def _normal(
    parquet: pq.ParquetFile, group: int, file: File, chosen: Sequence[Contracted]
) -> pa.Table:
    """These columns of a group of rows, with the contract's types."""
    there = [column.name for column in chosen if column.name in file.reading]
    rows = parquet.read_row_group(group, there)
    size = parquet.metadata.row_group(group).num_rows
    return pa.table({
        column.name: _column(column, file.reading[column.name], one(rows[column.name]))
        if column.name in file.reading else pa.nulls(size, column.type)
        for column in chosen
    })  # fmt: skip


def _column(column: Contracted, kind: str, values: pa.Array) -> pa.Array:
    """A column as the contract has it; ``kind``: how Spark would have to read it."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if kind == "ns":
        return _micros(values)
    if column.type == TIME:
        return values.cast(pa.timestamp("us")).cast(TIME) if kind == "date" else values.cast(TIME)
    if column.type == TEXT:
        return _valid(values.cast(TEXT), _id if column.name in IDS else _readable)
    if column.type == TEXTS:
        return _of_lists(values.cast(TEXTS))
    if column.type == ATTRIBUTES:
        return _of_maps(values.cast(ATTRIBUTES))
    if pa.types.is_decimal(
        values.type
    ):  # read as it is written, since Arrow's own cast is not exact
        values = values.cast(pa.string())
    # As Spark does, an integer of more than 53 bits is the nearest double.
    return values.cast(column.type, safe=column.type != contract.NUMBER)


def _micros(values: pa.Array) -> pa.Array:
    """Nanoseconds as the microseconds at or before them."""
    nanos = pc.fill_null(values.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    missing = pc.is_null(values).to_numpy(zero_copy_only=False)
    return pa.array(np.floor_divide(nanos, 1000), pa.int64(), mask=missing).cast(TIME)


def _valid(texts: pa.Array, mend: Callable[[bytes], str]) -> pa.Array:
    """The texts, those that are no UTF-8 mended."""
    if _is_valid(texts):
        return texts
    found = [None if raw is None else mend(raw) for raw in texts.cast(pa.binary()).to_pylist()]
    return pa.array(found, TEXT)


def _is_valid(texts: pa.Array) -> bool:
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _readable(raw: bytes) -> str:
    return raw.decode("utf-8", errors="replace")


def _id(raw: bytes) -> str:
    """A text that stays another one than every other: with its bytes, where it is no UTF-8."""
    text = _readable(raw)
    return text if text.encode() == raw else f"{text}~{raw.hex()}"


def _of_lists(lists: pa.Array) -> pa.Array:
    if _is_valid(lists.values):
        return lists
    found = [
        None if texts is None else [None if raw is None else _readable(raw) for raw in texts]
        for texts in lists.cast(pa.list_(pa.binary())).to_pylist()
    ]
    return pa.array(found, TEXTS)


def _of_maps(maps: pa.Array) -> pa.Array:
    """Texts by names; an entry whose name is no UTF-8 is left out."""
    if _is_valid(maps.keys) and _is_valid(maps.items):
        return maps
    named = maps.cast(pa.map_(pa.binary(), pa.binary())).to_pylist()
    found = [
        None if entries is None else [
            (_readable(name), None if raw is None else _readable(raw))
            for name, raw in entries if _readable(name).encode() == name
        ]
        for entries in named
    ]  # fmt: skip
    return pa.array(found, ATTRIBUTES)
