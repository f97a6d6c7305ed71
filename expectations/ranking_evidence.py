"""ranking_evidence: what is published beside every source, on days after those it learned from."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Lead
from expectations.rules import WARNING, between, column, contains, filled, not_below, rows, unique
from jobs import limits

COLUMNS: dict[str, Column] = {"lead": Lead("ndcg_at_10", "ranking")}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Nothing was judged."),
        *filled(
            "The report and this gate read these.",
            "ranking",
            "published",
            "people",
            "ndcg_at_10",
            "ndcg_low",
            "ndcg_high",
            "recall_at_20",
            "new_ndcg_at_10",
            "difference_low",
        ),
        unique("A ranking judged twice.", "ranking"),
        contains(
            "Nothing was tuned: too few people, and the prior weights stand.",
            "ranking",
            ["blend"],
            severity=WARNING,
        ),
        contains(
            "No ranker was trained: too few people at the newest cut, and the blend ranks.",
            "ranking",
            ["ranker"],
            severity=WARNING,
        ),
        contains("No ranking is published.", "published", [True]),
        between("NDCG is between 0 and 1.", "ndcg_at_10", 0, 1),
        between("NDCG is between 0 and 1.", "new_ndcg_at_10", 0, 1),
        between("Recall is a share.", "recall_at_20", 0, 1),
        between("A negative number of people is a broken count.", "people", 0),
        not_below("An interval turned around.", "ndcg_high", "ndcg_low"),
        between(
            "What is published ranks worse than one source alone: serve that source instead.",
            "lead",
            -limits.RANKING_SLACK,
            when=(column("published") == True) & (column("people") >= limits.RANKING_PEOPLE),  # noqa: E712
        ),
        between(
            "What is published is not ahead of the best source.",
            "lead",
            0,
            when=column("published") == True,  # noqa: E712
            severity=WARNING,
        ),
    ]
