"""The page of a measured staleness: losses by age, and how often to refresh each table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.evaluation import advice
from jobs.evaluation.ageing import KINDS, NDCG_AT, RECALL_AT
from jobs.io import Lake
from jobs.pages import plots
from jobs.pages.sections import section, text


def measurements(lake: Lake) -> list[Path]:
    """The folders of staleness that were measured, by source, the newest run date first."""
    found = sorted((lake.root / "staleness").glob("*/*/staleness.json"), reverse=True)
    return sorted((path.parent for path in found), key=lambda folder: folder.parent.name)


def shown(folder: Path) -> dict[str, Any]:
    """What the page ``staleness.html`` shows of one measurement."""
    facts, rows = advice.read(folder)
    return {
        "page": advice.page(folder),
        "label": folder.name,
        "source": facts["source"],
        "sentences": list(advice.sentences(facts)),
        "headlines": list(_headlines(facts)),
        "sections": list(_sections(facts, rows)),
    }


def _headlines(facts: dict[str, Any]) -> Iterator[dict[str, str]]:
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


def _sections(facts: dict[str, Any], rows: pa.Table) -> Iterator[dict[str, Any]]:
    whole = rows.filter(pc.field("tier") == "all")
    for metric, loss, name in (
        ("ndcg", "loss", f"NDCG@{NDCG_AT}"),
        ("recall", "recall_loss", f"recall@{RECALL_AT}"),
    ):
        yield section(
            f"{name} against age",
            "Of all items, one table as old as the axis says and all others fresh, with intervals "
            "over people. Those of differences are smaller, since all ages serve the same people: "
            "see the losses.",
            _columns(whole, "kind", "age_days", "people", metric, loss),
            _curves(whole, "kind", metric, name),
        )  # fmt: skip
    for kind in KINDS:
        mine = rows.filter(pc.field("kind") == kind)
        yield section(
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
    yield section(
        "How often to refresh",
        f"The longest usual period that loses at most {facts['accepted_loss']:.0%} of the fresh "
        "NDCG by its end. loss is that share; window_days is where the limit is crossed, and "
        "tau_days in how many days what fades has fallen by 1/e (empty: no end can be given).",
        pa.Table.from_pylist([{name: row[name] for name in names} for row in facts["cadence"]]),
    )
    waiting = whole.filter(pc.field("kind") == KINDS[0]).select(["age_days", "no_list_yet"])
    yield section(
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
