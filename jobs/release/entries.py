"""The entries of a release's key-value store: keys and values, made of whole columns.

Both are UTF-8, the values JSON (``docs/release-format.md``):

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
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.errors import Fault
from jobs.release import groups

LONGEST_KEY = 511  # LMDB's limit in bytes
BATCH = 20_000  # entries that become Python's at a time, and are written in a transaction
LISTS = 10_000  # lists of a surface that are texts at a time, some 20 MB

# One for all: json.dumps with options makes another for every value.
COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
FACTS = ("region", "segment", "personalised", "restrictions")  # of a person, by key

# What JSON escapes, and nothing else where texts need not be ASCII.
ESCAPED = r'["\\\x00-\x1f]'

Entry = tuple[bytes, bytes]
Columns = tuple[pa.Array, pa.Array]  # whole keys and values of entries, large_binary
Values = Callable[[pa.Table], Mapping[str, pa.Array]]  # JSON fragments aligned with rows, by name


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


def of(
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


def _text(text: str) -> pa.Scalar:
    # A large shop's lists pass the 2 GB that an array of plain strings holds.
    return pa.scalar(text, pa.large_string())


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
