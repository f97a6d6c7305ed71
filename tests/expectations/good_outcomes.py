"""Good tables of the steps labels, decisioning and slices."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa

from jobs.diagnosis import symptoms
from jobs.diagnosis.symptoms import Symptom
from jobs.tables import FEATURES
from tests.expectations.good import AS_OF, ITEMS, table


def tables() -> dict[str, pa.Table]:
    """A good table under each name."""
    return {**labels(), **decisioning(), **slices()}


def labels() -> dict[str, pa.Table]:
    return {
        "label_delays": table("label_delays", [
            {"population": population, "segment_kind": "all", "segment": "all", "period": period,
             "rows": 90, "median_hours": 1.5, "p90": 9.0, "p95": 20.0, "p99": 30.0,
             "maturity_days": 4.0}
            for population in ("feed", "outcome") for period in ("current", "reference")
        ]),
        "label_checks": table("label_checks", [
            {"check": "no value", "subject": f"channel {name}", "before": 0.01, "after": 0.02,
             "low": 0.01, "high": 0.03, "passed": True, "sentence": "In channel web all is well."}
            for name in ("web", "app")
        ]),
        "labels_symptoms": found("late_feed", "label_delay"),
    }  # fmt: skip


def decisioning() -> dict[str, pa.Table]:
    return {
        "calibration_slices": table("calibration_slices", [
            {"slice_kind": "all", "slice": "all", "bin": place, "rows": 900, "predicted": 0.2,
             "observed": 0.25, "low": 0.22, "high": 0.28, "before": 0.24, "error": 0.05}
            for place in (-1, 0, 1)
        ]),
        "threshold_costs": table("threshold_costs", [
            {"threshold": threshold, "shown": 500, "hits": 90.0, "value": 90.0, "cost": 10.0,
             "net": 80.0, "low": 70.0, "high": 90.0, "is_set": threshold == 0.0,
             "is_used": threshold == 0.0, "is_best": threshold == 0.2, "extrapolated": False}
            for threshold in (0.0, 0.2)
        ]),
        "decisioning_symptoms": found("threshold", "miscalibrated"),
    }  # fmt: skip


def slices() -> dict[str, pa.Table]:
    case = {
        "release_id": "one", "surface": "home", "position": 1, "item_id": ITEMS[0],
        "category": "beds", "predicted": 0.8, "observed": 0, "why": "promised",
        "top_features": "i_paid = 3 (+0.41)", FEATURES[0]: 1.0,
    }  # fmt: skip
    return {
        "slice_losses": table("slice_losses", [
            {"kinds": "region", "slice": name, "measure": "conversion, per visit", "rows": 900,
             "before": 0.04, "after": 0.03, "mix": -0.001, "rate": -0.004, "contribution": -0.005,
             "share": -0.12, "ratio": 0.8, "p_value": 0.2, "q_value": 0.4, "rank": place}
            for place, name in enumerate(("north", "south"))
        ]),
        "counterexamples": table("counterexamples", [case | {"case": f"r{n}/1"} for n in range(2)]),
        "counterexample_checks": table("counterexample_checks", [
            {"release_id": "one", "case": f"r{n}/1", "found": AS_OF - timedelta(days=1),
             "checked_release": "two", "predicted": 0.8, "observed": 0, "new_score": 0.3,
             "place": 0.4, "still_wrong": False, "wrong_before": False, "regressed": False}
            for n in range(2)
        ]),
        "default_drivers": table("default_drivers", [
            {"feature": name, "value": 0.0, "rows": 900, "share": 0.3, "share_before": 0.3,
             "correlation": 0.1, "correlation_before": 0.1, "suspicious": False,
             "sentence": "That is its usual way."}
            for name in FEATURES[:2]
        ]),
        "slices_symptoms": found("losing_slice", "losing_slice"),
    }  # fmt: skip


def found(*kinds: str) -> pa.Table:
    """Symptoms of these kinds."""
    return symptoms.table(
        Symptom(kind, f"subject {n}", 2.0, 1.0, 2.0, 900, "It is twice as much.", 0.001)
        for n, kind in enumerate(kinds)
    )
