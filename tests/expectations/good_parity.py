"""Good tables of the steps parity, drift and leakage."""

from __future__ import annotations

import pyarrow as pa

from jobs.tables import FEATURES
from tests.expectations.good import table


def tables() -> dict[str, pa.Table]:
    return {**parity(), **drift(), **leakage()}


def parity() -> dict[str, pa.Table]:
    symptom = {
        "subject": "drinks", "gate": "parity", "remedy": "data", "effect": 0.1, "limit": 0.005,
        "severity": 20.0, "rows": 900, "warning": False, "action": "Map the old name.",
        "sentence": "The category 'drinks' is now called 'beverages'.",
    }  # fmt: skip
    return {
        "feature_parity": table("feature_parity", {
            "feature": list(FEATURES), "pair": "night-served", "rows_left": 5_000,
            "rows_right": 5_000, "missing_left": 0.1, "missing_right": 0.1, "constant_left": 0.0,
            "constant_share_left": 0.2, "constant_right": 0.0, "constant_share_right": 0.2,
            "psi": 0.01, "ks": 0.02, "scale_ratio": 1.0, "auc_left": None, "auc_right": 0.6,
        }),
        "category_parity": table("category_parity", [
            {"level": "broad", "category": "drinks", "share_reference": 0.1, "share_current": 0.1,
             "catalogue_then": True, "catalogue_now": False, "renamed_to": "beverages",
             "items_moved": 9, "finding": "9 of its 9 items are now called 'beverages'"},
            {"level": "broad", "category": "beverages", "share_reference": 0.0,
             "share_current": 0.0, "catalogue_then": False, "catalogue_now": True,
             "items_moved": 0, "finding": "new; its items were called 'drinks'"},
        ]),
        "parity_symptoms": table("parity_symptoms", [
            {"kind": "renamed_category", **symptom},
            {"kind": "renamed_category", **symptom, "subject": "tea"},
        ]),
    }  # fmt: skip


def drift() -> dict[str, pa.Table]:
    change = {"before": 0.08, "after": 0.06, "change": -0.02, "low": -0.03, "high": -0.01,
              "p_value": 1e-5, "rows_before": 9_000, "rows_after": 5_000}  # fmt: skip
    symptom = {
        "gate": "parity", "remedy": "model", "effect": -0.36, "limit": 0.15, "severity": 2.4,
        "p_value": 1e-6, "rows": 9_000, "warning": False, "action": "Recalibrate.",
        "sentence": "At equal inputs the odds of a purchase are 0.70 times what they were.",
    }  # fmt: skip
    return {
        "feature_drift": table("feature_drift", {
            "feature": list(FEATURES), "rows_before": 9_000, "rows_after": 5_000,
            "missing_before": 0.1, "missing_after": 0.1, "psi": 0.01, "ks": 0.02, "p_value": 0.5,
            "q_value": 0.9, "shift": 0.01, "psi_last_year": None, "auc_before": 0.6,
            "auc_after": 0.6, "drifted": False, "seasonal": False,
        }),
        "outcome_drift": table("outcome_drift", [
            {"measure": "base_rate", "slice_kind": "all", "slice": "all", **change, "moved": False},
            {"measure": "rate_at_equal_inputs", "slice_kind": "all", "slice": "all", **change,
             "limit": 0.15, "moved": True},
        ]),
        "drift_symptoms": table("drift_symptoms", [
            {"kind": "label_drift", "subject": "rate_at_equal_inputs", **symptom},
            {"kind": "covariate_drift", "subject": "the person", **symptom},
        ]),
    }  # fmt: skip


def leakage() -> dict[str, pa.Table]:
    symptom = {
        "kind": "leaked_feature", "gate": "parity", "remedy": "model", "effect": 0.3,
        "limit": 0.12, "severity": 2.5, "rows": 9_000, "warning": False,
        "action": "Take the feature out.", "sentence": "It knew the outcome in training.",
    }  # fmt: skip
    return {
        "leakage_probes": table("leakage_probes", [
            {"probe": "future_only", "feature": "due", "value": 0.7, "low": 0.68, "high": 0.72,
             "limit": 0.98, "rows": 9_000, "shines": False},
            {"probe": "before_its_night", "feature": "2017-11-30", "value": 0.0, "limit": 0.001,
             "rows": 9_000, "shines": False},
        ]),
        "exposure_bias": table("exposure_bias", [
            {"measure": "clicked_rate", "place": 1, "rows": 900, "value": 0.1, "low": 0.08,
             "high": 0.12},
            {"measure": "catalogue_shown", "place": 0, "rows": 9_000, "value": 0.4},
        ]),
        "leakage_symptoms": table("leakage_symptoms", [
            {**symptom, "subject": "taste"}, {**symptom, "subject": "affinity"},
        ]),
    }  # fmt: skip
