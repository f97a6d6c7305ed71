"""threshold_costs: what each threshold shows, brings and costs."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import between, filled, not_below, rows, unique


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Scores that are no probabilities have no threshold, and the step says so.", 0),
        *filled("A person moves the threshold by these.",
                "threshold", "shown", "hits", "value", "cost", "net", "low", "high"),
        *filled("Which threshold is which.", "is_set", "is_used", "is_best", "extrapolated"),
        unique("A threshold weighed twice.", "threshold"),
        between("A threshold that is no probability.", "threshold", 0, 1),
        between("A negative count is a broken count.", "shown", 0),
        between("A negative count is a broken count.", "hits", 0),
        between("A negative value of outcomes.", "value", 0),
        between("A negative cost.", "cost", 0),
        not_below("An interval that is turned round.", "high", "low"),
    ]  # fmt: skip
