"""definitions: what the team has agreed to call success."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import contains, empty, filled, rows, unique
from jobs.diagnosis.definitions import PARTS


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Nobody has said what success is.", len(PARTS)),
        *filled("A definition is a name and a value.", "name", "value"),
        unique("Two definitions of one thing.", "name"),
        empty(
            "A metrics file that contradicts itself or leaves something out is mended before "
            "anything is judged by it.",
            "fault",
            naming=("name", "fault"),
        ),
        contains("A part of the agreement is missing.", "name", PARTS),
    ]
