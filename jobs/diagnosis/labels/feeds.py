"""Which feeds arrive late: channels, kinds of key or types of event whose lag moved as a whole.

A feed is what one channel, key type or event type, or an event type in a channel or of a key type,
sends. Where a channel is late, parts of every type and key are; so the feed that explains most of
what is late, and little that is not, is named first, and the rest is looked at without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jobs.diagnosis.labels import delays
from jobs.diagnosis.labels.delays import Cells, Shift

# A lag that moves by less is within what batches, retries and time zones of a feed vary by.
LATE_HOURS = 3.0
# A feed of which less is late has stragglers, not a delay.
LATE_SHARE = 0.05
SURE = 1e-4  # adjusted for all feeds looked at; thirty days are then without a false one
SILENT_HOURS = 12.0  # beyond the longest silence and the usual lag of the weeks before
NAMED = 8  # feeds named at most


@dataclass(frozen=True)
class Feed:
    """A feed, as the columns and values that make it."""

    names: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return ", ".join(f"{kind} {value}" for kind, value in self.names) or "all feeds"

    @property
    def kind(self) -> str:
        return " x ".join(kind for kind, _ in self.names) or "all"

    @property
    def value(self) -> str:
        return " / ".join(value for _, value in self.names) or "all"

    def value_of(self, kind: str) -> str | None:
        """The value of one of its columns."""
        return dict(self.names).get(kind)


@dataclass(frozen=True)
class Cube:
    """Events counted by period, columns, age and delay: (n,) each, ``current`` bool, ``codes`` into
    ``names`` by column."""

    current: np.ndarray
    cells: Cells
    codes: dict[str, np.ndarray]
    names: dict[str, list[str]]

    def of(self, kept: np.ndarray) -> Cube:
        """The counts that ``kept``, (n,) bool, says."""
        codes = {name: code[kept] for name, code in self.codes.items()}
        return Cube(self.current[kept], self.cells.of(kept), codes, self.names)

    def feeds(self) -> Iterator[tuple[Feed, np.ndarray]]:
        """Every feed and (n,) bool which counts are of it, the broadest first."""
        yield Feed(()), np.ones(len(self.current), bool)
        kinds = list(self.codes)
        for kind in kinds:
            for code, value in enumerate(self.names[kind]):
                yield Feed(((kind, value),)), self.codes[kind] == code
        for kind in kinds[1:]:
            pair = self.codes[kinds[0]].astype(np.int64) * len(self.names[kind]) + self.codes[kind]
            for both in np.unique(pair):
                first, second = divmod(int(both), len(self.names[kind]))
                named = ((kinds[0], self.names[kinds[0]][first]), (kind, self.names[kind][second]))
                yield Feed(named), pair == both


def cube(
    current: np.ndarray, age: np.ndarray, late: np.ndarray, codes: dict[str, np.ndarray],
    names: dict[str, list[str]],
) -> Cube:  # fmt: skip
    """Count events: (n,) each, ``age`` and ``late`` in hours."""
    sizes = [2, *(max(len(names[kind]), 1) for kind in codes), delays.BINS, delays.BINS]
    parts = [current, *codes.values(), delays.binned(age), delays.binned(late)]
    code = np.zeros(len(current), np.int64)
    for part, size in zip(parts, sizes, strict=True):
        code = code * size + part
    kinds, rows = np.unique(code, return_counts=True)
    split = []
    for size in reversed(sizes):
        kinds, part = np.divmod(kinds, size)
        split.append(part)
    at_late, at_age, *rest, now = split
    return Cube(
        now.astype(bool), Cells(at_age, at_late, rows),
        dict(zip(codes, reversed(rest), strict=True)), names,
    )  # fmt: skip


@dataclass(frozen=True)
class Late:
    """A late feed and by how much; ``silent``: hours without any event, 0 where it still sends."""

    feed: Feed
    shift: Shift
    silent: float

    @property
    def hours(self) -> float:
        return max(self.shift.hours, self.silent)


def is_late(moved: Shift, looks: int, fewest: int) -> bool:
    """Whether a population is late beyond the limit and beyond chance among ``looks``."""
    return (
        moved.rows >= fewest
        and moved.hours >= LATE_HOURS
        and moved.more >= LATE_SHARE
        and moved.p_value * looks <= SURE
    )


def late_feeds(events: Cube, fewest: int) -> list[Late]:
    """The feeds that are late or silent, what explains most first.

    ``fewest``: events a feed must have in both periods. Without a reference there is none.
    """
    found: list[Late] = []
    left = events
    while len(found) < NAMED:
        feeds = [(feed, of) for feed, of in left.feeds() if _large(left, of, fewest)]
        moved = [(feed, of, delays.shift(*_periods(left, of), LATE_HOURS)) for feed, of in feeds]
        late = [one for one in moved if is_late(one[2], len(feeds), fewest)]
        if not late:
            break
        every = max(shift.more * shift.rows for *_, shift in late)
        feed, of, shift = max(late, key=lambda one: _explained(one[2], every))
        found.append(Late(feed, shift, 0.0))
        left = left.of(~of)
    return found + _silent_feeds(left, fewest)


def _large(events: Cube, of: np.ndarray, fewest: int) -> bool:
    now, then = _periods(events, of)
    return now.total >= fewest and then.total >= fewest


def _periods(events: Cube, of: np.ndarray) -> tuple[Cells, Cells]:
    return events.cells.of(of & events.current), events.cells.of(of & ~events.current)


def _explained(part: Shift, every: float) -> float:
    """The harmonic mean of how much of the feed is late and how much of what is late, ``every``
    event, it is (F1)."""
    return 2 * part.more * part.rows / (part.rows + every)


# --- silence ---------------------------------------------------------------------------------
def _silent_feeds(events: Cube, fewest: int) -> list[Late]:
    found: list[Late] = []
    left = events
    for feed, _ in events.feeds():
        of = _inside(left, feed)
        before = left.cells.of(of & ~left.current)
        if before.total < fewest:
            continue
        hours = silence(left.cells.of(of & left.current), before, left.cells.age[left.current])
        if hours < SILENT_HOURS:
            continue
        rate = before.total / max(float(np.ptp(delays.EDGES[before.age])), 24.0)
        shift = Shift(hours, hours, 1.0, 0.0, float(np.exp(-rate * hours)), before.total)
        if shift.p_value <= SURE and not feed.names:
            return []  # where nothing at all comes the log itself has stopped, not a feed
        if shift.p_value <= SURE:
            found.append(Late(feed, shift, hours))
            left = left.of(~of)
    return found[:NAMED]


def _inside(events: Cube, feed: Feed) -> np.ndarray:
    of = np.ones(len(events.current), bool)
    for kind, value in feed.names:
        of &= events.codes[kind] == events.names[kind].index(value)
    return of


def silence(now: Cells, before: Cells, ages: np.ndarray) -> float:
    """Hours since the newest event, beyond the longest time without one before and beyond the lag
    in which 95 % used to come. ``ages``: bins of all events of the current period, of which the
    oldest bounds the silence of a feed without any."""
    newest = int(now.age.min()) if now.total else int(ages.max(initial=0))
    usual = delays.quantile(delays.distribution(before, max(before.oldest, 1)), 0.95)
    here = np.unique(before.age)
    longest = float(np.diff(delays.EDGES[here]).max(initial=0.0))
    return float(delays.EDGES[newest]) - longest - usual
