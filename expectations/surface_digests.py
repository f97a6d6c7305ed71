"""surface_digests: what lists are configured by, and where that changed since the base."""

from __future__ import annotations

from datetime import datetime

from great_expectations.expectations.expectation import Expectation

from expectations.rules import WARNING, among, filled, rows, unique
from jobs.ordering.surfaces import CADENCES, GRAINS


def suite(as_of: datetime) -> list[Expectation]:
    return [
        rows("No surface has lists."),
        *filled("A change is found by these.", "surface", "grain", "cadence", "digest", "changed"),
        unique("A surface twice.", "surface"),
        among("A grain that nobody knows.", "grain", GRAINS),
        among("A cadence that nobody knows.", "cadence", CADENCES),
        among(
            "The configuration changed between two nights: all lists of the surface are made anew, "
            "which takes as long as in a night.",
            "changed",
            (False,),
            severity=WARNING,
        ),
    ]
