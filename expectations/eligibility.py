"""eligibility: a bitmap per rule over the places of the id map."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import between, column, contains, filled, not_below, rows, unique


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Without a rule everything is allowed to everybody."),
        *filled("A rule is found by these.", "kind", "value"),
        *filled(
            "A rule without its bitmap allows nothing or everything.",
            "positions",
            "allowed",
            "bitmap",
        ),
        unique("A rule twice: which one is applied is chance.", "kind", "value"),
        contains(
            "The rule for everybody is missing: unavailable items would be shown.",
            "kind",
            ["availability"],
        ),
        between("A bitmap over nothing.", "positions", 1),
        between("A negative count is a broken count.", "allowed", 0),
        not_below("More items allowed than there are.", "positions", "allowed"),
        between(
            "Nothing is available to anybody.", "allowed", 1, when=column("kind") == "availability"
        ),
    ]
