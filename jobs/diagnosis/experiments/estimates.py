"""Means and ratios of what people did, with intervals that bear heavy tails and daily looks.

The unit is the person: visits of one person go together, so what is summed is a person's money or
clicks over a person's visits or requests, and the variance is that of the linearised ratio (the
delta method; Deng, Knoblich and Lu, 2018). Money is skewed: a few orders make the sum. The interval
is therefore Hall's (1992), which takes the skewness out of Student's statistic by a cubic, for a
mean and for the difference of two (Zhou and Dinh, 2005); nothing is capped or thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

Z = float(stats.norm.ppf(0.975))
Bounds = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """Estimates, all (n_groups,): ``value``, its ``variance``, its ``third`` central moment, and
    how many ``people`` it rests on. NaN where there is nothing to divide by; with fewer than two
    people the variance is NaN, too."""

    value: np.ndarray
    variance: np.ndarray
    third: np.ndarray
    people: np.ndarray

    def less(self, other: Estimate, times: float = 1.0) -> Estimate:
        """This less ``times`` another that rests on other people."""
        return Estimate(
            self.value - times * other.value,
            self.variance + times**2 * other.variance,
            self.third - times**3 * other.third,
            self.people + other.people,
        )

    def at(self, place: int) -> Estimate:
        """One of the groups, as arrays of one."""
        parts = (self.value, self.variance, self.third, self.people)
        return Estimate(*(part[place : place + 1] for part in parts))

    @property
    def skewness(self) -> np.ndarray:
        """(n_groups,) of the estimate, not of a person: it falls with the root of the people."""
        return _over(self.third, self.variance**1.5)

    def interval(self, z: float | np.ndarray = Z) -> Bounds:
        """The two-sided interval at the critical value ``z`` (1.96 for 95 %)."""
        error = np.sqrt(self.variance)
        ends = (self.value - error * _uncurl(end, self.skewness) for end in (z, -z))
        low, high = ends
        return low, high

    def z_score(self) -> np.ndarray:
        """(n_groups,) the estimate over its error, free of skewness: normal where the truth is 0;
        0 where nothing varies."""
        return _curl(_over(self.value, np.sqrt(self.variance)), self.skewness)

    def p_value(self) -> np.ndarray:
        """(n_groups,) two-sided, of the truth being 0."""
        return 2 * stats.norm.sf(np.abs(self.z_score()))


def ratios(
    person: np.ndarray, group: np.ndarray, total: np.ndarray, count: np.ndarray, groups: int
) -> Estimate:
    """``sum(total) / sum(count)`` of each group, from rows of which a person may have several.

    ``person``, ``group``: (n,) codes; rows of a negative group are left out. ``total``, ``count``:
    (n,). A person with rows in two groups counts in both.
    """
    of, sums, counts = by_person(person, group, total, count)
    return linearised(of, sums, counts, groups)[0]


def by_person(person: np.ndarray, group: np.ndarray, *values: np.ndarray) -> tuple[np.ndarray, ...]:
    """The rows' sums by person and group: the (m,) group of each, then each (m,) sum."""
    kept = group >= 0
    size = int(person.max(initial=0)) + 1
    pair, place = np.unique(group[kept].astype(np.int64) * size + person[kept], return_inverse=True)
    sums = (np.bincount(place, value[kept], minlength=len(pair)) for value in values)
    return pair // size, *sums


def linearised(
    group: np.ndarray, total: np.ndarray, count: np.ndarray, groups: int
) -> tuple[Estimate, np.ndarray]:
    """The ratio of each group from one row a person, and (m,) what each person adds to it.

    What a person adds has the group mean 0; the variance of the ratio is that of its mean.
    """
    people = np.bincount(group, minlength=groups).astype(float)
    counts = np.bincount(group, count, minlength=groups)
    counts = np.where(counts > 0, counts, np.nan)
    value = np.bincount(group, total, minlength=groups) / counts
    adds = (total - value[group] * count) * (people / counts)[group]
    return moments(group, adds, value), adds


def moments(group: np.ndarray, adds: np.ndarray, value: np.ndarray) -> Estimate:
    """The estimate whose value is known and to which each person ``adds`` (m,), mean 0."""
    people = np.bincount(group, minlength=len(value)).astype(float)
    second = np.bincount(group, adds**2, minlength=len(value))
    third = np.bincount(group, adds**3, minlength=len(value))
    variance = np.where(people > 1, _over(second, people * (people - 1)), np.nan)
    return Estimate(value, variance, _over(third, people**3), people)


def share_interval(share: Estimate, trials: np.ndarray, z: float = Z) -> Bounds:
    """Wilson's interval (1927) of shares whose trials go together by person.

    The trials are made as few as would give the variance that people have (Korn and Graubard,
    1998); where nothing varies, all count. ``trials``: (n_groups,).
    """
    p = share.value
    effective = _over(p * (1 - p), share.variance)
    n = np.where(effective > 0, np.minimum(effective, trials), trials)
    n = np.where(trials > 0, n, np.nan)
    spread = z * z / n
    middle = (p + spread / 2) / (1 + spread)
    half = z * np.sqrt((p * (1 - p) + spread / 4) / n) / (1 + spread)
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def quantile(values: np.ndarray, q: float, z: float = Z) -> tuple[float, float, float]:
    """A quantile and its interval by order statistics, whatever the distribution."""
    ordered = np.sort(values)
    last = len(ordered) - 1
    half = z * np.sqrt(len(ordered) * q * (1 - q))
    ends = (int(np.clip(round(len(ordered) * q + end), 0, last)) for end in (-half, half))
    low, high = (float(ordered[end]) for end in ends)
    return float(np.quantile(ordered, q)), low, high


def always_z(variance: np.ndarray, scale: np.ndarray, alpha: float = 0.05) -> np.ndarray:
    """The critical value that holds at every look at once, (n,).

    The normal mixture of Robbins (1970) as an asymptotic confidence sequence (Waudby-Smith et al.,
    2021; the mSPRT of Johari et al., 2017): with an effect of about ``scale`` and an estimate of
    this ``variance``, a look too many has the chance ``alpha`` over all looks together.
    """
    ratio = _over(scale**2, variance)
    return np.sqrt((1 + _over(np.ones_like(ratio), ratio)) * np.log((1 + ratio) / alpha**2))


def always_p(z: np.ndarray, variance: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The p-value that belongs to :func:`always_z`: it may be looked at daily."""
    ratio = _over(scale**2, variance)
    evidence = np.sqrt(1 + ratio) * np.exp(-(z**2) * ratio / (2 * (1 + ratio)))
    return np.minimum(1.0, evidence)


def _curl(t: np.ndarray, skewness: np.ndarray) -> np.ndarray:
    """Hall's cubic: Student's statistic of skewed values made near normal."""
    return t + skewness * t**2 / 3 + skewness**2 * t**3 / 27 + skewness / 6


def _uncurl(z: float | np.ndarray, skewness: np.ndarray) -> np.ndarray:
    """The other way round; the cubic rises everywhere."""
    small = np.abs(skewness) < 1e-9
    safe = np.where(small, 1.0, skewness)
    return np.where(small, z, 3 / safe * (np.cbrt(1 + safe * (z - safe / 6)) - 1))


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The quotient; NaN over 0, but 0 over 0 is 0 where nothing varies."""
    above, below = np.broadcast_arrays(np.asarray(above, float), np.asarray(below, float))
    none = np.where(above == 0, 0.0, np.nan)
    return np.divide(above, below, out=none.copy(), where=below != 0)
