"""What the two towers look at, and how they turn it into vectors.

A tower's inputs are measured as of an instant from what happened before it, by the same functions
for the night and for the earlier instants that training learns from. Forward passes take the module
whose arrays they are given, so that training and NumPy have one definition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from jobs import tables
from jobs.neural import Weights, apply
from jobs.retrieval import matrix
from jobs.retrieval.neighbours import first_of_each
from jobs.signals.past import DAY

# What an event says of a taste, as ``interactions`` weighs it; others say nothing here.
SAID = {"purchase": 1.0, "add_to_cart": 0.4, "click": 0.04, "view": 0.03}
COLUMNS = [
    "person_id", "item_id", "event_type", "event_time", "received_time", "quantity", "value",
]  # fmt: skip
# Ratio of two neighbouring bands of what was paid, as the bands of content have it; how many bands
# there are, and the one of an item that costs 1. Band 0 is of items that nobody bought yet.
RATIO, BANDS, ONE = 1.5, 32, 10
MONTH = 28.0
# People whose inputs are turned into vectors at a time: their history's rows fill 16 MB.
BLOCK = 1_000


@dataclass(frozen=True)
class Words:
    """The values that have embeddings: sorted texts a field; the code of one is its place from 1,
    and 0 stands for null and for a text that training did not see."""

    narrow: pa.StringArray
    broad: pa.StringArray
    region: pa.StringArray
    segment: pa.StringArray

    @staticmethod
    def of(items: pa.Table, persons: pa.Table) -> Words:
        """From items (narrow, broad) and persons (region, segment)."""
        return Words(*(_sorted(table[name]) for table, name in (
            (items, "narrow"), (items, "broad"), (persons, "region"), (persons, "segment"),
        )))  # fmt: skip


def _sorted(column: pa.ChunkedArray) -> pa.StringArray:
    return matrix.encode(column.drop_null())[0]


def _coded(column: pa.ChunkedArray, words: pa.StringArray) -> np.ndarray:
    return (matrix.positions(column, words) + 1).astype(np.int32)


@dataclass(frozen=True)
class Ground:
    """Everybody's events before an instant, and what is known of people and items.

    Events, all (n,), ascending by person, then time: ``person``, ``item``: codes; ``age``: days
    before the instant; ``received``: the same of when the shop had them, later than they happened
    where they were delayed; ``said``: how much an event says; ``bought``: bool; ``paid``: money a
    unit, NaN where unknown.
    Items, (n_items,): ``content``: (n_items, dim) float32, ``narrow``, ``broad``, ``row``: codes of
    :class:`Words` and of the items that have rows of their own, 0 for none. People, (n_people,):
    ``region``, ``segment``. ``words``: what the codes stand for; ``rows``: the items with rows,
    code i + 1 the i-th.
    """

    person_ids: pa.StringArray
    item_ids: pa.StringArray
    person: np.ndarray
    item: np.ndarray
    age: np.ndarray
    received: np.ndarray
    said: np.ndarray
    bought: np.ndarray
    paid: np.ndarray
    content: np.ndarray
    narrow: np.ndarray
    broad: np.ndarray
    region: np.ndarray
    segment: np.ndarray
    row: np.ndarray
    words: Words
    rows: pa.StringArray

    @staticmethod
    def of(
        events: pa.Table, person_ids: pa.StringArray, items: pa.Table, content: pa.Table,
        persons: pa.Table, as_of_us: int, words: Words | None = None,
    ) -> Ground:  # fmt: skip
        """``events``: ``COLUMNS``, all happened and received before ``as_of_us`` (microseconds
        since 1970 UTC);
        ``items``: item_id and category; ``content``: item_id and vector of the items that may be
        looked at; ``persons``: person_id, region, segment. Events of others are left out.
        ``words``: those of a training; None takes those that are there."""
        content = content.sort_by("item_id")
        item_ids = pa.concat_arrays(content["item_id"].chunks)
        items = _with_levels(items.take(
            pa.array(matrix.known(item_ids, items["item_id"], "item of content_vectors"))
        ))  # fmt: skip
        words = words or Words.of(items, persons)
        person = matrix.positions(events["person_id"], person_ids)
        item = matrix.positions(events["item_id"], item_ids)
        kind = matrix.positions(events["event_type"], pa.array(list(SAID)))
        kept = (person >= 0) & (item >= 0) & (kind >= 0)
        time, received = (
            events[name].cast(tables.TIME).cast(pa.int64()).to_numpy()
            for name in ("event_time", "received_time")
        )
        # One order whatever the files' was, so that sums are equal to the last bit.
        order = np.lexsort((kind, item, time, person))
        order = order[kept[order]]
        quantity, value = (
            events[name].cast(pa.float64()).to_numpy()[order] for name in ("quantity", "value")
        )
        place = matrix.positions(person_ids, persons["person_id"].combine_chunks())
        persons = persons.take(pa.array(place, mask=place < 0))
        return Ground(
            person_ids, item_ids, person[order], item[order], (as_of_us - time[order]) / DAY,
            (as_of_us - received[order]) / DAY,
            np.array(list(SAID.values()))[kind[order]], kind[order] == 0,
            value / np.maximum(quantity, 1e-9), matrix.vectors_of(content),
            _coded(items["narrow"], words.narrow), _coded(items["broad"], words.broad),
            _coded(persons["region"], words.region), _coded(persons["segment"], words.segment),
            np.zeros(len(item_ids), np.int32), words, pa.array([], pa.string()),
        )  # fmt: skip

    def with_rows(self, rows: pa.StringArray) -> Ground:
        """The same where these items have rows of their own."""
        row = (matrix.positions(self.item_ids, rows) + 1).astype(np.int32)
        return replace(self, row=row, rows=rows)

    def bought_by(self, count: int) -> pa.StringArray:
        """The items that so many people bought."""
        n_items = len(self.item_ids)
        pairs = matrix.distinct(self.person[self.bought] * n_items + self.item[self.bought])
        chosen = np.bincount(pairs % n_items, minlength=n_items) >= count
        return self.item_ids.filter(pa.array(chosen))

    def before(self, days: float) -> Ground:
        """The same as of an instant so many days earlier: what had happened and been received."""
        kept = np.minimum(self.age, self.received) > days
        return replace(
            self, person=self.person[kept], item=self.item[kept], age=self.age[kept] - days,
            received=self.received[kept] - days, said=self.said[kept], bought=self.bought[kept],
            paid=self.paid[kept],
        )  # fmt: skip

    def events_of(self, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The events of these codes of people, ascending: (n,) their rows, and (n,) the place of
        each one's person among ``people``."""
        first, last = (np.searchsorted(self.person, people, side) for side in ("left", "right"))
        count = last - first
        place = np.repeat(np.arange(len(people)), count)
        return np.arange(len(place)) + (first - np.cumsum(count) + count)[place], place


def _with_levels(items: pa.Table) -> pa.Table:
    """item_id with ``narrow``, the whole category path, and ``broad``, its first two steps."""
    path = items["category"]
    first = pc.list_slice(pc.split_pattern(path, tables.BELOW), 0, 2)
    return pa.table({"narrow": path, "broad": pc.binary_join(first, tables.BELOW)})


Inputs = dict[str, np.ndarray]


def of_items(ground: Ground) -> Inputs:
    """What the item tower looks at, an item a row: ``content`` (n, dim), ``narrow``, ``broad``,
    ``band`` and ``row`` codes, and ``sold`` (n, 3): by how many people, lately and ever, and
    whether at all. An item that nobody bought has neither a band nor a row of its own."""
    n_items = len(ground.item_ids)
    bought = np.flatnonzero(ground.bought)
    person, item, age = ground.person[bought], ground.item[bought], ground.age[bought]
    ever, lately = (
        np.bincount(matrix.distinct(person[of] * n_items + item[of]) % n_items, minlength=n_items)
        for of in (slice(None), age < MONTH)
    )
    paid = ground.paid[bought]
    priced = np.isfinite(paid) & (paid > 0)
    logs = np.bincount(item[priced], np.log(paid[priced]), n_items)
    count = np.bincount(item[priced], minlength=n_items)
    band = np.rint(logs / np.maximum(count, 1) / np.log(RATIO)) + ONE
    people = max(len(matrix.distinct(person)), 1)
    sold = np.stack([_share(lately, people), _share(ever, people), ever > 0], axis=1)
    return {
        "content": ground.content,
        "narrow": ground.narrow,
        "broad": ground.broad,
        "band": np.where(count > 0, np.clip(band, 1, BANDS - 1), 0).astype(np.int32),
        "sold": sold.astype(np.float32),
        "row": np.where(ever > 0, ground.row, 0).astype(np.int32),
    }


def _share(count: np.ndarray, people: int) -> np.ndarray:
    """Counts from 1 to everybody spread over 0.5 to 1.5; 0 for nobody."""
    return np.where(count > 0, 0.5 + np.log1p(count) / np.log1p(people), 0.0)


def of_people(ground: Ground, people: np.ndarray, length: int, half_life_days: float) -> Inputs:
    """What the person tower looks at, a row for each code of ``people``, ascending.

    ``heard``: (n, length) rows of the items that say most of the person and ``loud`` (n, length)
    how much, adding up to 1 over them, an event halved every ``half_life_days``; ``content``:
    (n, dim) their mean; ``region``, ``segment``: codes; ``pace``: (n, 4) how much the person did
    and bought, lately and ever.
    """
    n_items, n_people = len(ground.item_ids), len(people)
    mine, person = ground.events_of(people)
    item, age = ground.item[mine], ground.age[mine]
    weight = ground.said[mine] * np.exp2(-age / half_life_days)
    keys, pair = np.unique(person * n_items + item, return_inverse=True)
    strength = np.bincount(pair, weight, len(keys))
    best, rank = first_of_each(keys // n_items, keys % n_items, strength, length)
    of, what, strength = keys[best] // n_items, keys[best] % n_items, strength[best]
    loud = np.zeros((n_people, length), np.float32)
    heard = np.zeros((n_people, length), np.int32)
    share = strength / np.bincount(of, strength, n_people)[of]
    loud[of, rank - 1] = share
    heard[of, rank - 1] = ground.row[what]
    spread = sp.csr_matrix((share.astype(np.float32), (of, what)), shape=(n_people, n_items))
    bought = ground.bought[mine]
    counts = [
        np.bincount(person[rows], minlength=n_people)
        for rows in (bought, bought & (age < MONTH), ~bought, ~bought & (age < MONTH))
    ]
    return {
        "heard": heard,
        "loud": loud,
        "content": spread @ ground.content,
        "region": ground.region[people],
        "segment": ground.segment[people],
        "pace": (np.log1p(np.stack(counts, axis=1)) / 5.0).astype(np.float32),
    }


def taken(inputs: Inputs, rows: np.ndarray) -> Inputs:
    """These rows of every input."""
    return {name: column[rows] for name, column in inputs.items()}


# --- forward -----------------------------------------------------------------------------------
def item_vectors(weights: Mapping[str, Any], inputs: Mapping[str, Any], xp: ModuleType) -> Any:
    """(n, dim + 1): the last entry is how much an item is wanted by anybody."""
    described = xp.concatenate(
        [
            inputs["content"],
            weights["narrow"][inputs["narrow"]],
            weights["broad"][inputs["broad"]],
            weights["band"][inputs["band"]],
            inputs["sold"],
        ],
        axis=1,
    )
    hidden = xp.maximum(apply(weights["item_hidden"], described), 0.0)
    # Row 0 is of items without one, and never learns.
    own = weights["row"][inputs["row"]] * (inputs["row"] > 0)[:, None]
    wanted = inputs["sold"] @ weights["sold"]
    return apply(weights["item_out"], hidden) + own + wanted


def person_vectors(weights: Mapping[str, Any], inputs: Mapping[str, Any], xp: ModuleType) -> Any:
    """(n, dim + 1): the last entry is 1."""
    loud = inputs["loud"] * (inputs["heard"] > 0)
    # An item speaks for a person by the row that it is found by.
    heard = xp.einsum("nl,nld->nd", loud, weights["row"][inputs["heard"], :-1])
    said = apply(weights["content"], inputs["content"]) + heard
    context = [weights[name][inputs[name]] for name in ("region", "segment")]
    known = xp.concatenate([said, *context, inputs["pace"]], axis=1)
    hidden = xp.maximum(apply(weights["person_hidden"], known), 0.0)
    vector = said + apply(weights["person_out"], hidden)
    return xp.concatenate([vector, xp.ones_like(vector[:, :1])], axis=1)


def in_blocks(forward: Any, weights: Weights, inputs: Inputs, size: int = BLOCK) -> np.ndarray:
    """(n, dim + 1) float32 of all rows, ``size`` of them at a time.

    Computed in doubles: the last bit of a product depends on what stands beside a row, that of the
    rounded vector does not.
    """
    n_rows = len(inputs["content"])
    double = {name: value.astype(np.float64) for name, value in weights.items()}
    # One thread, as in ALS: products do not depend on how many there are.
    with threadpool_limits(limits=1, user_api="blas"):
        parts = [
            forward(double, taken(inputs, np.arange(first, min(first + size, n_rows))), np)
            for first in range(0, n_rows, size)
        ]
    width = weights["row"].shape[1]
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros((0, width), np.float32)
