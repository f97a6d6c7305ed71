"""reliability: what was foretold beside what came, by tenths of the judged candidates."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import WARNING, between, filled, not_below, rows, unique
from jobs import limits


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Nothing could be judged.", low=0),
        *filled("A tenth needs its counts.", "bin", "rows"),
        *filled("What was foretold and what came.", "predicted", "bought", "off"),
        *filled("A share without its interval.", "bought_low", "bought_high"),
        unique("A tenth counted twice.", "bin"),
        between("There are ten tenths.", "bin", 1, 10),
        between("An empty tenth.", "rows", 1),
        between("A probability is between 0 and 1.", "predicted", 0, 1),
        between("A share is between 0 and 1.", "bought", 0, 1),
        between(
            "Probabilities are off: thresholds and expected values computed from them mislead.",
            "off",
            -limits.CALIBRATION_OFF,
            limits.CALIBRATION_OFF,
            severity=WARNING,
        ),
        not_below("An interval turned around.", "bought_high", "bought_low"),
    ]
