"""Who asked: keys as the nights of the releases knew them, and as they are known now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import io
from jobs.io import Published
from jobs.night import Night
from jobs.release import releases
from jobs.tables import BELOW

KEY = ["key_type", "key"]
UNKNOWN = "unknown"
STRANGER = "stranger"


@dataclass(frozen=True)
class Who:
    """Keys as the nights of the releases knew them, and as they are known now.

    ``shelf``: release_id, ``published``, ``night`` and ``told_by`` (see :class:`Shelved`).
    ``keys``: told_by, key_type, key, person_id. ``items``: told_by, item_id, category.
    ``newest``: key_type, key, visitor. ``facts``: visitor, region, segment.
    ``known``: visitor, first_seen and first_bought, of the events. ``channels``: key_type, key,
    day and the channel that the key was mostly seen in. ``new_days``, ``long_days``: for how long
    a visitor is new, and until when not long known.
    """

    shelf: DataFrame
    keys: DataFrame
    items: DataFrame
    newest: DataFrame
    facts: DataFrame
    known: DataFrame
    channels: DataFrame
    new_days: int
    long_days: int

    @staticmethod
    def read(night: Night, places: DataFrame, new_days: int, long_days: int) -> Who:
        spark = night.spark
        named = [row[0] for row in places.select("release_id").distinct().collect()]
        shelf = shelved(night, named)
        labels = sorted({one.told_by for one in shelf if one.told_by})
        newest = newest_label(night)
        keys = [_keys(night, label).withColumn("told_by", F.lit(label)) for label in labels]
        goods = [_items(night, label).withColumn("told_by", F.lit(label)) for label in labels]
        now = (
            _keys(night, newest).withColumnRenamed("person_id", "visitor")
            if newest
            else spark.createDataFrame([], "key_type string, key string, visitor string")
        )
        facts = (
            _table(night, newest, "identities", "persons").select(
                F.col("person_id").alias("visitor"), "region", "segment"
            )
            if newest
            else spark.createDataFrame([], "visitor string, region string, segment string")
        )
        seen = night.frame("events").join(now, on=KEY, how="left").withColumn("visitor", visitor())
        bought = F.when(F.col("event_type") == "purchase", F.col("event_time"))
        known = seen.groupBy("visitor").agg(
            F.min("event_time").alias("first_seen"), F.min(bought).alias("first_bought")
        )
        current = night.frame("items").select("item_id", _broad().alias("category_now"))
        return Who(
            shelf=spark.createDataFrame(
                [(one.release_id, one.published, one.night, one.told_by) for one in shelf],
                "release_id string, published boolean, night string, told_by string",
            ),
            keys=_together(spark, keys, "key_type string, key string, person_id string"),
            items=_together(spark, goods, "item_id string, category string").join(
                current, on="item_id", how="full"
            ),
            newest=now,
            facts=facts,
            known=known,
            channels=night.frame("events")
            .groupBy(*KEY, F.col("event_date").alias("day"))
            .agg(F.mode("channel", deterministic=True).alias("channel")),
            new_days=new_days,
            long_days=long_days,
        )

    def placed(self, places: DataFrame) -> DataFrame:
        """The rows of the log with person, visitor, tenure, facts, category and night."""
        own = self.items.select("told_by", "item_id", "category").where(
            F.col("told_by").isNotNull()
        )
        current = self.items.select("item_id", "category_now").distinct()
        dated = places.withColumn("day", F.to_date("request_time"))
        # An asker has many places a day: what is known of it is looked up once for all of them.
        asker = ["release_id", *KEY, "day"]
        askers = (
            dated.select(*asker)
            .distinct()
            .join(F.broadcast(self.shelf), on="release_id", how="left")
            .join(self.keys, on=["told_by", *KEY], how="left")
            .join(self.newest, on=KEY, how="left")
            .withColumn("visitor", visitor())
            .join(self.facts, on="visitor", how="left")
            .join(self.known, on="visitor", how="left")
            .join(self.channels, on=[*KEY, "day"], how="left")
        )
        rows = (
            dated.join(askers, on=asker, how="left")
            .join(own, on=["told_by", "item_id"], how="left")
            .join(current, on="item_id", how="left")
        )
        return rows.withColumns(
            {
                "tenure": self._tenure(),
                "region": F.coalesce("region", F.lit(UNKNOWN)),
                "segment": F.coalesce("segment", F.lit(UNKNOWN)),
                "category": F.coalesce("category", "category_now", F.lit(UNKNOWN)),
            }
        ).drop("category_now", "told_by")

    def _tenure(self) -> Column:
        days = F.datediff("request_time", "first_seen")
        return (
            F.when(F.col("first_seen").isNull() | (days < 0), STRANGER)
            .when(days < self.new_days, "new")
            .when(days < self.long_days, "known")
            .otherwise("long known")
        )


@dataclass(frozen=True)
class Shelved:
    """What the lake still has of a release that the log names.

    ``published``: it was published here, even if it is gone. ``night``: the run date under which
    its very tables lie, None where they are gone, were made again or are another lake's.
    ``told_by``: the run date whose identities are nearest to its own, at it or before.
    """

    release_id: str
    published: bool
    night: str | None
    told_by: str | None


def shelved(night: Night, release_ids: Iterable[str]) -> list[Shelved]:
    """What the lake has of each of these releases. Refreshes are kept for hours only, and a night
    that is run again has other tables: both were published all the same."""
    recorded = releases.published_ids(night.lake)
    labels = _labels(night)
    found = []
    for release_id in sorted(set(release_ids)):
        moment = releases.moment(release_id)
        if moment is None or moment > night.as_of:
            found.append(Shelved(release_id, release_id in recorded, None, None))
            continue
        label = io.label(moment)
        needed = ("identities", "catalogue", "recommendations")
        whole = all(night.lake.at(step, label) for step in needed)
        made = night.lake.at("release", label)
        same = made is not None and _id_of(made) == release_id
        before = [one for when, one in labels if when <= moment]
        found.append(
            Shelved(
                release_id,
                same or release_id in recorded,
                label if whole and same else None,
                before[-1] if before else None,
            )
        )
    return found


def _id_of(made: Published) -> str | None:
    facts = made.table("release.json")
    return io.read_json(facts)["id"] if facts.is_file() else None


def _labels(night: Night) -> list[tuple[datetime, str]]:
    """The run dates with identities and a catalogue, up to this run's, from old to new."""
    found = [*night.lake.earlier("identities", night.as_of)]
    now = night.lake.at("identities", io.label(night.as_of))
    labels = [one.as_of for one in ([now] if now else []) + found]
    told = [(io.parse_as_of(one), one) for one in labels if night.lake.at("catalogue", one)]
    return sorted(told)


def newest_label(night: Night) -> str | None:
    """The newest label with identities, not after this run's."""
    labels = _labels(night)
    return labels[-1][1] if labels else None


def _table(night: Night, label: str, step: str, table: str) -> DataFrame:
    return io.frame(night.spark, night.earlier(step, label).table(table))


def _keys(night: Night, label: str) -> DataFrame:
    return _table(night, label, "identities", "identities").select(*KEY, "person_id")


def _items(night: Night, label: str) -> DataFrame:
    rows = _table(night, label, "catalogue", "items")
    return rows.select("item_id", _broad().alias("category"))


def _broad() -> Column:
    """The broadest step of a category's path."""
    return F.split("category", BELOW)[0]


def _together(spark: SparkSession, frames: list[DataFrame], columns: str) -> DataFrame:
    if not frames:
        return spark.createDataFrame([], f"{columns}, told_by string")
    return reduce(DataFrame.unionByName, frames)


def visitor() -> Column:
    return F.coalesce("visitor", F.concat_ws(":", *KEY))
