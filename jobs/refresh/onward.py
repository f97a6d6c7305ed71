"""Tables that go on from the base: the rows of those who changed are replaced, the rest shared.

A file in which nobody changed is the base's own file under another name, which costs nothing; so
tables of persons lie in files of few people each.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs import io, tables
from jobs.night import Night
from jobs.release import groups, releases
from jobs.retrieval import matrix

# People of a file: fewer would make more files than a folder is comfortable with (a hundred a table
# at 50,000 people), and for one person who changed a file is written again.
PEOPLE = 500
# Where more than this share of a table's rows is touched, all of them anew are quicker.
MOST = 0.2
THREADS = 4  # that write files again
PIECES = 8  # of a file, that are written as they stand: more are copied quicker
LARGE = 1 << 25  # bytes of a file that is written again alone


class Writer:
    """Stages tables of persons in files of few people."""

    def __init__(self, night: Night, first: Mapping[str, int] | None = None):
        """``first``: by table the number of its first part, 0 where it is not named."""
        self._night, self._next = night, Counter(first or {})

    def add(self, name: str, rows: pa.Table) -> None:
        """Stage these rows, those of a person together, behind what was added before."""
        for part in parts(rows):
            self._night.add(name, self._next[name], part)
            self._next[name] += 1

    def close(self, *names: str) -> None:
        """Stage these tables without a row, where nothing was added to them."""
        for name in names:
            if not self._next[name]:
                self.add(name, tables.TABLES[name].schema.empty_table())


def parts(rows: pa.Table, people: int = PEOPLE) -> Iterator[pa.Table]:
    """The rows, of which those of a person stand together, in tables of so many people each."""
    ids = pa.concat_arrays(rows["person_id"].cast(pa.string()).chunks) if rows.num_rows else []
    if len(ids) < 2:
        yield rows
        return
    begins = np.flatnonzero(pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)) + 1
    edges = [0, *begins[people - 1 :: people].tolist(), rows.num_rows]
    for first, last in pairwise(edges):
        yield rows.slice(first, last - first)


def by_people(
    some: Sequence[pa.Table], ids: pa.StringArray, people: int = PEOPLE
) -> Iterator[pa.Table]:
    """The rows of several tables of one shape, of so many people of ``ids`` together, those of a
    person side by side in the order of the tables; people without a row are passed over."""
    placed = []
    for rows in some:
        place = matrix.positions(rows["person_id"], ids)
        order = np.argsort(place, kind="stable")
        placed.append((place[order], rows.take(pa.array(order))))
    for first in range(0, len(ids), people):
        spans = [np.searchsorted(place, [first, first + people]) for place, _ in placed]
        mine = [
            rows.slice(begin, end - begin)
            for (begin, end), (_, rows) in zip(spans, placed, strict=True)
        ]
        place = np.concatenate([np.zeros(0, np.int64), *(
            found[begin:end] for (begin, end), (found, _) in zip(spans, placed, strict=True)
        )])  # fmt: skip
        if len(place):
            yield pa.concat_tables(mine).take(pa.array(np.argsort(place, kind="stable")))


def without(
    base: Path, staged: Path, ids: pa.StringArray, by: str = "person_id",
    also: Mapping[str, pa.StringArray] | None = None,
) -> int:  # fmt: skip
    """Stage a table of the base without the rows of these sorted ids by the column ``by``, and
    without those of the sorted ids ``also`` by their columns.

    Files without any of them are shared. Returns the number of the next part: what is added begins
    there, behind the base's own files.
    """
    return _parted(base, staged, {by: ids, **(also or {})}, taking=False)[0]


def parted(
    base: Path, staged: Path, ids: pa.StringArray, by: str = "person_id"
) -> tuple[int, pa.Table]:
    """Do what :func:`without` does, and return the rows that are left out, too, which the same
    reading gives."""
    first, taken = _parted(base, staged, {by: ids}, taking=True)
    # Of thousands of pieces, a few rows each, everything takes several times as long.
    return first, _together(taken, base).combine_chunks()


def _parted(
    base: Path, staged: Path, gone: Mapping[str, pa.StringArray], taking: bool
) -> tuple[int, list[pa.Table]]:
    staged.mkdir(parents=True, exist_ok=True)
    files = io.parquet_files(base)
    # Reading, compressing and writing leave Python to others; of large files one is held at a time.
    large = {path for path in files if path.stat().st_size > LARGE}

    # As a dictionary's places they are read and written without a text a row.
    schema = io.schema_of(base) if files else pa.schema([])
    texts = [
        path for field in schema for path, kind in io.leaves_of(field.name, field.type)
        if pa.types.is_string(kind) and not pa.types.is_map(field.type)
    ]  # fmt: skip

    def leave(path: Path) -> list[pa.Table]:
        return _leave(path, staged / path.relative_to(base), gone, texts, taking)

    with ThreadPoolExecutor(THREADS) as pool:
        taken = list(chain.from_iterable(pool.map(leave, (f for f in files if f not in large))))
    taken += chain.from_iterable(map(leave, sorted(large)))
    places = (re.match(r"part-(\d+)", path.name) for path in files)
    return max((int(place[1]) + 1 for place in places if place), default=0), taken


def _leave(
    path: Path, target: Path, gone: Mapping[str, pa.StringArray], texts: Sequence[str], taking: bool
) -> list[pa.Table]:
    """Stage a file without the rows that hold one of the sorted ids ``gone`` in their column, the
    first of which may stand in order; returns those rows, if they are asked for. ``texts``: the
    columns of texts."""
    by = next(iter(gone))
    footer = io.footer(path)
    with pq.ParquetFile(path, metadata=footer, read_dictionary=io.repeated(footer, texts)) as file:
        stays = np.ones(file.metadata.num_rows, bool)
        sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        begins = np.cumsum([0, *sizes])
        for name, some in gone.items():
            for group in io.groups_of(file.metadata, some, name):
                mine = io.are_among(file.read_row_group(group, [name])[name], some)
                stays[begins[group] : begins[group + 1]] &= ~mine
        if stays.all():
            releases.link(path, target)
            return []
        if not (stays.any() or taking):
            return []
        rows, metadata = file.read().unify_dictionaries(), file.metadata.metadata or {}
    if stays.any():
        target.parent.mkdir(parents=True, exist_ok=True)
        io.write_file(_chosen(rows, stays), target, metadata, spanned=[by])
    return [_as_texts(_chosen(rows, ~stays))] if taking else []


def _as_texts(rows: pa.Table) -> pa.Table:
    columns = [_as_text(groups.one(column)) for column in rows.columns]
    fields = [
        field.with_type(column.type) for field, column in zip(rows.schema, columns, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, rows.schema.metadata))


def _as_text(values: pa.Array) -> pa.Array:
    """Values without a dictionary, in lists and structures too."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return values.cast(kind.value_type)
    if pa.types.is_list(kind):
        items = _as_text(pc.list_flatten(values))
        lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy()
        offsets = pa.array(np.cumsum([0, *lengths]), pa.int32())
        plain = pa.list_(kind.value_field.with_type(items.type))
        return pa.ListArray.from_arrays(offsets, items, type=plain, mask=values.is_null())
    if pa.types.is_struct(kind):
        parts = [_as_text(part) for part in values.flatten()]
        fields = [field.with_type(part.type) for field, part in zip(kind, parts, strict=True)]
        return pa.StructArray.from_arrays(parts, fields=fields, mask=values.is_null())
    return values


def _chosen(rows: pa.Table, which: np.ndarray) -> pa.Table:
    """The rows that ``which`` (n_rows,) bool says; those that stand together are not copied, where
    these are few pieces."""
    edges = np.flatnonzero(np.diff(which, prepend=False, append=False))
    if len(edges) > 2 * PIECES or not len(edges):
        return rows.filter(pa.array(which))
    return pa.concat_tables(
        rows.slice(first, last - first) for first, last in edges.reshape(-1, 2).tolist()
    )


def moved(base: Path, staged: Path, by: str) -> tuple[pa.Table, pa.Table]:
    """The rows that a table has lost, and those that it has won, since it went on from its base by
    :func:`without` on the column ``by``, whose values are unique, and parts behind that."""
    files = {path.relative_to(staged): path for path in io.parquet_files(staged)}
    lost = []
    for path in io.parquet_files(base):
        still = files.pop(path.relative_to(base), None)
        if still is not None and still.samefile(path):
            continue
        ids = pq.read_table(path, columns=[by])[by].combine_chunks()
        if still is not None:
            stood = pq.read_table(still, columns=[by])[by].combine_chunks()
            ids = ids.filter(pc.invert(pc.is_in(ids, value_set=stood)))
        if len(ids):
            lost.append(io.rows_of(path, both(ids), None, by))
    return _together(lost, base), _together([pq.read_table(path) for path in files.values()], base)


def _together(some: list[pa.Table], like: Path) -> pa.Table:
    none = io.schema_of(like).empty_table()
    return pa.concat_tables([none, *some], promote_options="default")


def differing(then: pa.Table, now: pa.Table, by: str) -> tuple[pa.Table, pa.Table]:
    """The rows of each of two tables that the other has not got as they are; in both the values of
    ``by`` are unique, and the columns are the same."""
    place = pc.index_in(now[by], value_set=then[by].combine_chunks())
    alike = same(now, then.take(place), now.schema.names) & np.asarray(pc.is_valid(place), bool)
    stood = pc.is_in(then[by], value_set=now[by].filter(pa.array(alike)).combine_chunks())
    return then.filter(pc.invert(stood)), now.filter(pa.array(~alike))


def same(ours: pa.Table, theirs: pa.Table, names: Sequence[str]) -> np.ndarray:
    """(n,) bool: which rows of two tables of ``n`` rows agree in these columns, where null agrees
    with null and NaN with NaN."""
    alike = np.ones(ours.num_rows, bool)
    for name in names:
        one, other = (groups.one(plain(rows[name])) for rows in (ours, theirs))
        equal = pc.fill_null(pc.equal(one, other), False)
        if pa.types.is_floating(one.type):
            nan = pc.and_(pc.is_nan(one), pc.is_nan(other))
            equal = pc.or_(equal, pc.fill_null(nan, False))
        equal = pc.or_(equal, pc.and_(pc.is_null(one), pc.is_null(other)))
        alike &= equal.to_numpy(zero_copy_only=False)
    return alike


def plain(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """A column as it is, but lists of texts, and texts by names, as texts that are equal where they
    are; null where they are null."""
    if pa.types.is_map(column.type):
        maps = groups.one(column)
        first, last = maps.offsets[0].as_py(), maps.offsets[-1].as_py()
        sides = (_sized(side.slice(first, last - first)) for side in (maps.keys, maps.items))
        texts, lengths = pc.binary_join_element_wise(*sides, ""), np.diff(maps.offsets)
    elif pa.types.is_list(column.type):
        texts = _sized(groups.one(pc.list_flatten(column)))
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    else:
        return column
    missing = groups.one(pc.is_null(column))
    offsets = pa.array(np.cumsum([0, *lengths]), pa.int32())
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, texts), "")
    return pc.if_else(missing, None, joined)


def _sized(texts: pa.Array) -> pa.Array:
    """Texts with their lengths before them, so that no two can be taken for one; of null none."""
    length = pc.binary_length(texts).cast(pa.string())
    return pc.fill_null(pc.binary_join_element_wise(length, texts, ":"), "-")


def among(rows: pa.Table, chosen: pa.Table, names: Sequence[str]) -> pa.Array:
    """(n,) booleans: whether a row's values of these columns stand together in a row of ``chosen``.

    Null is among nothing.
    """
    found = np.ones(rows.num_rows, bool)
    for name in reversed(names):
        distinct = pc.unique(chosen[name]).cast(rows.schema.field(name).type).drop_null()
        found &= np.asarray(pc.is_in(rows[name], value_set=distinct), bool)
    # Together they are asked for only where each is there, which is seldom.
    place = np.flatnonzero(found)
    asked, texts = joined(rows.take(pa.array(place)), names), joined(chosen, names)
    found[place] = np.asarray(pc.is_in(asked, value_set=texts.drop_null()), bool)
    return pa.array(found)


def joined(rows: pa.Table, names: Sequence[str]) -> pa.Array:
    """(n,) texts that are equal where the values of all columns are; null where one is."""
    columns = [rows[name].combine_chunks().cast(pa.string()) for name in names]
    # With its length before it no value can be taken for the end of another.
    sized = [
        text for column in columns for text in (pc.binary_length(column).cast(pa.string()), column)
    ]
    return pc.binary_join_element_wise(*sized, ":")


def both(*ids: pa.Array | pa.ChunkedArray) -> pa.StringArray:
    """The sorted ids that are in any of these."""
    chunks = [
        chunk.cast(pa.string())
        for one in ids
        for chunk in (one.chunks if isinstance(one, pa.ChunkedArray) else [one])
    ]
    found = pc.unique(pa.chunked_array(chunks, pa.string()))
    return found.take(pc.sort_indices(found))
