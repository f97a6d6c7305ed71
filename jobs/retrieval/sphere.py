"""Inner products searched as distances.

With one more coordinate, sqrt(bound² - |x|²), all items lie on one sphere, and the nearest to a
query scaled onto it is the one of largest product (Bachrach et al., "Speeding up the Xbox
recommender system using a Euclidean transformation", 2014). Cells built on raw inner products found
57 %.
"""

from __future__ import annotations

import numpy as np


def on_sphere(vectors: np.ndarray, bound: float) -> np.ndarray:
    """(n, dim + 1) float32: each item's vector with the coordinate that makes its length bound."""
    points = np.empty((len(vectors), vectors.shape[1] + 1), np.float32)
    points[:, :-1] = vectors
    squares = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
    points[:, -1] = np.sqrt(np.maximum(bound**2 - squares, 0.0))
    return points


def query_points(queries: np.ndarray, bound: float) -> np.ndarray:
    """(n, dim + 1) float32: each query scaled to length bound, with a last coordinate of 0."""
    lengths = np.linalg.norm(queries, axis=1, keepdims=True)
    scaled = queries * (bound / np.maximum(lengths, 1e-12))
    return np.ascontiguousarray(np.column_stack([scaled, np.zeros(len(queries))]), dtype=np.float32)
