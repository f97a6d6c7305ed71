"""The page of a diagnosis: go or no-go first, then what each step found, means and asks for.

Reads the published tables of the diagnosis and the evidence of its gates. A run that stopped at a
red gate has a page too, that says where and why; ``jobs.pages.docs`` renders it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jobs import steps
from jobs.diagnosis.symptoms import GATES, KINDS, MEASUREMENT
from jobs.diagnosis.verdict import GO, in_order
from jobs.io import Lake
from jobs.pages import diagnosis_data, diagnosis_model, diagnosis_use
from jobs.pages.audits import Section
from jobs.pages.evidence import RED, Run
from jobs.pages.sections import section, text
from jobs.tables import TABLES

SECTIONS: dict[str, Callable[[Run], Section]] = (
    diagnosis_data.SECTIONS | diagnosis_model.SECTIONS | diagnosis_use.SECTIONS
)
SYMPTOMS_SHOWN = 40
NAMED = 3  # faults in one sentence
# Steps without which no number can be believed: a red gate there is a no-go of the first gate.
FIRST = (*steps.BEFORE_DIAGNOSIS, "definitions", "served")
LINKS = ("http://", "https://")


@dataclass(frozen=True)
class Head:
    """What is read first: ``colour`` of the verdict, its words, the reason, what to do next, and
    the first gate that failed."""

    colour: str
    words: str
    why: str
    action: str
    gate: str = ""


def shown(lake: Lake, night: dict[str, Any], link: str = "") -> dict[str, Any]:
    """What the page ``diagnosis.html`` shows of a run date.

    ``night``: its gates, as ``docs.night`` tells them; ``link``: the address of the run that made
    it, which is shown if it is one of the web.
    """
    run = Run(lake, night["label"], {gate["step"]: gate for gate in night["gates"]})
    found = symptoms(run)
    gate = night_gate(run)
    return {
        "label": run.label,
        "link": link if link.startswith(LINKS) else "",
        "head": head(run, found),
        "failed": [one for one in gate["expectations"] if not one["success"]] if gate else [],
        "mixed": run.mixed,
        "gates": cards(run),
        "facts": [{"name": name, "value": value} for name, value in facts(run, found)],
        "symptoms": [_symptom(one) for one in found[:SYMPTOMS_SHOWN]],
        "symptoms_of": len(found),
        "finished": run.finished,
        "sections": [_section(run, step, found) for step in steps.DIAGNOSIS],
    }


def night_gate(run: Run) -> dict[str, Any] | None:
    """The evidence of the gate at which the run stopped."""
    return run.gates[run.stopped] if run.stopped else None


# --- the verdict -----------------------------------------------------------------------------
def head(run: Run, found: list[dict[str, Any]]) -> Head:
    """The verdict in words."""
    if run.stopped:
        return _stopped(run, run.stopped)
    if not run.finished:
        return Head(
            "warning", "No verdict yet", f"No run of {run.label} has come to a verdict.",
            "Let the run end, or look at the task that failed; what it found so far stands below.",
        )  # fmt: skip
    gates = sorted(run.rows("verdict_gates"), key=lambda row: row["place"])
    first = next((row for row in gates if not row["go"]), None)
    if first is None:
        warnings = len(found)
        why = "All five gates hold."
        if warnings:
            why += f" {_counted(warnings, 'warning')} below."
        return Head("green", "Go", why, "Nothing has to be mended." if not warnings else "Read the "
                    "warnings when there is time; none of them stops anything.")  # fmt: skip
    mend = first["classified"] or "mend what it names"
    return Head(
        RED, f"No-go: {mend}", first["evidence"],
        first["action"] or "Look at the first symptom below.", first["gate"],
    )  # fmt: skip


def _stopped(run: Run, step: str) -> Head:
    critical = [one for one in run.gates[step]["expectations"] if one["colour"] == RED]
    why = critical[0]["sentence"] if critical else "Its gate is red."
    if step == "definitions":
        faults = [f"{row['name']} {row['fault']}" for row in run.rows(step) if row["fault"]]
        if faults:
            more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
            why = f"In the metrics file, {'; '.join(faults[:NAMED])}{more}."
        action = (
            "Write in the metrics file what is missing or contradicts itself, as listed below, "
            "and run the diagnosis again."
        )
    else:
        action = "Mend what the gate names, clear the step in Airflow, and the run goes on."
    return Head(RED, f"No-go: the run stopped at {step}", why, action)


def cards(run: Run) -> list[dict[str, Any]]:
    """The five gates, judged or not."""
    if run.finished:
        rows = sorted(run.rows("verdict_gates"), key=lambda row: row["place"])
        return [_card(row) for row in rows]
    blocked = run.stopped in FIRST
    return [
        {"gate": gate, "colour": RED, "words": "no-go",
         "evidence": f"The run stopped at {run.stopped}.", "notes": ""}
        if blocked and gate == MEASUREMENT
        else {"gate": gate, "colour": "soft", "words": "not judged",
              "evidence": "The run has not come this far.", "notes": ""}
        for gate in GATES
    ]  # fmt: skip


def _card(row: dict[str, Any]) -> dict[str, Any]:
    notes = [
        _counted(row[name], name.removesuffix("s"))
        for name in ("symptoms", "warnings")
        if row[name]
    ]
    colour = ("warning" if row["warnings"] else "green") if row["go"] else RED
    return {
        "gate": row["gate"], "colour": colour, "words": GO if row["go"] else "no-go",
        "evidence": row["evidence"], "notes": ", ".join(notes),
    }  # fmt: skip


def symptoms(run: Run) -> list[dict[str, Any]]:
    """All symptoms in the verdict's order, also of a run without a verdict."""
    if run.finished:
        return sorted(run.rows("verdict_symptoms"), key=lambda row: row["place"])
    found = [
        {"step": step, **row}
        for step in steps.DIAGNOSIS
        if f"{step}_symptoms" in TABLES and step != "verdict"
        for row in run.rows(f"{step}_symptoms")
    ]
    return in_order(found)


def _symptom(row: dict[str, Any]) -> dict[str, Any]:
    kind = KINDS.get(row["kind"])
    facts = [f"effect {text(row['effect'])} beyond a limit of {text(row['limit'])}"]
    if row["p_value"] is not None:
        facts.append(f"p = {row['p_value']:.2g}")
    facts.append(f"on {_counted(row['rows'], 'row')}")
    return row | {
        "title": kind.title if kind else row["kind"],
        "colour": "warning" if row["warning"] else RED,
        "facts": ", ".join(facts),
        "mend": ("the " if row["remedy"] == "system" else "") + row["remedy"],
    }


def facts(run: Run, found: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """(name, value) of what a person looks at next."""
    yield from diagnosis_data.agreed_kpi(run)
    counts = {row["outcome"]: row for row in run.rows("log_counts") if row["period"] == "current"}
    if "kept" in counts:
        yield "rows of the log were kept", f"{counts['kept']['share']:.1%}"
    nights = run.rows("replayed")
    if nights:
        newest = max(nights, key=lambda row: row["night"])
        yield "requests looked at", f"{sum(row['requests'] for row in nights):,}"
        if newest["promised"] is not None and newest["realised"] is not None:
            said = f"{text(newest['promised'])} → {text(newest['realised'])}"
            yield f"model metric, promised and come true, {newest['night']}", said


# --- the sections ----------------------------------------------------------------------------
def _section(run: Run, step: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    """A step's section; without its tables, the words alone."""
    gate = run.gates.get(step)
    told = SECTIONS[step](run)
    mine = [row for row in found if row["step"] == step]
    return {
        "step": step,
        "title": told.title,
        "means": told.means,
        "do": told.do,
        "badge": _badge(run, step, mine),
        "there": run.has(step),
        "unpublished": bool(gate and gate["verdict"] == RED),
        "symptoms": [_symptom(row) for row in mine[:SYMPTOMS_SHOWN]],
        "parts": [
            section("", one.caption, one.rows or pa.table({}), one.plot)
            for one in (told.parts if run.has(step) else ())
        ],
    }


def _badge(run: Run, step: str, found: list[dict[str, Any]]) -> tuple[str, str]:
    """The colour and the words beside a section's title."""
    red = sum(not row["warning"] for row in found)
    if step in run.gates and run.gates[step]["verdict"] == RED:
        return RED, "gate red"
    if not run.has(step):
        return "soft", "not run"
    if red:
        return RED, _counted(red, "symptom")
    if found:
        return "warning", _counted(len(found), "warning")
    finds = step != "verdict" and f"{step}_symptoms" in TABLES
    return ("green", "nothing found") if finds else ("", "")


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
