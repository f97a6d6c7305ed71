"""items_indexed: the items that are available, each of which must be in the index."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Found
from expectations.rules import filled, holds, rows

COLUMNS: dict[str, Column] = {"indexed": Found(("item_id",), "item_vectors")}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("An empty catalogue."),
        *filled("An item without an id.", "item_id"),
        holds("An item outside the index is never found by a search.", "indexed"),
    ]
