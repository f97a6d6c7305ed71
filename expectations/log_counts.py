"""log_counts: what became of the rows of the log and of the answers to it."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import between, contains, filled, rows, unique
from jobs.diagnosis.log import intake


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("A log that nobody counted."),
        *filled("A count is of something.", "period", "outcome", "rows", "share"),
        unique("An outcome counted twice.", "period", "outcome"),
        contains(
            "What is dropped from a log must be counted.", "outcome",
            [intake.READ, intake.KEPT, intake.INCOMPLETE, intake.REPEATED],
        ),
        between("A negative count is a broken count.", "rows", 0),
        between("A share outside 0 to 1.", "share", 0, 1),
    ]  # fmt: skip
