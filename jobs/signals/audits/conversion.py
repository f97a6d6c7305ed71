"""How long people take from the first signal to the purchase, against how long serving takes.

A conversion is a purchase of an item that its person had looked at, clicked or put in the cart
since their last purchase of it. Its window is the time from the first such signal to the purchase.
Serving a signal takes its way to the lake, the wait for the next night, and the night itself. Where
the window is the shorter one, the list that the signal shaped came after the decision.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from jobs.tables import BELOW, TABLES

if TYPE_CHECKING:
    from jobs.signals.audits.audits import Params

SIGNALS = ("view", "click", "add_to_cart")
HOUR = 3_600.0


def logs_signals(days: pa.Table) -> bool:
    """Whether the shop logs more than purchases; ``days``: rows of ``freshness.days_of_feeds``."""
    return bool(set(days["event_type"].to_pylist()) & set(SIGNALS))


def windows(
    history: DataFrame, items: DataFrame, as_of: datetime, lag_hours: float | None, params: Params
) -> DataFrame:
    """The table ``conversion_windows`` but for its row of a shop without conversions."""
    since = as_of - timedelta(days=params.conversion_days)
    found = conversions(history, since, params.lookback_days)
    kinds = categories(items, params.category_depth)
    served = serving_hours(as_of, lag_hours or 0.0, params.refresh_hours)
    took = found.join(kinds, on="item_id", how="left").select(
        F.coalesce("category", F.lit("")).alias("category"),
        ((F.col("bought").cast("double") - F.col("first").cast("double")) / HOUR).alias("window"),
        served.alias("serving"),
    )
    quantiles = F.percentile("window", [0.25, 0.5, 0.75])
    by_category = took.groupBy("category").agg(
        F.count(F.lit(1)).alias("conversions"),
        quantiles.alias("windows"),
        F.percentile("serving", 0.5).alias("serving_median_hours"),
        F.count_if(F.col("window") < F.col("serving")).alias("decided"),
    )
    decided = F.col("decided") / F.col("conversions")
    late = (decided > 0.5) & (F.col("conversions") >= params.min_conversions)
    return by_category.join(revenue(history, kinds, since), on="category", how="left").select(
        "category", "conversions",
        F.col("windows")[1].alias("window_median_hours"),
        F.col("windows")[0].alias("window_p25_hours"),
        F.col("windows")[2].alias("window_p75_hours"),
        "serving_median_hours", decided.alias("decided_before"),
        F.coalesce("revenue_share", F.lit(0.0)).alias("revenue_share"), late.alias("late"),
    )  # fmt: skip


def conversions(history: DataFrame, since: datetime, lookback_days: int) -> DataFrame:
    """A row per purchase from ``since`` on that signals led to: item_id, first, received, bought.

    ``first`` is the earliest signal of the item by the person after their last purchase of it and
    within the look-back; ``received`` is when the lake knew of it.
    """
    lookback = F.expr(f"INTERVAL {lookback_days} DAYS")
    bought = F.col("event_type") == "purchase"
    # Latest first, so that the last purchase seen on the way back is the one that comes next.
    back = (
        Window.partitionBy("person_id", "item_id")
        .orderBy(F.col("event_time").desc(), bought.desc(), F.col("event_id").desc())
        .rowsBetween(Window.unboundedPreceding, Window.currentRow)
    )
    purchase = F.when(bought, F.struct(F.col("event_time").alias("time"), "event_id"))
    relevant = bought | F.col("event_type").isin(*SIGNALS)
    recent = F.col("event_time") >= F.lit(since - timedelta(days=lookback_days))
    leading = (
        history.where(relevant & recent)
        .withColumn("purchase", F.last(purchase, ignorenulls=True).over(back))
        .where(~bought & (F.col("purchase.time") >= F.lit(since)))
        .where(F.col("event_time") >= F.col("purchase.time") - lookback)
    )
    first = F.min(F.struct("event_time", "received_time"))
    return (
        leading.groupBy("person_id", "item_id", "purchase")
        .agg(first.alias("signal"))
        .select(
            "item_id", F.col("signal.event_time").alias("first"),
            F.col("signal.received_time").alias("received"),
            F.col("purchase.time").alias("bought"),
        )
    )  # fmt: skip


def serving_hours(as_of: datetime, lag_hours: float, refresh_hours: float) -> F.Column:
    """Hours from a signal (``first``, ``received``) to the lists that it shapes.

    A signal waits for the next run date after its receipt; run dates lie ``refresh_hours`` apart,
    counted back from ``as_of``.
    """
    received = F.col("received").cast("double")
    until = F.pmod(F.lit(as_of).cast("double") - received, F.lit(refresh_hours * HOUR))
    # A signal received at a run date is not of that night, which ends before it.
    wait = F.when(until == 0, F.lit(refresh_hours * HOUR)).otherwise(until)
    arriving = F.greatest(received - F.col("first").cast("double"), F.lit(0.0))
    return (arriving + wait) / HOUR + lag_hours


def categories(items: DataFrame, depth: int) -> DataFrame:
    """``item_id`` and its category, cut to the broadest ``depth`` levels; '' where it has none."""
    parts = F.slice(F.split("category", BELOW), 1, depth)
    cut = F.array_join(parts, BELOW)
    return items.select("item_id", F.coalesce(cut, F.lit("")).alias("category"))


def revenue(history: DataFrame, kinds: DataFrame, since: datetime) -> DataFrame:
    """``category`` and its share of the money spent from ``since`` on; 0 where none is known."""
    recent = (F.col("event_type") == "purchase") & (F.col("event_time") >= F.lit(since))
    spent = (
        history.where(recent)
        .join(kinds, on="item_id", how="left")
        .groupBy(F.coalesce("category", F.lit("")).alias("category"))
        # Spark adds in any order; rounding makes a rerun equal to the last bit.
        .agg(F.round(F.coalesce(F.sum("value"), F.lit(0.0)), 6).alias("spent"))
    )
    total = spent.agg(F.round(F.sum("spent"), 6).alias("total"))
    share = F.when(F.col("total") > 0, F.col("spent") / F.col("total")).otherwise(0.0)
    return spent.crossJoin(F.broadcast(total)).select("category", share.alias("revenue_share"))


def none(lag_hours: float | None, refresh_hours: float) -> pa.Table:
    """The one row of a shop without conversions: on average a signal waits half a night apart."""
    row = {
        "category": "", "conversions": 0, "window_median_hours": None, "window_p25_hours": None,
        "window_p75_hours": None, "serving_median_hours": refresh_hours / 2 + (lag_hours or 0.0),
        "decided_before": 0.0, "revenue_share": 0.0, "late": False,
    }  # fmt: skip
    return pa.Table.from_pylist([row], TABLES["conversion_windows"].schema)
