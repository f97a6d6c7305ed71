"""experiment_results: what each arm does against its control, and what may be said of it."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import among, between, filled, not_below, rows, unique
from jobs.diagnosis.experiments.effects import VERDICTS
from jobs.diagnosis.experiments.experiments import MEASURES
from jobs.diagnosis.kpis.kpi_cells import ALL, SEGMENTS


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("There may be no experiment.", 0),
        *filled("A result needs to be told apart from the others.", "experiment", "arm", "measure",
                "segment_kind", "segment"),
        *filled("What a result rests on.", "visits", "visitors"),
        *filled("A result is a difference of two means.", "mean_control", "mean_arm",
                "difference"),
        *filled("Which interval holds today, and what it says.", "method", "verdict"),
        unique("A result told twice.", "experiment", "arm", "measure", "segment_kind", "segment"),
        among("A measure that nobody has defined.", "measure", MEASURES),
        among("A kind of segment that visits do not have.", "segment_kind", (ALL, *SEGMENTS)),
        among("A verdict that nobody can act on.", "verdict", VERDICTS),
        between("A result without a visit.", "visits", 1),
        between("A difference needs two people.", "visitors", 2),
        between("A mean that is not a number.", "mean_control", -1e300, 1e300),
        between("A mean that is not a number.", "mean_arm", -1e300, 1e300),
        between("A difference that is not a number.", "difference", -1e300, 1e300),
        not_below("An interval whose ends are crossed.", "high", "low"),
        not_below("An interval whose ends are crossed.", "always_high", "always_low"),
    ]  # fmt: skip
