"""counterexamples: places where the release was most wrong, to run later releases against."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import WARNING, between, filled, rows, unique
from jobs.diagnosis.decisions.counterexamples import MISSED, PROMISED


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("More cases than a person, or the next run, can look at.", 0, PROMISED + MISSED),
        *filled("A case must be found again in the log.", "release_id", "case", "surface",
                "position", "item_id", "category"),
        *filled("A case is what was promised and what came.", "predicted", "observed"),
        *filled("A person reads why.", "why"),
        *filled("The models of most cases are gone from the lake: nothing says what drove scores.",
                "top_features", mostly=0.5, severity=WARNING),
        unique("A case kept twice.", "release_id", "case"),
        between("A place that no answer has.", "position", 1),
        between("A score that is not a number.", "predicted", -1e300, 1e300),
        between("An outcome came or did not.", "observed", 0, 1),
    ]  # fmt: skip
