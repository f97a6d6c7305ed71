"""blend_evidence: the blend beside every source alone, on days that tuning did not see."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Lead
from expectations.rules import WARNING, between, column, contains, filled, not_below, rows, unique
from jobs import limits

COLUMNS: dict[str, Column] = {"lead": Lead("ndcg_at_10", "ranking")}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("The blend was not judged."),
        *filled(
            "The report and this gate read these.",
            "ranking",
            "people",
            "ndcg_at_10",
            "ndcg_low",
            "ndcg_high",
            "recall_at_20",
            "difference_low",
        ),
        unique("A ranking judged twice.", "ranking"),
        contains(
            "The blend was not tuned: too few people, and the prior weights stand.",
            "ranking",
            ["blend"],
            severity=WARNING,
        ),
        between("NDCG is between 0 and 1.", "ndcg_at_10", 0, 1),
        between("Recall is a share.", "recall_at_20", 0, 1),
        between("A negative number of people is a broken count.", "people", 0),
        not_below("An interval turned around.", "ndcg_high", "ndcg_low"),
        between(
            "The blend ranks worse than one of its sources alone: serve that source instead.",
            "lead",
            -limits.BLEND_SLACK,
            when=(column("ranking") == "blend") & (column("people") >= limits.BLEND_PEOPLE),
        ),
        between(
            "The blend is not ahead of its best source.",
            "lead",
            0,
            when=column("ranking") == "blend",
            severity=WARNING,
        ),
    ]
