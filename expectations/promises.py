"""promises: what earlier releases promised beside what came true."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import WARNING, between, empty, filled, not_below, rows, unique


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Past releases may be none.", low=0),
        *filled("A row is named by these.", "released", "ranking", "slice_kind", "slice"),
        *filled(
            "The page shows these.",
            "horizon_days",
            "people",
            "realised",
            "realised_low",
            "realised_high",
            "final",
        ),
        unique("A release judged twice.", "released", "ranking", "slice_kind", "slice"),
        between(
            "A release of this night or a later one has no outcomes yet.",
            "released",
            None,
            as_of,
            below=True,
        ),
        between("Outcomes of no time are none.", "horizon_days", 0, above=True),
        between("A negative number of people is a broken count.", "people", 0),
        between("NDCG is between 0 and 1.", "realised", 0, 1),
        not_below("An interval turned around.", "realised_high", "realised_low"),
        not_below("An interval turned around.", "promised_high", "promised_low"),
        not_below("An interval turned around.", "gap_high", "gap_low"),
        empty(
            "What was promised did not come true, by more than before. pipeline: the model is "
            "as it was, so look at late feeds, split people and features; model: the model "
            "changed as well; broken: there is no release before it to compare.",
            "flag",
            naming=["released", "flag"],
            severity=WARNING,
        ),
    ]
