"""pools: lists that many people share."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.columns import Column, Found
from expectations.rules import among, between, contains, filled, holds, rows, unique
from jobs.tables import SOURCES

COLUMNS: dict[str, Column] = {"known": Found(("item_id",), "items")}


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows(
            "Without pools, people without history get nothing, and a stale release has no "
            "fallback."
        ),
        *filled(
            "A place needs its list, its number and its item.",
            "source",
            "context_kind",
            "context",
            "rank",
            "item_id",
            "score",
        ),
        unique("Two items at one place of a pool.", "source", "context_kind", "context", "rank"),
        between("Places start at 1.", "rank", 1),
        among("An unknown source has no weight and would be dropped.", "source", SOURCES),
        contains("The popular pool is the last fallback.", "source", ["popular"]),
        between("A score that is not a number sorts anywhere.", "score", -1e300, 1e300),
        holds("An item that the catalogue does not know cannot be filtered.", "known"),
    ]
