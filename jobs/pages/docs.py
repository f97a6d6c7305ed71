"""Data docs and report pages: what the gates found and what a release reached, as HTML.

Reads the lake's evidence, published tables, measured staleness and backtests. Writes an index, a
page per run date with every expectation, a report, a page of the audits and one of the diagnosis
per run date, and a page per measurement of staleness and per backtest. The pages are files that
need nothing but a browser: no script, nothing loaded from elsewhere, everything from the data
escaped.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from jobs import io, steps
from jobs.errors import Fault
from jobs.findings import Finding
from jobs.io import Lake
from jobs.pages import audits as audits_page
from jobs.pages import backtest, diagnosis, report, staleness
from jobs.pages.sections import section, text

log = logging.getLogger(__name__)
TEMPLATES = Path(__file__).parent / "templates"


def main(chosen: argparse.Namespace) -> None:
    """Build the pages and say where they lie."""
    lake = Lake(chosen.lake)
    if not lake.root.is_dir():
        raise Fault(f"docs: there is no lake at {lake.root}; run a night first (make run)")
    out = Path(chosen.out).expanduser().resolve() if chosen.out else lake.root / "docs"
    print(f"data docs: {build(lake, out)}")


def build(lake: Lake, out: Path) -> Path:
    """Write every page into a folder; returns the index."""
    nights = [night(lake, label) for label in run_dates(lake)]
    pages = _environment()
    for found in nights:
        _of_night(lake, found, out, pages)
        if found["diagnosed"]:
            _diagnosis(lake, found, out, pages)
    return _index(lake, nights, out, pages)


def build_one(lake: Lake, label: str, out: Path, link: str = "") -> Path:
    """Write the pages of one run date, as the DAG that diagnosed it does, and those of others that
    have none, so that no link of them is dead; returns that of the diagnosis. ``link``: the address
    of its run in Airflow."""
    pages, nights = _environment(), []
    for one in run_dates(lake):
        try:
            found = night(lake, one)
            if one == label or not (out / f"{one}.html").is_file():
                _of_night(lake, found, out, pages)
            if one != label and found["diagnosed"] and not _diagnosed(out, found).is_file():
                _diagnosis(lake, found, out, pages)
            nights.append(found)
        except (Fault, OSError, ValueError) as error:
            if one == label:
                raise
            # Another date's broken file, or a refresh that is just forgotten, is not this run's.
            log.warning("page=%s not_built=%s", one, error)
    _index(lake, nights, out, pages)
    return _diagnosis(lake, night(lake, label), out, pages, link)


def _of_night(lake: Lake, found: dict[str, Any], out: Path, pages: Environment) -> None:
    """The gates, the report and the audits of a run date."""
    _write(out / f"{found['label']}.html", pages, "night.html", night=found)
    shown = report.shown(lake, found["label"])
    _write(out / f"report-{found['label']}.html", pages, "report.html", night=found, **shown)
    if found["audited"]:
        _write(out / f"audits-{found['label']}.html", pages, "audits.html", **audits(lake, found))


def _index(lake: Lake, nights: list[dict[str, Any]], out: Path, pages: Environment) -> Path:
    """The index, and what it lists beside run dates."""
    measured = [staleness.shown(folder) for folder in staleness.measurements(lake)]
    for shown in measured:
        _write(out / shown["page"], pages, "staleness.html", **shown)
    backtests = [backtest.shown(folder) for folder in backtest.measurements(lake)]
    for shown in backtests:
        _write(out / shown["page"], pages, "backtest.html", **shown)
    index = out / "index.html"
    _write(
        index, pages, "index.html", lake=lake.root, nights=nights, current=current(lake),
        measured=measured, backtests=backtests,
    )  # fmt: skip
    return index


def _diagnosis(
    lake: Lake, found: dict[str, Any], out: Path, pages: Environment, link: str = ""
) -> Path:
    path = _diagnosed(out, found)
    _write(path, pages, "diagnosis.html", **diagnosis.shown(lake, found, link))
    return path


def _diagnosed(out: Path, found: dict[str, Any]) -> Path:
    return out / f"diagnosis-{found['label']}.html"


def run_dates(lake: Lake) -> list[str]:
    """The run dates with evidence, newest first."""
    home = lake.root / "evidence"
    return (
        sorted((f.name for f in home.iterdir() if f.is_dir()), reverse=True)
        if home.is_dir()
        else []
    )


def current(lake: Lake) -> str | None:
    """The id of the release that serves."""
    try:
        return (lake.root / "releases" / "CURRENT").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


# --- gates -----------------------------------------------------------------------------------
def night(lake: Lake, label: str) -> dict[str, Any]:
    """The gates of a run date in the order of the steps, each with its newest evidence."""
    gates = []
    for step in steps.EVERY:
        home = lake.root / "evidence" / label / step
        files = sorted(home.glob("*.json"), key=lambda path: (path.stat().st_mtime, path.name))
        judged = [io.read_json(path) for path in files]
        if judged:
            gates.append(_shown(judged[-1]) | {"earlier": judged[:-1]})
    verdicts = {gate["verdict"] for gate in gates}
    worst = next((v for v in ("red", "warning") if v in verdicts), "green")
    audited = any(gate["step"] == "audits" and gate["tables"] for gate in gates)
    diagnosed = any(gate["step"] in steps.DIAGNOSIS for gate in gates)
    return {
        "label": label, "gates": gates, "verdict": worst, "audited": audited,
        "diagnosed": diagnosed,
    }  # fmt: skip


def _shown(evidence: dict[str, Any]) -> dict[str, Any]:
    findings = []
    for entry in evidence["expectations"]:
        colour = "green" if entry["success"] else "warning"
        if not entry["success"] and entry["severity"] == "critical":
            colour = "red"
        found = Finding(**entry)
        findings.append(
            entry | {"sentence": found.sentence(), "found": _found(found), "colour": colour}
        )
    return evidence | {"expectations": findings}


def _found(finding: Finding) -> str:
    if finding.error:
        return finding.error
    if finding.failing is not None:
        return f"{finding.failing:,} of {finding.rows or 0:,} rows failed"
    if finding.observed is None:
        return "as expected" if finding.success else "nothing"
    if isinstance(finding.observed, list):
        return ", ".join(str(value) for value in finding.observed)
    return text(finding.observed)


# --- the audits ------------------------------------------------------------------------------
def audits(lake: Lake, night: dict[str, Any]) -> dict[str, Any]:
    """What the page ``audits.html`` shows of a run date; of a red gate what it judged."""
    label = night["label"]
    gate = next(gate for gate in night["gates"] if gate["step"] == "audits")
    published = lake.at("audits", label)
    home = published.folder if published else lake.staged("audits", io.parse_as_of(gate["as_of"]))
    found = {name: home / name for name in audits_page.TABLES}
    whole = all(folder.is_dir() and io.parquet_files(folder) for folder in found.values())
    read = {name: io.read_arrow(folder) for name, folder in found.items()} if whole else {}
    return {
        "label": label,
        "verdict": gate["verdict"],
        "published": published is not None,
        "failed": [finding for finding in gate["expectations"] if not finding["success"]],
        "headlines": [
            {"name": name, "value": value}
            for name, value in (audits_page.headlines(read) if whole else ())
        ],
        "sections": [
            {
                "title": audit.title, "means": audit.means, "do": audit.do,
                "parts": [
                    section("", part.caption, part.rows or pa.table({}), part.plot)
                    for part in audit.parts
                ],
            }
            for audit in (audits_page.sections(read) if whole else ())
        ],
    }  # fmt: skip


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def _write(path: Path, pages: Environment, template: str, **values: Any) -> None:
    io.write_text(path, pages.get_template(template).render(**values))
