"""exposure_bias: what the log could see, by place and over the catalogue."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import between, filled, rows, unique


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Where nothing was shown there is no bias to measure.", 0),
        *filled("A row is a measure, at a place of the list or at all.", "measure", "place"),
        *filled("What is measured, and what it rests on.", "value", "rows"),
        unique("A place measured twice.", "measure", "place"),
        between("There is no place below the first; 0 is all.", "place", 0),
        between("A negative count is a broken count.", "rows", 0),
        between("A rate, share or ratio is not negative.", "value", 0),
    ]
