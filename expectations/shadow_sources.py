"""shadow_sources: which sources the first places of a candidate come from."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import among, between, filled, rows, unique
from jobs.tables import SOURCES


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("A table that cannot be read says nothing, not that nobody was compared.", 0),
        *filled("A share is of a candidate, on a surface, of a source.", "candidate", "surface",
                "source", "share_live", "share_candidate"),
        unique("A share told twice.", "candidate", "surface", "source"),
        among("A source that names nothing here.", "source", SOURCES),
        between("A share outside 0 to 1.", "share_live", 0, 1),
        between("A share outside 0 to 1.", "share_candidate", 0, 1),
    ]  # fmt: skip
