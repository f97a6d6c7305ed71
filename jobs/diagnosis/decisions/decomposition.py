"""What part of a change of the whole lies in which slice, and whose rate fell beside the rest.

A ratio of the whole is the sum over slices of their share of the whole times their own ratio. Its
change divides into what the shares moved (mix) and what the slices' own ratios did (rate), each at
the mean of the other of both periods (Kitagawa, 1955).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jobs.diagnosis import clusters

# Rates of slices wander by themselves between a few weeks and the next: seasons, promotions, stock.
WANDER = 0.10  # of the logarithm of the rate; the spread that the slices of a kind show, if more
BELIEVED = 20  # slices that would say as much as WANDER does
FEWEST = 30.0  # outcomes in either period, below which a slice is not tested


@dataclass(frozen=True)
class Parts:
    """Contributions of slices to the change of a ratio: (cells,) each; ``mix`` and ``rate`` add up
    over the slices of one kind to the change."""

    before: np.ndarray
    after: np.ndarray
    mix: np.ndarray
    rate: np.ndarray

    @property
    def contribution(self) -> np.ndarray:
        return self.mix + self.rate


def contributions(
    top: np.ndarray, bottom: np.ndarray, top_before: np.ndarray, bottom_before: np.ndarray
) -> Parts:
    """Of the change of sum(top) / sum(bottom): (cells,) each, by slices that make up the whole."""
    ratio, ratio_before = _ratio(top, bottom), _ratio(top_before, bottom_before)
    # A slice that is new or gone has no rate of its own there: all of its change is mix.
    ratio = np.where(bottom > 0, ratio, ratio_before)
    ratio_before = np.where(bottom_before > 0, ratio_before, ratio)
    part, part_before = _part(bottom), _part(bottom_before)
    whole = (_whole(top, bottom) + _whole(top_before, bottom_before)) / 2
    mix = (part - part_before) * ((ratio + ratio_before) / 2 - whole)
    return Parts(ratio_before, ratio, mix, (ratio - ratio_before) * (part + part_before) / 2)


@dataclass(frozen=True)
class Sums:
    """Outcomes, and those to be expected at equal places, by cell and group (cells, groups), of
    the current period and of the reference."""

    hits: np.ndarray
    expected: np.ndarray
    hits_before: np.ndarray
    expected_before: np.ndarray


@dataclass(frozen=True)
class Beside:
    """Each slice's rate against the rest's, (cells,): ``ratio``: its change over theirs; ``z``: of
    its logarithm, below 0 for a loss; ``tested``: whether there was enough."""

    ratio: np.ndarray
    z: np.ndarray
    tested: np.ndarray


def beside_the_rest(sums: Sums) -> Beside:
    """Whose rate moved otherwise than that of all other slices together.

    A uniform fall moves no slice beside the rest. What counts as noise is the sampling of visitors
    and the wandering of slices' rates, the spread of all slices of this kind where that is more
    than usual (a random-effects variance, DerSimonian and Laird, 1986, from the median distance so
    that one slice's fault does not hide itself).
    """
    moved, error = clusters.jackknife(
        _against_rest, sums.hits, sums.expected, sums.hits_before, sums.expected_before
    )
    tested = (sums.hits_before.sum(axis=1) >= FEWEST) & (_to_come(sums) >= FEWEST)
    z = moved / np.sqrt(error**2 + _wander(moved[tested], error[tested]) ** 2)
    return Beside(np.exp(moved), z, tested)


def _wander(moved: np.ndarray, error: np.ndarray) -> float:
    """The spread of the changes beyond their errors, at least ``WANDER``; that is believed as if so
    many slices had shown it, for the spread of a few is mostly luck."""
    if len(moved) < 3:
        return WANDER
    spread = 1.4826 * np.median(np.abs(moved - np.median(moved)))
    beyond = max(float(spread**2 - np.median(error) ** 2), WANDER**2)
    return float(np.sqrt((BELIEVED * WANDER**2 + len(moved) * beyond) / (BELIEVED + len(moved))))


def _to_come(sums: Sums) -> np.ndarray:
    """(cells,) outcomes of now if the slice had kept its rate."""
    before = _ratio(sums.hits_before.sum(axis=1), sums.expected_before.sum(axis=1))
    return before * sums.expected.sum(axis=1)


def _against_rest(
    hits: np.ndarray, expected: np.ndarray, hits_before: np.ndarray, expected_before: np.ndarray
) -> np.ndarray:
    """The change of the logarithm of outcomes over expected ones, less that of all others."""
    return _change(hits, expected, hits_before, expected_before) - _change(
        *(one.sum(axis=0) - one for one in (hits, expected, hits_before, expected_before))
    )


def _change(
    hits: np.ndarray, expected: np.ndarray, hits_before: np.ndarray, expected_before: np.ndarray
) -> np.ndarray:
    # Half an outcome more on both sides: a slice without any has a finite, great loss.
    inside = (expected > 0) & (expected_before > 0)
    now = _ratio(hits + 0.5, np.where(inside, expected, 1.0))
    then = _ratio(hits_before + 0.5, np.where(inside, expected_before, 1.0))
    return np.where(inside, np.log(now / then), 0.0)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=whole > 0)


def _part(values: np.ndarray) -> np.ndarray:
    return values / max(values.sum(), 1e-12)


def _whole(top: np.ndarray, bottom: np.ndarray) -> float:
    return float(top.sum() / max(bottom.sum(), 1e-12))
