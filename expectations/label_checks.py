"""label_checks: whether a label means the same in every part of the shop."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import filled, not_below, rows, unique


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("A log without both periods has nothing to compare, and says so.", 0),
        *filled("A check is of something, somewhere.", "check", "subject"),
        *filled("The verdict and its reason are what a person reads.", "passed", "sentence"),
        unique("A check made twice.", "check", "subject"),
        not_below("An interval that is turned round.", "high", "low"),
    ]
