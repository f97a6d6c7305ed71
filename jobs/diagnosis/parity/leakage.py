"""The step ``leakage``: did a feature know what had not happened yet?

Reads ``served``, ``served_features`` and ``items``, and of the newest night that served
``examples``, ``features`` and what examples are made from. Writes ``leakage_probes`` (a row per
probe and feature or night), ``exposure_bias`` (what the log could see: position and selection) and
``leakage_symptoms``.

That features are as of the night is looked at in the rows: no answer before its night, no feature
stamped later than its night. That those of training are is proved for some people, feature by
feature, in ``made_from_past``: made again from what had been received before the cut, they are the
same. What nobody can make again would shine in the probes:

``future_only``: how well a feature alone tells purchases at its own cut; nothing honest is near 1.
``training_served``: by how much less it tells them in what was served, where no future is at hand,
beyond what other features lose too, since a list is selected by what tells.
``shuffled_time``: at the newest cut, how much better it tells its own cut's outcomes than those of
the cut before for the same pairs. What knows only the past tells the past at least as well. Alone
it convicts nobody; with it a feature that tells more than any of another family convicts itself by
any clear loss in serving.
``only_bought``: the share of purchases that have a value which nothing else has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs import io
from jobs.diagnosis import symptoms
from jobs.diagnosis.parity import divergence, log_bias, of_the_past, samples
from jobs.diagnosis.parity.divergence import Estimate
from jobs.diagnosis.parity.log_bias import Exposure
from jobs.diagnosis.parity.of_the_past import Traced
from jobs.diagnosis.parity.samples import FAMILY, Sample
from jobs.diagnosis.symptoms import Symptom
from jobs.night import Night
from jobs.params import check
from jobs.tables import FEATURES, TABLES

FEW_OUTCOMES = 50  # purchases of a side, below which no probe is read
CLEAR = 4.0  # standard errors; some 90 features are looked at each day
TELLS = 0.65  # AUC in training, below which a leak would do nothing
# Of its strength in training, what a feature that was nothing but a leak may keep in serving.
KEPT = 0.35
# AUC above all features of other families, from where on an honest feature may be one that leaked
# besides, and keep its honest part.
APART = 0.05
# Times the usual scatter of features around what they lose, for a loss to be unlike theirs.
UNLIKE = 4.0
PROBES = ("future_only", "training_served", "shuffled_time", "only_bought", "before_its_night",
          "stamped_later", "made_from_past")  # fmt: skip


@dataclass(frozen=True)
class Params:
    """From where on a probe shines."""

    # Rows of training that are probed.
    sampled: int = 100_000
    # The AUC that no honest feature has by itself.
    too_good: float = 0.98
    # AUC lost in serving beyond what other features lose.
    lost: float = 0.12
    # AUC by which a feature tells its own cut better than the one before. It convicts nobody
    # alone: an honest interest of yesterday does not tell last month.
    better_than_past: float = 0.2
    # The share of purchases with a value of a feature that no other row has.
    only_bought: float = 0.2
    # The share of rows served before their night, or of features stamped after it.
    out_of_time: float = 0.001
    # People of the newest cut whose rows of training are made again from what was known at it.
    rebuilt_people: int = 50
    # The share of their rows in which a feature is made otherwise.
    made_otherwise: float = 0.005

    def __post_init__(self) -> None:
        check(1_000 <= self.sampled <= 1_000_000, "sampled must be 1,000 to 1,000,000")
        check(0.5 < self.too_good < 1, "too_good must be in (0.5, 1)")
        check(0 <= self.rebuilt_people <= 10_000, "rebuilt_people must be 0 to 10,000")
        for name in ("lost", "better_than_past", "only_bought", "out_of_time", "made_otherwise"):
            check(0 < getattr(self, name) < 1, f"{name} must be in (0, 1)")


@divergence.ONE_THREAD
def run(night: Night, params: Params) -> None:
    """Stage the probes, what the log could see, and what leaked."""
    served = samples.recent(samples.served(night, "night"))
    labels = samples.nights(served.table)
    probes = out_of_time(night, labels, params)
    learned = samples.newest_with(night, "examples", labels)
    candidates = pa.array([], pa.string())
    unseen = []
    if learned is None:
        unseen = [_unseen("no night that served has kept its examples", 0)]
    else:
        training = samples.examples(night, learned, params.sampled, samples.NEWEST)
        candidates = pc.unique(training.table["item_id"])
        if served.event != samples.PURCHASE:
            night.notes["not_judged"] = "training_served: training has no clicks"
        probes += probed(training, served.of_labelled, params)
        probes += shuffled_time(night, learned, training, params)
        unseen = too_few(training, served.of_labelled)
    traced = of_the_past.trace(night, learned, params.rebuilt_people)
    probes += made_from_past(traced, params)
    items = night.arrow("items", ["item_id", "available"])
    catalogue = items["item_id"].filter(items["available"]).combine_chunks()
    telling = log_bias.telling(_current(night, ["surface", "shown_position"]))
    seen = Exposure.of(_current(night, log_bias.COLUMNS), telling)
    bias = log_bias.rows_of(seen, catalogue, candidates)
    night.write("leakage_probes", pa.Table.from_pylist(probes, TABLES["leakage_probes"].schema))
    night.write("exposure_bias", pa.Table.from_pylist(bias, TABLES["exposure_bias"].schema))
    told = [*leaked(probes, traced), *of_the_past.unproved(traced), *unseen]
    night.write("leakage_symptoms", symptoms.table(told))


def too_few(training: Sample, served: Sample) -> list[Symptom]:
    """The warning that a side has too few purchases for its probes."""
    sides = {"the newest cut of training": training}
    if served.event == training.event:
        sides["what was served and is mature"] = served
    for name, side in sides.items():
        bought = int(side.outcome.sum())
        if bought < FEW_OUTCOMES:
            return [_unseen(f"{name} has {bought:,} purchases", bought)]
    return []


def _unseen(why: str, bought: int) -> Symptom:
    return symptoms.unjudged(
        "not_compared", "leaks", bought, FEW_OUTCOMES,
        f"Not every probe for leaks was made: {why}; {FEW_OUTCOMES} are needed.",
    )  # fmt: skip


def _current(night: Night, columns: list[str]) -> Any:
    """The current period of ``served``, a part at a time."""
    folder = night.published("served").table("served")
    found = ds.dataset([str(path) for path in io.parquet_files(folder)], format="parquet")
    return samples.chunks(found, columns, ds.field("period") == "current")


# --- point in time ---------------------------------------------------------------------------
def out_of_time(night: Night, labels: list[str], params: Params) -> list[dict[str, Any]]:
    """Per night, the share of its answers that were given before it was; and of the newest night
    the lake has, the share of its features that are stamped later than the night."""
    rows: dict[str, int] = {}
    early: dict[str, int] = {}
    for batch in _current(night, ["night", "request_time"]):
        known = batch.filter(pc.is_valid(batch["night"]))
        for name in pc.unique(known["night"]).to_pylist():
            times = known.filter(pc.equal(known["night"], name))["request_time"]
            before = pc.less(times, pa.scalar(io.parse_as_of(name), times.type))
            rows[name] = rows.get(name, 0) + len(times)
            early[name] = early.get(name, 0) + (pc.sum(before).as_py() or 0)
    limit = params.out_of_time
    found = [
        _share("before_its_night", name, early[name], count, limit)
        for name, count in sorted(rows.items())
    ]
    listed = samples.newest_with(night, "recommendations", labels)
    if listed:
        folder = night.earlier("recommendations", listed).table("features")
        stamps = io.read_arrow(folder, ["event_timestamp"])["event_timestamp"]
        late = pc.sum(pc.greater(stamps, pa.scalar(io.parse_as_of(listed), stamps.type))).as_py()
        if len(stamps):
            found.append(_share("stamped_later", listed, late or 0, len(stamps), limit))
    return found


def _share(probe: str, name: str, hits: int, rows: int, limit: float) -> dict[str, Any]:
    return _row(probe, name, hits / rows, None, None, limit, rows, hits / rows > limit)


# --- probes ----------------------------------------------------------------------------------
def probed(training: Sample, served: Sample, params: Params) -> list[dict[str, Any]]:
    """The probes of every feature at the newest cut, and against what was served and matured if
    that has the same outcome."""
    if int(training.outcome.sum()) < FEW_OUTCOMES:
        return []
    size = len(training)
    learned = {name: area(training, name) for name in FEATURES}
    found = []
    for name, tells in learned.items():
        strength = _strength(tells)
        low, high = strength.interval()
        shines = strength.value > params.too_good and low > params.too_good - 0.02
        found.append(_row("future_only", name, strength.value, low, high, params.too_good, size,
                          shines))  # fmt: skip
        share = only_bought(training.values(name), training.outcome)
        found.append(_row("only_bought", name, share, None, None, params.only_bought, size,
                          share > params.only_bought))  # fmt: skip
    if served.event == training.event and int(served.outcome.sum()) >= FEW_OUTCOMES:
        here = {name: area(served, name) for name in FEATURES}
        found += training_served(learned, here, len(served), params)
    return found


def area(sample: Sample, feature: str) -> Estimate:
    return divergence.auc(sample.values(feature), sample.outcome, sample.weight, *sample.clusters)


def _strength(tells: Estimate) -> Estimate:
    """An AUC whatever its direction: from 0.5 to 1."""
    return replace(tells, value=0.5 + abs(tells.value - 0.5))


def only_bought(values: np.ndarray, bought: np.ndarray) -> float:
    """The largest share of purchases that one value has which no other row has; missing is a value.

    A value of few purchases is chance where values hardly repeat: it must be of FEW_OUTCOMES.
    """
    _, code = np.unique(np.where(np.isfinite(values), values, -np.inf), return_inverse=True)
    hits, misses = np.bincount(code, bought), np.bincount(code, ~bought)
    alone = hits[(misses == 0) & (hits >= FEW_OUTCOMES)]
    return float(alone.max(initial=0.0) / max(bought.sum(), 1))


def training_served(
    learned: dict[str, Estimate], here: dict[str, Estimate], rows: int, params: Params
) -> list[dict[str, Any]]:
    """By how much less each feature tells in serving than in training, beyond the others' loss.

    Lists are selected by what tells, which takes a share of each feature's strength there. The
    usual share is the median over the features that tell in training; what is lost beyond it is
    unlike the others where it is several times their median deviation.
    """
    names = [name for name in FEATURES if np.isfinite(learned[name].value + here[name].value)]
    tells = np.array([abs(learned[name].value - 0.5) for name in names])
    sign = np.array([np.sign(learned[name].value - 0.5) for name in names])
    kept = sign * np.array([here[name].value - 0.5 for name in names])
    error = np.array([np.hypot(learned[name].error, here[name].error) for name in names])
    telling = tells >= 0.05
    usual = float(np.median(kept[telling] / tells[telling])) if telling.any() else 1.0
    beyond = usual * tells - kept
    others = np.abs(beyond[telling] - np.median(beyond[telling])) if telling.any() else np.zeros(1)
    scatter = 1.4826 * float(np.median(others))
    shines = (
        (tells >= TELLS - 0.5)
        & (beyond >= max(params.lost, UNLIKE * scatter))
        & ((kept <= KEPT * tells) | (tells >= _best_of_others(names, tells) + APART))
        & (beyond > CLEAR * error)
    )
    low, high = beyond - 1.96 * error, beyond + 1.96 * error
    return [
        _row("training_served", name, beyond[n], float(low[n]), float(high[n]), params.lost, rows,
             bool(shines[n]))
        for n, name in enumerate(names)
    ]  # fmt: skip


def _best_of_others(names: list[str], tells: np.ndarray) -> np.ndarray:
    """(n,) the largest of ``tells`` among the features of other families."""
    families = np.array([FAMILY[name] for name in names])
    return np.array([tells[families != one].max(initial=0.0) for one in families])


def shuffled_time(
    night: Night, label: str, training: Sample, params: Params
) -> list[dict[str, Any]]:
    """For pairs of the newest cut that the cut before has too: how much better a feature tells its
    own cut's outcomes than the earlier ones. Evidence beside ``training_served``, never alone."""
    if not len(training):
        return []
    folder = night.earlier("examples", label).table("examples")
    newest = training.table["as_of"][0].as_py()
    cuts = [one for one in pc.unique(io.read_arrow(folder, ["as_of"])["as_of"]).to_pylist()
            if one < newest]  # fmt: skip
    if not cuts:
        return []
    columns = ["person_id", "item_id", "bought"]
    earlier = io.read_arrow(folder, columns, ds.field("as_of") == max(cuts))
    place = pc.index_in(samples.pairs(training.table), value_set=samples.pairs(earlier))
    has = pc.is_valid(place).to_numpy(zero_copy_only=False)
    both = training.of(has)
    past = earlier["bought"].take(place.filter(pa.array(has))).to_numpy()
    if min(int(both.outcome.sum()), int(past.sum())) < FEW_OUTCOMES:
        return []
    then = Sample(both.table, both.weight, both.clusters, past, both.labelled)
    found = []
    for name in FEATURES:
        own, before = _strength(area(both, name)), _strength(area(then, name))
        change = own.minus(before)
        low, high = change.interval()
        shines = change.value >= params.better_than_past and change.value > CLEAR * change.error
        found.append(_row("shuffled_time", name, change.value, low, high, params.better_than_past,
                          len(both), shines))  # fmt: skip
    return found


def made_from_past(traced: Traced, params: Params) -> list[dict[str, Any]]:
    """Of each feature the share of rows of training that what was known at their cut does not
    give."""
    limit = params.made_otherwise
    return [
        _row("made_from_past", name, share, None, None, limit, traced.rows,
             traced.leaks(name, limit))
        for name, share in traced.share.items()
    ]  # fmt: skip


def _row(
    probe: str, feature: str, value: float, low: float | None, high: float | None, limit: float,
    rows: int, shines: bool,
) -> dict[str, Any]:  # fmt: skip
    return {
        "probe": probe, "feature": feature, "value": float(value), "low": low, "high": high,
        "limit": limit, "rows": rows, "shines": bool(shines),
    }  # fmt: skip


# --- the symptom -----------------------------------------------------------------------------
SAID = {
    "future_only": "tells purchases by itself with an AUC of {value:.3f} at its own cut, "
    "which nothing of the past does",
    "training_served": "tells purchases in training, and in what was served {value:.2f} of AUC "
    "less than features that tell as much",
    "only_bought": "has a value that {percent:.0f} % of purchases have in training and nothing "
    "else does",
    "made_from_past": "is not what had been received before the cut gives, in {percent:.1f} % of "
    "{rows:,} rows of training: {instance}",
    "before_its_night": "is named by {percent:.2f} % of its answers before it was made",
    "stamped_later": "has {percent:.2f} % of its features stamped later than itself",
}  # fmt: skip
OF_NIGHTS = ("before_its_night", "stamped_later")


def _together(probes: list[dict[str, Any]]) -> Iterator[Symptom]:
    """Features of which three probes say a part each, none of them enough by itself."""
    by = {(row["probe"], row["feature"]): row for row in probes}
    tells = {name: row["value"] for (probe, name), row in by.items() if probe == "future_only"}
    for (probe, name), late in by.items():
        lost = by.get(("training_served", name))
        if probe != "shuffled_time" or not late["shines"] or lost is None:
            continue
        error = (lost["high"] - lost["low"]) / (2 * 1.96)
        others = max(
            (value for other, value in tells.items() if FAMILY[other] != FAMILY[name]), default=0.5
        )
        if tells[name] >= others + APART and lost["value"] > CLEAR * error:
            yield Symptom(
                kind="leaked_feature", subject=name, effect=late["value"], limit=late["limit"],
                severity=late["value"] / late["limit"], rows=late["rows"],
                sentence=(
                    f"{name} tells purchases of its own cut with an AUC of {tells[name]:.3f} in "
                    f"training, features of no other kind more than {others:.3f}; it tells those "
                    f"of the cut before by {late['value']:.2f} less, and those of what was served "
                    f"by {lost['value']:.2f} less than features that tell as much."
                ),
            )  # fmt: skip


def leaked(probes: list[dict[str, Any]], traced: Traced | None = None) -> list[Symptom]:
    """A leaked feature, or night, for each that a probe shines on, by the brightest of them;
    ``traced``: what ``made_from_past`` rests on, and what else may be why: then it is a warning."""
    traced = traced or Traced()
    found = {one.subject: one for one in _together(probes)}
    late = {row["feature"] for row in probes if row["probe"] == "shuffled_time" and row["shines"]}
    for row in probes:
        if not row["shines"] or row["probe"] not in SAID:
            continue
        name = row["feature"]
        subject = f"the night {name}" if row["probe"] in OF_NIGHTS else name
        said = SAID[row["probe"]].format(
            value=row["value"], percent=100 * row["value"], rows=row["rows"],
            instance=traced.instance.get(name, ""),
        )  # fmt: skip
        more = ", and it does not tell the outcomes of the cut before" if name in late else ""
        doubts = traced.doubts if row["probe"] == "made_from_past" else None
        more += f"; {doubts}, which may be why" if doubts else ""
        # What is all but the label itself comes before whatever is merely too good.
        severity = 5.0 if row["probe"] == "future_only" else row["value"] / row["limit"]
        one = Symptom(
            kind="leaked_feature", subject=subject, effect=row["value"], limit=row["limit"],
            severity=min(max(severity, 1.0), 100.0), rows=row["rows"],
            sentence=f"{subject} {said}{more}.", warning=doubts is not None,
        )  # fmt: skip
        if subject not in found or _graver(one, found[subject]):
            found[subject] = one
    return list(found.values())


def _graver(one: Symptom, than: Symptom) -> bool:
    return (not one.warning, one.severity) > (not than.warning, than.severity)
