"""Good tables of the steps kpis and experiments."""

from __future__ import annotations

import pyarrow as pa

from tests.expectations.good import table


def tables() -> dict[str, pa.Table]:
    """A good table under each name of both steps."""
    number = {
        "group_kind": "all", "group": "all", "segment_kind": "all", "segment": "all",
        "value": 0.2, "low": 0.1, "high": 0.3, "visits": 900,
    }  # fmt: skip
    symptom = {
        "gate": "measurement", "remedy": "system", "effect": 0.5, "limit": 0.35, "severity": 1.4,
        "p_value": 0.0001, "rows": 900, "warning": False, "action": "Look.",
    }  # fmt: skip
    result = {
        "experiment": "homepage", "arm": "new", "segment_kind": "all", "segment": "all",
        "visits": 900, "visitors": 400, "mean_control": 5.0, "mean_arm": 5.5, "difference": 0.5,
        "low": -0.1, "high": 1.1, "always_low": -0.4, "always_high": 1.4, "p_value": 0.2,
        "q_value": 0.3, "method": "ratio by visitor; always-valid interval holds today",
        "verdict": "insufficient evidence",
    }  # fmt: skip
    check = {"experiment": "homepage", "limit": 0.02, "passed": True, "sentence": "All is well."}
    return {
        "kpis": table("kpis", [
            number | {"period": period, "measure": measure}
            for period in ("current", "reference")
            for measure in ("conversion", "returning_customers", "coverage")
        ]),
        "baseline_verdicts": table("baseline_verdicts", [
            {"segment_kind": kind, "segment": name, "measure": "conversion", "model": 0.2,
             "baseline": 0.15, "gain": 0.05, "low": 0.01, "high": 0.09, "visits_model": 900,
             "visits_baseline": 400, "verdict": "better", "sentence": "Conversion is better."}
            for kind, name in (("all", "all"), ("region", "north"))
        ]),
        "kpis_symptoms": table("kpis_symptoms", [
            symptom | {"kind": "sudden_drop", "subject": name, "sentence": "Requests fell by 50%."}
            for name in ("volume", "coverage")
        ]),
        "experiment_checks": table("experiment_checks", [
            check | {"check": "sample_ratio", "value": 0.01},
            check | {"check": "two_arms", "value": 0.0},
        ]),
        "experiment_results": table("experiment_results", [
            result | {"measure": name} for name in ("revenue_per_session", "conversion")
        ]),
        "experiments_symptoms": table("experiments_symptoms", [
            symptom | {"kind": "broken_assignment", "subject": name, "sentence": "An arm is empty."}
            for name in ("homepage", "basket")
        ]),
    }  # fmt: skip
