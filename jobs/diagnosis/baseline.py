"""Words for how the model stands against what it replaced."""

from __future__ import annotations

POPULARITY, FALLBACK, PREVIOUS_RELEASE = BASELINES = (
    "popularity", "fallback", "previous_release",
)  # fmt: skip
BETTER, WORSE, EVEN, INSUFFICIENT = VERDICTS = (
    "better", "worse", "no difference shown", "insufficient evidence",
)  # fmt: skip


def verdict_of(low: float, high: float) -> str:
    """What the 95 % interval of model less baseline says; higher is better."""
    return BETTER if low > 0 else WORSE if high < 0 else EVEN
