"""ladder_counts: how many of each tier a refresh makes anew, and why."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import among, between, filled, rows, unique
from jobs.refresh.ladder import DECISIONS, TIERS


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Without counts nobody knows what was saved."),
        *filled("Counted is what has all of these.", "what", "tier", "decision", "count"),
        unique("Counted twice.", "what", "tier", "decision"),
        among("Only people and items are counted.", "what", ("person", "item")),
        among("A tier that nobody knows.", "tier", TIERS),
        among("A decision that nobody knows.", "decision", DECISIONS),
        between("A row is there because somebody is counted in it.", "count", 1),
    ]
