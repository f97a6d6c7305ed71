"""Nearest vectors by inner product: exact while that is quick, through FAISS cells beyond."""

from __future__ import annotations

import numpy as np

# Multiplications that the exact product may take: about 5 seconds of one core.
EXACT_WORK = 5e10
BLOCK = 16_000_000  # scores held at a time
PROBED_SHARE = 0.01  # of the cells, at least 8: over 0.99 of the true 40 on a grocer's catalogue


def nearest(
    queries: np.ndarray, vectors: np.ndarray, k: int, seed: int, exact_work: float = EXACT_WORK
) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` rows of ``vectors`` with the largest inner product for each query.

    ``queries``: (n_queries, dim) float32; ``vectors``: (n_vectors, dim) float32, both of length 1.
    Returns (n_queries, k) int64 rows, -1 where there are fewer, and float32 products, best first;
    ties go to the lower row. A pure function of its arguments, the cells being seeded.
    """
    import faiss

    n_vectors, dim = vectors.shape
    if n_vectors == 0:
        shape = (len(queries), k)
        return np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32)
    if float(len(queries)) * n_vectors * dim <= exact_work:
        index: faiss.Index = faiss.IndexFlatIP(dim)
    else:
        count = int(2 * np.sqrt(n_vectors))
        cells = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, count, faiss.METRIC_INNER_PRODUCT)
        cells.cp.seed = seed % 2**31
        cells.cp.niter = 8
        cells.cp.spherical = True
        cells.cp.max_points_per_centroid = 64
        cells.nprobe = max(8, int(count * PROBED_SHARE))
        cells.train(vectors)
        index = cells
    index.add(vectors)
    scores, rows = index.search(np.ascontiguousarray(queries), k)
    order = np.lexsort((rows, -scores), axis=1)
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)
