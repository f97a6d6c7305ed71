"""The frames that a gate looks at: a table with the columns that its suite derives.

Most rules about single rows look at a few rows that show whether they hold, out of the chunks of a
table as it is :func:`coded`; the rest look at :func:`chunks`, one after the other, so that memory
does not grow with the table. Rules about more look at :func:`whole` columns, and uniqueness at the
rows that are :func:`repeated`. Frames are pandas over Arrow. Only the columns that the suite names
are read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs import io, tables
from jobs.night import Night
from jobs.retrieval import matrix
from jobs.witnesses import encoded, places

if TYPE_CHECKING:
    from expectations.columns import Column, Forbidden, Found, Portion, Share

# A million places of lists with all that their gate looks at are about 1.5 GB.
CHUNK_ROWS = 1_000_000
# Values are few beside others that are as many times as many.
FEW = 4
HOUR_MICROSECONDS = 3_600e6
# A hash of several columns: that of the columns before, times an odd number, plus the next one's.
SPREAD, NO_VALUE = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1B54A32D192ED03)
Locate = Callable[[str], Path]


class Others:
    """The tables beside the judged one: each is read once, however many chunks look at it."""

    def __init__(self, folder_of: Locate) -> None:
        self._folder_of = folder_of
        self._read: dict[tuple[str, tuple[str, ...]], pa.Table] = {}
        self._keys: dict[Found, Keys] = {}

    @cached_property
    def bans(self) -> Bans:
        """Which items are not for which people."""
        return Bans.of(
            self.read("persons", ["person_id", "region", "restrictions"]),
            self.read("ineligible_items", ["item_id", "kind", "value"]),
        )

    def read(self, table: str, columns: Sequence[str]) -> pa.Table:
        """These columns of a table."""
        asked = (table, tuple(sorted(set(columns))))
        if asked not in self._read:
            self._read[asked] = io.read_arrow(self._folder_of(table), list(asked[1]))
        return self._read[asked]

    def keys(self, column: Found) -> Keys:
        """What a row is looked for among."""
        if column not in self._keys:
            names = column.keys or column.columns
            asked = dict.fromkeys([*names, *(name for name, _ in column.where)])
            # Coded, since the ids of millions of places take ten times as much.
            rows = io.read_arrow(self._folder_of(column.table), list(asked), coded=names)
            for name, value in column.where:
                rows = rows.filter(pc.equal(rows[name], pa.scalar(value)))
            self._keys[column] = Keys.of([rows[name] for name in names])
        return self._keys[column]


@dataclass(frozen=True)
class Keys:
    """Rows of some columns, as ascending integers, and the different values of each, ascending."""

    values: list[pa.Array]
    codes: np.ndarray

    @staticmethod
    def of(columns: Sequence[pa.ChunkedArray]) -> Keys:
        each = [encoded(column) for column in columns]
        orders = [pc.sort_indices(column.dictionary) for column in each]
        values = [x.dictionary.take(order) for x, order in zip(each, orders, strict=True)]
        # Where a value stands once they ascend; null stands last, at -1.
        ranks = (np.append(np.argsort(order), -1).astype(np.int32) for order in orders)
        stand = (rank[places(x)] for rank, x in zip(ranks, each, strict=True))
        codes, known = _together(stand, values)
        distinct = matrix.distinct(codes[known])
        if len(columns) == 1:  # of these only the values that some row has
            values = [values[0].take(pa.array(distinct - 1))]
            distinct = np.arange(len(distinct)) + 1
        return Keys(values, distinct)

    def hold(self, columns: Sequence[pa.ChunkedArray]) -> np.ndarray:
        """(n_rows,) bool: which rows of these columns are among them; null is not."""
        stand = (_stand(column, own) for column, own in zip(columns, self.values, strict=True))
        if len(self.values) == 1:  # each of them is a key
            return next(stand) >= 0
        codes, known = _together(stand, self.values)
        return known & matrix.among(codes, self.codes)


@dataclass(frozen=True)
class Bans:
    """What is not for whom. Of each rule ``ruled`` is (n_people + 1,) bool, who is under it, and
    ``banned`` (n_items + 1,) bool, what it bans, both in the order of the ascending ids; the last
    stands for whoever and whatever is unknown."""

    people: pa.Array
    items: pa.Array
    rules: list[tuple[np.ndarray, np.ndarray]]

    @staticmethod
    def of(people: pa.Table, banned: pa.Table) -> Bans:
        """Region and restriction alike: a person under a rule and an item that the rule bans."""
        people = people.sort_by("person_id")
        items = _values(banned["item_id"]).sort()
        listed = _whole(people["restrictions"])
        under = {
            "region": (np.arange(people.num_rows), people["region"]),
            "restriction": (pc.list_parent_indices(listed).to_numpy(), pc.list_flatten(listed)),
        }
        rules = []
        for kind, (holder, value) in under.items():
            of_kind = banned.filter(pc.equal(banned["kind"], kind))
            for rule in _values(of_kind["value"]):
                of_rule = of_kind.filter(pc.equal(of_kind["value"], rule))
                ruled = np.zeros(people.num_rows + 1, bool)
                ruled[holder[pc.fill_null(pc.equal(value, rule), False).to_numpy(False)]] = True
                bans = np.zeros(len(items) + 1, bool)
                bans[_places(of_rule["item_id"], items)] = True
                rules.append((ruled, bans))
        return Bans(_whole(people["person_id"]), items, rules)


def _together(
    stand: Iterable[np.ndarray], values: Sequence[pa.Array]
) -> tuple[np.ndarray, np.ndarray]:
    """(n_rows,) int64, equal where rows are, and (n_rows,) bool: all of whose values are known.

    ``stand``: of each column, where its values stand in ``values``, -1 where they do not.
    """
    codes, known = np.zeros(1, np.int64), np.ones(1, bool)
    for place, own in zip(stand, values, strict=True):
        known = known & (place >= 0)
        codes = codes * (len(own) + 1) + place
        codes += 1
    return codes, known


@dataclass(frozen=True)
class Batch:
    """A table as its gate sees it: where its rows come from, which count (the boolean column
    ``where``), and what is derived beside its own columns."""

    folder: Path
    derived: Mapping[str, Column]
    others: Others
    where: str | None = None

    @cached_property
    def _footers(self) -> tuple[int, frozenset[str]]:
        return io.footers(self.folder)

    @property
    def rows(self) -> int:
        """Rows of the table, those that do not count included; asked of the files' footers once."""
        return self._footers[0]

    @cached_property
    def schema(self) -> pa.Schema:
        """The table's own columns."""
        return io.schema_of(self.folder)

    @property
    def required(self) -> frozenset[str]:
        """The columns that can hold no null in any file."""
        return self._footers[1]


def locate(night: Night) -> Locate:
    """Where a table lies for a gate: staged where it is the gated step's, else published."""

    def folder(name: str) -> Path:
        step = tables.TABLES[name].step
        home = night.staged if step == night.step else night.published(step).folder
        return home / name

    return folder


def whole(batch: Batch, names: Sequence[str]) -> pd.DataFrame:
    """These columns, own and derived ones, of all rows."""
    table = io.read_arrow(batch.folder, _read_for(batch, names) or None)
    return _frame(batch, _counted(batch, table), names)


def chunks(batch: Batch, names: Sequence[str]) -> Iterator[pd.DataFrame]:
    """These columns of up to some more than ``CHUNK_ROWS`` rows at a time, in the files' order."""
    for table in io.read_chunks(batch.folder, _read_for(batch, names) or None, CHUNK_ROWS):
        yield _frame(batch, _counted(batch, table), names)


def coded(batch: Batch, names: Sequence[str], presence: Collection[str] = ()) -> Iterator[pa.Table]:
    """These columns of as many rows at a time, in Arrow and each in one piece: texts as places
    among their different values, and true or null for those of which only the ``presence`` counts.
    Such are not read where no file can hold a null of them.
    """
    there = [name for name in names if name in presence and _is_there_or_null(batch, name)]
    valued = [name for name in names if name not in there]
    used = _read_for(batch, valued)
    read = sorted({*used, *(name for name in there if name not in batch.required)})
    # Of no column at all a scan tells no rows.
    read, texts = read or there[:1], _texts(batch, used)
    for table in io.read_chunks(batch.folder, read, CHUNK_ROWS, coded=texts):
        rows = _counted(batch, table).unify_dictionaries().combine_chunks()
        kept = _derive(batch, rows, valued)
        for name in there:
            held = rows[name].is_valid() if name in read else pa.scalar(True)
            kept = kept.append_column(name, _true_or_null(held, rows.num_rows))
        yield kept


def _is_there_or_null(batch: Batch, name: str) -> bool:
    """Whether a column is the table's own, of a kind without a NaN, which counts as missing too."""
    own = batch.schema.field(name).type if name not in batch.derived else None
    return own is not None and not pa.types.is_floating(own)


def _true_or_null(held: Any, rows: int) -> pa.Array:
    return _whole(pc.if_else(held, pa.array(np.ones(rows, bool)), None))


def _texts(batch: Batch, names: Sequence[str]) -> list[str]:
    """The texts in these columns, by their paths, but those whose derived columns need them so."""
    by_place = ("Found", "Forbidden", "Length")
    other = [c for c in batch.derived.values() if type(c).__name__ not in by_place]
    plain = {name for column in other for name in column.reads}
    kinds = {name: batch.schema.field(name).type for name in names if name not in plain}
    leaves = [leaf for name, kind in kinds.items() for leaf in io.leaves_of(name, kind)]
    return [path for path, kind in leaves if pa.types.is_string(kind)]


def frame_of(tables: Sequence[pa.Table]) -> pd.DataFrame:
    """Rows of :func:`coded` chunks in one frame, their texts written out."""
    rows = pa.concat_tables([_plain_numbers(table) for table in tables])
    return rows.to_pandas(types_mapper=_arrow_backed)


def counted(batch: Batch) -> pd.DataFrame:
    """As many rows as count, of a byte each: what a rule about their number looks at."""
    where = batch.where
    count = io.count_rows(batch.folder, ds.field(where)) if where else batch.rows
    return pd.DataFrame({"row": np.zeros(count, np.int8)})


def repeated(
    batch: Batch, keys: Sequence[str], names: Sequence[str], several: np.ndarray | None = None
) -> pd.DataFrame:
    """The columns ``names`` of the rows whose ``keys`` some other row has too; ``several``: which
    of their hashes come twice, where that is known.

    Keys become hashes of 64 bits, a chunk at a time, and are sorted: 170 million rows take 1.4
    gigabytes, whatever their keys are. A row whose hash is another's by chance is among them too;
    whoever judges them looks at the values.
    """
    if several is None:
        several = hashed(batch, keys).repeated()
    if not len(several):
        read = _read_for(batch, keys)
        return _frame(batch, batch.schema.empty_table().select(read), keys)
    # Made a second time, alike since the same files are read in their order: a sound table need not
    # be held twice.
    hashes = hashed(batch, keys).found.view(np.int64)
    kept, first = [], 0
    for chunk in chunks(batch, names):
        kept.append(chunk[matrix.among(hashes[first : first + len(chunk)], several)])
        first += len(chunk)
    return pd.concat(kept, ignore_index=True)


class Hashes:
    """The ``keys`` of up to so many rows, eight bytes each: ``found`` is (n_rows,) uint64, equal
    where the rows' keys are; a null is a value of its own."""

    def __init__(self, keys: Sequence[str], rows: int) -> None:
        self._keys, self._all, self._filled = keys, np.zeros(rows, np.uint64), 0

    @property
    def found(self) -> np.ndarray:
        return self._all[: self._filled]

    def add(self, rows: pa.Table) -> None:
        """The next rows."""
        part = self._all[self._filled : self._filled + rows.num_rows]
        of_column = np.empty_like(part)
        for name in self._keys:
            # Hashed are the different values alone.
            column = encoded(rows[name])
            values = column.dictionary.to_numpy(zero_copy_only=False)
            hashes = np.append(pd.util.hash_array(values, categorize=False), NO_VALUE)
            # All are places among them; "clip" spares to ask whether they are.
            np.take(hashes, places(column), out=of_column, mode="clip")
            part *= SPREAD
            part += of_column
        self._filled += rows.num_rows

    def repeated(self) -> np.ndarray:
        """(n,) int64, ascending: those that come twice. Their order is lost by it."""
        ordered = self.found.view(np.int64)
        ordered.sort()
        return ordered[1:][ordered[1:] == ordered[:-1]]


def hashed(batch: Batch, keys: Sequence[str]) -> Hashes:
    """The hashes of all rows that count."""
    hashes = Hashes(keys, batch.rows)
    for rows in coded(batch, keys):
        hashes.add(rows)
    return hashes


def _read_for(batch: Batch, names: Sequence[str]) -> list[str]:
    reads = {batch.where} if batch.where else set()
    for name in names:
        reads |= set(batch.derived[name].reads) if name in batch.derived else {name}
    return sorted(reads)


def _counted(batch: Batch, table: pa.Table) -> pa.Table:
    return table.filter(pc.fill_null(table[batch.where], False)) if batch.where else table


def _frame(batch: Batch, table: pa.Table, names: Sequence[str]) -> pd.DataFrame:
    kept = _derive(batch, table, names)
    return _plain_numbers(kept).to_pandas(types_mapper=_arrow_backed)


def _derive(batch: Batch, table: pa.Table, names: Sequence[str]) -> pa.Table:
    kept = table.select([name for name in names if name not in batch.derived])
    for name in names:
        if name in batch.derived:
            column = batch.derived[name]
            value = _DERIVED[type(column).__name__](table, column, batch.others)
            kept = kept.append_column(name, value)
    return kept


def _plain_numbers(table: pa.Table) -> pa.Table:
    """Integers as int64, fractions as double: Great Expectations compares int64, double and times
    as whole columns, and every other type value by value, in Python (8 s for two times of 1.3 M
    events, 8 s for the features of 1.35 M pairs). Texts that are coded are written out.
    """
    kinds = [pa.field(f.name, _plain_number(f.type)) for f in table.schema]
    return table.cast(pa.schema(kinds))


def _plain_number(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_integer(kind):
        return pa.int64()
    return pa.float64() if pa.types.is_floating(kind) else kind


def _arrow_backed(kind: pa.DataType) -> pd.ArrowDtype | None:
    """Numbers and times become numpy's; the rest stays Arrow's, which costs no copy."""
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return None if numeric or pa.types.is_timestamp(kind) else pd.ArrowDtype(kind)


# --- derived columns --------------------------------------------------------------------------
def _found(table: pa.Table, column: Found, others: Others) -> pa.Array:
    return pa.array(others.keys(column).hold([table[name] for name in column.columns]))


def _forbidden(table: pa.Table, column: Forbidden, others: Others) -> pa.Array:
    bans = others.bans
    person, item = _stand(table[column.person], bans.people), _stand(table[column.item], bans.items)
    found = np.zeros(table.num_rows, bool)
    for ruled, banned in bans.rules:
        found |= ruled[person] & banned[item]
    return pa.array(found)


def _length(table: pa.Table, column: Any, others: Others) -> pa.ChunkedArray:
    return pc.list_value_length(table[column.column])


def _finite(table: pa.Table, column: Any, others: Others) -> pa.Array:
    vectors = _whole(table[column.column])
    good = np.ones(len(vectors), bool)
    values = pc.fill_null(pc.is_finite(pc.list_flatten(vectors)), False)
    parents = pc.list_parent_indices(vectors).to_numpy()
    good[parents[~values.to_numpy(zero_copy_only=False)]] = False
    return pa.array(good & pc.is_valid(vectors).to_numpy(zero_copy_only=False))


def _same(table: pa.Table, column: Any, others: Others) -> pa.ChunkedArray:
    return pc.fill_null(pc.equal(table[column.left], table[column.right]), False)


def _dense(table: pa.Table, column: Any, others: Others) -> pa.ChunkedArray:
    return pc.less(table[column.column], table.num_rows)


def _portion(table: pa.Table, column: Portion, others: Others) -> pa.ChunkedArray:
    named = _starts_with_one(table[column.column], column.prefixes)
    named = pc.and_not(named, _starts_with_one(table[column.column], column.but))
    return pc.if_else(named, table[column.value], 0.0)


def _share(table: pa.Table, column: Share, others: Others) -> pa.ChunkedArray:
    values = table[column.value].cast(pa.float64())
    counted = _starts_with_one(table[column.column], column.of)
    whole = pc.sum(values.filter(counted)).as_py() or 0.0
    named = _starts_with_one(table[column.column], column.prefixes)
    if whole < column.least:
        return pa.chunked_array([np.zeros(table.num_rows)])
    return pc.if_else(named, pc.divide(values, whole), 0.0)


def _starts_with_one(values: pa.ChunkedArray, prefixes: tuple[str, ...]) -> pa.Array:
    named = pa.array(np.zeros(len(values), bool))
    for prefix in prefixes:
        named = pc.or_(named, _starts(values, prefix))
    return named


def _starts(values: pa.ChunkedArray, prefix: str) -> pa.Array:
    return _whole(pc.fill_null(pc.starts_with(values, pattern=prefix), False))


def _lead(table: pa.Table, column: Any, others: Others) -> pa.Array:
    values, names = table[column.value].to_pylist(), table[column.column].to_pylist()
    leads = []
    for value, name in zip(values, names, strict=True):
        rivals = [v for v, n in zip(values, names, strict=True) if n != name and v is not None]
        leads.append(value - max(rivals) if rivals and value is not None else None)
    return pa.array(leads, pa.float64())


def _shortfall(table: pa.Table, column: Any, others: Others) -> pa.ChunkedArray:
    return pc.subtract(table[column.left], table[column.right])


def _elapsed(table: pa.Table, column: Any, others: Others) -> pa.ChunkedArray:
    microseconds = pc.subtract(table[column.until], table[column.since]).cast(pa.int64())
    return pc.divide(microseconds.cast(pa.float64()), HOUR_MICROSECONDS)


def _whole(values: pa.ChunkedArray | pa.Array) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _values(values: pa.ChunkedArray) -> pa.Array:
    return pc.drop_null(pc.unique(_whole(values)))


def _places(values: pa.ChunkedArray | pa.Array, of: pa.Array) -> np.ndarray:
    """Where each value stands in ``of``; -1 where it does not."""
    return pc.fill_null(pc.index_in(values, value_set=of), -1).to_numpy()


def _stand(values: pa.ChunkedArray, of: pa.Array) -> np.ndarray:
    """As :func:`_places`, in ``of`` that ascends."""
    if not pa.types.is_dictionary(values.type):
        return _places(values, of)
    # Looked for are the different values alone: few by halves, since else all of ``of`` is hashed.
    column = encoded(values)
    different = column.dictionary
    if len(of) < FEW * len(different):
        found = _places(different, of)
    else:
        at = np.minimum(pc.search_sorted(of, different).to_numpy().astype(np.int64), len(of) - 1)
        same = pc.equal(of.take(pa.array(at)), different).to_numpy(zero_copy_only=False)
        found = np.where(same, at, -1)
    return np.append(found, -1)[places(column)]


_DERIVED: dict[str, Callable[..., Any]] = {
    "Found": _found, "Forbidden": _forbidden, "Length": _length, "Finite": _finite,
    "Same": _same, "Dense": _dense, "Portion": _portion, "Share": _share, "Lead": _lead,
    "Shortfall": _shortfall, "Elapsed": _elapsed,
}  # fmt: skip
