"""Trending: what sells more in the last days than the weeks before let expect."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

NAME = "trending"


def scores(counted: DataFrame, span_ratio: float) -> DataFrame:
    """How far the recent days exceed their expectation, in standard deviations, per context.

    ``span_ratio``: length of the recent days over the length of the days before. A Poisson count
    has its mean as variance; one is added so that a first sale is no miracle.
    """
    expected = F.col("base") * span_ratio
    return counted.select(
        F.lit(NAME).alias("source"), "context_kind", "context", "item_id",
        ((F.col("recent") - expected) / F.sqrt(expected + 1)).alias("score"),
    )  # fmt: skip
