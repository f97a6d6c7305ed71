"""The features of a (person, item): one definition for tuning, the night and replay.

In this version a feature is the signal of one candidate source: a falling function of the rank at
which the source named the item, 0 where it did not. A row is as of one instant and carries a hash
of its values, so that a served score can be traced to what it was computed from.
"""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.tables import SOURCES

VERSION = "source-ranks-1"
OFFSET = 3.0
COLUMNS = tuple(f"{source}_signal" for source in SOURCES)


def signal(rank: Column) -> Column:
    """1 for the first place, falling as 1 / (3 + rank): reciprocal rank fusion (Cormack et al.,
    2009) with a smaller constant than its 60, since the first places are what is judged here. On
    Complete Journey at two cuts before 2017-12-01 a constant of 3 was best, before 10 and log2."""
    return (1 + OFFSET) / (rank + OFFSET)


def wide(candidates: DataFrame) -> DataFrame:
    """One row per (person_id, item_id) with its features.

    ``candidates``: a row per (person, item, source). A signal above 0 says that the source named
    the item.
    """
    columns = [
        F.max(F.when(F.col("source") == source, signal(F.col("rank"))).otherwise(0.0)).alias(name)
        for source, name in zip(SOURCES, COLUMNS, strict=True)
    ]
    return candidates.groupBy("person_id", "item_id").agg(*columns)


def provenance(candidates: DataFrame) -> DataFrame:
    """One row per (person_id, item_id): ``sources`` and ``provenance``, by rank, ties by name."""
    named = F.struct("rank", "source", "score", "seed_item", "seed_time")
    rows = candidates.groupBy("person_id", "item_id").agg(
        F.array_sort(F.collect_list(named)).alias("named")
    )
    return rows.select(
        "person_id", "item_id",
        F.transform("named", lambda n: n["source"]).alias("sources"),
        F.transform(
            "named",
            lambda n: F.struct(
                n["source"].alias("source"), n["rank"].alias("rank"), n["score"].alias("score"),
                n["seed_item"].alias("seed_item"), n["seed_time"].alias("seed_time"),
            ),
        ).alias("provenance"),
    )  # fmt: skip


def stamped(rows: DataFrame, as_of: datetime) -> DataFrame:
    """The table ``features``: entity keys, the event timestamp, version, hash and values.

    The hash is sha256 over the version and the values' shortest decimal forms, joined by ``|``.
    """
    values = F.concat_ws("|", F.lit(VERSION), *[F.col(name).cast("string") for name in COLUMNS])
    return rows.select(
        "person_id", "item_id", F.lit(as_of).alias("event_timestamp"),
        F.lit(VERSION).alias("feature_version"), F.sha2(values, 256).alias("feature_hash"),
        *COLUMNS,
    )  # fmt: skip


def named_by(*sources: str) -> Column:
    """Whether any of these sources named the row's item."""
    named = F.lit(False)
    for source in sources:
        named = named | (F.col(f"{source}_signal") > 0)
    return named


def linear_score(weights: dict[str, float]) -> Column:
    """The weighted sum of the signals; ``weights`` has a weight per source."""
    score = F.lit(0.0)
    for source, name in zip(SOURCES, COLUMNS, strict=True):
        score = score + F.lit(float(weights.get(source, 0.0))) * F.col(name)
    return score
