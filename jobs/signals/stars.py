"""Connected components on Spark, by alternating large-star and small-star operations.

Kiveris, Lattanzi, Mirrokni, Rastogi and Vassilvitskii, "Connected Components in MapReduce and
Beyond", SoCC 2014. Every edge is turned towards the least number its upper end can see, until each
component is a star around its least number; that takes a number of rounds that grows with the
logarithm of the longest path, where passing labels on takes one round for each of its links.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pyarrow.compute as pc
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from jobs import io


def connect(edges: DataFrame, folder: Path) -> DataFrame:
    """``number``, ``least``: for each end of an edge the least number of its component.

    ``edges``: ``left``, ``right``, numbers. Each round is written to ``folder``, so that no plan
    grows and every round is computed once.
    """
    upper, lower = F.greatest("left", "right"), F.least("left", "right")
    tidy = edges.select(upper.alias("up"), lower.alias("down")).where(F.col("up") != F.col("down"))
    loops = edges.where(F.col("left") == F.col("right")).select(F.col("left").alias("number"))
    turned = io.kept(tidy.withColumn("changed", F.lit(True)).distinct(), folder / "start")
    for number in itertools.count():
        after = folder / f"round-{number}"
        turned = io.kept(small_star(large_star(turned)), after)
        if not pc.any(io.read_arrow(after, ["changed"])["changed"]).as_py():
            break
    roots = turned.select(F.col("down").alias("number")).unionAll(loops).distinct()
    leaves = turned.select(F.col("up").alias("number"), F.col("down").alias("least"))
    alone = roots.join(leaves, on="number", how="anti")
    return leaves.unionAll(alone.select("number", F.col("number").alias("least")))


def large_star(edges: DataFrame) -> DataFrame:
    """Each end's greater neighbours, turned to the least of its neighbours and itself.

    ``up``, ``down``, ``changed``: whether the edge was another one before.
    """
    both = edges.select("up", "down").unionAll(
        edges.select(F.col("down").alias("up"), F.col("up").alias("down"))
    )
    least = F.least(F.min("down").over(Window.partitionBy("up")), F.col("up"))
    seen = both.withColumn("least", least).where(F.col("down") > F.col("up"))
    return _once(
        seen.select(
            F.col("down").alias("up"),
            F.col("least").alias("down"),
            (F.col("least") != F.col("up")).alias("changed"),
        )
    )


def small_star(edges: DataFrame) -> DataFrame:
    """Each end and its smaller neighbours, turned to the least of them; ``changed`` also where the
    edge was already."""
    seen = edges.withColumn("least", F.min("down").over(Window.partitionBy("up")))
    is_least = F.col("down") == F.col("least")
    return _once(
        seen.select(
            F.when(is_least, F.col("up")).otherwise(F.col("down")).alias("up"),
            F.col("least").alias("down"),
            (F.col("changed") | ~is_least).alias("changed"),
        )
    )


def _once(edges: DataFrame) -> DataFrame:
    return edges.groupBy("up", "down").agg(F.max("changed").alias("changed"))
