"""The features of a (person, item) as of an instant: one definition for training, the night,
backtests and replay.

Behaviour of the person with the item, its category and the shop at all; the item's behaviour among
everybody; what the vectors say; and one signal per candidate source, a falling function of the rank
at which the source named the item, 0 where it did not. A row carries a hash of its values, so that
a served score can be traced to what it was computed from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from jobs import io
from jobs.retrieval import matrix
from jobs.signals import behaviour
from jobs.signals.behaviour import Keyed, Lines
from jobs.signals.homes import Mates
from jobs.signals.past import Past, runs
from jobs.signals.shop import Catalogue
from jobs.tables import FEATURES, SOURCES, TABLES

VERSION = "behaviour-4"
OFFSET = 3.0
# Pairs whose features are made at a time: their columns, 8 bytes a value, and the vectors that are
# gathered for them stay in the cache, and are none of a night's large arrays.
PART = 16_000
COLUMNS = FEATURES
SIGNALS = tuple(f"{source}_signal" for source in SOURCES)


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

    def of(self, kept: np.ndarray) -> Pairs:
        """The pairs that ``kept``, (n,) bool, says; rows named for others are of pair -1."""
        # The -1 at the end is where rows of pairs left out before, which are of -1, look.
        place = np.r_[np.where(kept, np.cumsum(kept) - 1, -1), -1]
        return Pairs(self.person[kept], self.item[kept], self.signals[kept], place[self.pair_of])


def coded(
    rows: pa.Table, people: pa.Array | pa.ChunkedArray, items: pa.Array | pa.ChunkedArray
) -> Named:
    """Rows with person_id, item_id, source and rank in codes: an id's code is its place in
    ``people`` or ``items``. Raises ``Fault`` for an id that is not there."""
    return Named(
        person=matrix.known(rows["person_id"], people, "person of candidates"),
        item=matrix.known(rows["item_id"], items, "item of candidates"),
        source=matrix.known(rows["source"], pa.array(SOURCES), "source of candidates"),
        rank=rows["rank"].to_numpy().astype(np.int64),
    )


def signal(rank: np.ndarray) -> np.ndarray:
    """1 for the first place, falling as 1 / (3 + rank): reciprocal rank fusion (Cormack et al.,
    2009) with a smaller constant than its 60, since the first places are what is judged here. On
    Complete Journey at two cuts before 2017-12-01 a constant of 3 was best, before 10 and log2."""
    return (1 + OFFSET) / (rank + OFFSET)


def wide(named: Named) -> Pairs:
    """One row per (person, item) with its signals."""
    n_items = int(named.item.max(initial=-1)) + 1
    key = named.person.astype(np.int64) * n_items + named.item
    pairs, pair_of = np.unique(key, return_inverse=True)
    signals = np.zeros((len(pairs), len(SOURCES)))
    signals[pair_of, named.source] = signal(named.rank)
    return Pairs(pairs // max(n_items, 1), pairs % max(n_items, 1), signals, pair_of)


def nearest(person: np.ndarray, item: np.ndarray, score: np.ndarray, count: int) -> np.ndarray:
    """(n_pairs,) bool: the ``count`` pairs of highest score of each person, ties to the lower item;
    what is worth the cost of its features."""
    order = np.lexsort((item, -score, person))
    starts, group = runs(person[order])
    kept = np.zeros(len(order), bool)
    kept[order] = np.arange(len(order)) - starts[group] < count
    return kept


def linear_score(signals: np.ndarray, weights: Mapping[str, float]) -> np.ndarray:
    """(n,) the weighted sum of the signals (n, n_sources), source after source, so that a row's
    score is the same to the last bit whatever rows stand around it."""
    score = np.zeros(len(signals))
    for source, column in zip(SOURCES, signals.T, strict=True):
        score += float(weights.get(source, 0.0)) * column
    return score


@dataclass(frozen=True)
class Vectors:
    """What vectors say of items and of a block's people; a row of NaN where there is no vector.

    ``items``: (n_items, dim), ``people``: (n_people, dim), one embedding space; ``content``:
    (n_items, dim of content). All float32.
    """

    items: np.ndarray
    people: np.ndarray
    content: np.ndarray


def placed(rows: pa.Table, key: str, ids: pa.StringArray, dim: int = 0) -> np.ndarray:
    """(n_ids, dim) float32: the vector of each id, NaN for an id without one.

    ``rows``: ``key`` and vector; ``dim`` counts where there is no row to tell it.
    """
    vectors = matrix.vectors_of(rows) if rows.num_rows else np.zeros((0, dim), np.float32)
    return in_order(vectors, rows[key], ids)


def in_order(
    vectors: np.ndarray, own: pa.Array | pa.ChunkedArray, ids: pa.StringArray
) -> np.ndarray:
    """(n_ids, dim) float32: of ``vectors``, whose rows belong to the ids ``own``, the one of each
    of ``ids``; NaN for an id without one."""
    known_ids = pa.concat_arrays(own.chunks) if isinstance(own, pa.ChunkedArray) else own
    place = matrix.positions(ids, known_ids)
    found = np.full((len(ids), vectors.shape[1]), np.nan, np.float32)
    found[place >= 0] = vectors[place[place >= 0]]
    return found


@dataclass(frozen=True)
class Ground:
    """All that the features of a block of people are looked up in."""

    n_items: int
    catalogue: Catalogue
    items: Mapping[str, np.ndarray]
    persons: Mapping[str, np.ndarray]
    pairs: Keyed
    interest: Keyed
    narrow: tuple[Keyed, ...]
    broad: tuple[Keyed, ...]
    mates: Keyed
    vectors: Vectors
    tastes: np.ndarray

    @staticmethod
    def of(
        past: Past,
        catalogue: Catalogue,
        items: Mapping[str, np.ndarray],
        mates: Mates,
        vectors: Vectors,
    ) -> Ground:
        """``past``: all that the block's people did; ``items``: what ``shop.measure`` found."""
        n = len(catalogue.ids)
        lines = Lines.of(past)
        return Ground(
            n_items=n,
            catalogue=catalogue,
            items=items,
            persons=behaviour.persons(lines, n) | behaviour.sessions(past, n) | mates.persons,
            pairs=behaviour.pairs(lines, n),
            interest=behaviour.interest(past, n),
            narrow=of_categories(lines, past, catalogue.narrow, "narrow"),
            broad=of_categories(lines, past, catalogue.broad, "broad"),
            mates=mates.pairs,
            vectors=vectors,
            tastes=tastes(lines, vectors.content),
        )


def of_categories(lines: Lines, past: Past, category: np.ndarray, prefix: str) -> tuple[Keyed, ...]:
    """What people bought from a category, and what they were looking at."""
    return (
        behaviour.categories(lines, category, prefix),
        behaviour.leanings(past, category, prefix),
    )


def tastes(lines: Lines, content: np.ndarray) -> np.ndarray:
    """(n_people, dim) float32: the direction of what each person bought, each purchase halved
    every 60 days; a row of 0 for who bought nothing that has a content vector."""
    known = np.isfinite(content).all(axis=1)[lines.item]
    person, item = lines.person[known], lines.item[known]
    weight = sp.csr_matrix(
        (np.exp2(-lines.age[known] / 60).astype(np.float32), (person, item)),
        shape=(lines.n_people, len(content)),
    )
    sums = weight @ np.nan_to_num(content)
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    return sums / np.maximum(length, 1e-12)


def values(ground: Ground, pairs: Pairs) -> np.ndarray:
    """(n_pairs, n_features) float32 in the order of ``COLUMNS``; NaN where nothing is known."""
    table = np.empty((len(pairs.person), len(COLUMNS)), np.float32)
    for first in range(0, len(table), PART):
        part = slice(first, first + PART)
        found = _columns(ground, pairs.person[part], pairs.item[part], pairs.signals[part])
        for number, name in enumerate(COLUMNS):
            table[part, number] = found[name]
    return table


def _columns(
    ground: Ground, person: np.ndarray, item: np.ndarray, signals: np.ndarray
) -> dict[str, np.ndarray]:
    """Every feature of the pairs of these codes and signals, (n_pairs,) each."""
    key = person * ground.n_items + item
    found = ground.pairs.at(key) | ground.interest.at(key) | ground.mates.at(key)
    found |= {name: column[person] for name, column in ground.persons.items()}
    found |= {name: column[item] for name, column in ground.items.items()}
    for keyed, code in (
        (ground.narrow, ground.catalogue.narrow),
        (ground.broad, ground.catalogue.broad),
    ):
        category = code[item]
        looked_up = person * (int(code.max(initial=0)) + 1) + category
        for one in keyed:
            found |= one.at(np.where(category >= 0, looked_up, -1))
    found |= {
        "share_of_narrow": found["decayed_60"] / np.maximum(found["narrow_decayed_60"], 1e-6),
        "share_of_broad": found["decayed_60"] / np.maximum(found["broad_decayed_60"], 1e-6),
        "rate_at_pace": found["basket_share"] * found["p_baskets_28"],
        "days_since_over_item_gap": found["days_since"] / np.maximum(found["i_gap"], 0.5),
        "price_over_paid": found["i_paid"] / np.maximum(found["p_paid"], 1e-6),
        "affinity": dot(ground.vectors.people[person], ground.vectors.items[item]),
        "taste": dot(ground.tastes[person], ground.vectors.content[item]),
    }
    return found | dict(zip(SIGNALS, signals.T, strict=True))


def dot(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(n,) the inner products of two (n, dim), row by row."""
    return np.einsum("ij,ij->i", left, right)


def stamped(
    person_ids: pa.Array, item_ids: pa.Array, rows: np.ndarray, as_of: datetime
) -> pa.Table:
    """The table ``features``: entity keys, the event timestamp, version, hash and values."""
    schema = TABLES["features"].schema
    n_rows = len(rows)
    columns = {
        "person_id": person_ids,
        "item_id": item_ids,
        "event_timestamp": pa.repeat(
            pa.scalar(as_of, schema.field("event_timestamp").type), n_rows
        ),
        "feature_version": pa.repeat(VERSION, n_rows),
        "feature_hash": pa.array(hashes(rows), pa.string()),
        **columns_of(rows),
    }
    return pa.table(columns, schema=schema)


def columns_of(rows: np.ndarray) -> dict[str, pa.Array]:
    """The features as Arrow columns, null where nothing is known."""
    return {
        name: pa.array(np.ascontiguousarray(column), from_pandas=True)
        for name, column in zip(COLUMNS, rows.T, strict=True)
    }


def read(rows: pa.Table) -> np.ndarray:
    """(n_rows, n_features) float32 of a table that has the features as columns; null is NaN."""
    found = np.empty((rows.num_rows, len(COLUMNS)), np.float32)
    for number, name in enumerate(COLUMNS):
        found[:, number] = rows[name].to_numpy()
    return found


def held(folder: Path) -> bool:
    """Whether a table has every feature of this version as a column of its type; one of an earlier
    version, which an older code wrote, may not."""
    schema = io.schema_of(folder)
    return set(COLUMNS) <= set(schema.names) and not other_types(schema)


def other_types(schema: pa.Schema) -> list[str]:
    """The features that a table holds as another type than the declared one, in words."""
    declared = TABLES["features"].schema
    return [
        f"{name} is {schema.field(name).type}, expected {declared.field(name).type}"
        for name in COLUMNS
        if name in schema.names and schema.field(name).type != declared.field(name).type
    ]


def hashes(rows: np.ndarray) -> list[str]:
    """sha256 of each row, hexadecimal: over the version in ASCII, then the values in the order of
    ``COLUMNS`` as little-endian IEEE 754 singles, NaN as 0x7FC00000 and zero without a sign."""
    plain = np.where(np.isnan(rows), np.float32(np.nan), rows + np.float32(0.0)).astype("<f4")
    start = hashlib.sha256(VERSION.encode())
    found = []
    for row in np.ascontiguousarray(plain):
        digest = start.copy()
        digest.update(row.tobytes())
        found.append(digest.hexdigest())
    return found
