"""Raw events of the source, judged: what is kept, what is quarantined and why.

Reads the contract table ``events`` (a row per delivery of an event). Writes
``events`` (a row per event received before ``as_of``, its newest revision),
``events_rejected`` (a row per quarantined row, with its reason),
``events_counts`` (a row per outcome; the outcomes of received rows add up to what was read) and
``events_volume`` (one row: the newest day against the same weekday before it). A refresh judges
again what came since its base and what that touches, in memory, by the same rules in
``judging``; everything else stands.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs import io, tables
from jobs.errors import Fault
from jobs.io import Published
from jobs.night import Night
from jobs.params import check
from jobs.refresh import onward
from jobs.signals import deliveries, judging
from jobs.signals.deliveries import AHEAD, CROWDED
from jobs.signals.judging import PENDING
from jobs.sources import contract
from jobs.tables import EVENT_TYPES

DAY = 86_400_000_000  # microseconds
# Raise this with every change to how events are judged: a refresh then goes on from none before it.
RULES = 2
NOTE = "judged"


@dataclass(frozen=True)
class Params:
    """How events are judged."""

    # A key with more events than this on one day is a script or a shared till, not a person: the
    # busiest day of a real wholesale account in Online Retail has 1,100 lines.
    max_events_per_key_day: int = 2_000
    # A device's clock may run ahead of the lake's by this many seconds without being "the future".
    clock_tolerance_seconds: int = 300
    # An event that came more than this many hours after it happened is counted as late.
    late_after_hours: int = 24
    # How many weeks of the same weekday the newest day's volume is held against.
    volume_weeks: int = 26

    def __post_init__(self) -> None:
        check(self.max_events_per_key_day > 0, "max_events_per_key_day must be positive")
        check(self.clock_tolerance_seconds >= 0, "clock_tolerance_seconds must not be negative")
        check(self.late_after_hours > 0, "late_after_hours must be positive")
        check(1 <= self.volume_weeks <= 520, "volume_weeks must be 1 to 520")


def run(night: Night, params: Params) -> None:
    """Judge the source's events and stage the four tables."""
    files = deliveries.files(night.published("source"))
    raw = contract.read(night.spark, night.source_folder(), "events", files)
    if raw is None:
        raise Fault(f"events: {night.source_folder()} has no table events; it is required")
    # Saves reading and sorting the source once per table below.
    judged = judge(raw, night.as_of, params).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        counts = count_outcomes(judged).toArrow()
        received = sum(
            rows
            for outcome, rows in zip(
                counts["outcome"].to_pylist(), counts["rows"].to_pylist(), strict=True
            )
            if outcome != PENDING
        )
        if received == 0:
            raise Fault(_nothing_received(judged, night))
        night.write("events_counts", with_shares(counts, received))
        night.write("events", kept(judged))
        night.write("events_rejected", rejected(judged))
    finally:
        judged.unpersist()
    night.notes[NOTE] = {"rules": RULES}
    _write_volume(night, params)


def _write_volume(night: Night, params: Params) -> None:
    times = io.read_arrow(night.staged / "events", ["event_time"])["event_time"]
    night.write("events_volume", volume(times.to_numpy(), night.as_of, params.volume_weeks))


# --- in a refresh ----------------------------------------------------------------------------
def refresh(night: Night, params: Params) -> None:
    """Stage the four tables, going on from the base where its files and rules are those of now."""
    base = night.base("events")
    by_our_rules = base.manifest["notes"].get(NOTE, {}).get("rules") == RULES
    again = deliveries.since(night, base) if by_our_rules else None
    if again is None:
        run(night, params)
        return
    rows = again.rows.drop_columns(["then"])
    then = judging.judge(rows.filter(again.rows["then"]), deliveries.read_up_to(base), params)
    now = judging.judge(rows, night.as_of, params)
    before, after = (_tally(one["outcome"]) for one in (then, now))
    # Repeats and superseded revisions, of which there may be any number, are only counted.
    judged = now.filter(pc.match_substring_regex(now["outcome"], "^(kept|rejected)"))
    is_kept = pc.starts_with(judged["outcome"], "kept")
    _go_on(night, base, judged.filter(is_kept), again.ids)
    turned_away = judged.filter(pc.invert(is_kept))
    reason = pc.replace_substring_regex(turned_away["outcome"], "^rejected: ", "")
    anew = turned_away.append_column("reason", reason)
    stood = io.read_arrow(base.table("events_rejected"))
    stood = stood.filter(pc.invert(pc.is_in(stood["event_id"], value_set=again.ids)))
    anew = anew.select(stood.schema.names).cast(stood.schema)
    night.write("events_rejected", pa.concat_tables([stood, anew]))
    counts = _as_counts(io.read_arrow(base.table("events_counts")))
    counts.subtract(before)
    counts.update(after)
    night.write("events_counts", _counted(night, counts))
    night.notes[NOTE] = {"rules": RULES, "again": len(again.ids), "deliveries": after.total()}
    _write_volume(night, params)


def _go_on(night: Night, base: Published, anew: pa.Table, ids: pa.StringArray) -> None:
    """Stage the base's ``events`` in which the rows with these ids are now those of ``anew``."""
    schema, folder = tables.TABLES["events"].schema, base.table("events")
    stood = io.read_rows(folder, ids, schema.names, "event_id").cast(schema)
    gone, came = onward.differing(stood, anew.select(schema.names).cast(schema), "event_id")
    staged = night.staged / "events"
    first = onward.without(folder, staged, onward.both(gone["event_id"]), "event_id")
    if came.num_rows or not io.parquet_files(staged):
        night.add("events", first, came)


def _tally(outcomes: pa.ChunkedArray) -> Counter[str]:
    return Counter({one["values"]: one["counts"] for one in pc.value_counts(outcomes).to_pylist()})


def _as_counts(rows: pa.Table) -> Counter[str]:
    return Counter(dict(zip(rows["outcome"].to_pylist(), rows["rows"].to_pylist(), strict=True)))


def _counted(night: Night, counts: Counter[str]) -> pa.Table:
    """The table ``events_counts``; what is not yet received is whatever else the source has."""
    of_source = night.arrow("source_tables", ["table", "rows"])
    every = of_source.filter(pc.equal(of_source["table"], "events"))["rows"][0].as_py()
    del counts[PENDING]
    received = counts.total()
    counts[PENDING] = every - received
    found = sorted((outcome, rows) for outcome, rows in counts.items() if rows)
    outcomes, rows = zip(*found, strict=True)
    return with_shares(pa.table({"outcome": list(outcomes), "rows": list(rows)}), received)


# --- one by one ------------------------------------------------------------------------------
def judge(raw: DataFrame, as_of: datetime, params: Params) -> DataFrame:
    """Each row of the source with its ``outcome``.

    Outcomes: kept, kept_late, duplicate (an equal or conflicting repeat of a revision),
    superseded (an older revision), ``rejected: <reason>``, not_yet_received. Revisions are settled
    first, so that the newest one counts even where it is the one to be rejected.
    """
    now = F.lit(as_of)
    event_time, received = F.col("event_time"), F.col("received_time")
    arrived = F.coalesce(received, event_time)
    rows = raw.withColumns(
        {
            "revision": F.coalesce("revision", F.lit(0)),
            "received_time": arrived,
            "quantity": F.coalesce("quantity", F.lit(1.0)),
            "pending": F.coalesce(arrived >= now, F.lit(False)),
        }
    )
    rows = settle(rows)
    first_verdict = (
        F.when(F.col("pending"), PENDING)
        .when((F.col("place") > 1) & (F.col("revision") < F.col("newest_revision")), "superseded")
        .when(F.col("place") > 1, "duplicate")
        .otherwise(_impossible(params, now))
    )
    late = F.col("received_time") - event_time > F.expr(f"INTERVAL {params.late_after_hours} HOURS")
    rows = rows.withColumn("outcome", F.coalesce(first_verdict, F.when(late, "kept_late")))
    rows = rows.withColumns(
        {
            "outcome": F.coalesce("outcome", F.lit("kept")),
            "event_date": F.to_date("event_time"),
        }
    )
    crowded = (
        rows.where(F.col("outcome").startswith("kept"))
        .groupBy("key_type", "key", "event_date")
        .agg(F.count(F.lit(1)).alias("events"))
        .where(F.col("events") > params.max_events_per_key_day)
        .select("key_type", "key", "event_date", F.lit(True).alias("crowded"))
    )
    bot_like = F.col("crowded") & F.col("outcome").startswith("kept")
    return (
        rows.join(F.broadcast(crowded), on=["key_type", "key", "event_date"], how="left")
        .withColumn(
            "outcome",
            F.when(bot_like, f"rejected: {CROWDED}").otherwise(F.col("outcome")),
        )
        .select(
            "event_id", "revision", "event_time", "received_time", "first_received", "key_type",
            # A blank is no client's session: it would be one of everybody.
            "key", F.when(F.trim("session_id") != "", F.col("session_id")).alias("session_id"),
            "event_type", "item_id", "quantity", "value", "channel",
            "region", "campaign", "request_id", "event_date", "outcome",
        )
    )  # fmt: skip


def settle(rows: DataFrame) -> DataFrame:
    """Each row's ``place`` among the deliveries of its event, and what all of them say of it.

    ``newest_revision``, and ``first_received``: when the earliest delivery came, whatever its
    revision, so that a correction does not make its key look younger than it is.

    Only events that came more than once are sorted, since they are few and sorting all of them
    took half of the step. A pending row never pushes out a received one; a row without an id has
    no repeats.
    """
    event = ["event_id", "pending"]
    repeated = rows.groupBy(*event).agg(F.count(F.lit(1)).alias("n")).where(F.col("n") > 1)
    ranked = ("event_id", "revision", "received_time")
    newest_first = Window.partitionBy(*event).orderBy(
        F.col("revision").desc(),
        F.col("received_time").asc_nulls_last(),
        # Whatever else a delivery says, so that a rerun takes the same; one that says more first.
        *[
            F.col(column.name).asc_nulls_last()
            for column in contract.CONTRACT["events"]
            if column.name not in ranked
        ],
    )
    whole = newest_first.rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing)
    repeats = rows.join(repeated, on=event, how="semi").withColumns(
        {
            "place": F.row_number().over(newest_first),
            "newest_revision": F.max("revision").over(whole),
            "first_received": F.min("received_time").over(whole),
        }
    )
    single = rows.join(repeated, on=event, how="anti").withColumns(
        {
            "place": F.lit(1),
            "newest_revision": F.col("revision"),
            "first_received": F.col("received_time"),
        }
    )
    return single.unionByName(repeats)


def _impossible(params: Params, now: Column) -> Column:
    """``rejected: <reason>`` for a row that can't be, else null; the first reason counts."""
    event_time = F.col("event_time")
    ahead = F.expr(f"INTERVAL {params.clock_tolerance_seconds} SECONDS")

    def blank(name: str) -> Column:
        return F.coalesce(F.trim(name) == "", F.lit(True))

    reasons = (
        ("no_event_id", blank("event_id")),
        ("no_key", blank("key") | blank("key_type")),
        ("no_item", blank("item_id")),
        ("no_time", event_time.isNull()),
        (AHEAD, (event_time >= now) | (event_time > F.col("received_time") + ahead)),
        ("unknown_type", ~F.coalesce(F.col("event_type").isin(*EVENT_TYPES), F.lit(False))),
        ("not_a_number", F.isnan("quantity") | F.coalesce(F.isnan("value"), F.lit(False))),
        ("quantity_not_positive", F.col("quantity") <= 0),
        ("negative_price", F.coalesce(F.col("value") < 0, F.lit(False))),
    )
    verdict = F.lit(None).cast("string")
    for reason, condition in reversed(reasons):
        verdict = F.when(condition, f"rejected: {reason}").otherwise(verdict)
    return verdict


def kept(judged: DataFrame) -> DataFrame:
    """The table ``events``."""
    return judged.where(F.col("outcome").startswith("kept")).drop("outcome")


def rejected(judged: DataFrame) -> DataFrame:
    """The table ``events_rejected``."""
    reason = F.regexp_replace("outcome", "^rejected: ", "")
    return judged.where(F.col("outcome").startswith("rejected")).select(
        "event_id", "revision", "event_time", "received_time", "key_type", "key", "event_type",
        "item_id", "quantity", "value", reason.alias("reason"),
    )  # fmt: skip


def count_outcomes(judged: DataFrame) -> DataFrame:
    """Rows per outcome, sorted by name."""
    return judged.groupBy("outcome").agg(F.count(F.lit(1)).alias("rows")).orderBy("outcome")


def with_shares(counts: pa.Table, received: int) -> pa.Table:
    """The table ``events_counts``: shares of the rows received; pending rows have share 0."""
    outcomes, rows = counts["outcome"].to_pylist(), counts["rows"].to_pylist()
    shares = [
        0.0 if outcome == PENDING else number / received
        for outcome, number in zip(outcomes, rows, strict=True)
    ]
    return pa.table({"outcome": outcomes, "rows": rows, "share": shares})


def volume(times: np.ndarray, as_of: datetime, weeks: int) -> pa.Table:
    """The rows of the last 24 hours against the median of the same hours in the weeks before.

    ``times``: (n_events,) datetime64, when they happened. Hours without events count as 0 once the
    source has begun. Where there is no history the ratio is 1: nothing to compare with.
    """
    newest = np.datetime64((as_of - timedelta(microseconds=1)).date(), "D")
    now = np.datetime64(as_of.replace(tzinfo=None), "us").astype(np.int64)
    ago = np.maximum(now - 1 - times.astype("datetime64[us]").astype(np.int64), 0) // DAY
    per_day = np.bincount(ago, minlength=7 * weeks + 1)
    begun = len(per_day) if len(times) == 0 else int(ago.max())
    history = [per_day[7 * week] for week in range(1, weeks + 1) if 7 * week <= begun]
    today = int(per_day[0])
    median = float(np.median(history)) if history else 0.0
    ratio = today / max(median, 1.0) if history and (median or today) else 1.0
    weekday = newest.item().isoweekday()
    return pa.table(
        {
            "day": pa.array([newest.item()], pa.date32()),
            "weekday": pa.array([weekday], pa.int32()),
            "rows": pa.array([today], pa.int64()),
            "history_days": pa.array([len(history)], pa.int32()),
            "history_median": [median],
            "ratio": [ratio],
        }
    )


def _nothing_received(judged: DataFrame, night: Night) -> str:
    first = judged.agg(F.min("received_time").alias("first")).toArrow()["first"][0].as_py()
    when = f"its first is received at {first:%Y-%m-%d %H:%M} UTC" if first else "it has no rows"
    return (
        f"events: {night.source_folder()} has no event received before "
        f"{io.label(night.as_of)}; {when}; choose a later as_of"
    )
