"""What the optional neural models share: what trains them, an optimiser, a stored form.

Training needs JAX (``requirements/neural.txt``). What was trained is plain arrays, and forward
passes run on NumPy, so that whoever scores or serves needs none of it. A forward pass is written
once and takes the module whose arrays it is given, ``numpy`` or ``jax.numpy``.
"""

from __future__ import annotations

import base64
import importlib
import json
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from jobs.errors import Fault

Weights = dict[str, np.ndarray]


def jax(parameter: str) -> ModuleType:
    """The package that trains; raises ``Fault`` that names the parameter which asks for it, and how
    to install it, where it is absent."""
    try:
        return importlib.import_module("jax")
    except ModuleNotFoundError as error:
        if error.name != "jax":
            raise
        raise Fault(
            f"{parameter} is on and the package jax is not installed; install it with `make "
            "neural`, or requirements/neural.txt into the environment that runs the steps, or "
            "leave the parameter off"
        ) from None


# --- fitting -----------------------------------------------------------------------------------
def stepper(
    loss: Callable[[Any, Any], Any], parameter: str, rate: float, decay: float, steps: int
) -> tuple[Callable[[Weights], Any], Callable[[Any, Any], tuple[Any, Any]]]:
    """Adam (Kingma and Ba, 2015) with decoupled decay (Loshchilov and Hutter, 2019) on a loss.

    ``loss(weights, batch)`` is a number. Returns ``start(weights)``, the state that training goes
    on from, whose first entry is the weights, and ``step(state, batch)``, the next state and the
    loss before it. The rate falls to 0 over ``steps``, so that the last batches settle what the
    first found. Compiled once for each shape of a batch.
    """
    found = jax(parameter)
    numbers, tree = found.numpy, found.tree_util.tree_map

    def start(weights: Weights) -> Any:
        placed = {name: numbers.asarray(value) for name, value in weights.items()}
        # Two arrays of zeros each, since the memory of a state is given up to the next one.
        means, squares = (tree(numbers.zeros_like, placed) for _ in range(2))
        return placed, means, squares, numbers.zeros((), numbers.float32)

    def step(state: Any, batch: Any) -> tuple[Any, Any]:
        weights, mean, square, count = state
        value, slope = found.value_and_grad(loss)(weights, batch)
        count = count + 1
        mean = tree(lambda m, g: 0.9 * m + 0.1 * g, mean, slope)
        square = tree(lambda s, g: 0.999 * s + 0.001 * g * g, square, slope)
        first, second = 1 - 0.9**count, 1 - 0.999**count
        pace = rate * numbers.maximum(1 - (count - 1) / steps, 0.0)
        weights = tree(
            lambda w, m, s: w - pace * (m / first / (numbers.sqrt(s / second) + 1e-8) + decay * w),
            weights, mean, square,
        )  # fmt: skip
        return (weights, mean, square, count), value

    # The state before is not needed again: its memory takes the state after.
    return start, found.jit(step, donate_argnums=0)


def fitted(state: Any) -> Weights:
    """The weights of a state as NumPy's arrays."""
    return {name: np.asarray(value) for name, value in state[0].items()}


def dense(
    generator: np.random.Generator, inputs: int, outputs: int, scale: float = 1.0
) -> np.ndarray:
    """(inputs + 1, outputs) float32: a layer's start (He et al., 2015), its last row the
    intercept, 0."""
    layer = generator.standard_normal((inputs + 1, outputs)) * scale * np.sqrt(2.0 / inputs)
    layer[-1] = 0.0
    return layer.astype(np.float32)


def apply(layer: Any, rows: Any) -> Any:
    """(n, outputs) of (n, inputs) rows."""
    return rows @ layer[:-1] + layer[-1]


# --- stored ------------------------------------------------------------------------------------
def to_json(kind: str, facts: Mapping[str, Any], weights: Weights) -> str:
    """A model as one JSON text: its kind, its facts, and every array by name with its shape and its
    values as little-endian IEEE 754 singles in base64, row by row."""
    arrays = {
        name: {
            "shape": list(value.shape),
            "float32": base64.b64encode(np.ascontiguousarray(value, "<f4").tobytes()).decode(),
        }
        for name, value in sorted(weights.items())
    }
    return json.dumps({"format": 1, "kind": kind, **facts, "arrays": arrays})


def is_stored(text: str, kind: str) -> bool:
    """Whether a text is one that :func:`to_json` wrote for this kind, told by how it begins."""
    return text.startswith(json.dumps({"format": 1, "kind": kind})[:-1])


def from_json(text: str, kind: str) -> tuple[dict[str, Any], Weights]:
    """What :func:`to_json` wrote: facts and arrays; raises ``Fault`` for another kind or format."""
    facts = json.loads(text)
    if facts.get("format") != 1 or facts.get("kind") != kind:
        raise Fault(
            f"{kind}: the stored model is of kind {facts.get('kind')!r} and format "
            f"{facts.get('format')!r}; this code reads {kind!r} of format 1"
        )
    weights = {
        name: np.frombuffer(base64.b64decode(value["float32"]), "<f4").reshape(value["shape"])
        for name, value in facts.pop("arrays").items()
    }
    return facts, weights
