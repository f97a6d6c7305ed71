"""Merges and splits of persons from one night to the next, each with the link that caused it.

A *merge* is a person whose keys all belong to another now; a *split* is a part of a person that is
another person now. The link named is the one through which it happened: of several, the one known
first (ties by its keys).

Two nights' tables are compared on arrays: keys, persons and links as codes, and only the links that
changed as rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs import io
from jobs.retrieval import matrix
from jobs.signals import codes, components
from jobs.signals.links import KEY, PAIR
from jobs.tables import TIME

LINK = [*PAIR, "source"]
KEYS = [*KEY, "person_id", "household_id", "component"]
LINKS = [*LINK, "known_time", "outcome"]
CODED = ("key_type", "key_type_a", "key_type_b", "source", "outcome")
ADMITTED, CAPPED = components.OUTCOMES[0], components.OUTCOMES[1:]
CHANGED = pa.schema(
    [(name, pa.string()) for name in LINK]
    + [("known_time", TIME), ("outcome", pa.string()), ("was", pa.string()), ("is_new", pa.bool_())]
)


@dataclass(frozen=True)
class Graph:
    """One night's ``keys`` (``KEYS``, a row per key) and ``links`` (``LINKS``, a row per pair of
    keys and source)."""

    keys: pa.Table
    links: pa.Table

    @staticmethod
    def read(folder: Path) -> Graph:
        """From the folder of a night's tables."""
        return Graph(
            io.read_arrow(folder / "identities", KEYS, coded=CODED),
            io.read_arrow(folder / "identity_links", LINKS, coded=CODED),
        )


@dataclass(frozen=True)
class _Moves:
    """Where the keys of persons of the night before went: ``source``, ``target`` (n,) int64 codes
    of two different persons, each pair once, and ``split`` (n,) bool: whether not all of them."""

    source: np.ndarray
    target: np.ndarray
    split: np.ndarray


def between(
    before: Graph, after: Graph, earlier: datetime, as_of: datetime, differs: str | None
) -> pa.Table:
    """The rows of ``identity_changes`` that this night adds.

    ``earlier``: the run date of the night before. ``differs``: ``policy`` or ``data`` where the
    two nights do not rest on the same policy or past. The cause of a change is then that, unless a
    link that became known since explains it.
    """
    ids, (then, now) = codes.of_texts(before.keys["person_id"], after.keys["person_id"])
    moves = _moves(before.keys, after.keys, then, now)
    links = _changed(before.links, after.links, earlier)
    # A link is its place in ``links``; -1, no link at all, is none of these.
    admitted, was_admitted, capped, was_capped, unlinked = (
        np.append(_is(links[name], *outcomes), False)
        for name, outcomes in (
            ("outcome", [ADMITTED]), ("was", [ADMITTED]), ("outcome", CAPPED), ("was", CAPPED),
            ("outcome", ["unlinked"]),
        )
    )  # fmt: skip
    fresh = np.append(pc.fill_null(links["is_new"], False).to_numpy(), False)
    held, holds = (
        [_at(links, end, keys, persons) for end in ("a", "b")]
        for keys, persons in ((before.keys, then), (after.keys, now))
    )
    joins = np.flatnonzero((admitted & ~was_admitted)[:-1] & (held[0] != held[1]))
    parts = np.flatnonzero((was_admitted & ~admitted)[:-1] & (holds[0] != holds[1]))
    split = moves.split
    link = np.where(
        split,
        _first_apart(moves, parts, held[0], holds, len(ids)),
        _first(moves.source, [held[0][joins], held[1][joins]], joins),
    )
    trigger = _triggers(
        moves.target, np.flatnonzero((fresh & capped)[:-1]), links, after.keys, now, len(ids)
    )
    by_trigger = split & capped[link] & (trigger >= 0)
    another = np.full(len(link), differs is not None)
    # The first that holds.
    cause = np.select(
        [
            split & fresh[link] & unlinked[link], by_trigger, ~split & fresh[link], another,
            np.where(split, capped[link], was_capped[link]), split & fresh[link],
        ],
        ["unlink", "cap", "link", differs or "", "cap", "link"],
        "data",
    )  # fmt: skip
    named = np.where(by_trigger, trigger, link)
    of_link = links.take(pa.array(named, mask=named < 0))
    made = pa.scalar(as_of, TIME)
    return pa.table({
        "kind": pa.array(np.where(split, "split", "merge")),
        "from_person": ids.take(pa.array(moves.source)).cast(pa.string()),
        "to_person": ids.take(pa.array(moves.target)).cast(pa.string()),
        "changed_at": pc.if_else(pa.array(fresh[named]), of_link["known_time"], made),
        **{name: of_link[name] for name in PAIR},
        "link_source": of_link["source"],
        "cause": pa.array(cause),
        "as_of": pa.repeat(made, len(link)),
    })  # fmt: skip


def _moves(before: pa.Table, after: pa.Table, then: np.ndarray, now: np.ndarray) -> _Moves:
    """``then``, ``now``: the person of each key of the two nights."""
    ours, theirs = codes.of_rows(KEY, after, before)
    place = codes.places(ours, theirs)
    known = pc.is_valid(place).to_numpy(zero_copy_only=False)
    width = int(max(then.max(initial=0), now.max(initial=0))) + 1
    pairs = matrix.distinct(then[place.drop_null().to_numpy()] * width + now[known])
    source, target = np.divmod(pairs, width)
    moved = source != target
    parts = np.bincount(source)[source[moved]]
    return _Moves(source[moved], target[moved], parts > 1)


def _changed(before: pa.Table, after: pa.Table, earlier: datetime) -> pa.Table:
    """The links that were admitted in one of two nights alone, and those that are new and broke a
    cap, as ``CHANGED``: sorted by when they were known, then by their keys.

    ``was``: the outcome of the night before, null where there was none; ``outcome``,
    ``known_time`` and ``is_new``, whether it became known since ``earlier``, are null where there
    is none now.
    """
    then, now = codes.of_rows(LINK, before, after)
    was = before["outcome"].cast(pa.string()).take(codes.places(now, then))
    is_new = pc.greater_equal(after["known_time"], pa.scalar(earlier, TIME))
    is_new = np.asarray(pc.fill_null(is_new, False), bool)
    turned = _is(after["outcome"], ADMITTED) != _is(was, ADMITTED)
    chosen = pa.array(turned | (is_new & _is(after["outcome"], *CAPPED)))
    still = after.append_column("was", was).append_column("is_new", pa.array(is_new))
    left = pc.is_null(codes.places(then, now)).to_numpy(zero_copy_only=False)
    gone = before.rename_columns({"outcome": "was"}).select([*LINK, "was"])
    gone = gone.filter(pa.array(left & _is(before["outcome"], ADMITTED)))
    parts = [
        part.cast(pa.schema([CHANGED.field(name) for name in part.schema.names]))
        for part in (still.filter(chosen).select(CHANGED.names), gone)
    ]
    rows = pa.concat_tables(parts, promote_options="default")
    by = [(name, "ascending", "at_start") for name in ("known_time", *LINK)]
    return rows.take(pc.sort_indices(rows, sort_keys=by))


def _is(outcomes: pa.ChunkedArray, *some: str) -> np.ndarray:
    """(n,) bool: which outcomes are one of some; null is none."""
    found = pc.is_in(outcomes.cast(pa.string()), value_set=pa.array(some, pa.string()))
    return np.asarray(found, bool)


def _at(links: pa.Table, end: str, keys: pa.Table, values: np.ndarray) -> np.ndarray:
    """(n_links,) int64: the value of the key at this end of each link, by ``values`` (n_keys,)
    int64; -1 for a key that is not among the keys."""
    ends = links.select([f"key_type_{end}", f"key_{end}"]).rename_columns(KEY)
    near = pc.is_in(keys["key"], value_set=pc.unique(ends["key"]))
    asked, known = codes.of_rows(KEY, ends, keys.select(KEY).filter(near))
    found = pa.array(values[np.asarray(near, bool)]).take(codes.places(asked, known))
    return pc.fill_null(found, -1).to_numpy()


def _first(asked: np.ndarray, owners: list[np.ndarray], links: np.ndarray) -> np.ndarray:
    """(n_asked,) int64: the first link of each owner; -1 of one who has none.

    ``links``: (n,) int64 ascending; ``owners``: some (n,) int64, each link has one in every array.
    """
    known, first = np.unique(np.stack(owners, axis=1), return_index=True)
    found = pa.array(links[first // len(owners)]).take(
        codes.places(pa.array(asked), pa.array(known))
    )
    return pc.fill_null(found, -1).to_numpy()


def _first_apart(
    moves: _Moves, parts: np.ndarray, held: np.ndarray, holds: list[np.ndarray], persons: int
) -> np.ndarray:
    """(n_moves,) int64: the first link between the source's keys that came apart and has one end in
    the target; -1 where there is none.

    ``parts``: such links; by link ``held``, the person who held its first key, and ``holds``, those
    who hold its two ends now.
    """
    pairs = [
        # A key that is not there is of no person, and so the pair is none.
        np.where((held[parts] < 0) | (end[parts] < 0), -1, held[parts] * persons + end[parts])
        for end in holds
    ]
    return _first(moves.source * persons + moves.target, pairs, parts)


def _triggers(
    targets: np.ndarray, broke: np.ndarray, links: pa.Table, keys: pa.Table, now: np.ndarray,
    persons: int,
) -> np.ndarray:  # fmt: skip
    """(n_targets,) int64: the first link of a person's raw component that is new and broke a cap;
    -1 where there is none. ``broke``: such links; ``now``: the person of each key."""
    _, (component,) = codes.of_texts(keys["component"])
    of_person = np.full(persons, -1)
    of_person[now] = component
    new = links.take(pa.array(broke))
    return _first(of_person[targets], [_at(new, "a", keys, component)], broke)
