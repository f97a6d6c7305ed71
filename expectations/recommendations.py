"""recommendations: what each person is shown."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Forbidden, Found, Length
from expectations.rules import among, between, column, filled, holds, never, rows, unique
from jobs.ordering.overrides import BY_RULE, PLACED_BY
from jobs.ordering.rules import IN_FORCE

COLUMNS: dict[str, Column] = {
    "named_by": Length("sources"),
    "person_known": Found(("person_id",), "persons"),
    "item_known": Found(("item_id",), "items"),
    "unavailable": Found(("item_id",), "ineligible_items", where=(("kind", "availability"),)),
    "forbidden": Forbidden(),
    "blocked": Found(("person_id", "item_id"), "blocked_pairs"),
    "rule_known": Found(("rule_id",), "rules_in_force", where=(("outcome", IN_FORCE),)),
}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("An empty release."),
        *filled("A list is read by these.", "surface", "person_id", "rank", "item_id"),
        *filled("A place without a score cannot be re-ranked.", "score"),
        *filled("Without its sources a place cannot be explained.", "sources", "provenance"),
        *filled(
            "What was shown by chance must be known, or nobody can learn from it.", "propensity"
        ),
        *filled("How an item came to its place must be answered.", "placed_by"),
        unique("Two items at one place of a list.", "surface", "person_id", "rank"),
        unique("An item twice in a list.", "surface", "person_id", "item_id"),
        between("Places start at 1.", "rank", 1, 1_000),
        between("A score that is not a number sorts anywhere.", "score", -1e300, 1e300),
        between("A place that no source named.", "named_by", 1),
        between("A probability outside 0 to 1.", "propensity", 0, 1, above=True),
        between(
            "A place that nothing was drawn for was shown for certain.",
            "propensity",
            1,
            when=column("placed_by").is_in([name for name in PLACED_BY if name != "explore"]),
        ),
        among("A place held by nobody knows what.", "placed_by", PLACED_BY),
        holds(
            "A place held by a rule that is not in force.",
            "rule_known",
            when=column("placed_by") == BY_RULE,
        ),
        holds("A list of a person that nobody knows.", "person_known"),
        holds("An item that the catalogue does not know.", "item_known"),
        never(
            "An item that nobody may get, such as a recalled one, would be shown.", "unavailable"
        ),
        never(
            "An item that this person may not get, by region or restriction, would be shown.",
            "forbidden",
        ),
        never(
            "An item that this person returned, rejected or just bought would be shown.", "blocked"
        ),
    ]
