"""persons_kept: yesterday's persons, most of whom should still be persons today."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Found
from expectations.rules import WARNING, filled, holds, rows
from jobs import limits

COLUMNS: dict[str, Column] = {"kept": Found(("person_id",), "persons")}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Yesterday knew nobody: it cannot have been published so."),
        *filled("A person of yesterday without an id.", "person_id"),
        holds(
            "Many of yesterday's persons are gone: identity_changes says which links merged them.",
            "kept",
            mostly=1 - limits.PERSONS_GONE_UNUSUAL,
            severity=WARNING,
        ),
    ]
