"""What people bought and were shown lately, and what became of explored places, for ordering.

Reads ``history``, ``identities``, ``events``, the contract table ``recommendation_log`` and, of the
nights and refreshes whose lists were shown, ``recommendations``, ``context_lists`` and
``identities``, or what was kept of them (``jobs/refresh/explored.py``). Writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs import io
from jobs.io import Published
from jobs.night import Night
from jobs.ordering import explore
from jobs.ordering.surfaces import CONTEXT, Surface
from jobs.refresh import explored as kept
from jobs.release import releases
from jobs.retrieval import matrix
from jobs.sources import contract
from jobs.tables import TIME, S

KEY = ["key_type", "key"]
PAIRS = pa.schema([("person_id", S), ("item_id", S)])


def bought(night: Night, days: int) -> pa.Table:
    """person_id, item_id of what was bought in the days before the night, a pair once."""
    if not days:
        return PAIRS.empty_table()
    since = pa.scalar(night.as_of - timedelta(days=days), TIME)
    lately = (ds.field("event_time") >= since) & (ds.field("event_type") == "purchase")
    rows = night.arrow("history", PAIRS.names, lately)
    return rows.group_by(PAIRS.names).aggregate([]).select(PAIRS.names)


def shown(night: Night, days: int, surface: str) -> pa.Table:
    """person_id, item_id of what a surface showed in the days before the night, a pair once.

    Where the log says at which place of the page an item stood, those without one were not seen.
    """
    log = _log(night, days, surface) if days else None
    if log is None:
        return PAIRS.empty_table()
    seen = log.where(F.col("shown_position").isNotNull())
    rows = log if seen.isEmpty() else seen
    known = night.frame("identities").select(*KEY, "person_id")
    found = rows.join(known, on=KEY, how="inner").select("person_id", "item_id")
    items = night.frame("items").select("item_id")
    return found.distinct().join(items, on="item_id", how="semi").select(*PAIRS.names).toArrow()


def explored(night: Night, name: str, surface: Surface) -> pa.Table:
    """What became of the places that earlier nights explored: source, impressions, conversions.

    A place counts where the log names the release that it stood in, and its lists are still in the
    lake, or what was drawn for them; an event answers it where it names the request and the item.
    """
    log = _log(night, surface.explore_days, name)
    since = night.as_of - timedelta(days=surface.explore_days)
    read = _of_contexts if surface.grain == CONTEXT else _of_persons
    shelves = [
        read(night, log, lists)
        for lists in night.lake.earlier("recommendations", night.as_of)
        if log is not None and io.parse_as_of(lists.as_of) >= since
    ]
    if log is not None:
        shelves.append(_kept(night, log, surface.grain == CONTEXT, since))
    placed = [shelf for shelf in shelves if shelf is not None]
    if not placed:
        return pa.table(
            {name: pa.array([], S) for name in ("source", "impressions", "conversions")}
        )
    answers = (
        night.frame("events")
        .where(F.col("request_id").isNotNull())
        .where(F.col("event_type").isin(*surface.explore_rewards))
        .join(night.frame("history").select("event_id"), on="event_id", how="semi")
        .select("request_id", "item_id")
    )
    return explore.outcomes(reduce(DataFrame.unionByName, placed), answers)


def _log(night: Night, days: int, surface: str) -> DataFrame | None:
    """The log of a surface over the days before the night; None where the source keeps none."""
    log = contract.read(night.spark, night.source_folder(), "recommendation_log")
    if log is None:
        return None
    when = F.col("request_time")
    since = F.lit(night.as_of - timedelta(days=days))
    return log.where((F.col("surface") == surface) & (when >= since) & (when < F.lit(night.as_of)))


def _of_persons(night: Night, log: DataFrame, lists: Published) -> DataFrame | None:
    """Logged items that the lists of one night explored: request_id, item_id, sources; None where
    its lists are of a version that drew nothing."""
    rows = io.frame(night.spark, lists.table("recommendations"))
    known = night.lake.at("identities", lists.as_of)
    if known is None or "propensity" not in rows.columns:
        return None
    night.earlier("recommendations", lists.as_of)
    night.earlier("identities", lists.as_of)
    keys = io.frame(night.spark, known.table("identities")).select(*KEY, "person_id")
    drawn = rows.where(F.col("propensity") < 1.0)
    place = ["surface", "person_id", "item_id"]
    return (
        log.where(_of_release(lists))
        .join(keys, on=KEY, how="inner")
        .join(drawn.select(*place, "sources"), on=place, how="inner")
        .select("request_id", "item_id", "sources")
    )


def _of_contexts(night: Night, log: DataFrame, lists: Published) -> DataFrame | None:
    """The same of lists that many share. The log does not say in whose context somebody asked, but
    whether the item was drawn; it was by the sources that name it in the lists that drew it."""
    folder = lists.table("context_lists")
    if not folder.is_dir():
        return None
    night.earlier("recommendations", lists.as_of)
    drawn = io.frame(night.spark, folder).where(F.col("propensity") < 1.0)
    sources = drawn.groupBy("surface", "item_id").agg(
        F.array_sort(F.array_distinct(F.flatten(F.collect_list("sources")))).alias("sources")
    )
    return (
        log.where(_of_release(lists) & (F.col("propensity") < 1.0))
        .join(sources, on=["surface", "item_id"], how="inner")
        .select("request_id", "item_id", "sources")
    )


def _kept(night: Night, log: DataFrame, of_contexts: bool, since: datetime) -> DataFrame | None:
    """The same of refreshes whose tables are gone; None where nothing was kept of any."""
    paths = [
        path
        for path in kept.files(night.lake, kept.CONTEXTS if of_contexts else kept.PERSONS)
        if since <= kept.as_of(path) < night.as_of
        and night.lake.at("recommendations", io.label(kept.as_of(path))) is None
    ]
    if not paths:
        return None
    for path in paths:
        night.read_file(path)
    rows = night.spark.read.parquet(*(str(path) for path in paths))
    stamped = log.withColumn("stamp", F.substring("release_id", 1, len(paths[0].stem)))
    if of_contexts:
        stamped = stamped.where(F.col("propensity") < 1.0)
    on = ["stamp", "surface", "item_id", *([] if of_contexts else KEY)]
    return stamped.join(rows, on=on, how="inner").select("request_id", "item_id", "sources")


def _of_release(lists: Published) -> Column:
    return F.col("release_id").startswith(releases.stamp(io.parse_as_of(lists.as_of)))


@dataclass(frozen=True)
class Lately:
    """Pairs that something happened to lately, as sorted keys ``person * n_items + item``."""

    keys: np.ndarray
    n_items: int

    @staticmethod
    def of(pairs: pa.Table, persons: pa.Table, item_ids: pa.StringArray, what: str) -> Lately:
        """From rows of person_id and item_id."""
        person = matrix.known(pairs["person_id"], persons["person_id"], f"person of {what}")
        item = matrix.known(pairs["item_id"], item_ids, f"item of {what}")
        return Lately(matrix.distinct(person * len(item_ids) + item), len(item_ids))

    def holds(self, person: np.ndarray, item: np.ndarray) -> np.ndarray:
        """(n,) bool: whether each pair of codes is one of them."""
        return matrix.among(person * self.n_items + item, self.keys)
