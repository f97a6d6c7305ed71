"""calibration_slices: scores beside what came true, by slice and bin."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import between, filled, not_below, rows, unique


def suite(as_of: datetime) -> list[Expectation]:
    shares = ("predicted", "observed", "low", "high", "error")
    return [
        rows("Scores that are no probabilities have no curve, and the step says so.", 0),
        *filled("A point of a curve is of a slice and a bin.", "slice_kind", "slice", "bin"),
        *filled("The curve is drawn from these.", "rows", *shares),
        unique("A bin counted twice.", "slice_kind", "slice", "bin"),
        between("A bin that is not there; -1 is all of them.", "bin", -1),
        between("A share of nothing.", "rows", 1),
        *(between("A probability outside 0 to 1.", name, 0, 1) for name in shares),
        not_below("An interval that is turned round.", "high", "low"),
    ]
