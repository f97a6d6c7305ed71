"""editorial: places of curated lists in force."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Found
from expectations.rules import filled, holds, rows, unique

COLUMNS: dict[str, Column] = {"known": Found(("item_id",), "items")}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("A count that cannot be read hides lost lists.", low=0),
        *filled(
            "A place needs its list, its number and its item.", "list_id", "position", "item_id"
        ),
        unique("Two items at one place of a curated list.", "list_id", "position"),
        holds("A curated item that the catalogue does not know cannot be shown.", "known"),
    ]
