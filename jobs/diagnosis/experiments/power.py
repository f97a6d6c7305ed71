"""How many people an experiment needs, and how long it takes to see them.

Sizes are those of the two-sided z-test of two means (Fleiss, Levin and Paik, 2003, chapter 4). An
experiment runs in whole weeks, so that every weekday counts alike; from 14 days, since two of every
weekday are the least that tell a week from chance, to 30, since later people lose their cookies and
the season moves: at most 28 days in whole weeks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from scipy import stats

WEEK = 7
SHORTEST, LONGEST = 14, 30


@dataclass(frozen=True)
class Plan:
    """``people``: needed in each arm; ``days``: whole weeks, None if it cannot be done in time."""

    people: dict[str, int]
    days: int | None
    sentence: str


def people_needed(
    effect: float,
    variances: tuple[float, float],
    ratio: float = 1.0,
    alpha: float = 0.05,
    power: float = 0.8,
) -> int:
    """People in the control so that a true difference of ``effect`` is found with this power.

    ``variances``: of one person, in the control and in the arm; ``ratio``: people in the arm for
    each in the control; ``alpha``: two-sided.
    """  # fmt: skip
    if effect == 0:
        raise ValueError("an effect of 0 is found by no number of people")
    spread = variances[0] + variances[1] / ratio
    # A hair below the next whole number is rounding, not a person.
    return math.ceil(_z(alpha, power) ** 2 * spread / effect**2 - 1e-9)


def least_effect(variance: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """The least true difference that an estimate of this ``variance`` finds with this power."""
    return _z(alpha, power) * math.sqrt(variance)


def duration(
    baseline: float,
    effect: float,
    newcomers: float,
    arms: Mapping[str, float],
    control: str,
    variance: float | None = None,
    alpha: float = 0.05,
    power: float = 0.8,
) -> Plan:
    """People in each arm and days until they have come.

    ``baseline``: the control's mean, or its rate where ``variance`` (of one person) is None;
    ``effect``: the least difference worth finding, in the same unit; ``newcomers``: people a day
    who are new to the experiment; ``arms``: shares, 1 together. The control is compared with each
    other arm, at ``alpha`` over them all (Bonferroni).
    """  # fmt: skip
    others = [name for name in arms if name != control]
    spread = _variances(baseline, effect, variance)
    total = max(
        people_needed(effect, spread, arms[name] / arms[control], alpha / len(others), power)
        / arms[control]
        for name in others
    )
    people = {name: math.ceil(total * share - 1e-9) for name, share in arms.items()}
    weeks = math.ceil(total / newcomers / WEEK) if newcomers > 0 else math.inf
    days = max(weeks * WEEK, SHORTEST)
    if days > LONGEST:
        wanted = math.ceil(total / (LONGEST // WEEK * WEEK))
        return Plan(people, None, (
            f"Not possible within {LONGEST} days: {math.ceil(total):,} people are needed, "
            f"{wanted:,} new ones a day, and {newcomers:,.0f} come; look for a larger effect, "
            "lower the variance (CUPED), or measure something nearer to the list."
        ))  # fmt: skip
    return Plan(people, int(days), (
        f"{int(days)} days for {math.ceil(total):,} people at {newcomers:,.0f} new ones a day."
    ))  # fmt: skip


def _variances(baseline: float, effect: float, variance: float | None) -> tuple[float, float]:
    if variance is not None:
        return variance, variance
    other = baseline + effect
    if not (0 < baseline < 1 and 0 < other < 1):
        raise ValueError(f"rates of {baseline:g} and {other:g} do not lie between 0 and 1")
    return baseline * (1 - baseline), other * (1 - other)


def _z(alpha: float, power: float) -> float:
    return float(stats.norm.isf(alpha / 2) + stats.norm.ppf(power))
