"""blend_weights: how much each source's word counts."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import among, between, filled, rows, total, unique
from jobs.tables import SOURCES


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Without weights every score is 0."),
        *filled("A source without a weight is dropped.", "source", "weight"),
        unique("A source with two weights.", "source"),
        among("An unknown source names nothing.", "source", SOURCES),
        between(
            "A negative weight punishes an item for being named; an infinite one ends the blend.",
            "weight",
            0,
            1e6,
        ),
        total("All weights are 0: every list is sorted by item id.", "weight", low=0, above=True),
    ]
