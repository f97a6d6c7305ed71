"""verdict_symptoms: everything that is wrong, in the order in which to look at it."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import between, filled, unique
from expectations.symptoms import of


def suite(as_of: datetime) -> list[Expectation]:
    # Two steps may find one thing: replay a default, and parity its distribution.
    counted, *rest = of("step", "kind", "subject")
    return [
        counted,
        *filled("What to look at first.", "place", "step"),
        unique("Two symptoms at one place.", "place"),
        between("Places start at 1.", "place", 1),
        *rest,
    ]
