"""events_rejected: quarantined rows of the source, with their reason."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import filled, rows


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("A count that cannot be read hides how much was lost.", low=0),
        *filled("Without a reason nobody can mend the export.", "reason"),
    ]
