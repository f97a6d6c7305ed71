"""events_volume: the newest day against the same weekday before."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import WARNING, between, column, filled, rows
from jobs import limits


def suite(as_of: datetime) -> list[Expectation]:
    low, high = limits.VOLUME_USUAL
    lowest, highest = limits.VOLUME_POSSIBLE
    return [
        rows("The newest day was not counted.", low=1, high=1),
        *filled(
            "The day cannot be judged without these.",
            "day",
            "weekday",
            "rows",
            "history_days",
            "history_median",
            "ratio",
        ),
        between("A weekday outside 1 to 7 compares the wrong days.", "weekday", 1, 7),
        between("A negative number of days is a broken count.", "history_days", 0),
        between("A negative median is a broken count.", "history_median", 0),
        between("A negative count is a broken count.", "rows", 0),
        between(
            "The newest day is unlike its weekday: part of a delivery may be missing, or come "
            "twice.",
            "ratio",
            low,
            high,
            severity=WARNING,
        ),
        between(
            "Twice as far out as the widest healthy swing: the freshest signals are missing "
            "or counted twice, and they weigh most.",
            "ratio",
            lowest,
            highest,
            when=column("history_days") >= limits.VOLUME_HISTORY,
        ),
        between(
            "The newest day is empty where its weekday never is: the delivery did not come, "
            "and lists made from it would be yesterday's with today's date.",
            "rows",
            1,
            when=column("history_median") >= limits.EMPTY_DAY_MEDIAN,
        ),
    ]
