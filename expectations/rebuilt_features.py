"""rebuilt_features: each feature as published beside what the night's own tables give again."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import among, between, filled, rows, unique
from jobs.tables import FEATURES


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Where the night's tables are gone, nothing is made again.", 0, len(FEATURES)),
        *filled("What was made again, of which night, and how much is the same.", "feature",
                "night", "rows", "same"),
        unique("A feature made again twice.", "feature"),
        among("A feature that nobody has.", "feature", FEATURES),
        between("A share of no rows.", "rows", 1),
        between("A share outside 0 to 1.", "same", 0, 1),
    ]  # fmt: skip
