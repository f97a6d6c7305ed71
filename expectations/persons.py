"""persons: whom the night knows, with consent and region."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import WARNING, between, filled, holds, rows, unique
from jobs import limits


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("No person, nobody to recommend to."),
        *filled("Lists, factors and filters join on it.", "person_id"),
        *filled("Household features join on it.", "household_id"),
        *filled("Without a word on consent a person must not be personalised.", "personalised"),
        *filled("A null would let restricted items through.", "restrictions"),
        *filled("Merges are judged by it.", "keys"),
        unique("A person twice gets two lists.", "person_id"),
        between(
            "So many keys are a call centre, a test account or a wrong merge: one person's "
            "purchases would shape another's list.",
            "keys",
            1,
            limits.KEYS_IMPOSSIBLE,
        ),
        between(
            "A person with unusually many keys; look for a shared device.",
            "keys",
            1,
            limits.KEYS_UNUSUAL,
            severity=WARNING,
        ),
        holds(
            "Most people refuse personalisation: the consent feed may be broken.",
            "personalised",
            mostly=0.5,
            severity=WARNING,
        ),
    ]
