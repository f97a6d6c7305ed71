"""Uncertainty of sums over rows of which one person has many, and many looks at once.

Rows of one person resemble each other, so that they are no independent trials. Visitors are drawn
into random groups; what varies between the groups is the noise of the whole, whatever the rows of a
visitor have in common (random groups: Wolter, Introduction to Variance Estimation, 1985; leaving
one group out at a time: Kott, The delete-a-group jackknife, 2001).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import t as student

# With 100 groups Student's t has 99 degrees of freedom: tails close to normal ones.
GROUPS = 100
MIXER = 2_654_435_761  # Knuth's multiplier: neighbouring codes fall into groups far apart
NONE, OTHER = "none", "other"  # how a missing text, and all rare ones together, are called
MOST = 30  # values of a column that are looked at one by one


def codes(values: pa.ChunkedArray | pa.Array) -> tuple[np.ndarray, list[str]]:
    """(n,) int32 codes of equal texts and the texts, ascending, so that a code does not hang on the
    order of the rows; a missing text is ``none``."""
    column = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
    coded = _encoded(pc.fill_null(column, NONE))
    texts = coded.dictionary
    order = np.argsort(np.array(texts.to_pylist(), object), kind="stable")
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return place[coded.indices.to_numpy()], texts.take(pa.array(order)).to_pylist()


def frequent(values: pa.ChunkedArray | pa.Array, most: int = MOST) -> tuple[np.ndarray, list[str]]:
    """As :func:`codes`, with all but the ``most`` frequent texts as one, ``other``, the last."""
    code, names = codes(values)
    if len(names) <= most:
        return code, names
    size = np.bincount(code, minlength=len(names))
    kept = np.sort(np.argsort(-size, kind="stable")[:most])
    place = np.full(len(names), most, np.int32)
    place[kept] = np.arange(most, dtype=np.int32)
    return place[code], [*(names[one] for one in kept), OTHER]


def groups(visitor: pa.ChunkedArray | pa.Array, count: int = GROUPS) -> np.ndarray:
    """(n,) int16 the random group of each row's visitor, from 0; the same rows give the same."""
    column = visitor if isinstance(visitor, pa.ChunkedArray) else pa.chunked_array([visitor])
    coded = _encoded(column)
    mixed = (np.arange(len(coded.dictionary), dtype=np.uint64) * np.uint64(MIXER)) >> np.uint64(7)
    group = (mixed % np.uint64(count)).astype(np.int16)
    return group[coded.indices.to_numpy()] if len(group) else np.zeros(0, np.int16)


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    # Encoded before it is put together: 2 GiB of texts do not fit into one array of texts.
    coded = column.dictionary_encode().unify_dictionaries().combine_chunks()
    return coded.chunk(0) if isinstance(coded, pa.ChunkedArray) else coded


def by_group(
    cell: np.ndarray, group: np.ndarray, weight: np.ndarray | None, cells: int, count: int = GROUPS
) -> np.ndarray:
    """(cells, count) float64 sums of ``weight`` (rows, without one) per cell and group.

    ``cell``, ``group``: (n,) integers; rows of a negative cell are left out.
    """
    place = cell.astype(np.int64) * count + group
    if len(cell) and cell.min() < 0:
        inside = cell >= 0
        place = place[inside]
        weight = weight[inside] if weight is not None else None
    sums = np.bincount(place, weight, minlength=cells * count)
    return sums.astype(np.float64).reshape(cells, count)


def jackknife(
    statistic: Callable[..., np.ndarray], *sums: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A statistic of totals and its standard error, leaving out one group at a time.

    ``sums``: each (..., groups); ``statistic`` takes their totals over the last axis, each (...),
    and also with a further last axis of the groups.
    """
    totals = [one.sum(axis=-1, keepdims=True) for one in sums]
    whole = statistic(*(one[..., 0] for one in totals))
    count = sums[0].shape[-1]
    # What a group holds is scaled up as if the others stood in for it.
    scale = count / (count - 1)
    others = ((one - part) * scale for one, part in zip(totals, sums, strict=True))
    left = statistic(*others)
    spread = left - left.mean(axis=-1, keepdims=True)
    return whole, np.sqrt((count - 1) / count * (spread**2).sum(axis=-1))


def p_values(z: np.ndarray, count: int = GROUPS, sides: int = 2) -> np.ndarray:
    """P-values of estimates over their standard errors; one-sided ones ask whether it is above."""
    tail = student.sf(np.abs(z) if sides == 2 else z, count - 1)
    return np.minimum(sides * tail, 1.0)


def reach(level: float, looks: int = 1, count: int = GROUPS) -> float:
    """Standard errors on each side of an interval that ``looks`` of them hold at once
    (Bonferroni)."""
    return float(student.isf((1 - level) / 2 / max(looks, 1), count - 1))


def holm(p: np.ndarray) -> np.ndarray:
    """P-values adjusted so that one false finding among all is as rare as stated (Holm, 1979)."""
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)) if len(p) else p
    found = np.empty(len(p))
    found[order] = np.minimum(raised, 1.0)
    return found


def discovery(p: np.ndarray) -> np.ndarray:
    """P-values adjusted for the share of false ones among the findings (Benjamini and Hochberg,
    1995)."""
    order = np.argsort(p, kind="stable")[::-1]
    size = len(p)
    lowered = np.minimum.accumulate(p[order] * size / np.arange(size, 0, -1)) if size else p
    found = np.empty(size)
    found[order] = np.minimum(lowered, 1.0)
    return found
