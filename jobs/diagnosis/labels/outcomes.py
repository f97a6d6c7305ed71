"""Outcomes of requests: how long they take to arrive, and whether they alone are late."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.diagnosis import clusters
from jobs.diagnosis.labels import delays, feeds
from jobs.diagnosis.labels.delays import Cells
from jobs.diagnosis.labels.feeds import Cube, Late
from jobs.diagnosis.symptoms import Symptom

HOUR = 3_600_000_000  # microseconds
KINDS = ("region", "segment", "channel", "surface", "key_type")
OUTCOME, ALL = "outcome", "all"
# Outcomes are rarer than events; their delay is judged from a quarter as many on.
RARER = 4
# Outcomes, or a tenth of them where that is less, by which a long delay is told.
FEWEST = 200


@dataclass(frozen=True)
class Window:
    """The periods: the current one from ``start`` to ``as_of``, the reference from ``before``."""

    before: datetime
    start: datetime
    as_of: datetime

    def hours(self, times: pa.ChunkedArray) -> np.ndarray:
        """(n,) float64 hours from each time to the run date; NaN where there is none."""
        at = times.cast(pa.int64()).to_numpy()
        return (self.as_of.timestamp() * 1e6 - at.astype(np.float64)) / HOUR

    @property
    def split(self) -> float:
        """The current period's length in hours."""
        return (self.as_of - self.start) / timedelta(hours=1)

    @property
    def whole(self) -> float:
        """The length of both periods in hours."""
        return (self.as_of - self.before) / timedelta(hours=1)


def cube(served: pa.Table, window: Window) -> Cube:
    """Purchases that answer a request, counted by part of the shop, age and delay."""
    rows = served.filter(pc.and_(served["bought"], pc.is_valid(served["bought_received"])))
    rows = rows.filter(pc.is_valid(rows["bought_time"]))
    age = window.hours(rows["bought_time"])
    late = age - window.hours(rows["bought_received"])
    codes, names = {}, {}
    for kind in KINDS:
        codes[kind], names[kind] = clusters.frequent(rows[kind])
    return feeds.cube(age <= window.split, age, late, codes, names)


def rows(known: Cube, served: pa.Table, window: Window) -> list[dict]:
    """Rows of ``label_delays`` of outcomes; matured is counted from the request."""
    asked = _since_request(served, window)
    found = []
    for kind, value, of in _parts(known):
        for period, when in (("current", known.current), ("reference", ~known.current)):
            cells = known.cells.of(of & when)
            if cells.total:
                ripe = asked.get((period, kind, value), cells)
                found.append(delay_row(OUTCOME, kind, value, period, cells, ripe))
    return found


def later_than(served: pa.Table, window: Window, days: float) -> dict[str, tuple[float, int]]:
    """By period: the share of outcomes that come more than ``days`` after their request, and how
    many are of requests old enough to show it; only where there are any."""
    place = int(delays.binned(np.array([24 * days]))[0])
    found = {}
    for (period, kind, _), cells in _since_request(served, window).items():
        rows = int(cells.rows[cells.age > place].sum())
        if kind == ALL and rows:
            found[period] = (1 - float(_ripening(cells)[place]), rows)
    return found


def _ripening(cells: Cells) -> np.ndarray:
    """(bins,) the share of outcomes that are there so long after their request."""
    return delays.distribution(cells, max(cells.oldest, 1), min(FEWEST, cells.total / 10))


def _since_request(served: pa.Table, window: Window) -> dict[tuple[str, str, str], Cells]:
    """By period and part: outcomes by the age of their request, and the time from it to their
    arrival."""
    rows = served.filter(pc.and_(served["bought"], pc.is_valid(served["bought_received"])))
    age = window.hours(rows["request_time"])
    late = age - window.hours(rows["bought_received"])
    cells = Cells(delays.binned(age), delays.binned(late), np.ones(len(age)))
    current = pc.equal(rows["period"], "current").to_numpy()
    found = {}
    for period, when in (("current", current), ("reference", ~current)):
        found[period, ALL, ALL] = cells.of(when)
        for kind in KINDS:
            code, names = clusters.frequent(rows[kind])
            for place, name in enumerate(names):
                found[period, kind, name] = cells.of(when & (code == place))
    return found


def delay_row(
    population: str, kind: str, value: str, period: str, cells: Cells, ripe: Cells
) -> dict[str, object]:
    """A row of ``label_delays``; ``ripe``: what the day of maturity is counted by."""
    share = delays.distribution(cells, max(cells.oldest, 1))
    ready = _ripening(ripe)
    return {
        "population": population, "segment_kind": kind, "segment": value, "period": period,
        "rows": cells.total, "median_hours": delays.quantile(share, 0.5),
        "p90": delays.quantile(share, 0.9), "p95": delays.quantile(share, 0.95),
        "p99": delays.quantile(share, 0.99),
        "maturity_days": float(np.ceil(delays.quantile(ready, 0.99) / 24)),
    }  # fmt: skip


def late(known: Cube, behind: list[Late], event: str, fewest: int) -> list[Symptom]:
    """Symptoms of outcomes that are late beside feeds that are not.

    ``behind``: the late feeds; what is known to come through one of them says nothing of labels.
    """
    beside = np.ones(len(known.current), bool)
    for one in behind:
        if only_labels(one, event):
            continue  # the label's own event beside others that are in time: the label is late
        if not one.feed.names:
            return []
        of = np.ones(len(known.current), bool)
        for kind, value in one.feed.names:
            if kind == "event_type":
                of &= value == "purchase"
            elif value in known.names[kind]:
                of &= known.codes[kind] == known.names[kind].index(value)
            else:
                of &= False
        beside &= ~of
    left = known.of(beside)
    looked = [
        (kind, value, delays.shift(now, then, feeds.LATE_HOURS))
        for kind, value, of in _parts(left)
        for now, then in [(left.cells.of(of & left.current), left.cells.of(of & ~left.current))]
        if now.total >= fewest // RARER and then.total >= fewest // RARER
    ]
    moved = [one for one in looked if feeds.is_late(one[2], len(looked), fewest // RARER)]
    whole = [one for one in moved if one[0] == ALL]
    return [_delay_symptom(*one) for one in (whole or moved)]


def only_labels(one: Late, event: str) -> bool:
    """Whether the feed is the label's own event, of which other events of its channel are not."""
    return one.feed.value_of("event_type") == event


def _parts(known: Cube) -> Iterator[tuple[str, str, np.ndarray]]:
    yield ALL, ALL, np.ones(len(known.current), bool)
    for kind in KINDS:
        for code, value in enumerate(known.names[kind]):
            yield kind, value, known.codes[kind] == code


def _delay_symptom(kind: str, value: str, moved: delays.Shift) -> Symptom:
    where = "everywhere" if kind == ALL else f"in {kind} {value}"
    return Symptom(
        "label_delay", "outcomes" if kind == ALL else f"{kind} {value}", moved.hours,
        feeds.LATE_HOURS, moved.hours / feeds.LATE_HOURS, moved.rows,
        f"Purchases that answer a request arrive {moved.hours:.0f} hours later than before "
        f"{where}, while other events of the same feeds do not: {moved.above:.0%} take more than "
        f"{moved.mark:.1f} hours, against {moved.before:.0%} in the weeks before.",
        moved.p_value,
    )  # fmt: skip
