"""A rule fails in a table where it fails in one of the few rows that show it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import witnesses

NULL_RULES = ("expect_column_values_to_not_be_null", "expect_column_values_to_be_null")
RANGE = "expect_column_values_to_be_between"
SET = "expect_column_values_to_be_in_set"
DISTINCT = "expect_column_unique_value_count_to_be_between"

ROW = st.fixed_dictionaries({
    "number": st.none() | st.floats(-3, 3) | st.sampled_from([math.nan, math.inf, -math.inf]),
    "place": st.none() | st.integers(-2, 2),
    "text": st.none() | st.sampled_from(["", "a", "b", "☃"]),
    "flag": st.none() | st.booleans(),
    "when": st.none() | st.sampled_from(["x", "y"]),
    "kind": st.none() | st.integers(0, 1),
})  # fmt: skip
SCHEMA = pa.schema({
    "number": pa.float64(), "place": pa.int32(), "text": pa.string(), "flag": pa.bool_(),
    "when": pa.string(), "kind": pa.int32(),
})  # fmt: skip
UNDER = st.sampled_from([(), ("when",), ("when", "kind"), ("flag",)])


def table(rows: list[dict[str, Any]]) -> pa.Table:
    """The rows as a gate sees a chunk: texts coded, each column in one piece."""
    found = pa.Table.from_pylist(rows, SCHEMA)
    coded = [pa.field(f.name, coded_type(f.type)) for f in SCHEMA]
    return found.cast(pa.schema(coded)).combine_chunks()


def coded_type(kind: pa.DataType) -> pa.DataType:
    return pa.dictionary(pa.int32(), kind) if pa.types.is_string(kind) else kind


def shown(rows: list[dict[str, Any]], kind: str, *names: str) -> list[dict[str, Any]]:
    found = witnesses.of(kind, names, witnesses.Rows(table(rows)))
    assert found is not None
    return [rows[place] for place in found]


def missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def met(rows: list[dict[str, Any]], column: str, under: tuple[str, ...]) -> dict[Any, list[Any]]:
    """The column's values by those of the condition's columns."""
    found: dict[Any, list[Any]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in under), []).append(row[column])
    return found


@given(st.lists(ROW), st.sampled_from([*SCHEMA.names]), UNDER, st.sampled_from(NULL_RULES))
def test_presence_is_shown_under_every_condition(rows, column, under, kind) -> None:
    one, all_of_them = (
        met(shown(rows, kind, column, *under), column, under),
        met(rows, column, under),
    )
    for group, values in all_of_them.items():
        assert {*map(missing, one[group])} == {*map(missing, values)}


@given(st.lists(ROW), st.sampled_from(["number", "place"]), UNDER)
def test_the_ends_of_a_range_are_shown_under_every_condition(rows, column, under) -> None:
    one, all_of_them = (
        met(shown(rows, RANGE, column, *under), column, under),
        met(rows, column, under),
    )
    for group, values in all_of_them.items():
        known = [value for value in values if not missing(value)]
        if known:
            found = [value for value in one[group] if not missing(value)]
            assert (min(found), max(found)) == (min(known), max(known))


@given(
    st.lists(ROW),
    st.sampled_from(["text", "flag", "place"]),
    UNDER,
    st.sampled_from([SET, DISTINCT]),
)
def test_each_value_is_shown_under_every_condition(rows, column, under, kind) -> None:
    one, all_of_them = (
        met(shown(rows, kind, column, *under), column, under),
        met(rows, column, under),
    )
    assert {group: {*values} for group, values in one.items()} == {
        group: {*values} for group, values in all_of_them.items()
    }


def test_times_are_ordered_and_their_gaps_are_none() -> None:
    times = pa.table({"at": pa.array([5, None, -7, 9, 5], pa.timestamp("us", "UTC"))})
    found = witnesses.of(RANGE, ["at"], witnesses.Rows(times))
    assert found is not None
    assert {2, 3} <= {*found.tolist()}
    assert 1 not in found


@pytest.mark.parametrize("names", [["text"], ["flag", "text"], ["number", "text"]])
def test_a_rule_that_too_many_rows_show_is_shown_by_none(names) -> None:
    count = witnesses.MOST_VALUES + 1
    rows = pa.table({
        "text": [str(n) for n in range(count)], "flag": [True] * count,
        "number": np.arange(count, dtype=float),
    })  # fmt: skip
    assert witnesses.of(SET if len(names) == 1 else RANGE, names, witnesses.Rows(rows)) is None


def test_lists_are_shown_by_no_rows() -> None:
    assert witnesses.of(SET, ["lists"], witnesses.Rows(pa.table({"lists": [[1], [2]]}))) is None
