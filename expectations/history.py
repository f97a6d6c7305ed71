"""history: events under person ids, of people who consent."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Found
from expectations.rules import among, between, filled, holds, rows, unique
from jobs.tables import EVENT_TYPES

COLUMNS: dict[str, Column] = {
    "consented": Found(("person_id",), "persons", where=(("personalised", True),)),
    "known": Found(("item_id",), "items"),
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
        holds("Events of an item that the catalogue does not know cannot be placed.", "known"),
    ]
