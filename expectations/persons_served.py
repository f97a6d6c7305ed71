"""persons_served: people who consent, each of whom must have a list."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Found
from expectations.rules import WARNING, filled, holds, rows
from jobs import limits

COLUMNS: dict[str, Column] = {"served": Found(("person_id",), "recommendations")}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Nobody consents to personalisation.", severity=WARNING),
        *filled("A person without an id.", "person_id"),
        holds(
            "Too many people who consent are without a list.", "served", mostly=1 - limits.UNSERVED
        ),
        holds("Some people who consent are without a list.", "served", severity=WARNING),
    ]
