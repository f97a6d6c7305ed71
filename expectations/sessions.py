"""sessions: what a person did in one go, across channels and keys."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Elapsed, Found
from expectations.rules import WARNING, between, filled, holds, not_below, rows, unique
from jobs import limits

COLUMNS: dict[str, Column] = {
    "hours": Elapsed("started", "ended"),
    "consented": Found(("person_id",), "persons", where=(("personalised", True),)),
}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Events without a session: the stitching is broken."),
        *filled("The history names its sessions and their persons by these.", "session"),
        *filled("Whose session it was.", "person_id"),
        *filled("Length and recency rest on these.", "started", "ended"),
        *filled(
            "What happened in the session.", "events", "items", "purchases", "value", "by_login"
        ),
        *filled("Across which keys and channels it went.", "keys", "channels"),
        unique("A session twice counts its events for both.", "session"),
        not_below(
            "A session that ends before it starts has a negative length.", "ended", "started"
        ),
        between(
            "A session that goes on at as_of or later leaks the future.",
            "ended",
            None,
            as_of,
            below=True,
        ),
        between(
            "Nobody shops so long without a pause: many sessions like this mean that pauses are no "
            "longer seen, so that anonymous events go to whoever logged in days later.",
            "hours",
            0,
            limits.SESSION_HOURS,
            mostly=1 - limits.SESSIONS_TOO_LONG,
        ),
        between(
            "Nobody shops so long without a pause: look for a shared till or a script.",
            "hours",
            0,
            limits.SESSION_HOURS,
            severity=WARNING,
        ),
        between("A session without an event did not take place.", "events", 1),
        between("Every event has an item.", "items", 1),
        between("Every event has a key.", "keys", 1),
        between("Purchases below 0 are a broken count.", "purchases", 0),
        between("Negative money is not what purchases cost.", "value", 0),
        between("Events given by a login below 0 are a broken count.", "by_login", 0),
        not_below(
            "More purchases than events: purchases are counted twice.", "events", "purchases"
        ),
        not_below("More events by login than events.", "events", "by_login"),
        holds("Sessions of a person without consent to personalisation.", "consented"),
    ]
