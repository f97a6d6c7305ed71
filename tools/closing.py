"""The closing table of a night, read back from the lake: what went in, what came out, how well."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from jobs import io, steps, tables
from jobs.errors import Fault
from jobs.io import Lake
from tools.progress import Task

VERDICTS = {"green": "green", "warning": "yellow", "red": "red"}


@dataclass(frozen=True)
class Line:
    """One step of the night as the table shows it."""

    step: str
    rows_in: int | None
    rows_out: int | None
    verdict: str
    seconds: float


def lines(lake: Lake, as_of: datetime, tasks: list[Task]) -> list[Line]:
    """A line for every step that a task of this night ran, job and gate together."""
    spent: dict[str, float] = {}
    for task in tasks:
        name = task.task_id.rpartition(".")[2].removesuffix("_gate")
        spent[name] = spent.get(name, 0.0) + task.seconds
    failed = {task.task_id.rpartition(".")[2] for task in tasks if task.error}
    source_rows = _source_rows(lake, as_of)
    found = []
    for step in steps.STEPS:
        if step not in spent:
            continue
        manifest = _manifest(lake, as_of, step, staged=bool(failed & {step, f"{step}_gate"}))
        verdict = manifest.get("gate", {}).get("verdict", "not judged")
        if f"{step}_gate" in failed:
            verdict = "red"
        elif step in failed:
            verdict = "failed"
        found.append(
            Line(
                step=step,
                rows_in=source_rows.get("events") if step == "events" else _rows_in(manifest),
                rows_out=sum(source_rows.values()) if step == "source" else _rows_out(manifest),
                verdict=verdict,
                seconds=spent[step],
            )
        )
    return found


def show(
    console: Console, lake: Lake, as_of: datetime, tasks: list[Task], total_seconds: float
) -> None:
    """Print the table, the night's seconds and the share that was not work."""
    table = Table(title=f"The night of {io.label(as_of)}", title_justify="left")
    table.add_column("step")
    for name in ("rows in", "rows out"):
        table.add_column(name, justify="right")
    table.add_column("gate")
    table.add_column("seconds", justify="right")
    work = 0.0
    for line in lines(lake, as_of, tasks):
        work += line.seconds
        style = VERDICTS.get(line.verdict, "red")
        table.add_row(
            line.step,
            _count(line.rows_in),
            _count(line.rows_out),
            f"[{style}]{line.verdict}[/{style}]",
            f"{line.seconds:.1f}",
        )
    console.print(table)
    idle = max(0.0, total_seconds - work)
    console.print(
        f"{total_seconds:.0f} s in all; steps and gates {work:.0f} s, engine start, imports and "
        f"scheduling {idle:.0f} s ({idle / max(total_seconds, 0.001):.0%})"
    )


def headline(lake: Lake, as_of: datetime) -> list[tuple[str, str]]:
    """The numbers a person asks for first: a name and a value each."""
    found: list[tuple[str, str]] = []

    def arrow(step: str, table: str, columns: list[str]) -> Any:
        return io.read_arrow(lake.published(step, as_of).table(table), columns)

    lists = arrow("recommendations", "recommendations", ["surface", "person_id", "item_id"])
    persons = pc.count_distinct(lists["person_id"]).as_py()
    items = pc.count_distinct(lists["item_id"]).as_py()
    served = lists.group_by(["surface", "person_id"]).aggregate([]).num_rows
    found.append(("people served", f"{persons:,} with {served:,} lists of {items:,} items"))
    similar = arrow("item_lists", "item_lists", ["item_id"])
    with_list = pc.count_distinct(similar["item_id"]).as_py()
    found.append(("items with lists of their own", f"{with_list:,}"))
    recall = arrow("index", "index_recall", ["kind", "stratum", "queries", "recall"]).to_pylist()
    found += [
        ("index recall", f"{row['recall']:.3f} on {row['queries']:,} held queries")
        for row in recall
        if (row["kind"], row["stratum"]) == ("overall", "all")
    ]
    judged = arrow("ranker", "ranking_evidence", ["ranking", "published", "ndcg_at_10"])
    rows = judged.to_pylist()
    alone = [row for row in rows if row["ranking"] in tables.SOURCES]
    if alone:
        best = max(alone, key=lambda row: row["ndcg_at_10"])
        found += [
            (
                "NDCG@10 on held days",
                f"{row['ndcg_at_10']:.3f} for the {row['ranking']}, "
                f"{best['ndcg_at_10']:.3f} for {best['ranking']} alone",
            )
            for row in rows
            if row["published"]
        ]
    return found


def freshness(lake: Lake, as_of: datetime) -> str:
    """How old the newest signal is that the night read, seen from its run date."""
    times = io.read_arrow(lake.published("events", as_of).table("events"), ["event_time"])
    newest = pc.max(times["event_time"]).as_py()
    hours = (as_of - newest).total_seconds() / 3600
    return f"newest event {newest:%Y-%m-%d %H:%M} UTC, {hours:.1f} h before the run date"


def current(lake: Lake) -> tuple[str, Path] | None:
    """The release that serving reads now, and its folder."""
    try:
        name = (lake.root / "releases" / "CURRENT").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    return name, lake.root / "releases" / name


def show_release(console: Console, lake: Lake, as_of: datetime) -> None:
    """Print the headline numbers, where the release lies, and what to try next."""
    facts = [*headline(lake, as_of), ("freshness", freshness(lake, as_of))]
    released = current(lake)
    if released is not None:
        name, folder = released
        facts.append(("release", f"{name} in {folder}"))
        facts.append(("age at publishing", _lag(folder, as_of)))
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        console.print(f"  {name:{width}}  {value}", highlight=False, markup=False, soft_wrap=True)
    person = _somebody(lake, as_of)
    console.print("\nNext:", style="bold")
    for line in (
        f"make show PERSON={person}",
        "make docs       the gates' findings and the night's report as pages",
        "make ui         Airflow's own UI, with this run in it",
        "make lineage TABLE=recommendations",
        "make help",
    ):
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def show_failure(console: Console, lake: Lake, as_of: datetime, tasks: list[Task]) -> None:
    """Print what failed, where the evidence lies, and what serves meanwhile."""
    show_failed(console, lake, as_of, tasks)
    released = current(lake)
    serving = f"{released[0]} still serves" if released else "nothing is served yet"
    console.print(f"nothing of this night was published to serving; {serving}", highlight=False)


def show_failed(console: Console, lake: Lake, as_of: datetime, tasks: list[Task]) -> None:
    """Print what failed and where the evidence lies."""
    for task in (task for task in tasks if task.error and not task.will_retry):
        told = task.cause == "AirflowFailException"  # a fault in its own words, not a bug
        what = "red gate" if told and task.task_id.endswith("_gate") else "failed"
        console.print(f"\n{what}: {task.task_id}", style="bold red")
        kind = "" if told else f"{task.cause}: "
        console.print(f"{kind}{task.error}", highlight=False, markup=False, soft_wrap=True)
        step = task.task_id.rpartition(".")[2].removesuffix("_gate")
        evidence = sorted((lake.root / "evidence" / io.label(as_of) / step).glob("*.json"))
        if task.task_id.endswith("_gate") and evidence:
            newest = max(evidence, key=lambda path: path.stat().st_mtime)
            if str(newest) not in task.error:
                console.print(f"evidence: {newest}", highlight=False, markup=False, soft_wrap=True)
        console.print(f"log: {task.log}", highlight=False, markup=False, soft_wrap=True)


def _manifest(lake: Lake, as_of: datetime, step: str, staged: bool) -> dict[str, Any]:
    """What the step wrote about itself: this night's published table, else what is staged."""
    if not staged:
        try:
            return lake.published(step, as_of).manifest
        except (Fault, FileNotFoundError):
            return {}
    path = lake.staged(step, as_of) / "manifest.json"
    try:
        return dict(io.read_json(path))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _source_rows(lake: Lake, as_of: datetime) -> dict[str, int]:
    """Rows of the contract's tables that the night was given, where the source was published."""
    try:
        folder = lake.published("source", as_of).table("source_tables")
    except Fault:
        return {}
    return {row["table"]: row["rows"] for row in io.read_arrow(folder).to_pylist()}


def _rows_in(manifest: dict[str, Any]) -> int | None:
    counts = [sum(entry["rows"].values()) for entry in manifest.get("inputs", {}).values()]
    return sum(counts) if counts else None


def _rows_out(manifest: dict[str, Any]) -> int | None:
    tables = manifest.get("tables")
    return sum(entry["rows"] for entry in tables.values()) if tables else None


def _count(rows: int | None) -> str:
    return "-" if rows is None else f"{rows:,}"


def _lag(folder: Path, as_of: datetime) -> str:
    try:
        manifest = io.read_json(folder / "manifest.json")
        created = datetime.fromisoformat(manifest["created"])
    except (FileNotFoundError, KeyError, ValueError):
        return "unknown"
    lag = created.astimezone(UTC) - as_of
    return f"{lag.days} days {lag.seconds // 3600} h after the run date"


def _somebody(lake: Lake, as_of: datetime) -> str:
    lists = io.read_arrow(
        lake.published("recommendations", as_of).table("recommendations"), ["person_id"]
    )
    return str(pc.min(lists["person_id"]).as_py())
