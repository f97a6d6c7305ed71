"""The report of a run date: what its release reached, from the published tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs import io, tables
from jobs.io import Lake
from jobs.pages import plots
from jobs.pages.sections import section, text

STRATA_SHOWN = 30


def shown(lake: Lake, label: str) -> dict[str, Any]:
    """What the page ``report.html`` shows of a run date; only what is published."""
    read = {
        name: rows
        for name in (
            "ranking_evidence", "reliability", "feature_importance", "blend_weights", "delivery",
            "shortfalls", "index_recall", "events_counts", "events_volume", "candidate_counts",
            "embedding_report", "identity_counts",
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
        ("places of lists", "recommendations"), ("places beside items", "item_lists"),
    ):  # fmt: skip
        rows = _rows(lake, label, table)
        if rows is not None:
            yield {"name": name, "value": f"{rows:,}"}
    if "ranking_evidence" in read:
        reached = read["ranking_evidence"].to_pylist()
        others = [row for row in reached if row["ranking"] in tables.SOURCES]
        for row in reached:
            if row["published"] and row["ranking"] != "prior":
                name = f"NDCG@10 of what is published, the {row['ranking']}"
                yield {"name": name, "value": text(row["ndcg_at_10"])}
        if others:
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
    if "ranking_evidence" in read:
        rows = read["ranking_evidence"].sort_by([("ndcg_at_10", "descending")])
        plot = plots.intervals(
            rows["ranking"].to_pylist(), rows["ndcg_at_10"].to_pylist(),
            rows["ndcg_low"].to_pylist(), rows["ndcg_high"].to_pylist(),
        )  # fmt: skip
        yield section(
            "What is published beside each source",
            "NDCG@10 with its interval, on purchases after the newest cut, by what was learned at "
            "the cuts before it. new_ndcg_at_10 is of lists of what is new to the person; "
            "difference_low is the low end of the paired difference to the best single source.",
            rows, plot,
        )  # fmt: skip
    if "reliability" in read:
        rows = read["reliability"]
        plot = plots.bars(
            [str(number) for number in rows["bin"].to_pylist()],
            foretold=rows["predicted"].to_pylist(), bought=rows["bought"].to_pylist(),
        )  # fmt: skip
        yield section(
            "Reliability of the probabilities",
            "Candidates in tenths by their probability of a purchase in the days after the newest "
            "cut, as foretold by what was learned before it and calibrated on the other half of "
            "the people, beside the share that was bought.",
            rows, plot,
        )  # fmt: skip
    if "feature_importance" in read:
        rows = read["feature_importance"].sort_by([("gain", "descending")]).slice(0, STRATA_SHOWN)
        yield section(
            "What the ranker looks at",
            "Share of the trees' gain or, where a network ranks, of what its log loss rises by "
            "where a feature's values are dealt anew among candidates; the first "
            f"{STRATA_SHOWN} of {len(tables.FEATURES)} features.",
            rows, plots.bars(rows["feature"].to_pylist(), gain=rows["gain"].to_pylist()),
        )  # fmt: skip
    if "blend_weights" in read:
        yield section("Weights of the blend", "How much each source's word counts.",
                       read["blend_weights"])  # fmt: skip
    if "delivery" in read:
        for surface in pc.unique(read["delivery"]["surface"]).to_pylist():
            rows = read["delivery"].filter(pc.field("surface") == surface)
            plot = plots.bars(
                rows["source"].to_pylist(), intended=rows["intended"].to_pylist(),
                delivered=rows["delivered"].to_pylist(),
            )  # fmt: skip
            yield section(
                f"Delivery on {surface}",
                "The least share of a list meant for each source, and the share of places whose "
                "item it named.",
                rows.drop_columns(["surface"]), plot,
            )  # fmt: skip
    if "shortfalls" in read:
        yield section("Shortfalls", "How lists were topped up or stayed short.",
                       read["shortfalls"])  # fmt: skip
    if "index_recall" in read:
        rows = read["index_recall"].slice(0, STRATA_SHOWN)
        names = [f"{r['kind']}: {r['stratum']}" for r in rows.to_pylist()]
        yield section(
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
            yield section(title, words, read[name])
