"""blocked_pairs: items that a person should not see for now."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Found
from expectations.rules import among, between, column, filled, holds, not_below, rows, unique

# Reasons in what the night has read; ``blocked_since`` is of what the release before it had.
OWN = ["returned", "rejected", "just_bought"]
COLUMNS: dict[str, Column] = {"known": Found(("person_id",), "persons")}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("A count that cannot be read hides lost blocks.", low=0),
        *filled(
            "A block needs its person, its item and its reason.", "person_id", "item_id", "reason"
        ),
        *filled("When a block began must be answered.", "since"),
        unique("A block twice multiplies joins.", "person_id", "item_id", "reason"),
        among(
            "An unknown reason cannot be explained to anybody.",
            "reason",
            (*OWN, "blocked_since"),
        ),
        between(
            "A block that begins after the night.",
            "since",
            None,
            as_of,
            below=True,
            when=column("reason").is_in(OWN),
        ),
        not_below("A block that ends before it begins.", "until", "since"),
        holds("A block of a person that nobody knows.", "known"),
    ]
