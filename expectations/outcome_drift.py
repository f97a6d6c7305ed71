"""outcome_drift: how the rate of outcomes and its relation to the inputs moved."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import between, filled, rows, unique


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Before outcomes are mature there is nothing to judge.", 0),
        *filled("A row is a measure of a slice.", "measure", "slice_kind", "slice"),
        *filled("What a change rests on.", "rows_before", "rows_after"),
        *filled("Whether it is beyond its limit and clear.", "moved"),
        unique("A measure taken twice.", "measure", "slice_kind", "slice"),
        between("A negative count is a broken count.", "rows_before", 0),
        between("A negative count is a broken count.", "rows_after", 0),
    ]
