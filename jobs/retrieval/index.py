"""A vector index over every item of the catalogue, with its recall measured before it is used.

Reads ``item_factors``, ``person_factors``, ``content_vectors``, ``items`` and ``embedding.json``.
Writes ``item_vectors`` (a row per item: its collaborative vector, or for an item nobody chose the
one guessed from its content), ``index_recall`` (a row per stratum of held queries) and the folder
``index_bundle`` (``items.faiss`` and ``index.json``).

Inner products are searched as distances on a sphere (``sphere.py``), and recall is split by the age
and category of items (``recall.py``).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs import io
from jobs.errors import Fault
from jobs.night import Night
from jobs.params import check
from jobs.retrieval import embeddings, matrix, recall
from jobs.retrieval.content_embeddings import map_to_collaborative
from jobs.retrieval.sphere import on_sphere, query_points

BUNDLE = "index_bundle"
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
    bundle: Bundle, queries: np.ndarray, version: str, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` items of largest inner product with each (n_queries, dim) query.

    ``version`` is the embedding space that the queries come from. Returns (n_queries, k) int64
    positions, best first, -1 where there are fewer, and float32 inner products. Raises ``Fault``
    where the index belongs to another space or another dimension.
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
    distances, found = _ask(bundle, query_points(queries, bound), k)
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


def _ask(bundle: Bundle, points: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances and positions, best first, ties by position."""
    bundle.index.nprobe = bundle.facts["nprobe"]
    distances, found = bundle.index.search(points, k)
    order = np.lexsort((found, distances), axis=1)
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(found, order, axis=1)


def tuned(
    bundle: Bundle, positions: np.ndarray, vectors: np.ndarray, tune: recall.Queries, target: float
) -> Bundle:
    """The bundle with the fewest probed cells that reach the target on the tune queries."""
    cells = bundle.facts["nlist"]
    if cells == 1:
        return bundle
    points = on_sphere(vectors, bundle.facts["bound"])
    truth = recall.exact(points, tune)
    probes = 8
    while True:
        candidate = Bundle(bundle.index, {**bundle.facts, "nprobe": min(probes, cells)})
        hits = hits_of(candidate, positions, points, tune, truth)
        if probes >= cells or hits.sum() >= target * (truth >= 0).sum():
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
    found = _ask(bundle, queries.points, recall.K + 1)[1]
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
