"""Data docs and report pages: what the gates found and what a release reached, as HTML.

Reads the lake's evidence, published tables and measured staleness. Writes an index, a page per run
date with every expectation, a report and a page of the audits per run date, and a page per
measurement of staleness. The pages are files that need nothing but a browser: no script, nothing
loaded from elsewhere, everything from the data escaped.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from jobs import audit_page, io, plots, steps, tables
from jobs.errors import Fault
from jobs.evaluation import advice
from jobs.evaluation.ageing import KINDS, NDCG_AT, RECALL_AT
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
    measured = [staleness(folder) for folder in measurements(lake)]
    for shown in measured:
        _write(out / shown["page"], pages, "staleness.html", **shown)
    index = out / "index.html"
    _write(
        index, pages, "index.html", lake=lake.root, nights=nights, current=current(lake),
        measured=measured,
    )  # fmt: skip
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


# --- staleness -------------------------------------------------------------------------------
def measurements(lake: Lake) -> list[Path]:
    """The folders of staleness that were measured, by source, the newest run date first."""
    found = sorted((lake.root / "staleness").glob("*/*/staleness.json"), reverse=True)
    return sorted((path.parent for path in found), key=lambda folder: folder.parent.name)


def staleness(folder: Path) -> dict[str, Any]:
    """What the page ``staleness.html`` shows of one measurement."""
    facts, rows = advice.read(folder)
    return {
        "page": advice.page(folder),
        "label": folder.name,
        "source": facts["source"],
        "sentences": list(advice.sentences(facts)),
        "headlines": list(_staleness_headlines(facts)),
        "sections": list(_staleness_sections(facts, rows)),
    }


def _staleness_headlines(facts: dict[str, Any]) -> Iterator[dict[str, str]]:
    days, low, high = (f"{facts[name]:.3g}" for name in ("drift_window_days", "low", "high"))
    least = "at least " if facts["drift_window_days"] >= facts["largest_age_days"] else ""
    yield {"name": f"drift window ({low} to {high})", "value": f"{least}{days} days"}
    if facts["tau_days"]:
        low, high = (
            f"{facts[end]:.3g}" if facts[end] else "no end" for end in ("tau_low", "tau_high")
        )
        yield {
            "name": f"fades by 1/e in ({low} to {high})",
            "value": f"{facts['tau_days']:.3g} days",
        }
    yield {"name": "people", "value": text(facts["people"])}
    yield {"name": "cuts judged", "value": text(len(facts["cuts"]))}


def _staleness_sections(facts: dict[str, Any], rows: pa.Table) -> Iterator[dict[str, Any]]:
    whole = rows.filter(pc.field("tier") == "all")
    for metric, loss, name in (
        ("ndcg", "loss", f"NDCG@{NDCG_AT}"),
        ("recall", "recall_loss", f"recall@{RECALL_AT}"),
    ):
        yield _section(
            f"{name} against age",
            "Of all items, one table as old as the axis says and all others fresh, with intervals "
            "over people. Those of differences are smaller, since all ages serve the same people: "
            "see the losses.",
            _columns(whole, "kind", "age_days", "people", metric, loss),
            _curves(whole, "kind", metric, name),
        )  # fmt: skip
    for kind in KINDS:
        mine = rows.filter(pc.field("kind") == kind)
        yield _section(
            f"{kind.capitalize()}: NDCG@{NDCG_AT} lost, by tier of items",
            "Paired differences to age 0, judged on purchases of the tier's items alone. Of the "
            "interest in the weeks before the oldest table was made, hot items hold "
            f"{facts['params']['hot_share']:.0%} between them, warm ones the rest, cold ones none.",
            _columns(mine, "tier", "age_days", "people", "ndcg", "loss"),
            _curves(mine, "tier", "loss", f"NDCG@{NDCG_AT} lost"),
        )  # fmt: skip
    names = (
        "table", "tier", "cadence", "loss", "loss_low", "loss_high", "window_days", "low", "high",
        "verdict", "tau_days", "tau_low", "tau_high", "people", "fresh_ndcg",
    )  # fmt: skip
    yield _section(
        "How often to refresh",
        f"The longest usual period that loses at most {facts['accepted_loss']:.0%} of the fresh "
        "NDCG by its end. loss is that share; window_days is where the limit is crossed, and "
        "tau_days in how many days what fades has fallen by 1/e (empty: no end can be given).",
        pa.Table.from_pylist([{name: row[name] for name in names} for row in facts["cadence"]]),
    )
    waiting = whole.filter(pc.field("kind") == KINDS[0]).select(["age_days", "no_list_yet"])
    yield _section(
        "Buyers without a list yet",
        "The share of those who bought in the judged days and had no signal when lists of that age "
        "were made. They are not in the curves.",
        waiting,
    )


def _columns(rows: pa.Table, *names: str) -> pa.Table:
    """These columns, measures with their intervals."""
    ends = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    return rows.select([name for name in ends if name in rows.schema.names])


def _curves(rows: pa.Table, by: str, metric: str, up: str) -> str:
    """A line over the ages for each value of the column ``by``."""
    series = {}
    for name in pc.unique(rows[by]).to_pylist():
        mine = rows.filter(pc.field(by) == name)
        series[name] = tuple(mine[f"{metric}{end}"].to_pylist() for end in ("", "_low", "_high"))
    return plots.lines(pc.unique(rows["age_days"]).to_pylist(), "age, days", up, **series)


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
