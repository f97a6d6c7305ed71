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
    pairs = purchase_days(history)
    today = F.lit(as_of.date())
    half_life = F.lit(params.half_life_days)
    frequency = F.aggregate(
        "days",
        F.lit(0.0),
        lambda total, day: total + F.pow(F.lit(0.5), F.datediff(today, day) / half_life),
    )
    span = F.datediff(F.array_max("days"), F.array_min("days")).cast("double")
    pairs = pairs.select(
        "person_id", "item_id", "seed_time", frequency.alias("frequency"), span.alias("span"),
        (F.size("days") - 1).cast("double").alias("gaps"),
        F.datediff(today, F.array_max("days")).cast("double").alias("since"),
    )  # fmt: skip
    item_gap = (F.sum("span") + 5 * params.default_gap_days) / (F.sum("gaps") + 5)
    by_item = pairs.where(F.col("gaps") > 0).groupBy("item_id").agg(item_gap.alias("item_gap"))
    gap = F.coalesce("item_gap", F.lit(params.default_gap_days))
    expected = (F.col("span") + params.prior_gaps * gap) / (F.col("gaps") + params.prior_gaps)
    overdue = F.greatest(F.col("since") / F.greatest(expected, F.lit(1.0)) - 1, F.lit(0.0))
    score = F.col("frequency") * F.exp(-overdue / params.overdue_gaps)
    best = Window.partitionBy("person_id").orderBy(F.col("score").desc(), "item_id")
    return (
        pairs.join(F.broadcast(by_item), on="item_id", how="left")
        .withColumn("score", score)
        .withColumn("rank", F.row_number().over(best))
        .where(F.col("rank") <= depth)
        .select(
            "person_id", "item_id", F.lit(NAME).alias("source"), "rank", "score",
            F.col("item_id").alias("seed_item"), "seed_time",
        )
    )  # fmt: skip


def purchase_days(history: DataFrame) -> DataFrame:
    """Per person and item: the distinct ``days`` of purchase and the last one's ``seed_time``.

    Days up to a later return or reject of the item do not count: it went back.
    """
    bought = F.col("event_type") == "purchase"
    went_back = F.col("event_type").isin("return", "reject")
    pairs = (
        history.where(bought | went_back)
        .groupBy("person_id", "item_id")
        .agg(
            F.collect_set(F.when(bought, F.col("event_date"))).alias("all_days"),
            F.max(F.when(bought, F.col("event_time"))).alias("seed_time"),
            F.max(F.when(went_back, F.col("event_date"))).alias("back_day"),
        )
    )
    days = F.filter("all_days", lambda day: F.col("back_day").isNull() | (day > F.col("back_day")))
    return (
        pairs.withColumn("days", F.array_sort(days))
        .where(F.size("days") > 0)
        .select("person_id", "item_id", "days", "seed_time")
    )
