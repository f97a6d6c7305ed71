"""The items that a night knows, each with its place in the append-only id map.

Reads the contract tables ``items``, ``editorial`` and ``rules`` and the published ``events``.
Writes ``items`` (a row per item of the catalogue or of any event, as valid at ``as_of``),
``editorial`` (a row per place of a curated list in force) and ``rules_in_force`` (a row per
business rule and what became of it). Rules are read here, where the items that they name are first
known, so that rules that contradict stop a night in its first minutes and not after its training.

``position`` is the integer by which implicit, FAISS and the eligibility bitmaps know an item. A
night takes yesterday's positions and appends its new items in the order of their ids.

An item that left the catalogue (``catalogued``: tonight's or an earlier one named it) keeps its
row, place, description, flags and regions, as unavailable. One whose rows all hold from ``as_of``
on has not left: it is as the run before knew it, available or not. One that no catalogue ever named
is known by its events alone, and available; so is one that no run before has seen in force.

A night that will serve in place of a refresh that has read on (``jobs.release.replaced``) takes the
catalogue, lists and rules as valid for that refresh, and events alone as of its run date.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from pathlib import Path

import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs import io, tables
from jobs.night import Night
from jobs.ordering import rules
from jobs.params import check
from jobs.release import replaced
from jobs.sources import contract

ITEM_COLUMNS = (
    "title", "category", "brand", "seller", "price", "margin", "created_time", "regions",
    "attributes",
)  # fmt: skip


@dataclass(frozen=True)
class Params:
    """How the catalogue is read."""

    # An item without a catalogue price takes the median paid per unit over this many days.
    price_days: int = 90

    def __post_init__(self) -> None:
        check(self.price_days > 0, "price_days must be positive")


def run(night: Night, params: Params) -> None:
    """Stage ``items``, ``editorial`` and ``rules_in_force``."""
    source, events = night.source_folder(), night.frame("events")
    catalogue = contract.read(night.spark, source, "items")
    yesterday, now = held(night), replaced.note(night)
    known = join_catalogue(seen(events, night.as_of, params), catalogue, now)
    if catalogue is not None:
        night.notes["catalogue_duplicates"] = duplicates(catalogue)
        if yesterday is not None:
            night.notes["catalogue_not_in_force"] = not_in_force(catalogue, yesterday, now)
            known = keep_absent(known, yesterday, catalogue)
    night.write("items", place(known, yesterday))
    night.write("editorial", editorial(night, source, now))
    night.write("rules_in_force", rules_in_force(night, source, now))
    night.notes["id_map_sha256"] = id_map_hash(night)


def held(night: Night) -> DataFrame | None:
    """The items of the night before, in a refresh of its base; None without one."""
    predecessor = night.previous("catalogue")
    if predecessor is None:
        return None
    found = io.frame(night.spark, predecessor.table("items"))
    if "catalogued" in found.columns:
        return found
    # Of an earlier version, which described what the catalogue named and nothing else.
    described = [F.col(name).isNotNull() for name in ITEM_COLUMNS if name != "price"]
    named = reduce(Column.__or__, described, F.size("flags") > 0)
    return found.withColumn("catalogued", named)


def rules_in_force(night: Night, source: Path, at: datetime) -> pa.Table:
    """The table ``rules_in_force``, from the source's rules and the items just staged."""
    stated = contract.read(night.spark, source, "rules")
    if stated is None:
        return tables.TABLES["rules_in_force"].schema.empty_table()
    items = io.read_arrow(night.staged / "items", rules.ITEM_COLUMNS)
    found = rules.in_force(
        stated.toArrow(), items, at, list(night.params_of("recommendations").surfaces)
    )
    outcomes = Counter(found["outcome"].to_pylist())
    night.notes["rules"] = {outcome: outcomes[outcome] for outcome in rules.OUTCOMES}
    return found


def seen(events: DataFrame, as_of: datetime, params: Params) -> DataFrame:
    """Per item of any event: when it was first seen, and the price lately paid per unit."""
    lately = F.col("event_time") >= F.lit(as_of) - F.expr(f"INTERVAL {params.price_days} DAYS")
    paid = (F.col("event_type") == "purchase") & (F.col("value") > 0) & lately
    return events.groupBy("item_id").agg(
        F.min("event_time").alias("first_seen"),
        F.percentile_approx(F.when(paid, F.col("value") / F.col("quantity")), 0.5).alias("paid"),
    )


def join_catalogue(
    seen_items: DataFrame, catalogue: DataFrame | None, as_of: datetime
) -> DataFrame:
    """Items of the catalogue at ``as_of`` and of the events, in one frame without positions."""
    if catalogue is None:
        nulls = [
            F.lit(None).cast(_type(name)).alias(name) for name in ITEM_COLUMNS if name != "price"
        ]
        return seen_items.select(
            "item_id", *nulls, F.col("paid").alias("price"), "first_seen",
            F.lit(True).alias("available"), F.array().cast("array<string>").alias("flags"),
            F.lit(False).alias("catalogued"),
        )  # fmt: skip
    # Of rows that hold from the same instant the one that withholds most counts, whichever order
    # they come in: then by every other column, so that a rerun takes the same.
    newest = Window.partitionBy("item_id").orderBy(
        F.col("valid_from").desc_nulls_last(),
        F.coalesce("available", F.lit(True)),
        F.coalesce(F.size("flags"), F.lit(0)).desc(),
        F.size("regions").asc_nulls_last(),
        "flags",
        *[name for name in ITEM_COLUMNS if name != "attributes"],
        F.array_sort(F.map_entries("attributes")),
        "available",
    )
    valid = (
        catalogue.where(F.col("item_id").isNotNull() & _in_force(as_of))
        .withColumn("place", F.row_number().over(newest))
        .where(F.col("place") == 1)
        .withColumn("catalogued", F.lit(True))
    )
    joined = valid.join(seen_items, on="item_id", how="full")
    return joined.select(
        "item_id",
        *[name for name in ITEM_COLUMNS if name != "price"],
        F.coalesce("price", "paid").alias("price"),
        "first_seen",
        F.coalesce("available", F.lit(True)).alias("available"),
        F.coalesce("flags", F.array().cast("array<string>")).alias("flags"),
        F.coalesce("catalogued", F.lit(False)).alias("catalogued"),
    )


def duplicates(catalogue: DataFrame) -> int:
    """How many rows of the catalogue hold from the same instant as another one of their item."""
    named = catalogue.where(F.col("item_id").isNotNull()).groupBy("item_id", "valid_from")
    more = named.agg((F.count(F.lit(1)) - 1).alias("more"))
    return int(more.agg(F.coalesce(F.sum("more"), F.lit(0))).toArrow()[0][0].as_py())


def not_in_force(catalogue: DataFrame, yesterday: DataFrame, as_of: datetime) -> int:
    """How many items that a catalogue named before are named tonight in rows alone that are not in
    force at ``as_of``."""
    named = catalogue.groupBy("item_id").agg(F.max(_in_force(as_of)).alias("in_force"))
    later = named.where(~F.col("in_force"))
    return later.join(yesterday.where("catalogued"), on="item_id", how="semi").count()


def keep_absent(known: DataFrame, yesterday: DataFrame, catalogue: DataFrame) -> DataFrame:
    """The items, those that a catalogue named before and of which no row of tonight's is in force
    as they were; unavailable where it has none at all."""
    kept = [*ITEM_COLUMNS, "flags"]
    was = yesterday.where("catalogued").select("item_id", F.struct(*kept, "available").alias("was"))
    named = catalogue.select("item_id", F.lit(True).alias("named")).distinct()
    rows = known.join(was, on="item_id", how="full").join(named, on="item_id", how="left")
    absent = F.col("was").isNotNull() & ~F.coalesce("catalogued", F.lit(False))
    departed = absent & F.col("named").isNull()
    return rows.select(
        "item_id",
        *[F.when(absent, F.col(f"was.{name}")).otherwise(F.col(name)).alias(name)
          for name in kept],
        "first_seen",
        F.when(departed, F.lit(False))
        .when(absent, F.col("was.available"))
        .otherwise(F.col("available"))
        .alias("available"),
        F.col("catalogued"),
    )  # fmt: skip


def place(known: DataFrame, yesterday: DataFrame | None) -> DataFrame:
    """Give every item its position: yesterday's, or the next free ones in the order of ids."""
    if yesterday is None:
        first_free, rows = F.lit(0), known.withColumn("position", F.lit(None).cast("long"))
    else:
        before = yesterday.select("item_id", "position", F.col("catalogued").alias("was"))
        rows = known.join(before, on="item_id", how="full")
        rows = rows.withColumns(
            {
                "available": F.coalesce("available", F.lit(False)),
                "flags": F.coalesce("flags", F.array().cast("array<string>")),
                "catalogued": F.coalesce(F.col("catalogued"), F.lit(False))
                | F.coalesce(F.col("was"), F.lit(False)),
            }
        ).drop("was")
        top = yesterday.agg((F.max("position") + 1).alias("first_free"))
        rows = rows.crossJoin(F.broadcast(top))
        first_free = F.col("first_free")
    # One unpartitioned sort of the catalogue: positions are dense, so their order is global.
    by_id = Window.partitionBy(F.col("position").isNull()).orderBy("item_id")
    appended = first_free + F.row_number().over(by_id) - 1
    return rows.withColumn("position", F.coalesce("position", appended).cast("long")).select(
        "item_id", "position", "title", "category", "brand", "seller", "price", "margin",
        "created_time", "first_seen", "available", "regions", "flags", "attributes", "catalogued",
    )  # fmt: skip


def editorial(night: Night, source: Path, at: datetime) -> DataFrame | pa.Table:
    """The table ``editorial``, from the source's lists and the items just staged."""
    lists = contract.read(night.spark, source, "editorial")
    if lists is None:
        return tables.TABLES["editorial"].schema.empty_table()
    return editorial_in_force(lists, io.frame(night.spark, night.staged / "items"), at)


def editorial_in_force(lists: DataFrame, items: DataFrame, as_of: datetime) -> DataFrame:
    """Places of curated lists that are in force at ``as_of`` and name a known item."""
    now = F.lit(as_of)
    in_force = F.coalesce(F.col("starts") <= now, F.lit(True)) & F.coalesce(
        F.col("ends") > now, F.lit(True)
    )
    return (
        lists.where(in_force)
        .join(items.select("item_id"), on="item_id", how="semi")
        .select("list_id", "surface", F.col("position").cast("int"), "item_id")
    )


def id_map_hash(night: Night) -> str:
    """sha256 over the item ids in the order of their positions, newline after each."""
    items = io.read_arrow(night.staged / "items", ["item_id", "position"]).sort_by("position")
    digest = hashlib.sha256()
    for item_id in items["item_id"].to_pylist():
        digest.update(item_id.encode() + b"\n")
    return digest.hexdigest()


def _in_force(as_of: datetime) -> Column:
    now = F.lit(as_of)
    return F.coalesce(F.col("valid_from") < now, F.lit(True)) & F.coalesce(
        F.col("created_time") < now, F.lit(True)
    )


def _type(name: str) -> str:
    return {
        "margin": "double", "created_time": "timestamp", "regions": "array<string>",
        "attributes": "map<string,string>",
    }.get(name, "string")  # fmt: skip
