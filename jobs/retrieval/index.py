"""A vector index over every item of the catalogue, with its recall measured before it is used.

Reads ``item_factors``, ``person_factors``, ``content_vectors``, ``items`` and ``embedding.json``.
Writes ``item_vectors`` (a row per available item: its collaborative vector, or for an item nobody
chose the one guessed from its content), ``index_recall`` (a row per stratum of held queries) and
the folder ``index_bundle`` (``items.faiss`` and ``index.json``).

Inner products are searched as distances on a sphere (``sphere.py``), and recall is split by the age
and category of items (``recall.py``).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import pyarrow as pa

from jobs import io
from jobs.errors import Fault
from jobs.night import Night
from jobs.params import check
from jobs.retrieval import embeddings, matrix, recall
from jobs.retrieval.bundles import FORMAT, Bundle, ask, load, save
from jobs.retrieval.content_embeddings import ToCollaborative
from jobs.retrieval.guarding import Guard
from jobs.retrieval.sphere import on_sphere

log = logging.getLogger("nightjar")
BUNDLE = "index_bundle"
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
    # When a refresh builds it again instead of changing it.
    guard: Mapping[str, float] = field(default_factory=lambda: asdict(Guard()))

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
        guard_of(self)


def guard_of(params: Params) -> Guard:
    """The limits of a refresh; raises ``ValueError`` for one that cannot be."""
    values: dict[str, Any] = dict(params.guard)
    for each in fields(Guard):
        value, whole = values[each.name], isinstance(each.default, int)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        check(number, f"guard.{each.name} must be a number, not {value!r}")
        if whole:
            check(value == int(value), f"guard.{each.name} must be whole, not {value!r}")
            values[each.name] = int(value)
    return Guard(**values)


def run(night: Night, params: Params) -> None:
    """Stage the vectors, the index and its recall."""
    space = io.read_json(night.published("embeddings").table(embeddings.FILE))
    items, vectors, learnt = on_sale(night, params)
    positions = items["position"].to_numpy()
    bundle = build(positions, vectors, space["version"], params, night.seed)
    people = matrix.vectors_of(night.arrow("person_factors", ["vector"]))
    strata = {
        "age": recall.ages(items, night.as_of, params.new_days),
        "category": recall.categories(items, params.categories),
    }
    tune, held = recall.draw_queries(
        vectors, people, strata, bundle.facts["bound"], params.person_queries, params.item_queries,
        night.seed,
    )  # fmt: skip
    bundle = tuned(bundle, positions, vectors, tune, params.target_recall)
    measured = judged(bundle, positions, vectors, held, strata)
    night.write("item_vectors", vector_rows(items, vectors, learnt))
    night.write("index_recall", recall.rows(measured))
    save(remembering(bundle, measured), night.staged / BUNDLE)
    night.notes["index"] = {**bundle.facts, "learnt": int(learnt.sum())}


def refresh(night: Night, params: Params) -> None:
    """Stage the base's index with new items in it, changed ones moved and delisted ones out; built
    again where its recall says so."""
    from jobs.retrieval import index_refresh  # which changes what this module builds

    base = night.base("index")
    space = io.read_json(night.published("embeddings").table(embeddings.FILE))
    items, vectors, learnt = on_sale(night, params)
    before = io.read_arrow(base.table("item_vectors"))
    held = index_refresh.Items(before["position"].to_numpy(), matrix.vectors_of(before))
    now = index_refresh.Items(items["position"].to_numpy(), vectors)
    how = guard_of(params)
    found = index_refresh.refresh(
        load(base.table(BUNDLE)), held, now, space["version"],
        index_refresh.strata_of(items, held.positions, night.as_of, how),
        matrix.vectors_of(night.arrow("person_factors", ["vector"])), how, params, night.seed,
    )  # fmt: skip
    night.write("item_vectors", vector_rows(items, vectors, learnt))
    night.write("index_recall", found.recall)
    save(found.bundle, night.staged / BUNDLE)
    changed = {"added": found.added, "moved": found.moved, "removed": found.removed}
    night.notes["index"] = {**found.bundle.facts, **changed, "built_again": list(found.reasons)}
    for reason in found.reasons:
        log.warning("index=built_again %s", reason)


def on_sale(night: Night, params: Params) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """The items that are available, by position, with their vectors and whether these are learnt.

    What is not available stands in no index: it would take the place of something that is. What a
    flag or a region excludes stands there for whoever may have it, and bitmaps take it out.
    """
    columns = ["item_id", "position", "category", "first_seen", "created_time", "available"]
    items = night.arrow("items", columns).sort_by("position")
    guess = embeddings.to_collaborative(night, params.map_strength, params.cold_norm_quantile)
    content = night.arrow("content_vectors")
    vectors, learnt = item_vectors(items, embeddings.of_night(night), content, guess)
    there = items["available"].to_numpy()
    return items.filter(items["available"]), vectors[there], learnt[there]


def item_vectors(
    items: pa.Table, factors: pa.Table, content: pa.Table, guess: ToCollaborative
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
    vectors = guess.of(matrix.vectors_of(content)[described])
    vectors[known] = matrix.vectors_of(factors)
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


def tuned(
    bundle: Bundle, positions: np.ndarray, vectors: np.ndarray, tune: recall.Queries, target: float
) -> Bundle:
    """The bundle with the fewest probed cells that reach the target on the tune queries of people
    and on those of items: each kind may be found worse than the other, and lists ask as people."""
    cells = bundle.facts["nlist"]
    if cells == 1:
        return bundle
    points = on_sphere(vectors, bundle.facts["bound"])
    truth = recall.exact(points, tune)
    by_item = tune.own >= 0
    asked = [(who, target * (truth[who] >= 0).sum()) for who in (by_item, ~by_item)]
    probes = 8
    while True:
        candidate = Bundle(bundle.index, {**bundle.facts, "nprobe": min(probes, cells)})
        hits = hits_of(candidate, positions, points, tune, truth)
        if probes >= cells or all(hits[who].sum() >= wanted for who, wanted in asked):
            return candidate
        probes = max(probes + 1, int(probes * 1.5))


def judged(
    bundle: Bundle,
    positions: np.ndarray,
    vectors: np.ndarray,
    held: recall.Queries,
    strata: dict[str, recall.Strata],
) -> list[recall.Measured]:
    """Recall on the held queries; row i of everything is ``positions[i]``."""
    points = on_sphere(vectors, bundle.facts["bound"])
    truth = recall.exact(points, held)
    hits = hits_of(bundle, positions, points, held, truth)
    return recall.measure(truth, hits, held.own, strata)


def remembering(bundle: Bundle, measured: list[recall.Measured]) -> Bundle:
    """The bundle with the recall of its cells as they were trained, for refreshes to be held to."""
    return Bundle(bundle.index, {**bundle.facts, "recall": [asdict(each) for each in measured]})


def remembered(bundle: Bundle) -> list[recall.Measured]:
    """What :func:`remembering` kept; empty where nothing was."""
    return [recall.Measured(**each) for each in bundle.facts.get("recall", [])]


def hits_of(
    bundle: Bundle,
    positions: np.ndarray,
    points: np.ndarray,
    queries: recall.Queries,
    truth: np.ndarray,
) -> np.ndarray:
    """(n_queries, K) bool: which of the true neighbours (rows of ``points``) the bundle finds."""
    found = ask(bundle, queries.points, recall.K + 1)[1]
    return recall.hits_of(found, positions, points, queries, truth)


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
