"""items_held: yesterday's id map, which today's must hold."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Found
from expectations.rules import filled, holds, rows

COLUMNS: dict[str, Column] = {"held": Found(("item_id", "position"), "items")}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Yesterday's id map is empty: it cannot have been published so."),
        *filled("An item of yesterday's id map has no name.", "item_id", "position"),
        holds(
            "An item lost its place in the id map: yesterday's vectors, bitmaps and factors "
            "would be read as another item's.",
            "held",
        ),
    ]
