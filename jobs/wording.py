"""Expectations and their findings in the words of a person."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

# Rows are chosen by these and by "and" alone.
OPERATORS = {
    "==": "is", ">=": "is at least", ">": "is above", "<=": "is at most", "<": "is below",
    "IN": "is one of",
}  # fmt: skip


def in_words(kind: str, kwargs: Mapping[str, Any]) -> str:
    """An expectation as a person would say it."""
    name = kwargs.get("column", "")
    said = {
        "expect_table_row_count_to_be_between": f"has {_range(kwargs)} rows",
        "expect_column_values_to_not_be_null": f"{name} is filled",
        "expect_column_values_to_be_null": f"{name} is empty",
        "expect_column_values_to_be_unique": f"{name} is unique",
        "expect_compound_columns_to_be_unique": (
            f"({', '.join(kwargs.get('column_list', ()))}) is unique"
        ),
        "expect_column_values_to_be_between": f"{name} is {_range(kwargs)}",
        "expect_column_values_to_be_in_set": _in_set(name, kwargs),
        "expect_column_distinct_values_to_contain_set": (
            f"{name} has {_listed(kwargs.get('value_set', ()))}"
        ),
        "expect_column_unique_value_count_to_be_between": (
            f"{name} has {_range(kwargs)} different values"
        ),
        "expect_column_sum_to_be_between": f"the sum of {name} is {_range(kwargs)}",
        "expect_column_pair_values_a_to_be_greater_than_b": (
            f"{kwargs.get('column_A')} is not below {kwargs.get('column_B')}"
        ),
    }.get(kind, kind.removeprefix("expect_").replace("_", " "))
    if kwargs.get("mostly", 1.0) < 1.0:
        said += f" in {kwargs['mostly']:.0%} of the rows or more"
    condition = kwargs.get("row_condition")
    return f"{said} where {_condition(condition)}" if condition else said


def _range(kwargs: Mapping[str, Any]) -> str:
    low, high = _number(kwargs.get("min_value")), _number(kwargs.get("max_value"))
    lower = "above" if kwargs.get("strict_min") else "at least"
    upper = "below" if kwargs.get("strict_max") else "at most"
    if low is None:
        return f"{upper} {high}"
    if high is None:
        return f"{lower} {low}"
    return low if low == high else f"{lower} {low} and {upper} {high}"


def _number(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M} UTC"
    return f"{value:,g}" if abs(value) < 1e6 else f"{value:g}"


def _in_set(name: str, kwargs: Mapping[str, Any]) -> str:
    values = list(kwargs.get("value_set", ()))
    if values == [True]:
        return f"{name} holds"
    if values == [False]:
        return f"{name} does not hold"
    return f"{name} is one of {_listed(values)}"


def _listed(values: Any) -> str:
    return ", ".join(str(value) for value in values)


def _condition(condition: Any) -> str:
    if not isinstance(condition, Mapping):
        return str(condition)
    if "conditions" in condition:
        return " and ".join(_condition(part) for part in condition["conditions"])
    said = OPERATORS.get(str(condition["operator"]).upper(), str(condition["operator"]))
    parameter = condition.get("parameter", "")
    shown = _listed(parameter) if isinstance(parameter, list | tuple) else parameter
    return f"{condition['column']['name']} {said} {shown}"
