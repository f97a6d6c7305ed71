"""Buy again: what a person buys often and lately, and is not long overdue.

Personal frequency with a half-life, times a fade once the time since the last purchase passes the
expected gap between two purchases (the person's own gap, drawn towards the item's where the person
has few). On Complete Journey before 2017-12-01 the half-life of 90 days beat 45, 60 and none at
each of three monthly cuts; the fade is neutral there and keeps one-off items from staying for ever.
The frequency with a half-life is the baseline of Hu et al., "Modeling Personalized Item Frequency
Information for Next-basket Recommendation" (SIGIR 2020), with decay in days, not baskets.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from jobs.params import check

NAME = "buy_again"
SECONDS_PER_DAY = 86_400.0


@dataclass(frozen=True)
class Params:
    """How repeat purchases are scored."""

    # A purchase counts half as much this many days later.
    half_life_days: float = 90.0
    # Past the expected gap the score falls by 1/e for each of these gaps.
    overdue_gaps: float = 4.0
    # A person's own gap weighs against this many of the item's gaps.
    prior_gaps: float = 2.0
    # An item without repeat purchases by anybody is taken to come due after this many days.
    default_gap_days: float = 30.0

    def __post_init__(self) -> None:
        check(self.half_life_days > 0, "half_life_days must be positive")
        check(self.overdue_gaps > 0, "overdue_gaps must be positive")
        check(self.prior_gaps > 0, "prior_gaps must be positive")
        check(self.default_gap_days > 0, "default_gap_days must be positive")


def candidates(history: DataFrame, as_of: datetime, depth: int, params: Params) -> DataFrame:
    """The top ``depth`` bought items of each person, in the columns of ``candidates``.

    ``history``: the table ``history``, already cut at ``as_of``. Ties go to the lower item id.
    """
    days = purchase_days(history)
    age = (F.lit(as_of).cast("double") - F.col("last_of_day").cast("double")) / SECONDS_PER_DAY
    pairs = days.groupBy("person_id", "item_id").agg(
        F.sum(F.pow(F.lit(0.5), age / params.half_life_days)).alias("frequency"),
        F.count(F.lit(1)).alias("days"),
        F.min("event_date").alias("first_day"),
        F.max("event_date").alias("last_day"),
        F.max("last_of_day").alias("seed_time"),
    )
    span = F.datediff("last_day", "first_day").cast("double")
    gaps = (F.col("days") - 1).cast("double")
    item_gap = (F.sum(span) + 5 * params.default_gap_days) / (F.sum(gaps) + 5)
    by_item = pairs.groupBy("item_id").agg(item_gap.alias("item_gap"))
    prior = params.prior_gaps
    expected = (span + prior * F.col("item_gap")) / (gaps + prior)
    since = F.datediff(F.lit(as_of.date()), "last_day").cast("double")
    overdue = F.greatest(since / F.greatest(expected, F.lit(1.0)) - 1, F.lit(0.0))
    score = F.col("frequency") * F.exp(-overdue / params.overdue_gaps)
    best = Window.partitionBy("person_id").orderBy(F.col("score").desc(), "item_id")
    return (
        pairs.join(by_item, on="item_id", how="inner")
        .withColumn("score", score)
        .withColumn("rank", F.row_number().over(best))
        .where(F.col("rank") <= depth)
        .select(
            "person_id", "item_id", F.lit(NAME).alias("source"), "rank", "score",
            F.col("item_id").alias("seed_item"), "seed_time",
        )
    )  # fmt: skip


def purchase_days(history: DataFrame) -> DataFrame:
    """One row per (person, item, day) with a purchase, unless the item went back later."""
    bought = F.col("event_type") == "purchase"
    went_back = F.col("event_type").isin("return", "reject")
    days = (
        history.where(bought)
        .groupBy("person_id", "item_id", "event_date")
        .agg(F.max("event_time").alias("last_of_day"))
    )
    back = (
        history.where(went_back)
        .groupBy("person_id", "item_id")
        .agg(F.max("event_time").alias("back_time"))
    )
    kept = F.coalesce(F.col("last_of_day") > F.col("back_time"), F.lit(True))
    return (
        days.join(back, on=["person_id", "item_id"], how="left")
        .where(kept)
        .select("person_id", "item_id", "event_date", "last_of_day")
    )
