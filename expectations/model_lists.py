"""model_lists: what the model alone would have published."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Found
from expectations.rules import between, filled, holds, never, rows, unique

COLUMNS: dict[str, Column] = {
    "person_known": Found(("person_id",), "persons"),
    "item_known": Found(("item_id",), "items"),
    "unavailable": Found(("item_id",), "ineligible_items", where=(("kind", "availability"),)),
}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Without the model's lists nobody can say what the rules cost."),
        *filled("A list is read by these.", "surface", "person_id", "rank", "item_id"),
        *filled("What a rule cost is counted in scores.", "score"),
        unique("Two items at one place of a list.", "surface", "person_id", "rank"),
        unique("An item twice in a list.", "surface", "person_id", "item_id"),
        between("Places start at 1.", "rank", 1, 1_000),
        between("A score that is not a number cannot be lost.", "score", -1e300, 1e300),
        holds("A list of a person that nobody knows.", "person_known"),
        holds("An item that the catalogue does not know.", "item_known"),
        never("What nobody may get is no rule's to override.", "unavailable"),
    ]
