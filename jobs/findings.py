"""What expectations find in a frame: Great Expectations' engines, asked as cheaply as can be."""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from jobs.wording import in_words

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

SAMPLE_ROWS = 20
NAMED_ROWS = 3
LONGEST_TEXT = 200
LONGEST_LIST = 8


@dataclass
class Finding:
    """What one expectation found in one table."""

    table: str
    type: str
    words: str
    kwargs: dict[str, Any]
    severity: str
    notes: str
    success: bool
    observed: Any = None
    rows: int | None = None
    failing: int | None = None
    samples: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    naming: list[str] = field(default_factory=list)

    def sentence(self) -> str:
        """The failure in one line; rows are named where the rule says by which columns."""
        if self.error:
            how = f"could not be evaluated ({self.error})"
        elif self.failing is not None:
            how = f"{self.failing:,} of {self.rows or 0:,} rows do not{self._named()}"
        else:
            how = f"found {self.observed}"
        return f"{self.table}: {self.words}; {how}. {self.notes}"

    def _named(self) -> str:
        if not (self.naming and self.samples):
            return ""
        values = [[row.get(name) for name in self.naming] for row in self.samples[:NAMED_ROWS]]
        names = [" ".join(str(v) or "''" for v in row if v is not None) for row in values]
        more = (self.failing or 0) - len(names)
        return f" ({'; '.join(names)}{f'; and {more:,} more' if more > 0 else ''})"


def evaluate(name: str, frame: Any, expectations: list[Expectation]) -> list[Finding]:
    """Evaluate a suite on a pandas or a Spark frame; the findings keep the suite's order.

    Aggregates are asked for their value, row rules first only whether they hold: counts and rows
    are computed for the failed ones alone.
    """
    validator = _validator(frame)
    numbered = [
        expectation.copy(update={"meta": {**(expectation.meta or {}), "place": place}})
        for place, expectation in enumerate(expectations)
    ]
    by_row = [e for e in numbered if _is_row_rule(e)]
    results = _validate(validator, [e for e in numbered if not _is_row_rule(e)], "BASIC")
    results |= _validate(validator, by_row, "BOOLEAN_ONLY")
    failed = [e for e in by_row if not results[_place(e)].success]
    results |= _validate(
        validator,
        failed,
        {
            "result_format": "BASIC",
            "include_unexpected_rows": True,
            "partial_unexpected_count": SAMPLE_ROWS,
        },
    )
    return [_finding(name, e, results[_place(e)]) for e in numbered]


def _validator(frame: Any) -> Any:
    """Great Expectations' validator on a frame.

    Its engines are used directly: a pandas batch of a data context is hashed first, which took
    5 s on 1.3 M events whose whole suite took 1.
    """
    context = _context()
    import pandas as pd
    from great_expectations.execution_engine import PandasExecutionEngine, SparkDFExecutionEngine
    from great_expectations.validator.validator import Validator

    if isinstance(frame, pd.DataFrame):
        engine: Any = PandasExecutionEngine()
    else:
        engine = SparkDFExecutionEngine(spark=frame.sparkSession, persist=False)
    engine.load_batch_data("staged", frame)
    return Validator(execution_engine=engine, data_context=context)


@functools.cache
def _context() -> Any:
    """A context that keeps nothing, reports to nobody and draws no progress bars."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    # This one sets its own level, and tells of a folder that is gone again.
    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    return context


def _validate(validator: Any, expectations: list[Expectation], form: Any) -> dict[int, Any]:
    if not expectations:
        return {}
    results = validator.graph_validate(
        configurations=[expectation.configuration for expectation in expectations],
        runtime_configuration={"result_format": form, "catch_exceptions": True},
    )
    return {result.expectation_config.meta["place"]: result for result in results}


def _place(expectation: Expectation) -> int:
    return (expectation.meta or {})["place"]


def _is_row_rule(expectation: Expectation) -> bool:
    from great_expectations.expectations.expectation import (
        ColumnMapExpectation,
        ColumnPairMapExpectation,
        MulticolumnMapExpectation,
    )

    kinds = (ColumnMapExpectation, ColumnPairMapExpectation, MulticolumnMapExpectation)
    return isinstance(expectation, kinds)


def columns_of(expectation: Expectation) -> list[str]:
    """The columns that an expectation looks at, its row condition's included."""
    kwargs = expectation.configuration.kwargs
    names = [kwargs.get(key) for key in ("column", "column_A", "column_B")]
    names += list(kwargs.get("column_list") or ())
    names += _condition_columns(kwargs.get("row_condition"))
    return [str(name) for name in names if name]


def _condition_columns(condition: Any) -> list[str]:
    if not isinstance(condition, Mapping):
        return []
    names = [condition["column"]["name"]] if "column" in condition else []
    for part in condition.get("conditions", ()):
        names += _condition_columns(part)
    return names


def _finding(name: str, expectation: Expectation, result: Any) -> Finding:
    kwargs = {
        key: value
        for key, value in expectation.configuration.kwargs.items()
        if value is not None and key not in ("condition_parser", "ignore_row_if", "batch_id")
    }
    severity = getattr(expectation.severity, "value", expectation.severity)
    facts = result.result or {}
    counted = "unexpected_count" in facts
    return Finding(
        table=name,
        type=expectation.configuration.type,
        words=in_words(expectation.configuration.type, kwargs),
        kwargs=_plain(kwargs),
        severity=str(severity),
        notes=str(expectation.notes or ""),
        success=bool(result.success),
        observed=_observed(facts),
        rows=facts.get("element_count"),
        failing=facts["unexpected_count"] if counted else None,
        samples=_samples(facts.get("unexpected_rows")),
        error=None if result.success else _error(result.exception_info),
        naming=list((expectation.meta or {}).get("naming", ())),
    )


def _observed(facts: Mapping[str, Any]) -> Any:
    missing = facts.get("partial_missing_list")
    if missing:
        return f"no {', '.join(str(value) for value in missing)}"
    return _plain(facts.get("observed_value"))


def _error(info: Any) -> str | None:
    """The first line of what went wrong inside Great Expectations, if anything did."""
    if not info:
        return None
    entries = [info] if "raised_exception" in info else list(info.values())
    raised = [entry for entry in entries if entry.get("raised_exception")]
    if not raised:
        return None
    text = raised[0].get("exception_message") or ""
    if not text:
        lines = str(raised[0].get("exception_traceback") or "no message").strip().splitlines()
        text = lines[-1]
    return short(text.strip().splitlines()[0] if text.strip() else "no message")


def _samples(unexpected: Any) -> list[dict[str, Any]]:
    if unexpected is None:
        return []
    if hasattr(unexpected, "to_dict"):
        unexpected = unexpected.head(SAMPLE_ROWS).to_dict("records")
    return [
        {str(name): _plain(value) for name, value in row.items()}
        for row in unexpected[:SAMPLE_ROWS]
    ]


def _plain(value: Any) -> Any:
    """A value as JSON can hold it, long ones cut."""
    if hasattr(value, "to_json_dict"):
        value = value.to_json_dict()
    if hasattr(value, "item") and not isinstance(value, datetime | date):
        value = value.item() if getattr(value, "ndim", 0) == 0 else list(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in list(value.items())[:LONGEST_LIST]}
    if isinstance(value, list | tuple | set):
        entries = [_plain(entry) for entry in list(value)[:LONGEST_LIST]]
        return [*entries, "…"] if len(value) > LONGEST_LIST else entries
    if str(value) in ("<NA>", "NaT"):
        return None
    return short(str(value))


def short(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
