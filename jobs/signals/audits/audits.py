"""The four audits: are the signals fresh, whole, kept to their promise, and in time?

Runs before any model, so that no list is made from signals that its gate would refuse. Reads
``events``, ``identities``, ``persons``, ``identity_links``, ``history``, ``items``, the earlier
nights of the lake and the measured drift window. Writes ``signal_freshness`` (a row per measure and
population) and ``feed_freshness`` (a row per feed), ``identity_coverage`` (a row per population,
stage and reason), ``promises`` (a row per earlier release, ranking and slice) and
``conversion_windows`` (a row per category). Each audit is a module beside this one.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from jobs.evaluation import drift
from jobs.night import Night
from jobs.params import check
from jobs.signals import past
from jobs.signals.audits import conversion, coverage, freshness, promises


@dataclass(frozen=True)
class Params:
    """What counts as active, new, recent and settled."""

    # --- signals and feeds ---
    # Days of drift where `make staleness` has measured none for this source: four weeks, the month
    # over which the blend judges itself. A guess, and the gate says so every night.
    drift_days: float = 28.0
    # Whoever did something in as many days is active: twice the drift window above, and of a longer
    # one, or nobody could be beyond it. Of people whose habits are steady more than half are then
    # within the window, so that a median beyond it says that something changed.
    active_days: int = 56
    # Whoever came in as many days is new.
    new_days: int = 28
    # Regions or segments that are shown, the largest first.
    max_groups: int = 12
    # Feeds are judged on as many days (twice the drift window where that is longer); a feed that
    # was silent for longer has ended.
    feed_days: int = 84
    # A feed with fewer events in all has shown no rhythm that it could break.
    min_feed_events: int = 50
    # Feeds that were ended on purpose, as event_type/key_type/channel: nobody waits for them.
    ended_feeds: tuple[str, ...] = ()
    # A release published this long after its run date was a backfill, not a night.
    backfill_hours: float = 48.0
    # Run dates lie this far apart.
    refresh_hours: float = 24.0
    # --- promises ---
    # Days before a release is first looked at: a week holds every weekday.
    maturity_days: int = 7
    # Days of purchases where a release does not say what its promise was judged on.
    horizon_days: int = 28
    # Days after the horizon in which late events may come before its rows are final.
    settle_days: int = 2
    # Releases judged in one night, some seconds each.
    max_releases: int = 3
    # Buyers sampled per release, as many as the blend samples.
    max_people: int = 1_500
    # A slice with fewer people is not shown.
    min_slice: int = 25
    # NDCG@10 by which a gap must surely exceed the usual one to have widened: an effect smaller
    # than the blend's slack is not worth a search.
    widening: float = 0.005
    # --- conversions ---
    # Purchases of as many days are looked at.
    conversion_days: int = 84
    # A signal leads to a purchase for as many days at the most.
    lookback_days: int = 28
    # Levels of the category path, from the broadest.
    category_depth: int = 1
    # A category with fewer conversions is not called late.
    min_conversions: int = 30

    def __post_init__(self) -> None:
        check(self.drift_days > 0, "drift_days must be positive")
        check(self.active_days > 0, "active_days must be positive")
        check(self.new_days > 0, "new_days must be positive")
        check(self.max_groups >= 0, "max_groups must not be negative")
        check(self.feed_days > 0, "feed_days must be positive")
        check(self.min_feed_events > 0, "min_feed_events must be positive")
        ended = all(feed.count("/") >= 2 for feed in self.ended_feeds)
        check(ended, "ended_feeds must be event_type/key_type/channel each")
        check(self.backfill_hours > 0, "backfill_hours must be positive")
        check(self.refresh_hours > 0, "refresh_hours must be positive")
        check(self.maturity_days > 0, "maturity_days must be positive")
        check(self.horizon_days > 0, "horizon_days must be positive")
        check(self.settle_days >= 0, "settle_days must not be negative")
        check(self.max_releases >= 0, "max_releases must not be negative")
        check(self.max_people > 0, "max_people must be positive")
        check(self.min_slice > 0, "min_slice must be positive")
        check(self.widening >= 0, "widening must not be negative")
        check(self.conversion_days > 0, "conversion_days must be positive")
        check(self.lookback_days > 0, "lookback_days must be positive")
        check(self.category_depth > 0, "category_depth must be positive")
        check(self.min_conversions > 0, "min_conversions must be positive")

    def active(self, window: Window) -> float:
        """Days back to which a person is active."""
        return max(float(self.active_days), 2 * window.days)

    def recent(self, window: Window) -> float:
        """Days back to which a feed is judged."""
        return max(float(self.feed_days), 2 * window.days)


MEASURED, ASSUMED, UNCLEAR = "measured", "assumed", "unclear"


@dataclass(frozen=True)
class Window:
    """The behaviour-drift window that ages are held against, in days.

    ``how``: ``MEASURED``; else a default stands in: ``ASSUMED`` where nothing was measured, and
    ``UNCLEAR`` where the measurement could not tell.
    """

    days: float
    high: float | None
    how: str


def run(night: Night, params: Params) -> None:
    """Stage the five tables."""
    as_of, window = night.as_of, drift_window(night, params)
    events = night.frame("events")
    identities, persons = night.frame("identities"), night.frame("persons")
    lag = freshness.usual_lag(night.lake, as_of, params.backfill_hours)
    night.notes["usual_publishing_lag_hours"] = lag

    weights = night.params_of("interactions")
    who = night.arrow("persons", ["person_id", "region", "segment"])
    people = freshness.of_people(past.of_night(night), who, weights)
    night.write("signal_freshness", freshness.signals(people, as_of, window, lag, params))

    days = freshness.days_of_feeds(events).toArrow()
    lags = freshness.lags_of_feeds(events, as_of, params.recent(window)).toArrow()
    night.write("feed_freshness", freshness.feeds(days, lags, as_of, window, params))

    active_days = params.active(window)
    keys = coverage.keys_seen(events, identities, persons, as_of, active_days).toArrow()
    policy, links = night.params_of("identities"), night.arrow("identity_links")
    covered = coverage.coverage(keys, links, policy.household_sources, policy.account_types)
    night.write("identity_coverage", covered)

    night.write("promises", promises.run(night, params))

    night.write("conversion_windows", conversion_windows(night, days, lag, params))


def drift_window(night: Night, params: Params) -> Window:
    """The window that was measured for this source, recorded as an input, else the default."""
    measured = drift.newest(night.lake, night.source, night.as_of)
    if measured is None:
        return Window(params.drift_days, None, ASSUMED)
    night.read_file(measured.file)
    if not measured.clear:
        return Window(params.drift_days, None, UNCLEAR)
    return Window(measured.days, measured.high, MEASURED)


def conversion_windows(
    night: Night, days: pa.Table, lag_hours: float | None, params: Params
) -> pa.Table:
    """The table ``conversion_windows``; ``days``: rows of ``freshness.days_of_feeds``."""
    if conversion.logs_signals(days):
        history, items = night.frame("history"), night.frame("items")
        found = conversion.windows(history, items, night.as_of, lag_hours, params)
        rows = found.orderBy("category").toArrow()
        if rows.num_rows:
            return rows
    return conversion.none(lag_hours, params.refresh_hours)
