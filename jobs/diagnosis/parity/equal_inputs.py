"""Whether outcomes moved at equal inputs, and for all alike: the second half of ``drift``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from scipy import special

from jobs import io
from jobs.diagnosis import seen
from jobs.diagnosis.log import logged_features
from jobs.diagnosis.parity import divergence, relations
from jobs.diagnosis.parity.divergence import Estimate
from jobs.diagnosis.parity.samples import Sample
from jobs.diagnosis.symptoms import Symptom
from jobs.night import Night
from jobs.tables import FEATURES

if TYPE_CHECKING:
    from jobs.diagnosis.parity.drift import Params

FEW_OUTCOMES = 50  # of a period, below which no relation can be judged
# Without a year ago, a change of all alike within so many limits may be the season: the weeks
# before Christmas sell half as much again.
MAYBE_SEASON = 2.0
FEW_EXPECTED = 10.0  # outcomes of a slice, below which it is not told apart
# All tests of a run together may be wrong on so many days. The windows of neighbouring days
# overlap, so that thirty days in a row are some three independent looks.
CLEAR = 0.01
DECILES = 10
STABLE = ("segment", "region", "tenure", "key_type", "surface")
# Goods have their own seasons, which move their rates without a change of what inputs mean.
CATEGORY, CATEGORY_ALLOWANCE = "category", 2.0
A_YEAR_AGO = "rate_a_year_ago"
RATE, SLOPE, AUC = "rate_at_equal_inputs", "slope_at_equal_inputs", "auc_at_equal_inputs"
# Without weights there is more to see it by; that inputs moved is then ruled out by the other.
AS_SEEN = {"slope_as_seen": SLOPE, "auc_as_seen": AUC}
BETWEEN = "between_slices"
ALL = "all"


@dataclass(frozen=True)
class Judged:
    """A period's mature rows under the model of the reference.

    ``logit``: (n,) of the reference's model, without the row's own person; ``weight``: (n,), in the
    reference times the density ratio, so that both periods have the current inputs.
    """

    sample: Sample
    logit: np.ndarray
    weight: np.ndarray


def moved(
    before: Sample, after: Sample, year: Sample, shown: list[np.ndarray], params: Params
) -> tuple[list[dict[str, Any]], Symptom | None]:
    """Rows of ``outcome_drift``, and label or concept drift if there is one. The base rate alone,
    and a warning, where a period has too few outcomes; ``shown``: the place on the page of each
    period's rows."""
    found = [_base_rate(before, after)] if min(len(before), len(after)) else []
    if not (enough(before) and enough(after)):
        return found, too_few(before, after)
    old, new, then = judged(before, after, year, shown)
    kept = divergence.kish(old.weight) / divergence.kish(before.weight)
    tests = [*_whole(old, new, params), *_slices(old, new, params)]
    found += [_row("reference_like_current", before, after, before=1.0, after=kept),
              *_of_score(before, after), *tests]  # fmt: skip
    seasonal = None
    if then is not None:
        found.append(_a_year_ago(then, new))
        # Half the way back to last year's place, as for inputs: the rest is the year.
        change = next(row["change"] for row in tests if row["measure"] == RATE)
        seasonal = abs(found[-1]["change"]) < abs(change) / 2
    return found, named(tests, after, seasonal)


def enough(one: Sample) -> bool:
    """Whether there are outcomes, and people who made them, to judge a relation by."""
    return int(one.outcome.sum()) >= FEW_OUTCOMES and relations.foldable(
        one.outcome, one.clusters[0]
    )


def too_few(before: Sample, after: Sample) -> Symptom:
    """The warning that outcomes cannot be compared."""
    counts = [int(one.outcome.sum()) for one in (before, after)]
    people = [len(np.unique(one.clusters[0][one.outcome])) for one in (before, after)]
    return Symptom(
        kind="not_compared", subject="outcomes", effect=float(min(counts)),
        limit=float(FEW_OUTCOMES), severity=1.0, rows=min(len(before), len(after)), warning=True,
        sentence=(
            f"Nothing says whether outcomes moved at equal inputs: of {len(before):,} mature "
            f"places of the reference {counts[0]:,} have a {before.event}, by {people[0]:,} "
            f"visitors, and of {len(after):,} of the current period {counts[1]:,}, by "
            f"{people[1]:,}; {FEW_OUTCOMES} of each, by many visitors, are needed."
        ),
    )  # fmt: skip


def judged(
    before: Sample, after: Sample, year: Sample, shown: list[np.ndarray]
) -> tuple[Judged, Judged, Judged | None]:
    """The periods under one model of the reference and the current inputs; None for a year ago
    where that has too few outcomes."""
    raw = [_columns(one, place) for one, place in zip((before, after, year), shown, strict=True)]
    standard = relations.Standard.of(raw[0])
    old, new = (standard.apply(one) for one in raw[:2])
    people = before.clusters[0], after.clusters[0]
    model = relations.OutOfFold.fit(old, before.outcome, before.weight, people[0])

    def like_current(one: Sample, inputs: np.ndarray) -> Judged:
        who = one.clusters[0]
        ratio = relations.density_ratio(inputs, new, one.weight, after.weight, who, people[1])
        return Judged(one, model.logits(inputs, who), one.weight * ratio)

    return (
        like_current(before, old),
        Judged(after, model.logits(new, people[1]), after.weight),
        like_current(year, standard.apply(raw[2])) if enough(year) else None,
    )


def _columns(sample: Sample, shown: np.ndarray) -> np.ndarray:
    """(n, d) the features and the place shown, whose effect on outcomes is not the features'."""
    values = [sample.values(name) for name in FEATURES]
    return np.column_stack([*values, shown.astype(float), (shown == 1).astype(float)])


def places_shown(night: Night, parts: list[Sample]) -> list[np.ndarray]:
    """(n,) the place on the page of each row of each part: that of the answer on a surface that
    does not log it, and 0 where the page did not show the item."""
    ids = pc.unique(
        pa.chunked_array([c for one in parts for c in one.table["request_id"].chunks], pa.string())
    )
    names = ["request_id", "position", "shown_position", "surface", "period"]
    folder = night.published("served").table("served")
    rows = io.read_arrow(folder, names, ds.field("request_id").isin(ids))
    place = pc.coalesce(rows["shown_position"], rows["position"]).to_numpy()
    place = np.where(seen.shown(rows), place, 0)
    known = logged_features.keys(rows)
    return [
        place[pc.index_in(logged_features.keys(one.table), value_set=known).to_numpy()]
        if len(one)
        else place[:0]
        for one in parts
    ]


# --- rows of the table -----------------------------------------------------------------------
def _row(measure: str, old: Sample, new: Sample, **columns: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("before", "after", "change", "low", "high", "p_value", "limit"))
    return {
        "measure": measure, "slice_kind": ALL, "slice": ALL, **empty,
        "rows_before": len(old), "rows_after": len(new), "moved": False, **columns,
    }  # fmt: skip


def _change(
    measure: str, old: Sample, new: Sample, before: Estimate, after: Estimate,
    limit: float | None = None, **columns: Any,
) -> dict[str, Any]:  # fmt: skip
    """A row of a measure estimated in both periods."""
    change = after.minus(before)
    low, high = change.interval()
    return _row(
        measure, old, new, before=before.value, after=after.value, change=change.value,
        low=low, high=high, p_value=change.p_value, limit=limit, **columns,
    )  # fmt: skip


def _base_rate(before: Sample, after: Sample) -> dict[str, Any]:
    rates = [
        divergence.mean(one.outcome.astype(float), one.weight, *one.clusters)
        for one in (before, after)
    ]
    return _change("base_rate", before, after, rates[0], rates[1])


def _whole(old: Judged, new: Judged, params: Params) -> list[dict[str, Any]]:
    """Rate, slope, AUC and loss at equal inputs; slope and AUC as seen, too."""
    # Where the information lies, so that intercept and slope are told apart.
    chance = special.expit(new.logit)
    centre = float(np.average(new.logit, weights=new.weight * chance * (1 - chance)))
    sides = old.sample, new.sample
    as_seen = replace(old, weight=old.sample.weight)
    fits = [
        relations.recalibrated(
            one.logit, one.sample.outcome, one.weight, centre, *one.sample.clusters
        )
        for one in (old, new, as_seen)
    ]
    areas = [
        divergence.auc(one.logit, one.sample.outcome, one.weight, *one.sample.clusters)
        for one in (old, new, as_seen)
    ]
    slope_as_seen, auc_as_seen = AS_SEEN
    return [
        _change(RATE, *sides, fits[0].offset, fits[1].offset, params.rate),
        _change(SLOPE, *sides, fits[0].slope, fits[1].slope, params.slope),
        _change(AUC, *sides, areas[0], areas[1], params.auc),
        _change(slope_as_seen, *sides, fits[2].slope, fits[1].slope, params.slope),
        _change(auc_as_seen, *sides, areas[2], areas[1], params.auc),
        _change("loss_at_equal_inputs", *sides, fits[0].loss, fits[1].loss),
    ]


def _a_year_ago(then: Judged, new: Judged) -> dict[str, Any]:
    """The rate at equal inputs held against that of a year ago instead of the reference's."""
    offsets = [
        relations.recalibrated(
            one.logit, one.sample.outcome, one.weight, float(one.logit.mean()),
            *one.sample.clusters,
        ).offset
        for one in (then, new)
    ]  # fmt: skip
    return _change(A_YEAR_AGO, then.sample, new.sample, offsets[0], offsets[1])


def _slices(old: Judged, new: Judged, params: Params) -> list[dict[str, Any]]:
    """Outcomes over expected ones in slices that both periods have, and how far apart they moved:
    first of the deciles of the model's logit."""
    edges = divergence.quantiles(new.logit, new.weight, tuple(np.arange(1, DECILES) / DECILES))
    names = np.array([f"{n:02d}" for n in range(1, DECILES + 1)])
    deciles = [names[np.searchsorted(edges, one.logit)] for one in (old, new)]
    found = _sliced("decile", deciles[0], deciles[1], old, new, params.between)
    for kind in (*STABLE, CATEGORY):
        labels = [one.sample.table[kind].to_numpy() for one in (old, new)]
        limit = params.between * (CATEGORY_ALLOWANCE if kind == CATEGORY else 1.0)
        found += _sliced(kind, labels[0], labels[1], old, new, limit)
    return found


def _sliced(
    kind: str, before: np.ndarray, after: np.ndarray, old: Judged, new: Judged, limit: float
) -> list[dict[str, Any]]:
    sides = old.sample, new.sample
    rows, changes = [], []
    for name in sorted(set(before) & set(after)):
        ratios = [_ratio(one, of == name) for one, of in ((old, before), (new, after))]
        if ratios[0] is None or ratios[1] is None:
            continue
        counts = {"rows_before": int((before == name).sum()),
                  "rows_after": int((after == name).sum())}  # fmt: skip
        row = _change("ratio", *sides, ratios[0], ratios[1], slice_kind=kind, slice=name)
        rows.append(row | counts)
        changes.append(ratios[1].minus(ratios[0]))
    if len(changes) < 2:
        return []
    apart, p_value = relations.heterogeneity(changes)
    between = _row(BETWEEN, *sides, slice_kind=kind, change=apart, p_value=p_value, limit=limit)
    return [between, *rows]


def _ratio(one: Judged, chosen: np.ndarray) -> Estimate | None:
    """Outcomes over expected ones of a slice; None where too few are expected."""
    weight, label = one.weight[chosen], one.sample.outcome[chosen]
    expected = special.expit(one.logit[chosen])
    if not len(weight) or weight @ expected * divergence.kish(weight) < FEW_EXPECTED * weight.sum():
        return None
    clusters = [codes[chosen] for codes in one.sample.clusters]
    return relations.log_ratio(expected, label, weight, *clusters)


def _of_score(before: Sample, after: Sample) -> list[dict[str, Any]]:
    """The served score's relation to outcomes, as evidence: each release has its own score."""
    has = [pc.is_valid(one.table["score"]).to_numpy() for one in (before, after)]
    old, new = (one.of(known) for one, known in zip((before, after), has, strict=True))
    if any(not one.outcome.any() or one.outcome.all() for one in (old, new)):
        return []
    logits = _as_logits([one.table["score"].to_numpy() for one in (old, new)])
    centre = float(np.mean(logits[1]))
    fits = [
        relations.recalibrated(logit, one.outcome, one.weight, centre, *one.clusters)
        for logit, one in zip(logits, (old, new), strict=True)
    ]
    areas = [
        divergence.auc(logit, one.outcome, one.weight, *one.clusters)
        for logit, one in zip(logits, (old, new), strict=True)
    ]
    return [
        _change("auc_of_score", old, new, areas[0], areas[1]),
        _change("intercept_of_score", old, new, fits[0].intercept, fits[1].intercept),
        _change("slope_of_score", old, new, fits[0].slope, fits[1].slope),
    ]


def _as_logits(scores: list[np.ndarray]) -> list[np.ndarray]:
    """The logit of probabilities; any other score in standard deviations of the first part."""
    if all(((score > 0) & (score < 1)).all() for score in scores):
        return [special.logit(score) for score in scores]
    spread = float(scores[0].std()) or 1.0
    return [(score - scores[0].mean()) / spread for score in scores]


# --- the symptom -----------------------------------------------------------------------------
def named(tests: list[dict[str, Any]], after: Sample, seasonal: bool | None) -> Symptom | None:
    """The kind of drift that the tests show; marks those that moved.

    The rate moves with a relation, so that label drift is only what has neither slope, order nor
    slices moved. What moved as seen must have moved as far at equal inputs, however unclear that
    is there. It is a warning where it is ``seasonal``, or may be, None being unknown.
    """
    by = {row["measure"]: row for row in tests}
    relation = [row for row in tests if row["measure"] in (SLOPE, AUC, BETWEEN, *AS_SEEN)]
    for row in (*relation, by[RATE]):
        clear = row["p_value"] < CLEAR / (len(relation) + 1)
        row["moved"] = clear and all(
            abs(one["change"]) >= row["limit"] and one["change"] * row["change"] > 0
            for one in (row, by[AS_SEEN[row["measure"]]] if row["measure"] in AS_SEEN else row)
        )
    turned = [row for row in relation if row["moved"]]
    first = max(turned or [by[RATE]], key=lambda row: abs(row["change"]) / row["limit"])
    if not first["moved"]:
        return None
    near = abs(first["change"]) < MAYBE_SEASON * first["limit"]
    warning = not turned and (near if seasonal is None else seasonal)
    sentence = (
        _relation_moved(first, tests, after.event) if turned
        else _rate_moved(by[RATE], by[AUC], after.event, _of_season(seasonal, warning))
    )  # fmt: skip
    return Symptom(
        kind="concept_drift" if turned else "label_drift",
        subject=first["slice_kind"] if first["measure"] == BETWEEN else first["measure"],
        effect=first["change"], limit=first["limit"],
        severity=abs(first["change"]) / first["limit"], rows=len(after), p_value=first["p_value"],
        sentence=sentence, warning=warning,
    )  # fmt: skip


def _of_season(seasonal: bool | None, warning: bool) -> str:
    if seasonal is None:
        return "; there is no year before, and so much may be the season" if warning else ""
    return "; it is as a year ago: season" if seasonal else "; a year ago it was not so"


def _rate_moved(rate: dict[str, Any], auc: dict[str, Any], event: str, season: str) -> str:
    low, middle, high = (np.exp(rate[name]) for name in ("low", "change", "high"))
    return (
        f"At equal inputs the odds of a {event} are {middle:.2f} times what they were in the "
        f"reference (95 % interval {low:.2f} to {high:.2f}), in all slices alike; the order of "
        f"outcomes held (AUC {auc['before']:.2f} then, {auc['after']:.2f} now){season}."
    )


def _relation_moved(first: dict[str, Any], tests: list[dict[str, Any]], event: str) -> str:
    if first["measure"] != BETWEEN:
        measure = AS_SEEN.get(first["measure"], first["measure"])
        what = {SLOPE: "slope of outcomes on what was expected", AUC: "AUC"}[measure]
        (one,) = (row for row in tests if row["measure"] == measure)
        return (
            f"At equal inputs the {what} went from {one['before']:.2f} in the reference to "
            f"{one['after']:.2f}: the same inputs tell less, or something else, about outcomes."
        )
    kind = first["slice_kind"]
    slices = [row for row in tests if row["measure"] == "ratio" and row["slice_kind"] == kind]
    least = min(slices, key=lambda row: row["change"])
    most = max(slices, key=lambda row: row["change"])
    return (
        f"At equal inputs {event}s moved apart by {kind}: in {least['slice']!r} they are "
        f"{np.exp(least['change']):.2f} times what they were against the reference, in "
        f"{most['slice']!r} {np.exp(most['change']):.2f} times."
    )
