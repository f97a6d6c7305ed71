"""The slices of a log: what each contributes to the change of the KPI, and which lose beside the
rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from jobs.diagnosis import clusters
from jobs.diagnosis.decisions import decomposition
from jobs.diagnosis.decisions.decomposition import Sums
from jobs.diagnosis.symptoms import Symptom

RANKED = 5
# A slice that keeps more of its rate than this, beside the rest, is within what assortments and
# seasons do to single slices.
KEPT = 0.75
SURE = 1e-3  # the share of false ones among the slices named
PLACES = 50


@dataclass(frozen=True)
class Column:
    """A way to divide rows: (n,) ``code`` into ``names``."""

    name: str
    code: np.ndarray
    names: list[str]


@dataclass(frozen=True)
class Measure:
    """The KPI: (n,) ``top`` and ``bottom``, the ratio of whose sums it is."""

    name: str
    top: np.ndarray
    bottom: np.ndarray


@dataclass(frozen=True)
class Rows:
    """Places or visits of two periods: (n,) each; ``place``: from 1, 0 for visits."""

    current: np.ndarray
    group: np.ndarray
    columns: list[Column]
    measure: Measure
    hit: np.ndarray
    place: np.ndarray


@dataclass(frozen=True)
class Loss:
    """A slice; see the table ``slice_losses``. ``values``: its columns and their values."""

    values: tuple[tuple[str, str], ...]
    measure: str
    rows: int
    before: float
    after: float
    mix: float
    rate: float
    share: float
    ratio: float | None = None
    z: float | None = None
    p_value: float | None = None
    q_value: float | None = None
    rank: int = 0

    @property
    def kinds(self) -> str:
        return " x ".join(name for name, _ in self.values)

    @property
    def slice(self) -> str:
        return " / ".join(value for _, value in self.values)

    def row(self) -> dict[str, object]:
        return {
            "kinds": self.kinds, "slice": self.slice, "measure": self.measure, "rows": self.rows,
            "before": self.before, "after": self.after, "mix": self.mix, "rate": self.rate,
            "contribution": self.mix + self.rate, "share": self.share, "ratio": self.ratio,
            "p_value": self.p_value, "q_value": self.q_value, "rank": self.rank,
        }  # fmt: skip


def losses(places: Rows, visits: Rows | None, fewest: int) -> list[Loss]:
    """Every slice of at least ``fewest`` rows in both periods, by the visits where these have its
    columns, else by the places; whether it loses beside the rest is told by the places."""
    expected = at_equal_places(places)
    by_visit: dict[tuple[tuple[str, str], ...], Loss] = {}
    if visits is not None:
        for kind in kinds(visits.columns):
            sums = _sums(visits, kind, None)
            by_visit |= {one.values: one for one in _contributions(visits, sums, fewest)}
    result = []
    for kind in kinds(places.columns):
        sums = _sums(places, kind, expected)
        tested = _beside(sums)
        for one in _contributions(places, sums, fewest):
            told = by_visit.get(one.values, one)
            ratio, z, enough = tested[one.values]
            result.append(replace(told, ratio=ratio, z=z) if enough else told)
    return _ranked(_adjusted(result))


def kinds(columns: list[Column]) -> list[tuple[Column, ...]]:
    """Every column and every pair of them."""
    return [*((one,) for one in columns), *combinations(columns, 2)]


def at_equal_places(rows: Rows) -> np.ndarray:
    """(n,) outcomes to be expected of each row by its place alone, as the reference had them."""
    place = np.clip(rows.place, 0, PLACES)
    then = ~rows.current
    size = np.bincount(place[then], minlength=PLACES + 1)
    hits = np.bincount(place[then], rows.hit[then], minlength=PLACES + 1)
    # A place that the reference hardly had takes the mean of all.
    mean = hits.sum() / max(size.sum(), 1)
    return ((hits + mean * 100) / (size + 100))[place]


def found(table: list[Loss]) -> list[Symptom]:
    """The slices that lose by themselves, the clearest first; none that shares a value with one."""
    lost = [
        one for one in table
        if one.ratio is not None and one.q_value is not None and one.z is not None
        and one.ratio <= KEPT and one.q_value <= SURE
    ]  # fmt: skip
    named: list[Loss] = []
    for one in sorted(lost, key=lambda loss: (loss.z, loss.kinds, loss.slice)):
        taken = {value for other in named for value in other.values}
        if not taken & set(one.values) and len(named) < RANKED:
            named.append(one)
    return [_symptom(one) for one in named]


def _symptom(one: Loss) -> Symptom:
    assert one.ratio is not None
    where = ", ".join(f"{name} {value}" for name, value in one.values)
    return Symptom(
        "losing_slice", where, 1 / max(one.ratio, 1e-3), 1 / KEPT,
        float(np.log(max(one.ratio, 1e-3)) / np.log(KEPT)), one.rows,
        f"In {where} outcomes fell to {one.ratio:.0%} of what they were, measured by what the rest "
        f"of the shop did; {one.measure} is {one.after:.4g} there, and was {one.before:.4g}.",
        one.q_value,
    )  # fmt: skip


# --- one kind of slices ----------------------------------------------------------------------
@dataclass(frozen=True)
class _Sums:
    """Sums by slice: ``named``: what each is; (2, cells, groups) each, the current period first;
    ``expected`` and ``hits`` only where they are asked for."""

    named: list[tuple[tuple[str, str], ...]]
    rows: np.ndarray
    top: np.ndarray
    bottom: np.ndarray
    hits: np.ndarray | None
    expected: np.ndarray | None


def _sums(rows: Rows, kind: tuple[Column, ...], expected: np.ndarray | None) -> _Sums:
    cell, named = _cells(kind)
    size = len(named)
    # One place a row for all that is summed: the period, the slice and the group.
    place = (np.where(rows.current, 0, size) + cell).astype(np.int64) * clusters.GROUPS + rows.group

    def total(weight: np.ndarray | None) -> np.ndarray:
        sums = np.bincount(place, weight, minlength=2 * size * clusters.GROUPS)
        return sums.astype(np.float64).reshape(2, size, clusters.GROUPS)

    measure, number = rows.measure, total(None)
    return _Sums(
        named=named,
        rows=number,
        top=total(measure.top),
        bottom=total(measure.bottom),
        hits=total(rows.hit) if expected is not None else None,
        expected=total(expected) if expected is not None else None,
    )


def _cells(kind: tuple[Column, ...]) -> tuple[np.ndarray, list[tuple[tuple[str, str], ...]]]:
    """(n,) the cell of each row and what each cell is."""
    first, *others = kind
    if not others:
        return first.code, [((first.name, value),) for value in first.names]
    (second,) = others
    named: list[tuple[tuple[str, str], ...]] = [
        ((first.name, one), (second.name, two)) for one in first.names for two in second.names
    ]
    return first.code * np.int32(len(second.names)) + second.code, named


def _contributions(rows: Rows, sums: _Sums, fewest: int) -> Iterator[Loss]:
    (top, top_before), (bottom, bottom_before) = sums.top.sum(axis=2), sums.bottom.sum(axis=2)
    parts = decomposition.contributions(top, bottom, top_before, bottom_before)
    before = top_before.sum() / max(bottom_before.sum(), 1e-12)
    size, size_before = sums.rows.sum(axis=2)
    for n in np.flatnonzero((size >= fewest) & (size_before >= fewest)).tolist():
        yield Loss(
            sums.named[n], rows.measure.name, int(size[n]), float(parts.before[n]),
            float(parts.after[n]), float(parts.mix[n]), float(parts.rate[n]),
            float(parts.contribution[n] / before) if before > 0 else 0.0,
        )  # fmt: skip


def _beside(sums: _Sums) -> dict[tuple[tuple[str, str], ...], tuple[float, float, bool]]:
    """By slice: ratio, z and whether there was enough to test."""
    assert sums.hits is not None
    assert sums.expected is not None
    (hits, hits_before), (expected, expected_before) = sums.hits, sums.expected
    result = decomposition.beside_the_rest(Sums(hits, expected, hits_before, expected_before))
    return {
        one: (float(result.ratio[n]), float(result.z[n]), bool(result.tested[n]))
        for n, one in enumerate(sums.named)
    }


def _adjusted(table: list[Loss]) -> list[Loss]:
    """With p-values of a loss, and those adjusted for all slices that were tested."""
    tested = [n for n, one in enumerate(table) if one.z is not None]
    p = clusters.p_values(-np.array([table[n].z for n in tested], float), sides=1)
    result = list(table)
    for n, value, q in zip(tested, p, clusters.discovery(p), strict=True):
        result[n] = replace(table[n], p_value=float(value), q_value=float(q))
    return result


def _ranked(table: list[Loss]) -> list[Loss]:
    """With the ranks of the five that contribute most to a loss, none of which shares a value with
    one before it."""
    result = list(table)
    taken: set[tuple[str, str]] = set()
    rank = 0
    for n in sorted(range(len(table)), key=lambda n: (table[n].share, table[n].kinds)):
        one = table[n]
        if rank < RANKED and one.share < 0 and not taken & set(one.values):
            rank += 1
            taken |= set(one.values)
            result[n] = replace(one, rank=rank)
    return result
