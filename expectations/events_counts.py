"""events_counts: what became of every row received."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Portion
from expectations.rules import WARNING, between, filled, rows, total, unique
from jobs import limits

NO_KEY = "rejected: no_key"
COLUMNS: dict[str, Column] = {
    "kept": Portion("share", "outcome", ("kept",)),
    "late": Portion("share", "outcome", ("kept_late",)),
    "duplicates": Portion("share", "outcome", ("duplicate",)),
    "rejects": Portion("share", "outcome", ("rejected",), but=(NO_KEY,)),
    "future": Portion("share", "outcome", ("rejected: time_in_the_future",)),
    "anonymous": Portion("share", "outcome", (NO_KEY,)),
}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Without counts nobody knows what was dropped."),
        *filled("The shares below are judged on these.", "outcome", "rows", "share"),
        unique("An outcome counted twice makes the shares wrong.", "outcome"),
        between("A negative count is a broken count.", "rows", 0),
        between("A share outside 0 to 1 is a broken count.", "share", 0, 1),
        total("Rows without an outcome were dropped in silence.", "share", 0.999, 1.001),
        total(
            "A file was delivered twice: weights of its items would be right, but the export is "
            "not.",
            "duplicates",
            high=limits.DUPLICATES,
        ),
        total(
            "More repeats than a delivery's noise.",
            "duplicates",
            high=limits.NOISE,
            severity=WARNING,
        ),
        total(
            "So many impossible rows that the others cannot be trusted either.",
            "rejects",
            high=limits.REJECTS,
        ),
        total(
            "Impossible rows are quarantined in events_rejected, by reason.",
            "rejects",
            high=limits.NOISE,
            severity=WARNING,
        ),
        total(
            "A wrong clock or time zone shifts the rest of the rows as well.",
            "future",
            high=limits.FUTURE,
        ),
        total(
            "Rows from the future: a clock or a time zone of the source is wrong.",
            "future",
            high=0,
            severity=WARNING,
        ),
        total(
            "Most rows have no key: the join to the customers broke.",
            "anonymous",
            high=limits.ANONYMOUS,
        ),
        total(
            "Rows without a key teach nothing about a person.",
            "anonymous",
            high=limits.ANONYMOUS_UNUSUAL,
            severity=WARNING,
        ),
        total(
            "Late rows came after the lists that they should have shaped.",
            "late",
            high=limits.LATE_UNUSUAL,
            severity=WARNING,
        ),
        total("Nothing was kept: there is no night in this delivery.", "kept", low=0, above=True),
    ]
