"""change_counts: how many people and items a refresh finds touched, and how many due."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import WARNING, among, between, filled, not_below, rows, unique
from jobs import limits


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Without counts nobody knows how much changed.", low=2, high=2),
        *filled("Counted is what has all of these.", "what", "known", "touched", "share", "due"),
        unique("Counted twice.", "what"),
        among("Only people and items are counted.", "what", ("persons", "items")),
        between("A negative count is a broken count.", "touched", 0),
        between("Nobody is known: the night behind this refresh is empty.", "known", 1),
        not_below("More were touched than there are.", "known", "touched"),
        between("A share outside 0 to 1 is a broken count.", "share", 0, 1),
        between("A negative count is a broken count.", "due", 0),
        not_below("More are due than there are.", "known", "due"),
        between(
            "So much changed that a night would be as quick and would also train: either the "
            "source was delivered anew, or refreshes stood still.",
            "share",
            None,
            limits.TOUCHED_UNUSUAL,
            severity=WARNING,
        ),
    ]
