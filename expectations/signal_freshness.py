"""signal_freshness: how old the signals are that the lists will rest on."""

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


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("Nobody measured how old the signals are."),
        *filled(
            "The page and this gate read these.",
            "measure",
            "population",
            "people",
            "median",
            "p95",
            "unit",
            "gated",
        ),
        unique("A measure twice has two values.", "measure", "population"),
        contains("Freshness is judged on these.", "measure", ["drift_window", "last_event_age"]),
        between("A negative number of people is a broken count.", "people", 0),
        between("Signals from the future: a clock or a time zone is wrong.", "median", 0),
        not_below("Quantiles turned around.", "p95", "median"),
        not_below(
            "The last signal of more than half of the active people is older than behaviour "
            "stays as it was: lists would rank what people used to want. feed_freshness names "
            "the feed that is late.",
            "limit",
            "median",
        ),
        among(
            "How fast behaviour drifts was never measured on this source, or its measurement was "
            "too noisy to tell, and a default stands in: run `make staleness`, on more cuts or "
            "people where it was unclear.",
            "population",
            ["measured"],
            when=column("measure") == "drift_window",
            severity=WARNING,
        ),
    ]
