"""Sudden drops: the last days against the same weekdays of the reference.

Volume falls when requests or answers are lost. Coverage, conversion and revenue fall when anything
at all goes wrong: they alert, and the other steps name the cause.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from scipy import stats

from jobs.diagnosis.experiments.estimates import Estimate, ratios
from jobs.diagnosis.symptoms import Symptom

# What a season may take without a word: the test is against the reference less this.
SEASON = 0.2
# From a fifth above the usual to a fifth below it is a third: below that, a season explains it.
LIMIT = 0.35
# Four measures a day, each already held against the season's slack.
CLEAR = 0.001
# A day differs from its weekday's mean by this at least, however even the few weeks seen were.
EVEN = 0.05
# Fewer requests a day than this make a number of which half may be missing by chance.
FEWEST = 100
WEEK = 7
# Of the days that are judged so much may lack what comes late: well within the season's slack.
LACKING = 0.1


@dataclass(frozen=True)
class Days:
    """``first``: of the reference; ``last``: the last whole day; ``reference``: its days;
    ``judged``: how many of the last days are held against it. Day numbers count from ``first``."""

    first: date
    last: date
    reference: int
    judged: int

    @property
    def number(self) -> int:
        return (self.last - self.first).days + 1

    def masks(self) -> tuple[np.ndarray, np.ndarray]:
        """(number,) the reference's days that have a weekday of the judged ones, and the judged."""
        days = np.arange(self.number)
        judged = days >= self.number - self.judged
        same = np.isin(days % WEEK, days[judged] % WEEK)
        return (days < self.reference) & same & ~judged, judged

    @property
    def said(self) -> str:
        if self.judged == 1:
            return f"on {self.last.isoformat()}"
        first = self.last - timedelta(days=self.judged - 1)
        return f"from {first.isoformat()} to {self.last.isoformat()}"


def days_late(hours: np.ndarray, judged: int) -> int:
    """Whole days that have to pass before as good as all purchases of ``judged`` days are told.

    ``hours``: (n,) from purchases of the reference until they were received.
    """
    if not len(hours):
        return 0
    usual = float(np.quantile(hours, 0.95)) / 24
    return max(int(np.ceil(usual - LACKING * judged)), 0)


def of_series(
    name: str, what: str, series: np.ndarray, days: Days, year_ago: float = 1.0,
    warning: bool = False,
) -> Symptom | None:  # fmt: skip
    """A drop of what is counted by day. ``series``: (days.number,), 0 where nothing came.

    ``year_ago``: of :func:`kept_a_year_ago`; what fell as much then is told as a warning.
    """
    before, judged = days.masks()
    weekday = np.arange(days.number) % WEEK
    reference = np.arange(days.number) < days.reference
    seen = np.bincount(weekday[reference], minlength=WEEK)
    summed = np.bincount(weekday[reference], series[reference], minlength=WEEK)
    usual = summed / np.maximum(seen, 1)
    expected, came = usual[weekday[judged]].mean(), series[judged].mean()
    if not expected > 0:
        return None
    parts = reference & (usual[weekday] > 0)
    off = series[parts] / usual[weekday[parts]] - 1
    free = max(len(off) - WEEK, 1)
    spread = max(float(np.sqrt((off**2).sum() / free)), EVEN)
    ratio = came / expected
    error = spread * np.sqrt(1 / judged.sum() + 1 / max(before.sum(), 1))
    p = float(stats.t.cdf((ratio - (1 - SEASON)) / error, free))
    season = year_ago <= 1 - SEASON and ratio >= (1 - SEASON) * year_ago
    also = f" The same days a year ago fell by {1 - year_ago:.0%}, too." if season else ""
    return _symptom(name, ratio, p, int(series[judged].sum()), (
        f"{what} fell by {1 - ratio:.0%} {days.said}: {came:,.0f} a day, where {expected:,.0f} "
        f"came on the same weekdays of the weeks before.{also}"
    ), warning or season)  # fmt: skip


def kept_a_year_ago(series: np.ndarray, then: np.ndarray, days: Days) -> float:
    """What the judged days' namesakes of a year ago had of the better days around them; 1 where the
    log does not reach so far.

    ``series``, ``then``: (days.number,) of this year, for how weekdays weigh, and of the same days
    364 days before, of which the log has but the current period's. The better days are those of the
    upper quartile: a season takes most of two weeks at times.
    """
    weekday = np.arange(days.number) % WEEK
    reference = np.arange(days.number) < days.reference
    usual = np.bincount(weekday[reference], series[reference], minlength=WEEK)
    judged = days.masks()[1]
    around = ~reference & ~judged & (then > 0)
    if around.sum() < WEEK or not (then[judged] > 0).all() or not (usual > 0).all():
        return 1.0
    level = then / usual[weekday]
    return float(then[judged].sum() / usual[weekday[judged]].sum()
                 / np.quantile(level[around], 0.75))  # fmt: skip


def of_ratio(
    name: str,
    what: str,
    form: str,
    person: np.ndarray,
    day: np.ndarray,
    total: np.ndarray,
    count: np.ndarray,
    days: Days,
) -> Symptom | None:
    """A drop of a sum over another, told as a warning. ``form``: how its value is written; all
    arrays (n,) by visit, ``day`` counted from ``days.first``."""  # fmt: skip
    before, judged = days.masks()
    inside = (day >= 0) & (day < days.number)
    group = np.full(len(day), -1)
    group[inside] = np.where(judged[day[inside]], 1, np.where(before[day[inside]], 0, -1))
    both = ratios(person, group, total, count, 2)
    usual, now = both.at(0), both.at(1)
    if not usual.value[0] > 0 or not now.people[0] > 1:
        return None
    ratio = float(now.value[0] / usual.value[0])
    return _symptom(name, ratio, _below(now, usual), int((group == 1).sum()), (
        f"{what} fell by {1 - ratio:.0%} {days.said}: {now.value[0]:{form}}, where it was "
        f"{usual.value[0]:{form}} on the same weekdays of the weeks before; the other findings say "
        "why."
    ), warning=True)  # fmt: skip


def _below(now: Estimate, usual: Estimate) -> float:
    """The p-value of the drop being no more than a season's."""
    return float(stats.norm.cdf(now.less(usual, 1 - SEASON).z_score()[0]))


def _symptom(
    name: str, ratio: float, p: float, rows: int, sentence: str, warning: bool = False
) -> Symptom | None:
    drop = 1 - ratio
    if drop < LIMIT or not p < CLEAR:
        return None
    return Symptom(
        "sudden_drop", name, drop, LIMIT, drop / LIMIT, rows, sentence, p, warning
    )  # fmt: skip
