"""Popular: what many people bought lately, by decayed person-days."""

from __future__ import annotations

import numpy as np

from jobs.retrieval.sources.interest import Interest

NAME = "popular"


def scores(counted: Interest) -> np.ndarray:
    """(n,) float64 the popularity of every pair of a context and an item."""
    return counted.popularity
