"""replay_features: each feature as served beside the same as published."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import between, filled, rows, unique
from jobs.tables import FEATURES


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("A feature that nobody compared.", len(FEATURES), len(FEATURES)),
        *filled("What was compared, and how much of it differs.", "feature", "known", "differs",
                "missing", "constant_share", "ratio_share"),
        unique("A feature compared twice.", "feature"),
        between("A negative count is a broken count.", "known", 0),
        between("A share outside 0 to 1.", "differs", 0, 1),
        between("A share outside 0 to 1.", "missing", 0, 1),
        between("A share outside 0 to 1.", "constant_share", 0, 1),
        between("A share outside 0 to 1.", "ratio_share", 0, 1),
    ]  # fmt: skip
