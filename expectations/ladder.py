"""ladder: who and what a refresh makes anew, and how old everything else is."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Found
from expectations.rules import among, between, column, filled, holds, rows, unique
from jobs.refresh.ladder import DECISIONS, POOLED, TIERS

PERSON, ITEM = "person", "item"
COLUMNS: dict[str, Column] = {
    "person_known": Found(("id",), "persons", ("person_id",)),
    "item_known": Found(("id",), "items", ("item_id",)),
}


def suite(as_of: datetime) -> list[Expectation]:
    what = column("what")
    return [
        rows("Nobody is known: the night behind this refresh is empty."),
        *filled("Lists are made, or kept, by these.", "what", "id", "tier", "decision", "made"),
        unique("Two decisions on one list.", "what", "id"),
        among("Only people and items have lists of their own.", "what", (PERSON, ITEM)),
        among("A tier that nobody knows.", "tier", TIERS),
        among("A decision that nobody knows.", "decision", DECISIONS),
        among(
            "Pools stand in for people; an item's list has none.", "decision",
            [name for name in DECISIONS if name != POOLED], when=what == ITEM,
        ),
        among("Only who is dormant gets pools.", "tier", ("dormant",),
              when=column("decision") == POOLED),
        between("A list of an hour to come.", "made", None, as_of),
        holds("Lists would be made for nobody.", "person_known", when=what == PERSON),
        holds("Lists would be made for no item.", "item_known", when=what == ITEM),
    ]  # fmt: skip
