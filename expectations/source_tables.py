"""source_tables: the source's tables as the contract check found them."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import between, column, contains, filled, holds, rows, unique


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("No table, no source: nothing can be read."),
        *filled(
            "The closing table and the lineage name the source by these.",
            "table",
            "present",
            "rows",
            "files",
            "bytes",
            "digest",
        ),
        unique("A table named twice would be read twice.", "table"),
        contains("Events are the one table that everything is learned from.", "table", ["events"]),
        holds("Without events there is no night.", "present", when=column("table") == "events"),
        between("Row counts below 0 mean that the check itself is broken.", "rows", 0),
        between(
            "Events without a row leave nothing to learn from.",
            "rows",
            1,
            when=column("table") == "events",
        ),
    ]
