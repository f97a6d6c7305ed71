"""ranker_models: the members of the ranker, in XGBoost's JSON."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import between, filled, rows, unique


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("No member where the blend ranks, and a few where not.", 0, 10),
        *filled("A member without its trees scores nothing.", "member", "trees", "model"),
        unique("Two members of one number.", "member"),
        between("Members are numbered from 0.", "member", 0, 9),
        between("A member without a tree says the same of everything.", "trees", 1),
    ]
