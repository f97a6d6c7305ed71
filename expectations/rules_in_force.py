"""rules_in_force: the business's rules and what became of each."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import WARNING, among, between, column, filled, not_below, rows, unique
from jobs.ordering import rules as business

KNOWN = (business.IN_FORCE, business.NOT_YET, business.EXPIRED)


def suite(as_of: datetime) -> list[Expectation]:
    naming = ("rule_id", "scope", "surface", "outcome")
    return [
        rows("A count that cannot be read hides lost rules.", low=0),
        *filled("Who asks why an item moved is told these.", "rule_id", "kind", "scope", "reason"),
        *filled("A rule of which nobody knows whether it holds.", "outcome", "items", "unjudged"),
        unique("Two rules of one name cannot be told apart in what they changed.", "rule_id"),
        among("A kind that no list is ordered by.", "kind", business.KINDS),
        among("An outcome that nobody can act on.", "outcome", business.OUTCOMES),
        among(
            "A rule names what the night does not know, so it does nothing: a typing error, or an "
            "item that is gone.",
            "outcome",
            KNOWN,
            naming=naming,
            severity=WARNING,
        ),
        not_below("A rule that ends before it starts.", "ends", "starts"),
        between("A negative count is a broken count.", "items", 0),
        between("A negative count is a broken count.", "unjudged", 0),
        between(
            "A margin floor lets items pass whose margin is not known.",
            "unjudged",
            0,
            0,
            when=column("outcome") == business.IN_FORCE,
            severity=WARNING,
        ),
    ]
