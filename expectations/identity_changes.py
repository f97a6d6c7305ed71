"""identity_changes: every merge and split of persons, this night's and those before it."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Same
from expectations.rules import among, between, filled, never, rows
from jobs import limits

COLUMNS: dict[str, Column] = {"nowhere": Same("from_person", "to_person")}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("A night without changes has an empty table, not none.", low=0),
        *filled("Who became whom cannot be followed.", "kind", "from_person", "to_person"),
        *filled("When and why cannot be told.", "changed_at", "cause", "as_of"),
        among("A change is a merge or a split.", "kind", ("merge", "split")),
        among("A cause that no document explains.", "cause", limits.CHANGE_CAUSES),
        never("A person that became itself did not change.", "nowhere"),
        between("A change of a night to come.", "as_of", None, as_of),
        between("A change after the night that noticed it.", "changed_at", None, as_of),
    ]
