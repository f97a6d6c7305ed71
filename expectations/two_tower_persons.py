"""two_tower_persons: what the person tower says of people, none where the towers are off."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Finite, Found, Length
from expectations.rules import between, distinct, filled, holds, rows, unique

COLUMNS: dict[str, Column] = {
    "length": Length("vector"),
    "finite": Finite("vector"),
    "consented": Found(("person_id",), "persons", where=(("personalised", True),)),
}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("None where the towers are off.", 0),
        *filled("Vectors are found by it.", "person_id"),
        *filled("A missing vector scores nothing.", "vector"),
        unique("Two vectors of one person: which one is served is chance.", "person_id"),
        distinct("Vectors of several lengths cannot be multiplied.", "length", 0, 1),
        between("A vector without an entry scores everything 0.", "length", 1),
        holds("A NaN or an infinity in one vector spoils every ranking that it enters.", "finite"),
        holds("A vector of a person without consent.", "consented"),
    ]
