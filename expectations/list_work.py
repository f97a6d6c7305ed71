"""list_work: what was done to the lists of how many people."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import among, between, filled, not_below, rows

DONE = ("untouched", "filled", "anew")


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Without counts nobody knows what was saved.", low=1, high=1),
        *filled("Counted is what has all of these.", "what", "known", *DONE),
        among("Only people are counted.", "what", ("persons",)),
        between("Nobody is known: there is nobody to list anything for.", "known", 1),
        *(between("A negative count is a broken count.", name, 0) for name in DONE),
        *(not_below("More than there are is a broken count.", "known", name) for name in DONE),
    ]
