"""calibration: from the published ranking's score to the log odds of a purchase."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import between, filled, rows, unique


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Scores of a ranking that nothing could judge are no probabilities.", low=0),
        *filled("A knot has two ends and a weight.", "score", "logit", "rows"),
        unique("Two levels at one score.", "score"),
        between("A score that is not a number.", "score", -1e6, 1e6),
        between("Log odds beyond 30 are certainties that nobody can have seen.", "logit", -30, 30),
        between("A level that nobody was seen at.", "rows", 1),
    ]
