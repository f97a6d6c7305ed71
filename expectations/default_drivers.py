"""default_drivers: how far the score hangs on the most frequent value of each feature."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import WARNING, among, between, filled, never, rows, unique
from jobs.tables import FEATURES


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("A log without features has no default to look at.", 0),
        *filled("A value is of a feature.", "feature", "value"),
        *filled("How often it is there, and what hangs on it.", "rows", "share", "correlation"),
        *filled("The verdict and its reason are what a person reads.", "suspicious", "sentence"),
        unique("A feature looked at twice.", "feature"),
        among("A feature that the model does not have.", "feature", FEATURES),
        between("A share of nothing.", "rows", 1),
        between("A share outside 0 to 1.", "share", 0, 1),
        between("A correlation outside -1 to 1.", "correlation", -1, 1),
        never("A default has come up and decides places: see what the feature is looked up from.",
              "suspicious", naming=["feature"], severity=WARNING),
    ]  # fmt: skip
