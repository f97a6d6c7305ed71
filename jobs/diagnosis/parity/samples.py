"""Rows of features from a night, from training and from serving, as arrays of one form.

A step that compares them reads ``served_features`` (as served), ``features`` (as published by a
night) or ``examples`` (what a night's ranker learned from) through this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs import io
from jobs.diagnosis import definitions
from jobs.night import Night
from jobs.scoring import features
from jobs.signals import measures
from jobs.tables import FEATURES, SOURCES

ROWS_AT_ONCE = 500_000  # of a night's features; about 200 MB
PURCHASE, CLICK = definitions.LABELS
MEASURED = {"examples": "examples", "recommendations": "features"}  # the table with features
OUTCOME = {PURCHASE: "bought", CLICK: "clicked"}  # the column that says whether there was one
OF_EXAMPLES = ("person_id", "item_id", "as_of", "bought", *FEATURES)
EVERY, NEWEST, EARLIER = "every", "newest", "earlier"  # cuts of the examples
FAMILIES: dict[str, tuple[str, ...]] = {
    "what the person bought of the item": measures.PAIR,
    "looks and carts": measures.INTEREST,
    "the person": measures.PERSON,
    "the latest session": measures.SESSION,
    "the household": measures.HOUSEHOLD,
    "the item": measures.ITEM,
    "the person and the category": measures.CATEGORY,
    "crossed": measures.CROSSED,
    "sources": tuple(f"{source}_signal" for source in SOURCES),
}
FAMILY = {feature: family for family, features in FAMILIES.items() for feature in features}


@dataclass(frozen=True)
class Sample:
    """Rows with features; ``table`` has FEATURES among its columns, null where missing.

    ``weight``: (n,) how many rows one stands for. ``clusters``: clusterings of the rows, (n,)
    codes each. ``outcome``: (n,) bool, the agreed one where served, a purchase in training; and
    ``labelled``: (n,) bool, where that can be relied on. ``event``: what an outcome is.
    """

    table: pa.Table
    weight: np.ndarray
    clusters: tuple[np.ndarray, ...]
    outcome: np.ndarray
    labelled: np.ndarray
    event: str = PURCHASE

    def __len__(self) -> int:
        return self.table.num_rows

    def values(self, feature: str) -> np.ndarray:
        """(n,) float64, NaN for missing."""
        return self.table[feature].to_numpy().astype(np.float64)

    def of(self, chosen: np.ndarray) -> Sample:
        """The rows where ``chosen``, (n,) bool, holds."""
        return Sample(
            self.table.filter(pa.array(chosen)),
            self.weight[chosen],
            tuple(codes[chosen] for codes in self.clusters),
            self.outcome[chosen],
            self.labelled[chosen],
            self.event,
        )

    @cached_property
    def of_labelled(self) -> Sample:
        return self.of(self.labelled)


def codes(values: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """(n,) codes of equal values, numbered by first appearance; null is a value of its own."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    found = values.dictionary_encode(null_encoding="encode")
    return found.indices.to_numpy(zero_copy_only=False).astype(np.int64)


# --- as served -------------------------------------------------------------------------------
def served(night: Night, *columns: str) -> Sample:
    """The table ``served_features`` with these columns beside its features, and as the outcome the
    event that ``definitions`` calls one.

    Rows depend on each other by the person (or the request of nobody known), by the day and by the
    item.
    """
    event = definitions.read(night).label.event
    needed = ("request_id", "person_id", "item_id", "day", "period", "mature", "weight")
    names = list(dict.fromkeys((*needed, OUTCOME[event], *columns, *FEATURES)))
    return of_served(night.arrow("served_features", names), event)


def of_served(rows: pa.Table, event: str = PURCHASE) -> Sample:
    """Rows of ``served_features`` as a sample."""
    who = codes(pc.coalesce(rows["person_id"], rows["request_id"]))
    return Sample(
        rows,
        rows["weight"].to_numpy(),
        (who, codes(rows["day"]), codes(rows["item_id"])),
        rows[OUTCOME[event]].to_numpy(),
        rows["mature"].to_numpy(),
        event,
    )


def recent(served: Sample) -> Sample:
    """The rows of the current and the reference period; a year ago is another catalogue and
    another release."""
    return served.of(pc.not_equal(served.table["period"], "last_year").to_numpy())


def altered(served: Sample) -> np.ndarray:
    """(n,) bool: rows whose features are not those whose hash was logged, or published, with them.

    Needs the columns ``feature_hash`` and ``feature_version``. A row without a hash, or of another
    version, whose hash is of other features, cannot be told and counts as unaltered.
    """
    rows = served.table
    same = pc.equal(rows["feature_version"], features.VERSION)
    told = pc.fill_null(pc.and_(same, pc.is_valid(rows["feature_hash"])), False)
    found = np.zeros(len(served), bool)
    part = rows.filter(told)
    own = pa.array(features.hashes(features.read(part)), pa.string())
    found[told.to_numpy()] = pc.not_equal(part["feature_hash"], own).to_numpy()
    return found


def nights(rows: pa.Table) -> list[str]:
    """The labels of the nights that these rows were served from, newest first."""
    found = pc.unique(pc.drop_null(rows["night"])).to_pylist()
    return sorted(found, reverse=True)


def newest_with(night: Night, step: str, labels: list[str]) -> str | None:
    """The first of these nights that the lake still has this step's output of, by the features of
    this code."""
    for label in labels:
        there = night.lake.at(step, label)
        if there is not None and features.held(there.table(MEASURED[step])):
            return label
    return None


# --- of a night ------------------------------------------------------------------------------
def examples(night: Night, label: str, at_most: int, cuts: str = EVERY) -> Sample:
    """Trained rows of a night's ``examples``, evenly drawn; ``cuts``: of EVERY cut, of the NEWEST
    alone, or of those EARLIER."""
    folder = night.earlier("examples", label).table("examples")
    where = ds.field("trained")
    if cuts != EVERY:
        of_newest = ds.field("as_of") == _newest_cut(folder)
        where &= of_newest if cuts == NEWEST else ~of_newest
    rows = drawn(io.parquet_files(folder), [*OF_EXAMPLES, "weight"], where, at_most)
    return _of_examples(rows, rows["weight"].to_numpy())


def backtest(night: Night, label: str, at_most: int) -> Sample:
    """Rows of the newest cut of a night's ``examples``, trained on or not, evenly drawn: the
    candidates among which the lists were judged that the night promises by."""
    folder = night.earlier("examples", label).table("examples")
    where = ds.field("as_of") == _newest_cut(folder)
    rows = drawn(io.parquet_files(folder), [*OF_EXAMPLES], where, at_most)
    return _of_examples(rows, np.ones(rows.num_rows))


def _of_examples(rows: pa.Table, weight: np.ndarray) -> Sample:
    return Sample(
        rows,
        weight,
        (codes(rows["person_id"]), codes(rows["item_id"])),
        rows["bought"].to_numpy(),
        np.ones(rows.num_rows, bool),
    )


def _newest_cut(folder: Path) -> pa.Scalar:
    return pc.max(io.read_arrow(folder, ["as_of"])["as_of"])


def published(night: Night, label: str, served: Sample) -> tuple[Sample, Sample]:
    """What a night published of the pairs that were served, and those rows of ``served``, row by
    row: the same people and items, so that no selection lies between them."""
    folder = night.earlier("recommendations", label).table("features")
    people = pc.unique(pc.drop_null(served.table["person_id"]))
    found = ds.dataset([str(path) for path in io.parquet_files(folder)], format="parquet")
    columns = ["person_id", "item_id", *FEATURES]
    wanted = pairs(served.table)
    held = []
    for batch in chunks(found, columns, ds.field("person_id").isin(people)):
        rows = pa.Table.from_batches([batch])
        held.append(rows.filter(pc.is_in(pairs(rows), value_set=pc.drop_null(wanted))))
    rows = pa.concat_tables([found.schema.empty_table().select(columns), *held])
    place = pc.index_in(wanted, value_set=pairs(rows))
    has = pc.and_(pc.is_valid(place), pc.is_valid(wanted)).to_numpy(zero_copy_only=False)
    both = served.of(has)
    nothing = np.zeros(len(both), bool)
    rows = rows.take(place.filter(pa.array(has)))
    return Sample(rows, both.weight, both.clusters, nothing, nothing), both


def pairs(rows: pa.Table) -> pa.Array:
    """(n,) a text that names the person and the item; null for nobody known."""
    joined = pc.binary_join_element_wise(rows["person_id"], rows["item_id"], "\x1f")
    return joined.combine_chunks()


def drawn(
    files: list[Path], columns: list[str], where: ds.Expression | None, at_most: int
) -> pa.Table:
    """At most so many of the rows that ``where`` chooses, evenly spaced in the files' order."""
    found = ds.dataset([str(path) for path in files], format="parquet")
    count = found.count_rows(filter=where)
    share, seen, held = min(1.0, at_most / max(count, 1)), 0, []
    for batch in chunks(found, columns, where):
        places = np.arange(seen, seen + batch.num_rows)
        chosen = np.floor((places + 1) * share) > np.floor(places * share)
        seen += batch.num_rows
        held.append(batch.filter(pa.array(chosen)) if share < 1 else batch)
    return pa.Table.from_batches(held, found.scanner(columns=columns).projected_schema)


def chunks(
    found: ds.Dataset, columns: list[str], where: ds.Expression | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows batch by batch in the files' order, few of them in memory at a time."""
    yield from found.scanner(
        columns=columns, filter=where, batch_size=ROWS_AT_ONCE, batch_readahead=1,
        fragment_readahead=1,
    ).to_batches()  # fmt: skip
