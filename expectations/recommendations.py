"""recommendations: what each person is shown."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Forbidden, Found, Length
from expectations.rules import between, filled, holds, never, rows, unique

COLUMNS: dict[str, Column] = {
    "named_by": Length("sources"),
    "person_known": Found(("person_id",), "persons"),
    "item_known": Found(("item_id",), "items"),
    "unavailable": Found(("item_id",), "ineligible_items", where=(("kind", "availability"),)),
    "forbidden": Forbidden(),
    "blocked": Found(("person_id", "item_id"), "blocked_pairs"),
}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("An empty release."),
        *filled("A list is read by these.", "surface", "person_id", "rank", "item_id"),
        *filled("A place without a score cannot be re-ranked.", "score"),
        *filled("Without its sources a place cannot be explained.", "sources", "provenance"),
        unique("Two items at one place of a list.", "surface", "person_id", "rank"),
        unique("An item twice in a list.", "surface", "person_id", "item_id"),
        between("Places start at 1.", "rank", 1, 1_000),
        between("A score that is not a number sorts anywhere.", "score", -1e300, 1e300),
        between("A place that no source named.", "named_by", 1),
        holds("A list of a person that nobody knows.", "person_known"),
        holds("An item that the catalogue does not know.", "item_known"),
        never(
            "An item that nobody may get, such as a recalled one, would be shown.", "unavailable"
        ),
        never(
            "An item that this person may not get, by region or restriction, would be shown.",
            "forbidden",
        ),
        never(
            "An item that this person returned, rejected or just bought would be shown.", "blocked"
        ),
    ]
