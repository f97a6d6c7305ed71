"""Whether probabilities come true, by slice and bin of the score, against how they used to.

Scores promise a purchase in a horizon; what is observed is an outcome of the answer, and the rarer
the lower the place. So that level says little: what counts is how the ratio of outcomes to scores
moved since the reference, at equal places (calibration in the large and the reliability curve:
Cox, 1958; DeGroot and Fienberg, 1983; expected calibration error: Naeini et al., 2015).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jobs.diagnosis import clusters, symptoms
from jobs.diagnosis.symptoms import Symptom

BINS = 10
ALL = "all"
PLACES = 50  # places told apart; those below are one
FACTOR = 1.5  # times as many or few outcomes as the reference's scores would have brought
GROSS = 2.0  # times off: no difference of horizons and places explains it
CURVE = 0.4  # of all outcomes: how far the curve, bin by bin, is from the reference's
SURE = 1e-3
FEWEST = 50.0  # outcomes to be expected before a ratio is judged
HALF = 0.5  # outcomes added, so that none at all has a logarithm (Haldane, 1956)


@dataclass(frozen=True)
class Shown:
    """Mature places that were shown and scored: (n,) each. ``place``: from 1, as shown; ``group``:
    the random group of the visitor."""

    score: np.ndarray
    hit: np.ndarray
    current: np.ndarray
    place: np.ndarray
    group: np.ndarray

    def of(self, chosen: np.ndarray) -> Shown:
        """The places where ``chosen``, (n,) bool, holds."""
        return Shown(*(getattr(self, name)[chosen] for name in Shown.__dataclass_fields__))


@dataclass(frozen=True)
class Sums:
    """Per cell and group (cells, groups), of the current period and of the reference: rows, scores,
    scores as the reference's places made them come true, and outcomes."""

    rows: np.ndarray
    score: np.ndarray
    adjusted: np.ndarray
    hits: np.ndarray
    rows_before: np.ndarray
    adjusted_before: np.ndarray
    hits_before: np.ndarray


def edges(score: np.ndarray) -> np.ndarray:
    """Up to ``BINS`` - 1 inner borders between bins of about as many scores each."""
    if len(score) == 0:
        return np.zeros(0)
    step = max(1, len(score) // 1_000_000)  # a million scores fix a quantile well enough
    return np.unique(np.quantile(score[::step], np.arange(1, BINS) / BINS))


def comparable(shown: Shown) -> np.ndarray:
    """(n,) whether the reference showed anything at a row's place: of other places it says nothing
    about what to expect. All rows, where there is no reference."""
    place = np.clip(shown.place, 0, PLACES)
    seen = np.zeros(PLACES + 1, bool)
    seen[place[~shown.current]] = True
    return seen[place] if seen.any() else np.ones(len(place), bool)


def place_factors(shown: Shown) -> np.ndarray:
    """(PLACES + 1,) outcomes over scores by place in the reference; of all places together that
    have too few of their own; 1 where all have too few."""
    then = ~shown.current
    place = np.clip(shown.place[then], 0, PLACES)
    scores = np.bincount(place, shown.score[then], minlength=PLACES + 1)
    hits = np.bincount(place, shown.hit[then], minlength=PLACES + 1)
    known = (hits >= FEWEST) & (scores > 0)
    rest = np.ones(PLACES + 1, bool) if hits[~known].sum() < FEWEST else ~known
    enough = hits[rest].sum() >= FEWEST and scores[rest].sum() > 0
    factor = hits[rest].sum() / scores[rest].sum() if enough else 1.0
    return np.divide(hits, scores, out=np.full(PLACES + 1, factor), where=known)


def sums(shown: Shown, cell: np.ndarray, cells: int, factor: np.ndarray) -> Sums:
    """Sums by cell; ``cell``: (n,) integers; ``factor``: of :func:`place_factors`."""
    adjusted = shown.score * factor[np.clip(shown.place, 0, PLACES)]
    now, then = np.where(shown.current, cell, -1), np.where(shown.current, -1, cell)

    def total(of: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
        return clusters.by_group(of, shown.group, weight, cells)

    hit = shown.hit.astype(float)
    return Sums(
        total(now, None), total(now, shown.score), total(now, adjusted), total(now, hit),
        total(then, None), total(then, adjusted), total(then, hit),
    )  # fmt: skip


def rows(kind: str, names: list[str], found: Sums, bins: int) -> list[dict[str, object]]:
    """Rows of ``calibration_slices`` of one kind of slice; cells are slice times bin."""
    share, error = clusters.jackknife(_ratio, found.hits, found.rows)
    number = found.rows.sum(axis=1)
    predicted = _ratio(found.score.sum(axis=1), number)
    before = _ratio(found.hits_before.sum(axis=1), found.rows_before.sum(axis=1))
    reach = clusters.reach(0.95) * error
    result = [
        _row(kind, names[cell // bins], cell % bins, number[cell], predicted[cell], share[cell],
             reach[cell], before[cell], abs(share[cell] - predicted[cell]))
        for cell in np.flatnonzero(number).tolist()
    ]  # fmt: skip
    whole = whole_slices(found, bins)
    share, error = clusters.jackknife(_ratio, whole.hits, whole.rows)
    size = whole.rows.sum(axis=1)
    mean = _ratio(whole.score.sum(axis=1), size)
    before = _ratio(whole.hits_before.sum(axis=1), whole.rows_before.sum(axis=1))
    off = np.abs(found.hits.sum(axis=1) - found.score.sum(axis=1)).reshape(-1, bins).sum(axis=1)
    reach = clusters.reach(0.95) * error
    return result + [
        _row(kind, names[n], -1, size[n], mean[n], share[n], reach[n], before[n], off[n] / size[n])
        for n in np.flatnonzero(size)
    ]


def whole_slices(found: Sums, bins: int) -> Sums:
    """The sums of all bins of each slice."""
    return Sums(*(
        getattr(found, name).reshape(-1, bins, clusters.GROUPS).sum(axis=1)
        for name in Sums.__dataclass_fields__
    ))  # fmt: skip


def judge(found: Sums) -> list[Symptom]:
    """Symptoms of all places together; ``found``: by bins."""
    whole = whole_slices(found, len(found.rows))
    expected = float(_expected(whole).sum())
    least = float(min(whole.hits_before.sum(), expected))
    if least < FEWEST:
        return [symptoms.unjudged(
            "decisions_unjudged", "outcomes", int(least), int(FEWEST),
            f"Nothing says whether scores come true: the weeks before brought "
            f"{whole.hits_before.sum():,.0f} outcomes, and by them {expected:,.0f} were to be "
            f"expected; {FEWEST:.0f} of each are needed.",
        )]  # fmt: skip
    moved, error = clusters.jackknife(
        change, whole.hits, whole.adjusted, whole.hits_before, whole.adjusted_before
    )
    p = float(clusters.p_values(moved / np.maximum(error, 1e-12))[0])
    off = float(abs(moved[0]))
    hits, size = int(whole.hits.sum()), int(whole.rows.sum())
    if off >= np.log(FACTOR) and p <= SURE:
        brought = f"{hits:,} outcomes" if hits else f"no outcome at all on {size:,} places"
        return [Symptom(
            "miscalibrated", ALL, float(np.exp(off)), FACTOR, off / float(np.log(FACTOR)), size,
            f"Scores brought {brought} where, by how they came true in the weeks before at "
            f"equal places, {expected:,.0f} were to be expected: {hits / expected:.2f} times.", p,
        )]  # fmt: skip
    return [*_curve(found, size), *_level(whole, size)]


def change(
    hits: np.ndarray, adjusted: np.ndarray, hits_before: np.ndarray, adjusted_before: np.ndarray
) -> np.ndarray:
    """How the logarithm of outcomes over scores moved; 0 where scores of a period are empty."""
    inside = (adjusted > 0) & (adjusted_before > 0)
    ratio = np.ones(np.shape(inside))
    above, below = (hits + HALF) * adjusted_before, adjusted * (hits_before + HALF)
    np.divide(above, below, out=ratio, where=inside)
    return np.log(ratio)


def slices(kind: str, names: list[str], found: Sums) -> list[Symptom]:
    """Slices whose scores come true much otherwise than before: told, and no more, for what makes
    a slice lose is looked for by the step ``slices``."""
    moved, error = clusters.jackknife(
        change, found.hits, found.adjusted, found.hits_before, found.adjusted_before
    )
    p = clusters.holm(clusters.p_values(moved / np.maximum(error, 1e-12)))
    expected = _expected(found)
    enough = (expected >= FEWEST) & (found.hits_before.sum(axis=1) >= FEWEST)
    clear = enough & (np.abs(moved) >= np.log(GROSS)) & (p <= SURE)
    return [
        Symptom(
            "miscalibrated", f"{kind} {names[n]}", float(np.exp(abs(moved[n]))), GROSS,
            float(abs(moved[n]) / np.log(GROSS)), int(found.rows[n].sum()),
            f"In {kind} {names[n]} scores brought {found.hits[n].sum():,.0f} outcomes, and by the "
            f"weeks before {expected[n]:,.0f} were to be expected.", float(p[n]), warning=True,
        )
        for n in np.flatnonzero(clear)
    ]  # fmt: skip


def _curve(found: Sums, size: int) -> list[Symptom]:
    """Whether the curve bent, though about as many outcomes came."""
    expected = _expected(found)
    enough = (expected >= FEWEST / BINS) & (found.hits_before.sum(axis=1) >= FEWEST / BINS)
    moved, error = clusters.jackknife(
        change, found.hits, found.adjusted, found.hits_before, found.adjusted_before
    )
    if not enough.any():
        return []
    # A bin without an outcome shows no spread of its own: the error of a count is the least.
    least = 1 / np.sqrt(found.hits.sum(axis=1) + HALF)
    p = clusters.holm(clusters.p_values((moved / np.maximum(error, least))[enough]))
    weight = expected[enough] / expected[enough].sum()
    off = (weight * np.abs(np.expm1(moved[enough]))).sum()
    # So far a curve is off by chance alone: the mean distance of a normal error.
    chance = (weight * error[enough]).sum() * np.sqrt(2 / np.pi)
    beyond = float(np.sqrt(max(off**2 - chance**2, 0.0)))
    if beyond < CURVE or p.min() > SURE:
        return []
    return [Symptom(
        "miscalibrated", "curve", beyond, CURVE, beyond / CURVE, size,
        f"Bin by bin of the score, outcomes are {beyond:.0%} off what the same scores brought in "
        "the weeks before: some scores promise too much, others too little.", float(p.min()),
    )]  # fmt: skip


def _level(whole: Sums, size: int) -> list[Symptom]:
    """Grossly off, and so before: a warning, for it explains no change."""
    if not (whole.hits.sum() > 0 and whole.score.sum() > 0):
        return []
    level, error = clusters.jackknife(_logarithm, whole.hits, whole.score)
    off = float(level[0])
    least = abs(off) - clusters.reach(0.999) * float(error[0])
    if not least >= np.log(GROSS):  # also where the error is not known
        return []
    times = f"{np.exp(off):.2f} times what the scores promise"
    return [Symptom(
        "miscalibrated", "level", float(np.exp(abs(off))), GROSS, abs(off) / float(np.log(GROSS)),
        size, f"Outcomes are {times}, and were so in the weeks before: the scores order places but "
        "are no probabilities of what is counted.", warning=True,
    )]  # fmt: skip


def _logarithm(hits: np.ndarray, scores: np.ndarray) -> np.ndarray:
    return np.log(_ratio(hits + HALF, scores))


def _expected(found: Sums) -> np.ndarray:
    """(cells,) outcomes that the reference's calibration leads to expect."""
    return found.adjusted.sum(axis=1) * _ratio(
        found.hits_before.sum(axis=1), found.adjusted_before.sum(axis=1), 0.0
    )


def _ratio(part: np.ndarray, whole: np.ndarray, empty: float = np.nan) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), empty), where=whole > 0)


def _row(
    kind: str, name: str, number: int, size: float, predicted: float, observed: float,
    reach: float, before: float, error: float,
) -> dict[str, object]:  # fmt: skip
    return {
        "slice_kind": kind, "slice": name, "bin": int(number), "rows": int(size),
        "predicted": float(predicted), "observed": float(observed),
        "low": float(max(0.0, observed - reach)), "high": float(min(1.0, observed + reach)),
        "before": float(before) if np.isfinite(before) else None, "error": float(error),
    }  # fmt: skip
