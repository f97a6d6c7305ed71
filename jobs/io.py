"""The lake: where tables are staged, published and read, and nowhere else.

Layout under the lake's root::

    tables/<step>/<as_of>/<attempt>/<table>/*.parquet   what a step wrote, with its manifest.json
    tables/<step>/<as_of>/PUBLISHED                     the attempt that a green gate made readable
    staged/<as_of>/<step>/                              what waits for its gate
    evidence/<as_of>/<step>/<attempt>.json              what the gate found
    sources/                                            foreign sources in the contract's shape
    releases/                                           what serving reads
    staleness/<source>/<as_of>/                         what lists lose with the age of tables
    shadow/<candidate>/                                 candidates beside what served
    alerts/<dag>.json                                   incidents that were told of
    approvals/                                          who let a retraining run, and why
    docs/                                               the pages

A staged step is renamed into ``tables/`` and becomes readable by one atomic replace of
``PUBLISHED``; a reader sees the old attempt or the new one, never a mixture.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from jobs import tables
from jobs.errors import Fault

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

COMPRESSION = "zstd"
ROWS_PER_GROUP = 128_000
CODED = 6.0  # bytes a value of a column that is a dictionary's places, and the dictionary
# The same where Spark writes; else a file of two million rows is one group, and all of it is read
# for every block of people.
SPARK_GROUPS = {"parquet.block.row.count.limit": str(ROWS_PER_GROUP)}
LONGEST_NAME = 200  # of a folder named by a user's text; any filesystem takes 255 bytes


def parse_as_of(text: str) -> datetime:
    """The exclusive UTC instant of a run: ``2017-12-01`` or ``2017-12-01T06:00``."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Fault(
            f"as_of: {text!r} is not a date; write YYYY-MM-DD or YYYY-MM-DDTHH:MM (UTC)"
        ) from None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def label(as_of: datetime) -> str:
    """How a run date is written in paths: the date, with the time where it is not midnight."""
    if (as_of.hour, as_of.minute, as_of.second) == (0, 0, 0):
        return f"{as_of:%Y-%m-%d}"
    return f"{as_of:%Y-%m-%dT%H%M%S}"


def folder_name(source: str) -> str:
    """A source's name as a folder's."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", source)[-LONGEST_NAME:]


def replace_folder(new: Path, target: Path) -> None:
    """Put a whole folder in the place of an earlier one, if there is one; never a part of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = new.with_name(f"{new.name}-before")
    shutil.rmtree(aside, ignore_errors=True)
    if target.exists():
        os.rename(target, aside)
    os.rename(new, target)
    shutil.rmtree(aside, ignore_errors=True)
    sync_folder(target.parent)


def write_text(path: Path, text: str) -> None:
    """Replace a file's content in one atomic step that survives a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write JSON as :func:`write_text` does; keys keep their order, times become ISO texts."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, default=_as_text) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file that this module wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_arrow(folder: Path, table: pa.Table, part: int = 0) -> None:
    """Write one Parquet file of a table folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_file(table, folder / f"part-{part:05d}.parquet")


def write_file(
    table: pa.Table, target: Path | IO[bytes], metadata: Mapping[bytes, bytes] | None = None,
    spanned: Collection[str] | None = None,
) -> None:  # fmt: skip
    """Write one Parquet file. All but floating numbers, which are measured and seldom twice the
    same, are coded by a dictionary: with one, features take a third longer to write and more room
    (of 690,000 pairs 60.7 MB, and 56.8 without), vectors and candidates half as much again.

    ``metadata``: what the file says of itself, as another one of the same columns does; columns of
    texts may then be coded, as :func:`read_arrow` reads them, and are texts in the file.
    ``spanned``: the columns of texts of which the file says the least and the greatest, all if
    None; of one in no order they say nothing, and take a third of the writing to find.
    """
    leaves = [leaf for field in table.schema for leaf in leaves_of(field.name, field.type)]
    coded = [path for path, kind in leaves if not pa.types.is_floating(kind)]
    told = [] if spanned is None else [
        path for path, kind in leaves if path in spanned or not _is_text(kind)
    ]  # fmt: skip
    if metadata is not None:
        table = table.replace_schema_metadata(dict(metadata))
    pq.write_table(
        table, target, compression=COMPRESSION, row_group_size=ROWS_PER_GROUP,
        use_dictionary=coded, store_schema=metadata is None,
        write_statistics=spanned is None or told,
    )  # fmt: skip


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind.value_type if pa.types.is_dictionary(kind) else kind))


def leaves_of(path: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """The columns of plain values that Parquet makes of one, by their paths."""
    if pa.types.is_struct(kind):
        for field in kind:
            yield from leaves_of(f"{path}.{field.name}", field.type)
    elif pa.types.is_map(kind):
        yield from leaves_of(f"{path}.key_value.key", kind.key_type)
        yield from leaves_of(f"{path}.key_value.value", kind.item_type)
    elif pa.types.is_list(kind):
        yield from leaves_of(f"{path}.list.element", kind.value_type)
    else:
        yield path, kind


def append_arrow(folder: Path, name: str, table: pa.Table) -> Path:
    """Add one Parquet file to a table folder that others read meanwhile: they see it whole or not
    at all, also after a power cut. The name must be new."""
    folder.mkdir(parents=True, exist_ok=True)
    # Neither a data file by its name nor by its ending, to whoever looks at the folder.
    hidden, path = folder / f".{name}.part", folder / f"{name}.parquet"
    try:
        with open(hidden, "wb") as file:
            write_file(table, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(hidden, path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
    sync_folder(folder)
    return path


def kept(frame: DataFrame, folder: Path) -> DataFrame:
    """A Spark frame written to a folder and read back: computed once, and its plan cut off."""
    frame.write.options(**SPARK_GROUPS).parquet(str(folder))
    # With its schema Spark starts no job to read the footers.
    return frame.sparkSession.read.schema(frame.schema).parquet(str(folder))


def held(session: SparkSession, rows: pa.Table, folder: Path) -> DataFrame:
    """Rows of Arrow as a Spark frame, by way of a file in this folder, so that no plan carries them
    along."""
    write_arrow(folder, rows)
    return frame(session, folder)


def frame(session: SparkSession, folder: Path) -> DataFrame:
    """A table folder as a Spark frame. Spark is told the columns, which else take it a job."""
    from pyspark.sql.pandas.types import from_arrow_schema

    known = from_arrow_schema(schema_of(folder))
    return session.read.schema(known).parquet(str(folder))


def parquet_files(folder: Path) -> list[Path]:
    """The data files of a table folder, sorted; Spark's marker files are not data."""
    found = [
        os.path.join(home, name)
        for home, _, names in os.walk(folder)
        for name in names
        if name.endswith(".parquet") and not name.startswith(("_", "."))
    ]
    # As paths are sorted, but a table may have thousands.
    return [Path(path) for path in sorted(found, key=lambda path: path.split(os.sep))]


def footer(path: Path) -> pq.FileMetaData:
    """A Parquet file's footer; of the files that a step has just read it is at hand."""
    told = path.stat()
    return _footer(str(path), told.st_mtime_ns, told.st_size, told.st_ino)


@lru_cache(maxsize=2_000)  # of a hundred columns each, some 100 MB
def _footer(path: str, written: int, size: int, inode: int) -> pq.FileMetaData:
    return pq.read_metadata(path)


def count_rows(folder: Path, where: ds.Expression | None = None) -> int:
    """Rows of a table folder, all of them from the files' footers alone."""
    if where is not None:
        return ds.dataset([str(path) for path in parquet_files(folder)]).count_rows(filter=where)
    return sum(footer(path).num_rows for path in parquet_files(folder))


def footers(folder: Path) -> tuple[int, frozenset[str]]:
    """Rows of a table folder, and the columns that can hold no null in any file, by the schemas in
    the files' footers."""
    rows, required = 0, []
    for path in parquet_files(folder):
        told = footer(path)
        rows += told.num_rows
        schema = told.schema.to_arrow_schema()
        required.append(frozenset(field.name for field in schema if not field.nullable))
    return rows, frozenset.intersection(*required) if required else frozenset()


def schema_of(folder: Path) -> pa.Schema:
    """The columns of a table folder, as its first file has them; ``Fault`` where it has none."""
    files = parquet_files(folder)
    if not files:
        raise Fault(f"{folder}: holds no Parquet file; run the step that writes it again")
    return pq.read_schema(files[0])


def read_arrow(
    folder: Path,
    columns: list[str] | None = None,
    where: ds.Expression | None = None,
    coded: Collection[str] = (),
) -> pa.Table:
    """A table folder as an Arrow table; columns of texts that are ``coded`` come as a dictionary's
    places, a fraction of their size where values repeat."""
    return dataset(folder, coded).to_table(columns=columns, filter=where)


def dataset(folder: Path, coded: Collection[str] = ()) -> ds.Dataset:
    """A table folder for who reads it more than once: the files' footers are then read once."""
    files = [str(path) for path in parquet_files(folder)]
    if not files:
        raise Fault(f"{folder}: holds no Parquet file; run the step that writes it again")
    options = ds.ParquetReadOptions(dictionary_columns=set(coded))
    return ds.dataset(files, format=ds.ParquetFileFormat(read_options=options))


def read_rows(
    folder: Path, ids: pa.StringArray, columns: list[str] | None = None, by: str = "person_id"
) -> pa.Table:
    """The rows of a table folder that are of these sorted ids, by its column of texts ``by``;
    groups of rows that hold none of them, by their statistics, are not read."""
    files = parquet_files(folder)
    if not files:
        raise Fault(f"{folder}: holds no Parquet file; run the step that writes it again")
    near = [path for path in files if _spans(path, ids, by)]
    found = [rows_of(path, ids, columns, by) for path in near or files[:1]]
    # Files of Spark's allow nulls where those of Arrow do not.
    return pa.concat_tables(found, promote_options="default")


def _spans(path: Path, ids: pa.StringArray, by: str) -> bool:
    """Whether a file may hold some of these sorted ids, by what was read of its footer once: who
    asks for block after block of people would else open every file for each."""
    told = path.stat()
    span = _span(str(path), told.st_mtime_ns, told.st_size, by)
    return span is None or _within(ids, *span)


@lru_cache(maxsize=100_000)
def _span(path: str, written: int, size: int, by: str) -> tuple[str, str] | None:
    """The least and greatest value of a column of texts, None where the file does not say; of a
    file as of when it was ``written``."""
    metadata = pq.read_metadata(path)
    place = metadata.schema.names.index(by)
    found = [metadata.row_group(n).column(place).statistics for n in range(metadata.num_row_groups)]
    if not found or any(one is None or not one.has_min_max for one in found):
        return None
    return min(one.min for one in found), max(one.max for one in found)


def greatest(path: Path, column: str) -> Any:
    """The greatest value of a column of plain values, None where the file's footer does not say."""
    metadata = footer(path)
    place = metadata.schema.names.index(column)
    found = [metadata.row_group(n).column(place).statistics for n in range(metadata.num_row_groups)]
    if not found or any(one is None or not one.has_min_max for one in found):
        return None
    return max(one.max for one in found)


def _within(ids: pa.StringArray, least: str, most: str) -> bool:
    """Whether one of these sorted ids may lie there, both ends included."""
    first = pc.search_sorted(ids, pa.array([least]))[0].as_py()
    return bool(first < len(ids) and ids[first].as_py() <= most)


def rows_of(
    path: Path, ids: pa.StringArray, columns: list[str] | None = None, by: str = "person_id"
) -> pa.Table:
    """The rows of a Parquet file that are of these sorted ids by the column ``by``; of groups of
    rows without any of them no other column is read."""
    found, metadata = [], footer(path)
    groups = groups_of(metadata, ids, by)
    if not groups:
        empty = metadata.schema.to_arrow_schema().empty_table()
        return empty.select(columns or empty.column_names)
    coded = pq.ParquetFile(path, metadata=metadata, read_dictionary=repeated(metadata, [by]))
    with pq.ParquetFile(path, metadata=metadata) as file, coded:
        names = columns or file.schema_arrow.names
        for group in groups:
            mine = are_among(coded.read_row_group(group, [by])[by], ids)
            if mine.any():
                found.append(file.read_row_group(group, names).filter(pa.array(mine)).select(names))
        return pa.concat_tables(found or [file.schema_arrow.empty_table().select(names)])


def repeated(metadata: pq.FileMetaData, texts: Sequence[str]) -> list[str]:
    """The columns of texts of a file, by their paths, that hold the same ones many times: to code
    one whose texts are all different takes longer than to read it."""
    found = []
    for number in range(metadata.num_columns if metadata.num_row_groups else 0):
        column = metadata.row_group(0).column(number)
        size = column.total_uncompressed_size / max(column.num_values, 1)
        if column.path_in_schema in texts and size < CODED:
            found.append(column.path_in_schema)
    return found


def are_among(texts: pa.ChunkedArray, some: pa.StringArray) -> np.ndarray:
    """(n_rows,) bool: which texts, that may be coded, are among these; null is not."""
    found = [np.zeros(0, bool)]
    for chunk in texts.chunks:
        coded = pa.types.is_dictionary(chunk.type)
        known = pc.is_in(chunk.dictionary if coded else chunk, value_set=some)
        known = pc.fill_null(known.take(chunk.indices), False) if coded else known
        found.append(known.to_numpy(zero_copy_only=False))
    return np.concatenate(found)


def groups_of(metadata: pq.FileMetaData, ids: pa.StringArray, by: str = "person_id") -> list[int]:
    """The row groups of a Parquet file that may hold some of these sorted ids."""
    found = []
    place = metadata.schema.names.index(by)
    for number in range(metadata.num_row_groups):
        spread = metadata.row_group(number).column(place).statistics
        told = spread is not None and spread.has_min_max
        if not told or _within(ids, spread.min, spread.max):
            found.append(number)
    return found


def read_chunks(
    folder: Path, columns: list[str] | None, rows: int, coded: Collection[str] = ()
) -> Iterator[pa.Table]:
    """A table folder in Arrow tables of ``rows`` rows or somewhat more; one of no row if empty.
    ``coded`` as of :func:`read_arrow`."""
    files = [str(path) for path in parquet_files(folder)]
    if not files:
        raise Fault(f"{folder}: holds no Parquet file; run the step that writes it again")
    options = ds.ParquetReadOptions(dictionary_columns=set(coded))
    found = ds.dataset(files, format=ds.ParquetFileFormat(read_options=options))
    scan = found.scanner(columns=columns, batch_size=rows, batch_readahead=1, fragment_readahead=1)
    held: list[pa.RecordBatch] = []
    some = False
    for batch in scan.to_batches():
        held.append(batch)
        if sum(one.num_rows for one in held) >= rows:
            yield pa.Table.from_batches(held)
            held, some = [], True
    if held or not some:
        yield pa.Table.from_batches(held, scan.projected_schema)


@dataclass(frozen=True)
class Published:
    """One published attempt of a step."""

    step: str
    as_of: str
    attempt: str
    folder: Path

    @property
    def manifest(self) -> dict[str, Any]:
        return read_json(self.folder / "manifest.json")

    def table(self, name: str) -> Path:
        """The folder of one of its tables or files."""
        return self.folder / name


class Lake:
    """A shared POSIX folder that holds every table, release and piece of evidence."""

    def __init__(self, root: str | Path):
        text = str(root)
        if re.match(r"^[a-z][a-z0-9+.-]+://", text, re.IGNORECASE):
            raise Fault(
                f"lake: {text} is an object store, where a rename is not atomic; "
                "give a path on a local disk or a mounted volume"
            )
        self.root = Path(text).expanduser().resolve()

    def open(self) -> Lake:
        """Check that the lake can be written and make its folder."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise Fault(
                f"lake: {self.root} cannot be written ({error.strerror}); give another LAKE, or "
                "free space and the right to write there"
            ) from None
        return self

    def staged(self, step: str, as_of: datetime) -> Path:
        """Where a step's output waits for its gate."""
        return self.root / "staged" / label(as_of) / step

    def evidence(self, step: str, as_of: datetime, attempt: str) -> Path:
        """The file with what a gate found."""
        return self.root / "evidence" / label(as_of) / step / f"{attempt}.json"

    def staleness(self, source: str, as_of: datetime) -> Path:
        """The folder of a source's measured staleness as of a run date."""
        return self.root / "staleness" / folder_name(source) / label(as_of)

    def published(self, step: str, as_of: datetime) -> Published:
        """What is readable of a step for a run date."""
        found = self.at(step, label(as_of))
        if found is None:
            raise Fault(
                f"{step}: nothing is published for {label(as_of)} in {self.root}; "
                f"run the step and its gate first"
            )
        return found

    def previous(self, step: str, as_of: datetime) -> Published | None:
        """The newest published attempt of a step with an earlier run date, if there is one."""
        return next(self.earlier(step, as_of), None)

    def newest(self, step: str) -> Published | None:
        """The newest published attempt of a step, if there is one."""
        return self.previous(step, datetime.max.replace(tzinfo=UTC))

    def earlier(self, step: str, as_of: datetime) -> Iterator[Published]:
        """The published attempts of a step with earlier run dates, newest first."""
        folder = self.root / "tables" / step
        earlier = (
            sorted(path.name for path in folder.iterdir() if path.name < label(as_of))
            if folder.is_dir()
            else []
        )
        for name in reversed(earlier):
            found = self.at(step, name)
            if found is not None:
                yield found

    def publish(self, step: str, as_of: datetime, attempt: str) -> Published:
        """Make a staged step readable in one atomic step; its older attempts are then deleted."""
        home = self.root / "tables" / step / label(as_of)
        home.mkdir(parents=True, exist_ok=True)
        # The same run may publish a step again; what is readable stays until the pointer moves.
        taken = {path.name for path in home.iterdir()}
        names = itertools.chain([attempt], (f"{attempt}.{n}" for n in itertools.count(2)))
        attempt = next(name for name in names if name not in taken)
        target = home / attempt
        os.rename(self.staged(step, as_of), target)
        sync_folder(home)
        write_text(home / "PUBLISHED", attempt + "\n")
        for other in home.iterdir():
            if other.is_dir() and other.name != attempt:
                shutil.rmtree(other)
        return Published(step, label(as_of), attempt, target)

    def at(self, step: str, name: str) -> Published | None:
        """What is published of a step under a run date's :func:`label`, if anything."""
        home = self.root / "tables" / step / name
        try:
            attempt = (home / "PUBLISHED").read_text(encoding="utf-8").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        folder = home / attempt
        return Published(step, name, attempt, folder) if folder.is_dir() else None


def check_schema(table: tables.Table, schema: pa.Schema) -> list[str]:
    """How a schema differs from a table's declared one, a sentence each; order is not looked at."""
    found = []
    for field in table.schema:
        index = schema.get_field_index(field.name)
        if index < 0:
            found.append(f"{table.name}.{field.name} is missing")
        elif not _same_type(schema.field(index).type, field.type):
            got = schema.field(index).type
            found.append(f"{table.name}.{field.name} is {got}, expected {field.type}")
    extra = sorted(set(schema.names) - set(table.schema.names))
    found += [f"{table.name}.{name} is not declared" for name in extra]
    return found


def _same_type(left: pa.DataType, right: pa.DataType) -> bool:
    """Equal but for nullability and the names Parquet gives to nested fields."""
    if pa.types.is_list(left) and pa.types.is_list(right):
        return _same_type(left.value_type, right.value_type)
    if pa.types.is_map(left) and pa.types.is_map(right):
        return _same_type(left.key_type, right.key_type) and _same_type(
            left.item_type, right.item_type
        )
    if pa.types.is_struct(left) and pa.types.is_struct(right):
        return [f.name for f in left] == [f.name for f in right] and all(
            _same_type(a.type, b.type) for a, b in zip(left, right, strict=True)
        )
    return bool(left == right)


def _as_text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)
