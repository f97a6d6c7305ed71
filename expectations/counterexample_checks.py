"""counterexample_checks: what the newest release makes of earlier counterexamples."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import WARNING, among, between, filled, rows, unique
from jobs.diagnosis.decisions.counterexamples import REGRESSED


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Without an earlier case or a release nothing is scored again.", 0),
        *filled("Which case was scored by which release.", "release_id", "case", "found",
                "checked_release"),
        *filled("What was promised, what came, and what the release says now.", "predicted",
                "observed", "new_score", "place", "still_wrong", "regressed"),
        unique("A case scored twice.", "release_id", "case"),
        between("A case of a run that is still to come.", "found", None, as_of, below=True),
        between("An outcome came or did not.", "observed", 0, 1),
        between("A score that is not a number.", "predicted", -1e300, 1e300),
        between("A score that is not a number.", "new_score", -1e300, 1e300),
        between("A share outside 0 to 1.", "place", 0, 1),
        among("The newest release is wrong on cases that the one before had right: compare both.",
              "regressed", [False], mostly=1 - REGRESSED, naming=["release_id", "case"],
              severity=WARNING),
    ]  # fmt: skip
