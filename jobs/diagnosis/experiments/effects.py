"""What an arm does against its control, and what may be said of it today.

The unit is the visitor. Money a visit is adjusted by what visitors had spent before the experiment
(CUPED; Deng, Xu, Kohavi and Walker, 2013), which takes out the part of the variance that was there
already and leaves the difference unbiased. Two intervals stand side by side: the fixed one, valid
if it is looked at once, on the planned day; and the always-valid one, which may be looked at daily.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from jobs.diagnosis.experiments.estimates import Estimate, always_p, always_z, linearised, moments

BETTER, WORSE, NOT_WORSE = "better", "worse", "not worse"
FADES, GROWS = "fades", "grows"
INSUFFICIENT, BROKEN = "insufficient evidence", "not to be read"
VERDICTS = (BETTER, WORSE, NOT_WORSE, FADES, GROWS, INSUFFICIENT, BROKEN)
ALPHA = 0.05
# Fewer visitors in an arm, and a normal approximation of money promises too much.
FEWEST = 100


@dataclass(frozen=True)
class Terms:
    """How an experiment is read today.

    ``at_end``: it is the planned day, and the whole experiment is in the window, so that the fixed
    interval is valid; ``broken``: its assignment is, so that nothing is; ``effect``: the relative
    size of effects that the always-valid interval is made for; ``margin``: how much worse, as a
    share of the control's, a guardrail may be.
    """

    at_end: bool
    broken: bool
    effect: float
    margin: float


@dataclass(frozen=True)
class Difference:
    """An arm less its control, arrays of one: ``both``: (2,) control and arm; ``apart``: their
    difference; ``scale``: the size of effects that the always-valid interval is made for.

    ``arms``: how many arms are held against this control by this measure, where their intervals are
    to hold together: each is then at the level that the plan sized the experiment for, ALPHA over
    the arms (Bonferroni). Holm's verdict, which never finds less, may call an arm better or worse
    whose interval still holds 0: of several arms that differ, all but the first are held against a
    milder level than their intervals have.
    """

    both: Estimate
    apart: Estimate
    scale: np.ndarray
    arms: int = 1

    @property
    def fixed(self) -> tuple[float, float]:
        low, high = self.apart.interval(float(stats.norm.ppf(1 - ALPHA / self.arms / 2)))
        return float(low[0]), float(high[0])

    @property
    def always(self) -> tuple[float, float]:
        z = always_z(self.apart.variance, self.scale, ALPHA / self.arms)
        low, high = self.apart.interval(z)
        return float(low[0]), float(high[0])

    def valid(self, terms: Terms) -> tuple[float, float]:
        return self.fixed if terms.at_end else self.always

    def p_value(self, terms: Terms) -> float:
        """Of the interval that is valid today, as if it were the only one."""
        if terms.at_end:
            return float(self.apart.p_value()[0])
        return float(always_p(self.apart.z_score(), self.apart.variance, self.scale)[0])

    @property
    def enough(self) -> bool:
        """Whether there is an estimate, of people enough, and an error that can be told."""
        known = np.isfinite(self.apart.value[0]) and self.apart.variance[0] > 0
        return bool(known and self.both.people.min() >= FEWEST)


def compare(
    group: np.ndarray,
    total: np.ndarray,
    count: np.ndarray,
    effect: float,
    covariate: np.ndarray | None = None,
) -> tuple[Difference, float]:
    """A ratio in an arm against its control, and the share of variance that CUPED took out.

    ``group``: (n,) 0 for control, 1 for the arm; ``total``, ``count``: (n,) by visitor;
    ``covariate``: (n,) known before the experiment, or None.
    """  # fmt: skip
    both, adds = linearised(group, total, count, 2)
    reduction = 0.0
    if covariate is not None and np.isfinite(both.value).all():
        both, reduction = adjusted(group, both, adds, covariate)
    return difference(both, effect), reduction


def adjusted(
    group: np.ndarray, both: Estimate, adds: np.ndarray, covariate: np.ndarray
) -> tuple[Estimate, float]:
    """CUPED: the estimates less what the covariate explains, by one slope for both arms, and the
    share of the variance that went: the squared correlation within arms."""
    people = np.maximum(np.bincount(group, minlength=2), 1)
    means = np.bincount(group, covariate, minlength=2) / people
    inside = covariate - means[group]
    spread = float(inside @ inside)
    if spread == 0:
        return both, 0.0
    slope = float(inside @ adds) / spread
    left = adds - slope * inside
    before = float(adds @ adds)
    reduction = 1 - float(left @ left) / before if before > 0 else 0.0
    return moments(group, left, both.value - slope * (means - covariate.mean())), reduction


def novelty(
    group: np.ndarray,
    early: tuple[np.ndarray, np.ndarray],
    late: tuple[np.ndarray, np.ndarray],
    effect: float,
) -> Difference:
    """The effect in visitors' first days less the one later: above 0 it fades.

    ``early``, ``late``: (total, count), (n,) each by visitor. A visitor's two parts go together.
    """  # fmt: skip
    (first, adds), (later, adds_later) = (linearised(group, *part, 2) for part in (early, late))
    both = moments(group, adds - adds_later, first.value - later.value)
    found = difference(both, effect)
    return Difference(both, found.apart, np.abs(effect * later.value[:1]))


def difference(both: Estimate, effect: float) -> Difference:
    """The second of two estimates less the first."""
    return Difference(both, both.at(1).less(both.at(0)), np.abs(effect * both.value[:1]))


def buckets(
    group: np.ndarray, generator: np.random.Generator, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Visitors dealt into samples of one size, the same in both arms: the (n,) bucket of each, -1
    for none, and the (2 * number,) group of each bucket."""
    size = int(np.bincount(group, minlength=2).min()) // number
    found = np.full(len(group), -1)
    for one in (0, 1):
        drawn = generator.permutation(np.flatnonzero(group == one))[: size * number]
        found[drawn] = one * number + np.arange(len(drawn)) // max(size, 1)
    return found, np.repeat([0, 1], number)


def of_effect(found: Difference, p: float | None, terms: Terms, up: str, down: str) -> str:
    """The verdict of a difference; ``p``: corrected where more than one was looked at."""
    if terms.broken:
        return BROKEN
    if not found.enough or p is None or not p <= ALPHA:
        return INSUFFICIENT
    return up if found.apart.value[0] > 0 else down


def of_guardrail(found: Difference, enough: bool, terms: Terms, more_is_worse: bool) -> str:
    """Non-inferiority: worse by less than the margin, or by more, or nobody knows; ``enough``:
    there are people enough to know."""
    if terms.broken:
        return BROKEN
    if not enough or not found.apart.variance[0] > 0:
        return INSUFFICIENT
    low, high = found.valid(terms)
    margin = terms.margin * abs(float(found.both.value[0]))
    least, most = (low, high) if more_is_worse else (-high, -low)
    if most < margin:
        return NOT_WORSE
    return WORSE if least > margin else INSUFFICIENT


def corrected(p_values: list[float]) -> list[float]:
    """Benjamini and Hochberg's (1995) adjusted p-values."""
    return stats.false_discovery_control(p_values).tolist() if p_values else []


def stepped_down(p_values: list[float], tests: int) -> list[float]:
    """Holm's (1979) adjusted p-values of ``tests`` tests, of which those without a p-value have
    shown nothing: below ALPHA, no more than one in twenty times is any of them by chance. Of
    always-valid p-values that holds over all looks."""
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, float)[order] * (tests - np.arange(len(order)))
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted.tolist()
