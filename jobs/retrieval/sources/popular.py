"""Popular: what many people bought lately, by decayed person-days."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

NAME = "popular"


def scores(counted: DataFrame) -> DataFrame:
    """Every item of ``pools.interest`` with its popularity, per context."""
    return counted.select(
        F.lit(NAME).alias("source"), "context_kind", "context", "item_id",
        F.col("popularity").alias("score"),
    )  # fmt: skip
