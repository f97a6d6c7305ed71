"""Lists place by place, for a block of people at once: pins, caps, and spread among neighbours.

Pure arrays. A row of :class:`Shelf` holds a person's candidates, best first; :func:`place` walks
over the places of the lists and at each takes, for all people in one step, the best candidate that
may stand there. A rule's cap holds whatever it costs; spread gives way where nothing else is left,
so it never shortens a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jobs.params import check

TRAITS = ("category", "seller")


@dataclass(frozen=True)
class Diversity:
    """How much a list is spread."""

    # At most this many places of a list for one category; 0 sets no limit.
    category_cap: int = 0
    # Neighbours of a list may not agree in these: category, seller.
    apart: tuple[str, ...] = ()
    # How much being unlike the items above counts against standing high, 0 to 1 (maximal marginal
    # relevance, Carbonell and Goldstein, 1998, has 1 less this as its lambda); 0 is off.
    unlikeness: float = 0.0
    # Of a person's candidates so many are compared with the items above; those behind them count
    # as like them, and stand only where no other may.
    window: int = 100

    def __post_init__(self) -> None:
        check(self.category_cap >= 0, "category_cap must not be negative")
        check(set(self.apart) <= set(TRAITS), f"apart may hold {' and '.join(TRAITS)}")
        check(0 <= self.unlikeness < 1, "unlikeness must be in [0, 1)")
        check(self.window >= 1, "window must be at least 1")

    def __bool__(self) -> bool:
        return bool(self.category_cap or self.apart or self.unlikeness)


@dataclass(frozen=True)
class Traits:
    """What diversity looks at, by item code.

    ``codes``: trait to (n_items,) int, equal where items agree, -1 where the trait is not known,
    which agrees with nothing. ``vectors``: (n_items, dim) float32 of length 1 or 0; None where
    unlikeness is off.
    """

    codes: dict[str, np.ndarray]
    vectors: np.ndarray | None = None


@dataclass(frozen=True)
class Shelf:
    """Candidates of people, a row each, best first, padded at the end.

    ``pair``: (n_people, width) int64, -1 where padded; ``item``: the same shape, item codes;
    ``value``: float64, the place by which candidates compete, from 1, lower is better;
    ``reserved``: bool, owed to a source's quota.
    """

    pair: np.ndarray
    item: np.ndarray
    value: np.ndarray
    reserved: np.ndarray

    @staticmethod
    def of(
        person: np.ndarray, pair: np.ndarray, item: np.ndarray, value: np.ndarray,
        reserved: np.ndarray, place: np.ndarray, people: int,
    ) -> Shelf:  # fmt: skip
        """From flat rows by person and ``place`` (from 1); people have codes below ``people``."""
        shape = (people, int(place.max(initial=0)))
        found = Shelf(
            np.full(shape, -1), np.zeros(shape, np.int64), np.ones(shape), np.zeros(shape, bool)
        )
        at = (person, place - 1)
        found.pair[at], found.item[at] = pair, item
        found.value[at], found.reserved[at] = value, reserved
        return found


@dataclass(frozen=True)
class Capped:
    """A cap on a block: ``member``: (n_items,) bool; ``room``: (n_people,) places, as many as
    nobody can fill where the cap does not concern the person."""

    member: np.ndarray
    room: np.ndarray


@dataclass(frozen=True)
class Placed:
    """``column``: (n_people, length) of the shelf, -1 where a place is empty; ``free``: (n_people,
    width) bool, candidates that stand nowhere and that no full cap holds back; ``room``:
    (n_caps, n_people) places that each cap has left."""

    column: np.ndarray
    free: np.ndarray
    room: np.ndarray


def place(
    shelf: Shelf,
    pins: np.ndarray,
    kept_open: np.ndarray,
    caps: Sequence[Capped],
    diversity: Diversity,
    traits: Traits,
) -> Placed:
    """Fill the places of lists one after the other, for all people at once.

    ``pins``: (n_people, length) columns of the shelf that stand at a place, -1 for none; they take
    their room in a cap before anything else. ``kept_open``: (n_people, length) bool, places that
    are left empty. A candidate owed to a quota is taken ahead of the better ones where else its
    list would end without it.
    """
    people, width = shelf.pair.shape
    length = pins.shape[1]
    rows = np.arange(people)
    column = np.full((people, length), -1)
    room = np.array([cap.room for cap in caps], np.int64).reshape(len(caps), people)
    free = shelf.pair >= 0
    _take_pins(shelf, pins, caps, room, free)
    for cap, left in zip(caps, room, strict=True):
        _hold_back(shelf, cap, left <= 0, free)
    to_fill = (pins < 0) & ~kept_open
    remaining = np.cumsum(to_fill[:, ::-1], axis=1)[:, ::-1]
    spread = _Spread(shelf, diversity, traits)
    for here in range(length) if width else ():
        best = free
        if shelf.reserved.any():
            owed = free & shelf.reserved
            count = owed.sum(axis=1)
            best = _where(best, owed, (count > 0) & (count >= remaining[:, here]))
        if diversity:
            unlike = best & ~spread.near(pins[:, here + 1] if here + 1 < length else None)
            best = _where(best, unlike, unlike.any(axis=1))
        picked = spread.pick(best)
        found = to_fill[:, here] & best[rows, picked]
        column[:, here] = np.where(found, picked, pins[:, here])
        taken = rows[found]
        free[taken, picked[found]] = False
        for cap, left in zip(caps, room, strict=True):
            counted = taken[cap.member[shelf.item[taken, picked[found]]]]
            left[counted] -= 1
            _hold_back(shelf, cap, np.isin(rows, counted[left[counted] <= 0]), free)
        if diversity:
            spread.note(column[:, : here + 1])
    return Placed(column, free, room)


def near_open(
    shelf: Shelf, column: np.ndarray, first: int, wanted: np.ndarray, diversity: Diversity,
    traits: Traits,
) -> list[np.ndarray]:  # fmt: skip
    """By place from ``first`` (from 0), (n_people, width) bool: what spread keeps from a place that
    is drawn for, whatever is drawn for the others.

    ``column``: (n_people, length) what stands at the other places; ``wanted``: (n_people, places)
    bool, those that are drawn for. The room that a category has left is dealt out to these places
    by its code, and of two neighbours among them each may hold every second code alone. Empty
    where nothing is spread.
    """
    if not (diversity.category_cap or diversity.apart):
        return []
    rows, (places, length) = np.arange(len(column)), (wanted.shape[1], column.shape[1])
    count = np.maximum(wanted.sum(axis=1), 1)[:, None]
    turn = np.cumsum(wanted, axis=1) - wanted
    open_ = np.zeros(column.shape, bool)
    open_[:, first : first + places] = wanted

    def standing(code: np.ndarray, place: int) -> np.ndarray:
        """(n_people, 1) the code of what stands at a place, -1 for nothing."""
        if not 0 <= place < length:
            return np.full((len(column), 1), -1)
        at = column[:, place]
        return np.where(at >= 0, code[rows, at], -1)[:, None]

    near = [np.zeros(shelf.pair.shape, bool) for _ in range(places if shelf.pair.shape[1] else 0)]
    if near and diversity.category_cap:
        code = traits.codes["category"][shelf.item]
        room = np.full(code.shape, diversity.category_cap)
        for place in range(length):
            room -= code == standing(code, place)
        for place, mine in enumerate(near):
            mine |= (code >= 0) & ((code + turn[:, place, None]) % count >= room)
    for name in diversity.apart if near else ():
        code = traits.codes[name][shelf.item]
        for place, mine in enumerate(near):
            for beside in (first + place - 1, first + place + 1):
                mine |= (code >= 0) & (code == standing(code, beside))
                if 0 <= beside < length:
                    mine |= (code >= 0) & open_[:, beside, None] & ((code + first + place) % 2 == 1)
    return near


def _take_pins(
    shelf: Shelf, pins: np.ndarray, caps: Sequence[Capped], room: np.ndarray, free: np.ndarray
) -> None:
    person, at = np.nonzero(pins >= 0)
    columns = pins[person, at]
    free[person, columns] = False
    for cap, left in zip(caps, room, strict=True):
        np.subtract.at(left, person[cap.member[shelf.item[person, columns]]], 1)


def _hold_back(shelf: Shelf, cap: Capped, full: np.ndarray, free: np.ndarray) -> None:
    """Take the cap's items off the shelves of people whose cap is full."""
    people = np.flatnonzero(full)
    if len(people):
        free[people] &= ~cap.member[shelf.item[people]]


def _where(all_of: np.ndarray, some: np.ndarray, people: np.ndarray) -> np.ndarray:
    """``some`` for these people and ``all_of`` for the rest."""
    return np.where(people[:, None], some, all_of)


class _Spread:
    """What the places so far say of the candidates for the next."""

    def __init__(self, shelf: Shelf, diversity: Diversity, traits: Traits):
        self._shelf, self._diversity = shelf, diversity
        self._rows = np.arange(len(shelf.pair))
        wanted = {*diversity.apart, *(["category"] if diversity.category_cap else [])}
        self._trait = {name: traits.codes[name][shelf.item] for name in wanted}
        self._full = np.zeros(shelf.pair.shape, bool)
        self._above: np.ndarray | None = None
        self._vectors = None
        if diversity.unlikeness:
            assert traits.vectors is not None
            window = shelf.item[:, : diversity.window]
            self._vectors, self._all = traits.vectors[window], traits.vectors
            self._likeness = np.ones(shelf.pair.shape, np.float32)
            self._likeness[:, : window.shape[1]] = 0.0
            # A list's discount by place: what standing there is worth.
            self._worth = 1.0 / np.log2(1.0 + shelf.value)

    def near(self, following: np.ndarray | None) -> np.ndarray:
        """(n_people, width) bool: too many of its category stand already, or a neighbour agrees;
        ``following``: (n_people,) columns pinned at the place after this one, -1 for none."""
        near = self._full.copy()
        for name in self._diversity.apart:
            for neighbour in (self._above, following):
                if neighbour is not None:
                    code = self._trait[name][self._rows, neighbour]
                    known = (neighbour >= 0) & (code >= 0)
                    near |= known[:, None] & (self._trait[name] == code[:, None])
        return near

    def pick(self, best: np.ndarray) -> np.ndarray:
        """(n_people,) columns: the first of the best, or the one worth most after unlikeness."""
        if self._vectors is None:
            return best.argmax(axis=1)
        share = self._diversity.unlikeness
        worth = (1 - share) * self._worth - share * self._likeness
        return np.where(best, worth, -np.inf).argmax(axis=1)

    def note(self, column: np.ndarray) -> None:
        """Look at what stands at the places so far, (n_people, places)."""
        last = column[:, -1]
        self._above = last
        people = np.flatnonzero(last >= 0)
        chosen = last[people]
        if self._diversity.category_cap:
            category = self._trait["category"]
            standing = np.where(column >= 0, category[self._rows[:, None], column], -1)[people]
            mine = category[people, chosen]
            full = (standing == mine[:, None]).sum(axis=1) >= self._diversity.category_cap
            full = people[full & (mine >= 0)]
            self._full[full] |= category[full] == category[full, last[full]][:, None]
        if self._vectors is not None:
            item = self._shelf.item[people, chosen]
            like = np.matmul(self._vectors[people], self._all[item][:, :, None])[:, :, 0]
            near = self._likeness[people, : like.shape[1]]
            self._likeness[people, : like.shape[1]] = np.maximum(near, like)
