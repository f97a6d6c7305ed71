"""served_features: the features of a sample of requests, as they were served."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import WARNING, among, between, filled, rows, unique
from expectations.served import PERIODS


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Without logged features neither replay nor parity can be told.", 1, severity=WARNING),
        *filled("A place is of a request, on a day.", "request_id", "position", "day", "period",
                "mature", "surface"),
        *filled("Slices are made of these.", "region", "segment", "tenure", "key_type", "category"),
        *filled("What was shown, from which release.", "item_id", "release_id"),
        *filled("Outcomes, and how many rows one stands for.", "clicked", "bought", "revenue",
                "weight"),
        unique("A place of an answer counted twice.", "request_id", "position"),
        among("A period that nothing is held against.", "period", PERIODS),
        between("Places start at 1.", "position", 1),
        between("A row that stands for less than itself.", "weight", 1),
    ]  # fmt: skip
