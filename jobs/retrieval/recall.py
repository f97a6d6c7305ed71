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

from jobs.retrieval import matrix
from jobs.retrieval.sphere import on_sphere, query_points
from jobs.tables import BELOW, TABLES

K = 50  # recall@50, as the gate reads it


@dataclass(frozen=True)
class Strata:
    """One way to divide the items: ``names``, sorted, and ``of``: (n_items,) int, which of them
    each item is in."""

    names: tuple[str, ...]
    of: np.ndarray

    @staticmethod
    def of_column(column: pa.ChunkedArray | pa.Array) -> Strata:
        names, of = matrix.encode(column)
        return Strata(tuple(names.to_pylist()), of)


@dataclass(frozen=True)
class Queries:
    """Points on the sphere: ``points`` (n_queries, dim + 1) float32; ``own``: (n_queries,) the
    row of the item that asks, -1 for a person."""

    points: np.ndarray
    own: np.ndarray


@dataclass(frozen=True)
class Measured:
    """Of all true neighbours that belong to a stratum: the share found.

    ``queries`` counts those with at least one. The neighbours of one query are found or lost
    together: ``effective`` is how many independent ones would be as uncertain.
    """

    kind: str
    stratum: str
    queries: int
    recall: float
    effective: int


# --- strata and queries ----------------------------------------------------------------------
def ages(items: pa.Table, as_of: datetime, new_days: int) -> Strata:
    """``never_seen``, ``new`` (first seen in the last days) or ``older``."""
    first_seen = items["first_seen"]
    edge = pa.scalar(as_of - timedelta(days=new_days), type=first_seen.type)
    names = pc.if_else(pc.greater_equal(first_seen, edge), "new", "older")
    return Strata.of_column(pc.fill_null(names, "never_seen"))


def categories(items: pa.Table, most: int) -> Strata:
    """The top level of each item's category path; all but the ``most`` largest are ``(other)``."""
    tops = top_levels(items)
    counts = np.bincount(tops.of, minlength=len(tops.names))
    return only(tops, np.argsort(-counts, kind="stable")[:most])


def top_levels(items: pa.Table) -> Strata:
    """The top level of each item's category path, ``(none)`` where it has none."""
    paths = pc.fill_null(items["category"], "(none)")
    levels = pc.split_pattern(paths, pattern=BELOW, max_splits=1)
    return Strata.of_column(pc.list_element(levels, 0))


def only(strata: Strata, kept: np.ndarray) -> Strata:
    """The strata of the numbers ``kept``; all others are one, ``(other)``."""
    names = np.array(strata.names, dtype=object)
    names[np.setdiff1d(np.arange(len(names)), kept)] = "(other)"
    fewer, place = np.unique(names.astype(str), return_inverse=True)
    return Strata(tuple(fewer.tolist()), place[strata.of])


def draw_queries(
    vectors: np.ndarray,
    people: np.ndarray,
    strata: dict[str, Strata],
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
    drawn = draw_items(generator, strata, item_queries).values()
    tune_items = np.unique(np.concatenate([few for few, _ in drawn]))
    held_items = np.setdiff1d(np.concatenate([many for _, many in drawn]), tune_items)
    tune, held = (
        queries(people[asks], vectors, items, bound)
        for asks, items in zip(who, (tune_items, held_items), strict=True)
    )
    return tune, held


def draw_items(
    generator: np.random.Generator, strata: dict[str, Strata], held: int
) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """By kind and stratum, the rows of its items that ask in tuning and of those held."""
    return {
        (kind, name): _split(generator, np.flatnonzero(divided.of == number), held)
        for kind, divided in strata.items()
        for number, name in enumerate(divided.names)
    }


def _split(
    generator: np.random.Generator, members: np.ndarray, held: int
) -> tuple[np.ndarray, np.ndarray]:
    """A few members to tune on and at most ``held`` others; of very few, most are held."""
    few = min(max(1, held // 4), len(members) // 4)
    order = generator.permutation(members)
    return order[:few], order[few : few + held]


def queries(people: np.ndarray, vectors: np.ndarray, items: np.ndarray, bound: float) -> Queries:
    """These people, (n, dim), and the items of these rows of ``vectors``, asking."""
    return Queries(
        np.concatenate([query_points(people, bound), on_sphere(vectors[items], bound)]),
        np.concatenate([np.full(len(people), -1), items]),
    )


# --- the truth, and what of it was found -----------------------------------------------------
def exact(points: np.ndarray, queries: Queries) -> np.ndarray:
    """(n_queries, K) rows of ``points`` nearest to each query, without itself; -1 where fewer.

    All points lie on one sphere, so the nearest are those of the largest product.
    """
    k = min(K, len(points) - 1)
    found = np.full((len(queries.points), K), -1, np.int64)
    if k <= 0:
        return found
    # Single precision finds four times as many, double precision chooses among them: neighbours
    # far up on the sphere differ in the seventh digit.
    wide = min(4 * K, len(points) - 1)
    products = np.empty((min(64, len(found)), len(points)), np.float32)
    for first in range(0, len(found), 64):
        block = slice(first, first + 64)
        own = queries.own[block]
        part = np.matmul(queries.points[block], points.T, out=products[: len(own)])
        asks = np.flatnonzero(own >= 0)
        part[asks, own[asks]] = -np.inf
        near = _largest(part, wide)
        best = np.lexsort((near, _distances(queries.points[block], points, near)), axis=1)[:, :k]
        found[block, :k] = np.take_along_axis(near, best, axis=1)
    return found


def _largest(products: np.ndarray, k: int) -> np.ndarray:
    """(n_rows, k) columns of the largest values of each row, in no order.

    A sample says which value the k largest surely exceed, or nearly: one pass finds what does, and
    only a row where that was too much is partitioned whole.
    """
    step = max(1, products.shape[1] // 8192)
    expected = k / step
    sample = products[:, ::step]
    rank = min(sample.shape[1], int(np.ceil(expected + 4 * np.sqrt(expected) + 4)))
    floors = np.partition(sample, -rank, axis=1)[:, -rank]
    largest = np.empty((len(products), k), np.int64)
    for row, values in enumerate(products):
        above = np.flatnonzero(values >= floors[row])
        if len(above) < k:
            above = np.arange(len(values))
        largest[row] = above[np.argpartition(values[above], -k)[-k:]]
    return largest


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


def measure(
    truth: np.ndarray, hits: np.ndarray, own: np.ndarray, strata: dict[str, Strata]
) -> list[Measured]:
    """Recall of every stratum with a true neighbour of any held query.

    ``truth``, ``hits``: (n_queries, K), see :func:`exact` and :func:`hits_of`; ``own``:
    (n_queries,), see :class:`Queries`. Kind ``overall`` has ``all`` and the two kinds of queries,
    ``person`` and ``item``.
    """
    exists = truth >= 0
    asked_by_item = (own >= 0)[:, None]
    groups = [
        ("overall", "all", exists),
        ("overall", "person", exists & ~asked_by_item),
        ("overall", "item", exists & asked_by_item),
    ]
    for kind, divided in strata.items():
        member_of = divided.of[truth]
        groups += [
            (kind, name, exists & (member_of == number))
            for number, name in enumerate(divided.names)
        ]
    return [
        _measured(kind, name, (hits & members).sum(axis=1), members.sum(axis=1))
        for kind, name, members in groups
        if members.any()
    ]


def _measured(kind: str, stratum: str, found: np.ndarray, true: np.ndarray) -> Measured:
    """Of (n_queries,) counts of neighbours: found, and true.

    The effective number is Kish's: the variance that independent neighbours would have over that of
    a ratio of sums over queries. It is never taken to be less than as if a query found all or none.
    """
    asked = int((true > 0).sum())
    total = int(true.sum())
    recall = float(found.sum() / total)
    all_or_none = total**2 / float(np.square(true, dtype=np.int64).sum())
    left_over = np.square(found - recall * true).sum() * asked / max(1, asked - 1)
    independent = recall * (1 - recall) * total**2 / left_over if left_over > 0 else 0.0
    effective = int(min(max(independent, all_or_none), total))
    return Measured(kind, stratum, asked, recall, effective)


def rows(found: list[Measured]) -> pa.Table:
    """The table ``index_recall``."""
    schema = TABLES["index_recall"].schema
    return pa.Table.from_pylist(
        [{name: getattr(each, name) for name in schema.names} for each in found], schema=schema
    )
