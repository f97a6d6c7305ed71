"""events_identified: the keys of the events, each of which must have a person."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Found
from expectations.rules import filled, holds, rows

COLUMNS: dict[str, Column] = {"identified": Found(("key_type", "key"), "identities")}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("No event was identified."),
        *filled("An event without a key cannot be identified.", "key_type", "key"),
        holds("Events of an unknown key would be dropped in silence.", "identified"),
    ]
