"""baseline_verdicts: the model's visits against those of what it replaced."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import WARNING, among, between, column, filled, not_below, rows, unique
from jobs.diagnosis.baseline import BETTER, EVEN, INSUFFICIENT, VERDICTS
from jobs.diagnosis.definitions import KPIS
from jobs.diagnosis.kpis.kpi_cells import ALL, SEGMENTS


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("A model that is held against nothing may be worse than what it replaced."),
        *filled("A verdict is of a part of the shop and of the agreed KPI.", "segment_kind",
                "segment", "measure"),
        *filled("A verdict says what it rests on, in words too.", "visits_model",
                "visits_baseline", "verdict", "sentence"),
        unique("A part of the shop judged twice.", "segment_kind", "segment"),
        among("A kind of segment that visits do not have.", "segment_kind", (ALL, *SEGMENTS)),
        among("A KPI that nobody can agree on.", "measure", KPIS),
        among("A verdict that nobody reads.", "verdict", VERDICTS),
        among("What the model replaced brings more: settle it by an experiment.", "verdict",
              (BETTER, EVEN, INSUFFICIENT), when=column("segment_kind") == ALL, severity=WARNING),
        between("A negative count is a broken count.", "visits_model", 0),
        between("A negative count is a broken count.", "visits_baseline", 0),
        not_below("An interval whose ends are crossed.", "high", "low"),
    ]  # fmt: skip
