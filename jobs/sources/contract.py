"""The source contract as data: check a folder against it, and read its tables as Spark frames.

Reads a *source*: a folder with one sub-folder of Parquet files per table (``events/``, ``items/``,
…; ``events`` may be partitioned by ``event_date``; ``rules`` may be a ``rules.yaml`` instead).
Writes nothing. Whatever a file's variant of a type is (``large_string``, a dictionary, narrow
integers, milli-, micro- or nanoseconds, with or without a zone), :func:`read` gives exactly the
columns and types that :data:`CONTRACT` declares, in UTC.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import io
from jobs.errors import Fault

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql import types as T

TEXT = pa.string()
INTEGER = pa.int32()
NUMBER = pa.float64()
FLAG = pa.bool_()
TIME = pa.timestamp("us", tz="UTC")
TEXTS = pa.list_(pa.string())
ATTRIBUTES = pa.map_(pa.string(), pa.string())
MEASURES = pa.map_(pa.string(), pa.float64())


@dataclass(frozen=True)
class Contracted:
    """One column: ``optional`` may be null or missing, ``dates`` takes a date for its midnight."""

    name: str
    type: pa.DataType
    optional: bool = False
    dates: bool = False


@dataclass(frozen=True)
class Facts:
    """What a table of a source holds; ``digest`` covers each file's path, size and footer.

    ``marks``: by the path of each Parquet file, under the source's folder, what tells that it is
    as it was: its size, its footer and when it was last written. That says nothing of what the
    table holds: facts are equal whatever these are.
    """

    table: str
    present: bool
    rows: int
    files: int
    bytes: int
    digest: str
    marks: dict[str, str] = field(default_factory=dict, compare=False)


def _columns(**columns: pa.DataType | tuple) -> tuple[Contracted, ...]:
    return tuple(
        Contracted(name, kind[0], True, kind[0] == TIME)
        if isinstance(kind, tuple)
        else Contracted(name, kind)
        for name, kind in columns.items()
    )


# Required columns stand bare, optional ones in a tuple, as the contract's `?` marks them.
CONTRACT: dict[str, tuple[Contracted, ...]] = {
    "events": _columns(
        event_id=TEXT, revision=(INTEGER,), event_time=TIME, received_time=(TIME,), key_type=TEXT,
        key=TEXT, session_id=(TEXT,), event_type=TEXT, item_id=TEXT, quantity=(NUMBER,),
        value=(NUMBER,), channel=(TEXT,), region=(TEXT,), campaign=(TEXT,), request_id=(TEXT,),
    ),
    "items": _columns(
        item_id=TEXT, title=(TEXT,), category=(TEXT,), brand=(TEXT,), seller=(TEXT,),
        price=(NUMBER,), margin=(NUMBER,), created_time=(TIME,), available=(FLAG,),
        regions=(TEXTS,), flags=(TEXTS,), attributes=(ATTRIBUTES,), valid_from=(TIME,),
    ),
    "identity_links": _columns(
        key_type_a=TEXT, key_a=TEXT, key_type_b=TEXT, key_b=TEXT, source=TEXT, confidence=NUMBER,
        observed_time=TIME, received_time=(TIME,), action=(TEXT,),
    ),
    "people": _columns(
        key_type=TEXT, key=TEXT, region=(TEXT,), segment=(TEXT,), consents=(TEXTS,),
        restrictions=(TEXTS,), attributes=(ATTRIBUTES,),
    ),
    "rules": _columns(
        rule_id=TEXT, kind=TEXT, scope=TEXT, surface=(TEXT,), region=(TEXT,), starts=(TIME,),
        ends=(TIME,), strength=(NUMBER,), reason=TEXT,
    ),
    "recommendation_log": _columns(
        request_id=TEXT, request_time=TIME, surface=TEXT, key_type=TEXT, key=TEXT,
        position=INTEGER, item_id=TEXT, propensity=(NUMBER,), release_id=TEXT, score=(NUMBER,),
        features=(MEASURES,), feature_version=(TEXT,), feature_hash=(TEXT,), experiment=(TEXT,),
        arm=(TEXT,), shown_position=(INTEGER,), override_reason=(TEXT,), fallback=(TEXT,),
        latency_ms=(NUMBER,),
    ),
    "promotions": (
        *_columns(item_id=TEXT, kind=TEXT, region=(TEXT,), store=(TEXT,)),
        Contracted("starts", TIME, dates=True),
        Contracted("ends", TIME, dates=True),
        *_columns(discount=(NUMBER,)),
    ),
    "editorial": _columns(
        list_id=TEXT, surface=(TEXT,), position=INTEGER, item_id=TEXT, starts=(TIME,),
        ends=(TIME,),
    ),
}  # fmt: skip
REQUIRED = ("events",)
# Programs that serve add files to it while nights read: an empty folder is one that has begun.
GROWING = ("recommendation_log",)
# Texts that name something: two different ones must stay different, whatever bytes they hold.
IDS = frozenset({"event_id", "key", "key_a", "key_b", "session_id", "item_id", "request_id"})
YAML_TABLE = "rules"
PROBED = 1_024  # rows of a nested column that are looked at together


def schema(table: str) -> pa.Schema:
    """The Arrow schema of a contract table; its required columns are not nullable by promise,
    but nullable in type, since single rows without them are quarantined later, not refused."""
    return pa.schema([(column.name, column.type) for column in CONTRACT[table]])


# --- checking --------------------------------------------------------------------------------
def check(folder: Path) -> list[Facts]:
    """What each contract table of a source holds.

    Raises one ``Fault`` that names every fault of every table.
    """
    if not folder.is_dir():
        raise Fault(
            f"source: there is no folder {folder}; give the folder that holds events/ "
            "(and items/, people/, … where you have them)"
        )
    found: list[str] = []
    facts = []
    for table in CONTRACT:
        files, faults = _inspect(folder, table)
        found += faults
        facts.append(_facts(folder, table, files))
    _refuse(folder, found)
    return facts


def read(
    spark: SparkSession, folder: Path, table: str, only: Collection[str] | None = None
) -> DataFrame | None:
    """A contract table with exactly the contract's columns and types, times in UTC.

    ``only``: of the table's Parquet files, those with these paths under the folder. ``None`` where
    the source has no such (optional) table, or ``only`` names no file. Missing optional columns are
    null. Texts are valid UTF-8; an id that was not keeps its bytes in hexadecimal behind a ``~``,
    so that two different ids never become one. Raises ``Fault`` as :func:`check` does, and where a
    file of ``only`` is gone.
    """
    found = files(folder, table, only)
    if found is None:
        return None
    if in_yaml(folder, table):
        return spark.createDataFrame(read_yaml(folder, table), _spark_schema(table))
    if any("ns" in file.reading.values() for file in found):
        # The only way in which Spark reads Parquet's nanoseconds; they become microseconds here.
        spark.conf.set("spark.sql.legacy.parquet.nanosAsLong", "true")
    if any(file.twins for file in found):
        # Else Spark refuses a file with an extra VALUE beside the contract's value.
        spark.conf.set("spark.sql.caseSensitive", "true")
    groups: dict[str, list[File]] = {}
    for file in found:
        groups.setdefault(json.dumps(file.reading), []).append(file)
    frames = [_read_group(spark, table, group) for group in groups.values()]
    return reduce(lambda left, right: left.unionAll(right), frames)


def files(folder: Path, table: str, only: Collection[str] | None = None) -> list[File] | None:
    """The Parquet files of a table, or those of ``only``; none where it is in YAML, and ``None``
    where there is nothing to read. Raises ``Fault`` as :func:`read` does."""
    found, faults = _inspect(folder, table, only)
    if only is not None:
        gone = {*only} - {_name(file.path, folder) for file in found}
        faults += [f"{name} is gone since this run began" for name in sorted(gone)]
    _refuse(folder, faults)
    return found if found or (only is None and in_yaml(folder, table)) else None


def in_yaml(folder: Path, table: str) -> bool:
    """Whether a table's rows are written in a file of YAML."""
    return _yaml_file(folder, table) is not None


@dataclass(frozen=True)
class File:
    """A readable Parquet file: ``reading`` holds, per contract column present and not to be read
    as null throughout, how Spark has to read it: a DDL type, or ``ns``; ``twins`` says that an
    extra column is named like one of the contract's but for its case; ``written`` is when it was
    last, in nanoseconds."""

    path: Path
    rows: int
    size: int
    written: int
    footer: bytes
    reading: dict[str, str]
    nulls: frozenset[str]
    twins: bool


def _name(path: Path, folder: Path) -> str:
    """A file's path under the source's folder, as valid UTF-8."""
    return os.fsencode(path.relative_to(folder)).decode(errors="backslashreplace")


def _inspect(
    folder: Path, table: str, only: Collection[str] | None = None
) -> tuple[list[File], list[str]]:
    """The files of a table, or those of a name among ``only``, and what is wrong with them, a
    sentence each."""
    home = folder / table
    if _yaml_file(folder, table) is not None:
        return [], _yaml_faults(folder, table)
    if not home.exists():
        missing = f"the table {table} is missing ({home}/*.parquet)"
        return [], [missing] if table in REQUIRED else []
    if not home.is_dir():
        return [], [f"the table {table} is a file ({home}), expected a folder of Parquet files"]
    paths = io.parquet_files(home)
    if not paths and table not in GROWING:
        # Not the same as no table: who deletes before writing would give everybody's consent.
        left_out = "" if table in REQUIRED else "; write it, or delete the folder to do without it"
        return [], [f"the table {table} holds no Parquet file ({home}/*.parquet){left_out}"]
    files: list[File] = []
    faults: dict[str, list[str]] = {}
    for path in paths if only is None else [one for one in paths if _name(one, folder) in only]:
        file, found = _inspect_file(path, table)
        if file is not None:
            files.append(file)
        for sentence in found:
            faults.setdefault(sentence, []).append(str(path.relative_to(folder)))
    sentences = [
        sentence + (f" (in {paths[0]}" + _and_more(len(paths) - 1) + ")")
        for sentence, paths in faults.items()
    ]
    return files, sentences + _null_keys(table, files)


def _and_more(count: int) -> str:
    return f" and {count} more files" if count else ""


def _inspect_file(path: Path, table: str) -> tuple[File | None, list[str]]:
    try:
        footer = _footer(path)
        parquet = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        return None, [f"a file of the table {table} cannot be read: {reason}; write it again"]
    with parquet:
        found: list[str] = []
        reading: dict[str, str] = {}
        nulls = set()
        present = parquet.schema_arrow
        for column in CONTRACT[table]:
            index = present.get_field_index(column.name)
            if index < 0:
                if not column.optional:
                    found.append(f"{table}.{column.name} is missing")
                continue
            if _all_null(parquet, column.name):
                nulls.add(column.name)
                if column.optional:
                    continue
            kind = _reading(column, present.field(index).type, parquet)
            if kind is not None:
                reading[column.name] = kind
            elif not (column.name in nulls and pa.types.is_null(present.field(index).type)):
                got = present.field(index).type
                found.append(f"{table}.{column.name} is {got}, expected {_expected(column)}")
        names = {column.name for column in CONTRACT[table]}
        twins = any(name.lower() in names and name not in names for name in present.names)
        told, rows = path.stat(), parquet.metadata.num_rows
        size, written = told.st_size, told.st_mtime_ns
        return File(path, rows, size, written, footer, reading, frozenset(nulls), twins), found


def _footer(path: Path) -> bytes:
    """The bytes of a Parquet footer: sizes, offsets and statistics of every column chunk."""
    with path.open("rb") as file:
        file.seek(0, 2)
        size = file.tell()
        if size < 12:
            raise ValueError(f"it has {size} bytes, which is no Parquet file")
        file.seek(size - 8)
        tail = file.read(8)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != b"PAR1" or length > size - 12:
            raise ValueError("it ends without a Parquet footer, as a truncated file does")
        file.seek(size - 8 - length)
        return file.read(length)


def _null_keys(table: str, files: list[File]) -> list[str]:
    filled = [file for file in files if file.rows]
    return [
        f"{table}.{column.name} is null in every row"
        for column in CONTRACT[table]
        if not column.optional and filled and all(column.name in file.nulls for file in filled)
    ]


def _all_null(parquet: pq.ParquetFile, name: str) -> bool:
    """Whether a column has rows and they are all null: from statistics where there are some."""
    meta = parquet.metadata
    if not meta.num_rows:
        return False
    leaves = [i for i in range(meta.num_columns) if meta.schema.column(i).path == name]
    if leaves:
        groups = [meta.row_group(g).column(leaves[0]) for g in range(meta.num_row_groups)]
        statistics = [group.statistics for group in groups]
        if all(s is not None and s.has_null_count for s in statistics):
            return all(
                s.null_count == g.num_values for s, g in zip(statistics, groups, strict=True)
            )
    # In parts, and no further than to the first value: a map of features is most of a log.
    parts = parquet.iter_batches(batch_size=PROBED, columns=[name])
    return all(part.column(0).null_count == len(part) for part in parts)


def _reading(column: Contracted, got: pa.DataType, parquet: pq.ParquetFile) -> str | None:
    """How Spark has to read a file's type to serve a contract column; None where it cannot."""
    want = column.type
    if pa.types.is_timestamp(want):
        if pa.types.is_timestamp(got):
            return _timestamp(column.name, parquet)
        return "date" if column.dates and pa.types.is_date(got) else None
    if pa.types.is_list(want):
        is_list = pa.types.is_list(got) or pa.types.is_large_list(got)
        if is_list and pa.types.is_null(got.value_type):
            return "array<int>"  # every list is empty or holds nulls alone
        inside = _plain(want.value_type, got.value_type) if is_list else None
        return f"array<{inside}>" if inside else None
    if pa.types.is_map(want):
        if not pa.types.is_map(got):
            return None
        key = _plain(want.key_type, got.key_type)
        value = _plain(want.item_type, got.item_type)
        return f"map<{key},{value}>" if key and value else None
    return _plain(want, got)


def _plain(want: pa.DataType, got: pa.DataType) -> str | None:
    if pa.types.is_dictionary(got):
        got = got.value_type
    if pa.types.is_string(want):
        texts = pa.types.is_string(got) or pa.types.is_large_string(got)
        return "string" if texts or pa.types.is_string_view(got) else None
    if pa.types.is_boolean(want):
        return "boolean" if pa.types.is_boolean(got) else None
    if pa.types.is_integer(got):
        return _INTEGERS[str(got)]
    if pa.types.is_floating(want):
        if pa.types.is_decimal(got):
            return f"decimal({got.precision},{got.scale})" if got.precision <= 38 else None
        return {"float": "float", "double": "double"}.get(str(got))
    return None


# What Spark makes of Parquet's integers; the unsigned ones take the next wider type.
_INTEGERS = {
    "int8": "tinyint", "int16": "smallint", "int32": "int", "int64": "bigint",
    "uint8": "smallint", "uint16": "int", "uint32": "bigint", "uint64": "decimal(20,0)",
}  # fmt: skip


def _timestamp(name: str, parquet: pq.ParquetFile) -> str:
    """From the file's own type, since Arrow shows the old INT96 as nanoseconds too."""
    leaves = [parquet.metadata.schema.column(i) for i in range(parquet.metadata.num_columns)]
    leaf = next(leaf for leaf in leaves if leaf.path == name)
    if leaf.physical_type == "INT96":
        return "timestamp"
    logical = json.loads(leaf.logical_type.to_json())
    if logical.get("timeUnit") == "nanoseconds":
        return "ns"
    return "timestamp" if logical.get("isAdjustedToUTC") else "timestamp_ntz"


def _expected(column: Contracted) -> str:
    return "timestamp" if column.type == TIME else str(column.type)


def _facts(folder: Path, table: str, files: list[File]) -> Facts:
    digest = hashlib.sha256()
    yaml_file = _yaml_file(folder, table)
    if yaml_file is not None:
        content = yaml_file.read_bytes()
        digest.update(content)
        return Facts(table, True, _yaml_rows(folder, table), 1, len(content), digest.hexdigest())
    for file in files:
        digest.update(f"{file.path.relative_to(folder)}\0{file.size}\0".encode(errors="replace"))
        digest.update(file.footer)
    marks = {
        _name(file.path, folder):
        f"{file.size}-{file.written}-{hashlib.sha256(file.footer).hexdigest()[:16]}"
        for file in files
    }  # fmt: skip
    return Facts(
        table, bool(files), sum(file.rows for file in files), len(files),
        sum(file.size for file in files), digest.hexdigest() if files else "", marks,
    )  # fmt: skip


def _refuse(folder: Path, found: list[str]) -> None:
    if found:
        raise Fault(
            f"source: {folder} does not fit the source contract: "
            + "; ".join(found)
            + ". Correct these and run again; the README's source contract lists every column"
        )


# --- reading ---------------------------------------------------------------------------------
def _read_group(spark: SparkSession, table: str, files: list[File]) -> DataFrame:
    """Files that are read alike, as the contract's columns."""
    reading = files[0].reading
    ddl = ", ".join(
        f"`{name}` {'bigint' if kind == 'ns' else kind}" for name, kind in reading.items()
    )
    if not reading:
        ddl = f"`{CONTRACT[table][0].name}` string"
    paths = [_escape(str(file.path)) for file in files]
    frame = spark.read.schema(ddl).parquet(*paths)
    return frame.select(
        *(
            _normal(column, reading.get(column.name)).alias(column.name)
            for column in CONTRACT[table]
        )
    )


def _normal(column: Contracted, kind: str | None) -> Column:
    from pyspark.sql import functions as F

    target = _spark_type(column.type)
    if kind is None:
        return F.lit(None).cast(target)
    value = F.col(column.name)
    if kind == "ns":
        name = f"`{column.name}`"
        return F.expr(f"timestamp_micros(({name} - pmod({name}, 1000)) div 1000)")
    if kind == "array<int>":
        return F.transform(value, lambda _: F.lit(None).cast("string"))
    if kind == "string":
        return _valid_id(value) if column.name in IDS else F.make_valid_utf8(value)
    if kind == "array<string>":
        return F.transform(value, F.make_valid_utf8)
    if kind == "map<string,string>":
        named = F.filter(F.map_entries(value), lambda entry: F.is_valid_utf8(entry["key"]))
        return F.transform_values(
            F.map_from_entries(named), lambda _, text: F.make_valid_utf8(text)
        )
    return value.cast(target)


def _valid_id(value: Column) -> Column:
    from pyspark.sql import functions as F

    written_out = F.concat(
        F.make_valid_utf8(value), F.lit("~"), F.lower(F.hex(value.cast("binary")))
    )
    return F.when(F.is_valid_utf8(value), value).otherwise(written_out)


def _escape(path: str) -> str:
    """A path whose special characters Hadoop takes as they stand."""
    return "".join(f"\\{c}" if c in "\\{}[]*?" else c for c in path)


def _spark_type(kind: pa.DataType) -> T.DataType:
    # Here and not above: who records what was served has the contract's types and no Spark.
    from pyspark.sql import types as T

    if pa.types.is_list(kind):
        return T.ArrayType(_spark_type(kind.value_type))
    if pa.types.is_map(kind):
        return T.MapType(_spark_type(kind.key_type), _spark_type(kind.item_type))
    plain: Mapping[pa.DataType, T.DataType] = {
        TEXT: T.StringType(), INTEGER: T.IntegerType(), NUMBER: T.DoubleType(),
        FLAG: T.BooleanType(), TIME: T.TimestampType(),
    }  # fmt: skip
    return plain[kind]


def _spark_schema(table: str) -> T.StructType:
    from pyspark.sql import types as T

    return T.StructType(
        [T.StructField(column.name, _spark_type(column.type)) for column in CONTRACT[table]]
    )


# --- rules as YAML ---------------------------------------------------------------------------
def _yaml_file(folder: Path, table: str) -> Path | None:
    if table != YAML_TABLE:
        return None
    names = ("rules.yaml", "rules.yml", "rules/rules.yaml", "rules/rules.yml")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _yaml_entries(folder: Path, table: str) -> Any:
    """The entries as YAML reads them, but every text as it was typed: an item 0123 is not 83, nor a
    region ``no`` false."""
    import yaml

    path = _yaml_file(folder, table)
    assert path is not None
    texts = {column.name for column in CONTRACT[table] if column.type == TEXT}
    try:
        written = path.read_text(encoding="utf-8")
        entries = yaml.safe_load(written) or []
        typed = yaml.load(written, yaml.BaseLoader) or []  # noqa: S506 (texts, lists, mappings alone)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            return entries
        for entry, words in zip(entries, typed, strict=True):
            for name in texts & set(entry):
                if entry[name] is not None and isinstance(words[name], str):
                    entry[name] = words[name]
        return entries
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Fault(f"source: {path} is not YAML: {error}; correct it and run again") from None


def _yaml_rows(folder: Path, table: str) -> int:
    entries = _yaml_entries(folder, table)
    return len(entries) if isinstance(entries, list) else 0


def _yaml_faults(folder: Path, table: str) -> list[str]:
    entries = _yaml_entries(folder, table)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return [f"{_yaml_file(folder, table)} is not a list of rules (- rule_id: …, kind: …)"]
    found = []
    if io.parquet_files(folder / table) if (folder / table).is_dir() else ():
        found.append(f"{table} are in {_yaml_file(folder, table)} and in Parquet files; keep one")
    known = {column.name for column in CONTRACT[table]}
    for number, entry in enumerate(entries, 1):
        where = f"rule {number} of {_yaml_file(folder, table)}"
        # A misspelt `ends` would leave a rule in force for ever, so here an extra name is a fault.
        found += [
            f"{table}.{name} in {where} is no column; there are {', '.join(sorted(known))}"
            for name in sorted(set(map(str, entry)) - known)
        ]
        for column in CONTRACT[table]:
            value = entry.get(column.name)
            if value is None:
                if not column.optional:
                    found.append(f"{table}.{column.name} is missing in {where}")
            elif not _yaml_fits(column, value):
                kind = _expected(column)
                found.append(f"{table}.{column.name} is {value!r} in {where}, expected {kind}")
    return found


def _yaml_fits(column: Contracted, value: Any) -> bool:
    if column.type == TIME:
        return isinstance(value, date)
    if column.type == NUMBER:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, str)


def read_yaml(folder: Path, table: str) -> list[tuple[Any, ...]]:
    """The rows of a table that is :func:`in_yaml`, each with the contract's columns."""
    return [
        tuple(_yaml_value(column, entry.get(column.name)) for column in CONTRACT[table])
        for entry in _yaml_entries(folder, table)
    ]


def _yaml_value(column: Contracted, value: Any) -> Any:
    if value is None:
        return None
    if column.type == TIME:
        if not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    return float(value) if column.type == NUMBER else str(value)
