"""What went wrong in a run, as people are told of it, and what they were told already.

Reads the evidence and the verdict that a run left in the lake. Writes ``alerts/<dag>.json``: by
incident when each channel was told of it.

An *incident* is a DAG and what failed first in it: the first red gate, the first symptom of each of
the verdict's gates that is not go, or a task. It is told once: again only after a run without it,
or where it still stands a week later.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from jobs import io, steps
from jobs.diagnosis import verdicts
from jobs.diagnosis.verdicts import Verdict
from jobs.findings import Finding
from jobs.io import Lake

# A week, less what a daily run may end earlier than the one before it did.
AGAIN = timedelta(days=7) - timedelta(hours=1)
SENTENCES = 3  # of a red gate's; its evidence holds them all


@dataclass(frozen=True)
class Incident:
    """``key`` tells incidents of a DAG apart; ``text``: what happened, why and what to do;
    ``verdict``: the verdict's name, empty where the run has none; ``page``: its page."""

    key: str
    text: str
    verdict: str = ""
    page: Path | None = None


def first(lake: Lake, label: str, run_id: str) -> Incident | None:
    """What failed first in a run: its first red gate, else its verdict. None where neither did."""
    for step in steps.EVERY:
        found = of_gate(lake, label, run_id, step)
        if found:
            return found
    return of_verdict(_verdict(lake, label, run_id))


def of_diagnosis(lake: Lake, label: str, run_id: str) -> list[Incident]:
    """Everything to be told of a run's verdict: its first symptom, that of every other gate that
    is not go, lest a fault that stands hides a new one, and what fell suddenly."""
    verdict = _verdict(lake, label, run_id)
    if verdict is None:
        return []
    worst = of_verdict(verdict)
    found = {worst.key: worst} if worst else {}
    for row in (*verdict.first_of_gates(), *verdict.drops()):
        one = _of_row(verdict, row)
        # A drop may be a gate's first symptom, and is then one incident.
        found.setdefault(one.key, one)
    return list(found.values())


def of_gate(lake: Lake, label: str, run_id: str, step: str) -> Incident | None:
    """The incident of a step whose gate was red in this run."""
    path = lake.evidence(step, io.parse_as_of(label), run_id)
    try:
        evidence = io.read_json(path)
    except FileNotFoundError:
        return None
    if evidence["verdict"] != "red":
        return None
    failed = [
        Finding(**one).sentence()
        for one in evidence["expectations"]
        if not one["success"] and one["severity"] == "critical"
    ]
    more = len(failed) - SENTENCES
    said = failed[:SENTENCES] + ([f"And {more} more."] if more > 0 else [])
    return Incident(
        f"gate:{step}",
        f"The gate of {step} is red, and nothing of it was published. {' '.join(said)} "
        f"Evidence: {path}",
        page=verdicts.page(lake, label) if step in steps.DIAGNOSIS else None,
    )


def unfinished(lake: Lake, verdict: Verdict) -> list[tuple[str, str]]:
    """Diagnoses of later run dates, and of the verdict's own one since, that stopped at a red gate:
    the run date, and at which step."""
    home = lake.root / "evidence"
    labels = sorted(path.name for path in home.iterdir()) if home.is_dir() else []
    reached = lake.evidence("verdict", io.parse_as_of(verdict.label), verdict.run_id)
    since = _written(reached) if reached.is_file() else 0
    found = []
    for label in (one for one in labels if one >= verdict.label):
        for step in steps.DIAGNOSIS:
            newest = max((home / label / step).glob("*.json"), key=_written, default=None)
            if newest is None or (label == verdict.label and _written(newest) <= since):
                continue
            if io.read_json(newest)["verdict"] == "red":
                found.append((label, step))
    return found


def _written(path: Path) -> int:
    return path.stat().st_mtime_ns


def of_verdict(verdict: Verdict | None) -> Incident | None:
    """The incident of a verdict that is not go."""
    if verdict is None or verdict.first is None:
        return None
    row = verdict.first
    return Incident(f"{row['kind']}:{row['subject']}", verdict.why(), verdict.name, verdict.page)


def _of_row(verdict: Verdict, row: dict[str, Any]) -> Incident:
    return Incident(
        f"{row['kind']}:{row['subject']}",
        f"{row['sentence']} {row['action']}",
        verdict.name,
        verdict.page,
    )


def _verdict(lake: Lake, label: str, run_id: str) -> Verdict | None:
    """The verdict that this run reached, if it came so far."""
    found = verdicts.of(lake, label)
    return found if found and found.run_id == run_id else None


# --- what was told ---------------------------------------------------------------------------
Told = dict[str, dict[str, str]]  # incident, channel: the moment


def file(lake: Lake, dag_id: str) -> Path:
    """Where it is kept what people were told of a DAG."""
    return lake.root / "alerts" / f"{dag_id}.json"


def told(lake: Lake, dag_id: str) -> Told:
    """What people were told of a DAG and is not over."""
    try:
        return dict(io.read_json(file(lake, dag_id)))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def is_news(known: Told, key: str, channel: str, now: datetime) -> bool:
    """Whether a channel is to be told of an incident now."""
    before = known.get(key, {}).get(channel)
    return before is None or now - datetime.fromisoformat(before) >= AGAIN


def remember(lake: Lake, dag_id: str, known: Told) -> None:
    """Keep what was told."""
    if known != told(lake, dag_id):
        io.write_json(file(lake, dag_id), known)


def only(known: Told, keys: Iterable[str]) -> Told:
    """What was told of these incidents; the others are over, and news when they come again."""
    return {key: known[key] for key in keys if key in known}
