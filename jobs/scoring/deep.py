"""A deep ranker over the same features: a factorisation machine and a network beside it.

DeepFM: Guo et al., "DeepFM: a factorization-machine based neural network for CTR prediction", 2017.

A feature is cut at quantiles of the examples; its embedding is the one of its bin, one of its own
where nothing is known, plus a direction times where in the examples' order the value lies (after
Gorishniy et al., "On embeddings for numerical features in tabular deep learning", NeurIPS 2022).
Embeddings meet in pairs by their products, and all together in the network. Scored by NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from jobs import neural
from jobs.neural import Weights, apply
from jobs.params import check

KIND = "deepfm"
SWITCH = "ranker.deep"
# Rows whose embeddings are held at a time: 90 features of 8 entries are 50 MB.
BLOCK = 16_000
# Rows that the importance of features is measured on, each of them scored once a feature.
SAMPLE = 20_000
# Orders of the features, each also backwards, over which a contribution is averaged.
ORDERS = 4


@dataclass(frozen=True)
class Params:
    """The network and its training."""

    # Bins of a feature's values, entries of an embedding, and units of the hidden layers.
    bins: int = 16
    width: int = 8
    hidden: int = 64
    # Rows of a batch, times that all examples are seen, and how far a batch moves the weights.
    rows: int = 4_096
    epochs: int = 3
    rate: float = 0.003
    decay: float = 0.1

    def __post_init__(self) -> None:
        check(2 <= self.bins <= 256, "bins must be in 2..256")
        check(1 <= self.width <= 64, "width must be in 1..64")
        check(1 <= self.hidden <= 1024, "hidden must be in 1..1024")
        check(self.rows >= 1, "rows must be at least 1")
        check(self.epochs >= 1, "epochs must be at least 1")
        check(self.rate > 0, "rate must be positive")
        check(self.decay >= 0, "decay must not be negative")


@dataclass(frozen=True)
class Deep:
    """A trained member. ``edges``: (n_features, bins + 1) float32, each feature's quantiles."""

    edges: np.ndarray
    weights: Weights

    def margin(self, values: np.ndarray) -> np.ndarray:
        """(n,) float64 log odds of (n, n_features) float32 values, NaN where nothing is known."""
        found = np.empty(len(values))
        # One thread, as in ALS: products do not depend on how many there are.
        with threadpool_limits(limits=1, user_api="blas"):
            for first in range(0, len(values), BLOCK):
                part = slice(first, first + BLOCK)
                found[part] = forward(self.weights, inputs(self.edges, values[part]), np)
        return found

    def to_json(self) -> str:
        """The member as text: edges and weights, see :func:`jobs.neural.to_json`."""
        return neural.to_json(KIND, {}, {"edges": self.edges, **self.weights})

    @staticmethod
    def from_json(text: str) -> Deep:
        _, weights = neural.from_json(text, KIND)
        return Deep(weights.pop("edges"), weights)


def quantiles(values: np.ndarray, bins: int) -> np.ndarray:
    """(n_features, bins + 1) float32: each feature's quantiles where it is known; 0 of a feature
    that is known nowhere."""
    found = np.zeros((values.shape[1], bins + 1), np.float32)
    for number, column in enumerate(values.T):
        known = column[np.isfinite(column)]
        if len(known):
            found[number] = np.quantile(known, np.linspace(0, 1, bins + 1))
    return found


def inputs(edges: np.ndarray, values: np.ndarray) -> dict[str, np.ndarray]:
    """``bin``: (n, n_features) int32 rows of the embeddings, of which a feature has bins + 1, the
    first for what is not known; ``place``: (n, n_features) float32 from -1 to 1, where a value lies
    among the quantiles, 0 where it is not known."""
    n_features, bins = len(edges), edges.shape[1] - 1
    code = np.zeros(values.shape, np.int32)
    place = np.zeros(values.shape, np.float32)
    for number, (own, column) in enumerate(zip(edges, values.T, strict=True)):
        known = np.isfinite(column)
        inner = np.searchsorted(own[1:-1], column[known], side="right")
        code[known, number] = inner + 1
        low, high = own[inner], own[inner + 1]
        inside = np.clip((column[known] - low) / np.maximum(high - low, 1e-9), 0.0, 1.0)
        place[known, number] = 2.0 * (inner + inside) / bins - 1.0
    return {"bin": code + (bins + 1) * np.arange(n_features, dtype=np.int32), "place": place}


def forward(weights: Mapping[str, Any], rows: Mapping[str, Any], xp: ModuleType) -> Any:
    """(n,) log odds."""
    place = rows["place"][:, :, None]
    embedded = weights["bin"][rows["bin"]] + place * weights["place"]
    single, pairs = embedded[:, :, 0].sum(axis=1), embedded[:, :, 1:]
    whole = pairs.sum(axis=1)
    products = 0.5 * ((whole * whole).sum(axis=1) - (pairs * pairs).sum(axis=(1, 2)))
    together = xp.concatenate([pairs.reshape(len(pairs), -1), rows["place"]], axis=1)
    hidden = xp.maximum(apply(weights["hidden_1"], together), 0.0)
    hidden = xp.maximum(apply(weights["hidden_2"], hidden), 0.0)
    return single + products + apply(weights["out"], hidden)[:, 0]


def loss(weights: Any, batch: Any) -> Any:
    """The weighted log loss of labels from 0 to 1, over the rows' number."""
    xp = neural.jax(SWITCH).numpy
    margin = forward(weights, batch, xp)
    return (batch["weight"] * (xp.logaddexp(0.0, margin) - batch["label"] * margin)).mean()


def train(
    values: np.ndarray, label: np.ndarray, weight: np.ndarray, params: Params, seed: int
) -> Deep:
    """A member, from (n, n_features) float32 values and (n,) labels and weights. The same
    arguments give the same bits on machines of equally many cores."""
    generator = np.random.default_rng(seed)
    edges = quantiles(values, params.bins)
    known = inputs(edges, values)
    size = min(params.rows, len(label))
    batches = max(1, params.epochs * len(label) // size)
    begin, step = neural.stepper(loss, SWITCH, params.rate, params.decay, batches)
    state = begin(start(values.shape[1], np.average(label, weights=weight), params, generator))
    scale = weight.mean()
    order = np.concatenate([generator.permutation(len(label)) for _ in range(params.epochs + 1)])
    for number in range(batches):
        rows = order[number * size : (number + 1) * size]
        batch = {name: column[rows] for name, column in known.items()} | {
            "label": label[rows].astype(np.float32),
            "weight": (weight[rows] / scale).astype(np.float32),
        }
        state, _ = step(state, batch)
    return Deep(edges, neural.fitted(state))


def importance(
    members: Sequence[Deep], values: np.ndarray, bought: np.ndarray, seed: int
) -> np.ndarray:
    """(n_features,): how much the log loss of the members' mean margin rises where a feature's
    values are dealt anew among the rows, 0 where it falls (Fisher, Rudin and Dominici, "All models
    are wrong, but many are useful", JMLR 2019). ``values``: (n, n_features) of rows that were not
    trained on, ``bought``: (n,) bool; of many rows ``SAMPLE`` are drawn."""
    generator = np.random.default_rng(seed)
    if len(values) > SAMPLE:
        drawn = np.sort(generator.choice(len(values), SAMPLE, replace=False))
        values, bought = values[drawn], bought[drawn]

    def lost(rows: np.ndarray) -> float:
        margin = np.mean([member.margin(rows) for member in members], axis=0)
        return float((np.logaddexp(0.0, margin) - bought * margin).mean())

    known, dealt = lost(values), values.copy()
    risen = np.zeros(values.shape[1])
    for number, column in enumerate(values.T):
        dealt[:, number] = generator.permutation(column)
        risen[number] = max(lost(dealt) - known, 0.0)
        dealt[:, number] = column
    return risen


def contributions(member: Deep, values: np.ndarray) -> np.ndarray:
    """(n, n_features) float64: what each feature of (n, n_features) values adds to the margin.

    Shapley values against a row of which nothing is known, sampled over orders in which features
    become known (Štrumbelj and Kononenko, "Explaining prediction models and individual predictions
    with feature contributions", 2014). A row's sum is its margin less that of the unknown row.
    """
    generator = np.random.default_rng(0)  # the same rows have the same contributions
    drawn = [generator.permutation(values.shape[1]) for _ in range(ORDERS)]
    orders = [order for one in drawn for order in (one, one[::-1])]
    found = np.zeros(values.shape)
    for order in orders:
        known = np.full_like(values, np.nan)
        before = member.margin(known)
        for feature in order:
            known[:, feature] = values[:, feature]
            after = member.margin(known)
            found[:, feature] += after - before
            before = after
    return found / len(orders)


def start(n_features: int, share: float, params: Params, generator: np.random.Generator) -> Weights:
    """Where training begins; ``share``: of the examples that were bought."""
    embeddings = n_features * (params.bins + 1)
    width = params.width + 1

    def small(*shape: int) -> np.ndarray:
        return (generator.standard_normal(shape) * 0.02).astype(np.float32)

    out = neural.dense(generator, params.hidden // 2, 1, 0.1)
    out[-1] = np.log(max(share, 1e-6) / max(1 - share, 1e-6))
    return {
        "bin": small(embeddings, width),
        "place": small(n_features, width),
        "hidden_1": neural.dense(generator, n_features * width, params.hidden),
        "hidden_2": neural.dense(generator, params.hidden, params.hidden // 2),
        "out": out,
    }
