"""Ways to make a list, held against each other over the same people night after night.

A row is a night and a way: ``night`` from 1, ``name``, and of the people judged then, (n_people,)
each, ``person`` ids, ``acted`` (who did something on the day before) and measures.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa

SEED, RESAMPLES = 20171201, 1_000


def compared(
    rows: list[dict[str, Any]], name: str, other: str, measure: str = "ndcg",
    acted: bool | None = None, night: int | None = None,
) -> tuple[float, float, float]:  # fmt: skip
    """By how much ``name`` is above ``other``, as a share of it, with its interval of 95 %.

    Paired: people are drawn with all their nights. ``acted``: of those alone who did, or did not
    do, something on the day before; ``night``: of one night alone. NaN where the other finds
    nothing.
    """
    mine, theirs = ([row for row in rows if row["name"] == each] for each in (name, other))
    person, ours, base = [], [], []
    for one, two in zip(mine, theirs, strict=True):
        if night in (None, one["night"]):
            chosen = np.ones(len(one["acted"]), bool) if acted is None else one["acted"] == acted
            person += one["person"].filter(pa.array(chosen)).to_pylist()
            ours.append(one[measure][chosen])
            base.append(two[measure][chosen])
    _, code = np.unique(np.array(person), return_inverse=True)
    won = np.bincount(code, np.concatenate(ours) - np.concatenate(base))
    had = np.bincount(code, np.concatenate(base))
    if not had.any():
        return math.nan, math.nan, math.nan
    generator = np.random.default_rng(SEED)
    drawn = np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        who = generator.integers(0, len(won), len(won))
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn[number] = won[who].sum() / had[who].sum()
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(won.sum() / had.sum()), float(low), float(high)


def told(found: tuple[float, float, float]) -> str:
    """A share with its interval, in words."""
    share, low, high = found
    if math.isnan(share):
        return "nothing found"
    return f"{share:+z.2%} ({low:+z.2%} to {high:+z.2%})"


def by_night(
    rows: list[dict[str, Any]], name: str, other: str, measure: str = "ndcg"
) -> tuple[list[float], list[float], list[float], list[float]]:
    """The nights, and in percent the difference of each with the ends of its interval."""
    nights = sorted({row["night"] for row in rows})
    found = [compared(rows, name, other, measure, night=night) for night in nights]
    middles, lows, highs = (100 * np.array(found)).T.tolist()
    return nights, middles, lows, highs
