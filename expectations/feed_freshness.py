"""feed_freshness: which feed is late, silent or has ended."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import WARNING, between, column, empty, filled, never, rows, unique
from jobs import limits


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("No feed was looked at."),
        *filled("A feed is named by these.", "event_type", "source", "channel"),
        *filled(
            "Lateness is judged on these.",
            "events",
            "recent",
            "newest_event",
            "age_hours",
            "lag_median_hours",
            "lag_p95_hours",
            "limit_hours",
            "late",
        ),
        unique("A feed judged twice.", "event_type", "source", "channel"),
        between("A feed without an event is none.", "events", 1),
        between("A negative number of events is a broken count.", "recent", 0),
        between("An event from the future makes a silent feed look fresh.", "age_hours", 0),
        between("Received before it happened: clocks disagree.", "lag_median_hours", 0),
        between("Received before it happened: clocks disagree.", "lag_p95_hours", 0),
        between("A window of no length calls every feed late.", "limit_hours", 0, above=True),
        never(
            "What this feed tells reaches the lists after behaviour has moved on. Mend the feed; "
            "if it was ended on purpose, name it in audits.ended_feeds.",
            "late",
            when=column("events") >= limits.FEED_EVENTS,
            naming=["reason"],
        ),
        never(
            "A feed too small to stop the night for brings nothing.",
            "late",
            when=column("events") < limits.FEED_EVENTS,
            naming=["reason"],
            severity=WARNING,
        ),
        empty(
            "A feed brings less than it did, within what the lists can bear.",
            "reason",
            when=column("late") == False,  # noqa: E712
            naming=["reason"],
            severity=WARNING,
        ),
    ]
