"""Merges and splits of persons from one night to the next, each with the link that caused it.

A *merge* is a person whose keys all belong to another now; a *split* is a part of a person that is
another person now. The link named is the one through which it happened: of several, the one known
first (ties by its keys).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.signals import components
from jobs.signals.links import KEY, PAIR

SCHEMA = (
    "kind string, from_person string, to_person string, changed_at timestamp, key_type_a string, "
    "key_a string, key_type_b string, key_b string, link_source string, cause string, "
    "as_of timestamp"
)
COLUMNS = [part.split()[0] for part in SCHEMA.split(", ")]
LINK = [*PAIR, "source"]
CAPPED = components.OUTCOMES[1:]


@dataclass(frozen=True)
class Graph:
    """One night's ``keys`` (key_type, key, person_id, component) and ``links`` (identity_links)."""

    keys: DataFrame
    links: DataFrame


def between(
    before: Graph, after: Graph, earlier: datetime, as_of: datetime, differs: str | None
) -> DataFrame:
    """The rows of ``identity_changes`` that this night adds.

    ``earlier``: the run date of the night before. ``differs``: ``policy`` or ``data`` where the
    two nights do not rest on the same policy or past. The cause of a change is then that, unless a
    link that became known since explains it.
    """
    moved = _moved(before.keys, after.keys)
    was = before.links.select(*LINK, F.col("outcome").alias("was"))
    states = after.links.join(was, on=LINK, how="full").withColumn(
        "is_new", F.coalesce(F.col("known_time") >= F.lit(earlier), F.lit(False))
    )
    is_in, was_in = (
        F.coalesce(F.col(name) == components.OUTCOMES[0], F.lit(False))
        for name in ("outcome", "was")
    )
    joins = _between(states.where(is_in & ~was_in), before.keys)
    parts = _between(states.where(was_in & ~is_in), after.keys)
    merges = moved.where(F.col("kind") == "merge").join(
        _first(joins, "from_person"), on="from_person", how="left"
    )
    splits = moved.where(F.col("kind") == "split").join(
        _first(_of_person(parts, before.keys), "from_person", "to_person"),
        on=["from_person", "to_person"], how="left",
    )  # fmt: skip
    capped = F.coalesce(F.col("link.outcome").isin(*CAPPED), F.lit(False))
    triggers = _triggers(states, after.keys)
    splits = splits.join(triggers, on="to_person", how="left").withColumn(
        "by_trigger", capped & F.col("trigger").isNotNull()
    )
    why = F.lit(differs).cast("string")
    fresh = F.coalesce(F.col("link.is_new"), F.lit(False))
    cause_of_merge = (
        F.when(fresh, "link")
        .when(why.isNotNull(), why)
        .when(F.col("link.was").isin(*CAPPED), "cap")
        .otherwise("data")
    )
    cause_of_split = (
        F.when(fresh & (F.col("link.outcome") == "unlinked"), "unlink")
        .when(F.col("by_trigger"), "cap")
        .when(why.isNotNull(), why)
        .when(capped, "cap")
        .when(fresh, "link")
        .otherwise("data")
    )
    named = F.when(F.col("by_trigger"), F.col("trigger")).otherwise(F.col("link"))
    rows = merges.select(*_KEPT, "link", cause_of_merge.alias("cause")).unionAll(
        splits.select(*_KEPT, named.alias("link"), cause_of_split.alias("cause"))
    )
    known = F.when(F.col("link.is_new"), F.col("link.known_time"))
    return rows.select(
        "kind", "from_person", "to_person",
        F.coalesce(known, F.lit(as_of)).alias("changed_at"),
        *[F.col(f"link.{name}").alias(name) for name in PAIR],
        F.col("link.source").alias("link_source"), "cause", F.lit(as_of).alias("as_of"),
    )  # fmt: skip


_KEPT = ["kind", "from_person", "to_person"]
_LINK = [*PAIR, "source", "outcome", "was", "is_new"]


def _moved(before: DataFrame, after: DataFrame) -> DataFrame:
    """kind, from_person, to_person: where the keys of each person of the night before went."""
    pairs = (
        before.select(*KEY, F.col("person_id").alias("from_person"))
        .join(after.select(*KEY, F.col("person_id").alias("to_person")), on=KEY, how="inner")
        .select("from_person", "to_person")
        .distinct()
    )
    parts = pairs.groupBy("from_person").agg(F.count(F.lit(1)).alias("parts"))
    kind = F.when(F.col("parts") > 1, "split").otherwise("merge").alias("kind")
    return (
        pairs.where(F.col("from_person") != F.col("to_person"))
        .join(parts, on="from_person", how="inner")
        .select(kind, "from_person", "to_person")
    )


def _between(states: DataFrame, keys: DataFrame) -> DataFrame:
    """A row per end of a link whose ends belong to different persons of ``keys``: the end's
    ``person`` and the ``link``. A key that is not there is of no person."""
    for end in ("a", "b"):
        owner = keys.select(
            F.col("key_type").alias(f"key_type_{end}"), F.col("key").alias(f"key_{end}"),
            F.col("person_id").alias(f"person_{end}"),
        )  # fmt: skip
        states = states.join(owner, on=[f"key_type_{end}", f"key_{end}"], how="left")
    apart = ~F.col("person_a").eqNullSafe(F.col("person_b"))
    return states.where(apart).select(
        F.explode(F.array("person_a", "person_b")).alias("person"), _link().alias("link")
    )


def _link() -> Column:
    """A link as a struct that sorts by when it was known, then by its keys."""
    return F.struct(F.coalesce("known_time", F.lit(None)).alias("known_time"), *_LINK)


def _of_person(parts: DataFrame, before: DataFrame) -> DataFrame:
    """The links that came apart, with the person of the night before that held them."""
    held = before.select(
        F.col("key_type").alias("held_type"), F.col("key").alias("held_key"),
        F.col("person_id").alias("from_person"),
    )  # fmt: skip
    return parts.join(
        held,
        on=(F.col("link.key_type_a") == F.col("held_type"))
        & (F.col("link.key_a") == F.col("held_key")),
        how="inner",
    ).select("from_person", F.col("person").alias("to_person"), "link")


def _first(rows: DataFrame, *by: str) -> DataFrame:
    """The first link per ``by``."""
    if "person" in rows.columns:
        rows = rows.withColumnRenamed("person", by[0])
    return rows.groupBy(*by).agg(F.min("link").alias("link"))


def _triggers(states: DataFrame, keys: DataFrame) -> DataFrame:
    """``to_person``, ``trigger``: the first link of a person's raw component that is new and broke
    a cap."""
    new = states.where(F.col("is_new") & F.col("outcome").isin(*CAPPED))
    of_a = keys.select(
        F.col("key_type").alias("key_type_a"), F.col("key").alias("key_a"), "component"
    )
    first = (
        new.join(of_a, on=["key_type_a", "key_a"], how="inner")
        .groupBy("component")
        .agg(F.min(_link()).alias("trigger"))
    )
    persons = keys.select(F.col("person_id").alias("to_person"), "component").distinct()
    return persons.join(first, on="component", how="inner").select("to_person", "trigger")
