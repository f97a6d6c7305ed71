"""The gate behind every step: judge what is staged, keep the evidence, publish or stop.

Only this module publishes. It checks that the staged tables have the declared columns, then that
every expectation of their suites holds (``expectations/``, a module per table, loaded by name).
What it found is written to the lake's ``evidence/`` before anything else happens. Where a critical
expectation fails, or could not be evaluated, nothing is published and yesterday's tables and
release go on serving.
"""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from expectations import VIEWS
from jobs import batches, io, tables
from jobs.batches import Batch
from jobs.errors import Fault, GateRed
from jobs.findings import SAMPLE_ROWS, Finding, short
from jobs.findings import judge as judge_batch
from jobs.night import Night

if TYPE_CHECKING:
    from expectations.columns import Column

log = logging.getLogger("nightjar")
GREEN, WARNING, RED = "green", "warning", "red"


def judge(night: Night) -> None:
    """Judge a step's staged output; publish it unless red.

    Raises ``Fault`` where there is nothing of this run to judge, and ``GateRed`` with a line per
    failed critical expectation.
    """
    started = time.monotonic()
    manifest = _staged_manifest(night)
    found = schema_findings(night)
    if not found:
        for name in suites_of(night.step):
            found += judge_table(night, name)
        found += _judge_release(night)
    verdict = verdict_of(found)
    path = night.lake.evidence(night.step, night.as_of, night.run_id)
    seconds = round(time.monotonic() - started, 2)
    io.write_json(path, _evidence(night, verdict, found, seconds))
    warnings = [f.sentence() for f in found if not f.success and f.severity != "critical"]
    for warning in warnings:
        log.warning("gate=%s warning=%s", night.step, warning)
    log.info(
        "gate=%s verdict=%s expectations=%d seconds=%.2f", night.step, verdict, len(found), seconds
    )
    if verdict == RED:
        raise GateRed(_refusal(night, found, path))
    manifest["gate"] = {
        "verdict": verdict,
        "warnings": warnings,
        "evidence": str(path.relative_to(night.lake.root)),
        "expectations": len(found),
        "seconds": seconds,
    }
    io.write_json(night.staged / "manifest.json", manifest)
    _publish(night)


def suites_of(step: str) -> list[str]:
    """The names of a step's suites: its tables, then its views."""
    views = [name for name, view in VIEWS.items() if view.step == step]
    return [table.name for table in tables.of_step(step)] + views


def load(name: str) -> ModuleType:
    """The module with a table's suite; raises ``Fault`` where a table has none."""
    try:
        return importlib.import_module(f"expectations.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"expectations.{name}":
            raise
        raise Fault(
            f"{name}: no suite judges this table; write expectations/{name}.py, since what nobody "
            "judges is not published"
        ) from None


def verdict_of(found: list[Finding]) -> str:
    """red, warning or green."""
    failed = {finding.severity for finding in found if not finding.success}
    if "critical" in failed:
        return RED
    return WARNING if failed else GREEN


# --- the schema ------------------------------------------------------------------------------
def schema_findings(night: Night) -> list[Finding]:
    """A finding per staged table that is missing, unreadable or not as declared."""
    found = []
    for table in tables.of_step(night.step):
        faults = _schema_faults(night, table)
        if faults:
            found.append(
                Finding(
                    table.name,
                    "schema",
                    "has the columns declared in jobs/tables",
                    {},
                    "critical",
                    "Whoever reads the table would fail, or misread it.",
                    False,
                    observed="; ".join(faults),
                )
            )
    return found


def _schema_faults(night: Night, table: tables.Table) -> list[str]:
    folder = night.staged / table.name
    files = io.parquet_files(folder) if folder.is_dir() else []
    if not files:
        return [f"{table.name} has no Parquet file"]
    faults: dict[str, None] = {}
    for path in files:
        try:
            schema = pq.read_schema(path)
        except (pa.ArrowException, OSError) as error:
            faults[f"{path.name} cannot be read ({error})"] = None
        else:
            faults.update(dict.fromkeys(io.check_schema(table, schema)))
    return list(faults)


# --- the expectations ------------------------------------------------------------------------
def judge_table(night: Night, name: str) -> list[Finding]:
    """A finding per expectation of one suite, evaluated on its table or view."""
    module = load(name)
    batch = _batch(night, name, getattr(module, "COLUMNS", {}))
    if batch is None:
        return []
    return judge_batch(name, batch, module.suite(night.as_of))


def _batch(night: Night, name: str, derived: Mapping[str, Column]) -> Batch | None:
    located = batches.locate(night)
    others = batches.Others(located)
    if name not in VIEWS:
        return Batch(night.staged / name, derived, others)
    view = VIEWS[name]
    if view.previous:
        before = night.previous(tables.TABLES[view.base].step)
        return Batch(before.table(view.base), derived, others, view.where) if before else None
    return Batch(located(view.base), derived, others, view.where)


# --- verdict and publishing ------------------------------------------------------------------
def _staged_manifest(night: Night) -> dict[str, Any]:
    path = night.staged / "manifest.json"
    if not path.is_file():
        raise Fault(
            f"{night.step}: nothing finished is staged in {night.staged} (no manifest.json: the "
            "job was killed, or did not run); run the step again, then its gate"
        )
    manifest = io.read_json(path)
    if manifest["run_id"] != night.run_id:
        raise Fault(
            f"{night.step}: what is staged comes from the run {manifest['run_id']}, not from "
            f"{night.run_id}; run the step again, then its gate"
        )
    return manifest


def _judge_release(night: Night) -> list[Finding]:
    """What the release's own check says, as findings."""
    if night.step != "release":
        return []
    from jobs.release import release

    faults = release.verify(night)
    return [
        Finding(
            "release",
            "release_verify",
            "is whole and holds nothing that it must not",
            {},
            "critical",
            "Serving would read a broken release.",
            not faults,
            observed="; ".join(short(fault) for fault in faults[:SAMPLE_ROWS]) or "verified",
        )
    ]


def _publish(night: Night) -> None:
    if night.step == "release":
        from jobs.release import release

        release.publish(night)
    night.lake.publish(night.step, night.as_of, night.run_id)


def _evidence(night: Night, verdict: str, found: list[Finding], seconds: float) -> dict[str, Any]:
    return {
        "step": night.step,
        "as_of": night.as_of.isoformat(),
        "run_id": night.run_id,
        "verdict": verdict,
        "seconds": seconds,
        "tables": {
            table.name: io.count_rows(night.staged / table.name)
            for table in tables.of_step(night.step)
            if not any(f.table == table.name and f.type == "schema" for f in found)
        },
        "expectations": [vars(finding) for finding in found],
    }


def _refusal(night: Night, found: list[Finding], path: Path) -> str:
    failed = [f.sentence() for f in found if not f.success and f.severity == "critical"]
    lines = "\n".join(f"  - {sentence}" for sentence in failed)
    return (
        f"{night.step} as of {io.label(night.as_of)}: {len(failed)} critical "
        f"expectation{'s' if len(failed) > 1 else ''} failed, nothing was published and what was "
        f"published before still serves\n{lines}\n"
        f"  evidence with sample rows: {path}\n"
        f"  the rows themselves: {night.staged}\n"
        "  mend the cause and run the step again, then its gate"
    )
