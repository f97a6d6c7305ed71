"""candidates: what each source names for each person."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Found
from expectations.rules import among, between, filled, holds, never, rows, unique
from jobs.tables import SOURCES

COLUMNS: dict[str, Column] = {
    "consented": Found(("person_id",), "persons", where=(("personalised", True),)),
    "known": Found(("item_id",), "items"),
    "unavailable": Found(("item_id",), "items", where=(("available", False),)),
}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Nobody is nominated anything."),
        *filled("Blending and filtering join on these.", "person_id", "item_id", "source"),
        *filled("The blend reads the place in the source.", "rank", "score"),
        unique(
            "A source that names an item twice counts it twice.", "person_id", "item_id", "source"
        ),
        between("Places start at 1; the blend takes their logarithm.", "rank", 1),
        among("An unknown source has no weight and would be dropped.", "source", SOURCES),
        between("A score that is not a number sorts anywhere.", "score", -1e300, 1e300),
        holds("Personal candidates of a person without consent.", "consented"),
        holds("A candidate that the catalogue does not know cannot be filtered.", "known"),
        never(
            "What left the catalogue would be one filter away from the lists of whoever has it.",
            "unavailable",
        ),
    ]
