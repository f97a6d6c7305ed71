"""person_factors: collaborative vectors of persons."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Finite, Length
from expectations.rules import vectors

COLUMNS: dict[str, Column] = {"length": Length("vector"), "finite": Finite("vector")}


def suite(as_of: datetime) -> list[Expectation]:
    return vectors("person_id", "person", "No vector: the collaborative source is empty.")
