"""embedding_report: measures of the fit."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import WARNING, between, column, contains, filled, rows, unique
from jobs import limits


def suite(as_of: datetime) -> list[Expectation]:
    measure, infinite = column("measure"), 1e300
    return [
        rows("A fit without measures cannot be judged."),
        *filled("A measure without a value is unknown, not good.", "measure", "value"),
        unique("A measure twice has two values.", "measure"),
        contains(
            "The fit is judged on these.",
            "measure",
            ["coverage_items", "coverage_persons", "nonfinite", "norm_max_items"],
        ),
        between("A measure that is not a number.", "value", -infinite, infinite),
        between(
            "Items with interactions lack a vector: they are never nominated.",
            "value",
            0.999,
            when=measure == "coverage_items",
        ),
        between(
            "People with interactions lack a vector: they get no collaborative list.",
            "value",
            0.999,
            when=measure == "coverage_persons",
        ),
        between(
            "NaN in the factors spoils every ranking that they enter.",
            "value",
            0,
            0,
            when=measure == "nonfinite",
        ),
        between(
            "Norms this large mean that the fit diverged.",
            "value",
            0,
            limits.NORM,
            above=True,
            when=measure == "norm_max_items",
        ),
        between(
            "Most items moved: the space was refitted cold, and what was cached against "
            "yesterday's vectors is stale.",
            "value",
            0,
            limits.MOVED_UNUSUAL,
            when=measure == "moved_share",
            severity=WARNING,
        ),
    ]
