"""New arrivals: items that the catalogue has had for a few weeks at most."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

NAME = "new_arrivals"
SECONDS_PER_DAY = 86_400.0


def scores(counted: DataFrame, items: DataFrame, as_of: datetime, arrival_days: int) -> DataFrame:
    """Items first seen or created in the last days, best-selling first, then newest."""
    born = F.coalesce("created_time", "first_seen")
    days_old = (F.lit(as_of).cast("double") - born.cast("double")) / SECONDS_PER_DAY
    new = items.where(F.col("available") & (days_old < arrival_days)).select(
        "item_id", (1 - days_old / arrival_days).alias("newness")
    )
    sold = counted.join(F.broadcast(new), on="item_id", how="inner")
    unsold = new.select(
        F.lit("all").alias("context_kind"), F.lit("").alias("context"), "item_id", "newness",
        F.lit(0.0).alias("popularity"),
    )  # fmt: skip
    both = sold.select("context_kind", "context", "item_id", "newness", "popularity").unionByName(
        unsold
    )
    return (
        both.groupBy("context_kind", "context", "item_id")
        .agg((F.max("popularity") + 1e-3 * F.max("newness")).alias("score"))
        .select(F.lit(NAME).alias("source"), "context_kind", "context", "item_id", "score")
    )
