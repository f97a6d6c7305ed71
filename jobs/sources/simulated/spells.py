"""Time in spells: what holds a place until something else takes it, and what comes and goes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Days are counted from the data's first; what began before it, or outlives it, has no known day.
BEFORE = np.int32(-(2**20))
AFTER = np.int32(2**20)


class Spells:
    """Places that are always held, each by one spell after the other.

    ``slot``, ``starts``, ``ends``: (n_spells,) int, sorted by slot, then start; a spell holds its
    slot on the days ``starts`` to ``ends - 1``. A slot's first spell starts ``BEFORE`` the data and
    its last one ends ``AFTER`` it.
    """

    def __init__(self, slot: np.ndarray, starts: np.ndarray, ends: np.ndarray, days: int):
        self.slot, self.starts, self.ends = slot, starts, ends
        self._order = np.argsort(starts, kind="stable")
        self._bounds = np.searchsorted(starts[self._order], np.arange(days + 1))
        self._now = np.flatnonzero(starts == BEFORE)
        self._day = 0

    def __len__(self) -> int:
        return len(self.slot)

    @property
    def follows(self) -> np.ndarray:
        """Whether the spell before it in the arrays holds the same slot."""
        return self.starts != BEFORE

    def at(self, day: int) -> np.ndarray:
        """(n_slots,) the spell that holds each slot on a day; days are asked for in order."""
        if day < self._day:
            raise ValueError(f"day {day} was asked for after day {self._day}")
        begun = self._order[self._bounds[self._day] : self._bounds[day + 1]]
        self._now[self.slot[begun]] = begun  # of several the last one stays: they are in order
        self._day = day
        return self._now


def renewed(rng: np.random.Generator, slots: int, mean_days: float, days: int) -> Spells:
    """Spells that end at a constant hazard, 1 / ``mean_days`` a day (0: never).

    A Poisson process: the count of ends is Poisson, and they are uniform over the days. So the
    chance that a slot is still held by the same spell after a days is exp(-a / mean_days).
    """
    ends = rng.poisson(days / mean_days if mean_days else 0.0, slots)
    slot = np.repeat(np.arange(slots), ends)
    # The first midnight after the change; two changes between two midnights are one.
    changed = np.unique(slot * (days + 1) + np.ceil(rng.random(len(slot)) * days).astype(np.int64))
    slot, day = np.divmod(changed, days + 1)
    kept = (day > 0) & (day < days)
    slot = np.concatenate([np.arange(slots), slot[kept]])
    starts = np.concatenate([np.full(slots, BEFORE), day[kept].astype(np.int32)])
    order = np.lexsort((starts, slot))
    slot, starts = slot[order].astype(np.int32), starts[order]
    last = np.append(slot[1:] != slot[:-1], True)
    return Spells(slot, starts, np.where(last, AFTER, np.append(starts[1:], AFTER)), days)


@dataclass(frozen=True)
class Spans:
    """What comes and goes: (n,) int arrays; ``which`` is on from ``starts`` to ``ends - 1``."""

    which: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def on(self, day: int) -> np.ndarray:
        """The rows that are on that day; each ``which`` at most once."""
        return np.flatnonzero((self.starts <= day) & (day < self.ends))

    def pick(self, rows: np.ndarray) -> Spans:
        return Spans(self.which[rows], self.starts[rows], self.ends[rows])


def coming_and_going(
    rng: np.random.Generator, count: int, share: float, lengths: tuple[int, ...], days: int
) -> Spans:
    """Spans of each of ``count`` things so that a ``share`` of them is on at any time.

    A span is one of ``lengths`` long; the time between two has a constant hazard.
    """
    if not share:
        return Spans(*(np.empty(0, np.int64) for _ in range(3)))
    mean = float(np.mean(lengths))
    pause = mean * (1 - share) / share
    # Long enough before the data that its first day is like any other.
    now = np.full(count, -4.0 * (mean + pause)) + rng.exponential(pause, count)
    parts = []
    which = np.arange(count)
    while len(which):
        starts = np.ceil(now).astype(np.int64)
        ends = starts + rng.choice(lengths, len(which))
        parts.append((which, starts, ends))
        now = ends + rng.exponential(pause, len(which))
        which, now = which[now < days - 1], now[now < days - 1]
    which, starts, ends = (np.concatenate([part[i] for part in parts]) for i in range(3))
    seen = (ends > 0) & (starts < days)
    order = np.lexsort((starts[seen], which[seen]))
    return Spans(*(values[seen][order] for values in (which, starts, ends)))
