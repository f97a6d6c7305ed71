"""item_lists: what stands beside an item."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Found, Same
from expectations.rules import between, filled, holds, never, rows, unique

COLUMNS: dict[str, Column] = {
    "itself": Same("item_id", "listed_item_id"),
    "item_known": Found(("item_id",), "items"),
    "listed_known": Found(("listed_item_id",), "items", ("item_id",)),
    "unavailable": Found(
        ("listed_item_id",), "ineligible_items", ("item_id",), (("kind", "availability"),)
    ),
}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Item pages have nothing to show."),
        *filled("A list is read by these.", "surface", "item_id", "rank", "listed_item_id"),
        *filled("A place without a score cannot be re-ranked.", "score"),
        unique("Two items at one place of a list.", "surface", "item_id", "rank"),
        unique("An item twice in a list.", "surface", "item_id", "listed_item_id"),
        between("Places start at 1.", "rank", 1, 1_000),
        between("A score that is not a number sorts anywhere.", "score", -1e300, 1e300),
        never("An item listed beside itself.", "itself"),
        holds("A list of an item that the catalogue does not know.", "item_known"),
        holds("A listed item that the catalogue does not know.", "listed_known"),
        never("An item that nobody may get would be shown.", "unavailable"),
    ]
