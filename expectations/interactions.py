"""interactions: a person's net intent to buy an item."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import WARNING, between, distinct, filled, not_below, rows, unique
from jobs import limits


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Too little to learn from: lists would be anecdotes.", low=limits.HARD.interactions),
        rows(
            "Lists rest on little; the evidence's intervals are wide.",
            low=limits.SOUND.interactions,
            severity=WARNING,
        ),
        *filled("The matrix is built from these.", "person_id", "item_id", "weight"),
        *filled(
            "Candidates are explained and aged by these.",
            "purchases",
            "events",
            "first_time",
            "last_time",
        ),
        unique("A pair twice is one cell of the matrix twice.", "person_id", "item_id"),
        distinct(
            "Too few people to find what they have in common.", "person_id", limits.HARD.people
        ),
        distinct(
            "Few people: collaborative sources say little.",
            "person_id",
            limits.SOUND.people,
            severity=WARNING,
        ),
        between(
            "ALS reads the weight as a confidence, which is finite and above 0.",
            "weight",
            0,
            1e9,
            above=True,
        ),
        between("A pair without an event has no reason to be here.", "events", 1),
        between(
            "A last event at as_of or later leaks the future.", "last_time", None, as_of, below=True
        ),
        not_below("The last event comes before the first.", "last_time", "first_time"),
    ]
