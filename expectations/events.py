"""events: what happened, one row per event."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import WARNING, among, between, filled, not_below, rows, unique
from jobs.tables import EVENT_TYPES


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Nothing can be learned from no event."),
        *filled(
            "Identities, interactions and the history join on these.",
            "event_id",
            "key_type",
            "key",
            "item_id",
            "event_type",
        ),
        *filled(
            "Recency, volume and every cut by time rest on these.",
            "event_time",
            "received_time",
            "event_date",
        ),
        *filled("Persons are named after the key that was seen first.", "first_received"),
        *filled("Corrections are told apart by it.", "revision"),
        *filled("Units bought weigh the interaction.", "quantity"),
        *filled(
            "Without money, dear and cheap purchases weigh the same.",
            "value",
            mostly=0.5,
            severity=WARNING,
        ),
        unique("A delivery counted twice doubles the weight of its item.", "event_id"),
        among(
            "A type without a weight would be dropped from the interactions.",
            "event_type",
            EVENT_TYPES,
        ),
        between(
            "Units of 0 or less are no purchase and turn weights around.", "quantity", 0, above=True
        ),
        between("Negative money makes a purchase count as a return.", "value", 0),
        between("Negative revisions lose against the original.", "revision", 0),
        between(
            "What was received at as_of or later belongs to the next night: a re-run would "
            "not give the same rows.",
            "received_time",
            None,
            as_of,
            below=True,
        ),
        not_below(
            "A first delivery after the one that counts: ids would follow corrections.",
            "received_time",
            "first_received",
        ),
        between(
            "An event from the future is the freshest signal of all, and wrong.",
            "event_time",
            None,
            as_of,
            below=True,
        ),
    ]
