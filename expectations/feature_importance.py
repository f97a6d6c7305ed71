"""feature_importance: what the published ranker looks at."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import among, between, filled, rows, unique
from jobs.tables import FEATURES


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Features that cannot be told apart.", low=len(FEATURES)),
        *filled("A feature without its share.", "feature", "gain"),
        unique("A feature counted twice.", "feature"),
        among("A feature that is not measured.", "feature", FEATURES),
        between("A share is between 0 and 1.", "gain", 0, 1),
    ]
