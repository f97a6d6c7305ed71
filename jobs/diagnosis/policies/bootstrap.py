"""Intervals of what lists bring a request, at the same cost for any number of visitors."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

LEVEL = 0.95
# Groups of visitors that are drawn; the error of a spread from so many is 2 %.
GROUPS = 1_000


@dataclass(frozen=True)
class Estimate:
    """A value a request and its interval; ``replicates``: (r,) values under other draws."""

    value: float
    low: float
    high: float
    replicates: np.ndarray = field(repr=False)


class Bootstrap:
    """Replicates of sums over requests.

    A visitor's requests are alike, so that visitors are what is drawn. They are dealt at random
    into at most ``GROUPS`` groups with equally many, everything is summed by group, and each
    replicate weighs every group by a draw from Poisson(1) (Owen and Eckles, 2012; Chamandy et al.,
    2012). Sums of random groups have the spread and the skew of visitors; few visitors are a group
    each. What is drawn depends on the seed and the number of visitors.
    """

    def __init__(
        self, request: np.ndarray, seed: int, replicates: int, visitor: np.ndarray | None = None
    ):
        """``request``: (n,) codes from 0, each in some row; ``visitor``: (requests,) whose each is,
        None where each is another's."""
        self.requests = int(request.max(initial=-1)) + 1
        visitor = np.arange(self.requests) if visitor is None else visitor
        rng = np.random.default_rng([seed, 43])
        of_request = dealt(visitor, GROUPS, rng)
        self.groups = max(1, int(of_request.max(initial=0)) + 1)
        self.group = of_request[request]
        self.sizes = np.bincount(of_request, minlength=self.groups).astype(float)
        self.draws = rng.poisson(1.0, (replicates, self.groups)).astype(float)
        self.drawn = np.maximum(self.draws @ self.sizes, 1.0)

    def mean(self, rows: np.ndarray) -> Estimate:
        """A request's sum of ``rows``, (n,)."""
        sums = np.bincount(self.group, rows, minlength=self.groups)
        value = sums.sum() / max(self.requests, 1)
        return percentile(value, self.draws @ sums / self.drawn)


def dealt(visitor: np.ndarray, groups: int, rng: np.random.Generator) -> np.ndarray:
    """(requests,) the random group, from 0, of each request's visitor; groups have equally many
    visitors."""
    _, code = np.unique(visitor, return_inverse=True)
    visitors = int(code.max(initial=-1)) + 1
    return (rng.permutation(visitors) % max(1, min(groups, visitors)))[code]


def percentile(value: float, replicates: np.ndarray) -> Estimate:
    """Efron's percentile interval (1979)."""
    low, high = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(value), float(low), float(high), replicates)
