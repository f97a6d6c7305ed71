"""kpis: what the business sees, for the whole and for each part of it."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import (
    WARNING,
    among,
    between,
    column,
    contains,
    filled,
    not_below,
    rows,
    unique,
)
from jobs.diagnosis.kpis.kpi_cells import ALL, GROUP_KINDS, PERIODS, SEGMENTS
from jobs.diagnosis.kpis.kpis import OF_REQUESTS, OF_VISITS, SHARES


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("A day without a number is a day that nobody can judge."),
        *filled("A number needs to be told apart from the others.", "group_kind", "group",
                "segment_kind", "segment", "period", "measure"),
        *filled("A number, and the visits that it rests on.", "value", "visits"),
        unique("A number counted twice.", "group_kind", "group", "segment_kind", "segment",
               "period", "measure"),
        among("A kind of group that the page does not draw.", "group_kind", GROUP_KINDS),
        among("A kind of segment that visits do not have.", "segment_kind", (ALL, *SEGMENTS)),
        among("A period that nothing is held against.", "period", PERIODS),
        among("A measure that nobody has defined.", "measure", (*OF_REQUESTS, *OF_VISITS)),
        contains("The current period is missing: the log may have stopped.", "period",
                 ["current"]),
        contains("There is nothing to hold the current period against; it is told by itself.",
                 "period", ["reference"], WARNING),
        between("A number that cannot be.", "value", -1e300, 1e300),
        *(between("A share outside 0 to 1.", "value", 0, 1, when=column("measure") == name)
          for name in SHARES),
        between("A number that rests on no visit.", "visits", 1),
        not_below("An interval whose ends are crossed.", "high", "low"),
    ]  # fmt: skip
