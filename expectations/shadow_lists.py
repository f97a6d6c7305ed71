"""shadow_lists: how alike a candidate's lists are to those that served, and who gains."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import among, between, column, filled, not_below, rows, unique
from jobs.diagnosis.shadow import EVERYBODY, VERDICTS
from jobs.release.shadow import GAINS, GROUPS, LOSES


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("A table that cannot be read says nothing, not that nobody was compared.", 0),
        *filled("A comparison is of a surface and of a group of people.", "candidate", "surface",
                "group_kind", "group", "people", "buyers", "verdict"),
        unique("A comparison told twice.", "candidate", "surface", "group_kind", "group"),
        among("A verdict that the evidence cannot give.", "verdict", VERDICTS),
        *filled("Everybody's lists are alike by a number.", "overlap", "rank_biased_overlap",
                when=column("group_kind") == EVERYBODY),
        between("A share outside 0 to 1.", "overlap", 0, 1),
        between("An overlap outside 0 to 1.", "rank_biased_overlap", 0, 1),
        between("NDCG lies in 0 to 1, and a gain in -1 to 1.", "gain", -1, 1),
        not_below("An interval whose ends are crossed.", "high", "low"),
        *filled("Who gains or loses does so by a number.", "gain", "low", "high",
                when=column("verdict").is_in([GAINS, LOSES])),
        between("Nobody is in a group whose gain is told.", "buyers", 1,
                when=column("group_kind").is_in(list(GROUPS))),
    ]  # fmt: skip
