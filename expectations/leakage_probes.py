"""leakage_probes: what would shine if a feature knew the future."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import among, between, filled, rows, unique
from jobs.diagnosis.parity.leakage import PROBES


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Without examples nothing can be probed.", 0),
        *filled("A probe is of a feature, or of a night.", "probe", "feature"),
        *filled("What it shows, and from where on it shines.", "value", "limit", "shines"),
        *filled("What it rests on.", "rows"),
        unique("A feature probed twice.", "probe", "feature"),
        among("A probe that nobody reads.", "probe", PROBES),
        between("A value that is not a number.", "value", -1e300, 1e300),
        between("A negative count is a broken count.", "rows", 0),
    ]
