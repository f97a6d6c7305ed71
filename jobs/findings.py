"""What expectations find in a batch: Great Expectations' engine, asked as cheaply as can be.

A table of up to ``batches.CHUNK_ROWS`` rows is one frame for the whole suite. A greater one is
looked at by :func:`judge` in as many frames as it takes, and the results are those of one frame.
"""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from jobs import batches, witnesses
from jobs.batches import Batch
from jobs.wording import in_words

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation

SAMPLE_ROWS = 20
NAMED_ROWS = 3
LONGEST_TEXT = 200
LONGEST_LIST = 8
# Rules that hold the keys of all rows apart.
UNIQUE = ("expect_column_values_to_be_unique", "expect_compound_columns_to_be_unique")
# Keys of all rows that may be held at once, of 8 bytes each: 512 megabytes.
MOST_HASHES = 64_000_000
# The form of a result that says how many rows, and which.
COUNTED = {
    "result_format": "BASIC",
    "include_unexpected_rows": True,
    "partial_unexpected_count": SAMPLE_ROWS,
}


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


def judge(name: str, batch: Batch, expectations: list[Expectation]) -> list[Finding]:
    """Evaluate a suite on a table of any size; the findings keep the suite's order.

    Rules about single rows are asked of the few rows that show whether they hold, or of one chunk
    after the other; uniqueness of the rows whose values, as integers, come twice; and whatever else
    of whole columns.
    """
    if batch.rows <= batches.CHUNK_ROWS:
        return evaluate(name, batches.whole(batch, _used(expectations)), expectations)
    numbered = _numbered(expectations)
    unique = [e for e in numbered if e.configuration.type in UNIQUE]
    # Under a condition they are asked of whole columns.
    apart = [e for e in unique if not e.configuration.kwargs.get("row_condition")]
    by_chunk = [e for e in numbered if e not in unique and _by_chunk(e, batch)]
    by_row = [e for e in by_chunk if _is_row_rule(e)]
    results, several = _at_one_look(batch, [e for e in by_chunk if _has_witnesses(e)], apart)
    asked = {*results, *map(_place, [*apart, *by_row])}
    rest = [e for e in numbered if _place(e) not in asked]
    # Failing rows are shown by all columns; a row count needs none of them.
    names = _used(expectations if any(map(_is_row_rule, rest)) else rest)
    results |= _asked(batches.whole(batch, names) if names else batches.counted(batch), rest)
    for expectation in apart:
        keys, place = columns_of(expectation), _place(expectation)
        rows = batches.repeated(batch, keys, _used(expectations), several.get(place))
        results |= _asked(rows, [expectation])
        results[place].result["element_count"] = batch.rows
    shown = _used(e for e in expectations if _by_chunk(e, batch))
    results |= _by_chunks(batch, by_row, results, shown)
    return [_finding(name, e, results[_place(e)]) for e in numbered]


def _at_one_look(
    batch: Batch, expectations: list[Expectation], unique: list[Expectation]
) -> tuple[dict[int, Any], dict[int, np.ndarray]]:
    """By place, the results of the rules that some rows show to hold or not, and for ``unique``
    which hashes of keys come twice. A rule that takes too many rows has no result, and there are no
    hashes where a chunk's memory is too small for those of all."""
    if batch.rows * len(unique) > MOST_HASHES:
        unique = []
    hashes = {_place(e): batches.Hashes(columns_of(e), batch.rows) for e in unique}
    rules = {_place(e): (e.configuration.type, columns_of(e)) for e in expectations}
    valued = [used[1:] if kind in witnesses.PRESENCE else used for kind, used in rules.values()]
    names, keys = _used([*expectations, *unique]), _used(unique)
    presence = set(names).difference(keys, *valued)
    kept = []
    for chunk in batches.coded(batch, names, presence) if names else ():
        for one in hashes.values():
            one.add(chunk)
        rows = witnesses.Rows(chunk)
        found = {place: witnesses.of(*rule, rows) for place, rule in rules.items()}
        rules = {place: rule for place, rule in rules.items() if found[place] is not None}
        kept.append(chunk.take(witnesses.union(found[place] for place in rules)))
    shown = [e for e in expectations if _place(e) in rules]
    several = {place: one.repeated() for place, one in hashes.items()}
    return _held(batches.frame_of(kept), shown) if shown else {}, several


def _has_witnesses(expectation: Expectation) -> bool:
    kwargs = expectation.configuration.kwargs
    return expectation.configuration.type in witnesses.KINDS and kwargs.get("mostly", 1.0) == 1


def evaluate(name: str, frame: pd.DataFrame, expectations: list[Expectation]) -> list[Finding]:
    """Evaluate a suite on one frame; the findings keep the suite's order."""
    numbered = _numbered(expectations)
    results = _asked(frame, numbered)
    return [_finding(name, e, results[_place(e)]) for e in numbered]


def _asked(frame: pd.DataFrame, expectations: list[Expectation]) -> dict[int, Any]:
    """Aggregates are asked for their value, row rules first only whether they hold: counts and
    rows are computed for the failed ones alone."""
    validator = _validator(frame)
    results = _held(frame, expectations)
    by_row = [e for e in expectations if _is_row_rule(e)]
    failed = [e for e in by_row if not results[_place(e)].success]
    return results | _validate(validator, failed, COUNTED)


def _held(frame: pd.DataFrame, expectations: list[Expectation]) -> dict[int, Any]:
    """The values of aggregates, and whether row rules hold. Those under a condition look at their
    own columns alone, since the rows that meet it are copied for each of them."""
    aggregates = [e for e in expectations if not _is_row_rule(e)]
    under = [e for e in expectations if e.configuration.kwargs.get("row_condition")]
    plain = [e for e in expectations if e not in under and e not in aggregates]
    validator = _validator(frame)
    results = _validate(validator, aggregates, "BASIC")
    results |= _validate(validator, plain, "BOOLEAN_ONLY")
    if under:
        results |= _validate(_validator(frame[_used(under)]), under, "BOOLEAN_ONLY")
    return results


@dataclass
class Tally:
    """The results of a row rule on several frames, as one."""

    success: bool = True
    result: dict[str, Any] = field(default_factory=dict)
    exception_info: Any = None

    def add(self, result: Any, mostly: float) -> None:
        """Count a frame in."""
        facts = result.result or {}
        if "unexpected_count" not in facts:
            self.success, self.exception_info = False, self.exception_info or result.exception_info
            return
        for name in ("element_count", "missing_count", "unexpected_count"):
            self.result[name] = self.result.get(name, 0) + facts.get(name, 0)
        rows = self.result.setdefault("unexpected_rows", [])
        rows += _samples(facts.get("unexpected_rows"))[: SAMPLE_ROWS - len(rows)]
        asked = self.result["element_count"] - self.result["missing_count"]
        held = asked - self.result["unexpected_count"]
        self.success = self.exception_info is None and held >= mostly * asked


def _by_chunks(
    batch: Batch, expectations: list[Expectation], known: Mapping[int, Any], shown: list[str]
) -> dict[int, Any]:
    """Row rules on every chunk: whether those hold of which that is not ``known``. What may fail in
    some rows is counted at once, the others where some row breaks them; ``shown``: the columns of
    the rows kept as samples."""
    mostly = {_place(e): e.configuration.kwargs.get("mostly", 1.0) for e in expectations}
    asked = [e for e in expectations if _place(e) not in known]
    strict = [e for e in asked if mostly[_place(e)] == 1]
    loose = [e for e in asked if mostly[_place(e)] != 1]
    results = {_place(e): known[_place(e)] for e in expectations if _place(e) in known}
    tallies = {_place(e): Tally() for e in loose}
    for frame in batches.chunks(batch, _used(asked)) if asked else ():
        results |= _held(frame, strict)
        strict = [e for e in strict if results[_place(e)].success]
        for place, result in _validate(_validator(frame), loose, COUNTED).items():
            tallies[place].add(result, mostly[place])
    # Rows are looked at again for what failed alone, to count them and to show some.
    failed = [e for e in expectations if not (results | tallies)[_place(e)].success]
    tallies |= {_place(e): Tally() for e in failed}
    for frame in batches.chunks(batch, shown) if failed else ():
        for place, result in _validate(_validator(frame), failed, COUNTED).items():
            tallies[place].add(result, mostly[place])
    return results | tallies


def _by_chunk(expectation: Expectation, batch: Batch) -> bool:
    derived = [batch.derived.get(name) for name in columns_of(expectation)]
    return not any(getattr(column, "of_all_rows", False) for column in derived)


def _numbered(expectations: Iterable[Expectation]) -> list[Expectation]:
    return [
        expectation.copy(update={"meta": {**(expectation.meta or {}), "place": place}})
        for place, expectation in enumerate(expectations)
    ]


def _used(expectations: Iterable[Expectation]) -> list[str]:
    """The columns that expectations look at, in the order in which they are first named."""
    return list(dict.fromkeys(name for e in expectations for name in columns_of(e)))


def _validator(frame: pd.DataFrame) -> Any:
    """Great Expectations' validator on a frame.

    Its engine is used directly: a pandas batch of a data context is hashed first, which took
    5 s on 1.3 M events whose whole suite took 1.
    """
    context = _context()
    from great_expectations.execution_engine import PandasExecutionEngine
    from great_expectations.validator.validator import Validator

    engine = PandasExecutionEngine()
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
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
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
    return short(str(value))


def short(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
