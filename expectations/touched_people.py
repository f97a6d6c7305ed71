"""touched_people: whose lists a refresh makes anew."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Found
from expectations.rules import among, column, filled, holds, never, rows, unique
from jobs.refresh.changes import CAME, EVENTS, FACTS, WENT

COLUMNS: dict[str, Column] = {"known": Found(("person_id",), "persons")}


def suite(as_of: datetime) -> list[Expectation]:
    reason = column("reason")
    return [
        rows("An hour in which nobody did anything is no fault.", low=0),
        *filled("Lists are made by these.", "person_id", "reason"),
        unique("A person twice for one reason.", "person_id", "reason"),
        among("A reason that nobody knows.", "reason", (EVENTS, FACTS, CAME, WENT)),
        holds("Lists would be made for nobody.", "known", when=reason.is_in([EVENTS, FACTS, CAME])),
        never("A person that is there did not go.", "known", when=reason == WENT),
    ]
