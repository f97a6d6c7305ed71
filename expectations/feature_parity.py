"""feature_parity: each feature on two sides of training, backtest, night and serving."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import among, between, filled, rows, unique
from jobs.diagnosis.parity.parity import FEW_ROWS, PAIRS
from jobs.tables import FEATURES


def suite(as_of: datetime) -> list[Expectation]:
    shares = ("missing_left", "missing_right", "constant_share_left", "constant_share_right")
    return [
        rows("Without features in the log there is nothing to compare, which is not parity.", 0),
        *filled("A comparison is of a feature on two sides.", "feature", "pair"),
        *filled("What a comparison rests on.", "rows_left", "rows_right"),
        *filled("Missing and constant values are what parity is judged by.", *shares),
        unique("A feature compared twice would be found twice.", "feature", "pair"),
        among("A feature that no ranker has.", "feature", FEATURES),
        among("A pair of sides that nobody reads.", "pair", PAIRS),
        between("Too few rows to compare.", "rows_left", FEW_ROWS),
        between("Too few rows to compare.", "rows_right", FEW_ROWS),
        *(between("A share outside 0 to 1.", name, 0, 1) for name in shares),
    ]
