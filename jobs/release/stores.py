"""Lookups by key: the embedded LMDB inside a release, and Redis beside it.

Both hold the same entries (``jobs/release/entries.py``). In Redis every key stands behind
``nightjar:<release id>:``; ``nightjar:current`` names the release that serves and is the last key
written, together with ``nightjar:before``, a JSON list of the ids that may stand in for it, newest
first.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from errno import ENOSPC
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import lmdb

from jobs.errors import Fault
from jobs.release import releases
from jobs.release.entries import BATCH, Entry, key_of

FIRST_MAP = 1 << 26  # bytes of address space; doubled whenever a store outgrows it
PIPELINE = 1_000  # keys in one message to Redis
PREFIX = "nightjar:"
UNMARKED = 2  # the format of an entry m that names none: those of before it did


def foreign(meta: Mapping[str, Any]) -> str | None:
    """Why this program must not read entries beside this entry ``m``; None where it may."""
    found = meta.get("format", UNMARKED)
    if found == releases.FORMAT:
        return None
    return f"the format of its entries is {found!r}, this program reads {releases.FORMAT}"


class Store(Protocol):
    """What a reader needs of a store."""

    def get(self, *parts: str) -> Any: ...

    def get_all(self, keys: Sequence[Sequence[str]]) -> list[Any]: ...


# --- LMDB ------------------------------------------------------------------------------------
def write_lmdb(folder: Path, found: Iterable[Entry]) -> int:
    """Write entries, sorted by key, into a new LMDB; returns how many.

    Raises ``Fault`` where two entries share a key, and ``OSError`` on a full disk.
    """
    folder.mkdir(parents=True)
    try:
        count = _write_sorted(folder, found)
    except lmdb.Error as error:
        if type(error) not in (lmdb.Error, lmdb.DiskError):
            raise
        # LMDB calls a write that the disk cut short an input/output error.
        raise OSError(ENOSPC, f"the disk took only a part: {error}") from None
    return count


def _write_sorted(folder: Path, found: Iterable[Entry]) -> int:
    size, count = FIRST_MAP, 0
    # Nobody else is there yet, and a lock file is memory: on a full disk a write to it is a SIGBUS.
    with lmdb.open(str(folder), map_size=size, sync=False, metasync=False, lock=False) as env:
        for batch in _batches(found, BATCH):
            while True:
                try:
                    _append(env, batch)
                    break
                except lmdb.MapFullError:
                    size *= 2
                    env.set_mapsize(size)
            count += len(batch)
        env.sync(True)
    return count


def _append(env: lmdb.Environment, batch: list[Entry]) -> None:
    with env.begin(write=True) as transaction:
        given, added = transaction.cursor().putmulti(batch, append=True)
    if given != added or given != len(batch):
        raise Fault(
            "release: two entries of the key-value store share a key; are table keys unique?"
        )


_OPEN: weakref.WeakValueDictionary[str, lmdb.Environment] = weakref.WeakValueDictionary()


def _environment(folder: Path) -> lmdb.Environment:
    # LMDB refuses to open one file twice in a process: readers of one release share it.
    path = str(folder.resolve())
    env = _OPEN.get(path)
    if env is None:
        try:
            env = lmdb.open(path, readonly=True, lock=False, max_dbs=0)
        except lmdb.Error as error:
            raise Fault(f"release: {path} cannot be read as LMDB ({error})") from None
        _OPEN[path] = env
    return env


class LmdbStore:
    """Reads the ``kv/`` folder of a release."""

    def __init__(self, folder: Path):
        self._env = _environment(folder)

    def get(self, *parts: str) -> Any:
        """The value behind a key, parsed, or None."""
        with self._env.begin() as transaction:
            found = transaction.get(key_of(*parts))
        return None if found is None else json.loads(found)

    def get_all(self, keys: Sequence[Sequence[str]]) -> list[Any]:
        """The values behind these keys, each its parts, as :meth:`get` gives them."""
        with self._env.begin() as transaction:
            found = [transaction.get(key_of(*parts)) for parts in keys]
        return [None if value is None else json.loads(value) for value in found]

    def count(self) -> int:
        """How many entries it holds."""
        return int(self._env.stat()["entries"])

    def items(self, prefix: bytes = b"") -> Iterator[Entry]:
        """Every entry whose key begins so, in the order of the keys."""
        with self._env.begin() as transaction:
            cursor = transaction.cursor()
            if cursor.set_range(prefix):
                yield from takewhile(lambda entry: entry[0].startswith(prefix), cursor)


# --- Redis -----------------------------------------------------------------------------------
class RedisStore:
    """Releases in one Redis database, which one lake has to itself.

    Every method raises ``ConnectionError`` where Redis cannot be reached or goes away, which a
    later try may mend, and ``Fault`` where it refuses.
    """

    def __init__(self, url: str, timeout: float = 10.0):
        import redis

        self.place = without_secrets(url)
        try:
            self._client = redis.Redis.from_url(
                url, socket_timeout=timeout, socket_connect_timeout=timeout
            )
        except ValueError as error:
            raise Fault(
                f"redis: {self.place} is no address ({error}); like redis://host:6379/0"
            ) from None

    def get(self, *parts: str) -> Any:
        """A value of the current release, parsed, or None."""
        current = self.current()
        if current is None:
            return None
        return self.get_of(current, *parts)

    def get_of(self, release_id: str, *parts: str) -> Any:
        """A value of a named release, parsed, or None."""
        with self._clear_errors():
            found = self._client.get(_scope(release_id) + key_of(*parts))
        return None if found is None else json.loads(found)

    def get_all_of(self, release_id: str, keys: Sequence[Sequence[str]]) -> list[Any]:
        """The values of a named release behind these keys, by one word with Redis."""
        if not keys:
            return []
        scope = _scope(release_id)
        with self._clear_errors():
            found = self._client.mget([scope + key_of(*parts) for parts in keys])
        return [None if value is None else json.loads(value) for value in found]

    def current(self) -> str | None:
        """The release id that the pointer names."""
        with self._clear_errors():
            found = self._client.get(PREFIX + "current")
        return None if found is None else _decoded(found)

    def pointed(self) -> tuple[str | None, list[str]]:
        """The release id that the pointer names, and those older ones that may stand in for it,
        newest first; both are of one moment."""
        with self._clear_errors():
            current, before = self._client.mget([PREFIX + "current", PREFIX + "before"])
        return None if current is None else _decoded(current), json.loads(before or "[]")

    def serving(self) -> tuple[str, list[str]]:
        """The newest valid release here, and why newer ones were passed over.

        It is the one that the pointer names. Where that lost its entry ``m``, it is the newest
        older one that has it, and is of this program's format. Raises ``Fault`` where there is
        none.
        """
        wanted, before = self.pointed()
        if wanted is None:
            raise Fault(f"redis: {self.place} has no current release; publish one with a night")
        passed: list[str] = []
        others = False
        for release_id in (wanted, *before):
            meta = self.get_of(release_id, "m")
            if meta is None:
                passed.append(f"redis: {self.place} has lost keys of the release {release_id}")
            elif why := foreign(meta):
                others = True
                passed.append(f"redis: {self.place}, release {release_id}: {why}")
            else:
                return release_id, passed
        mend = (
            "serve by the code of the nights that write to it" if others else
            f"write it anew from the files: python -m jobs rollback --to={wanted} --redis-url=…"
        )  # fmt: skip
        raise Fault(f"redis: {self.place} holds no whole release ({'; '.join(passed)}); {mend}")

    def stage(self, release_id: str, found: Iterable[Entry]) -> int:
        """Write a release's entries, which nothing reads before the pointer names them."""
        scope = _scope(release_id)
        count = 0
        with self._clear_errors():
            self._client.sadd(PREFIX + "releases", release_id)
            for batch in _batches(found, PIPELINE):
                self._client.mset({scope + key: value for key, value in batch})
                count += len(batch)
        return count

    def count(self, release_id: str, found: Iterable[Entry]) -> int:
        """How many of these entries Redis holds with the same length of value."""
        scope = _scope(release_id)
        count = 0
        with self._clear_errors():
            for batch in _batches(found, PIPELINE):
                pipeline = self._client.pipeline(transaction=False)
                for key, _ in batch:
                    pipeline.strlen(scope + key)
                lengths = pipeline.execute()
                count += sum(
                    length == len(value) for length, (_, value) in zip(lengths, batch, strict=True)
                )
        return count

    def point(self, release_id: str, before: Sequence[str] = ()) -> None:
        """Serve this release, in one atomic step; ``before``: the ids of older ones that may stand
        in for it, newest first."""
        with self._clear_errors():
            self._client.mset(
                {PREFIX + "current": release_id, PREFIX + "before": json.dumps(list(before))}
            )

    def releases(self) -> set[str]:
        """The ids that have, or had, keys here."""
        with self._clear_errors():
            return {_decoded(name) for name in self._client.smembers(PREFIX + "releases")}

    def retire(self, keep: set[str]) -> list[str]:
        """Delete the keys of every release but these and the current one, in batches."""
        doomed = sorted(self.releases() - keep - {self.current() or ""})
        with self._clear_errors():
            for release_id in doomed:
                pattern = _scope(release_id) + b"*"
                names = self._client.scan_iter(match=pattern, count=10 * PIPELINE)
                for batch in _batches(names, PIPELINE):
                    self._client.unlink(*batch)
                self._client.srem(PREFIX + "releases", release_id)
        return doomed

    def close(self) -> None:
        """Let the connections go."""
        self._client.close()

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        import redis

        try:
            yield
        except redis.exceptions.AuthenticationError:
            raise Fault(f"redis: {self.place} refuses the user or password") from None
        except (
            redis.exceptions.ConnectionError,
            redis.exceptions.TimeoutError,
            redis.exceptions.ReadOnlyError,
        ) as error:
            raise ConnectionError(
                f"redis: {self.place} does not answer ({error}); what it serves is unchanged, "
                "run again when it is back"
            ) from error
        except redis.exceptions.RedisError as error:
            raise Fault(
                f"redis: {self.place} refuses ({error}); what it serves is unchanged"
            ) from None


def without_secrets(url: str) -> str:
    """A connection's address without user, password and options."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def _scope(release_id: str) -> bytes:
    return f"{PREFIX}{release_id}:".encode()


def _decoded(answer: bytes | str) -> str:
    return answer.decode() if isinstance(answer, bytes) else answer


def _batches(found: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(found)
    while batch := list(islice(iterator, size)):
        yield batch
