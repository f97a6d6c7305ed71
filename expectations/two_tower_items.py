"""two_tower_items: what the item tower says of every item, none where the towers are off."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Finite, Found, Length
from expectations.rules import holds, vectors

COLUMNS: dict[str, Column] = {
    "length": Length("vector"),
    "finite": Finite("vector"),
    "known": Found(("item_id",), "items"),
}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        *vectors("item_id", "item", "None where the towers are off.", 0),
        holds("An item that the catalogue does not know cannot be filtered.", "known"),
    ]
