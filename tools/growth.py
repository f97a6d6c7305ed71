"""How a measure grows with the size of what is measured: columns of the benchmark's tables."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

MEANING = (
    "growth is the ratio of times over the ratio of sizes (1 grows as the data, less grows slower)"
)


def heads(sizes: Sequence[int]) -> list[str]:
    """A heading for each size but the last."""
    named = [f"{size / 1e6:g} M" for size in sizes]
    return [f"growth {a} → {b}" for a, b in pairwise(named)]


def cells(spent: Sequence[float], sizes: Sequence[int]) -> list[str]:
    """By how much more each size took than the one before it, as a share of how much larger it is;
    nothing where one took no time."""
    return [
        f"{(spent[n + 1] / spent[n]) / (sizes[n + 1] / sizes[n]):.2f}" if spent[n] > 0 else ""
        for n in range(len(spent) - 1)
    ]
