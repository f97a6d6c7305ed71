"""model_gains: the model's order against that by popularity, by surface."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import among, filled, not_below, rows, unique
from jobs.diagnosis.baseline import VERDICTS
from jobs.diagnosis.policies.off_policy import REWARDS


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("No mature answer of the current period: no surface is judged.", 0),
        *filled("A verdict is of a surface, by what a request brings, in words too.", "surface",
                "reward", "verdict", "sentence"),
        unique("A surface judged twice.", "surface"),
        among("A reward that no estimator knows.", "reward", REWARDS),
        among("A verdict that nobody reads.", "verdict", VERDICTS),
        not_below("An interval whose ends are crossed.", "high", "low"),
    ]  # fmt: skip
