"""The page of a backtest: published lists beside simple methods and sources, with intervals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs import io
from jobs.evaluation import summary
from jobs.evaluation.summary import MEAN, pick
from jobs.io import Lake
from jobs.pages import plots
from jobs.pages.sections import section, text

KINDS = {"all": "all purchases", "again": "items bought before", "new": "items new to the person"}
# Lists that are drawn over the cuts and by segment; a plot tells four apart.
DRAWN = 4


def measurements(lake: Lake) -> list[Path]:
    """The folders of the backtests that were run, by source."""
    return sorted(path.parent for path in (lake.root / "backtest").glob("*/results.json"))


def page(folder: Path) -> str:
    """The name of the page of a backtest."""
    return f"backtest-{folder.name}.html"


def shown(folder: Path) -> dict[str, Any]:
    """What the page ``backtest.html`` shows of one backtest."""
    facts = io.read_json(folder / "results.json")
    measured = io.read_arrow(folder / summary.MEASURES.name)
    return {
        "page": page(folder),
        "source": facts["source"],
        "cuts": [io.label(io.parse_as_of(cut["cut"])) for cut in facts["cuts"]],
        "horizon": facts["params"]["horizon_days"],
        "headlines": [
            {"name": "people judged, over all cuts", "value": text(facts["people"])},
            {"name": "purchases judged", "value": text(facts["purchased_pairs"])},
            {"name": "of items bought before", "value": f"{facts['again']:.0%}"},
        ],
        "sections": list(_sections(facts, measured)),
    }


def _sections(facts: dict[str, Any], measured: pa.Table) -> Iterator[dict[str, Any]]:
    least = facts["params"]["lengths"][0]
    lists = measured.filter(pc.field("role") != "source")
    yield section(
        f"NDCG@{least} of all purchases",
        "Mean over the cuts. Differences are the published list's number less the row's, paired.",
        _headline(measured),
        _intervals(pick(lists, cut=MEAN, metric="ndcg", kind="all", length=least, new_only=False),
                   f"NDCG@{least}"),
    )  # fmt: skip
    yield section(
        f"NDCG@{least} of what was new to the person",
        "Of lists that leave out what the person had bought before. A simple method ranks all the "
        "rest of the catalogue, a source all the rest of what it named; a published list has only "
        "the new items among its places, so that a surface made for them is the fair comparison.",
        _columns(
            pick(measured, cut=MEAN, metric="ndcg", kind="new", new_only=True), "length", "people"
        ),
        _intervals(pick(measured, cut=MEAN, metric="ndcg", kind="new", length=least, new_only=True),
                   f"NDCG@{least}"),
    )  # fmt: skip
    drawn = _drawn(lists, least)
    yield section(
        f"NDCG@{least} cut by cut",
        "Of the published list and the best simple methods.",
        _columns(
            pick(lists, metric="ndcg", kind="all", length=least, new_only=False), "cut", "people"
        ),
        _over_cuts(lists, drawn, least),
    )
    for kind, name in KINDS.items():
        yield section(
            f"Every measure, {name}",
            "Mean over the cuts. MAP divides by the smaller of list length and purchases; revenue "
            "NDCG gains what was paid for the item in the horizon.",
            _wide(pick(lists, cut=MEAN, kind=kind, new_only=False)),
        )
    yield section(
        "What is listed",
        "Coverage: items in anybody's list, of all that anybody may get, and of those bought in "
        f"the {facts['params']['recent_days']:g} days before the cut. Popularity: people who had "
        "bought a listed item, and the share of items that fewer people bought. Novelty: bits of "
        "self-information. Category spread: pairs of a list of unequal category.",
        _wide(pick(measured, cut=MEAN, kind="listed", new_only=False)),
    )
    by_segment = lists.filter(
        (pc.field("segment_kind") != "all") & (pc.field("cut") == MEAN)
        & (pc.field("metric") == "ndcg") & (pc.field("kind") == "all")
        & (pc.field("length") == least) & ~pc.field("new_only")
    )  # fmt: skip
    yield section(
        f"NDCG@{least} by segment",
        "New: first seen less than a horizon before the cut. Heavy: more baskets before the cut "
        "than the median of those judged.",
        _columns(by_segment, "segment_kind", "segment", "people"),
        _by_segment(by_segment, drawn),
    )
    yield section(
        "What each source names",
        "Recall of what a source named and the person may get, at any place (length 0) or among "
        "its best; and what all sources together would lose without it, for no other named it.",
        _columns(
            measured.filter(pc.is_in(measured["metric"], pa.array(["named", "named_only_by"])))
            .filter((pc.field("cut") == MEAN) & (pc.field("segment_kind") == "all")),
            "metric", "kind", "length",
        ),
        _sources(measured),
    )  # fmt: skip
    yield section(
        "Cuts and settings",
        "Half-life and TIFU-KNN are tuned on a cut one horizon earlier, on what was known then.",
        pa.Table.from_pylist([_settings(cut) for cut in facts["cuts"]]),
    )


def _settings(cut: dict[str, Any]) -> dict[str, Any]:
    tuned = cut["tuned"]
    return {
        "cut": cut["cut"][:10], "people": cut["people"],
        "buyers without a history": cut["without_history"],
        "half-life, days": tuned["half_life_days"],
        **{name.replace("_", " "): value for name, value in tuned["tifu"].items()},
        "tuned on people": tuned["people"], "evaluation, s": cut["seconds"],
    }  # fmt: skip


def _headline(measured: pa.Table) -> pa.Table:
    names, rows = summary.headline(measured)
    return pa.Table.from_pylist([
        {"list": ranking} | {name: cell(each) for name, each in zip(names, cells, strict=True)}
        for ranking, cells in rows.items()
    ])  # fmt: skip


def cell(each: summary.Cell) -> str:
    """A number and its interval in words."""
    if each.value is None:
        return ""
    return f"{each.value:.3f} ({each.low:.3f} to {each.high:.3f})"


def _columns(rows: pa.Table, *names: str) -> pa.Table:
    ends = ("value", "low", "high", "difference", "difference_low", "difference_high")
    return rows.select(["ranking", *names, *ends]).rename_columns(["list", *names, *ends])


def _wide(rows: pa.Table) -> pa.Table:
    """A row per list and length, a column per measure: numbers with their intervals."""
    found: dict[tuple[str, int], dict[str, str]] = {}
    for row in rows.to_pylist():
        mine = found.setdefault((row["ranking"], row["length"]), {})
        if row["value"] is not None:
            mine[row["metric"].replace("_", " ")] = (
                f"{row['value']:.4g} ({row['low']:.4g} to {row['high']:.4g})"
            )
    return pa.Table.from_pylist([
        {"list": ranking, "length": length, **cells} for (ranking, length), cells in found.items()
    ])  # fmt: skip


def _intervals(rows: pa.Table, across: str) -> str:
    known = rows.filter(pc.is_valid(rows["value"])).sort_by([("value", "descending")])
    columns = (known[name].to_pylist() for name in ("ranking", "value", "low", "high"))
    return plots.intervals(*columns, across=across)


def _drawn(lists: pa.Table, length: int) -> list[str]:
    """The first published list, and the best simple methods behind it."""
    whole = pick(lists, cut=MEAN, metric="ndcg", kind="all", length=length, new_only=False)
    ordered = whole.sort_by([("value", "descending")]).to_pylist()
    published = [row["ranking"] for row in ordered if row["role"] == "published"][:1]
    others = [row["ranking"] for row in ordered if row["role"] == "baseline"]
    return [*published, *others][:DRAWN]


def _over_cuts(lists: pa.Table, drawn: list[str], length: int) -> str:
    rows = pick(lists, metric="ndcg", kind="all", length=length, new_only=False)
    rows = rows.filter(pc.field("cut") != MEAN)
    cuts = pc.unique(rows["cut"]).to_pylist()
    series = {}
    for name in drawn:
        mine = rows.filter(pc.field("ranking") == name)
        series[name] = tuple(mine[end].to_pylist() for end in ("value", "low", "high"))
    return plots.lines(range(len(cuts)), "cut", f"NDCG@{length}", cuts, **series)


def _by_segment(rows: pa.Table, drawn: list[str]) -> str:
    names: list[str] = []
    series = {}
    for name in drawn[:2]:
        mine = rows.filter(pc.field("ranking") == name)
        kinds = zip(mine["segment_kind"].to_pylist(), mine["segment"].to_pylist(), strict=True)
        names = [f"{kind}: {segment}" for kind, segment in kinds]
        value, low, high = (mine[end].to_pylist() for end in ("value", "low", "high"))
        series[name] = (value, low, high)
    return plots.beside(names, "NDCG", **series)


def _sources(measured: pa.Table) -> str:
    rows = pick(measured, cut=MEAN, kind="all", length=0).filter(pc.field("role") == "source")
    alone = {row["ranking"]: row["value"] for row in rows.to_pylist() if row["metric"] == "named"}
    only = {
        row["ranking"]: row["value"] for row in rows.to_pylist()
        if row["metric"] == "named_only_by"
    }  # fmt: skip
    return plots.bars(
        list(only), "recall of all purchases", alone=[alone[name] or 0.0 for name in only],
        lost_without_it=[value or 0.0 for value in only.values()],
    )  # fmt: skip
