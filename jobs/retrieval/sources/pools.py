"""Lists shared by many people, one module each: popular, trending, new arrivals, editorial.

A pool belongs to a context: everybody, a region, a segment, or what a request says of itself (the
category looked at, the channel, the quarter of the day). :class:`Lists` turns pools into candidates
of persons, each from the contexts that the person is in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from jobs.params import check
from jobs.retrieval.matrix import encode, known
from jobs.retrieval.neighbours import first_of_each
from jobs.retrieval.sources import editorial, new_arrivals, popular, trending
from jobs.scoring.features import Named
from jobs.tables import BELOW, SOURCES

# The kind of a context and its name.
Context = tuple[str, str | None]
EVERYBODY: Context = ("all", "")
# The kinds that a person is in; the others are what a request says of itself.
OF_PERSONS = ("all", "region", "segment")
SHARED = (popular.NAME, trending.NAME, new_arrivals.NAME, editorial.NAME)


@dataclass(frozen=True)
class Params:
    """How the shared lists are made."""

    # A person-day of interest counts half as much this many days later in the popular pool.
    popular_half_life_days: float = 28.0
    # The popular pool looks back this far; beyond it a person-day counts under 1/8.
    popular_days: int = 84
    # Trending: the last days ...
    trending_days: int = 7
    # ... against what the days before them let expect.
    trending_base_days: int = 56
    # An item is an arrival for this long after it was first seen or created.
    arrival_days: int = 28
    # A region or segment with fewer people has no pool of its own: its counts are noise, and a
    # list made from a handful of people tells what they bought.
    min_context_people: int = 25

    def __post_init__(self) -> None:
        check(self.popular_half_life_days > 0, "popular_half_life_days must be positive")
        check(self.popular_days > 0, "popular_days must be positive")
        check(self.trending_days > 0, "trending_days must be positive")
        check(self.trending_base_days > 0, "trending_base_days must be positive")
        check(self.arrival_days > 0, "arrival_days must be positive")
        check(self.min_context_people > 0, "min_context_people must be positive")


def pools(
    history: DataFrame, items: DataFrame, persons: DataFrame, curated: DataFrame,
    as_of: datetime, depth: int, params: Params, requests: bool = True,
) -> DataFrame:  # fmt: skip
    """All pools to ``depth``, in the columns of the table ``pools``; ``requests``: whether also
    those of what a request may say of itself, which no person's list reads."""
    counted = interest(history, items, persons, as_of, params, requests)
    rows = (
        popular.scores(counted)
        .unionByName(trending.scores(counted, params.trending_days / params.trending_base_days))
        .unionByName(new_arrivals.scores(counted, items, as_of, params.arrival_days))
    )
    place = Window.partitionBy("source", "context_kind", "context").orderBy(
        F.col("score").desc(), "item_id"
    )
    top = (
        rows.where(F.col("score") > 0)
        .withColumn("rank", F.row_number().over(place))
        .where(F.col("rank") <= depth)
    )
    return top.select("source", "context_kind", "context", "rank", "item_id", "score").unionByName(
        editorial.pool(curated, depth)
    )


def interest(
    history: DataFrame, items: DataFrame, persons: DataFrame, as_of: datetime, params: Params,
    requests: bool,
) -> DataFrame:  # fmt: skip
    """Per context and item: decayed person-days of interest, recent ones and those before.

    Where the source has purchases a person-day is one with a purchase; else one with any event,
    so that a shop that logs views alone has pools too.
    """
    age = F.datediff(F.lit(as_of.date()), "event_date") - 1
    window = max(params.popular_days, params.trending_days + params.trending_base_days)
    lately = (
        history.where(~F.col("event_type").isin("return", "reject", "remove_from_cart"))
        .withColumn("age", age)
        .where(F.col("age") < window)
    )
    columns = ["context_kind", "context", "item_id", "age", "strength"]
    days = _person_days(lately).join(_contexts(persons, params), on="person_id", how="inner")
    days = days.select(*columns)
    if requests:
        days = days.unionByName(_of_requests(lately, items, params).select(*columns))
    in_popular = F.col("age") < params.popular_days
    recent = F.col("age") < params.trending_days
    base = (F.col("age") >= params.trending_days) & (
        F.col("age") < params.trending_days + params.trending_base_days
    )
    decayed = F.col("strength") * F.pow(F.lit(0.5), F.col("age") / params.popular_half_life_days)
    return days.groupBy("context_kind", "context", "item_id").agg(
        # Spark adds in any order; rounding keeps equal counts equal, so that ties stay ties.
        F.round(F.sum(F.when(in_popular, decayed).otherwise(0.0)), 9).alias("popularity"),
        F.round(F.sum(F.when(recent, F.col("strength")).otherwise(0.0)), 9).alias("recent"),
        F.round(F.sum(F.when(base, F.col("strength")).otherwise(0.0)), 9).alias("base"),
    )


def _person_days(rows: DataFrame, *more: str) -> DataFrame:
    """A row per person, item and day, and per value of the columns ``more``, with its strength."""
    # A purchase says as much as 20 views: in a shop of views alone their order is all there is.
    bought = F.max(F.when(F.col("event_type") == "purchase", 1).otherwise(0))
    return (
        rows.groupBy("person_id", "item_id", "event_date", "age", *more)
        .agg(bought.alias("bought"))
        .withColumn("strength", F.when(F.col("bought") == 1, F.lit(1.0)).otherwise(F.lit(0.05)))
    )


def _of_requests(rows: DataFrame, items: DataFrame, params: Params) -> DataFrame:
    """Person-days in the contexts that a request of somebody unknown may name: the category that is
    looked at, by the first one and two steps of its path; the channel, a device for most shops; and
    the quarter of the day, in UTC."""
    steps = F.split("category", BELOW)
    first = F.element_at(steps, 1)
    second = F.when(F.size(steps) > 1, F.concat_ws(BELOW, first, F.element_at(steps, 2)))
    categories = items.select("item_id", first.alias("first"), second.alias("second"))
    quarter = F.floor(F.hour("event_time") / 6) * 6
    hours = F.format_string("%02d-%02d", quarter, quarter + 6)
    named = [("category", F.col("first")), ("category", F.col("second")),
             ("channel", F.col("channel")), ("hour", hours)]  # fmt: skip
    context = F.explode(F.array(*(
        F.struct(F.lit(kind).alias("context_kind"), name.alias("context")) for kind, name in named
    )))  # fmt: skip
    found = (
        rows.join(F.broadcast(categories), on="item_id", how="left")
        .select("person_id", "item_id", "event_date", "age", "event_type", context.alias("of"))
        .select("*", "of.context_kind", "of.context")
        .where(F.col("context").isNotNull() & (F.col("context") != ""))
    )
    days = _person_days(found, "context_kind", "context")
    large = (
        days.groupBy("context_kind", "context")
        .agg(F.count_distinct("person_id").alias("people"))
        .where(F.col("people") >= params.min_context_people)
        .drop("people")
    )
    return days.join(F.broadcast(large), on=["context_kind", "context"], how="semi")


def _contexts(persons: DataFrame, params: Params) -> DataFrame:
    """A row per person and context that the person is in and that is large enough."""
    everybody = persons.select(
        "person_id", F.lit("all").alias("context_kind"), F.lit("").alias("context")
    )
    for kind in ("region", "segment"):
        members = persons.where(F.col(kind).isNotNull()).select(
            "person_id", F.lit(kind).alias("context_kind"), F.col(kind).alias("context")
        )
        large = (
            members.groupBy("context_kind", "context")
            .agg(F.count(F.lit(1)).alias("people"))
            .where(F.col("people") >= params.min_context_people)
            .drop("people")
        )
        everybody = everybody.unionByName(
            members.join(F.broadcast(large), on=["context_kind", "context"], how="semi").select(
                "person_id", "context_kind", "context"
            )
        )
    return everybody


def for_people(shared: pa.Table, people: pa.Table, depth: int) -> pa.Table:
    """The pools as candidates of these people: person_id, item_id, source and rank.

    ``shared``: the table ``pools``; ``people``: person_id, region and segment.
    """
    item_ids, _ = encode(shared["item_id"])
    named, _ = Lists(shared, item_ids, depth).of_people(people["region"], people["segment"])
    return pa.table({
        "person_id": people["person_id"].take(pa.array(named.person)),
        "item_id": item_ids.take(pa.array(named.item)),
        "source": pa.array(SOURCES).take(pa.array(named.source)),
        "rank": named.rank.astype(np.int32),
    })  # fmt: skip


class Lists:
    """The pools in codes, as people of each region and segment get them."""

    def __init__(self, shared: pa.Table, item_ids: pa.Array, depth: int):
        """``shared``: the table ``pools``, read to ``depth``; an item's code is its place in
        ``item_ids``, which are sorted."""
        near = shared.filter(pc.less_equal(shared["rank"], depth))
        self._depth = depth
        self._item = known(near["item_id"], item_ids, "item of pools")
        self._source = known(near["source"], pa.array(SOURCES), "source of pools")
        self._rank = near["rank"].to_numpy().astype(np.int64)
        self._score = near["score"].to_numpy()
        self._context = {
            name: rows.to_numpy(zero_copy_only=False)
            for name in sorted(
                set(zip(near["context_kind"].to_pylist(), near["context"].to_pylist(), strict=True))
            )
            for rows in [
                pc.and_(pc.equal(near["context_kind"], name[0]), pc.equal(near["context"], name[1]))
            ]
        }
        self._mixed: dict[tuple[Context, ...], tuple[np.ndarray, ...]] = {}

    @property
    def contexts(self) -> list[Context]:
        """Every context that has a pool: everybody's, then those that persons are in, then the
        others."""
        others = [context for context in self._context if context != EVERYBODY]
        return [EVERYBODY, *sorted(others, key=lambda context: context[0] not in OF_PERSONS)]

    def of_people(
        self, regions: pa.ChunkedArray, segments: pa.ChunkedArray
    ) -> tuple[Named, np.ndarray]:
        """What the pools name for people with codes from 0, and the pools' scores.

        A source names an item by its best rank over the person's contexts (all, the region, the
        segment), ranks close up, ties go to the lower item.
        """
        return self.of_contexts([
            (EVERYBODY, ("region", region), ("segment", segment))
            for region, segment in zip(regions.to_pylist(), segments.to_pylist(), strict=True)
        ])  # fmt: skip

    def of_contexts(self, mixtures: Sequence[tuple[Context, ...]]) -> tuple[Named, np.ndarray]:
        """The same for whoever is in all contexts of a mixture; a mixture's code is its place."""
        distinct = {mixture: code for code, mixture in enumerate(dict.fromkeys(mixtures))}
        mixed = [self._mixture(mixture) for mixture in distinct]
        code = np.array([distinct[mixture] for mixture in mixtures], np.int64)
        sizes = np.array([len(rows[0]) for rows in mixed])
        starts = np.r_[0, np.cumsum(sizes)]
        flat = [np.concatenate(column) for column in zip(*mixed, strict=True)]
        count = sizes[code]
        person = np.repeat(np.arange(len(code)), count)
        first = np.repeat(starts[code] - np.r_[0, np.cumsum(count)[:-1]], count)
        item, source, rank, score = (column[first + np.arange(len(person))] for column in flat)
        return Named(person, item, source, rank), score

    def _mixture(self, contexts: tuple[Context, ...]) -> tuple[np.ndarray, ...]:
        """(item, source, rank, score) of the pools of whoever is in all of these contexts."""
        found = self._mixed.get(contexts)
        if found is None:
            mine = np.zeros(len(self._item), bool)
            for context in contexts:
                mine |= self._context.get(context, np.zeros(1, bool))
            found = self._mixed[contexts] = self._best(np.flatnonzero(mine))
        return found

    def _best(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Each (source, item) of these rows once, ranked anew in its source to the depth."""
        size = int(self._item.max(initial=0)) + 1
        pair, which = np.unique(self._source[rows] * size + self._item[rows], return_inverse=True)
        least = np.full(len(pair), np.iinfo(np.int64).max)
        np.minimum.at(least, which, self._rank[rows])
        score = np.full(len(pair), -np.inf)
        np.maximum.at(score, which, self._score[rows])
        source, item = pair // size, pair % size
        order, rank = first_of_each(source, item, -least, self._depth)
        return item[order], source[order], rank, score[order]
