"""label_delays: how long events and outcomes take to arrive, by part of the shop."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import among, between, filled, not_below, rows, unique


def suite(as_of: datetime) -> list[Expectation]:
    hours = ("median_hours", "p90", "p95", "p99")
    return [
        rows("A log without both periods has no delays to compare, and says so.", 0),
        *filled("A delay is of somebody, somewhere and some time.",
                "population", "segment_kind", "segment", "period"),
        *filled("Late feeds and late labels are told by these.", "rows", *hours),
        *filled("Labels are used from this day on.", "maturity_days"),
        unique("A population counted twice.",
               "population", "segment_kind", "segment", "period"),
        among("A population that the step does not know.", "population", ("feed", "outcome")),
        among("A period that the log does not have.", "period", ("current", "reference")),
        between("A delay of nothing.", "rows", 1),
        *(between("An event that arrived before it happened.", name, 0) for name in hours),
        between("An outcome that was there before its request.", "maturity_days", 0),
        not_below("A distribution that falls.", "p90", "median_hours"),
        not_below("A distribution that falls.", "p95", "p90"),
        not_below("A distribution that falls.", "p99", "p95"),
    ]  # fmt: skip
