"""Pairs of a person and an item that went back, was turned down, or was bought a short while ago.

People are read block by block, each with all that it bought, gave back and turned down. How soon an
item is bought again is learnt from everybody's gaps, so that what was lately bought waits until the
last block has been read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from jobs import tables
from jobs.signals.past import BLOCK, BOUGHT, DAY, Record, kinds, microseconds, runs
from jobs.tables import EVENT_TYPES

if TYPE_CHECKING:
    from jobs.filtering.filters import Params

COLUMNS = ["person_id", "item_id", "event_type", "event_time", "quantity"]
RETURNED, REJECTED, JUST_BOUGHT = "returned", "rejected", "just_bought"
HAIR = 1e-9  # sums of fractional units (0.1 + 0.2) differ by less
NEVER = np.iinfo(np.int64).min  # a time, in microseconds, of what did not happen
LONGEST = 1 << 20  # days, longer than any gap


@dataclass(frozen=True)
class Deeds:
    """What some people bought, gave back and turned down; (n,) each, ascending by person, item and
    time. ``person``, ``item``: codes; ``kind``: its place in ``EVENT_TYPES``; ``time``: int64
    microseconds."""

    person: np.ndarray
    item: np.ndarray
    kind: np.ndarray
    time: np.ndarray
    quantity: np.ndarray

    @staticmethod
    def of(rows: pa.Table, person: np.ndarray, item: np.ndarray) -> Deeds:
        """Of rows of the history; ``person`` and ``item``: (n,) their codes."""
        time = microseconds(rows["event_time"])
        columns = (person, item, kinds(rows), time, rows["quantity"].to_numpy())
        order = np.lexsort((time, item, person))
        return Deeds(*(column[order] for column in columns))


@dataclass(frozen=True)
class Pairs:
    """Pairs of a person and an item with what became of them; (n_pairs,) each.

    ``bought_time``, ``returned_time``, ``rejected_time``: the last, :data:`NEVER` without one;
    ``bought``, ``returned``: units of all times; ``shortest``: days between two days on which it
    was bought, :data:`LONGEST` without two.
    """

    person: np.ndarray
    item: np.ndarray
    bought_time: np.ndarray
    bought: np.ndarray
    returned_time: np.ndarray
    returned: np.ndarray
    rejected_time: np.ndarray
    shortest: np.ndarray

    def went_back(self) -> np.ndarray:
        """(n_pairs,) bool: all units ever bought went back, the last return not before the last
        purchase; a part that went back is no verdict."""
        last = (self.returned_time > NEVER) & (self.returned_time >= self.bought_time)
        return last & (self.returned >= self.bought - HAIR)

    def turned_down(self) -> np.ndarray:
        """(n_pairs,) bool: rejected, with no purchase after it."""
        return (self.rejected_time > NEVER) & (self.rejected_time >= self.bought_time)

    def of(self, chosen: np.ndarray) -> Pairs:
        """The pairs that ``chosen``, (n_pairs,) bool, says."""
        return Pairs(*(column[chosen] for column in vars(self).values()))


@dataclass(frozen=True)
class Lately:
    """Of pairs that may be just bought what has to wait for the last block: as of :class:`Pairs`,
    in 20 bytes each; ``person``: the code among all people."""

    person: np.ndarray
    item: np.ndarray
    bought_time: np.ndarray
    shortest: np.ndarray


def pairs_of(deeds: Deeds) -> tuple[Pairs, np.ndarray, np.ndarray]:
    """The pairs, and (n_gaps,) item and days of every gap between two days on which a person bought
    an item."""
    starts, group = runs(deeds.person, deeds.item)
    if not len(starts):
        none = np.zeros(0, np.int64)
        return Pairs(*[none] * 8), none, none
    last, units = {}, {}
    for name in ("purchase", "return", "reject"):
        mine = deeds.kind == EVENT_TYPES.index(name)
        last[name] = np.maximum.reduceat(np.where(mine, deeds.time, NEVER), starts)
        units[name] = np.bincount(group, np.where(mine, deeds.quantity, 0.0), len(starts))
    bought = deeds.kind == EVENT_TYPES.index("purchase")
    pair, day = group[bought], deeds.time[bought] // DAY
    again = np.flatnonzero((pair[1:] == pair[:-1]) & (day[1:] > day[:-1])) + 1
    gap, of_pair = day[again] - day[again - 1], pair[again]
    shortest = np.full(len(starts), LONGEST)
    np.minimum.at(shortest, of_pair, gap)
    item = deeds.item[starts]
    found = Pairs(
        deeds.person[starts], item, last["purchase"], units["purchase"], last["return"],
        units["return"], last["reject"], shortest,
    )  # fmt: skip
    return found, item[of_pair], gap


class Gaps:
    """How often each item was bought again after how many days, over everybody."""

    def __init__(self) -> None:
        self._codes, self._times = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._waiting: list[np.ndarray] = []
        self._size = 0

    def add(self, item: np.ndarray, days: np.ndarray) -> None:
        """Count gaps in; (n,) item codes and days."""
        self._waiting.append(item * LONGEST + days)
        self._size += len(item)
        if self._size > max(len(self._codes), 1_000_000):
            self._count()

    def counted(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(n,) item, days and how often, ascending by item and days."""
        self._count()
        return self._codes // LONGEST, self._codes % LONGEST, self._times

    def _count(self) -> None:
        fresh, times = np.unique(np.concatenate([self._codes[:0], *self._waiting]),
                                 return_counts=True)  # fmt: skip
        both = np.concatenate([self._codes, fresh])
        self._codes, group = np.unique(both, return_inverse=True)
        times = np.concatenate([self._times, times])
        self._times = np.bincount(group, times, len(self._codes)).astype(np.int64)
        self._waiting, self._size = [], 0


def waits(gaps: Gaps, category: np.ndarray, params: Params) -> np.ndarray:
    """(n_items,) int64 days for which an item counts as just bought; 0 for one that never does.

    They are the low quantile (a gap that occurred, never between two) of the item's gaps over all
    people, of its category's where the item has too few, and none where both have too few or the
    block would be shorter than is worth it. ``category``: (n_items,) codes, -1 without one.
    """
    item, days, times = gaps.counted()
    own = _low(item, days, times, len(category), params)
    of_category = category[item]
    known = of_category >= 0
    shared = _low(
        of_category[known], days[known], times[known], int(category.max(initial=-1)) + 1, params
    )
    wait = np.where((own < 0) & (category >= 0), np.append(shared, -1)[category], own)
    return np.where(
        wait >= params.repurchase_min_days, np.minimum(wait, params.repurchase_max_days), 0
    )


def _low(
    of: np.ndarray, days: np.ndarray, times: np.ndarray, size: int, params: Params
) -> np.ndarray:
    """(size,) the exact low quantile of the days of each, -1 where there are too few."""
    order = np.lexsort((days, of))
    of, days, times = of[order], days[order], times[order]
    total = np.bincount(of, times, size).astype(np.int64)
    begins = np.append(0, np.cumsum(total))[:-1]
    # Of all gaps in a row the place of each one's quantile.
    wanted = begins + np.floor((total - 1) * params.repurchase_quantile).astype(np.int64)
    found = np.full(size, -1, np.int64)
    enough = total >= params.repurchase_min_gaps
    at = np.searchsorted(np.cumsum(times), wanted[enough], side="right")
    found[enough] = days[at]
    return found


def blocked_pairs(
    record: Record, people: pa.StringArray, category: np.ndarray, params: Params
) -> pa.Table:
    """The table ``blocked_pairs`` of these people, sorted ids; ``category``: (n_items,) codes of
    the record's items, -1 without one.

    ``returned`` and ``rejected`` as :class:`Pairs` says; both hold until the person buys the item
    again. ``just_bought``: for the item's wait after the last day on which it was bought, or for
    the person's own shortest gap if that is shorter.
    """
    gaps, lately, found = Gaps(), [], []
    instant = int(record.as_of.timestamp() * 1_000_000)
    for first, deeds in _blocks(record, people):
        pairs, item, days = pairs_of(deeds)
        gaps.add(item, days)
        for reason, chosen, since in (
            (RETURNED, pairs.went_back(), pairs.returned_time),
            (REJECTED, pairs.turned_down(), pairs.rejected_time),
        ):
            rows = np.flatnonzero(chosen)
            found.append(_rows(record, people, first, pairs, rows, reason, since[rows], None))
        # Nobody is kept from an item longer than this: what was bought before is over.
        longest = np.minimum(params.repurchase_max_days, pairs.shortest)
        over = (pairs.bought_time // DAY + longest) * DAY
        waiting = pairs.of((pairs.bought_time > NEVER) & (over > instant))
        lately.append(Lately(
            (first + waiting.person).astype(np.int32), waiting.item.astype(np.int32),
            waiting.bought_time, waiting.shortest.astype(np.int32),
        ))  # fmt: skip
    wait = waits(gaps, category, params)
    for late in lately:
        own = np.minimum(wait[late.item], late.shortest)
        until = (late.bought_time // DAY + own) * DAY
        rows = np.flatnonzero((wait[late.item] > 0) & (until > instant))
        since = late.bought_time[rows]
        found.append(_rows(record, people, 0, late, rows, JUST_BOUGHT, since, until[rows]))
    schema = tables.TABLES["blocked_pairs"].schema
    return pa.concat_tables([schema.empty_table(), *found])


def _blocks(record: Record, people: pa.StringArray) -> Iterator[tuple[int, Deeds]]:
    for first in range(0, len(people), BLOCK):
        yield first, Deeds.of(*record.read(people.slice(first, BLOCK), COLUMNS, BOUGHT))


def _rows(
    record: Record, people: pa.StringArray, first: int, pairs: Pairs | Lately, rows: np.ndarray,
    reason: str, since: np.ndarray, until: np.ndarray | None,
) -> pa.Table:  # fmt: skip
    ends = pa.nulls(len(rows), tables.TIME) if until is None else pa.array(until).cast(tables.TIME)
    return pa.table({
        "person_id": people.take(pa.array(first + pairs.person[rows])),
        "item_id": record.items.take(pa.array(pairs.item[rows])),
        "reason": pa.repeat(reason, len(rows)),
        "since": pa.array(since).cast(tables.TIME),
        "until": ends,
    }, schema=tables.TABLES["blocked_pairs"].schema)  # fmt: skip
