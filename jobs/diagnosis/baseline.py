"""Words for how the model stands against what it replaced."""

from __future__ import annotations

from jobs.diagnosis.experiments.effects import BETTER, INSUFFICIENT, WORSE

POPULARITY, FALLBACK, PREVIOUS_RELEASE = BASELINES = (
    "popularity", "fallback", "previous_release",
)  # fmt: skip
EVEN = "no difference shown"
VERDICTS = (BETTER, WORSE, EVEN, INSUFFICIENT)


def verdict_of(low: float, high: float) -> str:
    """What the 95 % interval of model less baseline says; higher is better."""
    return BETTER if low > 0 else WORSE if high < 0 else EVEN
