"""From features to a score, and from a score to the probability of a purchase.

The score is the mean margin (log odds) of the ranker's members, or the blend's weighted sum where
no ranker was trained. The probability is a rising function of it, so both order alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from scipy.optimize import isotonic_regression
from scipy.special import expit, logit

from jobs import io, neural
from jobs.scoring import deep, features
from jobs.scoring.deep import Deep
from jobs.scoring.features import linear_score
from jobs.tables import SOURCES, TABLES

if TYPE_CHECKING:
    from xgboost import Booster

KNOTS = 50
SCORER = "scorer.json"


@dataclass(frozen=True)
class Scorer:
    """What ranks: ``members`` of the ranker, boosted trees or networks, none where the ``weights``
    of the blend do it."""

    members: Sequence[Booster | Deep]
    weights: Mapping[str, float]
    calibration: Calibration

    @staticmethod
    def of(models: pa.Table, weights: pa.Table, calibration: pa.Table) -> Scorer:
        """From the tables ``ranker_models``, ``blend_weights`` and ``calibration``."""
        blend = weights.to_pydict()
        models = models.sort_by("member")
        return Scorer(
            [loaded(text) for text in models["model"].to_pylist()],
            dict(zip(blend["source"], blend["weight"], strict=True)),
            Calibration(calibration["score"].to_numpy(), calibration["logit"].to_numpy()),
        )

    @staticmethod
    def load(folder: Path) -> Scorer:
        """From the folder ``scorer`` of a release."""
        facts = io.read_json(folder / SCORER)
        return Scorer(
            [loaded((folder / name).read_text()) for name in facts["members"]],
            {
                source: facts["weights"][name]
                for source, name in zip(SOURCES, features.SIGNALS, strict=True)
            },
            Calibration(
                np.array(facts["calibration"]["score"], float),
                np.array(facts["calibration"]["log_odds"], float),
            ),
        )

    def score(self, rows: np.ndarray) -> np.ndarray:
        """(n,) float64 scores of features (n, n_features) as ``features.values`` makes them."""
        if not self.members:
            signals = rows[:, len(features.COLUMNS) - len(features.SIGNALS) :]
            return linear_score(signals.astype(np.float64), self.weights)
        return mean_margin(self.members, rows)

    def contributions(self, rows: np.ndarray) -> np.ndarray:
        """(n, n_features) float64: what each feature adds to the score of (n, n_features) rows.

        Of trees the exact Shapley values of their margin (Lundberg et al., "From local explanations
        to global understanding with explainable AI for trees", 2020), of networks sampled ones, the
        mean of the members; of the blend, a signal times its weight. A row's sum is its score less
        what is the same for all rows.
        """
        if not self.members:
            return weighted(rows, self.weights)
        if len(rows) == 0:
            return np.zeros(rows.shape)
        each = [
            deep.contributions(member, rows) if isinstance(member, Deep) else by_trees(member, rows)
            for member in self.members
        ]
        return np.mean(np.array(each), axis=0)

    def of_features(self, rows: np.ndarray) -> np.ndarray:
        """(n,) what is published as the score: the probability of a purchase, or the score itself
        where nothing could be judged and so nothing calibrated."""
        score = self.score(rows)
        return self.calibration.probability(score) if len(self.calibration.score) else score


def save(folder: Path, models: pa.Table, weights: pa.Table, calibration: pa.Table) -> None:
    """Write the folder ``scorer`` of a release, for any language that reads XGBoost's JSON, or the
    arrays of a network."""
    members, kind = [], "linear"
    for row in models.sort_by("member").to_pylist():
        members.append(f"member-{row['member']}.json")
        io.write_text(folder / members[-1], row["model"])
        kind = "deep" if neural.is_stored(row["model"], deep.KIND) else "ranker"
    blend = dict(zip(weights["source"].to_pylist(), weights["weight"].to_pylist(), strict=True))
    facts = {
        "format": 2,
        "kind": kind,
        "formula": "raw = the mean of the members' margins, or, of kind linear, the sum of "
        "weights[name] * features[name]; score = 1 / (1 + exp(-log odds)), where log odds are "
        "linear in raw between the knots of calibration and of slope 1 beyond them; without knots "
        "score = raw",
        "feature_version": features.VERSION,
        "features": list(features.COLUMNS),
        "members": members,
        "weights": {
            name: blend.get(source, 0.0)
            for source, name in zip(SOURCES, features.SIGNALS, strict=True)
        },
        "calibration": {
            "score": calibration["score"].to_pylist(),
            "log_odds": calibration["logit"].to_pylist(),
        },
    }
    io.write_json(folder / SCORER, facts)


def loaded(text: str) -> Booster | Deep:
    """A member from XGBoost's JSON, or from a network's."""
    from xgboost import Booster

    if neural.is_stored(text, deep.KIND):
        return Deep.from_json(text)
    found = Booster()
    found.load_model(bytearray(text, "utf-8"))
    return found


def mean_margin(members: Sequence[Booster | Deep], rows: np.ndarray) -> np.ndarray:
    """(n,) float64 the mean of the members' log odds."""
    if len(rows) == 0:
        return np.zeros(0)
    margins = [
        member.margin(rows)
        if isinstance(member, Deep)
        else member.inplace_predict(rows, predict_type="margin")
        for member in members
    ]
    return np.mean(np.array(margins, dtype=np.float64), axis=0)


def by_trees(member: Booster, rows: np.ndarray) -> np.ndarray:
    """(n, n_features) float64 contributions to the margin, without the bias of all rows."""
    from xgboost import DMatrix

    found = member.predict(DMatrix(rows), pred_contribs=True)
    return found[:, :-1].astype(np.float64)


def weighted(rows: np.ndarray, weights: Mapping[str, float]) -> np.ndarray:
    """(n, n_features) float64: each signal times its weight; other features add nothing."""
    found = np.zeros(rows.shape)
    for source, name in zip(SOURCES, features.SIGNALS, strict=True):
        at = features.COLUMNS.index(name)
        found[:, at] = float(weights.get(source, 0.0)) * rows[:, at].astype(np.float64)
    return found


@dataclass(frozen=True)
class Calibration:
    """A rising function from scores to log odds: linear between its knots, both rising strictly,
    and beyond them of slope 1."""

    score: np.ndarray
    logit: np.ndarray

    def log_odds(self, score: np.ndarray) -> np.ndarray:
        """(n,) calibrated log odds."""
        inside = np.interp(score, self.score, self.logit)
        below = np.minimum(score - self.score[0], 0.0)
        above = np.maximum(score - self.score[-1], 0.0)
        return inside + below + above

    def probability(self, score: np.ndarray) -> np.ndarray:
        """(n,) the probability of a purchase in the horizon."""
        return expit(self.log_odds(score))


def calibrate(score: np.ndarray, bought: np.ndarray) -> pa.Table:
    """The table ``calibration``: isotonic regression (Zadrozny and Elkan, 2002) of purchases on
    ``KNOTS`` groups of the score of about equal size, a knot per level.

    ``score``, ``bought``: (n,), of candidates that the ranking was not trained on. Half a purchase
    is added to each side of a group, so that no level is 0 or 1.
    """
    schema = TABLES["calibration"].schema
    if len(score) == 0:
        return schema.empty_table()
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    # Equal scores stand in one group: the order of their rows says nothing.
    borders = np.searchsorted(ordered, ordered[np.arange(1, KNOTS) * len(order) // KNOTS])
    parts = [part for part in np.split(order, np.unique(borders)) if len(part)]
    rows = np.array([len(part) for part in parts], float)
    share = np.array([(bought[part].sum() + 0.5) / (len(part) + 1.0) for part in parts])
    middle = np.array([score[part].mean() for part in parts])
    found = isotonic_regression(share, weights=rows)
    blocks = found.blocks[:-1]
    size = np.add.reduceat(rows, blocks)
    knots = np.add.reduceat(middle * rows, blocks) / size
    level = found.x[blocks]
    rising = np.r_[True, (np.diff(knots) > 0) & (np.diff(level) > 0)]
    return pa.table([knots[rising], logit(level[rising]), size[rising]], schema=schema)
