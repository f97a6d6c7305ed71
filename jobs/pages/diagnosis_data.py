"""Sections of the diagnosis up to the model's door: agreed, logged, earned, and computed again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from jobs.diagnosis.kpis.kpi_cells import NOT_OF_VISITS
from jobs.diagnosis.log import intake
from jobs.diagnosis.replay.promises import PROMISES
from jobs.diagnosis.replay.replay import SHARE
from jobs.pages import plots
from jobs.pages.audits import Part, Section
from jobs.pages.evidence import SHOWN, Run, part, triples
from jobs.pages.sections import text

ALL = "all"
RELEASES_PLOTTED = 10
# Measures that grow with the days they are counted over.
COUNTS = ("requests", "visits", "visitors", "coverage")
CURRENT, REFERENCE, LAST_YEAR = "current", "reference", "last_year"
SAME = (
    "features_same", "hash_same", "version_same", "score_same", "order_same",
    "rebuilt_features_same", "rebuilt_lists_same",
)  # fmt: skip


# --- definitions -----------------------------------------------------------------------------
def definitions(run: Run) -> Section:
    rows = run.rows("definitions")
    faults = [{"name": row["name"], "fault": row["fault"]} for row in rows if row["fault"]]
    agreed = [
        {"name": row["name"], "value": _said(json.loads(row["value"]))}
        for row in rows
        if not row["fault"] and row["value"]
    ]
    parts = [part("The agreement, as the metrics file has it.", agreed)]
    if faults:
        parts.insert(0, part("What is wrong with the metrics file.", faults))
    return Section(
        "What was agreed",
        "Everything below is judged by these definitions alone. There are no defaults: what the "
        "file leaves out, or says in two ways, stops the run here.",
        "Where something is wrong, the people who own the number decide and write it in the "
        "metrics file; no step guesses it.",
        parts,
    )


def definition(run: Run, name: str) -> Any:
    """What was agreed under this name; None where nothing was."""
    for row in run.rows("definitions"):
        if row["name"] == name and row["value"]:
            return json.loads(row["value"])
    return None


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_said(one)}" for name, one in value.items())
    if isinstance(value, list):
        return "; ".join(_said(one) for one in value) or "none"
    return "none" if value is None else str(value)


# --- served ----------------------------------------------------------------------------------
def served(run: Run) -> Section:
    rows = run.rows("log_counts")
    counted = [
        row for row in rows
        if row["period"] == CURRENT and row["outcome"] not in (intake.READ, intake.KEPT)
    ]  # fmt: skip
    shares = [row["share"] for row in counted]
    limits = [intake.LIMITS.get(row["outcome"], float("nan")) for row in counted]
    plot = plots.intervals(
        [row["outcome"] for row in counted], shares, shares, shares,
        across="share", marks=(limits, "limit"),
    ) if counted else ""  # fmt: skip
    return Section(
        "What the log tells",
        "Of every row of the recommendation log, what became of it. What cannot be used is "
        "counted here and is in none of the numbers below.",
        "Rows beyond a limit mean that serving does not write what it does. Mend the log first; "
        "no other number can be trusted before.",
        [
            part(
                "The dot is the share of the current period, the diamond the limit where there is "
                "one.",
                rows,
                plot=plot,
            )
        ],
    )


# --- kpis ------------------------------------------------------------------------------------
def kpis(run: Run) -> Section:
    rows = run.rows("kpis")
    whole = _by_period(rows, lambda row: row["group_kind"] == row["segment_kind"] == ALL)
    agreed = definition(run, "kpi")
    parts = [part(
        "Everybody: the last weeks beside the weeks right before, which are 1 in the plot. Lines "
        "are 95 % intervals.",
        [row for (*_, measure), found in whole.items() for row in [_beside(measure, found)]],
        plot=_relative({measure: found for (*_, measure), found in whole.items()}),
    )]  # fmt: skip
    for caption, chosen in (
        ("By group: surfaces, arms of experiments, and the answers that are personal beside those "
         "that are a fallback.",
         lambda row: row["group_kind"] != ALL and row["segment_kind"] == ALL),
        ("By segment of the people.",
         lambda row: row["group_kind"] == ALL and row["segment_kind"] != ALL),
    ):  # fmt: skip
        found = {
            _cell(key): periods
            for key, periods in _by_period(rows, chosen).items()
            if key[-1] == agreed
        }
        if found:
            parts.append(part(
                f"{caption} The agreed KPI, {agreed.replace('_', ' ')}.",
                [_beside(name, periods) for name, periods in found.items()],
                plot=_relative(dict(list(found.items())[:SHOWN])),
            ))  # fmt: skip
    parts += _against_baseline(run)
    left_out = [name for name in definition(run, "segments") or () if name in NOT_OF_VISITS]
    if left_out:
        parts.append(part(
            f"KPIs are not told by {' and '.join(left_out)}, which a visit has several of; the "
            "slices that lose most are, by place.", (), none="",
        ))  # fmt: skip
    return Section(
        "What the business sees",
        "The KPIs of the last weeks and of whole weeks right before them, so that weekdays weigh "
        "alike. An interval that does not reach the other period's dot is a change to look at.",
        "A sudden drop is looked for in volume first: lost requests, answers or events make every "
        "rate wrong.",
        parts,
    )


def _against_baseline(run: Run) -> Iterator[Part]:
    agreed = str(definition(run, "baseline")).replace("_", " ")
    rows = run.rows("baseline_verdicts")
    rows.sort(key=lambda row: (row["segment_kind"] != ALL, row["segment_kind"], row["segment"]))
    yield part(
        f"Against the baseline, {agreed}: the agreed KPI of visits with the model's answers alone "
        "and with the baseline's alone, on the same days. Who gets which is not drawn by lot: a "
        "stranger gets a fallback.",
        rows, "segment_kind", "segment", "verdict", "model", "baseline", "gain", "low", "high",
        "visits_model", "visits_baseline", "sentence",
    )  # fmt: skip
    if gains := run.rows("model_gains"):
        yield part(
            "Like with like, from the chances in the log: what a request would bring in the "
            "model's order and in that by popularity, of the same candidates.",
            sorted(gains, key=lambda row: row["surface"]), "surface", "verdict", "reward", "model",
            "popularity", "gain", "low", "high", "sentence",
        )  # fmt: skip


def agreed_kpi(run: Run) -> Iterator[tuple[str, str]]:
    """(name, value) of the agreed KPI now, beside the weeks before."""
    agreed = definition(run, "kpi")
    found = _by_period(
        run.rows("kpis"),
        lambda row: row["group_kind"] == row["segment_kind"] == ALL and row["measure"] == agreed,
    )
    for periods in found.values():
        if CURRENT in periods:
            was = periods.get(REFERENCE)
            before = f" (weeks before: {text(was['value'])})" if was else ""
            yield f"{agreed.replace('_', ' ')}{before}", text(periods[CURRENT]["value"])


def _by_period(
    rows: list[dict[str, Any]], chosen: Callable[[dict[str, Any]], bool]
) -> dict[tuple[str, ...], dict[str, dict[str, Any]]]:
    """By group, segment and measure, the rows of the periods."""
    found: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    for row in rows:
        if chosen(row):
            names = ("group_kind", "group", "segment_kind", "segment", "measure")
            found.setdefault(tuple(row[name] for name in names), {})[row["period"]] = row
    return found


def _cell(key: tuple[str, ...]) -> str:
    group_kind, group, segment_kind, segment, _ = key
    return f"{segment_kind}: {segment}" if group_kind == ALL else f"{group_kind}: {group}"


def _beside(name: str, periods: dict[str, dict[str, Any]]) -> dict[str, Any]:
    now, was = periods.get(CURRENT), periods.get(REFERENCE)
    change = None
    if now and was and was["value"]:
        change = f"{now['value'] / was['value'] - 1:+.1%}"
    row: dict[str, Any] = {"of": name.replace("_", " ")}
    for period in (CURRENT, REFERENCE, LAST_YEAR):
        one = periods.get(period, {})
        row |= {period: one.get("value"), f"{period}_low": one.get("low"),
                f"{period}_high": one.get("high")}  # fmt: skip
    return row | {"change": change, "visits": now["visits"] if now else None}


def _relative(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Each measure in multiples of its reference; counts are of periods of unlike lengths."""
    kept = {
        name: periods for name, periods in found.items()
        if REFERENCE in periods and periods[REFERENCE]["value"] and name not in COUNTS
    }  # fmt: skip
    if not kept:
        return ""
    series: dict[str, tuple[list[Any], list[Any], list[Any]]] = {}
    for period, label in ((REFERENCE, "weeks before"), (CURRENT, "now"), (LAST_YEAR, "last year")):
        rows = [
            {end: _times(periods.get(period), end, periods[REFERENCE]["value"])
             for end in ("value", "low", "high")}
            for periods in kept.values()
        ]  # fmt: skip
        if any(row["value"] is not None for row in rows):
            series[label] = triples(rows, "value")
    return plots.beside(
        [name.replace("_", " ") for name in kept],
        "times the weeks before",
        (1.0, "no change"),
        **series,
    )


def _times(row: dict[str, Any] | None, name: str, base: float) -> float | None:
    return None if row is None or row[name] is None else row[name] / base


# --- replay ----------------------------------------------------------------------------------
def replay(run: Run) -> Section:
    rows = sorted(run.rows("replayed"), key=lambda row: row["night"], reverse=True)
    names = [name for name in SAME if any(row[name] is not None for row in rows)]
    worst = [max(1 - row[name] for row in rows if row[name] is not None) for name in names]
    newest = [next(1 - row[name] for row in rows if row[name] is not None) for name in names]
    differing = plots.bars(
        [name.replace("_same", "").replace("_", " ") for name in names],
        "share that differs", (SHARE, f"limit, {SHARE:.1%}"), newest=newest, worst=worst,
    ) if names else ""  # fmt: skip
    kept = [row for row in rows if row["promised"] is not None or row["realised"] is not None]
    return Section(
        "Was it served as it was computed?",
        "What serving answered is held against what the release published, and against what the "
        "night's own code makes of the night's own tables again.",
        "Where something differs, serving computes on its own what it should read. Compare the "
        "features named below at one request, on both sides.",
        [
            part("Of the newest release, and of the worst one: the share that differs.",
                 rows, "night", "requests", "places", "compared", "unpublished", *SAME,
                 "rebuilt_people", plot=differing,
                 none="No release of the lake served in these weeks."),
            *_promised(run, kept[:SHOWN]),
            _features_served(run),
        ],
    )  # fmt: skip


def _promised(run: Run, rows: list[dict[str, Any]]) -> Iterator[Part]:
    if not rows:
        return
    name = metric_name(run)
    known = " and ".join(f"{metric}@{at}" for metric, at in PROMISES)
    without = all(row["promised"] is None for row in rows)
    yield part(
        f"{name} of each release, of visitors who bought in the promised horizon after its first "
        "list, and of all that they bought; none where the horizon is not over. "
        + (f"Nights promise {known} alone, so that nothing is held against a promise." if without
           else "Promised by its night is the same metric, before filters and rules. What is below "
           "it, all releases together and beyond the interval, is a warning."),
        rows, "night", "promised", "realised", "realised_low", "realised_high",
        plot=promises(
            rows[:RELEASES_PLOTTED][::-1], name,
            [row["night"][5:10] for row in rows[:RELEASES_PLOTTED][::-1]],
        ),
    )  # fmt: skip


def promises(rows: list[dict[str, Any]], name: str, days: list[str]) -> str:
    """Promised and realised over releases, the oldest first, each with its day."""
    return plots.lines(
        list(range(len(rows))), "release", name, days,
        promised=triples(rows, "promised", "promised", "promised"),
        realised=triples(rows, "realised", "realised_low", "realised_high"),
    ) if rows else ""  # fmt: skip


def metric_name(run: Run) -> str:
    """The agreed metric of the model."""
    agreed = definition(run, "model_metric")
    return f"{agreed['name']}@{agreed['at']}" if agreed else "model metric"


def _features_served(run: Run) -> Part:
    every = run.rows("replay_features")
    rows = sorted(
        (row for row in every if row["differs"] + row["missing"] > 0),
        key=lambda row: (-row["differs"] - row["missing"], row["feature"]),
    )
    shown = rows[:SHOWN]
    plot = plots.bars(
        [row["feature"] for row in shown], "share of places", (SHARE, f"limit, {SHARE:.1%}"),
        differs=[row["differs"] for row in shown], missing=[row["missing"] for row in shown],
    ) if shown else ""  # fmt: skip
    return part(
        "Features that were served other than published.", rows, plot=plot,
        none=f"All {len(every):,} features were served as published." if every
        else "No feature could be compared.",
    )  # fmt: skip


SECTIONS: dict[str, Callable[[Run], Section]] = {
    "definitions": definitions, "served": served, "kpis": kpis, "replay": replay,
}  # fmt: skip
