"""context_lists: what everybody in a context is shown."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Found, Length
from expectations.rules import among, between, column, contains, filled, holds, never, rows, unique
from jobs.ordering.overrides import BY_RULE, PLACED_BY
from jobs.ordering.rules import IN_FORCE

COLUMNS: dict[str, Column] = {
    "named_by": Length("sources"),
    "item_known": Found(("item_id",), "items"),
    "unavailable": Found(("item_id",), "ineligible_items", where=(("kind", "availability"),)),
    "not_here": Found(
        ("item_id", "context"), "ineligible_items", ("item_id", "value"), (("kind", "region"),)
    ),
    "rule_known": Found(("rule_id",), "rules_in_force", where=(("outcome", IN_FORCE),)),
}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Nothing to show to whom nobody knows."),
        *filled("A list is read by these.", "surface", "context_kind", "context", "rank"),
        *filled("A place needs its item and its score.", "item_id", "score"),
        *filled(
            "What was shown by chance must be known, or nobody can learn from it.", "propensity"
        ),
        *filled("How an item came to its place must be answered.", "placed_by", "sources"),
        contains("Whoever is in no context gets everybody's lists.", "context_kind", ["all"]),
        unique("Two items at one place of a list.", "surface", "context_kind", "context", "rank"),
        unique("An item twice in a list.", "surface", "context_kind", "context", "item_id"),
        between("Places start at 1.", "rank", 1, 1_000),
        between("A score that is not a number sorts anywhere.", "score", -1e300, 1e300),
        between("A place that no source named.", "named_by", 1),
        between("A probability outside 0 to 1.", "propensity", 0, 1, above=True),
        among("A place held by nobody knows what.", "placed_by", PLACED_BY),
        holds(
            "A place held by a rule that is not in force.",
            "rule_known",
            when=column("placed_by") == BY_RULE,
        ),
        holds("An item that the catalogue does not know.", "item_known"),
        never("An item that nobody may get would be shown.", "unavailable"),
        never(
            "An item that is not sold in the region would be shown there.",
            "not_here",
            when=column("context_kind") == "region",
        ),
    ]
