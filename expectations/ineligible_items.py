"""ineligible_items: items that a rule excludes."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Found
from expectations.rules import filled, holds, rows, unique

COLUMNS: dict[str, Column] = {"known": Found(("item_id",), "items")}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("A count that cannot be read hides lost rules.", low=0),
        *filled("An exclusion needs its item and its rule.", "item_id", "kind", "value"),
        *filled("Why an item is excluded must be answered.", "reason"),
        unique("An exclusion twice multiplies joins.", "item_id", "kind", "value"),
        holds("A rule about an item that the catalogue does not know.", "known"),
    ]
