"""history: events under person ids and in sessions, of people who consent."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Found
from expectations.rules import WARNING, among, between, filled, holds, rows, unique
from jobs import limits
from jobs.tables import EVENT_TYPES

COLUMNS: dict[str, Column] = {
    "consented": Found(("person_id",), "persons", where=(("personalised", True),)),
    "stitched": Found(("session",), "sessions"),
}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Nobody who consents did anything: nothing can be learned."),
        *filled(
            "Every candidate source reads these.",
            "event_id",
            "person_id",
            "item_id",
            "event_type",
            "basket",
        ),
        *filled(
            "Recency and every cut by time rest on these.",
            "event_time",
            "received_time",
            "event_date",
        ),
        *filled("Units bought weigh the interaction.", "quantity"),
        *filled("What a session holds is counted by these.", "session", "key_type", "key"),
        *filled("Whether a key or a login says whose event it was.", "resolved_by"),
        unique("An event counted twice doubles its weight.", "event_id"),
        among(
            "A type without a weight would be dropped from the interactions.",
            "event_type",
            EVENT_TYPES,
        ),
        between("Units of 0 or less turn weights around.", "quantity", 0, above=True),
        between(
            "What was received at as_of or later would leak the future into tuning.",
            "received_time",
            None,
            as_of,
            below=True,
        ),
        holds(
            "Events of a person without consent to personalisation train the model.", "consented"
        ),
        holds("Events of a session that has no row.", "stitched"),
        among("Only a key or a login says whose event it was.", "resolved_by", ("key", "login")),
        among(
            "Most events find their person by a login alone: the links between keys are broken, or "
            "one client session holds everybody.",
            "resolved_by",
            ("key",),
            mostly=1 - limits.BY_LOGIN,
        ),
        among(
            "Many events find their person by a login alone: look for links that are missing or "
            "quarantined.",
            "resolved_by",
            ("key",),
            mostly=1 - limits.BY_LOGIN_UNUSUAL,
            severity=WARNING,
        ),
    ]
