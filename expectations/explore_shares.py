"""explore_shares: how explore places are shared between sources."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import among, between, filled, not_below, rows, unique
from jobs.tables import SOURCES


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("A count that cannot be read hides what was drawn by what.", low=0),
        *filled("A share belongs to a surface and a source.", "surface", "source"),
        *filled("Without these a propensity cannot be checked.", "share", "posterior_mean"),
        *filled("What a share rests on must be known.", "impressions", "conversions"),
        unique("A source that is drawn twice as often as its share says.", "surface", "source"),
        among("A source that nobody knows.", "source", SOURCES),
        between(
            "A source that is never drawn can't be judged off-policy.", "share", 0, 1, above=True
        ),
        between("A posterior outside 0 to 1.", "posterior_mean", 0, 1, above=True, below=True),
        between("A negative count is a broken count.", "conversions", 0),
        not_below("More conversions than impressions.", "impressions", "conversions"),
    ]
