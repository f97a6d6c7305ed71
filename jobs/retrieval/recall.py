"""How much of what exact search finds a vector index finds too, for every stratum of the items.

Recall is split by item age and category, since an overall figure of 0.97 stood beside 0.37 for new
items. Every stratum therefore sends queries of its own: its items, each asking for its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.retrieval.sphere import on_sphere, query_points
from jobs.tables import BELOW

K = 50  # recall@50, as the gate reads it


@dataclass(frozen=True)
class Queries:
    """Points on the sphere: ``points`` (n_queries, dim + 1) float32; ``own``: (n_queries,) the
    row of the item that asks, -1 for a person."""

    points: np.ndarray
    own: np.ndarray


def ages(items: pa.Table, as_of: datetime, new_days: int) -> np.ndarray:
    """(n_items,) str: ``never_seen``, ``new`` (first seen in the last days) or ``older``."""
    first_seen = items["first_seen"]
    edge = pa.scalar(as_of - timedelta(days=new_days), type=first_seen.type)
    names = pc.if_else(pc.greater_equal(first_seen, edge), "new", "older")
    return np.array(pc.fill_null(names, "never_seen").to_pylist())


def categories(items: pa.Table, most: int) -> np.ndarray:
    """(n_items,) str: the top level of each item's category path; small ones are ``(other)``."""
    paths = pc.fill_null(items["category"], "(none)")
    tops = np.array([path.split(BELOW)[0] for path in paths.to_pylist()])
    names, counts = np.unique(tops, return_counts=True)
    kept = names[np.argsort(-counts, kind="stable")][:most]
    return np.where(np.isin(tops, kept), tops, "(other)")


def draw_queries(
    vectors: np.ndarray,
    people: np.ndarray,
    strata: dict[str, np.ndarray],
    bound: float,
    person_queries: int,
    item_queries: int,
    seed: int,
) -> tuple[Queries, Queries]:
    """Tune and held queries without any in common: people, and items of every stratum.

    ``person_queries`` and ``item_queries`` a stratum are held, and a quarter as many tune.
    """
    generator = np.random.default_rng(seed)
    who = _split(generator, np.arange(len(people)), person_queries)
    drawn = [
        _split(generator, np.flatnonzero(names == name), item_queries)
        for names in strata.values()
        for name in np.unique(names)
    ]
    tune_items = np.unique(np.concatenate([few for few, _ in drawn]))
    held_items = np.setdiff1d(np.concatenate([many for _, many in drawn]), tune_items)
    tune, held = (
        Queries(
            np.concatenate([query_points(people[asks], bound), on_sphere(vectors[items], bound)]),
            np.concatenate([np.full(len(asks), -1), items]),
        )
        for asks, items in zip(who, (tune_items, held_items), strict=True)
    )
    return tune, held


def _split(
    generator: np.random.Generator, members: np.ndarray, held: int
) -> tuple[np.ndarray, np.ndarray]:
    """A few members to tune on and at most ``held`` others; of very few, most are held."""
    few = min(max(1, held // 4), len(members) // 4)
    order = generator.permutation(members)
    return order[:few], order[few : few + held]


def exact(points: np.ndarray, queries: Queries) -> np.ndarray:
    """(n_queries, K) rows of ``points`` nearest to each query, without itself; -1 where fewer."""
    k = min(K, len(points) - 1)
    found = np.full((len(queries.points), K), -1, np.int64)
    if k <= 0:
        return found
    # Single precision finds four times as many, double precision chooses among them: neighbours
    # far up on the sphere differ in the seventh digit.
    wide = min(4 * K, len(points) - 1)
    squares = np.square(points).sum(axis=1)
    for first in range(0, len(queries.points), 128):
        block = slice(first, first + 128)
        distances = squares - 2 * (queries.points[block] @ points.T)
        asks = np.flatnonzero(queries.own[block] >= 0)
        distances[asks, queries.own[block][asks]] = np.inf
        near = np.argpartition(distances, wide - 1, axis=1)[:, :wide]
        best = np.lexsort((near, _distances(queries.points[block], points, near)), axis=1)[:, :k]
        found[block, :k] = np.take_along_axis(near, best, axis=1)
    return found


def hits_of(
    found_positions: np.ndarray,
    positions: np.ndarray,
    points: np.ndarray,
    queries: Queries,
    truth: np.ndarray,
) -> np.ndarray:
    """(n_queries, K) bool: which true neighbours the index found.

    ``found_positions``: (n_queries, K + 1) what it answered, -1 for nothing. A neighbour counts as
    found too where the index gave another item at the same distance in its place: items of equal
    content have equal vectors, and no order among them is the true one.
    """
    row_of = np.full(int(positions.max()) + 2, -1)
    row_of[positions] = np.arange(len(positions))
    found = row_of[found_positions]
    found[found == queries.own[:, None]] = -1
    found_distance = _distances(queries.points, points, found)
    true_distance = _distances(queries.points, points, truth)
    n_points = len(points)
    offset = np.arange(len(truth))[:, None] * (n_points + 1)
    hits = np.isin(truth + offset, (found + offset)[found >= 0]) & (truth >= 0)
    for row in np.flatnonzero((~hits & (truth >= 0)).any(axis=1)):
        hits[row] |= _equalled(truth[row], true_distance[row], found[row], found_distance[row])
    return hits


def _equalled(
    truth: np.ndarray, true_distance: np.ndarray, found: np.ndarray, found_distance: np.ndarray
) -> np.ndarray:
    """Of one query: true neighbours that are missing, but whose place an equal one took."""
    spare = (found >= 0) & ~np.isin(found, truth)
    spare_distances = np.sort(found_distance[spare])
    missing = np.flatnonzero((truth >= 0) & ~np.isin(truth, found))
    missing = missing[np.argsort(true_distance[missing], kind="stable")]
    equalled = np.zeros(len(truth), bool)
    used = 0
    for place in missing:
        if used < len(spare_distances) and (
            spare_distances[used] <= true_distance[place] * (1 + 1e-6) + 1e-12
        ):
            equalled[place] = True
            used += 1
    return equalled


def _distances(queries: np.ndarray, points: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(n_queries, k) float64 squared distances to the given rows; infinite where the row is -1."""
    result = np.full(rows.shape, np.inf)
    for first in range(0, len(rows), 256):
        block = slice(first, first + 256)
        gap = points[rows[block]].astype(np.float64) - queries[block][:, None, :]
        result[block] = np.square(gap).sum(axis=2)
    return np.where(rows >= 0, result, np.inf)


def rows(
    truth: np.ndarray, hits: np.ndarray, held: Queries, strata: dict[str, np.ndarray]
) -> pa.Table:
    """The table ``index_recall``.

    Of all true neighbours, over all held queries, that belong to a stratum: the share found.
    ``queries`` counts those with at least one. Kind ``overall`` has ``all`` and the two kinds of
    queries, ``person`` and ``item``.
    """
    exists = truth >= 0
    asked_by_item = (held.own >= 0)[:, None]
    groups = [
        ("overall", "all", exists),
        ("overall", "person", exists & ~asked_by_item),
        ("overall", "item", exists & asked_by_item),
    ]
    for kind, names in strata.items():
        groups += [(kind, str(n), exists & (names[truth] == n)) for n in np.unique(names)]
    found = [
        {
            "kind": kind,
            "stratum": name,
            "queries": int(members.any(axis=1).sum()),
            "recall": float(hits[members].mean()),
        }
        for kind, name, members in groups
        if members.any()
    ]
    return pa.Table.from_pylist(
        found,
        schema=pa.schema(
            [("kind", pa.string()), ("stratum", pa.string()), ("queries", pa.int32()),
             ("recall", pa.float64())]
        ),
    )  # fmt: skip
