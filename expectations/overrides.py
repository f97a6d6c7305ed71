"""overrides: what each rule and ordering stage changed of the model's lists."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import WARNING, among, between, column, contains, filled, rows, unique
from jobs import limits
from jobs.ordering.overrides import ALL, STAGE
from jobs.ordering.rules import KINDS

ADVICE = (
    "The business overrides the model: see the rules with the largest shares, and move what they "
    "want into the objective (a boost, a pin) or into the filters (a ban, a margin floor, a cap)."
)


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("What rules changed that nobody counted."),
        *filled("A change needs its cause and its size.", "surface", "kind", "cause", "slots"),
        *filled("The gate judges by these.", "share", "value_lost", "value_share"),
        unique("A cause counted twice.", "surface", "kind", "cause"),
        among("A cause that nobody can act on.", "kind", (*KINDS, STAGE, ALL)),
        contains("The rate of all rules together is missing.", "kind", [ALL]),
        between("A negative count is a broken count.", "slots", 0),
        between("A share outside 0 to 1.", "share", 0, 1),
        between("A value that is not a number.", "value_lost", -1e300, 1e300),
        between("A value that is not a number.", "value_share", -1e300, 1e300),
        between(
            ADVICE,
            "share",
            None,
            limits.OVERRIDE_UNUSUAL,
            when=column("kind") == ALL,
            severity=WARNING,
        ),
        between(ADVICE, "share", None, limits.OVERRIDE, when=column("kind") == ALL),
    ]
