"""The step ``drift``: have inputs, the rate of outcomes or their relation moved?

Reads ``served_features`` and, for the place where the page showed an item, ``served``. Writes
``feature_drift`` (a row per input), ``outcome_drift`` (a row per measure and slice) and
``drift_symptoms``.

Three kinds are told apart (Moreno-Torres et al., 2012). Covariate drift: the inputs moved. Label
drift: at equal inputs all people buy at another rate. Concept drift: at equal inputs the order of
who buys moved. Outcomes are judged against a model of the reference on the served inputs and the
place shown, not against the served score, whose meaning changes with each release; the reference
is weighted to the current inputs, so that a change of who asks is neither of the other two. An
input that moved to where it was a year ago is season, and no drift, and so is a rate.

Rows whose features are not those whose hash was logged with them say what serving does, not what
people do: they are the replay's, and left out here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.diagnosis import definitions, symptoms
from jobs.diagnosis.parity import divergence, equal_inputs, mixes, samples
from jobs.diagnosis.parity.mixes import BY_CALENDAR, FEW_ROWS, MIX, number
from jobs.diagnosis.parity.samples import FAMILY, Sample
from jobs.diagnosis.symptoms import Symptom
from jobs.night import Night
from jobs.params import check
from jobs.tables import FEATURES, TABLES

UNCLEAR = 0.01  # a q-value above is chance
SEVERAL = 0.1  # the share of features that must have moved; one in 80 has its own reason
FAR = 5.0  # times its limit: fewer features that moved so far are told, as a warning


@dataclass(frozen=True)
class Params:
    """From where on a distribution has moved."""

    # The population stability index of an input; the trade calls 0.1 a small change.
    psi: float = 0.1
    # The index of a mix of people, surfaces or categories that is a change by itself.
    mix_psi: float = 0.2
    # The change of log-odds at equal inputs; 0.15 is 14 % fewer or 16 % more outcomes.
    rate: float = 0.15
    # The change of the recalibration slope, whose reference is about 1.
    slope: float = 0.15
    # The change of the AUC at equal inputs.
    auc: float = 0.03
    # How far slices' changes may lie apart, as a standard deviation of log ratios.
    between: float = 0.2

    def __post_init__(self) -> None:
        for name in ("psi", "mix_psi", "rate", "slope", "auc", "between"):
            check(getattr(self, name) > 0, f"{name} must be positive")


@divergence.ONE_THREAD
def run(night: Night, params: Params) -> None:
    """Stage how inputs and outcomes moved, and what of it is a symptom."""
    columns = ("day", "surface", "region", "segment", "tenure", "key_type", "category", "position",
               "score", "release_id", "feature_version", "feature_hash")  # fmt: skip
    every = samples.served(night, *columns)
    changed = samples.altered(every)
    night.notes["altered"] = int(changed.sum())
    every = every.of(~changed)
    periods = {
        one: every.of(pc.equal(every.table["period"], one).to_numpy())
        for one in ("reference", "current", "last_year")
    }
    before, after, year = periods["reference"], periods["current"], periods["last_year"]
    rows: list[dict[str, Any]] = []
    moved: list[dict[str, Any]] = []
    found: list[Symptom] = []
    if min(len(before), len(after)) < FEW_ROWS:
        night.notes["absent"] = "served rows with features in both periods"
        found.append(too_few(len(before), len(after), int(changed.sum())))
    else:
        rows = inputs(before, after, year, params)
        found += covariate(rows, params)
        found += of_other_names(before, after)
        ripe = before.of_labelled, after.of_labelled, year.of_labelled
        places = equal_inputs.places_shown(night, list(ripe))
        # What the page did not show had no outcome to have, and what a threshold that is set hides
        # now is not compared with what it would have hidden then.
        limit = definitions.read(night).decision.threshold
        told = [(place > 0) & above(one, limit) for one, place in zip(ripe, places, strict=True)]
        mature = [one.of(those) for one, those in zip(ripe, told, strict=True)]
        shown = [place[those] for place, those in zip(places, told, strict=True)]
        moved, symptom = equal_inputs.moved(mature[0], mature[1], mature[2], shown, params)
        night.notes["outcomes"] = [int(one.outcome.sum()) for one in mature[:2]]
        found += [symptom] if symptom else []
    night.write("feature_drift", pa.Table.from_pylist(rows, TABLES["feature_drift"].schema))
    night.write("outcome_drift", pa.Table.from_pylist(moved, TABLES["outcome_drift"].schema))
    night.write("drift_symptoms", symptoms.table(found))


def above(sample: Sample, threshold: float | None) -> np.ndarray:
    """(n,) bool: rows that a threshold shows; those without a score are shown whatever it is."""
    if threshold is None:
        return np.ones(len(sample), bool)
    shows = pc.greater_equal(sample.table["score"], threshold)
    return pc.fill_null(shows, True).to_numpy(zero_copy_only=False)


def too_few(before: int, after: int, changed: int) -> Symptom:
    """The warning that inputs cannot be compared."""
    least = min(before, after)
    why = f"; {changed:,} more are left out, served with other features than was logged"
    return Symptom(
        kind="not_compared", subject="features", effect=float(least), limit=float(FEW_ROWS),
        severity=1.0, rows=least, warning=True,
        sentence=(
            f"Nothing says whether inputs or outcomes moved: the log has features of {before:,} "
            f"places of the reference and of {after:,} of the current period, and {FEW_ROWS} of "
            f"each are needed{why if changed else ''}."
        ),
    )  # fmt: skip


# --- inputs ----------------------------------------------------------------------------------
def inputs(before: Sample, after: Sample, year: Sample, params: Params) -> list[dict[str, Any]]:
    """Rows of ``feature_drift``, the features and then the mixes."""
    rows = [feature(name, before, after, year) for name in FEATURES]
    rows += [mixes.mix(name, before, after, year) for name in MIX]
    q_values = divergence.adjusted(np.array([row["p_value"] for row in rows]))
    for row, q_value in zip(rows, q_values, strict=True):
        limit = params.mix_psi if row["feature"] in MIX else params.psi
        beyond = (row["psi"] or 0.0) >= limit or _gap(row) >= limit
        moved = beyond and q_value < UNCLEAR
        a_year_ago = row["psi_last_year"]
        # Half the way back to last year's place: the rest is the year.
        seasonal = moved and a_year_ago is not None and a_year_ago < row["psi"] / 2
        row |= {"q_value": float(q_value), "drifted": bool(moved and not seasonal),
                "seasonal": bool(seasonal), "typed": _words(moved, seasonal)}  # fmt: skip
    for row in rows[len(FEATURES) :]:
        name = row["feature"]
        names = mixes.words(mixes.only(name, after, before), mixes.only(name, before, after))
        row["typed"] = "; ".join(filter(None, (row["typed"], names))) or None
    return rows


def _gap(row: dict[str, Any]) -> float:
    return abs(float(row["missing_after"]) - float(row["missing_before"]))


def _words(moved: bool, seasonal: bool) -> str | None:
    if not moved:
        return None
    return "season: as a year ago" if seasonal else "covariate drift"


def feature(name: str, before: Sample, after: Sample, year: Sample) -> dict[str, Any]:
    """How one feature moved; its p-value is of its distribution or of being missing, twice the
    smaller one."""
    sides = [(one.values(name), one.weight) for one in (before, after)]
    (old, old_weight), (new, new_weight) = sides
    statistic, p_value = divergence.ks_test(
        old, new, old_weight, new_weight, before.clusters, after.clusters
    )
    gaps = [
        divergence.mean((~np.isfinite(values)).astype(float), one.weight, *one.clusters)
        for (values, _), one in zip(sides, (before, after), strict=True)
    ]
    areas = [
        divergence.auc(one.values(name), one.outcome, one.weight).value
        for one in (before.of_labelled, after.of_labelled)
    ]
    a_year_ago = (
        divergence.psi(year.values(name), new, year.weight, new_weight)
        if len(year) >= FEW_ROWS
        else np.nan
    )
    return {
        "feature": name, "rows_before": len(before), "rows_after": len(after),
        "missing_before": gaps[0].value, "missing_after": gaps[1].value,
        "psi": number(divergence.psi(old, new, old_weight, new_weight)),
        "ks": number(statistic),
        "p_value": min(1.0, 2 * min(p_value, gaps[1].minus(gaps[0]).p_value)),
        "shift": number(divergence.shift(old, new, old_weight, new_weight)),
        "psi_last_year": number(a_year_ago),
        "auc_before": number(areas[0]), "auc_after": number(areas[1]),
    }  # fmt: skip


# --- the symptom -----------------------------------------------------------------------------
def covariate(rows: list[dict[str, Any]], params: Params) -> list[Symptom]:
    """Covariate drift, where a tenth of the features moved, or a mix did so by itself; of what runs
    by the calendar, and of fewer features that moved far, a warning."""
    features = [row for row in rows if row["feature"] not in MIX]
    drifted = [row for row in features if row["drifted"]]
    mixed = [row for row in rows if row["feature"] in MIX and row["drifted"]]
    several = len(drifted) >= SEVERAL * len(features)
    found = [_covariate([row], params, warning=True) for row in mixed
             if row["feature"] == BY_CALENDAR]  # fmt: skip
    far = [row for row in drifted if _distance(row) >= FAR * _limit(row, params)]
    if far and not several:
        found.append(_covariate(far, params, len(features), far="far ", warning=True))
    moved = (drifted if several else []) + [row for row in mixed if row["feature"] != BY_CALENDAR]
    return [_covariate(moved, params, len(features)), *found] if moved else found


def of_other_names(before: Sample, after: Sample) -> list[Symptom]:
    """Warnings of names that one of the periods does not have."""
    return [
        one
        for name in MIX
        for one in mixes.warnings(
            name, mixes.only(name, after, before), mixes.only(name, before, after),
            (len(after), len(before)),
        )
    ]  # fmt: skip


def _covariate(
    moved: list[dict[str, Any]], params: Params, count: int = 0, *, far: str = "",
    warning: bool = False,
) -> Symptom:  # fmt: skip
    """The symptom of these rows; ``count``: of how many features, ``far``: how they moved."""
    drifted = [row for row in moved if row["feature"] not in MIX]
    mixed = [row for row in moved if row["feature"] in MIX]
    times = {row["feature"]: _distance(row) / _limit(row, params) for row in moved}
    first = max(moved, key=lambda row: times[row["feature"]])
    # The typical input that moved, not the farthest of eighty.
    severity = float(np.median(list(times.values()))) if drifted else times[first["feature"]]
    named = sorted(moved, key=lambda row: -times[row["feature"]])[:3]
    parts = [f"{len(drifted)} of {count} features"] if drifted else []
    parts += [f"the mix by {row['feature']}" for row in mixed]
    verb = "has" if not drifted and len(mixed) == 1 else "have"
    return Symptom(
        kind="covariate_drift",
        subject=FAMILY.get(first["feature"], first["feature"]),
        effect=_distance(first), limit=_limit(first, params), severity=severity,
        rows=first["rows_after"], p_value=float(first["p_value"]), warning=warning,
        sentence=(
            f"Of what the model sees, {' and '.join(parts)} {verb} moved {far}since the reference, "
            f"most of all {', '.join(_told(row) for row in named)}."
        ),
    )  # fmt: skip


def _distance(row: dict[str, Any]) -> float:
    return max(row["psi"] or 0.0, _gap(row))


def _limit(row: dict[str, Any], params: Params) -> float:
    return params.mix_psi if row["feature"] in MIX else params.psi


def _told(row: dict[str, Any]) -> str:
    by = f", {row['shift']:+.2f} standard deviations" if row["shift"] is not None else ""
    return f"{row['feature']} (stability index {row['psi'] or 0.0:.2f}{by})"
