"""slice_evidence: what each ranking reached among kinds of people, which is what is promised."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import between, filled, not_below, rows, unique


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Where nothing was judged, no slice was.", low=0),
        *filled(
            "Promises are held to these.",
            "ranking",
            "slice_kind",
            "slice",
            "people",
            "ndcg_at_10",
            "ndcg_low",
            "ndcg_high",
        ),
        unique("A slice judged twice.", "ranking", "slice_kind", "slice"),
        between("A slice of nobody was not judged.", "people", 1),
        between("NDCG is between 0 and 1.", "ndcg_at_10", 0, 1),
        not_below("An interval turned around.", "ndcg_high", "ndcg_low"),
    ]
