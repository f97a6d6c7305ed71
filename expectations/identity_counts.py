"""identity_counts: what became of every link between keys."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import between, filled, rows, unique


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Without counts a broken link feed goes unseen."),
        *filled("The report shows these.", "outcome", "rows"),
        unique("An outcome counted twice.", "outcome"),
        between("A negative count is a broken count.", "rows", 0),
    ]
