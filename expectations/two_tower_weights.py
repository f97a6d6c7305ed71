"""two_tower_weights: what the two towers were trained to, none where they are off."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Finite, Length
from expectations.rules import between, filled, holds, rows, unique

COLUMNS: dict[str, Column] = {"length": Length("vector"), "finite": Finite("vector")}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("None where the towers are off.", 0),
        *filled("A refresh finds the weights by these.", "layer", "place", "vector"),
        unique("Two rows at one place of a layer.", "layer", "place"),
        between("Rows are numbered from 0.", "place", 0),
        between("A row without an entry fits no layer.", "length", 1),
        holds("One NaN or infinity spoils every vector that a refresh makes.", "finite"),
    ]
