"""Trending: what sells more in the last days than the weeks before let expect.

The last hours count most, so that a refresh of the hour finds what has begun to sell today.
"""

from __future__ import annotations

import numpy as np

from jobs.retrieval.sources.interest import HOURS, Interest, Params

NAME = "trending"


def scores(counted: Interest, params: Params) -> np.ndarray:
    """(n,) float64: how far the decayed counts of every pair of a context and an item exceed their
    expectation, in standard deviations.

    Expected is a day like those before, hour for hour, so that goods of the morning are not held
    against the evening. Of a Poisson process whose points count w, the mean is the sum of w and the
    variance that of w squared; one is added so that a first sale is no miracle.
    """
    half_life = params.trending_half_life_hours
    expected = counted.base / params.trending_base_days * _days(params, half_life)
    # The square of a weight halves in half the time.
    variance = counted.spread / params.trending_base_days * _days(params, half_life / 2)
    # Rounded, so that what sells as before exceeds nothing.
    return np.round((counted.recent - expected) / np.sqrt(variance + 1), 9)


def _days(params: Params, half_life: float) -> float:
    """What equal days count together of which the last counts one."""
    return float(np.exp2(-HOURS * np.arange(params.trending_days) / half_life).sum())
