"""index_recall: recall of the index against exact search."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import WARNING, among, between, column, contains, filled, rows, unique
from jobs import limits


def suite(as_of: datetime) -> list[Expectation]:
    kind, enough = column("kind"), column("queries") >= limits.RECALL_QUERIES
    return [
        rows("An index whose recall nobody measured."),
        *filled("Recall is judged on these.", "kind", "stratum", "queries", "recall"),
        unique("A stratum measured twice.", "kind", "stratum"),
        among(
            "An unknown kind of stratum is judged by no rule.",
            "kind",
            ("overall", "age", "category", "origin"),
        ),
        contains("Recall overall and by age were not measured.", "kind", ["overall", "age"]),
        between("A negative number of queries is a broken count.", "queries", 0),
        between("Recall is a share.", "recall", 0, 1),
        between(
            "Searches miss more than they may: online lists differ from the night's.",
            "recall",
            limits.RECALL,
            when=kind == "overall",
        ),
        between(
            "New (or old) items are missed: the index no longer fits what arrives, though "
            "the overall recall looks well.",
            "recall",
            limits.RECALL_STRATUM,
            when=(kind == "age") & enough,
        ),
        between(
            "A category is found worse than the rest.",
            "recall",
            limits.RECALL_STRATUM,
            when=(kind == "category") & enough,
            severity=WARNING,
        ),
    ]
