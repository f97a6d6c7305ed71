"""items: the catalogue, with each item's place in the id map."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Dense
from expectations.rules import WARNING, between, filled, holds, rows, unique

COLUMNS: dict[str, Column] = {"dense": Dense("position")}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("No item, nothing to recommend."),
        *filled("Every table joins on these.", "item_id", "position"),
        *filled(
            "Eligibility is judged on these; a null would let an item through.",
            "available",
            "flags",
        ),
        unique("An item twice in the catalogue stands twice in a list.", "item_id"),
        unique("Two items at one place of the id map: bitmaps and index confuse them.", "position"),
        between("Places start at 0.", "position", 0),
        holds("A gap in the id map: bitmaps and index are one entry per place.", "dense"),
        *filled(
            "Without prices the content vectors lack their price band.",
            "price",
            mostly=0.25,
            severity=WARNING,
        ),
        between("A negative price is a broken catalogue.", "price", 0),
        holds(
            "Most of the catalogue is not available: the feed may be cut short.",
            "available",
            mostly=0.5,
            severity=WARNING,
        ),
        *filled(
            "Without categories there is neither content nor a recall by category.",
            "category",
            mostly=0.5,
            severity=WARNING,
        ),
    ]
