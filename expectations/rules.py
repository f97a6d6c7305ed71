"""Short names for the expectations that the suites are made of."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import great_expectations.expectations as gxe
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity as Severity
from great_expectations.expectations.row_conditions import Column, Condition

CRITICAL, WARNING = Severity.CRITICAL, Severity.WARNING
column = Column  # ``when=column("rank") > 1`` limits a rule to some rows


def rows(
    notes: str, low: int = 1, high: int | None = None, severity: Severity = CRITICAL
) -> Expectation:
    """The table has ``low`` to ``high`` rows."""
    return gxe.ExpectTableRowCountToBeBetween(
        min_value=low, max_value=high, notes=notes, severity=severity
    )


def filled(
    notes: str,
    *columns: str,
    mostly: float = 1.0,
    when: Condition | None = None,
    severity: Severity = CRITICAL,
) -> list[Expectation]:
    """No row lacks a value, column by column."""
    return [
        gxe.ExpectColumnValuesToNotBeNull(
            column=name, mostly=mostly, notes=notes, severity=severity, **_limited(when)
        )
        for name in columns
    ]


def empty(
    notes: str,
    name: str,
    *,
    when: Condition | None = None,
    naming: Iterable[str] = (),
    severity: Severity = CRITICAL,
) -> Expectation:
    """No row has a value; the sentence names those that do by the columns ``naming``."""
    return gxe.ExpectColumnValuesToBeNull(
        column=name, notes=notes, severity=severity, meta={"naming": list(naming)},
        **_limited(when),
    )  # fmt: skip


def unique(
    notes: str, *columns: str, when: Condition | None = None, severity: Severity = CRITICAL
) -> Expectation:
    """No two rows share the values of these columns; ``when`` limits it to some rows, and takes
    one column."""
    if len(columns) == 1:
        return gxe.ExpectColumnValuesToBeUnique(
            column=columns[0], notes=notes, severity=severity, **_limited(when)
        )
    return gxe.ExpectCompoundColumnsToBeUnique(
        column_list=list(columns), notes=notes, severity=severity
    )


def between(
    notes: str,
    name: str,
    low: float | datetime | None = None,
    high: float | datetime | None = None,
    *,
    above: bool = False,
    below: bool = False,
    mostly: float = 1.0,
    when: Condition | None = None,
    severity: Severity = CRITICAL,
) -> Expectation:
    """Every value lies in the range; ``above`` and ``below`` leave its ends out."""
    return gxe.ExpectColumnValuesToBeBetween(
        column=name, min_value=low, max_value=high, strict_min=above, strict_max=below,
        mostly=mostly, notes=notes, severity=severity, **_limited(when),
    )  # fmt: skip


def among(
    notes: str,
    name: str,
    values: Iterable[Any],
    *,
    mostly: float = 1.0,
    when: Condition | None = None,
    naming: Iterable[str] = (),
    severity: Severity = CRITICAL,
) -> Expectation:
    """Every value is one of these; the sentence names the rest by the columns ``naming``."""
    return gxe.ExpectColumnValuesToBeInSet(
        column=name, value_set=list(values), mostly=mostly, notes=notes, severity=severity,
        meta={"naming": list(naming)}, **_limited(when),
    )  # fmt: skip


def holds(
    notes: str,
    name: str,
    *,
    mostly: float = 1.0,
    when: Condition | None = None,
    severity: Severity = CRITICAL,
) -> Expectation:
    """The boolean column is true."""
    return among(notes, name, [True], mostly=mostly, when=when, severity=severity)


def never(
    notes: str,
    name: str,
    *,
    when: Condition | None = None,
    naming: Iterable[str] = (),
    severity: Severity = CRITICAL,
) -> Expectation:
    """The boolean column is false."""
    return among(notes, name, [False], when=when, naming=naming, severity=severity)


def contains(
    notes: str, name: str, values: Iterable[Any], severity: Severity = CRITICAL
) -> Expectation:
    """Each of these values is in some row."""
    return gxe.ExpectColumnDistinctValuesToContainSet(
        column=name, value_set=list(values), notes=notes, severity=severity
    )


def distinct(
    notes: str, name: str, low: int, high: int | None = None, severity: Severity = CRITICAL
) -> Expectation:
    """The column has this many different values."""
    return gxe.ExpectColumnUniqueValueCountToBeBetween(
        column=name, min_value=low, max_value=high, notes=notes, severity=severity
    )


def vectors(key: str, one: str, none: str, low: int = 1) -> list[Expectation]:
    """A table of vectors, one for each ``key``, with the columns ``length`` and ``finite``: of one
    length and of numbers, ``low`` rows at least; ``one``: what a vector is of, ``none``: what it
    means that there is none."""
    return [
        rows(none, low),
        *filled("Vectors are found by it.", key),
        *filled("A missing vector scores nothing.", "vector"),
        unique(f"Two vectors of one {one}: which one is served is chance.", key),
        distinct("Vectors of several lengths cannot be multiplied.", "length", low, 1),
        between("A vector without an entry scores everything 0.", "length", 1),
        holds("A NaN or an infinity in one vector spoils every ranking that it enters.", "finite"),
    ]


def total(
    notes: str,
    name: str,
    low: float | None = None,
    high: float | None = None,
    severity: Severity = CRITICAL,
    *,
    above: bool = False,
) -> Expectation:
    """The column's sum lies in the range."""
    return gxe.ExpectColumnSumToBeBetween(
        column=name, min_value=low, max_value=high, strict_min=above, notes=notes,
        severity=severity,
    )  # fmt: skip


def not_below(notes: str, greater: str, smaller: str, severity: Severity = CRITICAL) -> Expectation:
    """In every row with both, ``greater`` is at least ``smaller``."""
    return gxe.ExpectColumnPairValuesAToBeGreaterThanB(
        column_A=greater, column_B=smaller, or_equal=True,
        ignore_row_if="either_value_is_missing", notes=notes, severity=severity,
    )  # fmt: skip


def _limited(when: Condition | None) -> dict[str, Any]:
    return {} if when is None else {"row_condition": when, "condition_parser": "great_expectations"}
