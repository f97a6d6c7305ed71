"""items_described: the catalogue, each item of which must have a content vector."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Found
from expectations.rules import filled, holds, rows

COLUMNS: dict[str, Column] = {"described": Found(("item_id",), "content_vectors")}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("An empty catalogue."),
        *filled("An item without an id.", "item_id"),
        holds(
            "An item without a content vector cannot enter the index: a new item would never "
            "be found.",
            "described",
        ),
    ]
