"""The blend: a weighted sum of the candidate sources' signals.

It orders what goes into the ranker, and stands in where there is too little to train a ranker on.
Its weights are a logistic regression of "bought in the days after the cut" on the signals, weights
not below 0, then the mixture with the best single source that ranks best; where that is not ahead
of the prior weights by more than chance, these stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy.optimize import minimize

from jobs.evaluation import metrics
from jobs.tables import SOURCES

MIXTURES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
JUDGED_AT = 10
# Standard errors by which tuned weights must be ahead of the prior's. They were fitted to the very
# people they are compared on: on RetailRocket 60 people gave weights that were 1.2 ahead, and two
# weeks later reached 0.026 where the prior had 0.110.
AHEAD = 2.0


@dataclass(frozen=True)
class Judged:
    """Candidates of people whose next purchases are known, flat.

    ``person``: (n,) codes from 0; ``signals``: (n, n_sources) float64; ``bought``: (n,) bool;
    ``wanted``: (n_people,) items bought in the horizon, among the candidates or not.
    """

    person: np.ndarray
    signals: np.ndarray
    bought: np.ndarray
    wanted: np.ndarray

    def of(self, people: np.ndarray) -> Judged:
        """The part of these people; ``people``: (n_people,) bool."""
        rows = people[self.person]
        code = np.cumsum(people) - 1
        return Judged(
            code[self.person[rows]], self.signals[rows], self.bought[rows], self.wanted[people]
        )

    def ndcg(self, score: np.ndarray) -> np.ndarray:
        """(n_people,) NDCG at the judged length of the ranking by ``score`` (n,)."""
        rank, listed = metrics.ranks(self.person, score), np.isfinite(score)
        return metrics.ndcg(self.person, rank, self.bought & listed, self.wanted, JUDGED_AT)

    def alone(self, source: int) -> np.ndarray:
        """(n,) scores that rank what one source named by its own ranks, and nothing else."""
        signal = self.signals[:, source]
        return np.where(signal > 0, signal, -np.inf)

    def recall(self, score: np.ndarray, k: int) -> np.ndarray:
        """(n_people,) recall at ``k`` of the ranking by ``score`` (n,)."""
        rank, listed = metrics.ranks(self.person, score), np.isfinite(score)
        return metrics.recall(self.person, rank, self.bought & listed, self.wanted, k)


def tune(judged: Judged, shrinkage: float, prior: Mapping[str, float]) -> tuple[np.ndarray, int]:
    """(n_sources,) weights that sum to 1, and the place of the best single source, both on the
    people judged.

    The mixture runs from the best source alone to the regression's weights and beyond, so the
    tuned weights rank these people at least as well as the best source does. ``prior`` stands
    where they are not ``AHEAD`` of it.
    """
    alone = np.array([judged.ndcg(judged.alone(i)).mean() for i in range(len(SOURCES))])
    best = int(alone.argmax())
    regressed = logistic(judged.signals, judged.bought, shrinkage)
    single = np.zeros(len(SOURCES))
    single[best] = max(regressed[best], 1e-3)
    rest = regressed.copy()
    rest[best] = 0.0
    mixed = [single + share * rest for share in MIXTURES]
    reached = [judged.ndcg(judged.signals @ weights).mean() for weights in mixed]
    chosen, known = mixed[int(np.argmax(reached))], of_sources(prior)
    gain = judged.ndcg(judged.signals @ chosen) - judged.ndcg(judged.signals @ known)
    if known.any() and gain.mean() < AHEAD * gain.std() / np.sqrt(len(gain)):
        chosen = known
    return chosen / chosen.sum(), best


def of_sources(weights: Mapping[str, float]) -> np.ndarray:
    """(n_sources,) weights in the order of the sources; a source without a weight counts 0."""
    return np.array([float(weights.get(source, 0.0)) for source in SOURCES])


def logistic(signals: np.ndarray, bought: np.ndarray, shrinkage: float) -> np.ndarray:
    """(n_sources,) weights, none below 0, of a logistic regression with a free intercept.

    Maximum likelihood with a ridge of ``shrinkage``, by L-BFGS-B (Byrd et al., 1995).
    """
    design = np.column_stack([signals, np.ones(len(signals))])
    sign = np.where(bought, 1.0, -1.0)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (design @ weights)
        penalty = 0.5 * shrinkage * (weights[:-1] ** 2).sum()
        slope = -sign / (1.0 + np.exp(np.clip(margin, -500, 500)))
        gradient = design.T @ slope
        gradient[:-1] += shrinkage * weights[:-1]
        return float(np.logaddexp(0.0, -margin).sum() + penalty), gradient

    start = np.zeros(design.shape[1])
    bounds = [(0.0, None)] * signals.shape[1] + [(None, None)]
    return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x[:-1]


def weight_table(weights: Mapping[str, float]) -> pa.Table:
    """The table ``blend_weights``; a source without a weight counts 0."""
    return pa.table(
        {
            "source": list(SOURCES),
            "weight": of_sources(weights),
        }
    )
