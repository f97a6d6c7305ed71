"""history_placed: the items of the history, each of which the catalogue must place."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Found
from expectations.rules import filled, holds, rows

COLUMNS: dict[str, Column] = {"known": Found(("item_id",), "items")}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("No event of an item: nothing can be recommended."),
        *filled("An event without an item says nothing.", "item_id"),
        holds("Events of an item that the catalogue does not know cannot be placed.", "known"),
    ]
