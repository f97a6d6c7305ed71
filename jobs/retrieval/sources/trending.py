"""Trending: what sells more in the last days than the weeks before let expect.

The last hours count most, so that a refresh of the hour finds what has begun to sell today.
"""

from __future__ import annotations

import numpy as np

from jobs.retrieval.sources.interest import Interest, Params

NAME = "trending"
HOURS = 24


def scores(counted: Interest, params: Params) -> np.ndarray:
    """(n,) float64: how far the decayed counts of every pair of a context and an item exceed their
    expectation, in standard deviations.

    A Poisson process of the rate r per hour, each of whose points counts w at its age, has the mean
    r * sum(w) and the variance r * sum(w ** 2); one is added so that a first sale is no miracle.
    """
    rate = counted.base / (params.trending_base_days * HOURS)
    span, half_life = params.trending_days * HOURS, params.trending_half_life_hours
    expected = rate * _weight(span, half_life)
    # The square of a weight halves in half the time.
    return (counted.recent - expected) / np.sqrt(rate * _weight(span, half_life / 2) + 1)


def _weight(span: float, half_life: float) -> float:
    """What all hours of a span count together, decayed from its end."""
    return half_life / np.log(2) * (1 - 2 ** (-span / half_life))
