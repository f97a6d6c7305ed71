"""item_vectors: what the vector index holds."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Finite, Found, Length
from expectations.rules import among, between, distinct, filled, holds, never, rows, unique

COLUMNS: dict[str, Column] = {
    "length": Length("vector"),
    "finite": Finite("vector"),
    "placed": Found(("item_id", "position"), "items"),
    "delisted": Found(("item_id",), "items", where=(("available", False),)),
}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("An empty index finds nothing."),
        *filled("A vector is found by these.", "item_id", "position"),
        *filled("A missing vector is never found.", "vector"),
        *filled("The report tells learned from guessed vectors by it.", "origin"),
        unique("An item twice in the index stands twice in every answer.", "item_id"),
        unique("Two items under one id of the index.", "position"),
        among(
            "The vector's origin decides how far it is trusted.",
            "origin",
            ("collaborative", "content"),
        ),
        distinct("Vectors of several lengths do not fit one index.", "length", 1, 1),
        between("A vector without an entry is near nothing.", "length", 1),
        holds("A NaN in the index makes searches return nonsense.", "finite"),
        never("An item that nobody can buy takes the place of one in every answer.", "delisted"),
        holds(
            "The index's id is not the item's place in the id map: answers name other items.",
            "placed",
        ),
    ]
