"""A lake as a diagnosis of a shop leaves it: every table with rows as many as a person would meet.

``told()`` is a day on which a feature is served in another unit; ``NASTY`` is what hostile data
would put into a page.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from jobs import gate, io, steps, tables
from jobs.diagnosis.log import intake
from jobs.diagnosis.log.adoption import FIRST, IN_ORDER, PLACES, SHOWN, TOLD
from jobs.diagnosis.symptoms import Symptom
from jobs.diagnosis.symptoms import table as symptoms
from jobs.diagnosis.verdict import in_order, judged
from jobs.io import Lake
from jobs.night import Night
from tests.expectations.good import AS_OF, table
from tests.expectations.good_diagnosis import AGREED

LABEL = io.label(AS_OF)
NASTY = "<script>alert('x')</script>\n\"${y}\" $z_1$ \\frac & <b>"
NIGHTS = [io.label(AS_OF - timedelta(days=day)) for day in range(14, 0, -1)]
PERSON = "account:4711"

UNIT = Symptom(
    "unit_change", "days_since_purchase", 0.99, 0.005, 198.0, 41_200,
    "days_since_purchase: served is 24 times what was published, which is a unit. In 99.0% of "
    "41,200 places the value served is not the one published.",
)  # fmt: skip
RENAMED = Symptom(
    "renamed_category", "dairy", 0.08, 0.005, 16.0, 80_000,
    "The category 'dairy' is now called 'fresh dairy': 412 of its 420 items have the new name.",
)  # fmt: skip
THRESHOLD = Symptom(
    "threshold", "all", 0.2, 0.05, 4.0, 900_000,
    "Showing from 0.02 on, not from 0.10, would bring 20 % more.", 1e-6, warning=True,
)  # fmt: skip


def told(*found: Symptom) -> dict[str, pa.Table]:
    """Every table of the diagnosis, with these symptoms; the parity step finds all of them."""
    of = found or (UNIT, RENAMED, THRESHOLD)
    rows = [{"step": "parity", **row} for row in symptoms(of).to_pylist()]
    made = {**of_log(), **of_model(), **of_labels(), **of_use(), **of_experiments()}
    for name in tables.TABLES:
        if name.endswith("_symptoms") and name != "verdict_symptoms":
            made[name] = symptoms(of if name == "parity_symptoms" else ())
    ordered = in_order(rows)
    made["verdict_symptoms"] = table("verdict_symptoms", ordered)
    made["verdict_gates"] = table("verdict_gates", judged(ordered))
    return made


def lay(lake: Lake, made: dict[str, pa.Table], red: str = "", run_id: str = "one") -> None:
    """Publish the tables with their evidence as a run leaves them; the gate of the step ``red``
    finds them wanting, and the run ends there."""
    for step in steps.DIAGNOSIS:
        names = [one.name for one in tables.of_step(step) if one.name in made]
        night = Night(lake, AS_OF, run_id, "test", step)
        night.reset()
        for name in names:
            io.write_arrow(night.staged / name, made[name])
        params = {"drift": {"psi": 0.1}, "adoption": {"most": 0.3}}.get(step, {})
        io.write_json(night.staged / "manifest.json", {"step": step, "params": params})
        findings = [
            finding for finding in (gate.judge_table(night, names[0]) if step == red else ())
        ]
        verdict = gate.verdict_of(findings)
        io.write_json(lake.evidence(step, AS_OF, run_id), {
            "step": step, "as_of": AS_OF.isoformat(), "run_id": run_id, "verdict": verdict,
            "seconds": 0.1, "tables": dict.fromkeys(names, 1),
            "expectations": [vars(finding) for finding in findings],
        })  # fmt: skip
        if verdict == gate.RED:
            return
        lake.publish(step, AS_OF, run_id)


def of_log() -> dict[str, pa.Table]:
    shares = {
        intake.READ: 1.0, intake.KEPT: 0.981, intake.INCOMPLETE: 0.002, intake.REPEATED: 0.017,
        intake.NO_RELEASE: 0.0, intake.NO_PROPENSITY: 0.012, intake.NO_FEATURES: 0.03,
        intake.NO_PERSON: 0.24, intake.ANSWERS: 0.06, intake.BEFORE: 0.001, intake.STRAY: 0.02,
    }  # fmt: skip
    values = {
        "conversion": 0.031, "revenue_per_session": 2.41, "average_order_value": 41.3,
        "returning_customers": 0.61, "ctr": 0.044, "coverage": 0.37, "latency_p95": 38.0,
    }  # fmt: skip
    groups = [("all", "all", "all", "all"), ("arm", "winter: new", "all", "all"),
              ("arm", "winter: old", "all", "all"), ("answers", "personal", "all", "all"),
              ("answers", "fallback", "all", "all")]  # fmt: skip
    groups += [("all", "all", "region", name) for name in ("north", "south", "east", "west")]
    chance = np.random.default_rng(7)
    rows = []
    for group_kind, group, segment_kind, segment in groups:
        for period, times in (("current", 0.94), ("reference", 1.0), ("last_year", 0.97)):
            for measure, value in values.items():
                found = value * times * (1 + 0.03 * chance.standard_normal())
                rows.append({
                    "group_kind": group_kind, "group": group, "segment_kind": segment_kind,
                    "segment": segment, "period": period, "measure": measure, "value": found,
                    "low": found * 0.96, "high": found * 1.04, "visits": 81_000,
                })  # fmt: skip
    return {
        "definitions": table("definitions", [
            {"name": name, "value": json.dumps(value)} for name, value in AGREED.items()
        ]),
        "log_counts": table("log_counts", [
            {"period": "current", "outcome": name, "rows": int(1e7 * share), "share": share}
            for name, share in shares.items()
        ]),
        "kpis": table("kpis", rows),
        "baseline_verdicts": table("baseline_verdicts", [
            {"segment_kind": kind, "segment": name, "measure": "revenue_per_session", "model": 2.5,
             "baseline": 1.9, "gain": 0.6, "low": 0.4, "high": 0.8, "visits_model": 61_000,
             "visits_baseline": 9_000, "verdict": "better",
             "sentence": "Revenue per session is 0.6 above the baseline's."}
            for kind, name in (("all", "all"), ("region", "north"), ("region", "south"))
        ]),
    }  # fmt: skip


def of_model() -> dict[str, pa.Table]:
    names, chance = list(tables.FEATURES), np.random.default_rng(8)
    size = len(names)
    broken = {names[3]: 0.99, names[9]: 0.04}
    psi = chance.exponential(0.03, size)
    replayed = [
        {"night": night, "requests": 30_000, "places": 600_000, "compared": 4_000,
         "unpublished": 3, "features_same": 0.01 if n > 9 else 1.0, "hash_same": 0.99,
         "score_same": 0.4 if n > 9 else 0.999, "order_same": 0.97, "rebuilt_people": 100,
         "rebuilt_features_same": 1.0 if n == 13 else None, "promised": 0.31 + 0.002 * (n % 4),
         "realised": 0.29 - 0.004 * max(n - 9, 0), "realised_low": 0.24, "realised_high": 0.33}
        for n, night in enumerate(NIGHTS)
    ]  # fmt: skip
    features = [
        {"feature": name, "known": 41_200, "differs": broken.get(name, 0.0), "missing": 0.0,
         "constant_share": 0.0, "ratio": 24.0 if name in broken else None,
         "ratio_share": broken.get(name, 0.0), "way": "unit" if name in broken else None}
        for name in names
    ]  # fmt: skip
    parity = [
        {"feature": name, "pair": pair, "rows_left": 60_000, "rows_right": 60_000,
         "missing_left": 0.1, "missing_right": 0.1 + 0.3 * (n == 5), "constant_share_left": 0.2,
         "constant_share_right": 0.21, "psi": psi[n], "ks": psi[n] / 2, "scale_ratio": 1.0,
         "auc_left": 0.6, "auc_right": 0.58,
         "finding": f"{name} is 24 times in the night rows." if n == 3 else None}
        for n, name in enumerate(names) for pair in ("training-night", "night-served")
    ]  # fmt: skip
    drift = [
        {"feature": name, "rows_before": 60_000, "rows_after": 60_000, "missing_before": 0.1,
         "missing_after": 0.1, "psi": psi[n], "ks": psi[n] / 2, "p_value": 0.2, "q_value": 0.4,
         "shift": 0.1, "psi_last_year": psi[n] / 3, "auc_before": 0.6, "auc_after": 0.6,
         "drifted": psi[n] > 0.1, "seasonal": False,
         "typed": "covariate drift" if psi[n] > 0.1 else None}
        for n, name in enumerate(names)
    ]  # fmt: skip
    outcomes = [
        {"measure": measure, "slice_kind": kind, "slice": value, "before": 0.03, "after": 0.028,
         "change": change, "low": change - 0.06, "high": change + 0.06, "p_value": 0.2,
         "limit": limit, "rows_before": 40_000, "rows_after": 30_000, "moved": False}
        for measure, kind, value, change, limit in (
            ("rate_at_equal_inputs", "all", "all", -0.04, 0.15),
            ("slope_at_equal_inputs", "all", "all", 0.02, 0.2),
            ("rate_at_equal_inputs", "segment", "families", -0.11, 0.3),
            ("rate_at_equal_inputs", "region", "north", 0.03, 0.3),
        )
    ]  # fmt: skip
    probes = [
        {"probe": probe, "feature": name, "value": value, "low": value - 0.01,
         "high": value + 0.01, "limit": limit, "rows": 90_000, "shines": False}
        for name in names[:12]
        for probe, value, limit in (
            ("future_only", 0.7, 0.98), ("training_served", 0.03, 0.12),
            ("made_from_past", 0.02, 0.005),
        )
    ]  # fmt: skip
    bias = [
        {"measure": f"{outcome}_rate", "place": place, "rows": 90_000, "value": top / place ** 0.5,
         "low": top / place ** 0.5 - 0.001, "high": top / place ** 0.5 + 0.001}
        for outcome, top in (("clicked", 0.06), ("bought", 0.02)) for place in range(1, 26)
    ]  # fmt: skip
    bias.append({"measure": "catalogue_shown", "place": 0, "rows": 9_000_000, "value": 0.41})
    shares = (("dairy", 0.08, 0.0), ("fresh dairy", 0.0, 0.08), ("bakery", 0.2, 0.21),
              ("frozen > vegetables and other things with a long name", 0.5, 0.49))  # fmt: skip
    return {
        "replayed": table("replayed", replayed),
        "replay_features": table("replay_features", features),
        "rebuilt_features": table("rebuilt_features", [
            {"feature": name, "night": NIGHTS[-1], "rows": 4_100, "same": 0.9 if n == 3 else 1.0}
            for n, name in enumerate(names)
        ]),
        "feature_parity": table("feature_parity", parity),
        "category_parity": table("category_parity", [
            {"level": "broad", "category": name, "share_reference": was, "share_current": now,
             "catalogue_then": was > 0, "catalogue_now": now > 0, "items_moved": 412 * (now == 0),
             "renamed_to": "fresh dairy" if now == 0 else None,
             "finding": "412 of its 420 items are now called 'fresh dairy'" if now == 0 else None}
            for name, was, now in shares
        ]),
        "feature_drift": table("feature_drift", drift),
        "outcome_drift": table("outcome_drift", outcomes),
        "leakage_probes": table("leakage_probes", probes),
        "exposure_bias": table("exposure_bias", bias),
    }  # fmt: skip


def of_labels() -> dict[str, pa.Table]:
    parts = [("all", "all"), ("channel", "web"), ("channel", "store"), ("region", "north")]
    return {
        "label_delays": table("label_delays", [
            {"population": population, "segment_kind": kind, "segment": name, "period": period,
             "rows": 9_000, "median_hours": 6.0 + n, "p90": 40.0, "p95": 60.0 + 9 * late + n,
             "p99": 120.0, "maturity_days": 6.0}
            for population in ("outcome", "feed") for n, (kind, name) in enumerate(parts)
            for late, period in enumerate(("reference", "current"))
        ]),
        "label_checks": table("label_checks", [
            {"check": check, "subject": "channel store", "before": 0.02, "after": 0.021,
             "low": -0.01, "high": 0.012, "passed": passed,
             "sentence": "2.1 % of the purchases of store have no value, against 2.0 %."}
            for check, passed in (("returns", True), ("values", False), ("units", True))
        ]),
        "calibration_slices": table("calibration_slices", [
            {"slice_kind": kind, "slice": name, "bin": bin_, "rows": 90_000,
             "predicted": 0.012 * (bin_ + 1.5), "observed": 0.0085 * (bin_ + 1.5),
             "low": 0.0075 * (bin_ + 1.5), "high": 0.0095 * (bin_ + 1.5),
             "before": 0.011 * (bin_ + 1.5), "error": 0.004 + 0.002 * len(name)}
            for kind, name in (("all", "all"), ("surface", "homepage"), ("region", "north"))
            for bin_ in range(-1, 10)
        ]),
    }  # fmt: skip


def of_use() -> dict[str, pa.Table]:
    thresholds = np.linspace(0.0, 0.3, 61)
    net = 40_000 * (np.exp(-10 * thresholds) - 0.6 * np.exp(-30 * thresholds))
    best = int(net.argmax())
    pairs = [("region", "north"), ("channel, tenure", "web, new"), ("category", "dairy"),
             ("device", "phone"), ("region, segment", "south, families"), ("time", "night"),
             ("tenure", "long known")]  # fmt: skip
    return {
        "threshold_costs": table("threshold_costs", [
            {"threshold": at, "shown": int(9e5 * (1 - at)), "hits": 9e3, "value": net[n] * 2,
             "cost": net[n], "net": net[n], "low": net[n] * 0.95, "high": net[n] * 1.05,
             "is_set": n == 20, "is_used": n == 4, "is_best": n == best, "extrapolated": n < 4}
            for n, at in enumerate(thresholds)
        ]),
        "slice_losses": table("slice_losses", [
            {"kinds": kinds, "slice": name, "measure": "revenue_per_session", "rows": 9_000,
             "before": 2.4, "after": 2.1, "mix": 0.01 * (n - 2), "rate": -0.09 + 0.02 * n,
             "contribution": -0.11 + 0.03 * n, "share": 0.2, "ratio": 0.8, "p_value": 0.001,
             "q_value": 0.01, "rank": n + 1 if n < 5 else 0}
            for n, (kinds, name) in enumerate(pairs)
        ]),
        "counterexamples": table("counterexamples", [
            {"release_id": "20171130T000000Z-0123456789", "case": f"{PERSON} r{n} 1",
             "surface": "homepage", "position": 1, "item_id": f"i{n}", "category": "bakery",
             "predicted": 0.9 - 0.01 * n, "observed": 0,
             "why": "A high probability, and not bought.", **dict.fromkeys(tables.FEATURES),
             "top_features": "popular_signal = 1 (+0.41); p_paid = -1 (-0.20)"}
            for n in range(45)
        ]),
        "counterexample_checks": table("counterexample_checks", [
            {"release_id": "20171101T000000Z-0123456789", "case": f"{PERSON} r{n} 2",
             "found": AS_OF, "checked_release": "20171130T000000Z-0123456789", "predicted": 0.8,
             "observed": 0, "new_score": 0.7, "place": 0.99, "still_wrong": n % 3 == 0,
             "wrong_before": n % 4 == 0, "regressed": n % 3 == 0 and n % 4 > 0}
            for n in range(12)
        ]),
        "default_drivers": table("default_drivers", [
            {"feature": name, "value": 0.0, "rows": 90_000, "share": 0.5, "share_before": 0.5,
             "correlation": 0.1, "suspicious": n == 2,
             "sentence": f"{name} is 0 in 50 % of the places."}
            for n, name in enumerate(tables.FEATURES)
        ]),
        "policy_values": table("policy_values", [
            {"surface": surface, "policy": policy, "estimator": estimator, "reward": "purchases",
             "value": None if few else 0.1 + 0.01 * n, "low": None if few else 0.09,
             "high": None if few else 0.12 + 0.01 * n, "logged_value": 0.1, "requests": 30_000,
             "rows": 600_000, "effective_sample_size": 150.0 if few else 9_000.0,
             "effective_rewards": 300.0, "largest_weight": 12.0, "weight_tail": 0.2,
             "overlap": 0.9, "mean_weight": 1.02,
             "verdict": "insufficient evidence" if few else "evidence",
             "reason": "the log is worth 150 of its requests, below 200" if few else None}
            for surface, few in (("homepage", False), ("basket", True))
            for policy in ("uniform", "popularity", "model")
            for n, estimator in enumerate(("ips", "snips", "dr"))
        ]),
        "model_gains": table("model_gains", [
            {"surface": "homepage", "reward": "purchases", "model": 0.12, "popularity": 0.1,
             "gain": 0.02, "low": 0.01, "high": 0.03, "verdict": "better",
             "sentence": "On homepage the model's order would bring more."},
            {"surface": "basket", "reward": "purchases", "verdict": "insufficient evidence",
             "sentence": "On basket nothing says which order is better."},
        ]),
        "policy_rows": table("policy_rows", [
            {"surface": "homepage", "outcome": "judged", "rows": 590_000, "share": 0.98},
            {"surface": "homepage", "outcome": "without a chance", "rows": 10_000, "share": 0.02},
        ]),
        "adoption": table("adoption", [
            {"surface": surface, "period": period, "measure": measure, "requests": 30_000,
             "share": share, "low": share - 0.01, "high": share}
            for surface in ("homepage", "basket") for period in ("current", "reference")
            for measure, share in ((TOLD, 1.0), (SHOWN, 0.93), (IN_ORDER, 0.88), (FIRST, 0.9),
                                   (PLACES, 0.5),
                                   ("override: campaign", 0.04))
        ]),
        **of_shadow(),
        "evaluation_ledger": table("evaluation_ledger", [
            {"night": night, "release_id": f"{night.replace('-', '')}T000000Z-0",
             "judged_at": AS_OF, "requests": 30_000,
             "promised": 0.31, "realised": 0.3 - 0.004 * n, "realised_low": 0.27 - 0.004 * n,
             "realised_high": 0.33 - 0.004 * n, "conversion": 0.05 - 0.001 * n,
             "value_per_request": 2.4, "features_same": 1.0, "order_same": 1.0,
             "drift": "covariate_drift" if n > 9 else "none", "calibration_error": 0.011,
             "baseline": "better", "off_policy": "homepage: better", "experiments": "none",
             "verdict": "replay" if n > 9 else "go", "first": "unit_change" if n > 9 else None}
            for n, night in enumerate(NIGHTS)
        ]),
    }  # fmt: skip


def of_shadow() -> dict[str, pa.Table]:
    candidate, live = "20171120T000000Z-1", "20171120T000000Z-0"
    groups = [("all", "all"), ("region", "north"), ("region", "south"), ("segment", "heavy")]
    return {
        "shadow_candidates": table("shadow_candidates", [
            {"candidate": candidate, "live": live, "compared_at": AS_OF, "decision": "promote",
             "reason": "the tail is richer", "decided_by": "ana", "loses": 0,
             "serves": True, "bought_until": AS_OF,
             "parameters": "ranker.trees: 150 to 200", "build_live": 3_600.0,
             "build_candidate": 4e3},
        ]),
        "shadow_lists": table("shadow_lists", [
            {"candidate": candidate, "surface": "homepage", "group_kind": kind, "group": group,
             "people": 58_000, "overlap": 0.71 if kind == "all" else None,
             "rank_biased_overlap": 0.66 if kind == "all" else None, "buyers": 9_000 - 2_000 * n,
             "gain": 0.004 - 0.003 * n, "low": 0.002 - 0.003 * n, "high": 0.006 - 0.003 * n,
             "verdict": ("gains", "insufficient evidence", "insufficient evidence", "loses")[n]}
            for n, (kind, group) in enumerate(groups)
        ]),
        "shadow_sources": table("shadow_sources", [
            {"candidate": candidate, "surface": "homepage", "source": source,
             "share_live": share, "share_candidate": 1 - share}
            for source, share in (("buy_again", 0.7), ("collaborative", 0.3))
        ]),
    }  # fmt: skip


def of_experiments() -> dict[str, pa.Table]:
    rows: list[dict[str, Any]] = []
    for kind, name in (("all", "all"), ("tenure", "new"), ("tenure", "long known")):
        for n, (measure, mean) in enumerate(
            (("revenue_per_session", 2.4), ("conversion", 0.03), ("ctr", 0.04))
        ):
            gain = mean * (0.01 + 0.02 * n)
            rows.append({
                "experiment": "winter", "arm": "new", "measure": measure, "segment_kind": kind,
                "segment": name, "visits": 40_000, "visitors": 21_000, "mean_control": mean,
                "mean_arm": mean + gain, "difference": gain, "low": gain - 0.03 * mean,
                "high": gain + 0.03 * mean, "always_low": gain - 0.06 * mean,
                "always_high": gain + 0.06 * mean, "p_value": 0.2, "q_value": 0.4,
                "method": "CUPED; fixed interval valid today", "verdict": "no difference shown",
            })  # fmt: skip
    return {
        "experiment_results": table("experiment_results", rows),
        "experiment_checks": table("experiment_checks", [
            {"experiment": "winter", "check": check, "value": 0.001, "limit": 0.01, "passed": True,
             "sentence": "The arms have as many visitors as planned."}
            for check in ("sample ratio", "one arm a person", "alike before")
        ]),
    }  # fmt: skip
