"""two_tower_persons: what the person tower says of people, none where the towers are off."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Finite, Found, Length
from expectations.rules import holds, vectors

COLUMNS: dict[str, Column] = {
    "length": Length("vector"),
    "finite": Finite("vector"),
    "consented": Found(("person_id",), "persons", where=(("personalised", True),)),
}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        *vectors("person_id", "person", "None where the towers are off.", 0),
        holds("A vector of a person without consent.", "consented"),
    ]
