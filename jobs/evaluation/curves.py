"""A metric against the age of its inputs: losses, drift windows and decay, with intervals.

``ages``: (n_ages,) days, ascending from 0. ``values``: (n_people, n_ages), a metric per person; a
person is judged at every age or at none (NaN throughout), so that ages compare the same people.
Intervals are percentile bootstraps over people (Efron, 1979): a draw takes a person with all of
their values, so that differences between ages stay paired.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TAIL = 0.025  # on each side: intervals of 95 %
# Rates of decay that are looked for, as multiples of the least and the largest age: faster, all is
# lost before the first look; slower, the curve is a straight line and only gain / tau shows.
FASTEST, SLOWEST = 0.25, 10.0
RATES = 600  # on a logarithmic grid; neighbours lie 1 to 2 % apart
# Refresh periods that people schedule, in days.
CADENCES = (
    (1 / 24, "hourly"), (0.25, "every 6 hours"), (1.0, "daily"), (2.0, "every 2 days"),
    (3.0, "every 3 days"), (7.0, "weekly"), (14.0, "every 2 weeks"), (28.0, "every 4 weeks"),
)  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """A mean over people at each age, and what was lost since age 0.

    ``mean``, ``low``, ``high``, ``loss``, ``loss_low``, ``loss_high``: (n_ages,); ``drawn``:
    (n_draws, n_ages) the means of the bootstrap's draws.
    """

    ages: np.ndarray
    people: int
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    loss: np.ndarray
    loss_low: np.ndarray
    loss_high: np.ndarray
    drawn: np.ndarray

    @property
    def drawn_losses(self) -> np.ndarray:
        """(n_draws, n_ages) what each draw lost since age 0."""
        return self.drawn[:, :1] - self.drawn

    @property
    def precision(self) -> np.ndarray:
        """(n_ages - 1,) the inverse variances of the losses at the ages above 0."""
        return 1.0 / (self.drawn_losses[:, 1:].var(axis=0) + 1e-12)


@dataclass(frozen=True)
class Window:
    """The largest age whose loss is accepted, with its interval.

    ``verdict``: "measured" where the metric falls with age beyond chance; "flat" where it does not
    and the loss at the largest age is surely accepted, "unclear" where it is not. Without a
    measured fall ``days`` is the largest age; a window that reaches it may be longer.
    """

    days: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True)
class Decay:
    """``metric(a) = floor + gain * exp(-a / tau)``, days; infinite where no end can be given."""

    tau: float
    low: float
    high: float
    gain: float


@dataclass(frozen=True)
class Cadence:
    """How often to refresh: the longest usual period within the window, and what it costs.

    ``loss``, ``low``, ``high``: of the metric when the period ends, as shares of it when fresh.
    """

    name: str
    days: float
    loss: float
    low: float
    high: float


def draws(n_people: int, count: int, seed: int) -> np.ndarray:
    """(count, n_people) float64: how often each person is in each draw of the bootstrap."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(n_people, np.full(n_people, 1 / n_people), count).astype(float)


def curve(ages: np.ndarray, values: np.ndarray, drawn_people: np.ndarray) -> Curve:
    """The curve of ``values`` under the ``draws`` of its people; somebody is judged."""
    judged = np.isfinite(values[:, 0])
    kept, times = values[judged], drawn_people[:, judged]
    # A draw of few people may hold nobody who is judged; it says nothing.
    size = times.sum(axis=1)
    drawn = (times[size > 0] @ kept) / size[size > 0, None]
    mean = kept.mean(axis=0)
    low, high = _ends(drawn)
    loss_low, loss_high = _ends(drawn[:, :1] - drawn)
    return Curve(
        np.asarray(ages, float), int(judged.sum()), mean, low, high, mean[0] - mean, loss_low,
        loss_high, drawn,
    )  # fmt: skip


def window(found: Curve, accepted: float) -> Window:
    """The largest age that loses at most ``accepted`` of the fresh value.

    The losses are made to rise with age (isotonic regression) and read between the ages on a
    straight line, so that no shape is assumed.
    """
    longest = float(found.ages[-1])
    ends = [crossing(found.ages, row, limit) for row, limit in zip(
        monotone(found.drawn_losses, found.precision), accepted * found.drawn[:, 0], strict=True
    )]  # fmt: skip
    low, high = (float(end) for end in _ends(np.array(ends)))
    if not falls(found):
        surely = found.loss_high[-1] <= accepted * found.mean[0]
        return Window(longest, low, longest, "flat" if surely else "unclear")
    losses = monotone(found.loss[None, :], found.precision)[0]
    days = crossing(found.ages, losses, accepted * found.mean[0])
    return Window(days, min(low, days), max(high, days), "measured")


def falls(found: Curve) -> bool:
    """Whether the value falls with age beyond chance: the slope of the losses on log(1 + age),
    one number for all ages, is above 0 in all but the lowest draws."""
    steps = np.log1p(found.ages)
    return bool(np.quantile(found.drawn_losses @ (steps - steps.mean()), TAIL) > 0)


def monotone(losses: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """(n_rows, n_ages) losses that are 0 at age 0 and never fall: isotonic regression.

    ``losses``: (n_rows, n_ages); ``precision``: (n_ages - 1,) weights. By the max-min formula of
    Robertson, Wright and Dykstra (1988), which for a handful of ages is a handful of averages.
    """
    later = losses[:, 1:]
    n_ages = later.shape[1]
    heavy = np.r_[0.0, np.cumsum(precision)]
    sums = np.c_[np.zeros(len(later)), np.cumsum(later * precision, axis=1)]
    fitted = np.empty_like(losses)
    fitted[:, 0] = 0.0
    for age in range(n_ages):
        least = [
            np.min([
                (sums[:, last + 1] - sums[:, first]) / (heavy[last + 1] - heavy[first])
                for last in range(age, n_ages)
            ], axis=0)
            for first in range(age + 1)
        ]  # fmt: skip
        fitted[:, age + 1] = np.maximum(np.max(least, axis=0), 0.0)
    return fitted


def crossing(ages: np.ndarray, losses: np.ndarray, accepted: float) -> float:
    """The largest age at which rising ``losses`` (n_ages,) are at most ``accepted`` (>= 0)."""
    above = np.flatnonzero(losses > accepted)
    if not len(above):
        return float(ages[-1])
    after = above[0]
    share = (accepted - losses[after - 1]) / (losses[after] - losses[after - 1])
    return float(ages[after - 1] + share * (ages[after] - ages[after - 1]))


def decay(found: Curve) -> Decay | None:
    """The exponential that the losses follow, or None where the value does not fall.

    Least squares weighted by the precision of the losses, solved exactly in the gain and on a grid
    in tau, for the curve and for each draw.
    """
    if not falls(found):
        return None
    later = found.ages[1:]
    taus = np.geomspace(FASTEST * later[0], SLOWEST * later[-1], RATES)
    tau, gain = _fit(taus, later, found.loss[None, 1:], found.precision)
    drawn, _ = _fit(taus, later, found.drawn_losses[:, 1:], found.precision)
    # Not np.quantile's usual blend of two neighbours: one of them may be infinite.
    low, high = np.quantile(drawn, [TAIL, 1 - TAIL], method="inverted_cdf")
    return Decay(float(tau[0]), float(low), float(high), float(gain[0]))


def cadence(found: Curve, allowed: Window) -> Cadence:
    """The refresh period for a window; where that is unclear, for the least it may be."""
    days = allowed.low if allowed.verdict == "unclear" else allowed.days
    period, name = max((each for each in CADENCES if each[0] <= days), default=CADENCES[0])
    loss, low, high = loss_share(found, period)
    return Cadence(name, period, loss, low, high)


def loss_share(found: Curve, days: float) -> tuple[float, float, float]:
    """What is lost at an age between those measured, as a share of the fresh value, and its
    interval; the losses rise with age as for :func:`window`."""
    rows = np.vstack([found.loss, found.drawn_losses])
    fresh = np.r_[found.mean[0], found.drawn[:, 0]]
    rising = monotone(rows, found.precision)
    lost = np.array([np.interp(days, found.ages, row) for row in rising])
    shares = np.divide(lost, fresh, out=np.zeros_like(lost), where=fresh > 0)
    low, high = _ends(shares[1:])
    return float(shares[0]), float(min(low, shares[0])), float(max(high, shares[0]))


def _fit(
    taus: np.ndarray, ages: np.ndarray, losses: np.ndarray, precision: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(n_rows,) tau and gain of each row of ``losses`` (n_rows, n_ages above 0).

    A best tau at the slow end of the grid, and a row that loses nothing, have an infinite one.
    """
    shapes = 1.0 - np.exp(-ages / taus[:, None])
    power = (shapes**2) @ precision
    agreement = np.maximum((losses * precision) @ shapes.T, 0.0)
    best = (agreement**2 / power).argmax(axis=1)
    gains = agreement[np.arange(len(losses)), best] / power[best]
    endless = (best == len(taus) - 1) | (gains <= 0)
    return np.where(endless, np.inf, taus[best]), gains


def _ends(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.quantile(drawn, [TAIL, 1 - TAIL], axis=0)
    return low, high
