"""Single cases, for the step ``slices``: the worst misses of this run, earlier ones scored again,
and features whose default drives the score.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs import io
from jobs.diagnosis import clusters
from jobs.diagnosis.decisions import counterexamples
from jobs.night import Night
from jobs.release import releases
from jobs.scoring import features
from jobs.scoring.scorer import SCORER, Scorer
from jobs.tables import FEATURES, TABLES

COLUMNS = [
    "request_id", "position", "period", "mature", "surface", "category", "item_id", "release_id",
    "score",
]  # fmt: skip
BACKGROUND = 20_000  # recent places that earlier cases are ranked among
ROSE = 0.05  # of all rows: how much more often a value must be there to be a default come up
DRIVES = 0.2  # correlation with the score from which a value decides places
FEWEST = 200


def write(night: Night, label: str, earlier: int) -> None:
    """Stage ``counterexamples``, ``counterexample_checks`` and ``default_drivers``."""
    rows = night.arrow("served_features", [*COLUMNS, label, *FEATURES])
    rows = rows.filter(pc.is_valid(rows["score"]))
    current = rows.filter(pc.equal(rows["period"], "current"))
    night.write("counterexamples", cases(current.filter(current["mature"]), label))
    reference = rows.filter(pc.equal(rows["period"], "reference"))
    night.write("default_drivers", drivers(current, reference))
    night.write("counterexample_checks", checks(night, current, earlier))


def cases(rows: pa.Table, label: str) -> pa.Table:
    """The table ``counterexamples``."""
    schema = TABLES["counterexamples"].schema
    if rows.num_rows == 0:
        return schema.empty_table()
    cell, _ = clusters.codes(pc.binary_join_element_wise(rows["surface"], rows["category"], "\x1f"))
    names = pc.binary_join_element_wise(
        rows["request_id"], pc.cast(rows["position"], pa.string()), "/"
    )
    hit, score = rows[label].to_numpy(), rows["score"].to_numpy()
    promised, missed = counterexamples.choose(
        score, hit, rows["position"].to_numpy(), cell, np.array(names.to_pylist(), object)
    )
    chosen = np.r_[promised, missed].astype(np.int64)
    picked = rows.take(pa.array(chosen))
    why = ["a high score that came to nothing"] * len(promised)
    why += [f"{label} from a low place"] * len(missed)
    found = {name: picked[name] for name in schema.names if name in picked.column_names}
    found |= {
        "case": names.take(pa.array(chosen)),
        "predicted": picked["score"],
        "observed": pc.cast(picked[label], pa.int32()),
        "why": pa.array(why, pa.string()),
        "top_features": pa.array(
            counterexamples.standing(features.read(rows), chosen), pa.string()
        ),
    }
    return pa.table({name: found[name] for name in schema.names}).cast(schema)


def checks(night: Night, current: pa.Table, earlier: int) -> pa.Table:
    """The table ``counterexample_checks``: the cases of up to ``earlier`` runs, by the newest
    release."""
    schema = TABLES["counterexample_checks"].schema
    runs = [found.as_of for found, _ in zip(
        night.lake.earlier("slices", night.as_of), range(earlier), strict=False
    )]  # fmt: skip
    tables = []
    for label in runs:
        folder = night.earlier("slices", label).table("counterexamples")
        if features.held(folder):
            tables.append((io.read_arrow(folder), io.parse_as_of(label)))
    known = counterexamples.once(tables)
    release = releases.newest_before(night.lake, night.as_of)
    if release is None or known.num_rows == 0:
        night.notes["counterexamples"] = "no release, or no earlier case: none is scored again"
        return schema.empty_table()
    folder = release.path("scorer")
    night.read_file(folder / SCORER)
    if tuple(io.read_json(folder / SCORER)["features"]) != FEATURES:
        night.notes["counterexamples"] = f"{release.id} has other features: none is scored again"
        return schema.empty_table()
    scorer = Scorer.load(folder)
    step = max(1, current.num_rows // BACKGROUND)
    some = current.take(pa.array(np.arange(0, current.num_rows, step)))
    background = scorer.of_features(features.read(some)) if some.num_rows else np.zeros(0)
    found = counterexamples.check(known, scorer, background)
    found = found.append_column("found", known["found"])
    named = pa.array([release.id] * found.num_rows, pa.string())
    return found.append_column("checked_release", named).select(schema.names).cast(schema)


# --- defaults --------------------------------------------------------------------------------
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
