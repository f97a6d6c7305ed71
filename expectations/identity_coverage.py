"""identity_coverage: how many people are still several persons, and what it costs."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import (
    WARNING,
    among,
    between,
    column,
    contains,
    filled,
    not_below,
    rows,
    unique,
)
from jobs import limits


def suite(as_of: datetime) -> list[Expectation]:
    after = column("stage") == "after merging"
    split = (column("population") == "active persons") & after & (column("by") == "any")
    return [
        rows("Nobody looked whether people are split."),
        *filled(
            "The page and this gate read these.",
            "population",
            "stage",
            "total",
            "split",
            "share",
            "by",
        ),
        unique("A share measured twice.", "population", "stage", "by"),
        among(
            "An unknown population is judged by no rule.",
            "population",
            ("persons", "active persons", "revenue", "groups"),
        ),
        among(
            "An unknown stage is judged by no rule.", "stage", ("before merging", "after merging")
        ),
        contains("Coverage is judged on what is split for any reason.", "by", ["any"]),
        between("A share outside 0 to 1 is a broken count.", "share", 0, 1),
        between("A negative part is a broken count.", "split", 0),
        between("A negative whole is a broken count.", "total", 0),
        not_below("A part larger than its whole is a broken count.", "total", "split"),
        between(
            "Links that were admitted tie keys of different persons: identities and "
            "identity_links contradict each other.",
            "split",
            0,
            0,
            when=after & (column("by") == "exact"),
        ),
        between(
            "Many active people are several persons: each list ranks a part of what they did. "
            "Look at which reason holds most of them; a guess needs a better link, a conflict "
            "or a cap a look at the shared key.",
            "share",
            0,
            limits.SPLIT_UNUSUAL,
            when=split,
            severity=WARNING,
        ),
        between(
            "Most active people are several persons: merging did not happen, and lists rank "
            "fragments.",
            "share",
            0,
            limits.SPLIT_GROSS,
            when=split & (column("total") >= limits.SPLIT_PERSONS),
        ),
        between(
            "Most money is spent by people without an account: what they did before is lost "
            "with each cookie.",
            "share",
            0,
            limits.ANONYMOUS_REVENUE,
            when=(column("population") == "revenue") & after & (column("by") == "anonymous"),
            severity=WARNING,
        ),
    ]
