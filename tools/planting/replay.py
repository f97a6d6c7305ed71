"""Faults of serving: features that are not served as they were published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.scoring import features as scoring
from jobs.tables import FEATURES
from tools.planting.tables import Planted, Tables, listed, luck, texts


def unit_change(tables: Tables, fault: Planted) -> Tables:
    """In a share of requests, the severity, a feature (``i_paid``) is served ``factor`` (100) times
    as large."""
    names, factor = listed(fault.option("feature", "i_paid")), fault.option("factor", 100)
    return _featured(tables, names, _chosen_rows(tables, fault), lambda given: given * factor)


def default_on_timeout(tables: Tables, fault: Planted) -> Tables:
    """In a share of requests, the severity, features of the person are served as ``value`` (0),
    two seconds later than else."""
    names = listed(fault.option("feature", ["p_days_since", "p_gap", "p_paid"]))
    rows, value = _chosen_rows(tables, fault), fault.option("value", 0.0)
    latency = tables.log["latency_ms"].to_numpy() + np.where(rows, 2000.0, 0.0)
    slower = tables.with_columns("log", latency_ms=latency)
    return _featured(slower, names, rows, lambda given: np.full_like(given, value))


def lost_join(tables: Tables, fault: Planted) -> Tables:
    """Of a share of the items, the severity, the features that are looked up by item (``i_…``) are
    not served."""
    names = listed(fault.option("feature", [name for name in FEATURES if name.startswith("i_")]))
    items = texts(tables.log["item_id"])
    asked = tables.requests
    rows = asked.since(fault)[asked.of(tables.log)] & (
        luck(items, tables.seed, fault) < fault.severity
    )
    return _featured(tables, names, rows, lambda given: np.full_like(given, np.nan))


def _chosen_rows(tables: Tables, fault: Planted) -> np.ndarray:
    """(n,) bool: rows of the log whose request is in scope and among the share."""
    asked = tables.requests
    chosen = asked.since(fault) & (luck(asked.ids, tables.seed, fault) < fault.severity)
    return chosen[asked.of(tables.log)]


def _featured(
    tables: Tables,
    names: list[str],
    rows: np.ndarray,
    change: Callable[[np.ndarray], np.ndarray],
) -> Tables:
    """With these features of these rows changed, and their hashes as a server computes them of
    what it used."""
    has, values = features_of(tables.log)
    hit = np.flatnonzero(has & rows)
    block = np.ix_(hit, np.array([FEATURES.index(name) for name in names]))
    values[block] = change(values[block])
    hashes = tables.log["feature_hash"].to_pylist()
    for row, made in zip(hit.tolist(), scoring.hashes(values[hit].astype(np.float32)), strict=True):
        hashes[row] = made
    changed = replace(tables, log=with_features(tables.log, has, values))
    return changed.with_columns("log", feature_hash=hashes)


def features_of(log: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """(n,) bool: rows with features, and (n, len(FEATURES)) float64, NaN where one is absent."""
    maps = log["features"].combine_chunks()
    has = maps.is_valid().to_numpy(zero_copy_only=False)
    sizes = np.diff(maps.offsets.to_numpy())
    first = maps.offsets[0].as_py()
    row = np.repeat(np.arange(len(maps)), sizes)
    names = pc.index_in(maps.keys, pa.array(FEATURES, pa.string())).to_numpy()
    values = np.full((len(maps), len(FEATURES)), np.nan)
    stretch = slice(first, first + len(row))
    values[row, names[stretch]] = maps.items.to_numpy(zero_copy_only=False)[stretch]
    return has, values


def with_features(log: pa.Table, has: np.ndarray, values: np.ndarray) -> pa.Table:
    """The other way round."""
    given = ~np.isnan(values) & has[:, None]
    ends = np.concatenate([[0], np.cumsum(given.sum(axis=1))]).astype(np.int32)
    maps = pa.MapArray.from_arrays(
        pa.array(ends, mask=np.r_[~has, False]),
        pa.array(FEATURES, pa.string()).take(pa.array(np.nonzero(given)[1])),
        pa.array(values[given]),
    )
    at = log.schema.get_field_index("features")
    return log.set_column(at, log.schema.field(at), maps.cast(log.schema.field(at).type))
