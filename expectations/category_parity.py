"""category_parity: the names of categories in what was served and in the catalogues."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import among, between, filled, rows, unique
from jobs.diagnosis.parity.categories import LEVELS


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("A shop without categories has none to rename.", 0),
        *filled("A category is known by its level and its name.", "level", "category"),
        *filled("Whether it is a name of today.", "catalogue_now"),
        *filled("A rename is told by the items that it moved.", "items_moved"),
        unique("A category counted twice.", "level", "category"),
        among("A level that no category has.", "level", LEVELS),
        between("A negative count is a broken count.", "items_moved", 0),
    ]
