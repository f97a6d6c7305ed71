"""features: the rows that the lists were scored from."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Found
from expectations.rules import between, distinct, filled, holds, rows, unique
from jobs.tables import SOURCES

SIGNALS = tuple(f"{source}_signal" for source in SOURCES)
COLUMNS: dict[str, Column] = {"listed": Found(("person_id", "item_id"), "recommendations")}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Without features nobody can retrain on what was served."),
        *filled("A feature store loads by these.", "person_id", "item_id", "event_timestamp"),
        *filled(
            "A row without its version or hash cannot be compared with serving.",
            "feature_version",
            "feature_hash",
        ),
        *filled("A signal without a value cannot be scored again.", *SIGNALS),
        unique("Two rows for one scored pair.", "person_id", "item_id"),
        between("Features from after the night leak the future.", "event_timestamp", None, as_of),
        distinct("Features of two versions in one release.", "feature_version", 1, 1),
        holds("Features of a pair that was not listed.", "listed"),
        *[
            between("A signal falls from 1 for the first place to 0 for none.", name, 0, 1)
            for name in SIGNALS
        ],
    ]
