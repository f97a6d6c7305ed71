"""How old the signals are, on three clocks, and which feed is late.

The event clock says when something happened, the received clock when the lake knew it, the release
clock when lists made from it are served. What is held against the behaviour-drift window is the
median age of each active person's *last* event, and of each feed the lag of its deliveries and its
silence. The weighted age of all signals behind a list is only reported: on a year of groceries its
median is months, and rightly so.

A feed is what comes by one way: an event type, the type of the keys that it names people by, and a
channel. The contract has no other origin of an event; a shop's trackers, apps and tills each have a
key type of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.evaluation import slices
from jobs.io import Lake
from jobs.release import releases
from jobs.signals import interactions
from jobs.signals.past import BLOCK, Record, ages, kinds, microseconds, people_of, runs
from jobs.tables import TABLES, TIME, S

if TYPE_CHECKING:
    from jobs.signals.audits.audits import Params, Window

PEOPLE = pa.schema(
    [(name, S) for name in ("person_id", "region", "segment")]
    + [(name, TIME) for name in ("last_event", "last_received", "first_event")]
    + [("weighted_age", pa.float64())]
)
FEED = ["event_type", "key_type", "channel"]
ACTIVE = "active"
MEASURES = ("last_event_age", "last_received_age", "signal_age_weighted", "time_to_release")
DAY, HOUR = 86_400.0, 3_600.0
# A gap between two days of a feed that one in a hundred exceeds, and one at least: else a single
# outage would be the usual silence ever after.
USUAL = 0.99


# --- people ----------------------------------------------------------------------------------
def of_people(record: Record, persons: pa.Table, params: interactions.Params) -> pa.Table:
    """A row per person who did anything: last event on two clocks, weighted age of all signals, and
    who it is. ``persons``: person_id, region and segment of everybody.

    Ages are in days. An event weighs as it does in the interactions; one that subtracts intent
    weighs nothing here.
    """
    persons = persons.sort_by("person_id")
    people = people_of(persons)
    names = ["person_id", "item_id", "event_type", "event_time", "received_time", "value"]
    parts = []
    for first in range(0, len(people), BLOCK):
        rows, person, _ = record.read(people.slice(first, BLOCK), names)
        happened, received = (microseconds(rows[name]) for name in ("event_time", "received_time"))
        order = np.argsort(person, kind="stable")
        starts, group = runs(person[order])
        if not len(starts):
            continue
        value = pc.fill_null(rows["value"].cast(pa.float64()), 0.0).to_numpy()
        age = ages(happened, record.as_of)
        weight = np.maximum(interactions.weights(kinds(rows), age, value, params), 0.0)
        # A sum's last bits depend on its order; rounded, a rerun is equal to the last one.
        whole, weighted = (
            np.round(np.bincount(group, each[order], len(starts)), 6)
            for each in (weight, weight * age)
        )
        mean = np.divide(weighted, whole, out=np.full(len(starts), np.nan), where=whole > 0)
        known = persons.take(pa.array(first + person[order][starts]))
        parts.append(pa.table({
            **{name: known[name] for name in ("person_id", "region", "segment")},
            "last_event": _times(np.maximum.reduceat(happened[order], starts)),
            "last_received": _times(np.maximum.reduceat(received[order], starts)),
            "first_event": _times(np.minimum.reduceat(happened[order], starts)),
            "weighted_age": pa.array(mean, from_pandas=True),
        }, schema=PEOPLE))  # fmt: skip
    return pa.concat_tables([PEOPLE.empty_table(), *parts])


def _times(microseconds: np.ndarray) -> pa.Array:
    return pa.array(microseconds).cast(TIME)


def signals(
    people: pa.Table, as_of: datetime, window: Window, lag_hours: float | None, params: Params
) -> pa.Table:
    """The table ``signal_freshness`` from rows of :func:`of_people`."""
    rows = [_window_row(window)]
    last = _age(people["last_event"], as_of)
    active = last <= params.active(window)
    if not active.any():
        # Nobody left to have a median: everyone's last event is at least as old as the newest.
        newest = float(last.min(initial=np.inf))
        rows += [_row("last_event_age", ACTIVE, 0, newest, newest, window.days)]
        return _table(rows)
    ages = {
        "last_event_age": last,
        "last_received_age": _age(people["last_received"], as_of),
        "signal_age_weighted": people["weighted_age"].to_numpy(zero_copy_only=False).astype(float),
    }
    if lag_hours is not None:
        ages["time_to_release"] = last + lag_hours / 24
    for name, members in _populations(people, active, as_of, params):
        for measure, values in ages.items():
            known = values[members & np.isfinite(values)]
            if not len(known):
                continue
            median, high = np.quantile(known, [0.5, 0.95])
            gated = measure == "last_event_age" and name == ACTIVE
            limit = window.days if gated else None
            rows.append(_row(measure, name, len(known), float(median), float(high), limit))
    return _table(rows)


def usual_lag(lake: Lake, as_of: datetime, backfill_hours: float) -> float | None:
    """The median hours from run date to publishing of the earlier nights that the lake keeps.

    A night published much later than its run date was backfilled and says nothing of the others.
    """
    lags = [
        release.manifest["lag_seconds"] / HOUR
        for release in releases.readable(lake)
        if release.manifest["kind"] == "nightly"
        and release.as_of < as_of
        and "lag_seconds" in release.manifest
    ]
    usual = [lag for lag in lags if lag <= backfill_hours]
    return float(np.median(usual)) if usual else None


def _populations(
    people: pa.Table, active: np.ndarray, as_of: datetime, params: Params
) -> Iterator[tuple[str, np.ndarray]]:
    """Names of populations and who is in them, (n_people,) bool."""
    yield ACTIVE, active
    new = _age(people["first_event"], as_of) <= params.new_days
    yield "new", active & new
    yield "returning", active & ~new
    for kind in ("region", "segment"):
        for value, members in slices.largest(people[kind], active, params.max_groups):
            yield f"{kind}: {value}", members


def _window_row(window: Window) -> dict[str, Any]:
    high = window.days if window.high is None else window.high
    return _row("drift_window", window.how, 0, window.days, max(high, window.days), None)


def _row(
    measure: str, population: str, people: int, median: float, high: float, limit: float | None
) -> dict[str, Any]:
    return {
        "measure": measure, "population": population, "people": people, "median": median,
        "p95": high, "limit": limit, "unit": "days", "gated": limit is not None,
    }  # fmt: skip


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, TABLES["signal_freshness"].schema)


def _age(times: pa.ChunkedArray, as_of: datetime) -> np.ndarray:
    """(n,) float64 days from each time to the run date."""
    micros = pc.cast(times, pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
    return (as_of.timestamp() - micros / 1e6) / DAY


# --- feeds -----------------------------------------------------------------------------------
def days_of_feeds(events: DataFrame) -> DataFrame:
    """A row per feed and day with events: how many, and the newest."""
    return (
        _named(events)
        .groupBy(*FEED, "event_date")
        .agg(F.count(F.lit(1)).alias("events"), F.max("event_time").alias("newest"))
    )


def lags_of_feeds(events: DataFrame, as_of: datetime, days: float) -> DataFrame:
    """A row per feed with events of the last days: how many, and their lag in hours.

    The days are of the event clock, and what happened before the feed's first receipt is left out:
    a history that was loaded at once is not a late feed.
    """
    since = F.lit(as_of - timedelta(days=days))
    named = _named(events)
    began = named.groupBy(*FEED).agg(F.min("received_time").alias("began"))
    lag = (F.col("received_time").cast("double") - F.col("event_time").cast("double")) / HOUR
    return (
        named.where(F.col("event_time") >= since)
        .join(F.broadcast(began), on=FEED, how="inner")
        .where(F.col("event_time") >= F.col("began"))
        .groupBy(*FEED)
        .agg(
            F.count(F.lit(1)).alias("recent"),
            F.percentile(F.greatest(lag, F.lit(0.0)), [0.5, 0.95]).alias("lags"),
        )
        .select(*FEED, "recent", F.col("lags")[0].alias("median"), F.col("lags")[1].alias("p95"))
    )


def feeds(
    days: pa.Table, lags: pa.Table, as_of: datetime, window: Window, params: Params
) -> pa.Table:
    """The table ``feed_freshness`` from rows of :func:`days_of_feeds` and :func:`lags_of_feeds`."""
    lag_of = {tuple(row[name] for name in FEED): row for row in lags.to_pylist()}
    by_feed: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in days.to_pylist():
        by_feed.setdefault(tuple(row[name] for name in FEED), []).append(row)
    rows = []
    for feed, active in sorted(by_feed.items()):
        newest = max(row["newest"] for row in active)
        age = max((as_of - newest).total_seconds() / HOUR, 0.0)
        usual = usual_gap([row["event_date"].toordinal() for row in active])
        lag = lag_of.get(feed, {"recent": 0, "median": 0.0, "p95": 0.0})
        events = sum(row["events"] for row in active)
        late, reason = False, None
        if events >= params.min_feed_events:
            late, reason = judge(feed, age, usual, lag["p95"], window, params)
        rows.append({
            "event_type": feed[0], "source": feed[1], "channel": feed[2],
            "events": events, "recent": lag["recent"],
            "newest_event": newest, "age_hours": age, "usual_gap_hours": usual,
            "lag_median_hours": lag["median"], "lag_p95_hours": lag["p95"],
            "limit_hours": window.days * 24, "late": late, "reason": reason,
        })  # fmt: skip
    return pa.Table.from_pylist(rows, TABLES["feed_freshness"].schema)


def usual_gap(days: list[int]) -> float | None:
    """The silence in hours, from day to day, that is usual; None for a feed of one day."""
    gaps = np.diff(np.unique(days))
    return float(np.quantile(gaps, USUAL, method="lower")) * 24 if len(gaps) else None


def judge(
    feed: tuple[str, ...],
    age: float,
    usual: float | None,
    lag: float,
    window: Window,
    params: Params,
) -> tuple[bool, str | None]:
    """Whether a feed is late, and in words what is wrong with it; all in hours.

    Late: 95 % of its events take longer than the window to arrive, or it is silent for longer than
    the window and than is usual. A silence that is unusual but within the window is told, and so is
    a feed that has been silent for so long that it seems to have ended.
    """
    if "/".join(feed) in params.ended_feeds:
        return False, None
    name = name_of(feed)
    known = "" if usual is None else f", where {_span(usual)} is usual"
    since = f"the newest event is {_span(age)} old{known}"
    if age > params.recent(window) * 24:
        return False, f"{name} seem to have ended: {since}"
    limit = f"behaviour drifts in {_span(window.days * 24)}"
    if lag > window.days * 24:
        return True, f"{name} come late: one in 20 takes over {_span(lag)} to arrive, and {limit}"
    if age > max(window.days * 24, usual or 0.0):
        return True, f"{name} are silent: {since}, and {limit}"
    if usual is not None and age > usual + 24:
        return False, f"{name} are quieter than usual: {since}"
    return False, None


def name_of(feed: tuple[str, ...]) -> str:
    """``purchase events of account keys in web``."""
    event_type, source, channel = feed
    return f"{event_type} events of {source} keys" + (f" in {channel}" if channel else "")


def _span(hours: float) -> str:
    return f"{hours / 24:.3g} days" if hours >= 48 else f"{hours:.3g} hours"


def _named(events: DataFrame) -> DataFrame:
    return events.withColumn("channel", F.coalesce("channel", F.lit("")))
