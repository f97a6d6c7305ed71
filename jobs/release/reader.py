"""Serving's side: the newest valid release, from its embedded store or from Redis.

``Reader.open(lake)`` takes the release that ``CURRENT`` names, or, where that is not whole, the one
before, with a warning. Past the age ceiling that the release declares, lists made for persons are
as wrong as they are stale: the answer is then a shared list of the same surface, and says so.

    reader = Reader.open("var/lake")
    answer = reader.recommendations(reader.person("account", "900"))
    print(answer.reason, [item.item_id for item in answer.items])
    reader.beside(["995242", "1029743"], surface="cart")

A reader answers from one release for good; ``jobs.release.serving`` follows the pointer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, islice, starmap
from pathlib import Path
from typing import Any, NamedTuple

from jobs.errors import Fault
from jobs.io import Lake
from jobs.release import entries, releases, stores

log = logging.getLogger("nightjar")


SPARE = 4  # items of a shared list that are looked at beyond what there is room for
# Kinds of exclusion by a business rule, in e/: on a surface, and on one for people of a region.
ON_SURFACE, ON_SURFACE_IN = "surface", "surface_region"
PERSONAL, SHARED, BESIDE, RETRIEVED, POOLS = "personal", "shared", "beside", "retrieved", "pools"


class Listed(NamedTuple):
    """One place of an answer.

    ``propensity``: the probability that the item was drawn for it. ``own``: it stands in the
    person's own list, no shared one filled it. ``scored``: the score is the model's for this person
    and item, and ``features/`` has the row that it was computed from.
    """

    item_id: str
    score: float
    sources: tuple[str, ...] = ()
    propensity: float = 1.0
    own: bool = False
    scored: bool = False


@dataclass(frozen=True)
class Answer:
    """A list and why it is the one that was given.

    ``kind`` is ``personal``; ``shared``, of a surface whose lists many share; ``beside``, of what
    stands beside items; ``retrieved``, by a search of the index; or ``pools`` where shared lists
    stand in. ``reason`` says why. ``person_id`` is who asked on ``surface``, if it is known.
    """

    release_id: str
    kind: str
    reason: str
    items: tuple[Listed, ...]
    surface: str
    person_id: str | None


@dataclass(frozen=True)
class _Asked:
    """One request; ``about``: the items that the answer is to stand beside."""

    person_id: str | None
    facts: dict[str, Any]
    surface: str
    length: int
    context: Mapping[str, str]
    without: frozenset[str]
    about: frozenset[str] = frozenset()

    def answer(self, release_id: str, kind: str, why: str, items: tuple[Listed, ...]) -> Answer:
        return Answer(release_id, kind, why, items, self.surface, self.person_id)


class Scoped:
    """One release in Redis, so that an answer never mixes two."""

    def __init__(self, store: stores.RedisStore, release_id: str):
        self._store, self._id = store, release_id

    def get(self, *parts: str) -> Any:
        return self._store.get_of(self._id, *parts)

    def get_all(self, keys: Sequence[Sequence[str]]) -> list[Any]:
        return self._store.get_all_of(self._id, keys)


def _now() -> datetime:
    return datetime.now(UTC)


class Reader:
    """Answers from one release, from as many threads as there are."""

    def __init__(self, store: stores.Store, now: Callable[[], datetime] = _now):
        self._store = store
        self._now = now
        meta = store.get("m")
        if meta is None:
            raise Fault("release: the store has no entry m; it holds no whole release")
        if why := stores.foreign(meta):
            raise Fault(f"release {meta.get('release_id')}: {why}")
        self.release_id: str = meta["release_id"]
        self.as_of = datetime.fromisoformat(meta["as_of"])
        self.ceiling = timedelta(hours=meta["age_ceiling_hours"])
        self.surfaces: dict[str, dict[str, Any]] = meta["surfaces"]
        self._everyone: tuple[str, str] = tuple(meta["eligibility"]["everyone"])
        self._unknown_region: str = meta["eligibility"]["unknown_region"]

    @classmethod
    def open(
        cls, lake: str | Path, now: Callable[[], datetime] = _now, deep: bool = False
    ) -> Reader:
        """The newest valid release of a lake; ``deep`` checks the hash of every file first.

        Raises ``Fault`` where no release is whole.
        """
        release, passed = releases.serving(Lake(lake), deep)
        for why in passed:
            log.warning("reader=passed_over %s", why)
        return cls(stores.LmdbStore(release.path("kv")), now)

    @classmethod
    def open_redis(cls, url: str, now: Callable[[], datetime] = _now) -> Reader:
        """The newest valid release of a Redis, found as :meth:`open` does.

        Raises ``Fault`` where it has none and ``ConnectionError`` where it does not answer.
        """
        store = stores.RedisStore(url)
        release_id, passed = store.serving()
        for why in passed:
            log.warning("reader=passed_over %s", why)
        return cls(Scoped(store, release_id), now)

    @property
    def stale(self) -> bool:
        """Whether the release is past its age ceiling."""
        return self._now() - self.as_of > self.ceiling

    def person(self, key_type: str, key: str) -> str | None:
        """The person behind a key, or None."""
        found = self._store.get("i", key_type, key)
        return None if found is None else str(found)

    def similar(self, item_id: str) -> tuple[Listed, ...]:
        """The items like an item, best first; empty for an item that nobody knows."""
        return tuple(_listed(self._store.get("s", "similar", item_id)))

    def recommendations(
        self, person_id: str | None, surface: str = "homepage", length: int = 20, *,
        context: Mapping[str, str] | None = None, without: Collection[str] = (),
    ) -> Answer:  # fmt: skip
        """A person's list on a surface, or a shared one where there is none to give.

        ``context``: what else is known of the request, kind to name, the nearest first, such as
        ``{"category": "DAIRY"}``; it is heeded in shared lists. ``without``: items that may not be
        shown after all, since they just sold out or the person bought them after the release was
        made; shared lists fill their places. A frozenset of them is not copied.

        Raises ``Fault`` for a surface that the release does not have.
        """
        grain = self._known(surface)["grain"]
        if grain == "item":
            raise Fault(f"reader: the lists of {surface} are items'; ask beside(items, surface)")
        facts, held = None, None
        if person_id is not None:
            facts, held = self._store.get_all([("n", person_id), ("r", surface, person_id)])
        asked = _Asked(person_id, facts or {}, surface, length, context or {}, frozenset(without))
        if grain == "context":
            return self._shared(asked, SHARED, "the surface's lists are shared")
        if facts is None:
            return self._shared(asked, POOLS, "nobody is known by this id")
        if self.stale:
            hours = round((self._now() - self.as_of) / timedelta(hours=1))
            limit = round(self.ceiling / timedelta(hours=1))
            why = f"the release is {hours} hours old, its ceiling is {limit}"
            return self._shared(asked, POOLS, why)
        consents = bool(facts["personalised"])
        scored = consents and bool(self.surfaces[surface].get("scored"))
        own = tuple(_listed(held, True, scored))
        found = tuple(one for one in own if one.item_id not in asked.without)[:length]
        if not own:
            return self._shared(asked, POOLS, f"the person has no list on {surface}")
        if not found:
            return self._shared(asked, POOLS, "nothing of the person's list may be shown")
        if len(found) < min(length, len(own)):
            found += self._fill(asked, found)
        if not consents:
            why = "the person does not consent to personalisation"
            return asked.answer(self.release_id, POOLS, why, found)
        return asked.answer(self.release_id, PERSONAL, "the person's own list", found)

    def beside(
        self, items: Sequence[str], surface: str = "similar", person_id: str | None = None,
        length: int = 20, *, without: Collection[str] = (),
    ) -> Answer:  # fmt: skip
        """What stands beside these items, a page's one or a basket's several: their lists added
        up, without the items themselves, what the person may not get, and ``without``, as in
        :meth:`recommendations`.

        Raises ``Fault`` for a surface that the release does not have.
        """
        if self._known(surface)["grain"] != "item":
            raise Fault(f"reader: the lists of {surface} are no items'; ask recommendations()")
        keys = [("s", surface, item) for item in dict.fromkeys(items)]
        *known, facts, blocked = self._get_all(keys, person_id, "n", "b")
        left_out, about = frozenset(without), frozenset(items)
        asked = _Asked(person_id, facts or {}, surface, length, {}, left_out, about)
        total: dict[str, float] = {}
        for one in chain.from_iterable(map(_listed, known)):
            total[one.item_id] = total.get(one.item_id, 0.0) + one.score
        best = sorted(total.items(), key=lambda entry: (-entry[1], entry[0]))
        found = self._allowed(asked, blocked, starmap(Listed, best), length)
        if not found:
            return self._shared(asked, POOLS, f"nothing stands beside these on {surface}")
        return asked.answer(self.release_id, BESIDE, "added up over the items", found)

    def _known(self, surface: str) -> dict[str, Any]:
        if surface not in self.surfaces:
            names = ", ".join(self.surfaces)
            raise Fault(f"reader: the release has no surface {surface!r}; it has: {names}")
        return self.surfaces[surface]

    def _shared(self, asked: _Asked, kind: str, why: str) -> Answer:
        return asked.answer(self.release_id, kind, why, self._fill(asked, ()))

    def _fill(self, asked: _Asked, before: tuple[Listed, ...]) -> tuple[Listed, ...]:
        """So many items of the lists of the nearest contexts as there is room behind ``before``,
        without what the person may not get."""
        contexts: list[tuple[str, str | None]] = list(asked.context.items())
        contexts += [(kind, asked.facts.get(kind)) for kind in ("region", "segment")]
        named = [(kind, name) for kind, name in (*contexts, ("all", "")) if name is not None]
        keys = [("c", asked.surface, kind, name) for kind, name in named]
        *lists, blocked = self._get_all(keys, asked.person_id, "b")
        new = _once(chain.from_iterable(map(_listed, lists)), {one.item_id for one in before})
        return self._allowed(asked, blocked, new, asked.length - len(before))

    def _allowed(
        self, asked: _Asked, held: dict[str, Any] | None, listed: Iterable[Listed], room: int
    ) -> tuple[Listed, ...]:
        """The first of shared lists, up to ``room``, that the one who asks may get; ``held`` is
        what is blocked for them."""
        blocked, rules = frozenset(held["item_id"] if held else ()), self._rules(asked)
        # The sets are not united: what sold out may be long, and is the same for everybody.
        left = (
            one
            for one in listed
            if one.item_id not in asked.without
            and one.item_id not in asked.about
            and one.item_id not in blocked
        )
        found: list[Listed] = []
        # Many at a time and a few to spare, since every word with Redis takes its time.
        while room > len(found) and (some := list(islice(left, room - len(found) + SPARE))):
            excluded = self._store.get_all([("e", one.item_id) for one in some])
            found += [
                one
                for one, by in zip(some, excluded, strict=True)
                if by is None or rules.isdisjoint(zip(by["kind"], by["value"], strict=True))
            ]
        return tuple(found[: max(0, room)])

    def _get_all(
        self, keys: Sequence[tuple[str, ...]], person_id: str | None, *kinds: str
    ) -> list[Any]:
        """The values of these keys, then of the person's of these kinds, None for nobody's."""
        if person_id is None:
            return self._store.get_all(keys) + [None] * len(kinds)
        return self._store.get_all([*keys, *((kind, person_id) for kind in kinds)])

    def _rules(self, asked: _Asked) -> set[tuple[str, str]]:
        """What keeps items from who asks: the rules of eligibility that concern a person (nobody
        known has no region), and what the business took out of the surface."""
        region = asked.facts.get("region")
        rules = {self._everyone, ("region", region or self._unknown_region)}
        rules |= {("restriction", name) for name in asked.facts.get("restrictions") or ()}
        rules.add((ON_SURFACE, asked.surface))
        if region is not None:
            rules.add((ON_SURFACE_IN, entries.joined(asked.surface, region)))
        return rules


def _once(listed: Iterable[Listed], passed: set[str]) -> Iterator[Listed]:
    """Each item where it stands first, without those that ``passed``."""
    for one in listed:
        if one.item_id not in passed:
            passed.add(one.item_id)
            yield one


def _listed(
    value: dict[str, Any] | None, own: bool = False, scored: bool = False
) -> Iterator[Listed]:
    if value is None:
        return
    sources = value.get("sources") or [()] * len(value["item_id"])
    propensity = value.get("propensity") or [1.0] * len(value["item_id"])
    for item_id, score, named, chance in zip(
        value["item_id"], value["score"], sources, propensity, strict=True
    ):
        yield Listed(item_id, score, tuple(named), chance, own, scored)
