"""adoption: what the page made of the answers."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import between, filled, rows, unique


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Nobody looked whether lists were shown."),
        *filled("A share is of answers, on a surface, in a period.", "surface", "period",
                "measure", "requests", "share", "low", "high"),
        unique("A share told twice.", "surface", "period", "measure"),
        between("A share of nothing.", "requests", 1),
        between("A share outside 0 to 1.", "share", 0, 1),
        between("A bound outside 0 to 1.", "low", 0, 1),
        between("A bound outside 0 to 1.", "high", 0, 1),
    ]  # fmt: skip
