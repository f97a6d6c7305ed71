"""For a program that serves for days: the reader of the release that serves now, and three gauges.

    serving = Serving.open("var/lake")  # or Serving.open_redis("redis://host:6379/0")
    reader = serving.reader()  # once a request: all that it answers is of one release
    reader.recommendations(reader.person("account", "900"))

The pointer is ``CURRENT``, or ``nightjar:current`` in Redis. Where it names another release, that
one is opened; while that one is not whole, or the pointer cannot be read, the release in use goes
on answering. Nothing newer than the pointer is ever taken up: what was rolled back stays back.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from jobs.errors import Fault
from jobs.io import Lake
from jobs.release import releases, stores
from jobs.release.reader import Reader, Scoped

log = logging.getLogger("nightjar")
# How long after a release was found not to be whole it is looked at again.
RETRY = timedelta(seconds=10)
# Seconds a serving program waits for Redis; a night waits longer.
REDIS_TIMEOUT = 1.0

Known = tuple[str, datetime]  # a release id and what it is as of


@dataclass(frozen=True)
class Gauge:
    """A release, the instant that it is as of, and the hours that have passed since."""

    release_id: str
    as_of: datetime
    age_hours: float


@dataclass(frozen=True)
class Gauges:
    """Three releases that are one while all is well; None where there is none.

    ``newest_built``: the newest there is, whether or not it may serve. ``newest_valid``: the one
    that would be opened now. ``in_use``: the one that a reader answers from.
    """

    newest_built: Gauge | None
    newest_valid: Gauge | None
    in_use: Gauge | None


class Serving:
    """Follows the pointer; any number of threads may ask it at once."""

    def __init__(self, shelf: Shelf, retry: timedelta = RETRY):
        self._shelf, self._retry = shelf, retry.total_seconds()
        self._told = ""
        self._held, passed = shelf.open()
        self._tell("; ".join(passed))
        self._turn = threading.Lock()
        # What the pointer named when another release had to be kept, and when that was.
        self._passed: tuple[str | None, float] | None = None

    @classmethod
    def open(
        cls, lake: str | Path, now: Callable[[], datetime] | None = None, deep: bool = False,
        retry: timedelta = RETRY,
    ) -> Serving:  # fmt: skip
        """Follow ``CURRENT``; ``deep`` checks the hash of every file of a release that is opened.

        Raises ``Fault`` where no release is whole to begin with.
        """
        return cls(Files(Lake(lake), now or _now, deep), retry)

    @classmethod
    def open_redis(
        cls, url: str, now: Callable[[], datetime] | None = None, retry: timedelta = RETRY,
        timeout: float = REDIS_TIMEOUT,
    ) -> Serving:  # fmt: skip
        """Follow ``nightjar:current``; ``timeout`` in seconds holds for every word with Redis.

        Raises ``Fault`` and ``ConnectionError`` as ``Reader.open_redis`` does, to begin with.
        """
        return cls(InRedis(stores.RedisStore(url, timeout), now or _now), retry)

    def reader(self) -> Reader:
        """The reader of the release that serves now. Ask for it once a request and keep to it.

        Reads the pointer, one small file or one GET. The call that finds another release named
        opens it; others go on with the one in use meanwhile. Raises ``Fault`` where Redis has lost
        the release in use and has none to take its place.
        """
        held = self._held
        try:
            named = self._shelf.named()
        except (Fault, OSError) as away:
            self._tell(f"the pointer cannot be read ({away})")
            return held
        if named == held.release_id:
            self._told = ""
            return held
        if self._just_passed(named):
            return held
        if not self._turn.acquire(blocking=False):
            return held
        try:
            self._follow(named)
        finally:
            self._turn.release()
        return self._held

    def gauges(self) -> Gauges:
        """Newest built, newest valid and in use. Looks at the files of a release, as opening it
        does: to be asked once a minute, not once a request. Raises ``ConnectionError`` where Redis
        does not answer."""
        return self._shelf.gauges(self._held)

    def _just_passed(self, named: str | None) -> bool:
        passed = self._passed
        if passed is None or passed[0] != named:
            return False
        return time.monotonic() - passed[1] < self._retry

    def _follow(self, named: str | None) -> None:
        """Take the newest valid release, where the pointer says which that is."""
        held, why = self._held, "the pointer names no release"
        if named is not None:
            try:
                self._held, passed = self._shelf.open()
                why = "; ".join(passed)
            except (Fault, OSError) as broken:
                why = str(broken)
        now = self._held.release_id
        if now != held.release_id:
            log.info("reader=follows from=%s to=%s", held.release_id, now)
        elif not self._shelf.holds(now):
            raise Fault(f"reader: the release in use, {now}, is gone, and {why}")
        self._tell(why)
        self._passed = None if now == named else (named, time.monotonic())

    def _tell(self, why: str) -> None:
        """Warn of what keeps the pointer from being followed, once while it stays the same."""
        if why and why != self._told:
            log.warning("reader=keeps release=%s because %s", self._held.release_id, why)
        self._told = why


def gauges(
    lake: str | Path, in_use: Reader | None = None, now: Callable[[], datetime] | None = None
) -> Gauges:
    """The gauges of a lake, for who watches it: ``in_use`` is None without a reader at hand."""
    return Files(Lake(lake), now or _now).gauges(in_use)


def gauges_of_redis(
    url: str, in_use: Reader | None = None, now: Callable[[], datetime] | None = None
) -> Gauges:
    """The gauges of a Redis, where also what waits for its gate counts as built.

    Raises ``ConnectionError`` where it does not answer.
    """
    return InRedis(stores.RedisStore(url, REDIS_TIMEOUT), now or _now).gauges(in_use)


# --- where releases stand --------------------------------------------------------------------
class Shelf(Protocol):
    """What following needs of a place with releases."""

    def named(self) -> str | None:
        """What the pointer names, None where it names nothing; ``OSError`` if it cannot be read."""

    def open(self) -> tuple[Reader, list[str]]:
        """The newest valid release, and why newer ones were passed over; ``Fault`` or ``OSError``
        where there is none to be had."""

    def holds(self, release_id: str) -> bool:
        """Whether a reader of this release, once opened, can still answer."""

    def gauges(self, in_use: Reader | None) -> Gauges:
        """The three gauges of this place."""


@dataclass(frozen=True)
class Files:
    """The shelf in a lake's folder."""

    lake: Lake
    now: Callable[[], datetime]
    deep: bool = False

    def named(self) -> str | None:
        return releases.current_id(self.lake)

    def open(self) -> tuple[Reader, list[str]]:
        release, passed = releases.serving(self.lake, self.deep)
        return Reader(stores.LmdbStore(release.path("kv")), self.now), passed

    def holds(self, release_id: str) -> bool:
        return True  # what is mapped into memory stays, even after its folder went

    def gauges(self, in_use: Reader | None) -> Gauges:
        shelf = releases.readable(self.lake)
        built = (shelf[-1].id, shelf[-1].as_of) if shelf else None
        valid = None
        with contextlib.suppress(Fault):
            release, _ = releases.serving(self.lake, self.deep)
            valid = (release.id, release.as_of)
        return _gauges(self.now(), built, valid, in_use)


@dataclass(frozen=True)
class InRedis:
    """The shelf in a Redis."""

    store: stores.RedisStore
    now: Callable[[], datetime]

    def named(self) -> str | None:
        return self.store.current()

    def open(self) -> tuple[Reader, list[str]]:
        release_id, passed = self.store.serving()
        return Reader(Scoped(self.store, release_id), self.now), passed

    def holds(self, release_id: str) -> bool:
        try:
            return self.store.get_of(release_id, "m") is not None
        except OSError:
            return True  # not to be told; asking it will say that Redis does not answer

    def gauges(self, in_use: Reader | None) -> Gauges:
        current, before = self.store.pointed()
        # By what the pointer says of ages: an hour's refresh has a later run date than the night
        # after it may have.
        newer = sorted(self.store.releases() - {current or "", *before}, reverse=True)
        shelf = (self._known(one) for one in (*newer, current, *before) if one is not None)
        built = next((known for known in shelf if known), None)
        valid = None
        with contextlib.suppress(Fault):
            valid = self._known(self.store.serving()[0])
        return _gauges(self.now(), built, valid, in_use)

    def _known(self, release_id: str) -> Known | None:
        """The release, where Redis has its entry m."""
        meta = self.store.get_of(release_id, "m")
        return None if meta is None else (release_id, datetime.fromisoformat(meta["as_of"]))


def _gauges(
    now: datetime, built: Known | None, valid: Known | None, in_use: Reader | None
) -> Gauges:
    used = None if in_use is None else (in_use.release_id, in_use.as_of)
    return Gauges(*(
        None if known is None else Gauge(*known, (now - known[1]) / timedelta(hours=1))
        for known in (built, valid, used)
    ))  # fmt: skip


def _now() -> datetime:
    return datetime.now(UTC)
