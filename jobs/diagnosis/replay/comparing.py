"""Features as they were served beside the same features as published, value by value: how much
differs, and in which way, since a unit, a default and a lost join look unlike each other.

All arrays are (n_rows, n_features) float32 with NaN for what is missing, row i of one being the
same person, item and night as row i of the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jobs.diagnosis import units

# Values are float32 on both sides; a double in between may cost the last digits.
RELATIVE, ABSOLUTE = 1e-5, 1e-6
UNIT_WITHIN = 0.02
# Of the rows that differ, so many must differ in one way to call it by that way's name.
ONE_WAY = 0.8
LOST, DEFAULT, UNIT, OTHER = WAYS = ("lost", "default", "unit", "other")


@dataclass(frozen=True)
class Compared:
    """How one feature differs.

    ``known``: rows in which it was published or served; ``differs``, ``missing``: shares of them
    that were served otherwise, or without it. ``constant``, ``constant_share``: the value that most
    of those that differ have, and of how many of them. ``ratio``, ``ratio_share``: likewise of
    served over published. ``way``: one of ``WAYS``, None where nothing differs.
    """

    feature: str
    known: int
    differs: float
    missing: float
    constant: float | None
    constant_share: float
    ratio: float | None
    ratio_share: float
    way: str | None

    @property
    def share(self) -> float:
        """Of the rows in which it was published or served, those not served as published."""
        return self.differs + self.missing


def same(served: np.ndarray, published: np.ndarray) -> np.ndarray:
    """Where both have the same value or neither has one, of the shape of both."""
    close = np.isclose(served, published, rtol=RELATIVE, atol=ABSOLUTE)
    return close | (np.isnan(served) & np.isnan(published))


def compare(names: tuple[str, ...], served: np.ndarray, published: np.ndarray) -> list[Compared]:
    """Every feature on its own."""
    equal = same(served, published)
    return [
        _column(name, served[:, n], published[:, n], equal[:, n]) for n, name in enumerate(names)
    ]


def _column(name: str, served: np.ndarray, published: np.ndarray, equal: np.ndarray) -> Compared:
    was = ~np.isnan(published)
    known = int((was | ~np.isnan(served)).sum())
    lost = was & np.isnan(served)
    # A value where none was published is as wrong as another value.
    other = ~equal & ~lost
    whole = max(known, 1)
    differs, missing = float(other.sum() / whole), float(lost.sum() / whole)
    constant, constant_share = _most(served[other])
    had = other & was & (published != 0)
    ratio, ratio_share = _unit(served[had] / published[had])
    ratio_share *= float(had.sum() / max(other.sum(), 1))
    way = None
    if differs or missing:
        way = OTHER
        if missing > differs:
            way = LOST
        # A constant over varied values is no unit; a unit over a constant feature could be both.
        elif constant_share >= ONE_WAY and _varied(published[other]):
            way = DEFAULT
        elif ratio is not None and ratio_share >= ONE_WAY:
            way = UNIT
        elif constant_share >= ONE_WAY:
            way = DEFAULT
    return Compared(
        name, known, differs, missing, constant, constant_share, ratio, ratio_share, way
    )


def _most(values: np.ndarray) -> tuple[float | None, float]:
    """The most frequent value, and of which share."""
    if not len(values):
        return None, 0.0
    found, counts = np.unique(values, return_counts=True)
    return float(found[counts.argmax()]), float(counts.max() / len(values))


def _varied(values: np.ndarray) -> bool:
    return len(np.unique(values[~np.isnan(values)])) > 1


def _unit(ratios: np.ndarray) -> tuple[float | None, float]:
    """The unit, or its inverse, by which most rows differ, and the share that does; else None."""
    ratios = ratios[np.isfinite(ratios)]
    if not len(ratios):
        return None, 0.0
    middle = float(np.median(ratios))
    for unit in units.RATIOS:
        if abs(middle / unit - 1) <= UNIT_WITHIN:
            return unit, float((np.abs(ratios / unit - 1) <= UNIT_WITHIN).mean())
    return None, 0.0
