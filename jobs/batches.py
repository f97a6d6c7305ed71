"""The frame that a gate looks at: a table with the columns that its suite derives.

Up to ``ARROW_ROWS`` rows a table is read into memory, as pandas over Arrow, and beyond that it is
a Spark frame: a suite of 16 expectations on 1.3 M events took 1.1 s so and 6.5 s through Spark
Connect (22 s the first time). Only the columns that the suite names are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs import io, tables
from jobs.night import Night

if TYPE_CHECKING:
    from expectations.columns import Column, Forbidden, Found, Portion, Share

# 4 M candidates need about 1 GB here; past that Spark's way is the safer one.
ARROW_ROWS = 4_000_000
Locate = Callable[[str], Path]


@dataclass(frozen=True)
class Source:
    """Where a batch's rows come from: a table's folder, and which rows count."""

    folder: Path
    where: str | None = None


def locate(night: Night) -> Locate:
    """Where a table lies for a gate: staged where it is the gated step's, else published."""

    def folder(name: str) -> Path:
        step = tables.TABLES[name].step
        home = night.staged if step == night.step else night.published(step).folder
        return home / name

    return folder


def in_memory(
    source: Source, names: list[str], derived: Mapping[str, Column], folder_of: Locate
) -> pd.DataFrame:
    """The batch as pandas over Arrow: the columns ``names`` and the ``derived`` ones."""
    reads = {name for column in derived.values() for name in column.reads}
    reads |= set(names) | ({source.where} if source.where else set())
    table = io.read_arrow(source.folder, sorted(reads) or None)
    if source.where:
        table = table.filter(pc.fill_null(table[source.where], False))
    kept = table.select(names)
    for name, column in derived.items():
        kept = kept.append_column(name, _ARROW[type(column).__name__](table, column, folder_of))
    return _plain_numbers(kept).to_pandas(types_mapper=_arrow_backed)


def on_spark(
    night: Night,
    source: Source,
    names: list[str],
    derived: Mapping[str, Column],
    folder_of: Locate,
) -> DataFrame:
    """The same batch as a Spark frame."""
    rows = night.spark.read.parquet(str(source.folder))
    if source.where:
        rows = rows.where(F.coalesce(F.col(source.where), F.lit(False)))
    for name, column in derived.items():
        rows = _SPARK[type(column).__name__](rows, name, column, folder_of)
    return rows.select(*names, *derived)


def _plain_numbers(table: pa.Table) -> pa.Table:
    """Integers as int64: Great Expectations compares int64, double and times as whole columns,
    and every other type value by value, in Python (8 s for two times of 1.3 M events).
    """
    kinds = [
        pa.field(f.name, pa.int64() if pa.types.is_integer(f.type) else f.type)
        for f in table.schema
    ]
    return table.cast(pa.schema(kinds))


def _arrow_backed(kind: pa.DataType) -> pd.ArrowDtype | None:
    """Numbers and times become numpy's; the rest stays Arrow's, which costs no copy."""
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return None if numeric or pa.types.is_timestamp(kind) else pd.ArrowDtype(kind)


# --- in memory -------------------------------------------------------------------------------
def _found(table: pa.Table, column: Found, folder_of: Locate) -> pa.Array:
    keys = column.keys or column.columns
    wanted = [name for name, _ in column.where]
    other = io.read_arrow(folder_of(column.table), sorted({*keys, *wanted}))
    for name, value in column.where:
        other = other.filter(pc.equal(other[name], pa.scalar(value)))
    if len(keys) == 1:
        return pc.is_in(table[column.columns[0]], value_set=_values(other[keys[0]]))
    left = np.zeros(table.num_rows, np.int64)
    right = np.zeros(other.num_rows, np.int64)
    known = np.ones(table.num_rows, bool)
    for name, key in zip(column.columns, keys, strict=True):
        values = pc.drop_null(pc.unique(_whole(other[key])))
        place = pc.fill_null(pc.index_in(table[name], value_set=values), -1).to_numpy()
        theirs = pc.fill_null(pc.index_in(other[key], value_set=values), -1).to_numpy()
        known &= place >= 0
        left = left * (len(values) + 1) + place + 1
        right = right * (len(values) + 1) + theirs + 1
    return pa.array(known & np.isin(left, right))


def _forbidden(table: pa.Table, column: Forbidden, folder_of: Locate) -> pa.Array:
    """Both rules as one look-up of (item, kind, value) per person's region and restriction."""
    banned = io.read_arrow(folder_of("ineligible_items"), ["item_id", "kind", "value"])
    banned = banned.filter(pc.is_in(banned["kind"], value_set=pa.array(["region", "restriction"])))
    people = io.read_arrow(folder_of("persons"), ["person_id", "region", "restrictions"])
    bans: dict[tuple[str, str], set[str]] = {}
    for row in banned.to_pylist():
        bans.setdefault((row["kind"], row["value"]), set()).add(row["item_id"])
    if not bans:
        return pa.array(np.zeros(table.num_rows, bool))
    own = {
        row["person_id"]: [("region", row["region"] or "")]
        + [("restriction", value) for value in row["restrictions"] or ()]
        for row in people.to_pylist()
    }
    pairs = zip(table[column.person].to_pylist(), table[column.item].to_pylist(), strict=True)
    return pa.array(
        [any(item in bans.get(rule, ()) for rule in own.get(person, ())) for person, item in pairs],
        pa.bool_(),
    )


def _length(table: pa.Table, column: Any, folder_of: Locate) -> pa.ChunkedArray:
    return pc.list_value_length(table[column.column])


def _finite(table: pa.Table, column: Any, folder_of: Locate) -> pa.Array:
    vectors = _whole(table[column.column])
    good = np.ones(len(vectors), bool)
    values = pc.fill_null(pc.is_finite(pc.list_flatten(vectors)), False)
    parents = pc.list_parent_indices(vectors).to_numpy()
    good[parents[~values.to_numpy(zero_copy_only=False)]] = False
    return pa.array(good & pc.is_valid(vectors).to_numpy(zero_copy_only=False))


def _same(table: pa.Table, column: Any, folder_of: Locate) -> pa.ChunkedArray:
    return pc.fill_null(pc.equal(table[column.left], table[column.right]), False)


def _dense(table: pa.Table, column: Any, folder_of: Locate) -> pa.ChunkedArray:
    return pc.less(table[column.column], table.num_rows)


def _portion(table: pa.Table, column: Portion, folder_of: Locate) -> pa.ChunkedArray:
    named = _starts_with_one(table[column.column], column.prefixes)
    named = pc.and_not(named, _starts_with_one(table[column.column], column.but))
    return pc.if_else(named, table[column.value], 0.0)


def _share(table: pa.Table, column: Share, folder_of: Locate) -> pa.ChunkedArray:
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


def _lead(table: pa.Table, column: Any, folder_of: Locate) -> pa.Array:
    values, names = table[column.value].to_pylist(), table[column.column].to_pylist()
    leads = []
    for value, name in zip(values, names, strict=True):
        others = [v for v, n in zip(values, names, strict=True) if n != name and v is not None]
        leads.append(value - max(others) if others and value is not None else None)
    return pa.array(leads, pa.float64())


def _shortfall(table: pa.Table, column: Any, folder_of: Locate) -> pa.ChunkedArray:
    return pc.subtract(table[column.left], table[column.right])


def _whole(values: pa.ChunkedArray | pa.Array) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _values(values: pa.ChunkedArray) -> pa.Array:
    return pc.drop_null(pc.unique(_whole(values)))


# --- on Spark --------------------------------------------------------------------------------
def _spark_found(rows: DataFrame, name: str, column: Found, folder_of: Locate) -> DataFrame:
    keys = column.keys or column.columns
    other = rows.sparkSession.read.parquet(str(folder_of(column.table)))
    for key, value in column.where:
        other = other.where(F.col(key) == F.lit(value))
    renamed = [F.col(key).alias(mine) for key, mine in zip(keys, column.columns, strict=True)]
    known = other.select(*renamed).distinct().withColumn(name, F.lit(True))
    joined = rows.join(known, on=list(column.columns), how="left")
    return joined.withColumn(name, F.coalesce(name, F.lit(False)))


def _spark_forbidden(rows: DataFrame, name: str, column: Forbidden, folder_of: Locate) -> DataFrame:
    read = rows.sparkSession.read
    people = read.parquet(str(folder_of("persons")))
    no_rules = F.array().cast("array<string>")
    own = people.select(
        F.col("person_id").alias(column.person),
        F.explode(
            F.concat(
                F.array(F.concat(F.lit("region/"), F.coalesce("region", F.lit("")))),
                F.transform(
                    F.coalesce("restrictions", no_rules),
                    lambda value: F.concat(F.lit("restriction/"), value),
                ),
            )
        ).alias("rule"),
    )
    banned = (
        read.parquet(str(folder_of("ineligible_items")))
        .where(F.col("kind").isin("region", "restriction"))
        .select(
            F.col("item_id").alias(column.item), F.concat_ws("/", "kind", "value").alias("rule")
        )
    )
    hit = (
        rows.select(column.person, column.item)
        .distinct()
        .join(own, on=column.person, how="inner")
        .join(banned, on=[column.item, "rule"], how="semi")
        .select(column.person, column.item, F.lit(True).alias(name))
        .distinct()
    )
    joined = rows.join(hit, on=[column.person, column.item], how="left")
    return joined.withColumn(name, F.coalesce(name, F.lit(False)))


def _spark_length(rows: DataFrame, name: str, column: Any, folder_of: Locate) -> DataFrame:
    return rows.withColumn(name, F.size(column.column))


def _spark_finite(rows: DataFrame, name: str, column: Any, folder_of: Locate) -> DataFrame:
    infinite = float("inf")
    every = F.forall(
        column.column,
        lambda v: F.coalesce(~F.isnan(v) & (F.abs(v) != F.lit(infinite)), F.lit(False)),
    )
    return rows.withColumn(name, F.coalesce(every, F.lit(False)))


def _spark_same(rows: DataFrame, name: str, column: Any, folder_of: Locate) -> DataFrame:
    equal = F.col(column.left) == F.col(column.right)
    return rows.withColumn(name, F.coalesce(equal, F.lit(False)))


def _spark_dense(rows: DataFrame, name: str, column: Any, folder_of: Locate) -> DataFrame:
    size = rows.agg(F.count(F.lit(1)).alias("__rows"))
    joined = rows.crossJoin(F.broadcast(size))
    return joined.withColumn(name, F.col(column.column) < F.col("__rows")).drop("__rows")


def _spark_portion(rows: DataFrame, name: str, column: Portion, folder_of: Locate) -> DataFrame:
    named = _spark_starts_with_one(column.column, column.prefixes)
    named = named & ~_spark_starts_with_one(column.column, column.but)
    return rows.withColumn(name, F.when(named, F.col(column.value)).otherwise(F.lit(0.0)))


def _spark_share(rows: DataFrame, name: str, column: Share, folder_of: Locate) -> DataFrame:
    value = F.col(column.value).cast("double")
    counted = _spark_starts_with_one(column.column, column.of)
    whole = rows.agg(F.coalesce(F.sum(F.when(counted, value)), F.lit(0.0)).alias("__whole"))
    named = _spark_starts_with_one(column.column, column.prefixes)
    share = F.when(
        named & (F.col("__whole") >= column.least), value / F.greatest("__whole", F.lit(1.0))
    ).otherwise(F.lit(0.0))
    return rows.crossJoin(F.broadcast(whole)).withColumn(name, share).drop("__whole")


def _spark_starts_with_one(name: str, prefixes: tuple[str, ...]) -> SparkColumn:
    named = F.lit(False)
    for prefix in prefixes:
        named = named | F.coalesce(F.col(name).startswith(prefix), F.lit(False))
    return named


def _spark_lead(rows: DataFrame, name: str, column: Any, folder_of: Locate) -> DataFrame:
    best = rows.groupBy(column.column).agg(F.max(column.value).alias("__best"))
    others = best.withColumnRenamed(column.column, "__other")
    over = (
        best.crossJoin(others.select("__other", F.col("__best").alias("__rival")))
        .where(F.col(column.column) != F.col("__other"))
        .groupBy(column.column)
        .agg(F.max("__rival").alias("__rival"))
    )
    joined = rows.join(over, on=column.column, how="left")
    return joined.withColumn(name, F.col(column.value) - F.col("__rival")).drop("__rival")


def _spark_shortfall(rows: DataFrame, name: str, column: Any, folder_of: Locate) -> DataFrame:
    return rows.withColumn(name, F.col(column.left) - F.col(column.right))


_ARROW: dict[str, Callable[..., Any]] = {
    "Found": _found, "Forbidden": _forbidden, "Length": _length, "Finite": _finite,
    "Same": _same, "Dense": _dense, "Portion": _portion, "Share": _share, "Lead": _lead,
    "Shortfall": _shortfall,
}  # fmt: skip
_SPARK: dict[str, Callable[..., DataFrame]] = {
    "Found": _spark_found, "Forbidden": _spark_forbidden, "Length": _spark_length,
    "Finite": _spark_finite, "Same": _spark_same, "Dense": _spark_dense,
    "Portion": _spark_portion, "Share": _spark_share,
    "Lead": _spark_lead, "Shortfall": _spark_shortfall,
}  # fmt: skip
