"""Data docs and report pages: what the gates found and what a release reached, as HTML.

Reads the lake's evidence and published tables. Writes an index, a page per run date with every
expectation, a report and a page of the audits per run date. The pages are files that need nothing
but a browser: no script, nothing loaded from elsewhere, everything from the data escaped.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from jobs import audit_page, io, plots, steps, tables
from jobs.errors import Fault
from jobs.findings import Finding
from jobs.io import Lake

PAGES = Path(__file__).parent / "pages"
STRATA_SHOWN = 30


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
    pages = Environment(
        loader=FileSystemLoader(PAGES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    for found in nights:
        _write(out / f"{found['label']}.html", pages, "night.html", night=found)
        shown = report(lake, found["label"])
        _write(out / f"report-{found['label']}.html", pages, "report.html", night=found, **shown)
        if found["audited"]:
            _write(
                out / f"audits-{found['label']}.html", pages, "audits.html", **audits(lake, found)
            )
    index = out / "index.html"
    _write(index, pages, "index.html", lake=lake.root, nights=nights, current=current(lake))
    return index


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
    for step in steps.STEPS:
        home = lake.root / "evidence" / label / step
        files = sorted(home.glob("*.json"), key=lambda path: (path.stat().st_mtime, path.name))
        judged = [io.read_json(path) for path in files]
        if judged:
            gates.append(_shown(judged[-1]) | {"earlier": judged[:-1]})
    verdicts = {gate["verdict"] for gate in gates}
    worst = next((v for v in ("red", "warning") if v in verdicts), "green")
    audited = any(gate["step"] == "audits" and gate["tables"] for gate in gates)
    return {"label": label, "gates": gates, "verdict": worst, "audited": audited}


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


# --- the report ------------------------------------------------------------------------------
def report(lake: Lake, label: str) -> dict[str, Any]:
    """What the page ``report.html`` shows of a run date; only what is published."""
    read = {
        name: rows
        for name in (
            "blend_evidence", "blend_weights", "delivery", "shortfalls", "index_recall",
            "events_counts", "events_volume", "candidate_counts", "embedding_report",
            "identity_counts",
        )
        if (rows := _table(lake, label, name)) is not None
    }  # fmt: skip
    return {
        "label": label,
        "headlines": list(_headlines(lake, label, read)),
        "sections": list(_sections(read)),
    }


def _table(lake: Lake, label: str, name: str) -> pa.Table | None:
    found = lake.at(tables.TABLES[name].step, label)
    return None if found is None else io.read_arrow(found.table(name))


def _headlines(lake: Lake, label: str, read: dict[str, pa.Table]) -> Iterator[dict[str, str]]:
    for name, table in (
        ("events kept", "events"), ("items", "items"), ("people", "persons"),
        ("places of lists", "recommendations"), ("places of similar items", "similar_items"),
    ):  # fmt: skip
        rows = _rows(lake, label, table)
        if rows is not None:
            yield {"name": name, "value": f"{rows:,}"}
    if "blend_evidence" in read:
        reached = {row["ranking"]: row for row in read["blend_evidence"].to_pylist()}
        others = [row for name, row in reached.items() if name != "blend"]
        if "blend" in reached:
            yield {"name": "NDCG@10 of the blend", "value": text(reached["blend"]["ndcg_at_10"])}
        if "blend" in reached and others:
            best = max(others, key=lambda row: row["ndcg_at_10"])
            yield {
                "name": f"NDCG@10 of the best source, {best['ranking']}",
                "value": text(best["ndcg_at_10"]),
            }
    for row in read["index_recall"].to_pylist() if "index_recall" in read else ():
        if (row["kind"], row["stratum"]) == ("overall", "all"):
            yield {"name": "recall@50 of the index", "value": text(row["recall"])}
    for row in read["events_volume"].to_pylist() if "events_volume" in read else ():
        yield {"name": f"events of {row['day']} against its weekday", "value": text(row["ratio"])}


def _rows(lake: Lake, label: str, name: str) -> int | None:
    found = lake.at(tables.TABLES[name].step, label)
    return None if found is None else io.count_rows(found.table(name))


def _sections(read: dict[str, pa.Table]) -> Iterator[dict[str, Any]]:
    if "blend_evidence" in read:
        rows = read["blend_evidence"].sort_by([("ndcg_at_10", "descending")])
        plot = plots.intervals(
            rows["ranking"].to_pylist(), rows["ndcg_at_10"].to_pylist(),
            rows["ndcg_low"].to_pylist(), rows["ndcg_high"].to_pylist(),
        )  # fmt: skip
        yield _section(
            "The blend beside each source",
            "NDCG@10 with its interval, on purchases after an earlier cut, of people whom tuning "
            "did not see. difference_low is the low end of the paired difference to the best "
            "single source.",
            rows, plot,
        )  # fmt: skip
    if "blend_weights" in read:
        yield _section("Weights of the blend", "How much each source's word counts.",
                       read["blend_weights"])  # fmt: skip
    if "delivery" in read:
        rows = read["delivery"]
        plot = plots.bars(
            rows["source"].to_pylist(), intended=rows["intended"].to_pylist(),
            delivered=rows["delivered"].to_pylist(),
        )  # fmt: skip
        yield _section(
            "Delivery",
            "The least share of a list meant for each source, and the share of places whose item "
            "it named.",
            rows, plot,
        )  # fmt: skip
    if "shortfalls" in read:
        yield _section("Shortfalls", "How lists were topped up or stayed short.",
                       read["shortfalls"])  # fmt: skip
    if "index_recall" in read:
        rows = read["index_recall"].slice(0, STRATA_SHOWN)
        names = [f"{r['kind']}: {r['stratum']}" for r in rows.to_pylist()]
        yield _section(
            "Recall of the vector index",
            "Share of the true 50 nearest that a search finds, overall and by stratum"
            + (f" (the first {STRATA_SHOWN})." if rows.num_rows == STRATA_SHOWN else "."),
            rows, plots.bars(names, recall=rows["recall"].to_pylist()),
        )  # fmt: skip
    titles = {
        "embedding_report": ("The fit", "Measures of the collaborative vectors."),
        "candidate_counts": ("Candidates", "What each source named."),
        "events_counts": ("Events", "What became of every row of the source."),
        "events_volume": ("Volume", "The newest day against the median of its weekday before."),
        "identity_counts": ("Identities", "Keys, persons and what became of each link."),
    }
    for name, (title, words) in titles.items():
        if name in read:
            yield _section(title, words, read[name])


# --- the audits ------------------------------------------------------------------------------
def audits(lake: Lake, night: dict[str, Any]) -> dict[str, Any]:
    """What the page ``audits.html`` shows of a run date; of a red gate what it judged."""
    label = night["label"]
    gate = next(gate for gate in night["gates"] if gate["step"] == "audits")
    published = lake.at("audits", label)
    home = published.folder if published else lake.staged("audits", io.parse_as_of(gate["as_of"]))
    found = {name: home / name for name in audit_page.TABLES}
    whole = all(folder.is_dir() and io.parquet_files(folder) for folder in found.values())
    read = {name: io.read_arrow(folder) for name, folder in found.items()} if whole else {}
    return {
        "label": label,
        "verdict": gate["verdict"],
        "published": published is not None,
        "failed": [finding for finding in gate["expectations"] if not finding["success"]],
        "headlines": [
            {"name": name, "value": value}
            for name, value in (audit_page.headlines(read) if whole else ())
        ],
        "sections": [
            {
                "title": section.title, "means": section.means, "do": section.do,
                "parts": [
                    _section("", part.caption, part.rows or pa.table({}), part.plot)
                    for part in section.parts
                ],
            }
            for section in (audit_page.sections(read) if whole else ())
        ],
    }  # fmt: skip


def _section(title: str, words: str, rows: pa.Table, plot: str = "") -> dict[str, Any]:
    numbers = [
        field.name
        for field in rows.schema
        if pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    ]
    return {
        "title": title,
        "text": words,
        # Drawn by matplotlib, which escapes what it writes into SVG.
        "plot": Markup(plot),  # noqa: S704
        "columns": rows.schema.names,
        "numbers": numbers,
        "rows": [{name: text(value) for name, value in r.items()} for r in rows.to_pylist()],
    }


def text(value: Any) -> str:
    """A value as a page shows it."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1_000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _write(path: Path, pages: Environment, template: str, **values: Any) -> None:
    io.write_text(path, pages.get_template(template).render(**values))
