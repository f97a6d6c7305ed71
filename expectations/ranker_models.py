"""ranker_models: the members of the ranker, in XGBoost's JSON."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import between, filled, rows, unique


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("A member for each half of the people, or none where the blend ranks.", 0, 2),
        *filled("A member without its trees scores nothing.", "member", "trees", "model"),
        unique("Two members of one number.", "member"),
        between("A member is numbered by the half that it is judged on.", "member", 0, 1),
        between("A member without a tree says the same of everything.", "trees", 1),
    ]
