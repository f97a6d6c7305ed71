"""Good tables of the step off_policy."""

from __future__ import annotations

import pyarrow as pa

from jobs.diagnosis.policies.estimators import ESTIMATORS
from jobs.diagnosis.policies.off_policy import EVIDENCE, INSUFFICIENT, LOGGED, MEAN, POLICIES
from jobs.diagnosis.policies.policies import OUTCOMES
from jobs.diagnosis.symptoms import Symptom
from jobs.diagnosis.symptoms import table as symptoms
from tests.expectations.good import table

SURFACE = "homepage"
WORSE = Symptom(
    "losing_slice", "surface homepage", 0.3, 0.1, 3.0, 4_000,
    "The lists on homepage bring 0.07 purchases a request; the same items in an order drawn by lot "
    "would bring 0.1.", 1e-9,
)  # fmt: skip
BY_SURFACE = Symptom(
    "losing_slice", "surface basket", 0.2, 0.1, 2.0, 4_000,
    "The lists on basket bring 0.08 purchases a request; the same items in an order drawn by lot "
    "would bring 0.1.", 1e-9,
)  # fmt: skip


def tables() -> dict[str, pa.Table]:
    """A good table under each name."""
    value = {
        "surface": SURFACE, "reward": "purchases", "value": 0.11, "low": 0.1, "high": 0.12,
        "logged_value": 0.1, "requests": 4_000, "rows": 20_000, "effective_sample_size": 900.0,
        "effective_rewards": 120.0, "largest_weight": 0.001, "weight_tail": 0.1, "overlap": 0.98,
        "mean_weight": 1.01, "verdict": EVIDENCE,
    }  # fmt: skip
    named = [(LOGGED, MEAN), *((policy, name) for policy in POLICIES for name in ESTIMATORS)]
    values = [{**value, "policy": policy, "estimator": name} for policy, name in named]
    values[-1] |= {
        "value": None, "low": None, "high": None, "verdict": INSUFFICIENT,
        "reason": "there are no scores",
    }  # fmt: skip
    share = 1 / len(OUTCOMES)
    return {
        "policy_values": table("policy_values", values),
        "model_gains": table("model_gains", [
            {"surface": name, "reward": "purchases", "model": 0.12, "popularity": 0.1,
             "gain": 0.02, "low": 0.01, "high": 0.03, "verdict": "better",
             "sentence": "The model's order would bring more."}
            for name in (SURFACE, "basket")
        ]),
        "policy_rows": table("policy_rows", [
            {"surface": SURFACE, "outcome": outcome, "rows": 100, "share": share}
            for outcome in OUTCOMES
        ]),
        "off_policy_symptoms": symptoms([WORSE, BY_SURFACE]),
    }  # fmt: skip
