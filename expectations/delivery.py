"""delivery: the quota meant for each source and the share delivered."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Shortfall
from expectations.rules import WARNING, between, column, filled, rows, unique
from jobs import limits

COLUMNS: dict[str, Column] = {"short": Shortfall("intended", "delivered")}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Quotas that nobody checked after filtering."),
        *filled(
            "Quotas are checked on these.", "surface", "source", "intended", "delivered", "slots"
        ),
        unique("A source counted twice.", "surface", "source"),
        between("A share outside 0 to 1.", "intended", 0, 1),
        between("A share outside 0 to 1.", "delivered", 0, 1),
        between("A negative count is a broken count.", "slots", 0),
        between(
            "A source is delivered less than its quota: filters took more than it had to give.",
            "short",
            None,
            limits.DELIVERY_SHORT,
            when=column("intended") > 0,
            severity=WARNING,
        ),
    ]
