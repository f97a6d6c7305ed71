"""feature_drift: how each input of the model moved since the reference."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import among, between, filled, rows, unique
from jobs.diagnosis.parity.drift import FEW_ROWS, MIX
from jobs.tables import FEATURES


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Without features in the log nothing can be seen to move.", 0),
        *filled("A row is of an input.", "feature"),
        *filled("What a comparison rests on.", "rows_before", "rows_after"),
        *filled("A feature that goes missing has moved.", "missing_before", "missing_after"),
        *filled("Without its chance an effect may be noise.", "p_value", "q_value"),
        *filled("Whether it moved, and whether with the season.", "drifted", "seasonal"),
        unique("An input that moved twice.", "feature"),
        among("An input that no model has.", "feature", (*FEATURES, *MIX)),
        between("Too few rows to compare.", "rows_before", FEW_ROWS),
        between("Too few rows to compare.", "rows_after", FEW_ROWS),
        between("A share outside 0 to 1.", "missing_before", 0, 1),
        between("A share outside 0 to 1.", "missing_after", 0, 1),
        between("A chance outside 0 to 1.", "p_value", 0, 1),
        between("A chance outside 0 to 1.", "q_value", 0, 1),
    ]
