"""Faults, each a pure function from a world's tables to the faulted ones.

A fault has a ``severity`` from 0 to 1 (faint up to 0.25, medium 0.5, gross 1), a ``start`` from
which it holds, and a ``scope``: the requests that it is about, by region, segment, channel or
key_type, and what else the kind can be told. What each severity means is in the docstring of the
kind's function. The kind that a diagnosis should name is the function's name.
"""

from __future__ import annotations

from collections.abc import Callable

from tools.planting.measurement import (
    broken_assignment,
    label_delay,
    late_feed,
    return_policy,
    split_persons,
)
from tools.planting.page import bypassed, clean, threshold
from tools.planting.parity import (
    concept_drift,
    covariate_drift,
    label_drift,
    leaked_feature,
    renamed_category,
)
from tools.planting.replay import default_on_timeout, lost_join, unit_change
from tools.planting.tables import WHERE, Planted, Tables

__all__ = ["KINDS", "WHERE", "Planted", "Tables", "plant"]

KINDS: dict[str, Callable[[Tables, Planted], Tables]] = {
    one.__name__: one
    for one in (
        late_feed, split_persons, label_delay, return_policy, broken_assignment, unit_change,
        default_on_timeout, lost_join, leaked_feature, renamed_category, covariate_drift,
        label_drift, concept_drift, threshold, bypassed, clean,
    )
}  # fmt: skip


def plant(tables: Tables, faults: list[Planted]) -> Tables:
    """One fault after the other."""
    for fault in faults:
        tables = KINDS[fault.kind](tables, fault)
    return tables
