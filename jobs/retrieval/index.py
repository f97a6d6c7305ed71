"""A vector index over every item of the catalogue, with its recall measured before it is used.

Reads ``item_factors``, ``person_factors``, ``content_vectors``, ``items`` and ``embedding.json``.
Writes ``item_vectors`` (a row per item: its collaborative vector, or for an item nobody chose the
one guessed from its content), ``index_recall`` (a row per stratum of held queries) and the folder
``index_bundle`` (``items.faiss`` and ``index.json``).

Inner products are searched as distances: with one more coordinate, sqrt(bound² - |x|²), all items
lie on one sphere, and the nearest to a query scaled onto it is the one of largest product
(Bachrach et al., "Speeding up the Xbox recommender system using a Euclidean transformation", 2014).
Cells built on raw inner products found 57 %.

Recall is split by item age and category, since an overall figure of 0.97 stood beside 0.37 for new
items. Every stratum therefore sends queries of its own: its items, each asking for its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs import io
from jobs.errors import Fault
from jobs.night import Night
from jobs.params import check
from jobs.retrieval import embeddings, matrix
from jobs.retrieval.content_embeddings import map_to_collaborative
from jobs.tables import BELOW

BUNDLE = "index_bundle"
K = 50  # recall@50, as the gate reads it
FORMAT = 1
HOW_TO = {
    "metric": "squared Euclidean distance D; ids are items.position",
    "item": "append sqrt(bound^2 - |x|^2) to the item's vector x",
    "query": "scale the person's vector q to length bound, append 0; "
    "q . x = |q| / bound * (bound^2 - D / 2)",
}


@dataclass(frozen=True)
class Params:
    """How the index is built and judged."""

    # Below this many items an exact search is quick enough, and nothing is missed.
    exact_below: int = 20_000
    # Cells are this times the square root of the number of items.
    cell_factor: float = 2.0
    # The smallest number of cells probed is taken that reaches this on the tune queries.
    target_recall: float = 0.98
    # Room that the sphere's bound leaves above the longest vector, for items added later.
    headroom: float = 1.1
    # People asked about in judging, and a quarter as many others in tuning.
    person_queries: int = 200
    # Items asked about for each stratum in judging, and a quarter as many others in tuning.
    item_queries: int = 40
    # An item is new for this long after it was first seen.
    new_days: int = 28
    # Categories that are strata of their own, the largest; the rest are judged as one.
    categories: int = 40
    # Ridge strength of the map from content to the collaborative space: that of ten items.
    map_strength: float = 10.0
    # No guessed vector is longer than this quantile of the learnt ones.
    cold_norm_quantile: float = 0.25

    def __post_init__(self) -> None:
        check(self.exact_below >= 0, "exact_below must not be negative")
        check(self.cell_factor > 0, "cell_factor must be positive")
        check(0 < self.target_recall <= 1, "target_recall must be in (0, 1]")
        check(self.headroom >= 1, "headroom must be at least 1")
        check(self.person_queries >= 1, "person_queries must be at least 1")
        check(self.item_queries >= 1, "item_queries must be at least 1")
        check(self.new_days >= 0, "new_days must not be negative")
        check(self.categories >= 1, "categories must be at least 1")
        check(self.map_strength > 0, "map_strength must be positive")
        check(0 <= self.cold_norm_quantile <= 1, "cold_norm_quantile must be in 0..1")


@dataclass(frozen=True)
class Bundle:
    """A FAISS index whose ids are ``items.position``, and the facts needed to ask it."""

    index: Any
    facts: dict[str, Any]


@dataclass(frozen=True)
class Queries:
    """Points on the sphere: ``points`` (n_queries, dim + 1) float32; ``own``: (n_queries,) the
    position of the item that asks, -1 for a person."""

    points: np.ndarray
    own: np.ndarray


def run(night: Night, params: Params) -> None:
    """Stage the vectors, the index and its recall."""
    space = io.read_json(night.published("embeddings").table(embeddings.FILE))
    items = night.arrow("items", ["item_id", "position", "category", "first_seen"])
    items = items.sort_by("position")
    factors = night.arrow("item_factors")
    vectors, learnt = item_vectors(items, factors, night.arrow("content_vectors"), params)
    positions = items["position"].to_numpy()
    bundle = build(positions, vectors, space["version"], params, night.seed)
    people = matrix.vectors_of(night.arrow("person_factors", ["vector"]))
    strata = {
        "age": ages(items, night.as_of, params.new_days),
        "category": categories(items, params.categories),
    }
    tune, held = draw_queries(vectors, people, strata, bundle.facts["bound"], params, night.seed)
    bundle = tuned(bundle, positions, vectors, tune, params.target_recall)
    rows = recall_rows(bundle, positions, vectors, held, strata)
    night.write("item_vectors", vector_rows(items, vectors, learnt))
    night.write("index_recall", rows)
    save(bundle, night.staged / BUNDLE)
    night.notes["index"] = {**bundle.facts, "learnt": int(learnt.sum())}


def item_vectors(
    items: pa.Table, factors: pa.Table, content: pa.Table, params: Params
) -> tuple[np.ndarray, np.ndarray]:
    """(n_items, dim) float32 in the order of ``items``, and (n_items,) bool: learnt, not guessed.

    Raises ``Fault`` where a factor belongs to an unknown item or an item has no content vector.
    """
    item_ids = items["item_id"].combine_chunks()
    known = matrix.positions(factors["item_id"], item_ids)
    described = matrix.positions(item_ids, content["item_id"].combine_chunks())
    if (known < 0).any() or (described < 0).any():
        raise Fault(
            f"index: {int((known < 0).sum())} item factors belong to no item of the night and "
            f"{int((described < 0).sum())} items have no content vector; run the steps catalogue, "
            "embeddings and content_embeddings again for this night"
        )
    learnt_vectors = matrix.vectors_of(factors)
    vectors = map_to_collaborative(
        matrix.vectors_of(content)[described],
        known,
        learnt_vectors,
        params.map_strength,
        params.cold_norm_quantile,
    )
    vectors[known] = learnt_vectors
    learnt = np.zeros(len(vectors), bool)
    learnt[known] = True
    return vectors, learnt


# --- building, asking, changing --------------------------------------------------------------
def build(
    positions: np.ndarray, vectors: np.ndarray, version: str, params: Params, seed: int
) -> Bundle:
    """An index of (n_items, dim) float32 vectors under (n_items,) int64 positions."""
    import faiss

    n_items, dim = vectors.shape
    longest = float(np.linalg.norm(vectors, axis=1).max(initial=0.0))
    bound = max(longest * params.headroom, 1e-6)
    points = on_sphere(vectors, bound)
    # A single cell is an exact search that can still forget an item. The flat index would do it
    # too, but takes distances as differences of large squares, too coarse high up on the sphere.
    exact_search = n_items < max(params.exact_below, 1000)
    cells = 1 if exact_search else max(1, int(params.cell_factor * np.sqrt(n_items)))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dim + 1), dim + 1, cells, faiss.METRIC_L2)
    index.cp.seed = seed % 2**31
    index.cp.niter = 8
    index.cp.min_points_per_centroid = 1
    index.cp.max_points_per_centroid = 64
    index.train(points)
    index.add_with_ids(points, np.ascontiguousarray(positions, dtype=np.int64))
    facts = {
        "format": FORMAT,
        "embedding_version": version,
        "kind": "exact" if exact_search else "cells",
        "dim": dim,
        "bound": bound,
        "count": n_items,
        "nlist": cells,
        "nprobe": min(cells, 8),
        "how_to": HOW_TO,
    }
    return Bundle(index, facts)


def search(
    bundle: Bundle, queries: np.ndarray, version: str, k: int, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` items of largest inner product with each (n_queries, dim) query.

    ``version`` is the embedding space that the queries come from. ``allowed``: (n_bytes,) uint8,
    only an item whose bit is set is found: bit i of byte i // 8, least significant first, is that
    of the item at position i; None allows all. Returns (n_queries, k) int64 positions, best first,
    -1 where there are fewer, and float32 inner products. Raises ``Fault`` where the index belongs
    to another space or another dimension.
    """
    ours = bundle.facts["embedding_version"]
    if version != ours:
        raise Fault(
            f"index: the queries are vectors of the embedding space {version}, the index holds "
            f"{ours}; take both from one release"
        )
    if queries.shape[1] != bundle.facts["dim"]:
        raise Fault(
            f"index: the queries have {queries.shape[1]} dimensions, the index "
            f"{bundle.facts['dim']}; take both from one release"
        )
    bound = bundle.facts["bound"]
    distances, found = _ask(bundle, query_points(queries, bound), k, allowed)
    lengths = np.linalg.norm(queries, axis=1, keepdims=True)
    scores = lengths / bound * (bound**2 - distances / 2)
    return found, np.where(found >= 0, scores, -np.inf).astype(np.float32)


def update(
    bundle: Bundle, removed: np.ndarray, positions: np.ndarray, vectors: np.ndarray
) -> Bundle:
    """The index without the ``removed`` positions and with new or changed vectors.

    ``positions``: (n,) int64, those to add or replace; ``vectors``: (n, dim) float32 of the same
    space. The cells stay as they were trained, which is why the recall of new items is guarded.
    Raises ``Fault`` where a vector is longer than the index's bound: it must be built again.
    """
    import faiss

    bound = bundle.facts["bound"]
    longest = float(np.linalg.norm(vectors, axis=1).max(initial=0.0))
    if longest > bound:
        raise Fault(
            f"index: a vector of length {longest:.4g} does not fit under the bound {bound:.4g}; "
            "build the index again"
        )
    index = faiss.clone_index(bundle.index)
    gone = np.unique(np.concatenate([removed, positions]).astype(np.int64))
    index.remove_ids(faiss.IDSelectorBatch(gone))
    index.add_with_ids(on_sphere(vectors, bound), np.ascontiguousarray(positions, dtype=np.int64))
    return Bundle(index, {**bundle.facts, "count": int(index.ntotal)})


def save(bundle: Bundle, folder: Path) -> None:
    """Write ``items.faiss`` and ``index.json``."""
    import faiss

    folder.mkdir(parents=True, exist_ok=True)
    faiss.write_index(bundle.index, str(folder / "items.faiss"))
    io.write_json(folder / "index.json", bundle.facts)


def load(folder: Path) -> Bundle:
    """Read what :func:`save` wrote; raises ``Fault`` for another format."""
    import faiss

    facts = io.read_json(folder / "index.json")
    if facts["format"] != FORMAT:
        raise Fault(f"index: {folder} has the format {facts['format']}, this code reads {FORMAT}")
    return Bundle(faiss.read_index(str(folder / "items.faiss")), facts)


def on_sphere(vectors: np.ndarray, bound: float) -> np.ndarray:
    """(n, dim + 1) float32: each item's vector with the coordinate that makes its length bound."""
    squares = np.square(vectors.astype(np.float64)).sum(axis=1)
    last = np.sqrt(np.maximum(bound**2 - squares, 0.0))
    return np.ascontiguousarray(np.column_stack([vectors, last]), dtype=np.float32)


def query_points(queries: np.ndarray, bound: float) -> np.ndarray:
    """(n, dim + 1) float32: each query scaled to length bound, with a last coordinate of 0."""
    lengths = np.linalg.norm(queries, axis=1, keepdims=True)
    scaled = queries * (bound / np.maximum(lengths, 1e-12))
    return np.ascontiguousarray(np.column_stack([scaled, np.zeros(len(queries))]), dtype=np.float32)


def _ask(
    bundle: Bundle, points: np.ndarray, k: int, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Distances and positions, best first, ties by position."""
    import faiss

    cells, probes, selector = bundle.facts["nlist"], bundle.facts["nprobe"], None
    if allowed is not None:
        count = int(np.bitwise_count(allowed).sum())
        # As many allowed items are looked at as without a filter: what is rare lies further away.
        probes = min(cells, -(-probes * bundle.facts["count"] // max(count, 1)))
        selector = faiss.IDSelectorBitmap(allowed)  # type: ignore[call-arg, arg-type]
    while True:
        # FAISS's own stubs know neither constructor as Python has it.
        how = faiss.SearchParametersIVF(sel=selector, nprobe=probes)  # type: ignore[call-arg]
        distances, found = bundle.index.search(points, k, params=how)
        if allowed is None or probes == cells or _all_full(found, min(k, count)):
            break
        probes = cells
    order = np.lexsort((found, distances), axis=1)
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(found, order, axis=1)


def _all_full(found: np.ndarray, places: int) -> bool:
    return bool(((found >= 0).sum(axis=1) >= places).all())


# --- judging ---------------------------------------------------------------------------------
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
    params: Params,
    seed: int,
) -> tuple[Queries, Queries]:
    """Tune and held queries without any in common: people, and items of every stratum."""
    generator = np.random.default_rng(seed)
    who = _split(generator, np.arange(len(people)), params.person_queries)
    drawn = [
        _split(generator, np.flatnonzero(names == name), params.item_queries)
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


def tuned(
    bundle: Bundle, positions: np.ndarray, vectors: np.ndarray, tune: Queries, target: float
) -> Bundle:
    """The bundle with the fewest probed cells that reach the target on the tune queries."""
    cells = bundle.facts["nlist"]
    if cells == 1:
        return bundle
    points = on_sphere(vectors, bundle.facts["bound"])
    truth = exact(points, tune)
    probes = 8
    while True:
        candidate = Bundle(bundle.index, {**bundle.facts, "nprobe": min(probes, cells)})
        hits = hits_of(candidate, positions, points, tune, truth)
        if probes >= cells or hits.sum() >= target * (truth >= 0).sum():
            return candidate
        probes = max(probes + 1, int(probes * 1.5))


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
    bundle: Bundle,
    positions: np.ndarray,
    points: np.ndarray,
    queries: Queries,
    truth: np.ndarray,
) -> np.ndarray:
    """(n_queries, K) bool: which true neighbours the index found.

    A neighbour counts as found too where the index gave another item at the same distance in its
    place: items of equal content have equal vectors, and no order among them is the true one.
    """
    _, found_positions = _ask(bundle, queries.points, K + 1)
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


def recall_rows(
    bundle: Bundle,
    positions: np.ndarray,
    vectors: np.ndarray,
    held: Queries,
    strata: dict[str, np.ndarray],
) -> pa.Table:
    """The table ``index_recall``.

    Of all true neighbours, over all held queries, that belong to a stratum: the share found.
    ``queries`` counts those with at least one. Kind ``overall`` has ``all`` and the two kinds of
    queries, ``person`` and ``item``.
    """
    points = on_sphere(vectors, bundle.facts["bound"])
    truth = exact(points, held)
    hits = hits_of(bundle, positions, points, held, truth)
    exists = truth >= 0
    asked_by_item = (held.own >= 0)[:, None]
    groups = [
        ("overall", "all", exists),
        ("overall", "person", exists & ~asked_by_item),
        ("overall", "item", exists & asked_by_item),
    ]
    for kind, names in strata.items():
        groups += [(kind, str(n), exists & (names[truth] == n)) for n in np.unique(names)]
    rows = [
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
        rows,
        schema=pa.schema(
            [("kind", pa.string()), ("stratum", pa.string()), ("queries", pa.int32()),
             ("recall", pa.float64())]
        ),
    )  # fmt: skip


def vector_rows(items: pa.Table, vectors: np.ndarray, learnt: np.ndarray) -> pa.Table:
    """The table ``item_vectors``."""
    return pa.table(
        {
            "item_id": items["item_id"],
            "position": items["position"],
            "vector": matrix.vector_column(vectors),
            "origin": np.where(learnt, "collaborative", "content").tolist(),
        }
    )
