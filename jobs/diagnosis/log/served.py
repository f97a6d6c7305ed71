"""The step ``served``: what the log says was shown, to whom, and what came of it.

Reads the contract table ``recommendation_log``, ``events``, ``items`` and ``definitions``, and of
the nights whose releases the log names ``identities``, ``persons`` and ``items``. Writes ``served``
(a row per place of an answer, with its outcome), ``visits`` (a row per visitor, day and
experiment), ``served_features`` (a sample of requests with the features as logged), ``log_counts``
(what was kept, dropped and missing) and ``served_symptoms``.

Who asked is told twice: ``person_id`` as the release's own night knew the key, which is what the
answer was made by; and ``visitor``, as it is known now, whose purchases count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs import io
from jobs.diagnosis import definitions, symptoms
from jobs.diagnosis.definitions import Definitions, Experiment, Label
from jobs.diagnosis.log import intake, logged_features
from jobs.diagnosis.log.logged_features import PLACE
from jobs.diagnosis.log.who import KEY, UNKNOWN, Who, visitor
from jobs.errors import Fault
from jobs.night import Night
from jobs.params import check
from jobs.release import releases
from jobs.sources import contract
from jobs.tables import TABLES

LAST_YEAR = timedelta(days=364)  # the same weekdays
RETURNED_WITHIN = "INTERVAL 60 DAYS"
BUCKETS = 1 << 20  # of requests, to draw a sample by


@dataclass(frozen=True)
class Params:
    """Which days are looked at, and how many rows are looked at feature by feature."""

    # The days that are judged; whole weeks, so that weekdays weigh alike.
    current_days: int = 14
    # The days right before, which they are held against.
    reference_days: int = 28
    # Days of purchases before an experiment, or before the reference, that visitors are told by.
    before_days: int = 28
    # Places of each period whose features are looked at.
    sampled: int = 60_000
    # A visitor is new for so many days, and not long known for so many.
    new_days: int = 30
    long_days: int = 180

    def __post_init__(self) -> None:
        for name in ("current_days", "reference_days"):
            days = getattr(self, name)
            check(days > 0 and days % 7 == 0, f"{name} must be whole weeks")
        check(self.before_days > 0, "before_days must be positive")
        check(1_000 <= self.sampled <= 1_000_000, "sampled must be 1,000 to 1,000,000")
        check(0 < self.new_days < self.long_days, "new_days must be positive, below long_days")


@dataclass(frozen=True)
class Span:
    """A period: [``start``, ``end``)."""

    period: str
    start: datetime
    end: datetime


def spans(as_of: datetime, params: Params) -> list[Span]:
    """The periods of a run date, the newest first."""
    start = as_of - timedelta(days=params.current_days)
    return [
        Span("current", start, as_of),
        Span("reference", start - timedelta(days=params.reference_days), start),
        Span("last_year", start - LAST_YEAR, as_of - LAST_YEAR),
    ]


def ripe_before(current: Span, label: Label) -> datetime:
    """The moment before which requests are mature: whole weeks of the current period, so that
    weekdays weigh as in the reference.

    Raises ``Fault`` where maturity leaves no whole week: nothing could be judged, ever.
    """
    days = (current.end - current.start).days
    weeks = int(days - label.maturity_days) // 7
    if weeks < 1:
        least = 7 * (math.ceil(label.maturity_days / 7) + 1)
        raise Fault(
            f"served: outcomes are mature after {label.maturity_days:g} days, which leaves no "
            f"whole week of the {days} current days; set served.current_days to {least}"
        )
    return current.start + timedelta(weeks=weeks)


def run(night: Night, params: Params) -> None:
    """Stage the log with its outcomes, and what is wrong with it."""
    agreed = definitions.read(night)
    every = contract.read(night.spark, night.source_folder(), "recommendation_log")
    if every is None:
        raise Fault(
            f"served: {night.source_folder()} has no recommendation_log; record what serving "
            "answers (jobs.release.recorder), for nothing can be diagnosed without it"
        )
    periods = spans(night.as_of, params)
    ripe = ripe_before(periods[0], agreed.label)
    log = every.withColumn("period", _period(periods)).where(F.col("period").isNotNull())
    # Saves reading the source, and the maps of features in it, once per table below.
    folder = night.scratch("served") / "log"
    rows = io.kept(judged(log, drawn_share(log, params)), folder)
    now = (F.col("outcome") == intake.KEPT) & (F.col("period") == "current")
    if rows.where(now).isEmpty():
        raise Fault(
            f"served: the log holds no whole answer of the {params.current_days} days before "
            f"{io.label(night.as_of)}; look whether serving still writes it, or name a run date "
            "that it reaches"
        )
    places = rows.where(F.col("outcome") == intake.KEPT).drop(
        "outcome", "has_features", "features", "drawn_share"
    )
    who = Who.read(night, places, params.new_days, params.long_days)
    known = io.kept(who.placed(places), night.scratch("served") / "places")
    events = night.frame("events")
    answers = io.kept(
        answering(events, known, who, agreed.label), night.scratch("served") / "answers"
    )
    back = returned(answers, events, who)
    served = with_outcomes(known, answers, back, agreed.label, ripe)
    night.write("served", served.select(*TABLES["served"].schema.names))
    made = io.frame(night.spark, night.staged / "served")
    night.write("visits", visits(made, events, who, agreed, periods[1].start, params))
    night.write("served_features", logged_features.table(folder, night.staged / "served"))
    naming = naming_requests(events, every, periods)
    counts = intake.counts(rows, made, answers, naming, agreed, untimed(every, rows, periods))
    night.write("log_counts", counts)
    night.write("served_symptoms", symptoms.table(intake.found(counts, intake.days(made))))


# --- rows of the log -------------------------------------------------------------------------
def _period(periods: Iterable[Span]) -> Column:
    when = F.col("request_time")
    named = [
        F.when((when >= F.lit(p.start)) & (when < F.lit(p.end)), F.lit(p.period)) for p in periods
    ]
    return F.coalesce(*named)


def untimed(every: DataFrame, rows: DataFrame, periods: Iterable[Span]) -> dict[str, int]:
    """How many rows of the whole log have no time, by period: that whose rows name their release,
    the newest first, else that in which it was made. Of no release that is one: ``UNDATED``."""
    lost = every.where(F.col("request_time").isNull()).select("release_id")
    named = rows.groupBy("release_id").agg(
        *(F.max(F.col("period") == one.period).alias(one.period) for one in periods)
    )
    made = F.split("release_id", "-")[0]
    when = [F.when(F.col(one.period), one.period) for one in periods]
    when += [
        F.when((made >= releases.stamp(one.start)) & (made < releases.stamp(one.end)), one.period)
        for one in periods
    ]
    known = F.col("release_id").rlike(releases.ID.pattern)
    period = F.when(known, F.coalesce(*when, F.lit(""))).otherwise(intake.UNDATED)
    told = lost.join(named, on="release_id", how="left").groupBy(period.alias("period")).count()
    return {row["period"]: row["count"] for row in told.collect()}


def drawn_share(log: DataFrame, params: Params) -> Column:
    """Of which share of a period's requests features are looked at, for ``sampled`` places."""
    sizes = {row["period"]: row["count"] for row in log.groupBy("period").count().collect()}
    shares = [
        F.when(F.col("period") == period, F.lit(min(1.0, params.sampled / count)))
        for period, count in sizes.items()
    ]
    return F.coalesce(*shares, F.lit(1.0))


def judged(log: DataFrame, share: Column) -> DataFrame:
    """Each row of the log with its ``outcome``; its map of features only where its request is drawn
    by its hash, so that a rerun draws the same, as one of this ``share`` of its period."""
    whole = reduce(
        lambda left, right: left & right,
        [F.col(name).isNotNull() for name in ("request_id", *KEY, "item_id", "release_id")],
    ) & (F.coalesce("position", F.lit(0)) >= 1)  # fmt: skip
    bucket = F.pmod(F.xxhash64("request_id"), F.lit(BUCKETS))
    drawn = F.when(bucket < share * BUCKETS, F.col("features"))
    # Rows of no request are nobody's repeats; together they could be the whole log.
    asked = F.coalesce("request_id", F.concat_ws("|", F.lit("none"), *KEY, "item_id"))
    # By request alone, so that both orders below need no exchange of their own.
    rows = (
        log.withColumn("asked", asked)
        .repartition("asked")
        .withColumns(
            {
                "has_features": F.col("features").isNotNull(),
                "drawn_share": share,
                "features": drawn,
            }
        )
    )
    first = Window.partitionBy("asked", "position").orderBy("request_time", "item_id", *KEY)
    once = Window.partitionBy("asked", "item_id").orderBy("request_time", "position", *KEY)
    repeated = (F.row_number().over(first) > 1) | (F.row_number().over(once) > 1)
    return rows.withColumn(
        "outcome",
        F.when(~whole, intake.INCOMPLETE)
        .when(repeated, intake.REPEATED)
        .otherwise(intake.KEPT),
    ).drop("asked").withColumns({"position": F.col("position").cast("int"),
                   "shown_position": F.col("shown_position").cast("int")})  # fmt: skip


# --- outcomes --------------------------------------------------------------------------------
def answering(events: DataFrame, places: DataFrame, who: Who, label: Label) -> DataFrame:
    """Clicks and purchases that answer a place, an event once: request_id, position, event_id,
    event_type, event_time, first_received, value, ``in_time`` and ``before`` (the request).

    By the request that the event names; under the attribution ``window`` also what a visitor did
    with an item that was shown, by the last place that showed it.
    """
    done = events.where(F.col("event_type").isin("click", "purchase")).select(
        "event_id", *KEY, "event_type", "item_id", "event_time", "first_received", "value",
        F.col("request_id").alias("answers"),
    )  # fmt: skip
    asked = places.select(*PLACE, "request_time", "item_id", "visitor")
    named = asked.select(
        F.col("request_id").alias("answers"), "request_id", "position", "item_id", "request_time"
    )
    found = done.join(named, on=["answers", "item_id"], how="inner").withColumn("named", F.lit(1))
    columns = [
        *PLACE, "event_id", "event_type", "event_time", "first_received", "value", "request_time",
        "named",
    ]  # fmt: skip
    found = found.select(*columns)
    hours = F.expr(f"INTERVAL {int(label.within_hours * 3600)} SECONDS")
    if label.attribution == "window":
        whose = done.where(F.col("answers").isNull()).join(who.newest, on=KEY, how="left")
        whose = whose.withColumn("visitor", visitor())
        lately = (F.col("event_time") >= F.col("request_time")) & (
            F.col("event_time") <= F.col("request_time") + hours
        )
        seen = whose.join(asked, on=["visitor", "item_id"], how="inner").where(lately)
        found = found.unionByName(seen.withColumn("named", F.lit(0)).select(*columns))
    last = Window.partitionBy("event_id").orderBy(
        F.desc("named"), F.desc("request_time"), "request_id", "position"
    )
    once = found.withColumn("nth", F.row_number().over(last)).where(F.col("nth") == 1)
    before = F.col("event_time") < F.col("request_time")
    return once.withColumns(
        {
            "before": before,
            "in_time": ~before & (F.col("event_time") <= F.col("request_time") + hours),
        }
    ).drop("nth", "named", "request_time")


def naming_requests(events: DataFrame, log: DataFrame, periods: list[Span]) -> DataFrame:
    """event_id of clicks and purchases that name a request, by the ``period`` in which they were
    done; ``known``: whether the log has the item in it, whenever that was."""
    done = events.where(F.col("request_id").isNotNull()).where(
        F.col("event_type").isin("click", "purchase")
    )
    when = [F.col("event_time") >= F.lit(p.start) for p in periods[:2]]
    done = done.withColumn(
        "period", F.when(when[0], periods[0].period).when(when[1], periods[1].period)
    ).where(F.col("period").isNotNull())
    asked = log.select("request_id", "item_id", F.lit(True).alias("known")).distinct()
    found = done.join(asked, on=["request_id", "item_id"], how="left")
    return found.select("event_id", "period", F.coalesce("known", F.lit(False)).alias("known"))


def returned(answers: DataFrame, events: DataFrame, who: Who) -> DataFrame:
    """request_id, position, ``back``: money of what came back of a place, null where a return does
    not say how much. A return is of the visitor's last purchase of the item before it, whether a
    list led to it or not."""
    rows = (
        events.where(F.col("event_type").isin("purchase", "return"))
        .join(who.newest, on=KEY, how="left")
        .select(
            visitor().alias("visitor"), "event_id", "event_type", "item_id", "event_time",
            F.abs("value").alias("money"),
        )
    )  # fmt: skip
    bought = rows.where(F.col("event_type") == "purchase").select(
        "visitor", "item_id", F.col("event_id").alias("bought_id"),
        F.col("event_time").alias("bought_time"),
    )  # fmt: skip
    last = Window.partitionBy("event_id").orderBy(F.desc("bought_time"), "bought_id")
    came = (
        rows.where(F.col("event_type") == "return")
        .join(bought, on=["visitor", "item_id"], how="inner")
        .where(F.col("event_time") > F.col("bought_time"))
        .where(F.col("event_time") <= F.col("bought_time") + F.expr(RETURNED_WITHIN))
        .withColumn("nth", F.row_number().over(last))
        .where(F.col("nth") == 1)
    )
    # A sum over a null would pass over the return whose amount nobody knows.
    told = F.when(F.count("money") == F.count("*"), F.sum("money"))
    of_purchase = came.groupBy(F.col("bought_id").alias("event_id")).agg(told.alias("back"))
    return (
        answers.where(F.col("in_time"))
        .join(of_purchase, on="event_id", how="inner")
        .groupBy(*PLACE)
        .agg(F.when(F.count("back") == F.count("*"), F.sum("back")).alias("back"))
        .withColumn("returned", F.lit(True))
    )


def with_outcomes(
    places: DataFrame, answers: DataFrame, back: DataFrame, label: Label, ripe: datetime
) -> DataFrame:
    """The table ``served``; ``back``: of :func:`returned`, ``ripe``: of :func:`ripe_before`."""
    bought = F.col("event_type") == "purchase"
    came = (
        answers.where(F.col("in_time"))
        .groupBy(*PLACE)
        .agg(
            F.max(F.lit(True)).alias("clicked"),
            F.max(bought).alias("bought"),
            F.sum(F.when(bought, F.col("value"))).alias("paid"),
            F.min(F.when(bought, F.col("event_time"))).alias("bought_time"),
            F.min(F.when(bought, F.col("first_received"))).alias("bought_received"),
        )
    )
    rows = places.join(came, on=PLACE, how="left")
    rows = rows.join(back, on=PLACE, how="left")
    paid = F.coalesce("paid", F.lit(0.0))
    # What came back without an amount came back whole.
    less = F.when(F.col("returned"), F.least(F.coalesce("back", paid), paid)).otherwise(0.0)
    return rows.withColumns(
        {
            "clicked": F.coalesce("clicked", F.lit(False)),
            "bought": F.coalesce("bought", F.lit(False)),
            "value": paid - less if label.returns == "subtract" else paid,
            "returned": F.coalesce("returned", F.lit(False)),
            "published": F.coalesce("published", F.lit(False)),
            "mature": F.col("request_time") < F.lit(ripe),
            "channel": F.coalesce("channel", F.lit(UNKNOWN)),
        }
    )


# --- visits ----------------------------------------------------------------------------------
def visits(
    served: DataFrame, events: DataFrame, who: Who, agreed: Definitions, start: datetime,
    params: Params,
) -> DataFrame:  # fmt: skip
    """The table ``visits``; ``start``: what visitors without an experiment are told before."""
    named = served.withColumn("experiment", F.coalesce("experiment", F.lit("")))
    era = _era(agreed.experiments)
    arms = named.groupBy("visitor", "experiment", era.alias("era")).agg(
        F.count_distinct("arm").alias("arms"), F.min("arm").alias("arm")
    )
    came = named.groupBy("visitor", "day", "experiment").agg(
        *(
            F.min(name).alias(name)
            for name in ("period", "key_type", "region", "segment", "tenure")
        ),
        F.count_distinct("request_id").alias("requests"),
        F.sum(F.col("clicked").cast("long")).alias("clicks"),
        F.sum("value").alias("attributed"),
    )
    bought = (
        events.where(F.col("event_type") == "purchase")
        .join(who.newest, on=KEY, how="left")
        .withColumn("visitor", visitor())
        .select("visitor", "event_time", "session_id", "value")
    )
    by_day = bought.groupBy("visitor", F.to_date("event_time").alias("day")).agg(
        F.count_distinct(F.coalesce("session_id", F.lit(""))).alias("orders"),
        F.sum("value").alias("revenue"),
    )
    before = reduce(
        DataFrame.unionByName,
        [
            _before(bought, name, since, params.before_days)
            for name, since in _starts(agreed.experiments, start)
        ],
    )
    first = who.known.select("visitor", F.to_date("first_bought").alias("first_bought"))
    rows = (
        came.withColumn("era", era)
        .join(arms, on=["visitor", "experiment", "era"], how="left")
        .join(by_day, on=["visitor", "day"], how="left")
        .join(before, on=["visitor", "experiment"], how="left")
        .join(first, on="visitor", how="left")
    )
    return rows.withColumns(
        {
            "arm": F.when(F.col("arms") > 1, "several").otherwise(F.coalesce("arm", F.lit(""))),
            "orders": F.coalesce("orders", F.lit(0)).cast("long"),
            "revenue": F.coalesce("revenue", F.lit(0.0)),
            "before_value": F.coalesce("before_value", F.lit(0.0)),
            "returning": F.coalesce(F.col("first_bought") < F.col("day"), F.lit(False)),
        }
    ).select(*TABLES["visits"].schema.names)


def _era(experiments: Iterable[Experiment]) -> Column:
    """Whether a day is of a year ago, before its experiment began, or since: an arm of a rehearsal,
    or of last year's experiment of that name, is not one of this experiment's."""
    begun = [
        (F.col("experiment") == one.name) & (F.col("day") >= F.lit(one.starts.date()))
        for one in experiments
    ]
    since = reduce(lambda left, right: left | right, begun, F.lit(False))
    a_year_ago = F.col("period") == "last_year"
    return F.when(a_year_ago, "last_year").when(since, "since").otherwise("before")


def _starts(experiments: Iterable[Experiment], start: datetime) -> list[tuple[str, datetime]]:
    return [("", start), *((one.name, one.starts) for one in experiments)]


def _before(bought: DataFrame, name: str, start: datetime, days: int) -> DataFrame:
    when = F.col("event_time")
    since = F.lit(start - timedelta(days=days))
    return (
        bought.where((when >= since) & (when < F.lit(start)))
        .groupBy("visitor")
        .agg(F.sum("value").alias("before_value"))
        .withColumn("experiment", F.lit(name))
    )
