"""intervals: the hours since the night, and whether each was read in its time."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Elapsed
from expectations.rules import WARNING, among, between, filled, rows, unique
from jobs.refresh.changes import HEALED, READ

COLUMNS: dict[str, Column] = {"hours": Elapsed("started", "ended")}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("A refresh that read no hour has nothing new."),
        *filled(
            "An hour is judged by these.", "started", "ended", "state", "events", "late"
        ),
        unique("An hour twice is counted twice.", "started"),
        between("A part of more than an hour hides the hour that was missed.", "hours", 0, 1,
                above=True),
        between("An hour that has not ended at the run date.", "ended", None, as_of),
        between("A negative count is a broken count.", "events", 0),
        between("A negative count is a broken count.", "late", 0),
        among("A state that nobody knows.", "state", (READ, HEALED)),
        among(
            "Hours were not refreshed in their time: this refresh read them, but people saw lists "
            "that did not know of them.",
            "state",
            (READ,),
            severity=WARNING,
        ),
    ]  # fmt: skip
