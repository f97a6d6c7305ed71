"""slice_losses: what each slice contributes to the change of the KPI."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import between, filled, rows, unique
from jobs.diagnosis.decisions.losses import RANKED


def suite(as_of: datetime) -> list[Expectation]:
    parts = ("before", "after", "mix", "rate", "contribution", "share")
    return [
        rows("A log without both periods has no change to divide, and says so.", 0),
        *filled("A slice is of columns and their values.", "kinds", "slice", "measure"),
        *filled("The loss is divided into these.", "rows", *parts, "rank"),
        unique("A slice counted twice.", "kinds", "slice"),
        between("A slice of nothing.", "rows", 1),
        *(between("A contribution that is not a number.", name, -1e300, 1e300) for name in parts),
        between("A rank beyond those that are told.", "rank", 0, RANKED),
    ]
