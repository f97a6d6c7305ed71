"""How far two samples lie apart: the numeric core that parity, drift and leakage share.

Everywhere ``values``: (n,) float, NaN for missing; ``weight``: (n,) float above 0, how many rows
one stands for; a clustering: (n,) int codes from 0, equal for rows that depend on each other. Rows
of one person, one request or one day are dependent: a person's features repeat on each row, and a
day has its own weather. A variance is therefore taken from sums over clusters, for each clustering
given, and the largest counts; sample sizes are effective ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special, stats
from threadpoolctl import threadpool_limits

from jobs.diagnosis import units

# Sums over some ten thousand rows are done before a second thread has woken, and waiting for it
# took three times as long beside other work (docs/decisions/diagnosis.md).
ONE_THREAD = threadpool_limits.wrap(limits=1, user_api="blas")
BINS = 10  # deciles of the reference, as the scorecard trade counts
SCALE_AT = (0.1, 0.25, 0.5, 0.75, 0.9)  # quantiles whose ratio a change of unit shifts alike


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error; NaN where there is nothing to estimate it from.

    ``freedom``: degrees of freedom of the error, which is itself an estimate: of a fortnight's
    days, 13. Chances and intervals are Student's t.
    """

    value: float
    error: float
    freedom: float = np.inf

    @staticmethod
    def of(value: float, influence: np.ndarray, *clusterings: np.ndarray) -> Estimate:
        """From what each row adds to the value (see :func:`spread`)."""
        found, freedom = spread(influence, *clusterings)
        return Estimate(float(value), found**0.5, freedom)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        reach = float(special.stdtrit(self.freedom, (1 + level) / 2)) * self.error
        return self.value - reach, self.value + reach

    def minus(self, other: Estimate) -> Estimate:
        """The difference of two independent estimates, its degrees of freedom Welch's (1947)."""
        parts = self.error**2, other.error**2
        below = parts[0] ** 2 / self.freedom + parts[1] ** 2 / other.freedom
        freedom = sum(parts) ** 2 / below if below > 0 else np.inf
        return Estimate(self.value - other.value, sum(parts) ** 0.5, freedom)

    @property
    def p_value(self) -> float:
        """Two-sided, of being 0."""
        if not self.error > 0:
            return 1.0
        return float(2 * special.stdtr(self.freedom, -abs(self.value) / self.error))


# --- dependence ------------------------------------------------------------------------------
def variance(influence: np.ndarray, *clusterings: np.ndarray) -> float:
    """The variance of the sum of ``influence``, (n,): what each row adds to an estimate."""
    return spread(influence, *clusterings)[0]


def spread(influence: np.ndarray, *clusterings: np.ndarray) -> tuple[float, float]:
    """The variance of the sum of ``influence``, (n,), and its degrees of freedom.

    The sandwich with sums over clusters (Liang and Zeger, 1986), each with the factor C / (C - 1);
    the largest over the clusterings, rows alone being one of them. A clustering of one cluster
    says nothing. C clusters have C - 1 degrees of freedom (Cameron and Miller, 2015).
    """
    count = len(influence)
    found, freedom = float(influence @ influence) * count / max(count - 1, 1), max(count - 1, 1)
    for codes in clusterings:
        sums = np.bincount(codes, influence)
        clusters = int(np.count_nonzero(np.bincount(codes)))
        of_sums = float(sums @ sums) * clusters / (clusters - 1) if clusters > 1 else 0.0
        if of_sums > found:
            found, freedom = of_sums, clusters - 1
    return found, float(freedom)


def kish(weight: np.ndarray) -> float:
    """The effective number of independent rows under unequal weights (Kish, 1965)."""
    return float(weight.sum() ** 2 / (weight @ weight)) if len(weight) else 0.0


def effective_size(values: np.ndarray, weight: np.ndarray, *clusterings: np.ndarray) -> float:
    """How many independent rows would give the mean of ``values`` the variance that it has."""
    if not len(values):
        return 0.0
    share = weight / weight.sum()
    away = values - share @ values
    of_row, of_mean = share @ away**2, variance(share * away, *clusterings)
    if not of_mean > 1e-30:
        return kish(weight)
    return float(np.clip(of_row / of_mean, 1.0, kish(weight)))


def mean(values: np.ndarray, weight: np.ndarray, *clusterings: np.ndarray) -> Estimate:
    """The weighted mean of values without NaN."""
    if not len(values):
        return Estimate(np.nan, np.nan)
    share = weight / weight.sum()
    # Rounded, the mean of nothing but ones may lie above 1.
    found = float(np.clip(share @ values, values.min(), values.max()))
    return Estimate.of(found, share * (values - found), *clusterings)


# --- distributions ---------------------------------------------------------------------------
def quantiles(values: np.ndarray, weight: np.ndarray, at: tuple[float, ...]) -> np.ndarray:
    """The least values with at least these shares of the weight at or below; no NaN in, n > 0."""
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weight[order])
    places = np.searchsorted(total, np.asarray(at) * total[-1] * (1 - 1e-12))
    return values[order][np.minimum(places, len(values) - 1)]


def psi(
    reference: np.ndarray,
    current: np.ndarray,
    reference_weight: np.ndarray,
    current_weight: np.ndarray,
    bins: int = BINS,
) -> float:
    """The population stability index of the known values on quantile bins of the reference.

    sum (p - q) ln(p / q) (Siddiqi, Credit Risk Scorecards, 2006); a value that repeats makes one
    bin. Half a row is added to each bin (Jeffreys), so that an empty one stays finite. In samples
    alike it is about (bins - 1) (1/n + 1/m) (Yurdakul, 2018). NaN where a side has no value.
    """
    reference, reference_weight = known(reference, reference_weight)
    current, current_weight = known(current, current_weight)
    if not len(reference) or not len(current):
        return float("nan")
    cuts = tuple(np.arange(1, bins) / bins)
    edges = np.unique(quantiles(reference, reference_weight, cuts))
    left, right = (
        _shares(np.searchsorted(edges, values, side="left"), weight, len(edges) + 1)
        for values, weight in ((reference, reference_weight), (current, current_weight))
    )
    return index(left, right)


def index(left: np.ndarray, right: np.ndarray) -> float:
    """The population stability index of two rows of shares above 0."""
    return float(np.sum((left - right) * np.log(left / right)))


def _shares(codes: np.ndarray, weight: np.ndarray, size: int) -> np.ndarray:
    rows = np.bincount(codes, weight, minlength=size) * (kish(weight) / weight.sum())
    return (rows + 0.5) / (rows.sum() + 0.5 * size)


def ks(
    left: np.ndarray, right: np.ndarray, left_weight: np.ndarray, right_weight: np.ndarray
) -> float:
    """The weighted two-sample Kolmogorov-Smirnov statistic of the known values; NaN where a side
    has none."""
    if not np.isfinite(left).any() or not np.isfinite(right).any():
        return float("nan")
    return _apart(_ranked(left, right, left_weight, right_weight)[1])


def ks_test(
    left: np.ndarray,
    right: np.ndarray,
    left_weight: np.ndarray,
    right_weight: np.ndarray,
    left_clusterings: tuple[np.ndarray, ...] = (),
    right_clusterings: tuple[np.ndarray, ...] = (),
) -> tuple[float, float]:
    """The statistic of :func:`ks`, and its p-value.

    The p-value is the asymptotic one with Stephens' correction (1970), at the effective sizes of
    the pooled ranks' means; ties make it too large, never too small. NaN, 1 where a side is empty.
    """
    has_left, has_right = np.isfinite(left), np.isfinite(right)
    if not has_left.any() or not has_right.any():
        return float("nan"), 1.0
    ranks, mass = _ranked(left, right, left_weight, right_weight)
    middle = (np.cumsum(mass, axis=1) - mass / 2).mean(axis=0)
    sizes = [
        effective_size(middle[of], weight[has], *(codes[has] for codes in clusterings))
        for of, weight, has, clusterings in (
            (ranks[0], left_weight, has_left, left_clusterings),
            (ranks[1], right_weight, has_right, right_clusterings),
        )
    ]
    root = (sizes[0] * sizes[1] / (sizes[0] + sizes[1])) ** 0.5
    statistic = _apart(mass)
    return statistic, float(special.kolmogorov((root + 0.12 + 0.11 / root) * statistic))


def _ranked(
    left: np.ndarray, right: np.ndarray, left_weight: np.ndarray, right_weight: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """The places of the known values of both sides among all that there are, from 0 up, and
    (2, n_values) each side's share of weight at each."""
    has_left, has_right = np.isfinite(left), np.isfinite(right)
    n_left = int(has_left.sum())
    _, code = np.unique(np.r_[left[has_left], right[has_right]], return_inverse=True)
    ranks, size = (code[:n_left], code[n_left:]), int(code.max()) + 1
    sides = (ranks[0], left_weight[has_left]), (ranks[1], right_weight[has_right])
    return ranks, np.stack(
        [np.bincount(of, weight, minlength=size) / weight.sum() for of, weight in sides]
    )


def _apart(mass: np.ndarray) -> float:
    below = np.cumsum(mass, axis=1)
    return float(np.abs(below[0] - below[1]).max())


def chi_square(left: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Cramér's V of two rows of counts, (k,), and the p-value of Pearson's chi-square.

    Counts are of effective rows. V is that of two samples of one size, so that it is the same
    whatever the sizes. NaN, 1 with fewer than two categories or an empty side.
    """
    seen = left + right > 0
    left, right = left[seen], right[seen]
    if len(left) < 2 or not left.sum() or not right.sum():
        return float("nan"), 1.0
    p, q = left / left.sum(), right / right.sum()
    found = stats.chi2_contingency(np.vstack([left, right]), correction=False)
    return float(np.sqrt(np.sum((p - q) ** 2 / (p + q)) / 2)), float(found.pvalue)


def category_counts(
    codes: np.ndarray, size: int, weight: np.ndarray, *clusterings: np.ndarray
) -> np.ndarray:
    """(size,) effective rows per category: weights scaled to the sample's size over the mean design
    effect of the categories' shares (Rao and Scott, 1981, first order)."""
    rows = np.bincount(codes, weight, minlength=size).astype(float)
    if not rows.sum():
        return rows
    share = rows / rows.sum()
    sizes = [
        effective_size((codes == one).astype(float), weight, *clusterings) if share[one] else 1.0
        for one in range(size)
    ]
    effects, spread = len(codes) / np.asarray(sizes), np.where(share > 0, 1 - share, 0.0)
    effect = float(spread @ effects / spread.sum()) if spread.sum() > 0 else 1.0
    return share * len(codes) / effect


def shift(
    before: np.ndarray, after: np.ndarray, before_weight: np.ndarray, after_weight: np.ndarray
) -> float:
    """The difference of the means of the known values in pooled standard deviations (Cohen, 1988);
    0 where nothing varies and nothing moved, NaN where a side is empty."""
    (before, before_weight), (after, after_weight) = (
        known(before, before_weight), known(after, after_weight),
    )  # fmt: skip
    if not len(before) or not len(after):
        return float("nan")
    means = [np.average(v, weights=w) for v, w in ((before, before_weight), (after, after_weight))]
    within = np.mean([
        np.average((v - m) ** 2, weights=w)
        for v, w, m in zip((before, after), (before_weight, after_weight), means, strict=True)
    ])  # fmt: skip
    moved = float(means[1] - means[0])
    return moved / float(within) ** 0.5 if within > 0 else float(np.sign(moved) * 1e3)


# --- one side --------------------------------------------------------------------------------
def known(values: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values that are numbers, as float64, with their weights."""
    has = np.isfinite(values)
    return values[has].astype(np.float64), weight[has]


def share(holds: np.ndarray, weight: np.ndarray) -> float:
    """The share of the weight where something holds, (n,) bool; NaN of no row."""
    return _share(weight[holds].sum(), weight.sum()) if len(holds) else np.nan


def constant(values: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """The most frequent known value and its share of all rows, known or not; NaN, 0 of none."""
    has, has_weight = known(values, weight)
    if not len(has):
        return float("nan"), 0.0
    found, code = np.unique(has, return_inverse=True)
    rows = np.bincount(code, has_weight)
    return float(found[rows.argmax()]), _share(rows.max(), weight.sum())


def _share(part: float, whole: float) -> float:
    """Sums of one thing in two orders differ in their last digits: a share is at most 1."""
    return min(float(part / whole), 1.0)


@dataclass(frozen=True)
class Scale:
    """How much larger the right side's values are, and the change of unit that this is, if any."""

    ratio: float
    factor: float | None


def scale(
    left: np.ndarray,
    right: np.ndarray,
    left_weight: np.ndarray,
    right_weight: np.ndarray,
    tolerance: float = 0.25,
) -> Scale:
    """The median ratio of the quantiles of the values' sizes, zeros left out.

    A ratio is a change of unit only where each quantile's ratio is a known factor or its inverse,
    within the tolerance: another selection of rows bends the quantiles, a unit does not.
    """
    sides = []
    for values, weight in ((left, left_weight), (right, right_weight)):
        has, has_weight = known(np.abs(values), weight)
        sides.append((has[has > 0], has_weight[has > 0]))
    if not all(len(has) for has, _ in sides):
        return Scale(float("nan"), None)
    below, above = (np.log(quantiles(has, weight, SCALE_AT)) for has, weight in sides)
    ratios = above - below
    factors = np.array(units.RATIOS)
    middle = float(np.median(ratios))
    nearest = float(factors[np.abs(np.log(factors) - middle).argmin()])
    clean = np.abs(ratios - np.log(nearest)).max() <= np.log1p(tolerance)
    return Scale(float(np.exp(middle)), nearest if clean else None)


# --- relation to a label ---------------------------------------------------------------------
def auc(
    values: np.ndarray, label: np.ndarray, weight: np.ndarray, *clusterings: np.ndarray
) -> Estimate:
    """The weighted area under the ROC curve of a value for a label, (n,) bool; ties count half.

    A missing value ranks below all others: whether it is missing can tell the label too. The error
    comes from the placements of DeLong (1988), summed over clusters (Obuchowski, 1997). NaN where
    a class is empty.
    """
    ranked = np.where(np.isfinite(values), values, -np.inf)
    _, code = np.unique(ranked, return_inverse=True)
    positive, negative = weight * label, weight * ~label
    if not positive.any() or not negative.any():
        return Estimate(np.nan, np.nan)
    hits, misses = np.bincount(code, positive), np.bincount(code, negative)
    beaten = (np.cumsum(misses) - misses / 2) / misses.sum()
    beating = (hits.sum() - np.cumsum(hits) + hits / 2) / hits.sum()
    found = float(hits @ beaten / hits.sum())
    influence = np.where(
        label,
        positive * (beaten[code] - found) / hits.sum(),
        negative * (beating[code] - found) / misses.sum(),
    )
    return Estimate.of(found, influence, *clusterings)


def adjusted(p_values: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's (1995) q-values; NaN stays NaN and is not counted as a test."""
    found = np.full(len(p_values), np.nan)
    tested = np.isfinite(p_values)
    if tested.any():
        found[tested] = stats.false_discovery_control(p_values[tested], method="bh")
    return found
