"""shortfalls: how lists were topped up or stayed short."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import between, filled, rows, unique


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("A count that cannot be read hides short lists.", low=0),
        *filled(
            "A shortfall needs its reason and its size.", "surface", "reason", "persons", "slots"
        ),
        unique("A reason counted twice.", "surface", "reason"),
        between("A negative count is a broken count.", "persons", 0),
        between("A negative count is a broken count.", "slots", 0),
    ]
