"""The page of the four audits: what was found, what it means, and what to do about it.

Turns the audit tables of a run date into sections; ``jobs.pages.docs`` renders them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.pages import plots

TABLES = (
    "signal_freshness", "feed_freshness", "identity_coverage", "promises", "conversion_windows",
)  # fmt: skip
SHOWN = 30  # rows of a plot
RELEASES_SHOWN = 14
AGES = "last_event_age"
MEASURES = {
    AGES: "last signal, by when it happened",
    "last_received_age": "last signal, by when it was received",
    "signal_age_weighted": "all signals, by their weight",
    "time_to_release": "last signal to the release",
}
POPULATIONS = {
    "persons": "persons seen", "active persons": "active persons",
    "revenue": "money spent", "groups": "people who get a list",
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A plot, a table, or both, under a caption."""

    caption: str
    rows: pa.Table | None = None
    plot: str = ""


@dataclass(frozen=True)
class Section:
    """One audit: what it means in plain words, what to do, and what it shows."""

    title: str
    means: str
    do: str
    parts: list[Part] = field(default_factory=list)


def headlines(read: Mapping[str, pa.Table]) -> Iterator[tuple[str, str]]:
    """(name, value) of what a person looks at first."""
    ages = {(r["measure"], r["population"]): r for r in read["signal_freshness"].to_pylist()}
    for how in ("measured", "unclear", "assumed"):
        if ("drift_window", how) in ages:
            yield f"drift window, {how}", f"{ages['drift_window', how]['median']:.3g} days"
    if (AGES, "active") in ages:
        row = ages[AGES, "active"]
        yield f"median age of the last signal of {row['people']:,} active people", _days(row)
    late = pc.sum(read["feed_freshness"]["late"]).as_py()
    yield f"of {read['feed_freshness'].num_rows} feeds late", str(late or 0)
    shares = _shares(read["identity_coverage"])
    for stage in ("before merging", "after merging"):
        row = shares.get(("active persons", stage, "any"))
        if row is not None:
            yield f"of active persons are split {stage}", f"{row['share']:.1%}"
    row = shares.get(("groups", "after merging", "any"))
    if row is not None:
        yield "people who would be served two lists", f"{row['split']:,.0f}"
    kept = [
        r for r in read["promises"].to_pylist()
        if (r["ranking"], r["slice_kind"]) == ("published", "all") and r["gap"] is not None
    ]  # fmt: skip
    if kept:
        row = max(kept, key=lambda r: r["released"])
        said = f"{row['promised']:.3f} → {row['realised']:.3f}"
        yield f"NDCG@10 promised and come true, {row['released']:%Y-%m-%d}", said
    lost = [r for r in read["conversion_windows"].to_pylist() if r["conversions"]]
    if lost:
        decided = sum(r["conversions"] * r["decided_before"] for r in lost)
        share = decided / sum(r["conversions"] for r in lost)
        yield "of conversions were decided before a list could know", f"{share:.0%}"


def sections(read: Mapping[str, pa.Table]) -> Iterator[Section]:
    """The four audits."""
    yield freshness(read["signal_freshness"], read["feed_freshness"])
    yield coverage(read["identity_coverage"])
    yield promises(read["promises"])
    yield conversions(read["conversion_windows"])


# --- freshness -------------------------------------------------------------------------------
def freshness(signals: pa.Table, feeds: pa.Table) -> Section:
    rows = signals.to_pylist()
    window = next((r for r in rows if r["measure"] == "drift_window"), None)
    limit = None if window is None else (window["median"], f"drift window, {window['population']}")
    ages = [r for r in rows if r["measure"] == AGES][:SHOWN]
    of_active = [r for r in rows if r["population"] == "active" and r["measure"] in MEASURES]
    shown = feeds.to_pylist()[:SHOWN]
    parts = [
        Part(
            "Age in days of the last signal: the dot is the median person, the line reaches to the "
            "oldest of 95 in 100.",
            plot=_spans(ages, [r["population"] for r in ages], limit),
        ),
        Part(
            "Each clock, over all active people. Only the first is held against the window; the "
            "weighted age of all signals is rightly months in a shop where habits last.",
            _columns(
                [r | {"measure": MEASURES[r["measure"]]} for r in of_active],
                "measure", "people", "median", "p95", "unit",
            ),
        ),
        Part(
            "Feeds: days since the newest event, and the days within which 95 in 100 events arrive."
            + (f" The first {SHOWN} of {feeds.num_rows}." if feeds.num_rows > SHOWN else ""),
            _columns(
                shown, "event_type", "source", "channel", "events", "recent", "age_hours",
                "usual_gap_hours", "lag_median_hours", "lag_p95_hours", "late", "reason",
            ),
            plots.bars(
                [" ".join(filter(None, (r["event_type"], r["source"], r["channel"])))
                 for r in shown],
                "days", limit,
                silent=[r["age_hours"] / 24 for r in shown],
                arriving=[r["lag_p95_hours"] / 24 for r in shown],
            ) if shown else "",
        ),
    ]  # fmt: skip
    return Section(
        "Are the signals fresh?",
        "Lists rank what people did. Once their last signal is older than the time in which "
        "behaviour drifts, lists rank what they used to want.",
        "Where the gate is red, mend the feed that it names and run the night again; a feed that "
        "was ended on purpose is named in audits.ended_feeds. Where the window is assumed, run "
        "make staleness; where it is unclear, run it on more cuts or people.",
        parts,
    )


def _spans(rows: list[dict[str, Any]], names: list[str], limit: tuple[float, str] | None) -> str:
    if not rows:
        return ""
    middles = [r["median"] for r in rows]
    return plots.intervals(
        names, middles, middles, [r["p95"] for r in rows], across="days", limit=limit
    )


# --- identity --------------------------------------------------------------------------------
def coverage(rows: pa.Table) -> Section:
    shares = _shares(rows)
    names = [name for name in POPULATIONS if (name, "after merging", "any") in shares]
    if not any(row["split"] for (_, _, by), row in shares.items() if by == "any"):
        names = []
    plot = plots.bars(
        [POPULATIONS[name] for name in names], "share that is split",
        before=[shares[name, "before merging", "any"]["share"] for name in names],
        after=[shares[name, "after merging", "any"]["share"] for name in names],
    ) if names else ""  # fmt: skip
    table = []
    for (population, stage, by), after in shares.items():
        before = shares.get((population, "before merging", by))
        if stage == "before merging" or before is None or not (before["split"] or after["split"]):
            continue
        table.append({
            "of": POPULATIONS.get(population, population), "reason": by,
            "before": before["split"], "share before": before["share"],
            "after": after["split"], "share after": after["share"], "of all": after["total"],
        })  # fmt: skip
    none = "" if table else " No link in this shop's data ties two of its keys."
    return Section(
        "Is one customer one person?",
        "A person is split where the data's own links tie two keys together that are still two "
        "persons: each list then knows a part of what the customer did, and who is active under "
        "both gets two lists. Reasons: exact (links that merging admits), guess (too unsure), "
        "source (one that the policy does not know), cap (a key that too many share), conflict "
        "(two accounts); anonymous is who has no account at all." + none,
        "Guesses need a better link, such as a login. Caps and conflicts need a look at the shared "
        "key. What is split by exact links after merging is a fault.",
        [
            Part("Split for any reason, before and after merging." if plot else "", plot=plot),
            Part("", pa.Table.from_pylist(table) if table else None),
        ],
    )


def _shares(rows: pa.Table) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {(r["population"], r["stage"], r["by"]): r for r in rows.to_pylist()}


# --- promises --------------------------------------------------------------------------------
def promises(table: pa.Table) -> Section:
    rows = table.to_pylist()
    newest = _newest(rows)
    whole = [r for r in rows if r["slice_kind"] == "all"]
    latest = [r for r in whole if r["released"] == newest and (r["realised"] or r["promised"])]
    parts = []
    if latest:
        parts.append(Part(
            f"The release of {newest:%Y-%m-%d %H:%M} UTC, after {latest[0]['horizon_days']:.3g} "
            f"days: NDCG@10 by ranking, of {latest[0]['people']:,} buyers. A gap is given once as "
            "many days have passed as the promise was judged on.",
            _columns(latest, "ranking", "people", "promised", "realised", "realised_low",
                     "realised_high", "gap", "gap_low", "gap_high", "final", "flag"),
            plots.beside(
                [r["ranking"] for r in latest], "NDCG@10",
                promised=_triples(latest, "promised"), realised=_triples(latest, "realised"),
            ),
        ))  # fmt: skip
    over = [r for r in whole if r["ranking"] == "published" and r["gap"] is not None]
    over = over[-RELEASES_SHOWN:]
    if len(over) > 1:
        parts.append(Part(
            "What was published, release by release.",
            _columns(over, "released", "horizon_days", "people", "promised", "realised", "gap",
                     "gap_low", "gap_high", "final", "flag"),
            plots.lines(
                list(range(len(over))), "released", "NDCG@10",
                [f"{r['released']:%m-%d}" for r in over],
                promised=_triples(over, "promised"), realised=_triples(over, "realised"),
            ),
        ))  # fmt: skip
    slices = [
        r for r in rows
        if (r["released"], r["ranking"]) == (newest, "published") and r["slice_kind"] != "all"
    ][:SHOWN]  # fmt: skip
    if slices:
        parts.append(Part(
            "The same lists, by kind of people.",
            _columns(slices, "slice_kind", "slice", "people", "promised", "realised",
                     "realised_low", "realised_high", "gap", "gap_low", "gap_high", "flag"),
            plots.beside(
                [f"{r['slice_kind']}: {r['slice']}" for r in slices], "NDCG@10",
                promised=_triples(slices, "promised"), realised=_triples(slices, "realised"),
            ),
        ))  # fmt: skip
    none = "" if rows else " No earlier release is old enough yet."
    return Section(
        "Did releases keep their promises?",
        "Each night promises an NDCG@10, judged on the days before it. Here stands what its lists "
        "then reached on what people bought. Published lists are filtered and filled by quota and "
        "the promised ranking is not, so a steady gap is the price of the rules." + none,
        "A gap that widens is flagged. pipeline: the model is as it was, so look at late feeds, "
        "split people and features. model: it changed as well, so look at the embeddings and the "
        "blend. broken: there is no earlier release to compare with.",
        parts,
    )


def _newest(rows: list[dict[str, Any]]) -> datetime | None:
    """The newest release whose gap is known, else the newest."""
    judged = [r["released"] for r in rows if r["gap"] is not None]
    return max(judged or (r["released"] for r in rows), default=None)


def _triples(rows: list[dict[str, Any]], name: str) -> tuple[list[Any], list[Any], list[Any]]:
    middle, low, high = (
        [r[column] for r in rows] for column in (name, f"{name}_low", f"{name}_high")
    )
    return middle, low, high


# --- conversions -----------------------------------------------------------------------------
def conversions(table: pa.Table) -> Section:
    found = [r for r in table.to_pylist() if r["conversions"]]
    found.sort(key=lambda r: (-r["conversions"], r["category"]))
    shown = [r | {"category": r["category"] or "(no category)"} for r in found[:SHOWN]]
    parts = []
    if shown:
        # A logarithmic axis has no zero: what took less than a minute took a minute.
        least = 1 / 60
        windows = [
            [max(r[f"window_{name}_hours"], least) for r in shown]
            for name in ("median", "p25", "p75")
        ]
        parts.append(Part(
            "From the first signal to the purchase: the dot is the median conversion, the "
            "line holds the middle half. The diamond is when a list made from that signal is "
            "served."
            + (f" The {SHOWN} largest of {len(found)}." if len(found) > SHOWN else ""),
            _columns(shown, "category", "conversions", "window_median_hours", "window_p25_hours",
                     "window_p75_hours", "serving_median_hours", "decided_before",
                     "revenue_share", "late"),
            plots.intervals(
                [r["category"] for r in shown], *windows, hours=True,
                marks=([max(r["serving_median_hours"], least) for r in shown], "served"),
            ),
        ))  # fmt: skip
    none = (
        ""
        if shown
        else " In these data nobody looked at anything before buying it: a shop that logs "
        "purchases alone cannot say when people decide. Log views, clicks and carts to learn it."
    )
    return Section(
        "Do lists come before the decision?",
        "A list can only help a purchase that is still open. Where most people buy sooner after "
        "their first signal than a list made from it is served, the list comes after the "
        "decision." + none,
        "Late categories need a faster path: hourly runs, or ranking within the session from "
        "similar items. Nightly lists still serve the next purchase there.",
        parts,
    )


def _columns(rows: list[dict[str, Any]], *names: str) -> pa.Table | None:
    return pa.Table.from_pylist([{n: r[n] for n in names} for r in rows]) if rows else None


def _days(row: Mapping[str, Any]) -> str:
    return f"{row['median']:.3g} {row['unit']}"
