"""examples: candidates of earlier cuts, and what people then bought."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import between, filled, rows, unique


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Nothing to learn from: the history is too short.", low=0),
        *filled("An example is found by these.", "person_id", "item_id", "as_of"),
        *filled("An example without its answer teaches nothing.", "bought", "label", "weight"),
        *filled("What is only judged must be told from what is learned from.", "trained"),
        unique("A candidate that counts twice.", "person_id", "item_id", "as_of"),
        between(
            "A cut that is not before the night foresees nothing.", "as_of", None, as_of, below=True
        ),
        between("A label is a purchase or less than one.", "label", 0, 1),
        between("An example of weight 0 or below is none.", "weight", 0, 1e6, above=True),
    ]
