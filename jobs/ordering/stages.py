"""From scores to the published lists: rules, demotion, diversity and explore places, in this order.

The numeric part works on a block of people as flat arrays (:meth:`Stages.order`); the settings of a
surface are :class:`Ordering`. Where no rule is in force and no stage is on, the published lists are
the model's own, to the last place.

Candidates compete by their place in the model's order, not by its score: a boost, a demotion and
the worth of a place mean the same whatever scale the scores have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pyarrow as pa

from jobs.ordering import diversity, explore, lists, overrides, rules
from jobs.ordering.diversity import Capped, Diversity, Placed, Shelf, Traits
from jobs.ordering.explore import Drawn, Explore
from jobs.ordering.lists import Listed
from jobs.params import check
from jobs.scoring.features import Named, Pairs
from jobs.tables import SOURCES

# A pin names its item, for people whom no source named it for, as the last of the editors' choices:
# a place so deep that no score rises by it.
PIN_SOURCE, PIN_RANK = "editorial", 10_000
# Where quality is judged: a homepage does not explore there.
JUDGED = 10


@dataclass(frozen=True)
class Demotion:
    """``days``: how long a pair counts as bought or as shown, 0 is off; ``factor``: by how much of
    its strength the item then competes, 0.5 doubles its place."""

    days: int = 0
    factor: float = 0.5

    def __post_init__(self) -> None:
        check(self.days >= 0, "days of a demotion must not be negative")
        check(0 < self.factor <= 1, "the factor of a demotion must be in (0, 1]")


@dataclass(frozen=True)
class Ordering:
    """How the lists of the surface ``name`` are ordered: ``length`` places, of which ``slots`` are
    owed to sources."""

    name: str
    length: int
    slots: Mapping[str, int] = field(default_factory=dict)
    diversity: Diversity = field(default_factory=Diversity)
    explore: Explore = field(default_factory=Explore)
    bought: Demotion = field(default_factory=Demotion)
    shown: Demotion = field(default_factory=Demotion)

    def __post_init__(self) -> None:
        last = self.explore.first + self.explore.places - 1
        check(
            not self.explore or last <= self.length,
            f"explore places must end in the list, which has {self.length}",
        )
        check(
            not self.explore or self.name != "homepage" or self.explore.first > JUDGED,
            f"a homepage must not explore at the places 1 to {JUDGED}",
        )
        check(
            sum(self.slots.values()) <= self.length - self.explore.places,
            "quotas must not exceed the places that do not explore",
        )

    def stages(self) -> tuple[str, ...]:
        """The stages that are on."""
        on = (self.bought.days + self.shown.days, self.diversity, self.explore)
        return tuple(name for name, chosen in zip(overrides.STAGES, on, strict=True) if chosen)


@dataclass(frozen=True)
class Block:
    """A block of people: ``ids``, ``regions``: (n_people,); ``named`` and ``pairs`` as scored;
    ``score``: (n_pairs,), finite, what a place is worth; ``rating``: (n_pairs,), what candidates
    compete by; ``allowed``, ``pinned_only``, ``bought``, ``shown``: (n_pairs,) bool, what the
    person may get, whom only a pin named, and what may be demoted."""

    ids: list[str]
    regions: list[str | None]
    named: Named
    pairs: Pairs
    score: np.ndarray
    rating: np.ndarray
    allowed: np.ndarray
    pinned_only: np.ndarray
    bought: np.ndarray
    shown: np.ndarray


@dataclass(frozen=True)
class Ordered:
    """The published lists, the model's own, and the columns that tell them apart."""

    published: Listed
    model: Listed
    columns: dict[str, pa.Array]


class Stages:
    """The ordering of one surface in one night; counts what it changes as it goes."""

    def __init__(
        self, surface: Ordering, in_force: rules.Rules, traits: Traits, shares: pa.Table,
        seed: int, as_of: datetime,
    ):  # fmt: skip
        """``shares``: the table ``explore_shares`` of this surface; empty where none explores."""
        self.surface, self.rules, self.shares = surface, in_force, shares
        self._traits, self._seed, self._as_of = traits, seed, as_of
        self._pins = [rule for rule in in_force.all if rule.kind == "pin"]
        self._bare = Ordering(surface.name, surface.length, surface.slots)
        self._tally = overrides.Tally(surface.name, in_force.all, surface.stages())

    def with_pins(
        self, named: Named, scores: np.ndarray, regions: list[str | None]
    ) -> tuple[Named, np.ndarray]:
        """What was named, and behind it the pinned items of everybody."""
        person, item = self.pins(regions)
        if len(person) == 0:
            return named, scores
        size = int(max(named.item.max(initial=0), item.max(initial=0))) + 1
        new = ~np.isin(person * size + item, named.person * size + named.item)
        person, item = person[new], item[new]
        source = np.full(len(person), SOURCES.index(PIN_SOURCE))
        behind = Named(person, item, source, np.full(len(person), PIN_RANK))
        both = Named(*(
            np.concatenate([getattr(named, column), getattr(behind, column)])
            for column in ("person", "item", "source", "rank")
        ))  # fmt: skip
        return both, np.concatenate([scores, np.zeros(len(person))])

    def pins(self, regions: list[str | None]) -> tuple[np.ndarray, np.ndarray]:
        """Person and item of every pin, (n_pins,) each."""
        wanted = [
            (person, item)
            for person, region in enumerate(regions if self._pins else ())
            for _, item, place in self.rules.of(region).pins
            if place <= self.surface.length
        ]
        person, item = np.array(wanted, np.int64).reshape(-1, 2).T
        return person, item

    def order(self, block: Block) -> Ordered:
        """The lists of a block of people.

        Rules are compared with the model's lists, and stages with what the rules alone would have
        published, so that a stage that is on changes nothing of what rules are said to do.
        """
        pairs, count = block.pairs, len(self.rules.all)
        own = block.allowed & ~block.pinned_only
        model = lists.fill(pairs, block.rating, own, self.surface.length, self.surface.slots)
        ruled, reasons = model, overrides.no_reasons(len(pairs.person))
        if self.rules:
            ruled, _, _, reasons = self._ordered(block, self._bare)
        by_rules = overrides.compare(pairs.person, block.score, model, ruled, reasons, count)
        published, propensity, by_stages = ruled, np.ones(len(ruled.pair)), None
        if self.surface.stages():
            published, propensity, drawn, reasons = self._ordered(block, self.surface)
            alone = overrides.only_demoted(reasons)
            on = self.surface.stages()
            otherwise = "diversity" if "diversity" in on else on[-1]
            by_stages = overrides.compare(
                pairs.person, block.score, ruled, published, alone, count, drawn, otherwise
            )
        self._tally.add(by_rules, by_stages)
        cause = overrides.causes(ruled, by_rules, published, by_stages)
        columns = overrides.columns(model, published, cause, propensity, self.rules.all)
        return Ordered(published, model, columns)

    def overridden(self) -> pa.Table:
        """The table ``overrides`` of all blocks so far."""
        return self._tally.table()

    def ruled(
        self, pairs: Pairs, regions: list[str | None]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(n_pairs,) bool each: what a rule takes out of its person's list, what rules raise, and
        what they lower."""
        effects, effect = self._effects(regions)
        at = (effect[pairs.person], pairs.item)
        removed_by, boost = (
            np.stack([getattr(one, name) for one in effects])[at]
            for name in ("removed_by", "boost")
        )
        return removed_by >= 0, boost > 1, boost < 1

    # --- one block ---------------------------------------------------------------------------
    def _effects(self, regions: list[str | None]) -> tuple[list[rules.Effect], np.ndarray]:
        """What the rules do in each region of a block, and (n_people,) which of these is whose."""
        distinct = {region: code for code, region in enumerate(dict.fromkeys(regions))}
        effects = [self.rules.of(region) for region in distinct]
        return effects, np.array([distinct[region] for region in regions], np.int64)

    def _ordered(
        self, block: Block, surface: Ordering
    ) -> tuple[Listed, np.ndarray, np.ndarray, overrides.Reasons]:
        """Lists under the rules and the stages of ``surface``, the propensity of each place,
        whether its item was drawn for it, and why pairs came and went."""
        pairs = block.pairs
        effects, effect = self._effects(block.regions)
        of_pair = effect[pairs.person]
        removed_by, boost, boosted_by = (
            np.stack([getattr(one, name) for one in effects])[of_pair, pairs.item]
            for name in ("removed_by", "boost", "boosted_by")
        )
        demoted, strength = _demotion(block, surface)
        usable = block.allowed & (removed_by < 0)
        shelf = self._shelf(block, usable, boost * strength)
        pins, pinned_by = self._pinned(block, shelf, effects, effect)
        caps = self._caps(block, effects, effect)
        kept_open = np.zeros(pins.shape, bool)
        here = slice(surface.explore.first - 1, surface.explore.first - 1 + surface.explore.places)
        kept_open[:, here] = pins[:, here] < 0
        placed = diversity.place(shelf, pins, kept_open, caps, surface.diversity, self._traits)
        drawn = self._draw(block, surface, shelf, placed, caps, kept_open[:, here])
        removed_by = self._full_caps(block, placed, effects, effect, removed_by)
        reasons = overrides.Reasons(removed_by, boosted_by, boost > 1, pinned_by, demoted)
        return *_as_listed(shelf, placed, drawn, here), reasons

    def _shelf(self, block: Block, usable: np.ndarray, strength: np.ndarray) -> Shelf:
        """The usable candidates by place over strength, ties by place."""
        pairs = block.pairs
        kept = np.flatnonzero(usable)
        best = kept[np.lexsort((pairs.item[kept], -block.rating[kept], pairs.person[kept]))]
        person = pairs.person[best]
        rank = lists.places(person)
        value = rank / strength[best]
        again = np.lexsort((rank, value, person))
        best, value = best[again], value[again]
        # What only a pin named stands where it is pinned, and is owed to no quota.
        named = (pairs.signals[best] > 0) & ~block.pinned_only[best, None]
        reserved = lists.reserve(person, named, self.surface.slots)
        return Shelf.of(
            person, best, pairs.item[best], value, reserved, rank, len(block.ids)
        )  # fmt: skip

    def _pinned(
        self, block: Block, shelf: Shelf, effects: list[rules.Effect], effect: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(n_people, length) columns of the shelf, -1 for none; and (n_pairs,) the pin's code."""
        pairs = block.pairs
        pins = np.full((len(block.ids), self.surface.length), -1)
        pinned_by = np.full(len(pairs.item), -1)
        size = max(int(pairs.item.max(initial=0)) + 1, 1)
        keys = pairs.person * size + pairs.item
        column = np.full(len(pairs.item), -1)
        person, at = np.nonzero(shelf.pair >= 0)
        column[shelf.pair[person, at]] = at
        for code, one in enumerate(effects):
            people = np.flatnonzero(effect == code)
            for rule, item, place in one.pins if len(keys) else ():
                if place > self.surface.length or item >= size:
                    continue
                pair = np.minimum(np.searchsorted(keys, people * size + item), len(keys) - 1)
                may = (keys[pair] == people * size + item) & (column[pair] >= 0)
                pins[people[may], place - 1] = column[pair[may]]
                pinned_by[pair[may]] = rule
        return pins, pinned_by

    def _caps(self, block: Block, effects: list[rules.Effect], effect: np.ndarray) -> list[Capped]:
        """Every cap, with room for whoever it does not concern."""
        found: dict[int, Capped] = {}
        for code, one in enumerate(effects):
            for cap in one.caps:
                everybody = np.full(len(block.ids), self.surface.length + 1)
                room = found.setdefault(cap.rule, Capped(cap.member, everybody)).room
                room[effect == code] = cap.places
        return [found[rule] for rule in sorted(found)]

    def _full_caps(
        self, block: Block, placed: Placed, effects: list[rules.Effect], effect: np.ndarray,
        removed_by: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        """``removed_by``, with the first full cap of items that no other rule removes."""
        found = removed_by.copy()
        pairs = block.pairs
        codes = sorted({cap.rule for one in effects for cap in one.caps})
        members = {cap.rule: cap.member for one in effects for cap in one.caps}
        for code, room in zip(codes, placed.room, strict=True):
            full = (room <= 0)[pairs.person] & members[code][pairs.item] & (found < 0)
            found[full] = code
        return found

    def _draw(
        self, block: Block, surface: Ordering, shelf: Shelf, placed: Placed, caps: list[Capped],
        wanted: np.ndarray,
    ) -> Drawn:  # fmt: skip
        """The explore places; ``wanted``: (n_people, explore places) bool, not pinned."""
        places = surface.explore.places
        if not places:
            return Drawn(np.zeros((len(block.ids), 0), np.int64), np.zeros((len(block.ids), 0)))
        named = np.zeros((len(block.score), len(SOURCES)), bool)
        kept = block.pairs.pair_of >= 0
        named[block.pairs.pair_of[kept], block.named.source[kept]] = True
        chance = explore.chances(block.ids, places, self._seed, self._as_of, surface.name)
        shares = np.zeros(len(SOURCES))
        for row in self.shares.to_pylist():
            shares[SOURCES.index(row["source"])] = row["share"]
        near = diversity.near_open(
            shelf, placed.column, surface.explore.first - 1, wanted, surface.diversity, self._traits
        )
        return explore.draw(shelf, placed, caps, wanted, named, shares, chance, near)


def _demotion(block: Block, surface: Ordering) -> tuple[np.ndarray, np.ndarray]:
    """(n_pairs,) bool and float64: whether and to what strength a pair is demoted."""
    strength = np.ones(len(block.score))
    demoted = np.zeros(len(block.score), bool)
    for demotion, pairs in ((surface.bought, block.bought), (surface.shown, block.shown)):
        if demotion.days:
            strength[pairs] *= demotion.factor
            demoted |= pairs
    return demoted, strength


def _as_listed(
    shelf: Shelf, placed: Placed, drawn: Drawn, here: slice
) -> tuple[Listed, np.ndarray, np.ndarray]:
    """The lists, places closed up where nothing could stand, their propensities, and whether the
    item was drawn, if only from itself."""
    column, propensity = placed.column.copy(), np.ones(placed.column.shape)
    by_chance = np.zeros(placed.column.shape, bool)
    filled = drawn.column >= 0
    by_chance[:, here] = filled
    column[:, here] = np.where(filled, drawn.column, column[:, here])
    propensity[:, here] = np.where(filled, drawn.propensity, 1.0)
    person, place = np.nonzero(column >= 0)
    pair = shelf.pair[person, column[person, place]]
    at = (person, place)
    return Listed(pair, lists.places(person)), propensity[at], by_chance[at]


def pinned_only(pairs: Pairs, before: int) -> np.ndarray:
    """(n_pairs,) bool: whom nothing but a pin named; ``before``: how many rows the sources named,
    which stand first."""
    alone = np.ones(len(pairs.person), bool)
    alone[pairs.pair_of[:before]] = False
    return alone
