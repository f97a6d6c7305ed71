"""In what people of a context take interest: decayed person-days of items, the ground of pools.

A context is everybody, a region, a segment, or what a request says of itself: the category looked
at, the channel, the quarter of the day. People are read block by block, so that memory grows with
contexts and items alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs import tables
from jobs.params import check
from jobs.retrieval import matrix
from jobs.signals.past import BLOCK, DAY, Record, runs
from jobs.tables import BELOW

# The kind of a context and its name.
Context = tuple[str, str | None]
EVERYBODY: Context = ("all", "")
# The kinds that a person is in; the others are what a request says of itself.
OF_PERSONS = ("all", "region", "segment")
NO_INTEREST = ("return", "reject", "remove_from_cart")
# A purchase says as much as 20 views: in a shop of views alone their order is all there is.
LOOKED = 0.05
EPOCH, HOURS = date(1970, 1, 1), 24
HOUR = DAY // HOURS
COLUMNS = ["person_id", "item_id", "event_type", "event_time", "event_date", "channel"]
MERGED_AT = 4_000_000  # rows of sums that wait to be added up


@dataclass(frozen=True)
class Params:
    """How the shared lists are made."""

    # A person-day of interest counts half as much this many days later in the popular pool.
    popular_half_life_days: float = 28.0
    # The popular pool looks back this far; beyond it a person-day counts under 1/8.
    popular_days: int = 84
    # Trending: the last days, in which a person-day counts half as much this many hours later ...
    trending_days: int = 7
    trending_half_life_hours: float = 48.0
    # ... against what the days before them let expect.
    trending_base_days: int = 56
    # An item is an arrival for this long after it was first seen or created.
    arrival_days: int = 28
    # A region or segment with fewer people has no pool of its own: its counts are noise, and a
    # list made from a handful of people tells what they bought.
    min_context_people: int = 25

    def __post_init__(self) -> None:
        check(self.popular_half_life_days > 0, "popular_half_life_days must be positive")
        check(self.popular_days > 0, "popular_days must be positive")
        check(self.trending_days > 0, "trending_days must be positive")
        check(self.trending_half_life_hours > 0, "trending_half_life_hours must be positive")
        check(self.trending_base_days > 0, "trending_base_days must be positive")
        check(self.arrival_days > 0, "arrival_days must be positive")
        check(self.min_context_people > 0, "min_context_people must be positive")

    @property
    def window(self) -> int:
        """Days that are looked at."""
        return max(self.popular_days, self.trending_days + self.trending_base_days)


@dataclass(frozen=True)
class Interest:
    """Person-days per context and item, a row per pair that has any, ascending by both, all (n,).

    ``context``: places in ``contexts``, whose first is everybody; ``item``: codes of the record's
    items; ``popularity``: decayed, ``recent``: of the last days, decayed by the hour; ``base``: of
    those before them, each decayed as it would be if its hour had come last; ``spread``: the same
    with the weights squared.
    """

    contexts: list[Context]
    context: np.ndarray
    item: np.ndarray
    popularity: np.ndarray
    recent: np.ndarray
    base: np.ndarray
    spread: np.ndarray

    def without(self, few: np.ndarray) -> Interest:
        """The same without the contexts that ``few``, (n_contexts,) bool, says."""
        kept = ~few[self.context]
        names = ("context", "item", "popularity", "recent", "base", "spread")
        return Interest(self.contexts, *(getattr(self, name)[kept] for name in names))


def interest(
    record: Record, persons: pa.Table, category: pa.ChunkedArray, params: Params, requests: bool
) -> Interest:
    """Count them. ``persons``: person_id, region and segment; ``category``: (n_items,) the path of
    each of the record's items; ``requests``: whether also the contexts of requests.

    Where the source has purchases a person-day is one with a purchase; else one with any event,
    so that a shop that logs views alone has pools too. A context of too few people is left out: of
    people who are in it, or for a request's, of people with an interest in it.
    """
    persons = persons.sort_by("person_id")
    ids = pa.chunked_array(persons["person_id"], pa.string()).combine_chunks()
    names = _Names()
    own = [
        np.zeros(len(ids), np.int64),
        *(_members(persons[kind], kind, names, params) for kind in ("region", "segment")),
    ]
    n_own = len(names.all)
    of_item = _category_steps(category, names) if requests else []
    sums = _Sums(len(record.items), params)
    for first in range(0, len(ids), BLOCK):
        block = _Block.read(record, ids.slice(first, BLOCK), params)
        days = block.days(np.zeros(len(block.person), np.int64))
        for member in own:
            sums.add(days, member[first + days.person])
        for step in of_item:
            sums.add(days, step[days.item])
        if requests:
            for context in (_channels(block.rows, names), _quarters(block.rows, names)):
                apart = block.days(context)
                sums.add(apart, apart.context)
    found = sums.total(names.all)
    few = sums.people(len(names.all)) < params.min_context_people
    few[:n_own] = False
    return found.without(few)


@dataclass(frozen=True)
class _Days:
    """A row per person, item, day and context, all (n,): ``person``: the place in the block;
    ``age``: days before the instant's, ``hours``: before the instant, at the day's last;
    ``strength``: what the day counts."""

    person: np.ndarray
    item: np.ndarray
    age: np.ndarray
    hours: np.ndarray
    context: np.ndarray
    strength: np.ndarray


@dataclass(frozen=True)
class _Block:
    """Events of some people in the window: ``rows``, and (n,) codes of each."""

    rows: pa.Table
    person: np.ndarray
    item: np.ndarray
    age: np.ndarray
    hours: np.ndarray
    bought: np.ndarray

    @staticmethod
    def read(record: Record, people: pa.StringArray, params: Params) -> _Block:
        today = record.as_of.astimezone(UTC).date()
        lately = ds.field("event_date") >= pa.scalar(today - timedelta(days=params.window))
        interested = ~ds.field("event_type").isin(NO_INTEREST)
        rows, person, item = record.read(people, COLUMNS, lately & interested)
        day = rows["event_date"].cast(pa.int32()).to_numpy().astype(np.int64)
        age = (today - EPOCH).days - day - 1
        instant = int(record.as_of.timestamp() * 1_000_000)
        hours = (instant - _micros(rows["event_time"])) / HOUR
        bought = pc.equal(rows["event_type"], "purchase").to_numpy()
        return _Block(rows, person, item, age, hours, bought)

    def days(self, context: np.ndarray) -> _Days:
        """The person-days in each context, (n,) codes of the rows; -1 is in none."""
        rows = np.flatnonzero(context >= 0)
        order = rows[
            np.lexsort((context[rows], self.age[rows], self.item[rows], self.person[rows]))
        ]
        starts, day = runs(
            *(column[order] for column in (self.person, self.item, self.age, context))
        )
        bought = np.bincount(day, self.bought[order], len(starts)) > 0
        last = np.minimum.reduceat(self.hours[order], starts) if len(starts) else np.zeros(0)
        first = order[starts]
        return _Days(
            self.person[first], self.item[first], self.age[first], last, context[first],
            np.where(bought, 1.0, LOOKED),
        )  # fmt: skip


class _Names:
    """Contexts in the order of their codes."""

    def __init__(self) -> None:
        self._code: dict[Context, int] = {EVERYBODY: 0}

    @property
    def all(self) -> list[Context]:
        return list(self._code)

    def code(self, kind: str, column: pa.ChunkedArray) -> np.ndarray:
        """(n,) int64 codes of a column of names, new ones added; -1 where it is null or empty."""
        texts, place = matrix.encode(pc.fill_null(column, ""))
        codes = [
            self._code.setdefault((kind, text), len(self._code)) if text else -1
            for text in texts.to_pylist()
        ]
        return np.array(codes, np.int64)[place]


class _Sums:
    """Person-days added up per context and item, and the people counted per context."""

    def __init__(self, n_items: int, params: Params):
        self._n_items, self._params = n_items, params
        self._parts: list[tuple[np.ndarray, ...]] = []
        self._people = np.zeros(0, np.int64)

    def add(self, days: _Days, context: np.ndarray) -> None:
        """Add a block's person-days, each to its context, (n,) codes; -1 is in none. No two blocks
        may share a person and a context."""
        rows = np.flatnonzero(context >= 0)
        context, age, strength = context[rows], days.age[rows], days.strength[rows]
        hours, params = days.hours[rows], self._params
        fresh = hours < params.trending_days * HOURS
        before = ~fresh & (hours < (params.trending_days + params.trending_base_days) * HOURS)
        decayed = strength * np.exp2(-age / params.popular_half_life_days)
        last = np.exp2(-(hours % HOURS) / params.trending_half_life_hours)
        weights = (
            decayed * (age < params.popular_days),
            strength * fresh * np.exp2(-hours / params.trending_half_life_hours),
            strength * before * last,
            strength * before * last**2,
        )
        self._parts.append(_added(context * self._n_items + days.item[rows], weights))
        if sum(len(keys) for keys, *_ in self._parts[1:]) > MERGED_AT:
            self._merge()
        n_people = int(days.person.max(initial=0)) + 1
        pairs = matrix.distinct(context * n_people + days.person[rows])
        counted = np.bincount(pairs // n_people, minlength=len(self._people))
        counted[: len(self._people)] += self._people
        self._people = counted

    def people(self, n_contexts: int) -> np.ndarray:
        """(n_contexts,) int64: how many people stand in each."""
        return np.pad(self._people, (0, n_contexts - len(self._people)))

    def total(self, contexts: list[Context]) -> Interest:
        self._merge()
        keys, *sums = self._parts[0]
        # Rounded, so that equal counts are equal in whatever order they were added.
        rounded = [np.round(column, 9) for column in sums]
        return Interest(contexts, keys // self._n_items, keys % self._n_items, *rounded)

    def _merge(self) -> None:
        nothing = (np.zeros(0, np.int64), *[np.zeros(0)] * 4)
        keys, *weights = map(np.concatenate, zip(nothing, *self._parts, strict=True))
        self._parts = [_added(keys, weights)]


def _added(keys: np.ndarray, weights: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The distinct keys, ascending, and the sum of each of the weights over every key."""
    distinct, place = np.unique(keys, return_inverse=True)
    return distinct, *(np.bincount(place, column, len(distinct)) for column in weights)


def _members(
    names_of_people: pa.ChunkedArray, kind: str, names: _Names, params: Params
) -> np.ndarray:
    """(n_people,) int64: the context of this kind that each is in; -1 for none, or a small one."""
    texts, place = matrix.encode(pc.fill_null(names_of_people, ""))
    large = np.bincount(place, minlength=len(texts)) >= params.min_context_people
    kept = pc.if_else(pa.array(large[place]), names_of_people, pa.scalar(None, pa.string()))
    return names.code(kind, kept)


def _category_steps(category: pa.ChunkedArray, names: _Names) -> list[np.ndarray]:
    """(n_items,) the contexts of each item by the first step of its path, and by the first two."""
    steps = pc.split_pattern(category, BELOW)
    deep = pc.fill_null(pc.greater(pc.list_value_length(steps), 1), False)
    first = pc.binary_join(pc.list_slice(steps, 0, 1), BELOW)
    second = pc.binary_join(pc.list_slice(steps, 0, 2), BELOW)
    second = pc.if_else(deep, second, pa.scalar(None, pa.string()))
    return [names.code("category", column) for column in (first, second)]


def _channels(rows: pa.Table, names: _Names) -> np.ndarray:
    """(n,) the context of each event's channel, a device for most shops."""
    return names.code("channel", rows["channel"])


def _quarters(rows: pa.Table, names: _Names) -> np.ndarray:
    """(n,) the context of each event's quarter of the day, in UTC."""
    hour = (_micros(rows["event_time"]) % DAY) // HOUR
    quarters = [f"{first:02d}-{first + 6:02d}" for first in range(0, 24, 6)]
    return names.code("hour", pa.chunked_array([pa.array(quarters).take(pa.array(hour // 6))]))


def _micros(times: pa.ChunkedArray) -> np.ndarray:
    """(n,) int64 microseconds since 1970."""
    return times.cast(tables.TIME).cast(pa.int64()).to_numpy()
