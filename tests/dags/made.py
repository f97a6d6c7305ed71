"""What runs leave in a lake, made by hand: published verdicts, the evidence of a red gate."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pyarrow as pa

from jobs import io
from jobs.diagnosis import symptoms, verdict
from jobs.diagnosis.symptoms import Symptom
from jobs.findings import Finding
from jobs.io import Lake
from jobs.tables import TABLES


def symptom(kind: str, subject: str, *, step: str = "kpis", warning: bool = False) -> Any:
    """A row of ``verdict_symptoms`` without its place."""
    one = Symptom(kind, subject, 0.5, 0.2, 2.5, 900, f"{subject} is off by half.", None, warning)
    return {"step": step, **symptoms.table([one]).to_pylist()[0]}


def publish_verdict(lake: Lake, label: str, *found: dict[str, Any], run_id: str = "one") -> None:
    """Publish what ``verdict`` would make of these symptoms."""
    as_of = io.parse_as_of(label)
    ordered = verdict.in_order(list(found))
    rows = {
        "verdict_symptoms": ordered, "verdict_gates": verdict.judged(ordered),
        "evaluation_ledger": [],
    }  # fmt: skip
    staged = lake.staged("verdict", as_of)
    for name, kept in rows.items():
        io.write_arrow(staged / name, pa.Table.from_pylist(kept, TABLES[name].schema))
    io.write_json(staged / "manifest.json", {"run_id": run_id, "source": "shop"})
    lake.publish("verdict", as_of, run_id)


def red_gate(lake: Lake, label: str, step: str, run_id: str, words: str) -> None:
    """The evidence of a gate with one failed expectation."""
    finding = asdict(
        Finding(step, "rows", words, {}, "critical", "Nothing could be learned.", False, "0")
    )
    as_of = io.parse_as_of(label)
    evidence = {
        "step": step, "as_of": as_of.isoformat(), "run_id": run_id, "verdict": "red",
        "seconds": 0.1, "tables": {}, "expectations": [finding],
    }  # fmt: skip
    io.write_json(lake.evidence(step, as_of, run_id), evidence)
