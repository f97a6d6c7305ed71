"""policy_rows: which logged rows other policies can be judged by, and why others not."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import among, between, filled, rows, unique
from jobs.diagnosis.policies.policies import OUTCOMES


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("What is left out without a count is averaged away.", 0),
        *filled("A count needs its cause and its size.", "surface", "outcome", "rows", "share"),
        unique("A cause counted twice.", "surface", "outcome"),
        among("A cause that nobody can act on.", "outcome", OUTCOMES),
        between("A negative count is a broken count.", "rows", 0),
        between("A share outside 0 to 1.", "share", 0, 1),
    ]
