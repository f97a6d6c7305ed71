"""Good tables of the diagnosis: what was served, replayed and judged."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pyarrow as pa

from jobs.diagnosis.log import intake
from jobs.diagnosis.log.adoption import MEASURES
from jobs.diagnosis.symptoms import GATES, Symptom
from jobs.diagnosis.symptoms import table as symptoms
from jobs.tables import FEATURES
from tests.expectations.good import AS_OF, ITEMS, PERSONS, table

NIGHT = "2017-11-20"
NIGHTS = ("2017-11-13", NIGHT)
RELEASE = "20171120T000000Z-0123456789"
AGREED: dict[str, Any] = {
    "kpi": "revenue_per_session",
    "model_metric": {"name": "ndcg", "at": 10},
    "label": {
        "event": "purchase", "attribution": "request", "within_hours": 72, "maturity_days": 7,
        "returns": "subtract",
    },
    "decision": {"threshold": None, "capacity": 20, "value_of_hit": 1.0, "cost_of_show": 0.02},
    "segments": ["region", "segment", "tenure", "category"],
    "baseline": "fallback",
    "guardrails": ["latency_ms"],
    "experiments": [
        {"name": "winter", "salt": "w", "starts": "2017-10-01", "control": "old",
         "arms": {"old": 0.5, "new": 0.5}}
    ],
}  # fmt: skip
LATE = Symptom(
    "late_feed", "purchase web", 9.0, 6.0, 1.5, 1_000,
    "Purchases from the web arrive 9 hours later than in the weeks before.", 0.001,
)  # fmt: skip
LATER = Symptom(
    "bypassed", "homepage: shown at all", 0.2, 0.1, 2.0, 1_000,
    "On homepage, 20 % of 1,000 answers are not shown at all.", warning=True,
)  # fmt: skip
BOTH = symptoms([LATE, LATER])


def tables() -> dict[str, pa.Table]:
    """A good table under each name."""
    return {**of_log(), **of_replay(), **of_verdict()}


def of_log() -> dict[str, pa.Table]:
    days = [("current", 3), ("current", 4), ("reference", 20), ("reference", 21)]
    served, visits, features = [], [], []
    for n, (period, ago) in enumerate(days):
        when = AS_OF - timedelta(days=ago)
        common = {
            "request_id": f"r{n}", "day": when.date(), "period": period,
            "mature": period != "current", "surface": "homepage", "key_type": "account",
            "person_id": PERSONS[n], "region": "north", "segment": "adult", "tenure": "known",
            "release_id": RELEASE, "night": NIGHT, "latency_ms": 3.0, "feature_version": "v",
            "feature_hash": "0", "score": 0.25,
        }  # fmt: skip
        for position in (1, 2):
            bought = position == 1 and n % 2 == 0
            place = {
                "position": position, "item_id": ITEMS[position], "category": "food",
                "clicked": bought, "bought": bought, "value": 2.0 if bought else 0.0,
            }  # fmt: skip
            served.append({
                **common, **place, "request_time": when, "visitor": PERSONS[n],
                "key": PERSONS[n], "propensity": 1.0, "shown_position": position,
                "returned": False, "channel": "web", "published": True, "experiment": "winter",
                "arm": "new",
            })  # fmt: skip
            features.append({
                **common, **place, "revenue": 2.0 if bought else 0.0, "weight": 1.0,
                **dict.fromkeys(FEATURES, 0.5 + position),
            })  # fmt: skip
        visits.append({
            "visitor": PERSONS[n], "day": when.date(), "period": period, "experiment": "winter",
            "arm": "new", "key_type": "account", "region": "north", "segment": "adult",
            "tenure": "known", "requests": 1, "clicks": 1, "orders": 1, "revenue": 5.0,
            "attributed": 2.0, "before_value": 9.0, "returning": True,
        })  # fmt: skip
    counts = [(intake.READ, 8), (intake.KEPT, 8), (intake.INCOMPLETE, 0), (intake.REPEATED, 0)]
    return {
        "definitions": table("definitions", [
            {"name": name, "value": json.dumps(value)} for name, value in AGREED.items()
        ]),
        "log_counts": table("log_counts", [
            {"period": period, "outcome": name, "rows": rows, "share": rows / 8}
            for period in ("current", "reference") for name, rows in counts
        ]),
        "served": table("served", served),
        "visits": table("visits", visits),
        "served_features": table("served_features", features),
        "served_symptoms": BOTH,
    }  # fmt: skip


def of_replay() -> dict[str, pa.Table]:
    return {
        "replayed": table("replayed", [{
            "night": night, "requests": 2, "places": 4, "compared": 4, "unpublished": 0,
            "features_same": 1.0, "hash_same": 1.0, "version_same": 1.0, "score_same": 1.0,
            "order_same": 1.0, "rebuilt_people": 2, "rebuilt_features_same": 1.0,
            "rebuilt_lists_same": 1.0,
            "promised": 0.4, "realised": 0.38, "realised_low": 0.3, "realised_high": 0.45,
        } for night in NIGHTS]),
        "replay_features": table("replay_features", {
            "feature": list(FEATURES), "known": 4, "differs": 0.0, "missing": 0.0,
            "constant_share": 0.0, "ratio_share": 0.0,
        }),
        "rebuilt_features": table("rebuilt_features", {
            "feature": list(FEATURES), "night": NIGHTS[0], "rows": 4, "same": 1.0,
        }),
        "replay_symptoms": BOTH,
    }  # fmt: skip


def of_verdict() -> dict[str, pa.Table]:
    return {
        "adoption": table("adoption", [
            {"surface": "homepage", "period": "current", "measure": measure, "requests": 100,
             "share": 0.9, "low": 0.8, "high": 0.95}
            for measure in MEASURES
        ]),
        "adoption_symptoms": BOTH,
        "shadow_candidates": table("shadow_candidates", [
            {"candidate": RELEASE, "live": RELEASE[:-1] + "0", "compared_at": AS_OF,
             "parameters": "ranker.trees: 150 to 200", "build_live": 3_600.0,
             "build_candidate": 4_000.0, "warned_live": "none", "warned_candidate": "events",
             "loses": 0, "decision": "promote", "reason": "more tail",
             "decided_by": "ana", "serves": True, "bought_until": AS_OF},
            {"candidate": RELEASE[:-1] + "1", "live": RELEASE[:-1] + "0", "compared_at": AS_OF,
             "parameters": "", "loses": 1, "decision": "open",
             "serves": False},
        ]),
        "shadow_lists": table("shadow_lists", [
            {"candidate": RELEASE, "surface": "homepage", "group_kind": "all", "group": "all",
             "people": 90, "overlap": 0.7, "rank_biased_overlap": 0.6, "buyers": 40, "gain": 0.02,
             "low": 0.01, "high": 0.03, "verdict": "gains"},
            {"candidate": RELEASE, "surface": "homepage", "group_kind": "region", "group": "north",
             "people": 90, "buyers": 30, "gain": -0.02, "low": -0.03, "high": -0.01,
             "verdict": "loses"},
            {"candidate": RELEASE, "surface": "discover", "group_kind": "all", "group": "all",
             "people": 9, "overlap": 0.5, "rank_biased_overlap": 0.4, "buyers": 0,
             "verdict": "insufficient evidence"},
        ]),
        "shadow_sources": table("shadow_sources", [
            {"candidate": RELEASE, "surface": "homepage", "source": source, "share_live": 0.5,
             "share_candidate": 0.4} for source in ("buy_again", "popular")
        ]),
        "verdict_symptoms": table("verdict_symptoms", [
            {"place": n, "step": "labels", **row} for n, row in enumerate(BOTH.to_pylist(), 1)
        ]),
        "verdict_gates": table("verdict_gates", [
            {"gate": gate, "place": n, "go": True, "symptoms": 0, "warnings": 0,
             "evidence": "Nothing found."}
            for n, gate in enumerate(GATES, start=1)
        ]),
        "evaluation_ledger": table("evaluation_ledger", [{
            "night": night, "release_id": RELEASE[:-1] + night[-1], "judged_at": AS_OF,
            "requests": 2,
            "promised": 0.4, "realised": 0.38, "conversion": 0.1, "value_per_request": 0.5,
            "features_same": 1.0, "order_same": 1.0, "verdict": "go", "drift": "none",
            "calibration_error": 0.01, "baseline": "better", "off_policy": "homepage: better",
            "experiments": "none",
        } for night in NIGHTS]),
    }  # fmt: skip
