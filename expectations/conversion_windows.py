"""conversion_windows: how long people take to decide, against how long serving takes."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import WARNING, between, filled, never, not_below, rows, unique


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Nobody looked whether lists come before the decision."),
        *filled(
            "The page and this gate read these.",
            "category",
            "conversions",
            "serving_median_hours",
            "decided_before",
            "revenue_share",
            "late",
        ),
        unique("A category judged twice.", "category"),
        between("A negative number of conversions is a broken count.", "conversions", 0),
        between("Serving before the signal: a clock is wrong.", "serving_median_hours", 0),
        between("A share outside 0 to 1 is a broken count.", "decided_before", 0, 1),
        between("A share outside 0 to 1 is a broken count.", "revenue_share", 0, 1),
        not_below("Quantiles turned around.", "window_median_hours", "window_p25_hours"),
        not_below("Quantiles turned around.", "window_p75_hours", "window_median_hours"),
        never(
            "Most people decide on these categories before a list knows of their interest: only "
            "a faster path (hourly runs, or ranking within the session) reaches them.",
            "late",
            naming=["category"],
            severity=WARNING,
        ),
    ]
