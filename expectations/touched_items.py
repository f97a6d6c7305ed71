"""touched_items: the items that are not as in the base of a refresh."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Found
from expectations.rules import among, filled, holds, rows, unique
from jobs.refresh.changes import CAME, DESCRIBED, SHOWN

COLUMNS: dict[str, Column] = {"known": Found(("item_id",), "items")}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("An hour without a change of the catalogue is no fault.", low=0),
        *filled("Vectors are made by these.", "item_id", "reason"),
        unique("An item twice for one reason.", "item_id", "reason"),
        among("A reason that nobody knows.", "reason", (CAME, DESCRIBED, SHOWN)),
        holds("A change of an item that the catalogue does not know.", "known"),
    ]
