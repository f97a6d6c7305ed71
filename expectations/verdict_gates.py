"""verdict_gates: measurement, replay, parity, decisioning, adoption: go or no-go."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import WARNING, among, between, contains, filled, holds, rows, unique
from jobs.diagnosis.symptoms import GATES


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("A verdict without one of its gates.", len(GATES), len(GATES)),
        *filled("A gate is go or not, and says why.", "gate", "place", "go", "symptoms",
                "warnings", "evidence"),
        unique("A gate judged twice.", "gate"),
        among("A gate that the verdict does not have.", "gate", GATES),
        contains("A gate that was not judged.", "gate", GATES),
        between("Gates stand in their order.", "place", 1, len(GATES)),
        between("A negative count is a broken count.", "symptoms", 0),
        between("A negative count is a broken count.", "warnings", 0),
        holds(
            "Something is wrong: the first gate that is no-go says what to mend. The verdict is "
            "published all the same, so that people can read it.",
            "go", severity=WARNING,
        ),
    ]  # fmt: skip
