"""The list of every person: filter, then fill by quota, then order.

Reads ``candidates``, ``pools``, ``persons``, ``blend_weights`` and the tables of ``filters``.
Writes ``recommendations`` (a row per place of a list), ``features`` (the rows that the lists were
scored from), ``delivery`` (a row per source: quota and delivered share) and ``shortfalls`` (a row
per way in which lists were topped up or stayed short).

People without consent, or without history, have no personal candidates: their list comes from the
pools of their contexts. A source that cannot fill its quota is topped up from its own deeper
candidates first (filtering comes before filling), then by the best of the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pyspark import StorageLevel
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from jobs.filtering import filters
from jobs.night import Night
from jobs.params import check
from jobs.retrieval.sources import pools
from jobs.scoring import features
from jobs.tables import SOURCES


@dataclass(frozen=True)
class Params:
    """What a list looks like."""

    # The name under which serving asks for these lists.
    surface: str = "homepage"
    # Places of a list.
    length: int = 20
    # Least shares of a list for sources whose items a pure ranking would starve: what is new to
    # the person, and what is new in the shop. They enter at the end of the list, where the blend's
    # order puts them.
    quotas: Mapping[str, float] = field(
        default_factory=lambda: {
            **dict.fromkeys(SOURCES, 0.0), "item_to_item": 0.05, "new_arrivals": 0.05,
        }
    )  # fmt: skip
    # How deep a person's pools are read; several times the length, so that filters leave enough.
    pool_depth: int = 60

    def __post_init__(self) -> None:
        check(bool(self.surface), "surface must have a name")
        check(1 <= self.length <= 500, "length must be 1 to 500")
        check(all(0 <= share <= 1 for share in self.quotas.values()), "quotas must be in [0, 1]")
        check(sum(self.slots().values()) <= self.length, "quotas must not exceed the whole list")
        check(self.pool_depth >= self.length, "pool_depth must be at least length")

    def slots(self) -> dict[str, int]:
        """The places that each source with a quota is owed; at least one where it has a share."""
        return {
            source: max(1, round(share * self.length))
            for source, share in self.quotas.items()
            if share > 0
        }


def run(night: Night, params: Params) -> None:
    """Stage the four tables."""
    persons = night.frame("persons")
    weights = night.arrow("blend_weights").to_pydict()
    blend = dict(zip(weights["source"], weights["weight"], strict=True))
    shared = pools.for_people(night.frame("pools"), persons, params.pool_depth, pools.Params())
    nominated = night.frame("candidates").unionByName(shared)
    allowed = filters.eligible_pairs(
        nominated, persons, night.frame("ineligible_items"), night.frame("blocked_pairs")
    )
    scored = features.wide(allowed).withColumn("score", features.linear_score(blend))
    # A small part of what is scored, read by every table; computing it is most of the step.
    listed = fill(scored, params).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        night.write("recommendations", ordered(listed, nominated, params))
        night.write("features", features.stamped(listed, night.as_of))
        night.write("shortfalls", shortfalls(listed, persons, params))
        night.write("delivery", delivery(listed, params))
    finally:
        listed.unpersist()


def fill(scored: DataFrame, params: Params) -> DataFrame:
    """The eligible candidates that are listed, at most ``length`` a person.

    Of each source with a quota the best are reserved; the places left go to the best of the rest.
    """
    best_first = [F.col("score").desc(), F.col("item_id")]
    person = Window.partitionBy("person_id")
    quotas = params.slots()
    place = F.row_number().over(person.orderBy(*best_first))
    # Past the list's length only what a quota may call upon can be listed.
    marked = scored.withColumn("place", place).where(
        (F.col("place") <= params.length) | features.named_by(*quotas)
    )
    reserved = F.lit(False)
    for source, slots in quotas.items():
        named = features.named_by(source)
        of_source = F.row_number().over(person.orderBy(named.desc(), *best_first))
        reserved = reserved | (named & (of_source <= slots))
    pick = F.row_number().over(person.orderBy(F.col("reserved").desc(), *best_first))
    return (
        marked.withColumn("reserved", reserved)
        .withColumn("pick", pick)
        .where(F.col("pick") <= params.length)
        .select("person_id", "item_id", "score", *features.COLUMNS)
    )


def ordered(listed: DataFrame, nominated: DataFrame, params: Params) -> DataFrame:
    """The table ``recommendations``: each list by score, ties by item id, with its provenance."""
    best = Window.partitionBy("person_id").orderBy(F.col("score").desc(), "item_id")
    pair = ["person_id", "item_id"]
    named = features.provenance(nominated.join(listed.select(*pair), on=pair, how="semi"))
    return listed.join(named, on=pair, how="inner").select(
        F.lit(params.surface).alias("surface"), "person_id",
        F.row_number().over(best).alias("rank"), "item_id", "score", "sources", "provenance",
    )  # fmt: skip


def delivery(listed: DataFrame, params: Params) -> DataFrame:
    """The table ``delivery``: a slot counts for every source that named its item."""
    quotas = params.slots()
    counted = listed.agg(
        F.count(F.lit(1)).alias("places"),
        *[F.count_if(features.named_by(source)).alias(source) for source in SOURCES],
    )
    entries = F.array(
        *[
            F.struct(
                F.lit(source).alias("source"),
                F.lit(quotas.get(source, 0) / params.length).alias("intended"),
                F.col(source).alias("slots"),
            )
            for source in SOURCES
        ]
    )
    share = F.when(F.col("places") > 0, F.col("entry.slots") / F.col("places")).otherwise(0.0)
    return counted.select("places", F.explode(entries).alias("entry")).select(
        F.lit(params.surface).alias("surface"), "entry.source", "entry.intended",
        share.alias("delivered"), "entry.slots",
    )  # fmt: skip


def shortfalls(listed: DataFrame, persons: DataFrame, params: Params) -> DataFrame:
    """The table ``shortfalls``: per reason the people it touched and the slots.

    Reasons: ``quota of <source> not filled`` (too few eligible candidates), ``list short`` (fewer
    eligible candidates than places), ``no list`` (none at all), ``filled from pools`` (places of
    people with personal candidates that shared lists filled).
    """
    owed = params.slots()
    shared_only = ~features.named_by(*[one for one in SOURCES if one not in pools.SHARED])
    per_person = (
        persons.select("person_id")
        .join(
            listed.groupBy("person_id").agg(
                F.count(F.lit(1)).alias("listed"),
                F.count_if(shared_only).alias("shared"),
                *[F.count_if(features.named_by(source)).alias(f"of_{source}") for source in owed],
            ),
            on="person_id",
            how="left",
        )
        .na.fill(0)
    )
    short = {"list short": F.lit(params.length) - F.col("listed")}
    for source, slots in owed.items():
        short[f"quota of {source} not filled"] = F.lit(slots) - F.col(f"of_{source}")
    missing = {
        reason: F.when(F.col("listed") > 0, F.greatest(slots, F.lit(0))).otherwise(0)
        for reason, slots in short.items()
    }
    missing["no list"] = F.when(F.col("listed") == 0, params.length).otherwise(0)
    missing["filled from pools"] = F.when(
        F.col("shared") < F.col("listed"), F.col("shared")
    ).otherwise(0)
    entries = F.array(
        *[
            F.struct(F.lit(reason).alias("reason"), slots.cast("long").alias("slots"))
            for reason, slots in missing.items()
        ]
    )
    return (
        per_person.select(F.explode(entries).alias("entry"))
        .where(F.col("entry.slots") > 0)
        .groupBy(F.col("entry.reason").alias("reason"))
        .agg(F.count(F.lit(1)).alias("persons"), F.sum("entry.slots").alias("slots"))
        .select(F.lit(params.surface).alias("surface"), "reason", "persons", "slots")
    )
