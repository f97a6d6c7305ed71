"""Sections of the diagnosis on what is made of the scores: decisions, slices, policies, pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jobs.diagnosis.decisions.calibration import GROSS
from jobs.diagnosis.decisions.losses import KEPT
from jobs.diagnosis.log.adoption import OF_ANSWERS
from jobs.pages import plots
from jobs.pages.audits import Part, Section
from jobs.pages.diagnosis_data import (
    ALL,
    CURRENT,
    REFERENCE,
    RELEASES_PLOTTED,
    definition,
    metric_name,
    promises,
)
from jobs.pages.diagnosis_model import PLOTTED
from jobs.pages.evidence import SHOWN, Run, part, triples
from jobs.tables import FEATURES

WHOLE = -1  # the bin of a slice as a whole
LOSING = 5  # slices that the step names


# --- decisioning -----------------------------------------------------------------------------
def decisioning(run: Run) -> Section:
    rows = run.rows("calibration_slices")
    bins = [row for row in rows if row["slice_kind"] == ALL and row["bin"] != WHOLE]
    foretold, was = [row["predicted"] for row in bins], [r for r in bins if r["before"] is not None]
    curve = plots.reliability(
        "foretold probability", "share that came true", GROSS,
        now=(foretold, *triples(bins, "observed")),
        **{"weeks before": ([row["predicted"] for row in was],
                            *triples(was, "before", "before", "before"))} if was else {},
    ) if bins else ""  # fmt: skip
    slices = sorted((row for row in rows if row["bin"] == WHOLE), key=lambda row: -row["error"])
    shown = slices[:PLOTTED]
    errors = plots.bars(
        [_named(row) for row in shown], "expected calibration error",
        error=[row["error"] for row in shown],
    ) if shown else ""  # fmt: skip
    return Section(
        "Are the scores used well?",
        "A probability is right where as much comes true as it says: on the diagonal. Whether to "
        "show a place is then a matter of what a hit brings and what showing costs.",
        "Off the diagonal, calibrate on matured outcomes of the same surface. With the threshold "
        "off the best, move it, once calibration holds.",
        [
            part("Everybody: foretold and come true, with 95 % intervals.", bins, "bin",
                 "predicted", "observed", "low", "high", "before", "error", "rows", plot=curve,
                 none="No mature place with a probability was shown."),
            part("By slice, the worst first.", slices, "slice_kind", "slice", "error",
                 "predicted", "observed", "low", "high", "before", "rows", plot=errors),
            _thresholds(run),
        ],
    )  # fmt: skip


def _named(row: dict[str, Any]) -> str:
    return "everybody" if row["slice_kind"] == ALL else f"{row['slice_kind']}: {row['slice']}"


def _thresholds(run: Run) -> Part:
    rows = sorted(run.rows("threshold_costs"), key=lambda row: row["threshold"])
    series = {}
    for name, extrapolated in (("by outcomes", False), ("by the probability alone", True)):
        mine = [row for row in rows if row["extrapolated"] == extrapolated]
        if mine:
            series[name] = ([row["threshold"] for row in mine], *triples(mine, "net"))
    places: dict[str, float | None] = {
        name: next((row["threshold"] for row in rows if row[f"is_{name}"]), None)
        for name in ("set", "used", "best")
    }
    limits = [(place, "set") for place in (places["set"],) if place is not None]
    marks = [
        (place, name)
        for name, place in places.items()
        if name != "set" and place is not None and (name == "best" or place != places["set"])
    ]
    plot = plots.curves("threshold", "net value", limits, marks, **series) if rows else ""
    key = [row for row in rows if row["is_set"] or row["is_used"] or row["is_best"]]
    return part(
        "What showing every place from a threshold on brings, less what it costs. In the table, "
        "the thresholds that are set, used and best; "
        f"{len(rows):,} were looked at.",
        key, "threshold", "shown", "hits", "value", "cost", "net", "low", "high", "is_set",
        "is_used", "is_best", "extrapolated", plot=plot,
    )  # fmt: skip


# --- slices ----------------------------------------------------------------------------------
def slices(run: Run) -> Section:
    rows = run.rows("slice_losses")
    rows.sort(key=lambda row: (row["rank"] == 0, row["rank"], row["contribution"]))
    shown = [row for row in rows if row["rank"]][:LOSING] or rows[:LOSING]
    plot = plots.bars(
        [f"{row['kinds']}: {row['slice']}" for row in shown],
        "contribution to the change of the whole", (0.0, "no change"),
        rate=[row["rate"] for row in shown], mix=[row["mix"] for row in shown],
    ) if shown else ""  # fmt: skip
    tested = [row for row in shown if row["ratio"] is not None]
    beside = plots.bars(
        [f"{row['kinds']}: {row['slice']}" for row in tested],
        "outcomes, times what the rest of the shop became", (KEPT, f"limit, {KEPT:.0%}"),
        outcomes=[row["ratio"] for row in tested],
    ) if tested else ""  # fmt: skip
    return Section(
        "Who loses?",
        "What each slice, by one or two columns, adds to the change of the whole: by its own rate, "
        "or because it has become a larger or smaller part (mix). Then single places where the "
        "model was most wrong, and whether the newest release is still wrong there.",
        "Look at the first slices' candidates and features. A case that stays wrong release after "
        "release is a gap in what the model knows; a feature that is one value almost everywhere "
        "and drives the score is a fault of its source.",
        [
            part(f"The {LOSING} that lose most first.", rows, "rank", "kinds", "slice", "measure",
                 "before", "after", "contribution", "rate", "mix", "share", "ratio", "q_value",
                 "rows", plot=plot, none="No slice was judged."),
            *([part(
                "The same slices beside the rest of the shop: 1 is as the rest. What is clearly "
                "below the limit loses by itself.", (), plot=beside, none="",
            )] if beside else []),
            *_cases(run),
            _drivers(run),
        ],
    )  # fmt: skip


def _cases(run: Run) -> list[Part]:
    cases = run.rows("counterexamples")
    cases.sort(key=lambda row: -abs(row["observed"] - row["predicted"]))
    checks = run.rows("counterexample_checks")
    wrong = [row for row in checks if row["still_wrong"]]
    wrong.sort(key=lambda row: (not row["regressed"], -abs(row["observed"] - row["new_score"])))
    lost = sum(row["regressed"] for row in checks)
    library = (
        f" {len(wrong):,} of {len(checks):,} are still wrong, {lost:,} of them right by "
        "the release before."
        if checks
        else ""
    )
    return [
        part("The worst misses, each with the features that add most to its score, or take most: "
             "value, and in brackets the contribution, in log odds where the ranker is trained. A "
             "feature that should not drive a score is called so.", cases, "surface",
             "position", "item_id", "category", "predicted", "observed", "why", "top_features",
             "release_id", none="No case was taken up."),
        part(f"Cases of earlier releases, scored again by the newest.{library}", wrong,
             "release_id", "checked_release", "regressed", "observed", "predicted", "new_score",
             "place",
             none="" if checks else "There is no earlier case."),
    ]  # fmt: skip


def _drivers(run: Run) -> Part:
    rows = run.rows("default_drivers")
    rows.sort(key=lambda row: (not row["suspicious"], -row["share"], row["feature"]))
    return part(
        "Features by their most frequent value, suspicious ones first.", rows, "feature",
        "suspicious", "sentence", "value", "share", "share_before", "correlation",
        "correlation_before", "rows", of=len(FEATURES) if len(rows) == len(FEATURES) else None,
    )  # fmt: skip


# --- off policy ------------------------------------------------------------------------------
def off_policy(run: Run) -> Section:
    rows = run.rows("policy_values")
    rows.sort(key=lambda row: (row["surface"], row["policy"], row["estimator"]))
    shown = [row for row in rows if row["value"] is not None and row["logged_value"]][:SHOWN]
    scaled = [
        {end: None if row[end] is None else row[end] / row["logged_value"]
         for end in ("value", "low", "high")}
        for row in shown
    ]  # fmt: skip
    plot = plots.intervals(
        [f"{row['surface']}, {row['policy']}, {row['estimator']}" for row in shown],
        *triples(scaled, "value"), across="times what was shown",
        limit=(1.0, "as what was shown"),
    ) if shown else ""  # fmt: skip
    return Section(
        "What would other lists have brought?",
        "From the chances in the log, what other ways to fill the same places would have brought a "
        "request. Estimators that agree are a sign, those that do not a warning; where the log "
        "says too little, the verdict is insufficient evidence and no number counts.",
        "Where evidence is insufficient, more exploration or a longer log is needed. A policy "
        "that is better beyond its interval deserves an experiment, not a release.",
        [
            part("Values with 95 % intervals, beside what was shown on the same rows.", rows,
                 "surface", "policy", "estimator", "reward", "value", "low", "high",
                 "logged_value", "verdict", "reason", plot=plot,
                 none="No surface could be judged."),
            part("How much the log says of each: overlap is the share of the policy's places that "
                 "the log has a chance of; mean weight is 1 where chances are right.", rows,
                 "surface", "policy", "estimator", "requests", "rows", "effective_sample_size",
                 "effective_rewards", "overlap", "mean_weight", "largest_weight", "weight_tail"),
            part("Which rows could be judged.", run.rows("policy_rows")),
        ] if rows else [
            part("Values.", (), none="No surface could be judged."),
            part("Which rows could be judged.", run.rows("policy_rows")),
        ],
    )  # fmt: skip


# --- experiments -----------------------------------------------------------------------------
def experiments(run: Run) -> Section:
    checks = run.rows("experiment_checks")
    checks.sort(key=lambda row: (row["passed"], row["experiment"], row["check"]))
    results = run.rows("experiment_results")
    results.sort(key=lambda row: (row["experiment"], row["arm"], row["segment_kind"] != ALL))
    whole = [row for row in results if row["segment_kind"] == ALL]
    shown = [row for row in whole if row["mean_control"]][:SHOWN]
    plot = plots.beside(
        [f"{row['experiment']}, {row['arm']}: {row['measure']}" for row in shown],
        "difference, as a share of the control", (0.0, "as the control"),
        **{"valid on the planned day": _differences(shown, "low", "high"),
           "valid on every day": _differences(shown, "always_low", "always_high")},
    ) if shown else ""  # fmt: skip
    named = definition(run, "experiments")
    none = "No experiment is defined." if named == [] else "No experiment was judged."
    names = (
        "experiment", "arm", "measure", "verdict", "mean_control", "mean_arm", "difference",
        "low", "high", "always_low", "always_high", "p_value", "q_value", "visits", "visitors",
        "method",
    )  # fmt: skip
    return Section(
        "What do the experiments say?",
        "First whether an experiment can be read at all: as many in each arm as planned, nobody in "
        "two, arms alike before it began. Only then its results.",
        "An experiment with a failed check is not read, but for warnings and the checks of power "
        "and of guardrails: these say what its results leave open. An arm that is worse in a "
        "guardrail is stopped, whatever else it brings. Before its planned day only the "
        "interval that is valid on every day counts: looking daily at the other finds winners by "
        "chance.",
        [
            part("Checks, failed ones first.", checks, none=none),
            part("Results for everybody.", whole, *names, plot=plot, none=none),
            part("By segment; q values are corrected for how many are looked at.",
                 [row for row in results if row["segment_kind"] != ALL], "segment_kind", "segment",
                 *names, none="No segment was judged."),
        ],
    )  # fmt: skip


def _differences(
    rows: list[dict[str, Any]], low: str, high: str
) -> tuple[list[Any], list[Any], list[Any]]:
    scaled = [
        {end: None if row[low] is None or row[end] is None else row[end] / abs(row["mean_control"])
         for end in ("difference", low, high)}
        for row in rows
    ]  # fmt: skip
    return triples(scaled, "difference", low, high)


# --- adoption --------------------------------------------------------------------------------
def adoption(run: Run) -> Section:
    rows = run.rows("adoption")
    rows.sort(key=lambda row: (row["surface"], row["measure"], row["period"]))
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        if row["measure"] in OF_ANSWERS:
            found.setdefault(f"{row['surface']}: {row['measure']}", {})[row["period"]] = row
    names = list(found)[:SHOWN]
    nothing = {"share": None, "low": None, "high": None}
    most = run.params("adoption").get("most")
    plot = plots.beside(
        names, "share of answers", (1 - most, f"least, {1 - most:.0%}") if most else None,
        **{label: triples([found[name].get(period, nothing) for name in names], "share")
           for label, period in (("before", REFERENCE), ("now", CURRENT))},
    ) if names else ""  # fmt: skip
    return Section(
        "Did people see the lists?",
        "Whether the page showed what it was given, in that order, with the first place first, and "
        "as many of the places as before. A page that hides, reorders or replaces lists makes "
        "every comparison of models idle.",
        "Find what stands between the answer and the page: a cache, a filter, a campaign. Reasons "
        "that the page gives are listed as overrides.",
        [part("By surface, now and in the weeks before.", rows, plot=plot)],
    )


# --- shadow ----------------------------------------------------------------------------------
def shadow(run: Run) -> Section:
    candidates = sorted(run.rows("shadow_candidates"), key=lambda row: row["compared_at"])[::-1]
    lists = run.rows("shadow_lists")
    told = [row for row in lists if row["gain"] is not None]
    told.sort(key=lambda row: (row["candidate"], row["surface"], row["group_kind"] != ALL))
    shown = told[:PLOTTED]
    plot = plots.beside(
        [_gaining(row) for row in shown], "NDCG@10 gained by the candidate", (0.0, "no change"),
        gained=triples(shown, "gain"),
    ) if shown else ""  # fmt: skip
    mixes = run.rows("shadow_sources")
    mixes.sort(key=lambda row: -abs(row["share_candidate"] - row["share_live"]))
    return Section(
        "What would another release have done?",
        "Candidates that were built beside what served, and compared with it before anybody "
        "decided. What people bought since says who gains. What they were not shown they hardly "
        "buy, so that the list that served meanwhile has the advantage: the other one's, or, once "
        "promoted, the candidate's.",
        "Promote a candidate that gains and loses nobody; roll back one that serves and loses. "
        "Where the evidence is insufficient, run an experiment.",
        [
            part("Candidates of the last weeks, the newest first.", candidates, "candidate", "live",
                 "compared_at", "decision", "reason", "decided_by", "serves", "loses",
                 "bought_until", "build_live", "build_candidate", "warned_live",
                 "warned_candidate", "parameters",
                 none="No candidate was held beside what serves."),
            *([part("Who gains and who loses, by what was bought since.", told, "surface",
                    "group_kind", "group", "gain", "low", "high", "verdict", "buyers", "candidate",
                    plot=plot)] if told else []),
            *([part("How alike the lists are.", [row for row in lists if row["group_kind"] == ALL],
                    "surface", "people", "overlap", "rank_biased_overlap",
                    "rank_correlation", "candidate"),
               part("Shares of the first places by source, the largest change first.", mixes,
                    "surface", "source", "share_live", "share_candidate", "candidate")]
              if lists else []),
        ],
    )  # fmt: skip


def _gaining(row: dict[str, Any]) -> str:
    who = "everybody" if row["group_kind"] == ALL else f"{row['group_kind']} {row['group']}"
    return f"{row['surface']}: {who}"


# --- verdict ---------------------------------------------------------------------------------
def verdict(run: Run) -> Section:
    rows = sorted(run.rows("evaluation_ledger"), key=lambda row: row["release_id"])
    over = [row for row in rows if row["requests"]][-RELEASES_PLOTTED:]
    days = [f"{row['release_id'][4:6]}-{row['release_id'][6:8]}" for row in over]
    plot = promises(over, metric_name(run), days)
    came = plots.lines(
        list(range(len(over))), "release", "share of requests that bought",
        days,
        conversion=triples(over, "conversion", "conversion", "conversion"),
    ) if any(row["conversion"] is not None for row in over) else ""  # fmt: skip
    return Section(
        "What was promised, and what came",
        "The evaluation ledger: a row for every release that served, kept from run to run, as the "
        "diagnosis that saw most of its requests judged it; and for every candidate that was "
        "compared and did not, with what was decided and why.",
        "Where promised and realised part while the model is as it was, look at the gates of the "
        "day it began. Where they hold and conversion falls, the list is not the reason.",
        [
            part("Promised and realised, release by release.", rows[::-1], "release_id", "promised",
                 "realised", "realised_low", "realised_high", "conversion", "value_per_request",
                 "features_same", "order_same", "verdict", "first", "drift", "calibration_error",
                 "baseline", "off_policy", "experiments", "shadow", "requests", "judged_at",
                 plot=plot, none="No release is in the ledger yet."),
            *([part("What came of the requests.", (), plot=came, none="")] if came else []),
        ],
    )  # fmt: skip


SECTIONS: dict[str, Callable[[Run], Section]] = {
    "decisioning": decisioning, "slices": slices, "off_policy": off_policy,
    "experiments": experiments, "adoption": adoption,
    "shadow": shadow, "verdict": verdict,
}  # fmt: skip
