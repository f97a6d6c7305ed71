"""Editorial: the lists that people curated, as one pool."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

NAME = "editorial"


def pool(curated: DataFrame, depth: int) -> DataFrame:
    """The editorial lists as one pool for everybody, list after list by id and position."""
    order = Window.partitionBy(F.lit(1)).orderBy("position", "list_id", "item_id")
    once = curated.groupBy("item_id").agg(
        F.min("position").alias("position"), F.min("list_id").alias("list_id")
    )
    return (
        once.withColumn("rank", F.row_number().over(order))
        .where(F.col("rank") <= depth)
        .select(
            F.lit(NAME).alias("source"), F.lit("all").alias("context_kind"),
            F.lit("").alias("context"), "rank", "item_id", (1.0 / F.col("rank")).alias("score"),
        )
    )  # fmt: skip
