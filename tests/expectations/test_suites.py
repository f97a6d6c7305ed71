"""Every suite passes its good table, and every expectation fails on a table broken for it."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import great_expectations.expectations as gxe
import pandas as pd
import pytest

from expectations import VIEWS
from jobs import batches, gate, io, tables
from jobs.findings import Finding, columns_of, evaluate
from tests.expectations import good

NAMES = [*tables.TABLES, *VIEWS]


@functools.cache
def folder() -> Path:
    """The good tables as Parquet folders, written once."""
    home = Path(tempfile.mkdtemp(prefix="nightjar-good-"))
    for name, rows in good.all_tables().items():
        io.write_arrow(home / name, rows)
    return home


@functools.cache
def frame(name: str) -> pd.DataFrame:
    """The good batch of a suite, as the gate would make it."""
    view = VIEWS.get(name)
    base = view.base if view else name
    module = gate.load(name)
    used = {c for e in module.suite(good.AS_OF) for c in columns_of(e)}
    names = [column for column in tables.TABLES[base].schema.names if column in used]
    derived = getattr(module, "COLUMNS", {})
    others = batches.Others(lambda other: folder() / other)
    batch = batches.Batch(folder() / base, derived, others, view.where if view else None)
    return batches.whole(batch, [*names, *derived])


def suite(name: str) -> list[Any]:
    return gate.load(name).suite(good.AS_OF)


def cases() -> Iterator[Any]:
    for name in NAMES:
        for place, expectation in enumerate(suite(name)):
            if breakable(expectation):
                columns = "-".join(dict.fromkeys(columns_of(expectation)))
                yield pytest.param(name, place, id=f"{name}-{place}-{columns}")


def breakable(expectation: Any) -> bool:
    """All but the row counts that any table passes."""
    counts_rows = isinstance(expectation, gxe.ExpectTableRowCountToBeBetween)
    return not (counts_rows and expectation.min_value == 0)


def test_each_table_has_one_suite_and_each_suite_one_table() -> None:
    home = Path(gate.__file__).parent.parent / "expectations"
    shared = {"__init__", "columns", "rules", "symptoms"}
    modules = {path.stem for path in home.glob("*.py")} - shared
    assert modules == set(tables.TABLES) | set(VIEWS)


@pytest.mark.parametrize("name", NAMES)
def test_the_good_table_is_green(name: str) -> None:
    failed = [f.sentence() for f in evaluate(name, frame(name), suite(name)) if not f.success]
    assert failed == []


@pytest.mark.parametrize(("name", "place"), list(cases()))
def test_the_table_broken_for_an_expectation_fails_it_and_no_stranger(
    name: str, place: int
) -> None:
    others = suite(name)
    expectation = others.pop(place)
    broken, touched = break_for(frame(name), expectation)
    strangers = [other for other in others if not related(other, touched)]
    own, *theirs = evaluate(name, broken, [expectation, *strangers])
    assert not own.success
    assert own.error is None
    assert [finding.sentence() for finding in theirs if not finding.success] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_expectation_says_why_and_how_grave(name: str) -> None:
    for expectation in suite(name):
        assert str(expectation.notes).endswith("."), expectation
        assert expectation.severity.value in ("critical", "warning")


@pytest.mark.parametrize("name", NAMES)
def test_a_suite_counts_rows_and_fills_every_required_column(name: str) -> None:
    found = suite(name)
    assert isinstance(found[0], gxe.ExpectTableRowCountToBeBetween)
    if name in VIEWS:
        return
    filled = {e.column for e in found if isinstance(e, gxe.ExpectColumnValuesToNotBeNull)}
    required = {field.name for field in tables.TABLES[name].schema if not field.nullable}
    if name != "events_rejected":
        assert required <= filled
    ranged = {e.column for e in found if isinstance(e, gxe.ExpectColumnValuesToBeBetween)}
    assert ranged & set(tables.TABLES[name].schema.names) <= filled


@pytest.mark.parametrize("name", [t.name for t in tables.TABLES.values() if t.key])
def test_a_suite_holds_its_table_to_its_key(name: str) -> None:
    keys = [
        set(columns_of(e))
        for e in suite(name)
        if isinstance(e, gxe.ExpectColumnValuesToBeUnique | gxe.ExpectCompoundColumnsToBeUnique)
    ]
    assert set(tables.TABLES[name].key) in keys


# --- breaking a table ------------------------------------------------------------------------
def related(other: Any, touched: set[str]) -> bool:
    """Whether breaking these columns (``*`` is the rows themselves) can fail another rule."""
    if "*" in touched:
        return True
    return bool(touched & set(columns_of(other)))


def break_for(good_frame: pd.DataFrame, rule: Any) -> tuple[pd.DataFrame, set[str]]:
    """A copy of the frame with just enough broken for one rule, and the columns touched."""
    rows = good_frame.copy()
    if isinstance(rule, gxe.ExpectTableRowCountToBeBetween):
        return rows.head(int(rule.min_value) - 1), {"*"}
    if isinstance(rule, gxe.ExpectCompoundColumnsToBeUnique):
        return put(rows, 1, {c: rows[c].iloc[0] for c in rule.column_list}), set(rule.column_list)
    if isinstance(rule, gxe.ExpectColumnPairValuesAToBeGreaterThanB):
        lower = less(rows[rule.column_B].iloc[0])
        return put(rows, 0, {rule.column_A: lower}), {rule.column_A}
    name = rule.column
    if isinstance(rule, gxe.ExpectColumnValuesToNotBeNull):
        count = len(rows) - int(len(rows) * (rule.mostly or 1.0)) + 1
        return put(rows, list(range(min(count, len(rows)))), {name: None}), {name}
    if isinstance(rule, gxe.ExpectColumnValuesToBeNull):
        return spoil(rows, rule, "said"), {name}
    if isinstance(rule, gxe.ExpectColumnValuesToBeUnique):
        return put(rows, 1, {name: rows[name].iloc[0]}), {name}
    if isinstance(rule, gxe.ExpectColumnUniqueValueCountToBeBetween):
        if rule.max_value == 1:
            first = rows[name].iloc[0]
            return put(rows, 0, {name: f"{first}x" if isinstance(first, str) else first + 1}), {
                name
            }
        kept = rows[name].drop_duplicates().head(rule.min_value - 1)
        return put(rows, slice(None), {name: kept.iloc[0]}), {name}
    if isinstance(rule, gxe.ExpectColumnDistinctValuesToContainSet):
        return rows[~rows[name].isin(rule.value_set)], {"*"}
    if isinstance(rule, gxe.ExpectColumnSumToBeBetween):
        if rule.max_value is None:
            return put(rows, slice(None), {name: 0.0}), {name}
        return put(rows, 0, {name: rule.max_value + 0.01}), {name}
    wrong = outside(rule, rows[name])
    return spoil(rows, rule, wrong), {name}


def outside(rule: Any, values: pd.Series) -> Any:
    if isinstance(rule, gxe.ExpectColumnValuesToBeInSet):
        return not rule.value_set[0] if isinstance(rule.value_set[0], bool) else "no such value"
    assert isinstance(rule, gxe.ExpectColumnValuesToBeBetween)
    if rule.min_value is None:
        end = rule.max_value
        return end if rule.strict_max else more(end)
    if rule.min_value <= -1e300:
        return float("inf")
    return rule.min_value if rule.strict_min else less(rule.min_value)


def spoil(rows: pd.DataFrame, rule: Any, wrong: Any) -> pd.DataFrame:
    """Put the wrong value where the rule looks, in more rows than it lets pass."""
    places = range(len(rows))
    condition = rule.configuration.kwargs.get("row_condition")
    if condition is not None:
        places = [n for n in places if holds(condition, rows.iloc[n])]
        assert places, "the good table has no row that the condition chooses"
    count = len(places) - int(len(places) * (rule.mostly or 1.0)) + 1
    return put(rows, list(places)[: max(count, 1)], {rule.column: wrong})


def holds(condition: dict[str, Any], row: pd.Series) -> bool:
    if "conditions" in condition:
        return all(holds(part, row) for part in condition["conditions"])
    left, right = row[condition["column"]["name"]], condition["parameter"]
    operators = {
        "==": lambda: left == right, ">=": lambda: left >= right, ">": lambda: left > right,
        "<": lambda: left < right, "IN": lambda: left in right,
    }  # fmt: skip
    return bool(operators[str(getattr(condition["operator"], "value", condition["operator"]))]())


def less(value: Any) -> Any:
    if isinstance(value, datetime):
        return value - timedelta(days=1)
    return value - (0.01 if isinstance(value, float) and 0 < abs(value) <= 1 else 1)


def more(value: Any) -> Any:
    return value + timedelta(seconds=1) if isinstance(value, datetime) else value + 1


def put(rows: pd.DataFrame, place: int | slice | list[int], values: dict[str, Any]) -> pd.DataFrame:
    """A copy with these values in a row or in some, whatever the column's type."""
    rows = rows.copy()
    for name, value in values.items():
        column = rows[name].astype("object")
        column.iloc[place] = value
        kind = rows[name].dtype
        if pd.api.types.is_integer_dtype(kind):
            kind = "float64"  # where numpy has room for a null
        rows[name] = pd.Series(column.tolist(), index=rows.index, dtype=kind)
    return rows


def test_a_sentence_says_what_failed_how_often_and_why() -> None:
    rows = put(frame("events"), 3, {"item_id": None})
    failed = [f for f in evaluate("events", rows, suite("events")) if not f.success]
    assert [f.sentence() for f in failed] == [
        "events: item_id is filled; 1 of 1,000 rows do not. "
        "Identities, interactions and the history join on these."
    ]
    assert failed[0].samples[0]["event_id"] == "e3"


def test_a_sentence_names_the_rows_where_the_rule_says_by_what() -> None:
    rows = put(frame("feed_freshness"), [0, 1], {"reason": "views are silent"})
    failed = [f for f in evaluate("feed_freshness", rows, suite("feed_freshness")) if not f.success]
    assert [f.sentence() for f in failed] == [
        "feed_freshness: reason is empty where late is False; 2 of 3 rows do not (views are "
        "silent; views are silent). A feed brings less than it did, within what the lists can bear."
    ]


def test_of_many_rows_a_sentence_names_three() -> None:
    rows = frame("promises").loc[[0] * 9].assign(flag="model")
    found = [f for f in evaluate("promises", rows, suite("promises")) if f.naming and not f.success]
    released = rows["released"].iloc[0].isoformat()
    assert f"({'; '.join([f'{released} model'] * 3)}; and 6 more)" in found[0].sentence()


def test_a_value_that_must_be_there_is_named_where_it_is_not() -> None:
    rows = frame("eligibility")
    failed = [
        f.sentence()
        for f in evaluate("eligibility", rows[rows["kind"] == "region"], suite("eligibility"))
        if not f.success
    ]
    assert failed == [
        "eligibility: kind has availability; found no availability. "
        "The rule for everybody is missing: unavailable items would be shown."
    ]


def test_an_expectation_that_cannot_be_evaluated_has_failed() -> None:
    rows = frame("events").drop(columns="value")
    findings = evaluate("events", rows, suite("events"))
    broken: list[Finding] = [f for f in findings if f.error]
    assert {f.kwargs["column"] for f in broken} == {"value"}
    assert not any(f.success for f in broken)
