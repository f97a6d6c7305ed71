"""served: what the log says was shown, and what came of it."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import among, between, filled, rows, unique

PERIODS = ("current", "reference", "last_year")


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Nothing was served that could be judged."),
        *filled("A place is of a request, at a moment.", "request_id", "position", "request_time",
                "day", "period", "mature", "surface"),
        *filled("Outcomes are told of visitors, by what is known of them.", "visitor", "key_type",
                "key", "region", "segment", "tenure", "channel"),
        *filled("What was shown, from which release.", "item_id", "category", "release_id",
                "published"),
        *filled("Every place has an outcome, none is one too.", "clicked", "bought", "value",
                "returned"),
        unique("A place of an answer counted twice.", "request_id", "position"),
        among("A period that nothing is held against.", "period", PERIODS),
        between("Places start at 1.", "position", 1),
        between("What was served before its run date.", "request_time", None, as_of, below=True),
        between("Money that is less than nothing.", "value", 0),
    ]  # fmt: skip
