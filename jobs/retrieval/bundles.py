"""A vector index with the facts needed to ask it: kept in two files, and asked.

Apart from what builds it, so that a program that serves loads none of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jobs import io
from jobs.errors import Fault
from jobs.retrieval.sphere import query_points

FORMAT = 1


@dataclass(frozen=True)
class Bundle:
    """A FAISS index whose ids are ``items.position``, and the facts needed to ask it."""

    index: Any
    facts: dict[str, Any]


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


def positions(folder: Path) -> np.ndarray:
    """(n_held,) int64: the ids that the index of a folder holds, ascending, one twice where it
    stands there twice."""
    import faiss

    index: Any = faiss.read_index(str(folder / "items.faiss"))  # owns the cells that are read
    cells = index.invlists
    sizes = [cells.list_size(cell) for cell in range(cells.nlist)]
    held = [
        faiss.rev_swig_ptr(cells.get_ids(cell), size).copy()
        for cell, size in enumerate(sizes)
        if size
    ]
    return np.sort(np.concatenate(held)) if held else np.zeros(0, np.int64)


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
    distances, found = ask(bundle, query_points(queries, bound), k, allowed)
    lengths = np.linalg.norm(queries, axis=1, keepdims=True)
    scores = lengths / bound * (bound**2 - distances / 2)
    return found, np.where(found >= 0, scores, -np.inf).astype(np.float32)


def ask(
    bundle: Bundle, points: np.ndarray, k: int, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(n_points, k) squared distances and positions, best first, ties by position, for points on
    the sphere; ``allowed`` as in :func:`search`."""
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
