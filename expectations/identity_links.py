"""identity_links: the state of every link between two keys, and what became of it."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Found
from expectations.rules import WARNING, among, between, column, filled, holds, rows, unique
from jobs import limits

COLUMNS: dict[str, Column] = {
    "known_a": Found(("key_type_a", "key_a"), "identities", ("key_type", "key")),
    "known_b": Found(("key_type_b", "key_b"), "identities", ("key_type", "key")),
}
PAIR = ("key_type_a", "key_a", "key_type_b", "key_b")


def suite(as_of: datetime) -> list[Expectation]:
    admitted = column("outcome") == "admitted"
    return [
        rows("A shop without links has an empty table, not none.", low=0),
        *filled("A link without its ends or source cannot be looked up.", *PAIR, "source"),
        *filled("A link without an outcome was dropped in silence.", "outcome"),
        *filled("What was known when is cut by this.", "known_time"),
        unique("Which of two states of one link counted cannot be told.", *PAIR, "source"),
        among("An outcome that no document explains.", "outcome", limits.LINK_OUTCOMES),
        between(
            "What became known at as_of or later would leak into this night.",
            "known_time",
            None,
            as_of,
            below=True,
        ),
        *filled(
            "A null confidence is refused, so it must be rare.",
            "confidence",
            mostly=0.5,
            severity=WARNING,
        ),
        between(
            "A link that nobody can believe in merged two keys.",
            "confidence",
            0,
            1,
            when=admitted,
        ),
        holds("A merge with a key that nobody knows.", "known_a", when=admitted),
        holds("A merge with a key that nobody knows.", "known_b", when=admitted),
    ]
