"""Trending: what sells more in the last days than the weeks before let expect."""

from __future__ import annotations

import numpy as np

from jobs.retrieval.sources.interest import Interest

NAME = "trending"


def scores(counted: Interest, span_ratio: float) -> np.ndarray:
    """(n,) float64: how far the recent days of every pair of a context and an item exceed their
    expectation, in standard deviations.

    ``span_ratio``: length of the recent days over the length of the days before. A Poisson count
    has its mean as variance; one is added so that a first sale is no miracle.
    """
    expected = counted.base * span_ratio
    return (counted.recent - expected) / np.sqrt(expected + 1)
