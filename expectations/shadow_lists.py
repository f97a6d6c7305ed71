"""shadow_lists: how alike a candidate's lists are to those that served, and who gains."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import among, between, column, filled, not_below, unique
from jobs.diagnosis.shadow import EVERYBODY, UNKNOWN, VERDICTS


def suite(as_of: datetime) -> list[Expectation]:
    return [
        *filled("A comparison is of a surface and of a group of people.", "candidate", "surface",
                "group_kind", "group", "people", "buyers", "verdict"),
        unique("A comparison told twice.", "candidate", "surface", "group_kind", "group"),
        among("A verdict that the evidence cannot give.", "verdict", VERDICTS),
        between("A share outside 0 to 1.", "overlap", 0, 1),
        between("An overlap outside 0 to 1.", "rank_biased_overlap", 0, 1),
        between("NDCG lies in 0 to 1, and a gain in -1 to 1.", "gain", -1, 1),
        not_below("An interval whose ends are crossed.", "high", "low"),
        *filled("Who gains or loses does so by a number.", "gain", "low", "high",
                when=column("verdict") != UNKNOWN),
        between("Nobody is in a group whose gain is told.", "buyers", 1,
                when=column("group_kind") != EVERYBODY),
    ]  # fmt: skip
