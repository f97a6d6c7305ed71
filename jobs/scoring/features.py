"""The features of a (person, item): one definition for tuning, the night and replay.

In this version a feature is the signal of one candidate source: a falling function of the rank at
which the source named the item, 0 where it did not. A row is as of one instant and carries a hash
of its values, so that a served score can be traced to what it was computed from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa

from jobs.tables import SOURCES, TABLES

VERSION = "source-ranks-1"
OFFSET = 3.0
COLUMNS = tuple(f"{source}_signal" for source in SOURCES)


@dataclass(frozen=True)
class Named:
    """What sources named, flat: (n,) integer codes of person, item and source (its place in
    ``SOURCES``), and the rank from 1. A source names a person's item once."""

    person: np.ndarray
    item: np.ndarray
    source: np.ndarray
    rank: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """The pairs that were named, each once, ascending by person and item.

    ``person``, ``item``: (n,) codes; ``signals``: (n, n_sources) float64, a feature each, 0 where
    the source did not name the pair; ``pair_of``: (n_named,) the pair of each row of ``Named``.
    """

    person: np.ndarray
    item: np.ndarray
    signals: np.ndarray
    pair_of: np.ndarray


def signal(rank: np.ndarray) -> np.ndarray:
    """1 for the first place, falling as 1 / (3 + rank): reciprocal rank fusion (Cormack et al.,
    2009) with a smaller constant than its 60, since the first places are what is judged here. On
    Complete Journey at two cuts before 2017-12-01 a constant of 3 was best, before 10 and log2."""
    return (1 + OFFSET) / (rank + OFFSET)


def wide(named: Named) -> Pairs:
    """One row per (person, item) with its features."""
    n_items = int(named.item.max(initial=-1)) + 1
    key = named.person.astype(np.int64) * n_items + named.item
    pairs, pair_of = np.unique(key, return_inverse=True)
    signals = np.zeros((len(pairs), len(SOURCES)))
    signals[pair_of, named.source] = signal(named.rank)
    return Pairs(pairs // max(n_items, 1), pairs % max(n_items, 1), signals, pair_of)


def linear_score(signals: np.ndarray, weights: Mapping[str, float]) -> np.ndarray:
    """(n,) the weighted sum of the signals (n, n_sources), source after source, so that a row's
    score is the same to the last bit whatever rows stand around it."""
    score = np.zeros(len(signals))
    for source, column in zip(SOURCES, signals.T, strict=True):
        score += float(weights.get(source, 0.0)) * column
    return score


def stamped(
    person_ids: pa.Array, item_ids: pa.Array, signals: np.ndarray, as_of: datetime
) -> pa.Table:
    """The table ``features``: entity keys, the event timestamp, version, hash and values."""
    schema = TABLES["features"].schema
    rows = len(signals)
    columns = {
        "person_id": person_ids,
        "item_id": item_ids,
        "event_timestamp": pa.repeat(pa.scalar(as_of, schema.field("event_timestamp").type), rows),
        "feature_version": pa.repeat(VERSION, rows),
        "feature_hash": pa.array(hashes(signals), pa.string()),
        **dict(zip(COLUMNS, signals.T, strict=True)),
    }
    return pa.table(columns, schema=schema)


def hashes(signals: np.ndarray) -> list[str]:
    """sha256 over the version and the values' shortest decimal forms, joined by ``|``, a row."""
    known: dict[bytes, str] = {}
    found = []
    for row in np.ascontiguousarray(signals):
        raw = row.tobytes()
        if raw not in known:
            text = "|".join([VERSION, *(repr(value) for value in row.tolist())])
            known[raw] = hashlib.sha256(text.encode()).hexdigest()
        found.append(known[raw])
    return found
