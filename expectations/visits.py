"""visits: a visitor's day, with all that was asked and bought on it."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import among, between, filled, rows, unique
from expectations.served import PERIODS


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Nobody came, so that nothing can be said of what they bought."),
        *filled("A visit is of somebody, on a day.", "visitor", "day", "period", "key_type"),
        *filled("Arms and segments are compared by these.", "experiment", "arm", "region",
                "segment", "tenure", "returning"),
        *filled("What is measured.", "requests", "clicks", "orders", "revenue", "attributed",
                "before_value"),
        unique("A visit counted twice.", "visitor", "day", "experiment"),
        among("A period that nothing is held against.", "period", PERIODS),
        between("A visit without a request.", "requests", 1),
        between("A negative count is a broken count.", "clicks", 0),
        between("A negative count is a broken count.", "orders", 0),
        between("Money that is not a number.", "revenue", -1e300, 1e300),
        between("Money that is not a number.", "attributed", -1e300, 1e300),
        between("Money that is not a number.", "before_value", -1e300, 1e300),
    ]  # fmt: skip
