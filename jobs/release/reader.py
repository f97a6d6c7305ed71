"""Serving's side: the newest valid release, from its embedded store or from Redis.

``Reader.open(lake)`` takes the release that ``CURRENT`` names, or, where that is not whole, the one
before, with a warning. Past the age ceiling that the release declares, lists made for persons are
as wrong as they are stale: the answer is then the shared pools, and says so.

    reader = Reader.open("var/lake")
    answer = reader.recommendations(reader.person("account", "900"))
    print(answer.reason, [item.item_id for item in answer.items])
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from jobs.errors import Fault
from jobs.io import Lake
from jobs.release import releases, stores

log = logging.getLogger("nightjar")


@dataclass(frozen=True)
class Listed:
    """One place of an answer; ``propensity``: the probability that the item was drawn for it."""

    item_id: str
    score: float
    sources: tuple[str, ...] = ()
    propensity: float = 1.0


@dataclass(frozen=True)
class Answer:
    """A list and why it is the one that was given.

    ``kind`` is ``personal``, or ``pools`` where shared lists stand in; ``reason`` says why.
    """

    release_id: str
    kind: str
    reason: str
    items: tuple[Listed, ...]


class _Scoped:
    """One release in Redis, so that an answer never mixes two."""

    def __init__(self, store: stores.RedisStore, release_id: str):
        self._store, self._id = store, release_id

    def get(self, *parts: str) -> Any:
        return self._store.get_of(self._id, *parts)


def _now() -> datetime:
    return datetime.now(UTC)


class Reader:
    """Answers from one release; open another one after a new release was published."""

    def __init__(self, store: stores.Store, now: Callable[[], datetime] = _now):
        self._store = store
        self._now = now
        meta = store.get("m")
        if meta is None:
            raise Fault("release: the store has no entry m; it holds no whole release")
        self.release_id: str = meta["release_id"]
        self.as_of = datetime.fromisoformat(meta["as_of"])
        self.ceiling = timedelta(hours=meta["age_ceiling_hours"])
        self._pools: list[str] = meta["pools"]
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
        """The current release of a Redis; raises ``Fault`` where it has none."""
        store = stores.RedisStore(url)
        current = store.current()
        if current is None:
            raise Fault(f"redis: {store.place} has no current release; publish one with a night")
        return cls(_Scoped(store, current), now)

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
        return tuple(_listed(self._store.get("s", item_id)))

    def recommendations(
        self, person_id: str | None, surface: str = "homepage", length: int = 20
    ) -> Answer:
        """A person's list, or the pools of the person's contexts where there is none to give."""
        facts = None if person_id is None else self._store.get("n", person_id)
        if person_id is None or facts is None:
            return self._from_pools(person_id, {}, length, "nobody is known by this id")
        if self.stale:
            hours = round((self._now() - self.as_of) / timedelta(hours=1))
            limit = round(self.ceiling / timedelta(hours=1))
            why = f"the release is {hours} hours old, its ceiling is {limit}"
            return self._from_pools(person_id, facts, length, why)
        found = tuple(_listed(self._store.get("r", surface, person_id)))[:length]
        if not found:
            why = f"the person has no list on {surface}"
            return self._from_pools(person_id, facts, length, why)
        if not facts["personalised"]:
            why = "the person does not consent to personalisation"
            return Answer(self.release_id, "pools", why, found)
        return Answer(self.release_id, "personal", "the person's own list", found)

    def _from_pools(
        self, person_id: str | None, facts: dict[str, Any], length: int, why: str
    ) -> Answer:
        """The nearest pools first, without what the person may not get."""
        blocked = self._store.get("b", person_id) if person_id is not None else None
        passed = set(blocked["item_id"]) if blocked else set()
        rules = self._rules(facts)
        found: list[Listed] = []
        for listed in self._pooled(facts):
            if len(found) == length:
                break
            if listed.item_id in passed:
                continue
            passed.add(listed.item_id)
            if not rules & self._excluding(listed.item_id):
                found.append(listed)
        return Answer(self.release_id, "pools", why, tuple(found))

    def _pooled(self, facts: dict[str, Any]) -> Iterator[Listed]:
        for source in self._pools:
            for kind in ("region", "segment", "all"):
                context = "" if kind == "all" else facts.get(kind)
                if context is None:
                    continue
                for listed in _listed(self._store.get("p", source, kind, context)):
                    yield Listed(listed.item_id, listed.score, (source,))

    def _rules(self, facts: dict[str, Any]) -> set[tuple[str, str]]:
        """The rules of eligibility that concern a person; nobody known has no region."""
        rules = {self._everyone, ("region", facts.get("region") or self._unknown_region)}
        return rules | {("restriction", name) for name in facts.get("restrictions") or ()}

    def _excluding(self, item_id: str) -> set[tuple[str, str]]:
        found = self._store.get("e", item_id)
        return set(zip(found["kind"], found["value"], strict=True)) if found else set()


def _listed(value: dict[str, Any] | None) -> Iterator[Listed]:
    if value is None:
        return
    sources = value.get("sources") or [()] * len(value["item_id"])
    propensity = value.get("propensity") or [1.0] * len(value["item_id"])
    for item_id, score, named, chance in zip(
        value["item_id"], value["score"], sources, propensity, strict=True
    ):
        yield Listed(item_id, score, tuple(named), chance)
