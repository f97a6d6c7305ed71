"""experiment_checks: whether each experiment may be read."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import between, filled, rows, unique


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("There may be no experiment.", 0),
        *filled("A check is of an experiment, and has a name.", "experiment", "check"),
        *filled("A value is judged by its limit.", "value", "limit", "passed"),
        *filled("A person has to understand it.", "sentence"),
        unique("A check made twice.", "experiment", "check"),
        between("A deviation below none is a broken check.", "value", 0, 1e300),
        between("A limit of nothing fails everything.", "limit", 0, above=True),
    ]
