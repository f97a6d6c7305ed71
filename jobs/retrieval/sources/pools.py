"""Lists shared by many people, one module each: popular, trending, new arrivals, editorial.

A pool belongs to a context: everybody, one region, or one segment. ``for_people`` turns pools into
candidates of persons, each from the contexts that the person is in.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from jobs.params import check
from jobs.retrieval.sources import editorial, new_arrivals, popular, trending

SHARED = (popular.NAME, trending.NAME, new_arrivals.NAME, editorial.NAME)


@dataclass(frozen=True)
class Params:
    """How the shared lists are made."""

    # A person-day of interest counts half as much this many days later in the popular pool.
    popular_half_life_days: float = 28.0
    # The popular pool looks back this far; beyond it a person-day counts under 1/8.
    popular_days: int = 84
    # Trending: the last days ...
    trending_days: int = 7
    # ... against what the days before them let expect.
    trending_base_days: int = 56
    # An item is an arrival for this long after it was first seen or created.
    arrival_days: int = 28
    # A region or segment with fewer people has no pool of its own: its counts are noise, and a
    # list made from a handful of people tells what they bought.
    min_context_people: int = 25

    def __post_init__(self) -> None:
        check(self.popular_half_life_days > 0, "popular_half_life_days must be positive")
        check(self.popular_days > 0, "popular_days must be positive")
        check(self.trending_days > 0, "trending_days must be positive")
        check(self.trending_base_days > 0, "trending_base_days must be positive")
        check(self.arrival_days > 0, "arrival_days must be positive")
        check(self.min_context_people > 0, "min_context_people must be positive")


def pools(
    history: DataFrame, items: DataFrame, persons: DataFrame, curated: DataFrame,
    as_of: datetime, depth: int, params: Params,
) -> DataFrame:  # fmt: skip
    """All pools to ``depth``, in the columns of the table ``pools``."""
    counted = interest(history, persons, as_of, params)
    rows = (
        popular.scores(counted)
        .unionByName(trending.scores(counted, params.trending_days / params.trending_base_days))
        .unionByName(new_arrivals.scores(counted, items, as_of, params.arrival_days))
    )
    place = Window.partitionBy("source", "context_kind", "context").orderBy(
        F.col("score").desc(), "item_id"
    )
    top = (
        rows.where(F.col("score") > 0)
        .withColumn("rank", F.row_number().over(place))
        .where(F.col("rank") <= depth)
    )
    return top.select("source", "context_kind", "context", "rank", "item_id", "score").unionByName(
        editorial.pool(curated, depth)
    )


def interest(history: DataFrame, persons: DataFrame, as_of: datetime, params: Params) -> DataFrame:
    """Per context and item: decayed person-days of interest, recent ones and those before.

    Where the source has purchases a person-day is one with a purchase; else one with any event,
    so that a shop that logs views alone has pools too.
    """
    bought = F.max(F.when(F.col("event_type") == "purchase", 1).otherwise(0))
    age = F.datediff(F.lit(as_of.date()), "event_date") - 1
    window = max(params.popular_days, params.trending_days + params.trending_base_days)
    # A purchase says as much as 20 views: in a shop of views alone their order is all there is.
    strength = F.when(F.col("bought") == 1, F.lit(1.0)).otherwise(F.lit(0.05))
    days = (
        history.where(~F.col("event_type").isin("return", "reject", "remove_from_cart"))
        .withColumn("age", age)
        .where(F.col("age") < window)
        .groupBy("person_id", "item_id", "event_date", "age")
        .agg(bought.alias("bought"))
        .withColumn("strength", strength)
    )
    contexts = _contexts(persons, params)
    in_popular = F.col("age") < params.popular_days
    recent = F.col("age") < params.trending_days
    base = (F.col("age") >= params.trending_days) & (
        F.col("age") < params.trending_days + params.trending_base_days
    )
    decayed = F.col("strength") * F.pow(F.lit(0.5), F.col("age") / params.popular_half_life_days)
    return (
        days.join(contexts, on="person_id", how="inner")
        .groupBy("context_kind", "context", "item_id")
        .agg(
            # Spark adds in any order; rounding keeps equal counts equal, so that ties stay ties.
            F.round(F.sum(F.when(in_popular, decayed).otherwise(0.0)), 9).alias("popularity"),
            F.round(F.sum(F.when(recent, F.col("strength")).otherwise(0.0)), 9).alias("recent"),
            F.round(F.sum(F.when(base, F.col("strength")).otherwise(0.0)), 9).alias("base"),
        )
    )


def _contexts(persons: DataFrame, params: Params) -> DataFrame:
    """A row per person and context that the person is in and that is large enough."""
    everybody = persons.select(
        "person_id", F.lit("all").alias("context_kind"), F.lit("").alias("context")
    )
    for kind in ("region", "segment"):
        members = persons.where(F.col(kind).isNotNull()).select(
            "person_id", F.lit(kind).alias("context_kind"), F.col(kind).alias("context")
        )
        large = (
            members.groupBy("context_kind", "context")
            .agg(F.count(F.lit(1)).alias("people"))
            .where(F.col("people") >= params.min_context_people)
            .drop("people")
        )
        everybody = everybody.unionByName(
            members.join(F.broadcast(large), on=["context_kind", "context"], how="semi").select(
                "person_id", "context_kind", "context"
            )
        )
    return everybody


def for_people(shared: DataFrame, persons: DataFrame, depth: int, params: Params) -> DataFrame:
    """The pools as candidates of every person, by the best rank over the person's contexts.

    The columns are those of ``candidates``; a pool has no seed.
    """
    near = shared.where(F.col("rank") <= depth)
    mine = _contexts(persons, params)
    best = Window.partitionBy("person_id", "source").orderBy("least", "item_id")
    return (
        mine.join(F.broadcast(near), on=["context_kind", "context"], how="inner")
        .groupBy("person_id", "source", "item_id")
        .agg(F.min("rank").alias("least"), F.max("score").alias("score"))
        .withColumn("rank", F.row_number().over(best))
        .where(F.col("rank") <= depth)
        .select(
            "person_id", "item_id", "source", "rank", "score",
            F.lit(None).cast("string").alias("seed_item"),
            F.lit(None).cast("timestamp").alias("seed_time"),
        )
    )  # fmt: skip
