"""Lookups by key: the embedded LMDB inside a release, and Redis beside it.

Both hold the same keys and values, UTF-8 JSON throughout (``docs/release-format.md``):

    m                                   {"format", "release_id", "as_of", "surfaces", …}
    i/<key_type>/<key>                  "person_id"
    n/<person_id>                       {"region", "segment", "personalised", "restrictions"}
    b/<person_id>                       {"item_id": […]}: items blocked for this person
    r/<surface>/<person_id>             {"item_id": […], "score": […], "sources": [[…], …]}, and
                                        "propensity": […] in a release that explores
    c/<surface>/<context_kind>/<context>  the same, of a list that many share
    s/<surface>/<item_id>               {"item_id": […], "score": […]}: what stands beside an item
    e/<item_id>                         {"kind": […], "value": […]}: what excludes an item of a
                                        shared list, for whom and on which surface

In every part of a key but the last, ``%`` is written ``%25`` and ``/`` is written ``%2F``. A key
longer than 511 bytes is replaced by ``z/`` and the sha256 of the whole key in hexadecimal.
In Redis every key stands behind ``nightjar:<release id>:``; ``nightjar:current`` names the release
that serves and is the last key written, together with ``nightjar:before``, a JSON list of the ids
that may stand in for it, newest first.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from errno import ENOSPC
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.errors import Fault
from jobs.release import groups, releases

LONGEST_KEY = 511  # LMDB's limit in bytes
FIRST_MAP = 1 << 26  # bytes of address space; doubled whenever a store outgrows it
BATCH = 20_000  # entries a write transaction
PIPELINE = 1_000  # keys in one message to Redis
LISTS = 10_000  # lists of a surface that are texts at a time, some 20 MB
PREFIX = "nightjar:"
UNMARKED = 2  # the format of an entry m that names none: those of before it did

# One for all: json.dumps with options makes another for every value.
COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
FACTS = ("region", "segment", "personalised", "restrictions")  # of a person, by key

# What JSON escapes, and nothing else where texts need not be ASCII.
ESCAPED = r'["\\\x00-\x1f]'

Entry = tuple[bytes, bytes]
Columns = tuple[pa.Array, pa.Array]  # whole keys and values of entries, large_binary
Values = Callable[[pa.Table], Mapping[str, pa.Array]]  # JSON fragments aligned with rows, by name


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


# --- keys and values -------------------------------------------------------------------------
def key_of(kind: str, *parts: str) -> bytes:
    """The key of these parts; see the module's docstring for the escapes."""
    whole = "/".join([kind, *([joined(*parts)] if parts else [])]).encode()
    return whole if len(whole) <= LONGEST_KEY else _short(whole)


def _short(whole: bytes) -> bytes:
    return b"z/" + hashlib.sha256(whole).hexdigest().encode()


def joined(*parts: str) -> str:
    """These parts as one text, from which no others make the same."""
    escaped = [part.replace("%", "%25").replace("/", "%2F") for part in parts[:-1]]
    return "/".join([*escaped, *parts[-1:]])


def keys(kind: str, parts: pa.Table) -> pa.Array:
    """(n_rows,) large_binary: the key of each row's parts by :func:`key_of`, but whole however long
    it is. Raises ``Fault`` where a part is null."""
    *first, last = (groups.one(part).cast(pa.large_string()) for part in parts.columns)
    pieces = [_text(kind), *(_escaped(part) for part in first), last]
    found = pc.binary_join_element_wise(*pieces, _text("/"))
    if found.null_count:
        names = ", ".join(parts.column_names)
        raise Fault(f"release: {found.null_count} entries {kind}/… lack one of {names}")
    return found.cast(pa.large_binary())


def _escaped(part: pa.Array) -> pa.Array:
    # Few differ: all parts but the last are names of surfaces, and kinds of keys and contexts.
    encoded = part.dictionary_encode()
    escaped = pc.replace_substring(encoded.dictionary, "%", "%25")
    return pc.replace_substring(escaped, "/", "%2F").take(encoded.indices)


def json_strings(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Each string as a JSON string; a null becomes ``null``. Every distinct one is looked at once,
    and by Python where it holds what JSON escapes."""
    encoded = groups.one(column).dictionary_encode()
    distinct = encoded.dictionary.cast(pa.large_string())
    texts = pc.binary_join_element_wise(_text('"'), distinct, _text('"'), _text(""))
    odd = pc.match_substring_regex(distinct, ESCAPED)
    by_python = [COMPACT.encode(text) for text in distinct.filter(odd).to_pylist()]
    texts = pc.replace_with_mask(texts, odd, pa.array(by_python, pa.large_string()))
    return texts.take(encoded.indices).fill_null("null")


def json_numbers(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Each number as JSON with single precision, which Parquet keeps in full.

    Raises ``Fault`` where one is not finite: JSON has no word for it.
    """
    values = groups.one(column)
    if values.null_count or pc.any(pc.invert(pc.is_finite(values))).as_py():
        raise Fault("release: a score is null or not finite; look at the step that wrote it")
    return values.cast(pa.float32()).cast(pa.large_string())


def lists(
    kind: str, rows: pa.Table, names: Sequence[str], order: str | None, values: Values
) -> Columns:
    """One entry per distinct value of the columns ``names``: a JSON object of lists, each in the
    order of the column ``order``, or of the rows where that is None."""
    rows, starts, found = _together(kind, rows, names, order)
    offsets = pa.array(np.append(starts, rows.num_rows), pa.int32())
    members = {}
    for name, fragments in values(rows).items():
        grouped = pa.ListArray.from_arrays(offsets, fragments)
        members[name] = (_text("["), pc.binary_join(grouped, _text(",")), _text("]"))
    return found, _json_objects(members)


def _together(
    kind: str, rows: pa.Table, names: Sequence[str], order: str | None
) -> tuple[pa.Table, np.ndarray, pa.Array]:
    """The rows of each entry beside each other and in order, where each begins, and its key."""
    starts = groups.runs(rows, names)
    found = keys(kind, rows.select(names).take(pa.array(starts)))
    ranks = rows[order].to_numpy() if order else np.arange(rows.num_rows)
    falls = np.flatnonzero(ranks[1:] < ranks[:-1]) + 1
    if pc.count_distinct(found).as_py() == len(found) and np.isin(falls, starts).all():
        return rows, starts, found
    places, starts = groups.in_order(groups.codes(rows, names), ranks)
    rows = rows.take(pa.array(places))
    return rows, starts, keys(kind, rows.select(names).take(pa.array(starts)))


def objects(kind: str, rows: pa.Table, names: Sequence[str], values: Values) -> Columns:
    """One entry per row: a JSON object."""
    members = {name: (fragments,) for name, fragments in values(rows).items()}
    return keys(kind, rows.select(names)), _json_objects(members)


def texts(kind: str, rows: pa.Table, names: Sequence[str], value: str) -> Columns:
    """One entry per row: the column ``value`` as a JSON string."""
    return keys(kind, rows.select(names)), json_strings(rows[value]).cast(pa.large_binary())


def entries(
    frames: dict[str, pa.Table], recommended: Mapping[str, Callable[[], pa.Table]],
    meta: dict[str, Any],
) -> Iterator[Entry]:  # fmt: skip
    """Every entry of a release in the order of the keys' bytes.

    ``frames``: the tables identities, persons, blocked_pairs, context_lists, item_lists and
    ineligible_items; ``recommended``: by surface, what reads its rows of recommendations, with
    their propensity where anything is drawn. One kind is in memory at a time, of the lists of
    persons one surface, and ``LISTS`` of them as texts.
    """
    return chain.from_iterable(_ahead(_pieces(_kinds(frames, recommended, meta))))


def _pieces(kinds: Iterable[Columns]) -> Iterator[Iterable[Entry]]:
    """Entries whose pieces follow each other, in order, the hashed keys last."""
    hashed: list[Entry] = []
    for found, values in kinds:
        long = pc.greater(pc.binary_length(found), LONGEST_KEY)
        if pc.any(long).as_py():
            for some in _as_python(found.filter(long), values.filter(long)):
                hashed += [(_short(key), value) for key, value in some]
            short = pc.invert(long)
            found, values = found.filter(short), values.filter(short)
        # Mostly they lie in order already, which costs little to see.
        if not pc.all(pc.less_equal(found[:-1], found[1:])).as_py():
            order = pc.sort_indices(found)
            found, values = found.take(order), values.take(order)
        yield from _as_python(found, values)
    yield sorted(hashed)


def _ahead(found: Iterator[Iterable[Entry]]) -> Iterator[Iterable[Entry]]:
    """The same, each made while the one before is used: Arrow and LMDB leave Python to others."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, found, None)
        while (some := coming.result()) is not None:
            coming = pool.submit(next, found, None)
            yield some


def _as_python(*columns: pa.Array) -> Iterator[Iterable[Any]]:
    """The rows of columns, some at a time; by way of numpy, since ``to_pylist`` takes thrice as
    long."""
    for first in range(0, len(columns[0]), BATCH):
        some = (column[first : first + BATCH] for column in columns)
        yield zip(*(one.to_numpy(zero_copy_only=False).tolist() for one in some), strict=True)


def _kinds(
    frames: dict[str, pa.Table], recommended: Mapping[str, Callable[[], pa.Table]],
    meta: dict[str, Any],
) -> Iterator[Columns]:  # fmt: skip
    """Entries that follow each other, in any order within each piece."""
    shared, beside, blocked = (
        frames[name] for name in ("context_lists", "item_lists", "blocked_pairs")
    )
    yield lists("b", blocked, ["person_id"], None, strings("item_id"))
    drawn = pc.any(pc.less(shared["propensity"], 1.0)).as_py()
    shared = shared if drawn else shared.drop_columns("propensity")
    yield lists("c", shared, ["surface", "context_kind", "context"], "rank", _places)
    anybodys = pa.chunked_array([*shared["item_id"].chunks, *beside["listed_item_id"].chunks])
    named = pc.is_in(frames["ineligible_items"]["item_id"], pc.unique(anybodys))
    excluded = frames["ineligible_items"].filter(named)
    yield lists("e", excluded, ["item_id"], None, strings("kind", "value"))
    yield texts("i", frames["identities"], ["key_type", "key"], "person_id")
    yield pa.array([b"m"], pa.large_binary()), pa.array([_json(meta)], pa.large_binary())
    yield objects("n", frames["persons"], ["person_id"], _facts)
    for surface in sorted(recommended, key=lambda name: key_of("r", name, "")):
        for rows in _in_blocks(recommended[surface](), "person_id", LISTS):
            yield lists("r", rows, ["surface", "person_id"], "rank", _places)
    yield lists("s", beside, ["surface", "item_id"], "rank", lambda rows: {
        "item_id": json_strings(rows["listed_item_id"]), "score": json_numbers(rows["score"]),
    })  # fmt: skip


def _in_blocks(rows: pa.Table, name: str, size: int) -> Iterator[pa.Table]:
    """The rows by the bytes of a column of texts, of ``size`` different ones at a time."""
    rows = rows.combine_chunks()
    begins = groups.runs(rows, [name])
    lengths = np.diff(np.append(begins, rows.num_rows))
    encoded = groups.one(rows[name].take(pa.array(begins))).dictionary_encode()
    place = np.empty(len(encoded.dictionary), np.int64)
    place[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(place))
    own = place[encoded.indices.to_numpy()]
    order = np.argsort(own, kind="stable")
    edges = np.searchsorted(own[order], [*range(0, len(place), size), len(place)])
    for first, last in pairwise(edges.tolist()):
        runs = order[first:last]
        ends = np.cumsum(lengths[runs])
        within = np.arange(ends[-1]) - np.repeat(ends - lengths[runs], lengths[runs])
        yield rows.take(pa.array(np.repeat(begins[runs], lengths[runs]) + within))


def strings(*names: str) -> Values:
    """The values of these columns of strings."""
    return lambda rows: {name: json_strings(rows[name]) for name in names}


def _facts(rows: pa.Table) -> dict[str, pa.Array]:
    """The values of what is known of persons."""
    restrictions = groups.one(rows["restrictions"])
    return {
        "region": json_strings(rows["region"]),
        "segment": json_strings(rows["segment"]),
        "personalised": groups.one(rows["personalised"]).cast(pa.large_string()).fill_null("null"),
        "restrictions": pc.if_else(
            restrictions.is_valid(), _lists_of_strings(restrictions), _text("null")
        ),
    }


def _places(rows: pa.Table) -> dict[str, pa.Array]:
    """The values of the places of lists; propensities where the rows have them."""
    found = {
        "item_id": json_strings(rows["item_id"]),
        "score": json_numbers(rows["score"]),
        "sources": _lists_of_strings(rows["sources"]),
    }
    if "propensity" in rows.column_names:
        found["propensity"] = json_numbers(rows["propensity"])
    return found


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

    def items(self) -> Iterator[Entry]:
        """Every entry in the order of the keys."""
        with self._env.begin() as transaction:
            yield from transaction.cursor()


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


def _text(text: str) -> pa.Scalar:
    # A large shop's lists pass the 2 GB that an array of plain strings holds.
    return pa.scalar(text, pa.large_string())


def _decoded(answer: bytes | str) -> str:
    return answer.decode() if isinstance(answer, bytes) else answer


def _batches(found: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(found)
    while batch := list(islice(iterator, size)):
        yield batch


def _json(value: Any) -> bytes:
    return COMPACT.encode(value).encode()


def _lists_of_strings(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Each list of strings as a JSON list; a null becomes an empty one."""
    values = groups.one(column)
    flat = pa.ListArray.from_arrays(values.offsets, json_strings(values.values))
    joined = pc.binary_join(flat, _text(","))
    return pc.binary_join_element_wise(_text("["), joined, _text("]"), _text(""))


def _json_objects(members: Mapping[str, Sequence[pa.Array | pa.Scalar]]) -> pa.Array:
    """(n_rows,) large_binary: JSON objects; the value of a member is its pieces, one by one."""
    pieces: list[Any] = []
    for name, value in members.items():
        pieces += [_text(("," if pieces else "{") + json.dumps(name) + ":"), *value]
    return pc.binary_join_element_wise(*pieces, _text("}"), _text("")).cast(pa.large_binary())
