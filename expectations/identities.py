"""identities: which key belongs to which person."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Found
from expectations.rules import column, filled, holds, rows, unique

COLUMNS: dict[str, Column] = {"known": Found(("person_id",), "persons")}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("No key, nobody to recommend to."),
        *filled("An event finds its person by these.", "key_type", "key", "person_id"),
        *filled(
            "Features of households and audits of coverage join on these.",
            "household_id",
            "component",
        ),
        unique("A key with two persons counts its events for both.", "key_type", "key"),
        unique(
            "Two accounts in one person: one would be shown what the other bought.",
            "person_id",
            when=column("key_type") == "account",
        ),
        holds("A person without a row has neither consent nor region.", "known"),
    ]
