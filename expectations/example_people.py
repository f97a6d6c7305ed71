"""example_people: who was asked at each cut."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import between, filled, rows, unique


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Nothing to learn from: the history is too short.", low=0),
        *filled("Lists are judged by these.", "person_id", "as_of"),
        *filled("Without these no list can be ideal.", "wanted", "wanted_new"),
        *filled("Slices of the promise are cut by this.", "events"),
        unique("A person asked twice at a cut.", "person_id", "as_of"),
        between(
            "A cut that is not before the night foresees nothing.", "as_of", None, as_of, below=True
        ),
        between("Who bought nothing was not to be asked.", "wanted", 1),
        between("A negative count is a broken count.", "wanted_new", 0),
        between("A negative count is a broken count.", "events", 0),
    ]
