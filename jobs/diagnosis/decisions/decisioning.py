"""The step ``decisioning``: whether scores are probabilities, and whether they are acted on well.

Reads ``served`` and ``definitions``. Writes ``calibration_slices`` (a row per slice and bin of the
score), ``threshold_costs`` (a row per threshold) and ``decisioning_symptoms``. Scores that are no
probabilities (a release without a calibrated ranker), and too few, are not judged, which is told
as a warning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs.diagnosis import clusters, definitions, seen, symptoms
from jobs.diagnosis.decisions import calibration, thresholds
from jobs.diagnosis.decisions.calibration import ALL, Shown
from jobs.diagnosis.decisions.thresholds import Places
from jobs.diagnosis.definitions import Decision
from jobs.diagnosis.symptoms import Symptom
from jobs.night import Night
from jobs.params import check
from jobs.tables import TABLES

SERVED = [
    "period", "mature", "visitor", "surface", "region", "segment", "category", "tenure", "position",
    "shown_position", "score", "day",
]  # fmt: skip
KINDS = ("surface", "region", "segment", "category", "tenure")
LATELY = 3  # days: a threshold of the day before yesterday is seen in these
PROBABLE = 0.999  # of scores within 0 to 1: a stray one is not another scale


@dataclass(frozen=True)
class Params:
    """What is too little to judge by."""

    # Mature places that were shown in the current period, below which nothing is judged.
    fewest: int = 1_000

    def __post_init__(self) -> None:
        check(self.fewest >= 100, "fewest must be at least 100")


def run(night: Night, params: Params) -> None:
    """Stage the reliability curves, the thresholds and what is wrong with them."""
    agreed = definitions.read(night)
    label = "bought" if agreed.label.event == "purchase" else "clicked"
    periods = ds.field("period").isin(["current", "reference"])
    # What stands in where there is no list of one's own has the score of another scale.
    own = ds.field("score").is_valid() & ds.field("fallback").is_null()
    rows = night.arrow("served", [*SERVED, label], periods & own)
    reason = unfit(rows, params.fewest)
    curves: list[dict[str, Any]] = []
    steps: list[dict[str, Any]] = []
    found: list[Symptom] = []
    if reason:
        night.notes["decisioning"] = reason
        found = fallen(rows, params.fewest)
        ripe = pc.and_(pc.equal(rows["period"], "current"), rows["mature"])
        found += [symptoms.unjudged(
            "decisions_unjudged", "scores", int(pc.sum(ripe).as_py() or 0), params.fewest,
            f"Nothing says whether scores come true or are well acted on: {reason}.",
        )]  # fmt: skip
    else:
        columns = arrays(rows, label)
        curves, found = _curves(rows, columns)
        steps, more = _thresholds(columns, agreed.decision)
        found += more
    night.write(
        "calibration_slices", pa.Table.from_pylist(curves, TABLES["calibration_slices"].schema)
    )
    night.write("threshold_costs", pa.Table.from_pylist(steps, TABLES["threshold_costs"].schema))
    night.write("decisioning_symptoms", symptoms.table(found))


def unfit(rows: pa.Table, fewest: int) -> str:
    """Why scores cannot be judged; empty where they can."""
    score = rows["score"].to_numpy()
    if len(score) == 0:
        return "no place of the log has a score"
    if not _probable(score):
        return "scores are no probabilities: some lie outside 0 to 1, so that they are not judged"
    current = pc.equal(rows["period"], "current")
    if not score[current.to_numpy()].sum() > 0:
        return "current scores are no probabilities: all of them are 0, so that they are not judged"
    count = pc.sum(pc.and_(current, rows["mature"])).as_py()
    return f"only {count:,} current places are mature; not judged" if count < fewest else ""


def _probable(score: np.ndarray) -> bool:
    return bool(np.mean((score >= 0) & (score <= 1)) >= PROBABLE)


def fallen(rows: pa.Table, fewest: int) -> list[Symptom]:
    """The symptom of scores that were probabilities in the reference and are none now."""
    score, current = rows["score"].to_numpy(), pc.equal(rows["period"], "current").to_numpy()
    now, before = score[current], score[~current]
    if min(len(now), len(before)) < fewest or not _probable(before) or not before.sum() > 0:
        return []
    outside = float(np.mean((now < 0) | (now > 1)))
    if outside <= 1 - PROBABLE and now.sum() > 0:
        return []
    said = f"{outside:.1%} of them lie outside 0 to 1" if outside else "all of them are 0"
    return [Symptom(
        "miscalibrated", "scale", outside or 1.0, 1 - PROBABLE, max(1.0, 10 * (outside or 1.0)),
        len(now),
        f"Scores were probabilities in the weeks before, and are none now: {said}, of {len(now):,} "
        "places.",
    )]  # fmt: skip


@dataclass(frozen=True)
class Columns:
    """``served`` as arrays: (n,) each; ``age``: days before the newest one."""

    score: np.ndarray
    hit: np.ndarray
    current: np.ndarray
    mature: np.ndarray
    shown: np.ndarray
    place: np.ndarray
    first: np.ndarray
    group: np.ndarray
    age: np.ndarray


def arrays(rows: pa.Table, label: str) -> Columns:
    """The columns that all is computed from."""
    position = rows["position"]
    day = rows["day"].cast(pa.int32()).to_numpy()
    return Columns(
        score=np.clip(rows["score"].to_numpy(), 0.0, 1.0),
        hit=rows[label].to_numpy(),
        current=pc.equal(rows["period"], "current").to_numpy(),
        mature=rows["mature"].to_numpy(),
        shown=seen.shown(rows),
        place=pc.coalesce(rows["shown_position"], position).to_numpy(),
        first=pc.equal(position, pc.min(position)).to_numpy(),
        group=clusters.groups(rows["visitor"]),
        age=day.max() - day,
    )


# --- calibration -----------------------------------------------------------------------------
def _curves(rows: pa.Table, columns: Columns) -> tuple[list[dict[str, Any]], list[Symptom]]:
    kept = columns.shown & columns.mature
    every = Shown(*(
        getattr(columns, name)[kept] for name in ("score", "hit", "current", "place", "group")
    ))  # fmt: skip
    kept[kept] = alike = calibration.comparable(every)
    shown = every.of(alike)
    factor = calibration.place_factors(shown)
    borders = calibration.edges(shown.score)
    bins = len(borders) + 1
    inside = np.searchsorted(borders, shown.score, side="right").astype(np.int32)
    whole = calibration.sums(shown, inside, bins, factor)
    table = calibration.rows(ALL, [ALL], whole, bins)
    found = calibration.judge(whole)
    mask = pa.array(kept)
    for kind in KINDS:
        code, names = clusters.frequent(rows[kind].filter(mask))
        sums = calibration.sums(shown, code * bins + inside, len(names) * bins, factor)
        table += calibration.rows(kind, names, sums, bins)
        if not found:
            found += calibration.slices(kind, names, calibration.whole_slices(sums, bins))
    return table, [*found, *_elsewhere(every, alike)]


def _elsewhere(every: Shown, alike: np.ndarray) -> list[Symptom]:
    """The warning that most places are where the reference showed nothing."""
    of, left = int(every.current.sum()), int((every.current & ~alike).sum())
    if 2 * left <= of:
        return []
    return [symptoms.unjudged(
        "decisions_unjudged", "places", of - left, of,
        f"Of {of:,} places shown and scored {left:,} stand where the page showed nothing of ours "
        "in the weeks before, so that nothing says what they should have brought; the others are "
        "judged.",
    )]  # fmt: skip


# --- thresholds ------------------------------------------------------------------------------
def _thresholds(columns: Columns, decision: Decision) -> tuple[list[dict[str, Any]], list[Symptom]]:
    within = columns.place <= decision.capacity
    now = places(columns, columns.current & within)
    lately = places(columns, columns.current & within & (columns.age < LATELY))
    before = places(columns, ~columns.current & within) if (~columns.current).any() else None
    at = max(thresholds.used(now, before), thresholds.used(lately, before))
    set_at = decision.threshold or 0.0
    found = thresholds.costs(now, before, at, (set_at,))
    then = None
    if before is not None:
        then = thresholds.costs(before, None, thresholds.used(before, None),
                                tuple(found.thresholds))  # fmt: skip
    return thresholds.rows(found, decision), [
        *thresholds.judge(found, then, decision), *thresholds.ignored(now, before, set_at),
    ]  # fmt: skip


def places(columns: Columns, of: np.ndarray) -> Places:
    """The places that ``of``, (n,) bool, says."""
    return Places(
        score=columns.score[of],
        hit=columns.hit[of],
        shown=columns.shown[of],
        mature=columns.mature[of],
        group=columns.group[of],
        requests=int((of & columns.first).sum()),
    )
