"""How long things take to arrive, although what has not arrived is not seen.

A delay is seen only where it is shorter than the age of its event: delays are truncated on the
right. Going backwards in the delay, the chance of one delay among those no longer than it is not
touched by that, and the distribution follows as a product (Lagakos, Barraj and De Gruttola, 1988;
Kalbfleisch and Lawless, 1989). It is known up to the oldest event's age, and stated up to there.

Delays and ages are counted in bins of ``EDGES``, so that any number of rows becomes a small table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

# Hours: quarters up to 4, hours up to 3 days, quarters of a day up to 4 weeks, then days.
EDGES = np.r_[
    np.arange(0, 4, 0.25), np.arange(4, 72, 1.0), np.arange(72, 672, 6.0),
    np.arange(672, 2881, 24.0),
]  # fmt: skip
BINS = len(EDGES)
# Events are aggregates of a bin and day; below so many, a day tells nothing of the noise of days.
MIN_DAY = 20


def binned(hours: np.ndarray) -> np.ndarray:
    """(n,) int16 the bin of each duration; negative ones, by clocks that run ahead, count as 0."""
    return (np.searchsorted(EDGES, np.maximum(hours, 0.0), side="right") - 1).astype(np.int16)


@dataclass(frozen=True)
class Cells:
    """Equal combinations of age and delay: (n,) bins of ``EDGES``, and how many ``rows`` of each.
    ``late`` is the delay, ``age`` the time from the event to the run date."""

    age: np.ndarray
    late: np.ndarray
    rows: np.ndarray

    def of(self, kept: np.ndarray) -> Cells:
        """Those that ``kept``, (n,) bool, says."""
        return Cells(self.age[kept], self.late[kept], self.rows[kept])

    @property
    def total(self) -> int:
        return int(self.rows.sum())

    @property
    def oldest(self) -> int:
        """The bin of the oldest event."""
        return int(self.age.max(initial=0))


def distribution(cells: Cells, top: int, fewest: float = 1.0) -> np.ndarray:
    """(top + 1,) the share of delays in each bin or an earlier one, among delays up to bin
    ``top``. NaN without an event. Bins that fewer than ``fewest`` could have shown count as without
    a delay: near the oldest event's age a single straggler would weigh as a part of a handful."""
    kept = cells.of(cells.late <= top)
    if kept.total == 0:
        return np.full(top + 1, np.nan)
    came = np.bincount(kept.late, kept.rows, minlength=top + 1)[: top + 1]
    younger = np.bincount(np.minimum(kept.age, top + 1), kept.rows, minlength=top + 2)
    # Who could have shown this delay and showed it or a shorter one: a delay is below its age, so
    # all that are younger than the delay are among those of shorter delays.
    at_risk = np.cumsum(came) - np.r_[0.0, np.cumsum(younger)[:top]]
    chance = np.divide(came, at_risk, out=np.zeros(top + 1), where=at_risk >= fewest)
    share = np.ones(top + 1)
    share[:-1] = np.cumprod((1 - np.minimum(chance, 1.0))[:0:-1])[::-1]
    return share


def quantile(share: np.ndarray, level: float) -> float:
    """The delay in hours that this share of events does not exceed, linear within a bin."""
    if np.isnan(share).any():
        return float("nan")
    place = int(np.searchsorted(share, level - 1e-12))
    place = min(place, len(share) - 1)
    below = share[place - 1] if place else 0.0
    height = share[place] - below
    inside = (level - below) / height if height > 0 else 0.0
    end = EDGES[place + 1] if place + 1 < BINS else EDGES[place] + 24.0
    return float(EDGES[place] + np.clip(inside, 0.0, 1.0) * (end - EDGES[place]))


@dataclass(frozen=True)
class Shift:
    """How the delays of one population moved: ``hours`` by which the median or the 90 % mark, the
    one that moved more, is later; ``above``: the share of events beyond ``mark`` hours, now and
    ``before``; ``p_value``: that it is no more than the noise of single days."""

    hours: float
    mark: float
    above: float
    before: float
    p_value: float
    rows: int

    @property
    def more(self) -> float:
        """The share of events that are late and were not."""
        return self.above - self.before


def shift(now: Cells, before: Cells, limit: float) -> Shift:
    """What moved between two periods, at equal age: both up to the age of the current one's oldest.

    ``limit``: hours; an event is late where it came so much after the time in which 95 % came
    before. Its share is compared under the spread that single days of the reference have.
    """
    top = max(now.oldest, 1)
    new, old = distribution(now, top), distribution(before, top)
    hours = max(quantile(new, level) - quantile(old, level) for level in (0.5, 0.9))
    mark = quantile(old, 0.95) + limit
    place = min(int(binned(np.array([mark]))[0]), top)
    above, was = 1 - float(new[place]), 1 - float(old[place])
    share = (above * now.total + was * before.total + 0.5) / (now.total + before.total + 1)
    noise = share * (1 - share) * (1 / max(now.total, 1) + 1 / max(before.total, 1))
    z = (above - was) / np.sqrt(max(noise, 1e-300) * _spread(before, place))
    return Shift(hours, mark, above, was, float(norm.sf(z)), now.total)


def _spread(cells: Cells, place: int) -> float:
    """How many times the binomial variance the daily shares of late events have, at least 1."""
    day = (EDGES[cells.age] // 24).astype(np.int64)
    rows = np.bincount(day, cells.rows)
    late = np.bincount(day, cells.rows * (cells.late > place), minlength=len(rows))
    full = rows >= MIN_DAY
    share = late[full].sum() / max(rows[full].sum(), 1)
    if full.sum() < 3 or not 0 < share < 1:
        return 1.0
    chi = (late[full] - rows[full] * share) ** 2 / (rows[full] * share * (1 - share))
    return max(1.0, float(chi.sum() / (full.sum() - 1)))
