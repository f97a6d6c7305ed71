"""replayed: what was served beside what was published, by night."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import WARNING, between, filled, rows, unique


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("No release that served is known, so nothing is replayed.", 1, severity=WARNING),
        *filled("What was replayed, and how much of it.", "night", "requests", "places",
                "compared", "unpublished", "rebuilt_people"),
        unique("A night replayed twice.", "night"),
        between("A negative count is a broken count.", "requests", 0),
        between("A negative count is a broken count.", "compared", 0),
    ]  # fmt: skip
