"""Sections of the diagnosis on what the model sees and learns from: parity to labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from jobs.diagnosis.parity.parity import AT_LARGE, NIGHT_SERVED
from jobs.pages import plots
from jobs.pages.audits import Part, Section
from jobs.pages.diagnosis_data import CURRENT, REFERENCE, definition
from jobs.pages.evidence import Run, part, triples

PLOTTED = 20  # bars or dots of a plot; more are in the table
PLACES_PLOTTED = 20


# --- parity ----------------------------------------------------------------------------------
def parity(run: Run) -> Section:
    rows = run.rows("feature_parity")
    rows.sort(key=lambda row: (row["finding"] is None, -(row["psi"] or 0.0), row["feature"]))
    return Section(
        "Does the model see what it learned from?",
        "Every feature in training, in the backtest that the night promises by (the newest cut of "
        "its examples), in the published night and as it was served, side by side. "
        "Served places are the top of lists and training rows are not, so that a high PSI or KS "
        "alone is no fault; what no selection does is: another unit, a default, a value that is "
        "missing, a name that gave way to another.",
        "Go by the findings from the top. A fault between night and served is in serving; one "
        "between training, backtest and the night is in how features are made.",
        [
            part("By how much a feature is missing, or is one single value, more often as served "
                 "than as published.", (), plot=_rises(rows), none="" if rows else
                 "Nothing could be compared."),
            part("Features, those with a finding first, then by PSI.", rows,
                 "feature", "pair", "finding", "psi", "ks", "missing_left", "missing_right",
                 "constant_left", "constant_share_left", "constant_right", "constant_share_right",
                 "scale_ratio", "auc_left", "auc_right", "rows_left", "rows_right"),
            _categories(run),
        ],
    )  # fmt: skip


def _rises(rows: list[dict[str, Any]]) -> str:
    found = [
        (
            row["feature"],
            row["missing_right"] - row["missing_left"],
            row["constant_share_right"] - row["constant_share_left"],
        )
        for row in rows
        if row["pair"] == NIGHT_SERVED
    ]
    found.sort(key=lambda one: -max(one[1:]))
    shown = found[:PLOTTED]
    return plots.bars(
        [name for name, *_ in shown], "points more, as a share of rows",
        (AT_LARGE, f"limit, {AT_LARGE:.0%}"),
        missing=[missing for _, missing, _ in shown], constant=[one for *_, one in shown],
    ) if shown else ""  # fmt: skip


def _categories(run: Run) -> Part:
    rows = run.rows("category_parity")
    rows.sort(key=lambda row: (
        row["finding"] is None,
        -abs((row["share_current"] or 0.0) - (row["share_reference"] or 0.0)), row["category"],
    ))  # fmt: skip
    shown = [
        row for row in rows
        if row["share_reference"] is not None and row["share_current"] is not None
    ][:PLOTTED]  # fmt: skip
    plot = plots.bars(
        [row["category"] for row in shown], "share of what was served",
        before=[row["share_reference"] for row in shown],
        now=[row["share_current"] for row in shown],
    ) if shown else ""  # fmt: skip
    return part(
        "Categories, those that came, went or were renamed first.", rows, "category", "finding",
        "renamed_to", "items_moved", "share_reference", "share_current", "catalogue_then",
        "catalogue_now", "level", plot=plot,
    )  # fmt: skip


# --- drift -----------------------------------------------------------------------------------
def drift(run: Run) -> Section:
    inputs = run.rows("feature_drift")
    inputs.sort(key=lambda row: (not row["drifted"], -(row["psi"] or 0.0), row["feature"]))
    limit = run.params("drift").get("psi")
    shown = sorted(inputs, key=lambda row: -(row["psi"] or 0.0))[:PLOTTED]
    year = any(row["psi_last_year"] is not None for row in shown)
    series = {"now": [row["psi"] or 0.0 for row in shown]}
    if year:
        series["a year ago"] = [row["psi_last_year"] or 0.0 for row in shown]
    plot = plots.bars(
        [row["feature"] for row in shown], "PSI against the weeks before",
        (limit, f"limit, {limit:g}") if limit else None, **series,
    ) if shown else ""  # fmt: skip
    return Section(
        "What has changed?",
        "Three changes are told apart. Covariate drift: other inputs come. Label drift: at equal "
        "inputs, people buy at another rate. Concept drift: at equal inputs, others buy than did. "
        "An input that moved to where it was a year ago is season.",
        "Inputs that moved ask whether it is meant (a campaign, a new market). Another rate asks "
        "for calibration. Another order asks for training on newer outcomes.",
        [
            part("Inputs, those that drifted first.", inputs, "feature", "typed", "psi",
                 "psi_last_year", "ks", "shift", "q_value", "missing_before", "missing_after",
                 "auc_before", "auc_after", "drifted", "seasonal", "rows_before", "rows_after",
                 plot=plot),
            _outcomes(run),
        ],
    )  # fmt: skip


def _outcomes(run: Run) -> Part:
    rows = run.rows("outcome_drift")
    rows.sort(key=lambda row: (not row["moved"], -_beyond(row["change"], row["limit"])))
    shown = [row for row in rows if None not in (row["change"], row["low"], row["high"])][:PLOTTED]
    # The limit is of the change's size; it is drawn on the side to which the change goes.
    limits = [
        math.copysign(row["limit"], row["change"]) if row["limit"] else math.nan for row in shown
    ]
    plot = plots.intervals(
        [_slice(row) for row in shown], *triples(shown, "change"), across="change",
        limit=(0.0, "no change"), marks=(limits, "limit"),
    ) if shown else ""  # fmt: skip
    return part(
        "Outcomes: the change with its interval, and the diamond beyond which it counts.", rows,
        "measure", "slice_kind", "slice", "before", "after", "change", "low", "high", "limit",
        "p_value", "moved", "rows_before", "rows_after", plot=plot,
    )  # fmt: skip


def _beyond(value: float | None, limit: float | None) -> float:
    return abs(value or 0.0) / limit if limit else 0.0


def _slice(row: dict[str, Any]) -> str:
    name = str(row["measure"]).replace("_", " ")
    return name if row["slice_kind"] == "all" else f"{row['slice_kind']} {row['slice']}: {name}"


# --- leakage ---------------------------------------------------------------------------------
def leakage(run: Run) -> Section:
    probes = run.rows("leakage_probes")
    training = [row for row in probes if row["probe"] == "made_from_past"]
    rows = [row for row in probes if row["probe"] != "made_from_past"]
    rows.sort(key=lambda row: (not row["shines"], -row["value"] / row["limit"], row["feature"]))
    shown = rows[:PLOTTED]
    scaled = [
        {end: None if row[end] is None else row[end] / row["limit"]
         for end in ("value", "low", "high")}
        for row in shown
    ]  # fmt: skip
    plot = plots.intervals(
        [f"{row['feature']}, {row['probe'].replace('_', ' ')}" for row in shown],
        *triples(scaled, "value"), across="times its limit", limit=(1.0, "limit"),
    ) if shown else ""  # fmt: skip
    return Section(
        "Did a feature know the outcome?",
        "Probes that only shine where something leaked: future only (a feature that tells "
        "purchases too well by itself), training served (it tells them in training and not in "
        "serving), shuffled time (it tells its own weeks and not the weeks before), only bought "
        "(a value that purchases alone have), and features or answers stamped out of time. Beside "
        "them is the proof that a feature was known when it decided: made again from what had "
        "been received by then, it is the same.",
        "Take a feature that shines out of the model, or rebuild it as of the moment of decision, "
        "and train again: until then offline numbers are too good.",
        [
            part("The probes nearest to their limit, or beyond it.", rows, plot=plot),
            _of_the_past(run, training),
            *_bias(run),
        ],
    )


def _of_the_past(run: Run, training: list[dict[str, Any]]) -> Part:
    learned = {row["feature"]: row for row in training}
    listed = {row["feature"]: row for row in run.rows("rebuilt_features")}
    rows = []
    for name in dict.fromkeys([*learned, *listed]):
        one, other = learned.get(name), listed.get(name)
        rows.append({
            "feature": name,
            "same_in_training": None if one is None else 1 - one["value"],
            "rows_of_training": one and one["rows"],
            "same_in_lists": other and other["same"], "rows_of_lists": other and other["rows"],
        })  # fmt: skip
    rows.sort(key=lambda row: min(
        1.0 if row[name] is None else row[name] for name in ("same_in_training", "same_in_lists")
    ))  # fmt: skip
    return part(
        "Was each feature known when it decided? The share of rows of some people that are the "
        "same when made again of what had been received by then: of training before its cut, of "
        "published lists before the night. Those least alike first.",
        rows, none="Nothing could be made again: the tables of the nights are gone.",
    )  # fmt: skip


def _bias(run: Run) -> list[Part]:
    rows = run.rows("exposure_bias")
    rates = {
        outcome: [row for row in rows if row["measure"] == f"{outcome}_rate"][:PLACES_PLOTTED]
        for outcome in ("clicked", "bought")
    }
    lines = {
        outcome: ([row["place"] for row in found], *triples(found, "value"))
        for outcome, found in rates.items()
        if found
    }
    whole = [row for row in rows if row["place"] == 0]
    return [
        part(
            f"What the log could see: outcomes by the place shown, the first {PLACES_PLOTTED}. "
            "Much of the fall is where people look, and no merit of the items.",
            [row for row in rows if row["place"]],
            plot=plots.curves("place on the page", "share", **lines) if lines else "",
        ),
        part("Of the whole catalogue, and of the candidates: how much was ever shown.", whole,
             "measure", "value", "low", "high", "rows"),
    ]  # fmt: skip


# --- labels ----------------------------------------------------------------------------------
def labels(run: Run) -> Section:
    checks = run.rows("label_checks")
    checks.sort(key=lambda row: (row["passed"], row["check"], row["subject"]))
    return Section(
        "When can outcomes be believed?",
        "How long events and outcomes take to arrive, counting also those that have not arrived "
        "yet, and whether an outcome means the same in every part of the shop.",
        "Do not judge or train on outcomes younger than the maturity that they need. A check that "
        "fails asks the owner of that channel or region how it records the outcome.",
        [
            *_delays(run),
            part("What labels mean, failed checks first.", checks, "check", "subject", "passed",
                 "sentence", "before", "after", "low", "high"),
        ],
    )  # fmt: skip


def _delays(run: Run) -> list[Part]:
    agreed = definition(run, "label") or {}
    parts = []
    for population, words in (
        ("outcome", "Purchases that answer a request"), ("feed", "Events that answer no request"),
    ):  # fmt: skip
        rows = [row for row in run.rows("label_delays") if row["population"] == population]
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for row in rows:
            found.setdefault(_stream(row), {})[row["period"]] = row
        names = sorted(found, key=lambda name: -_later(found[name]))[:PLOTTED]
        limit = None
        if population == "outcome" and "maturity_days" in agreed:
            limit = (24.0 * agreed["maturity_days"], "maturity agreed")
        plot = plots.beside(
            names, "hours until arrival", limit,
            before=_reach(found, names, REFERENCE), now=_reach(found, names, CURRENT),
        ) if names else ""  # fmt: skip
        parts.append(part(
            f"{words}: the dot is the median, the line reaches to 95 in 100.",
            [row for name in sorted(found, key=lambda name: -_later(found[name]))
             for row in found[name].values()],
            plot=plot,
        ))  # fmt: skip
    return parts


def _stream(row: dict[str, Any]) -> str:
    kind = str(row["segment_kind"])
    return kind if kind == row["segment"] else f"{kind}: {row['segment']}"


def _later(periods: dict[str, dict[str, Any]]) -> float:
    """By how many hours the 95 % mark is later now."""
    now, was = periods.get(CURRENT), periods.get(REFERENCE)
    moved = now["p95"] - was["p95"] if now and was else 0.0
    return moved if math.isfinite(moved) else 0.0


def _reach(
    found: dict[str, dict[str, dict[str, Any]]], names: list[str], period: str
) -> tuple[list[Any], list[Any], list[Any]]:
    nothing = {"median_hours": None, "p95": None}
    rows = [found[name].get(period, nothing) for name in names]
    return triples(rows, "median_hours", "median_hours", "p95")


SECTIONS: dict[str, Callable[[Run], Section]] = {
    "parity": parity, "drift": drift, "leakage": leakage, "labels": labels,
}  # fmt: skip
