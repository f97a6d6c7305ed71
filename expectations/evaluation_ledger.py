"""evaluation_ledger: a row per release that ever served, or was a candidate."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import WARNING, between, filled, rows, total, unique


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("No release and no candidate is known to this lake.", 1, severity=WARNING),
        total("No release that served is known to this lake.", "requests", 1, severity=WARNING),
        *filled("Which release, and when it was judged last.", "release_id", "judged_at",
                "requests", "verdict"),
        unique("A release that stands twice in the ledger.", "release_id"),
        between("A negative count is a broken count.", "requests", 0),
    ]  # fmt: skip
