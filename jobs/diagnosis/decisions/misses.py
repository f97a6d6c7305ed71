"""Single cases, for the step ``slices``: the worst misses of this run with what drove their score,
earlier ones scored again, and features that drive a score and should not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs import io
from jobs.diagnosis import clusters, rankers, symptoms
from jobs.diagnosis.decisions import counterexamples
from jobs.diagnosis.symptoms import Symptom
from jobs.night import Night
from jobs.release import releases
from jobs.scoring import features
from jobs.scoring.scorer import SCORER, Scorer
from jobs.tables import FEATURES, TABLES

COLUMNS = [
    "request_id", "position", "period", "mature", "surface", "category", "item_id", "release_id",
    "score", "night",
]  # fmt: skip
BACKGROUND = 20_000  # recent places that earlier cases are ranked among
ROSE = 0.05  # of all rows: how much more often a value must be there to be a default come up
DRIVES = 0.2  # correlation with the score from which a value decides places
FEWEST = 200
LEAKS = 0.1  # of the worst misses, from which a feature that leaked is told as their driver
DEFAULTED, LEAKED = "a default that came up", "knew the outcome in training"


def write(night: Night, label: str, earlier: int) -> list[Symptom]:
    """Stage ``counterexamples``, ``counterexample_checks`` and ``default_drivers``; returns what
    drives scores and should not."""
    rows = night.arrow("served_features", [*COLUMNS, label, *FEATURES])
    rows = rows.filter(pc.is_valid(rows["score"]))
    current = rows.filter(pc.equal(rows["period"], "current"))
    reference = rows.filter(pc.equal(rows["period"], "reference"))
    driven = drivers(current, reference)
    night.write("default_drivers", driven)
    leaked = _leaked(night)
    doubts = dict.fromkeys(leaked, LEAKED) | {
        row["feature"]: DEFAULTED for row in driven.to_pylist() if row["suspicious"]
    }
    picked, why = worst(current.filter(current["mature"]), label)
    contributions = attributed(night, picked)
    night.write("counterexamples", cases(picked, label, why, contributions, doubts))
    checked, unasked = checks(night, current, earlier)
    night.write("counterexample_checks", checked)
    lost = counterexamples.regression(checked)
    told = [*suspicious(driven, leaked, contributions), *([lost] if lost else [])]
    if unasked:
        told.append(symptoms.unjudged(
            "decisions_unjudged", "counterexamples", 0, 1,
            f"No release was asked about earlier counterexamples: {unasked}.",
        ))  # fmt: skip
    return told


def worst(rows: pa.Table, label: str) -> tuple[pa.Table, list[str]]:
    """The worst misses of rows of ``served_features``, and why each is one."""
    if rows.num_rows == 0:
        return rows, []
    cell, _ = clusters.codes(pc.binary_join_element_wise(rows["surface"], rows["category"], "\x1f"))
    hit, score = rows[label].to_numpy(), rows["score"].to_numpy()
    promised, missed = counterexamples.choose(
        score, hit, rows["position"].to_numpy(), cell, np.array(_names(rows).to_pylist(), object)
    )
    why = ["a high score that came to nothing"] * len(promised)
    why += [f"{label} from a low place"] * len(missed)
    return rows.take(pa.array(np.r_[promised, missed].astype(np.int64))), why


def _names(rows: pa.Table) -> pa.ChunkedArray:
    place = pc.cast(rows["position"], pa.string())
    return pc.binary_join_element_wise(rows["request_id"], place, "/")


def attributed(night: Night, rows: pa.Table) -> np.ndarray:
    """(n, n_features) what each feature adds to the score of each row of ``served_features``, by
    the model that gave it; a row of NaN where the lake no longer has that model."""
    values = features.read(rows)
    found = np.full(values.shape, np.nan)
    of = rows["night"].to_numpy(zero_copy_only=False)
    for label in pc.unique(rows["night"]).drop_null().to_pylist():
        if rankers.held(night, label):
            mine = of == label
            found[mine] = rankers.scorer_of(night, label).contributions(values[mine])
    return found


def cases(
    rows: pa.Table, label: str, why: list[str], contributions: np.ndarray, doubts: dict[str, str]
) -> pa.Table:
    """The table ``counterexamples`` of the worst misses."""
    schema = TABLES["counterexamples"].schema
    drove = counterexamples.told(features.read(rows), contributions, doubts)
    found = {name: rows[name] for name in schema.names if name in rows.column_names}
    found |= {
        "case": _names(rows),
        "predicted": rows["score"],
        "observed": pc.cast(rows[label], pa.int32()),
        "why": pa.array(why, pa.string()),
        "top_features": pa.array(drove, pa.string()),
    }
    return pa.table({name: found[name] for name in schema.names}).cast(schema)


def checks(night: Night, current: pa.Table, earlier: int) -> tuple[pa.Table, str | None]:
    """The table ``counterexample_checks``: the cases of up to ``earlier`` runs, by the newest
    release; and why it was asked about none, where there are some."""
    schema = TABLES["counterexample_checks"].schema
    runs = [found.as_of for found, _ in zip(
        night.lake.earlier("slices", night.as_of), range(earlier), strict=False
    )]  # fmt: skip
    tables, before, others = [], schema.empty_table(), 0
    release = releases.newest_before(night.lake, night.as_of)
    for label in runs:
        folder = night.earlier("slices", label).table("counterexamples")
        if features.held(folder):
            tables.append((io.read_arrow(folder), io.parse_as_of(label)))
        else:
            others += io.count_rows(folder)
        if release and not before.num_rows:
            before = _of_another(night, label, release.id)
    known = counterexamples.once(tables)
    if known.num_rows == 0:
        return schema.empty_table(), "they have other features" if others else None
    if release is None:
        return schema.empty_table(), "none is published"
    folder = release.path("scorer")
    night.read_file(folder / SCORER)
    if tuple(io.read_json(folder / SCORER)["features"]) != FEATURES:
        return schema.empty_table(), f"{release.id} has other features than they"
    scorer = Scorer.load(folder)
    step = max(1, current.num_rows // BACKGROUND)
    some = current.take(pa.array(np.arange(0, current.num_rows, step)))
    background = scorer.of_features(features.read(some)) if some.num_rows else np.zeros(0)
    found = counterexamples.beside(counterexamples.check(known, scorer, background), before)
    found = found.append_column("found", known["found"])
    named = pa.array([release.id] * found.num_rows, pa.string())
    found = found.append_column("checked_release", named).select(schema.names).cast(schema)
    return found, None


def _of_another(night: Night, label: str, release_id: str) -> pa.Table:
    """What an earlier run found of cases by another release; empty where it asked this one."""
    folder = night.earlier("slices", label).table("counterexample_checks")
    columns = ["release_id", "case", "still_wrong"]
    return io.read_arrow(folder, columns, ds.field("checked_release") != release_id)


# --- what should not drive a score -----------------------------------------------------------
def _leaked(night: Night) -> list[str]:
    """The features that the step ``leakage`` found to know the outcome in training."""
    rows = night.arrow("leakage_symptoms", ["kind", "subject"])
    named = rows.filter(pc.equal(rows["kind"], "leaked_feature"))["subject"].to_pylist()
    return [name for name in named if name in FEATURES]


def suspicious(driven: pa.Table, leaked: list[str], contributions: np.ndarray) -> list[Symptom]:
    """A warning for each default that came up and decides places, and for each feature that leaked
    and drives the worst misses. ``contributions``: (n, n_features) of these."""
    top = counterexamples.strongest(contributions)
    known = int(np.isfinite(contributions).all(axis=1).sum())

    def among(name: str) -> int:
        return int((top == FEATURES.index(name)).any(axis=1).sum())

    found = {}
    for row in driven.to_pylist():
        if row["suspicious"]:
            name, strength = row["feature"], abs(row["correlation"])
            seen = f" It is among the strongest of {among(name)} of {known} worst misses."
            found[name] = Symptom(
                "suspicious_driver", name, strength, DRIVES, strength / DRIVES, row["rows"],
                row["sentence"] + (seen if known else ""), warning=True,
            )  # fmt: skip
    for name in leaked:
        share = among(name) / max(known, 1)
        if share >= LEAKS and name not in found:
            found[name] = Symptom(
                "suspicious_driver", name, share, LEAKS, share / LEAKS, known,
                f"{name} knew the outcome in training, and is among the strongest features of "
                f"{among(name)} of {known} worst misses.", warning=True,
            )  # fmt: skip
    return list(found.values())


def drivers(current: pa.Table, reference: pa.Table) -> pa.Table:
    """The table ``default_drivers``: of each feature its most frequent value, and how far the score
    hangs on whether a place has it."""
    schema = TABLES["default_drivers"].schema
    rows = [_driver(name, current, reference) for name in FEATURES if current.num_rows]
    return pa.Table.from_pylist([row for row in rows if row], schema)


def _driver(name: str, current: pa.Table, reference: pa.Table) -> dict[str, Any] | None:
    values, counts = np.unique(_known(current, name), return_counts=True)
    if not len(values):
        return None
    value = float(values[np.argmax(counts)])
    share, strength = _hangs(current, name, value)
    before, was = _hangs(reference, name, value) if reference.num_rows else (None, None)
    rose = before is not None and share - before >= ROSE
    enough = min(current.num_rows, reference.num_rows) >= FEWEST
    suspicious = bool(rose and enough and abs(strength) >= DRIVES)
    usual = f"against {before:.0%} in the weeks before" if before is not None else "with no before"
    end = "a default stands in for it and decides places" if suspicious else "that is its usual way"
    return {
        "feature": name, "value": value, "rows": current.num_rows, "share": share,
        "share_before": before, "correlation": strength, "correlation_before": was,
        "suspicious": suspicious,
        "sentence": f"{name} is {value:.4g} in {share:.0%} of the places, {usual}; the score hangs "
        f"on that by {strength:+.2f}: {end}.",
    }  # fmt: skip


def _known(rows: pa.Table, name: str) -> np.ndarray:
    values = rows[name].to_numpy().astype(np.float32)
    return values[np.isfinite(values)]


def _hangs(rows: pa.Table, name: str, value: float) -> tuple[float, float]:
    """The share of rows with the value, and the correlation of having it with the score."""
    has = rows[name].to_numpy().astype(np.float32) == np.float32(value)
    score = rows["score"].to_numpy()
    if has.all() or not has.any() or np.ptp(score) == 0:
        return float(has.mean()), 0.0
    return float(has.mean()), float(np.corrcoef(has, score)[0, 1])
