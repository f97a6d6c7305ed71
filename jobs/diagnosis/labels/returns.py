"""Whether purchases come back at another rate or after another time, at equal age.

A purchase of yesterday has had no time to come back. So what is compared is the chance of coming
back on each day of a purchase's age, among those that are of that age and not back: a log-rank test
in which purchases of one customer are not independent (Lin and Wei, 1989, for the variance).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

HORIZON = 60  # days of age after which a return is no longer looked for


@dataclass(frozen=True)
class Spells:
    """Stretches of a purchase's age that were watched: (n,) days from ``start`` to ``stop``, at
    whose end it came back or not; whether it is of the ``current`` period; whose it is."""

    start: np.ndarray
    stop: np.ndarray
    back: np.ndarray
    current: np.ndarray
    customer: np.ndarray

    def of(self, kept: np.ndarray) -> Spells:
        """Those that ``kept``, (n,) bool, says."""
        return Spells(*(getattr(self, name)[kept] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Change:
    """``ratio``: returns now over those that the reference's rates lead to expect; the shares that
    are back within the ages that both periods have; ``rows``: purchases watched now."""

    ratio: float
    before: float
    after: float
    p_value: float
    rows: int
    expected: float


def linked(whose: np.ndarray, returned: np.ndarray, time: np.ndarray) -> np.ndarray:
    """(n,) int64: for a return the row of the last purchase of the same person and item before it,
    -1 where there is none and for purchases.

    ``whose``: (n,) codes of person and item; ``returned``: (n,) bool; ``time``: (n,) float64.
    """
    order = np.lexsort((returned, time, whose))
    place = np.arange(len(order))
    last = np.maximum.accumulate(np.where(returned[order], -1, place)) if len(order) else place
    same = (last >= 0) & (whose[order][np.maximum(last, 0)] == whose[order])
    found = np.full(len(order), -1, np.int64)
    hit = same & returned[order]
    found[order[hit]] = order[last[hit]]
    return found


def days_to_return(purchases: int, purchase_of: np.ndarray, days: np.ndarray) -> np.ndarray:
    """(purchases,) days from each purchase to its first return, NaN where it is not back.

    ``purchase_of``: (n_returns,) the purchase that came back, none below 0; ``days``: its age then.
    """
    found = np.full(purchases, np.inf)
    np.minimum.at(found, purchase_of, days)
    return np.where(np.isfinite(found), found, np.nan)


def watched(
    age: np.ndarray, back: np.ndarray, customer: np.ndarray, split: float, oldest: float,
    cohort: bool,
) -> Spells:  # fmt: skip
    """The spells of two periods: the last ``split`` days, and those before up to ``oldest`` days.

    ``age``: (n,) days since each purchase; ``back``: (n,) days to its return or NaN. With
    ``cohort`` a period has the purchases made in it, else all that may come back in it.
    """
    until = np.fmin(np.where(np.isnan(back), np.inf, back), HORIZON)
    parts = []
    for begin, end, current in ((split, 0.0, True), (oldest, split, False)):
        start, stop = np.maximum(age - begin, 0.0), np.minimum(age - end, until)
        kept = stop > start
        if cohort:
            kept &= age <= begin
        came = np.nan_to_num(back, nan=np.inf) <= np.minimum(age - end, HORIZON)
        parts.append((start[kept], stop[kept], came[kept], np.full(kept.sum(), current),
                      customer[kept]))  # fmt: skip
    return Spells(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def compare(spells: Spells, first: int = 0, last: int = HORIZON) -> Change:
    """Whether purchases of ages ``first`` up to ``last`` days came back more or less often."""
    now = spells.of(spells.current)
    before = spells.of(~spells.current)
    days = slice(first, last)
    had, had_before = exposure(now), exposure(before)
    came, came_before = _returns(now), _returns(before)
    both = np.zeros(HORIZON, bool)
    both[days] = (had[days] > 0) & (had_before[days] > 0)
    rate = _over(came_before, had_before)
    expected = float((had * rate)[both].sum())
    z = _score(spells, np.where(both, _over(came + came_before, had + had_before), 0.0),
               _over(had, had + had_before), both)  # fmt: skip
    return Change(
        ratio=float(came[both].sum()) / expected if expected > 0 else float("nan"),
        before=1 - float(np.exp(-rate[both].sum())),
        after=1 - float(np.exp(-_over(came, had)[both].sum())),
        p_value=float(2 * norm.sf(abs(z))),
        rows=len(now.start),
        expected=expected,
    )


def exposure(spells: Spells) -> np.ndarray:
    """(HORIZON,) days that purchases were watched at each day of age."""
    return _until(spells.stop) - _until(spells.start)


def median_age(spells: Spells) -> float:
    """Days to the return by which half of those that come back at all are back."""
    rate = _over(_returns(spells), exposure(spells))
    share = 1 - np.exp(-np.cumsum(rate))
    if share[-1] == 0:
        return float("nan")
    return float(np.searchsorted(share, share[-1] / 2) + 0.5)


def _until(ends: np.ndarray) -> np.ndarray:
    whole = np.minimum(ends.astype(np.int64), HORIZON)
    size = np.bincount(whole, minlength=HORIZON + 1)
    part = np.bincount(whole, ends - whole, minlength=HORIZON + 1)
    beyond = len(ends) - np.cumsum(size)
    return (beyond + part)[:HORIZON]


def _returns(spells: Spells) -> np.ndarray:
    at = _day(spells.stop[spells.back])
    return np.bincount(at, minlength=HORIZON).astype(float)


def _day(stop: np.ndarray) -> np.ndarray:
    return np.minimum(stop.astype(np.int64), HORIZON - 1)


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros(len(above)), where=below > 0)


def _score(spells: Spells, rate: np.ndarray, share: np.ndarray, both: np.ndarray) -> float:
    """The log-rank score over its standard error by customers; ``rate``: (HORIZON,) of both periods
    together, ``share``: of what was watched at each age, the current period's part."""
    ages = np.arange(HORIZON + 1)
    whole, part = np.r_[0.0, np.cumsum(rate)], np.r_[0.0, np.cumsum(rate * share)]
    at = _day(spells.stop)
    group = spells.current.astype(float)
    score = np.where(spells.back & both[at], group - share[at], 0.0)
    score -= group * (np.interp(spells.stop, ages, whole) - np.interp(spells.start, ages, whole))
    score += np.interp(spells.stop, ages, part) - np.interp(spells.start, ages, part)
    _, customer = np.unique(spells.customer, return_inverse=True)
    variance = float((np.bincount(customer, score) ** 2).sum()) if len(score) else 0.0
    return float(score.sum() / np.sqrt(variance)) if variance > 0 else 0.0
