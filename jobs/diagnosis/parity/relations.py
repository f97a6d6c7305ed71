"""Outcomes at equal inputs: models of the reference, weights between periods, recalibration.

``inputs``: (n, d) float, without NaN; ``label``: (n,) bool; ``weight``: (n,) above 0; ``who``: (n,)
codes of whom a row depends on. Predictions are always made by a model that has not seen the row's
person, so that before and after are judged alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import special
from sklearn.linear_model import LogisticRegression

from jobs.diagnosis.parity import divergence
from jobs.diagnosis.parity.divergence import Estimate

FOLDS = 3
PENALTY = 0.1  # inverse strength of the ridge: 80 standardised inputs, most of them kin
FARTHEST = 4.0  # standard deviations at which an input is cut off; tails are not extrapolated
RATIO_AT_MOST = 10.0  # of a density ratio; a few rows must not stand for a period
FEW_PEOPLE = 3  # with an outcome in each fold, below which a fold's model is of next to nobody
PRIOR_ROWS = 0.5  # added to observed and expected outcomes of a slice


# --- inputs ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Standard:
    """How columns are brought to one scale: by the reference's means and deviations."""

    means: np.ndarray
    deviations: np.ndarray
    gaps: np.ndarray

    @staticmethod
    def of(columns: np.ndarray) -> Standard:
        """``columns``: (n, d) with NaN for missing."""
        bent = _bent(columns)
        has = np.isfinite(bent)
        count = np.maximum(has.sum(axis=0), 1)
        means = np.where(has, bent, 0.0).sum(axis=0) / count
        spread = np.where(has, (bent - means) ** 2, 0.0).sum(axis=0) / count
        # A column that is missing now and then says by that alone something.
        gaps = (1 - count / len(columns) > 0.01) & (count / len(columns) > 0.01)
        return Standard(means, np.sqrt(np.maximum(spread, 1e-12)), gaps)

    def apply(self, columns: np.ndarray) -> np.ndarray:
        """(n, d + gaps) standardised and cut off; a missing value is the mean, and is flagged."""
        scaled = (_bent(columns) - self.means) / self.deviations
        missing = ~np.isfinite(scaled)
        found = np.clip(np.where(missing, 0.0, scaled), -FARTHEST, FARTHEST)
        return np.hstack([found, missing[:, self.gaps].astype(float)])


def _bent(columns: np.ndarray) -> np.ndarray:
    """Counts and money have long tails; the logarithm of the size keeps order and sign."""
    return np.sign(columns) * np.log1p(np.abs(columns))


# --- models ----------------------------------------------------------------------------------
def foldable(label: np.ndarray, who: np.ndarray) -> bool:
    """Whether each fold has several people with an outcome, and several with a row without one."""
    return all(
        len(np.unique(who[has & (who % FOLDS == fold)])) >= FEW_PEOPLE
        for has in (label, ~label)
        for fold in range(FOLDS)
    )


@dataclass(frozen=True)
class OutOfFold:
    """One logistic model per fold of people, made of all people but those of the fold."""

    models: tuple[LogisticRegression, ...]

    @staticmethod
    def fit(
        inputs: np.ndarray, label: np.ndarray, weight: np.ndarray, who: np.ndarray
    ) -> OutOfFold:
        """``who`` numbers people as they come, so that the code alone draws the fold."""
        models = []
        for fold in range(FOLDS):
            rest = who % FOLDS != fold
            # Newton's method: of so few columns its steps are a few products of matrices.
            model = LogisticRegression(C=PENALTY, solver="newton-cholesky")
            models.append(model.fit(inputs[rest], label[rest], sample_weight=weight[rest]))
        return OutOfFold(tuple(models))

    def logits(self, inputs: np.ndarray, who: np.ndarray) -> np.ndarray:
        """(n,) each row by the model that has not seen its person."""
        found = np.empty(len(inputs))
        for fold, model in enumerate(self.models):
            mine = who % FOLDS == fold
            if mine.any():
                found[mine] = model.decision_function(inputs[mine])
        return found


def density_ratio(
    before: np.ndarray,
    after: np.ndarray,
    before_weight: np.ndarray,
    after_weight: np.ndarray,
    before_who: np.ndarray,
    after_who: np.ndarray,
) -> np.ndarray:
    """(n_before,) how much more frequent a reference row's inputs are now, with mean 1.

    By a classifier between the periods (Sugiyama, Suzuki and Kanamori, 2012), clipped.
    """
    inputs, now = np.vstack([before, after]), np.r_[np.zeros(len(before)), np.ones(len(after))] > 0
    # Each period counts alike, so that the odds are the ratio.
    weight = np.r_[before_weight / before_weight.sum(), after_weight / after_weight.sum()]
    weight *= len(weight) / 2
    model = OutOfFold.fit(inputs, now, weight, np.r_[before_who, after_who])
    ratio = np.exp(model.logits(before, before_who))
    ratio = np.clip(ratio, 1 / RATIO_AT_MOST, RATIO_AT_MOST)
    return ratio / np.average(ratio, weights=before_weight)


# --- recalibration ---------------------------------------------------------------------------
@dataclass(frozen=True)
class Recalibration:
    """``label`` on a logit, the intercept at the logit ``centre``; and the loss of the logit as it
    is, in nats a row."""

    intercept: Estimate
    slope: Estimate
    offset: Estimate
    loss: Estimate


def recalibrated(
    logit: np.ndarray,
    label: np.ndarray,
    weight: np.ndarray,
    centre: float,
    *clusterings: np.ndarray,
) -> Recalibration:
    """Cox's (1958) recalibration by maximum likelihood, with cluster-robust errors.

    ``offset``: the intercept where the slope is held at 1: by how much all log-odds are off.
    """
    away = logit - centre
    intercept, slope = _logistic(np.column_stack([np.ones(len(away)), away]), 0.0 * away, label,
                                 weight, clusterings)  # fmt: skip
    (offset,) = _logistic(np.ones((len(away), 1)), logit, label, weight, clusterings)
    lost = np.logaddexp(0.0, np.where(label, -logit, logit))
    return Recalibration(intercept, slope, offset, divergence.mean(lost, weight, *clusterings))


def _logistic(
    columns: np.ndarray,
    offset: np.ndarray,
    label: np.ndarray,
    weight: np.ndarray,
    clusterings: tuple[np.ndarray, ...],
) -> list[Estimate]:
    """Coefficients by Newton's method, from the sandwich of their influence functions."""
    found = np.zeros(columns.shape[1])
    for _ in range(50):
        p = special.expit(offset + columns @ found)
        gradient = columns.T @ (weight * (label - p))
        curvature = (columns * (weight * p * (1 - p))[:, None]).T @ columns
        step = np.linalg.solve(
            curvature + 1e-9 * np.trace(curvature) * np.eye(len(found)), gradient
        )
        found += np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-10:
            break
    influence = (columns * (weight * (label - p))[:, None]) @ np.linalg.pinv(curvature)
    return [Estimate.of(value, influence[:, n], *clusterings) for n, value in enumerate(found)]


# --- slices ----------------------------------------------------------------------------------
def log_ratio(
    expected: np.ndarray, label: np.ndarray, weight: np.ndarray, *clusterings: np.ndarray
) -> Estimate:
    """The logarithm of outcomes over expected ones, its error by the delta method, and at least
    that of so many independent outcomes: of none at all, rows show no spread."""
    observed, meant = float(weight @ label), float(weight @ expected)
    prior = PRIOR_ROWS * float(weight.mean())
    influence = weight * (label - expected * (observed / meant)) / (observed + prior)
    value = np.log((observed + prior) / (meant + prior))
    found = Estimate.of(value, influence, *clusterings)
    outcomes = divergence.kish(weight[label]) if label.any() else 0.0
    return replace(found, error=max(found.error, (outcomes + PRIOR_ROWS) ** -0.5))


def heterogeneity(changes: list[Estimate]) -> tuple[float, float]:
    """How far the true changes of slices lie apart, beyond chance, and the p-value of not at all.

    The standard deviation between them of DerSimonian and Laird (1986), from Cochran's Q. A change
    of f degrees of freedom has the variance f / (f - 2) of Student's t; of two none is known.
    """
    known = [one for one in changes if one.error > 0 and np.isfinite(one.value) and one.freedom > 2]
    if len(known) < 2:
        return float("nan"), 1.0
    value = np.array([one.value for one in known])
    precision = (1 - 2 / np.array([one.freedom for one in known])) / (
        np.array([one.error for one in known]) ** 2
    )
    q = float(precision @ (value - np.average(value, weights=precision)) ** 2)
    scale = precision.sum() - (precision @ precision) / precision.sum()
    between = max(0.0, (q - (len(known) - 1)) / scale)
    return between**0.5, float(special.chdtrc(len(known) - 1, q))
