"""The step ``parity``: does the model see in serving what it learned from?

Reads ``served_features``, ``served``, and of the newest night that served ``examples`` (what was
learned from, and at its newest cut what the lists were judged among that the night promises by: its
backtest), ``features`` (what was published) and ``items``; ``items`` as of the run besides.
Writes ``feature_parity`` (a row per feature and pair of sides), ``category_parity`` (a row per
category) and ``parity_symptoms``.

The sides are selected differently: training rows are candidates of earlier cuts, served rows are
the tops of lists. Distributions may therefore differ without a fault, and no difference of them is
an alarm. A fault is what selection does not do: a clean change of unit in one feature of its
family, a feature that is there on one side and not on the other, a name that gave way to another.
A night is compared with what was served pair by pair, so that there is no selection at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs import io
from jobs.diagnosis import symptoms
from jobs.diagnosis.parity import categories, divergence, samples
from jobs.diagnosis.parity.categories import Catalogue, Move, Shown
from jobs.diagnosis.parity.divergence import Estimate
from jobs.diagnosis.parity.samples import FAMILIES, FAMILY, Sample
from jobs.diagnosis.symptoms import Symptom
from jobs.night import Night
from jobs.params import check
from jobs.scoring import features
from jobs.tables import FEATURES, TABLES

TRAINING_NIGHT, NIGHT_SERVED, TRAINING_SERVED, TRAINING_BACKTEST, BACKTEST_SERVED = PAIRS = (
    "training-night", "night-served", "training-served", "training-backtest", "backtest-served",
)  # fmt: skip
# Of pairs served, against the same pairs as published: a lookup that fails for a fifth is no
# accident; fewer are the replay's to count.
AT_LARGE = 0.2
# Between training and the others only what no selection does: known mostly, and then as good as
# never, or varied and then a constant.
KNOWN, NEVER = 0.5, 0.98
FEW_ROWS = 500  # below, quantiles and shares of a side say nothing
CLEAR = 4.0  # standard errors; some 460 comparisons are made each day
WEAK, STRONG = 0.55, 0.7  # of AUC: hardly a relation to the label, and one that matters


@dataclass(frozen=True)
class Params:
    """How much is compared, and how clean a change of unit must be."""

    # Rows of training, and of a night, that are compared with those served.
    sampled: int = 60_000
    # How far the ratios of quantiles may be from a known factor, relative to it.
    unit_tolerance: float = 0.25

    def __post_init__(self) -> None:
        check(1_000 <= self.sampled <= 1_000_000, "sampled must be 1,000 to 1,000,000")
        check(0 < self.unit_tolerance <= 0.25, "unit_tolerance must be in (0, 0.25]")


@dataclass(frozen=True)
class Side:
    """One feature on one side: its values and weights, and what each side alone says."""

    values: np.ndarray
    weight: np.ndarray
    clusters: tuple[np.ndarray, ...]
    missing: float
    constant: tuple[float, float]
    auc: Estimate

    @staticmethod
    def of(sample: Sample, feature: str) -> Side:
        values, labelled = sample.values(feature), sample.of_labelled
        return Side(
            values,
            sample.weight,
            sample.clusters,
            divergence.share(~np.isfinite(values), sample.weight),
            divergence.constant(values, sample.weight),
            divergence.auc(
                labelled.values(feature), labelled.outcome, labelled.weight, *labelled.clusters
            ),
        )


@divergence.ONE_THREAD
def run(night: Night, params: Params) -> None:
    """Stage the comparison of the sides, that of the categories, and what is wrong."""
    served = samples.served(night, "night")
    found: list[Symptom] = []
    pairs = sides(night, served, params)
    found += unseen(pairs, night.notes["absent"])
    rows = compared({name: both for name, both in pairs.items() if _enough(both)}, params, found)
    night.write("feature_parity", pa.Table.from_pylist(rows, TABLES["feature_parity"].schema))
    labels = samples.nights(samples.recent(served).table)
    found += of_another_type(night, labels)
    rows = by_category(night, labels, found)
    night.write("category_parity", pa.Table.from_pylist(rows, TABLES["category_parity"].schema))
    night.write("parity_symptoms", symptoms.table(found))


# --- sides -----------------------------------------------------------------------------------
def sides(night: Night, served: Sample, params: Params) -> dict[str, tuple[Sample, Sample]]:
    """The two samples of each pair that there is something of; what is absent is noted."""
    current = served.of(pc.equal(served.table["period"], "current").to_numpy())
    if current.event != samples.PURCHASE:
        # Training has purchases alone, and an AUC for a click is held against none.
        current = replace(current, labelled=np.zeros(len(current), bool))
        night.notes["not_judged"] = "relation to the outcome: training is of purchases"
    labels = samples.nights(current.table)
    found: dict[str, tuple[Sample, Sample]] = {}
    learned = samples.newest_with(night, "examples", labels)
    # Of an hour's release few rows are in the sample: a night's tell more.
    rows_of = Counter(current.table["night"].to_pylist())
    many = [label for label in labels if rows_of[label] >= FEW_ROWS]
    listed = samples.newest_with(night, "recommendations", [*many, *labels])
    absent = [] if len(current) else ["served rows with features"]
    if learned:
        training = samples.examples(night, learned, params.sampled)
        judged = samples.backtest(night, learned, params.sampled)
        found[TRAINING_SERVED] = (training, current)
        found[BACKTEST_SERVED] = (judged, current)
        # Lists are judged by what was learned at the cuts before; of one cut nothing was.
        before = samples.examples(night, learned, params.sampled, samples.EARLIER)
        if len(before):
            found[TRAINING_BACKTEST] = (before, judged)
        else:
            night.notes["no_training_before"] = f"the examples of {learned} are of one cut"
    if listed:
        of_night = pc.fill_null(pc.equal(current.table["night"], listed), False).to_numpy()
        found[NIGHT_SERVED] = samples.published(night, listed, current.of(of_night))
    if learned and listed:
        found[TRAINING_NIGHT] = (training, found[NIGHT_SERVED][0])
    absent += [] if learned else ["examples of a night that served"]
    absent += [] if listed else ["features of a night that served"]
    night.notes["absent"] = absent
    night.notes["training"], night.notes["published"] = learned, listed
    return found


def _enough(both: tuple[Sample, Sample]) -> bool:
    return min(map(len, both)) >= FEW_ROWS


def unseen(pairs: dict[str, tuple[Sample, Sample]], absent: list[str]) -> Iterator[Symptom]:
    """The warning that training, backtest, night and served rows are not all compared."""
    few = {pair: min(map(len, both)) for pair, both in pairs.items() if not _enough(both)}
    said = [f"there is no {', no '.join(absent)}"] if absent else []
    said += [f"{pair} has {rows:,} rows of one side" for pair, rows in few.items()]
    if said:
        of_serving = pairs.keys() - {TRAINING_BACKTEST}
        how = "Nothing" if of_serving <= few.keys() else "Not everything"
        yield symptoms.unjudged(
            "not_compared", "sides", min(few.values(), default=0), FEW_ROWS,
            f"{how} says whether the model sees in serving what it learned from: "
            f"{'; '.join(said)}; {FEW_ROWS} of each are needed.",
        )  # fmt: skip


def of_another_type(night: Night, labels: list[str]) -> Iterator[Symptom]:
    """A warning for each table of the newest night that served which holds features of another type
    than declared: it is compared with nothing."""
    for step, name in samples.MEASURED.items():
        label = next((one for one in labels if night.lake.at(step, one)), None)
        if label is None:
            continue
        folder = night.earlier(step, label).table(name)
        wrong = features.other_types(io.schema_of(folder))
        if wrong:
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            yield Symptom(
                "not_compared", f"types of {name}", float(len(wrong)), 1.0, float(len(wrong)),
                io.count_rows(folder),
                f"In {name} of {label} {', '.join(wrong[:3])}{more}: an older night is compared, "
                "or none.",
                warning=True,
            )  # fmt: skip


# --- features --------------------------------------------------------------------------------
def compared(
    pairs: dict[str, tuple[Sample, Sample]], params: Params, found: list[Symptom]
) -> list[dict[str, Any]]:
    """Rows of ``feature_parity``; adds to ``found`` what is wrong, once per kind and feature."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    faults: list[Symptom] = []
    for feature in FEATURES:
        of = {id(one): one for both in pairs.values() for one in both}
        side = {name: Side.of(one, feature) for name, one in of.items()}
        for pair, (left, right) in pairs.items():
            row, fault = compare(feature, pair, side[id(left)], side[id(right)], params)
            rows[pair, feature] = row
            faults += [fault] if fault else []
    for pair in pairs:
        faults += units(pair, rows)
    once: dict[tuple[str, str], Symptom] = {}
    for fault in sorted(faults, key=lambda one: -one.severity):
        once.setdefault((fault.kind, fault.subject), fault)
    found += once.values()
    for row in rows.values():
        del row["factor"]
    return list(rows.values())


def compare(
    feature: str, pair: str, left: Side, right: Side, params: Params
) -> tuple[dict[str, Any], Symptom | None]:
    """A row of ``feature_parity`` with the change of unit it looks like as ``factor``, and what
    went missing."""
    distance = divergence.ks(left.values, right.values, left.weight, right.weight)
    scale = divergence.scale(
        left.values, right.values, left.weight, right.weight, params.unit_tolerance
    )
    fault = broken(feature, pair, left, right)
    row = {
        "feature": feature, "pair": pair,
        "rows_left": len(left.values), "rows_right": len(right.values),
        "missing_left": left.missing, "missing_right": right.missing,
        "constant_left": _number(left.constant[0]), "constant_share_left": left.constant[1],
        "constant_right": _number(right.constant[0]), "constant_share_right": right.constant[1],
        "psi": _number(divergence.psi(left.values, right.values, left.weight, right.weight)),
        "ks": _number(distance), "scale_ratio": _number(scale.ratio),
        "auc_left": _number(left.auc.value), "auc_right": _number(right.auc.value),
        "finding": fault.sentence if fault else _relation(pair, left.auc, right.auc),
        "factor": scale.factor if fault is None else None,
    }  # fmt: skip
    return row, fault


def broken(feature: str, pair: str, left: Side, right: Side) -> Symptom | None:
    """A feature that is there on the left and missing, or one constant, on the right."""
    value, share = right.constant
    constant = f"the one value {value:g}"
    before = divergence.share(left.values == value, left.weight)
    for kind, then, now, words, holds in (
        ("lost_join", left.missing, right.missing, "missing", lambda one: ~np.isfinite(one)),
        ("default_on_timeout", before, share, constant, lambda one: one == value),
    ):
        if pair == NIGHT_SERVED:
            wrong, effect, limit = now - then >= AT_LARGE, now - then, AT_LARGE
        else:
            # A source's signal is missing wherever another source named the item.
            selected = FAMILY[feature] == "sources"
            wrong, effect, limit = then <= KNOWN and now >= NEVER and not selected, now, NEVER
        if not wrong:
            continue
        rise = _rate(holds(right.values), right).minus(_rate(holds(left.values), left))
        if rise.value > CLEAR * rise.error:
            here, there = pair.split("-")
            return Symptom(
                kind=kind, subject=feature, effect=effect, limit=limit, severity=effect / limit,
                rows=len(right.values), p_value=rise.p_value,
                sentence=(
                    f"{feature} is {words} in {100 * now:.0f} % of the {there} rows and in "
                    f"{100 * then:.0f} % of the {here} rows."
                ),
            )  # fmt: skip
    return None


def _rate(holds: np.ndarray, side: Side) -> Estimate:
    return divergence.mean(holds.astype(float), side.weight, *side.clusters)


def _relation(pair: str, left: Estimate, right: Estimate) -> str | None:
    """Words where a relation to purchases is clearly there on the left and as good as gone."""
    strength = abs(left.value - 0.5) + 0.5
    kept = 0.5 + (right.value - 0.5) * np.sign(left.value - 0.5)
    clear = strength - kept > CLEAR * np.hypot(left.error, right.error)
    if not (np.isfinite(kept) and strength >= STRONG and kept <= WEAK and clear):
        return None
    here, there = pair.split("-")
    why = "; lists are selected by it, or it leaked (see leakage)" if there == "served" else ""
    return (
        f"tells purchases in the {here} rows (AUC {left.value:.2f}) and not in the {there} rows "
        f"({right.value:.2f}){why}"
    )


def units(pair: str, rows: dict[tuple[str, str], dict[str, Any]]) -> list[Symptom]:
    """Changes of unit of a pair: a clean factor that most of the feature's family does not show."""
    found = []
    for names in FAMILIES.values():
        family = [rows[pair, feature] for feature in names]
        ratios = [row["scale_ratio"] for row in family if row["scale_ratio"]]
        usual = float(np.median(ratios)) if ratios else 1.0
        for row in family:
            factor = row["factor"]
            # Half way to the factor, a family has moved with it: that is selection.
            if factor is None or abs(np.log(usual)) > abs(np.log(factor)) / 2:
                continue
            here, there = pair.split("-")
            words = f"{factor:,.0f} times" if factor > 1 else f"1/{1 / factor:,.0f} of"
            row["finding"] = (
                f"{row['feature']} is {words} in the {there} rows what it is in the {here} rows, "
                "at every quantile, and the features like it are not."
            )
            size = abs(float(np.log10(factor)))
            found.append(Symptom(
                kind="unit_change", subject=row["feature"], effect=factor,
                limit=10.0 if factor > 1 else 0.1, severity=1 + size, rows=row["rows_right"],
                sentence=row["finding"],
            ))  # fmt: skip
    return found


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


# --- categories ------------------------------------------------------------------------------
def by_category(night: Night, labels: list[str], found: list[Symptom]) -> list[dict[str, Any]]:
    """Rows of ``category_parity``: the catalogues of the newest and of the oldest night that
    served, each against the run's; adds renames, and what vanished, to ``found``."""
    now = Catalogue.of(night.arrow("items", ["item_id", "category"]))
    shown = shown_in(night)
    kept = [one for one in labels if night.lake.at("catalogue", one) is not None]
    before: Catalogue | None = None
    moves: list[Move] = []
    for label in dict.fromkeys([*kept[-1:], *kept[:1]]):
        folder = night.earlier("catalogue", label).table("items")
        before = Catalogue.of(io.read_arrow(folder, ["item_id", "category"]))
        known = {(move.level, move.old) for move in moves}
        moves += [
            move for move in categories.renames(before, now) if (move.level, move.old) not in known
        ]
    if before is None:
        found.append(symptoms.unjudged(
            "not_compared", "catalogue", 0, 1, "Nothing says whether categories were renamed or "
            "lost: no night that served has kept its catalogue.",
        ))  # fmt: skip
    rows = categories.rows_of(before, now, shown, moves)
    found += categories.symptoms(moves, shown)
    found += categories.vanished(rows, shown) + categories.new(rows, moves, shown)
    return rows


def shown_in(night: Night) -> Shown:
    """Rows served by category and item, read a part at a time: ``served`` is a day's millions."""
    folder = night.published("served").table("served")
    files = [str(path) for path in io.parquet_files(folder)]
    names = ["period", "category", "item_id"]
    found = ds.dataset(files, format="parquet")
    without = ds.field("period") != "last_year"
    batches = [found.schema.empty_table().select(names)] + [
        pa.Table.from_batches([batch]) for batch in samples.chunks(found, names, without)
    ]
    parts = [one.group_by(names).aggregate([([], "count_all")]) for one in batches]
    rows = pa.concat_tables(parts)
    summed = [("count_all", "sum")]
    by_category: dict[str, dict[str, int]] = {}
    for row in rows.group_by(["period", "category"]).aggregate(summed).to_pylist():
        by_category.setdefault(row["period"], {})[row["category"]] = row["count_all_sum"]
    by_item = rows.group_by(["period", "item_id"]).aggregate(summed)
    by_item = by_item.rename_columns({"count_all_sum": "rows"})
    return Shown(
        by_category,
        {one: by_item.filter(pc.equal(by_item["period"], one)) for one in by_category},
        {one: sum(counts.values()) for one, counts in by_category.items()},
    )
