"""What people did before an instant, as arrays: the ground that features and repeats stand on.

People are read block by block, each with all they did, so that memory does not grow with their
number. Ages are days before the instant; nothing at or after it is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs import io, tables
from jobs.night import Night
from jobs.retrieval import matrix
from jobs.tables import EVENT_TYPES

DAY = 86_400_000_000  # microseconds
COLUMNS = ["person_id", "item_id", "event_type", "event_time", "basket", "quantity", "value"]
PURCHASE = EVENT_TYPES.index("purchase")
CART = EVENT_TYPES.index("add_to_cart")
REMOVAL = EVENT_TYPES.index("remove_from_cart")
LOOKS = (EVENT_TYPES.index("view"), EVENT_TYPES.index("click"))
BACK = (EVENT_TYPES.index("return"), EVENT_TYPES.index("reject"))
# What purchases that were kept are told by: see :func:`kept_purchases`.
BOUGHT = ds.field("event_type").isin([EVENT_TYPES[kind] for kind in (PURCHASE, *BACK)])
# Half an hour without an event ends a session here, whatever the step of that name is set to: its
# names know of events that came later, and a feature must not.
PAUSE = DAY // 48
# People whose past is held at a time: some hundred events each, 60 bytes an event.
BLOCK = 10_000


@dataclass(frozen=True)
class Past:
    """Events of ``n_people`` people, ascending by person, item, then time; all (n,).

    ``person``, ``item``, ``kind``: codes, the kind's is its place in ``EVENT_TYPES``; ``age``: days
    before the instant, above 0; ``basket``: codes, no two people share one; ``quantity``;
    ``value``: money of the line, NaN where unknown; ``latest``: whether it is of the person's
    latest session before the instant.
    """

    n_people: int
    person: np.ndarray
    item: np.ndarray
    kind: np.ndarray
    age: np.ndarray
    basket: np.ndarray
    quantity: np.ndarray
    value: np.ndarray
    latest: np.ndarray

    def of(self, rows: np.ndarray) -> Past:
        """The events that ``rows``, (n,) bool, says."""
        columns = ("person", "item", "kind", "age", "basket", "quantity", "value", "latest")
        return Past(self.n_people, *(getattr(self, name)[rows] for name in columns))


@dataclass(frozen=True)
class Record:
    """Everybody's history as of an instant, in a folder whose files are sorted by person.

    ``items``: sorted; an item's code is its place among them, and what is not among them was
    unknown at the instant and is left out.
    """

    folder: Path
    as_of: datetime
    items: pa.StringArray

    def of(self, people: pa.StringArray, where: ds.Expression | None = None) -> Past:
        """The past of these people, sorted ids; a person's code is its place among them. ``where``
        says which of the rows, if not all: ``latest`` is then of these."""
        rows, person, item = self.read(people, COLUMNS, where)
        return arranged(rows, person, item, len(people), self.as_of)

    def read(
        self, people: pa.StringArray, columns: list[str], where: ds.Expression | None = None
    ) -> tuple[pa.Table, np.ndarray, np.ndarray]:
        """Rows of these people, sorted ids, with person_id and item_id among the columns, and
        (n,) the codes of both; ``where`` says more of the rows."""
        # Files hold a range of people each: those without any of these are passed over.
        own = (
            (ds.field("person_id") >= people[0]) & (ds.field("person_id") <= people[-1])
            if len(people)
            else ds.scalar(False)
        )
        rows = self.rows(columns, own if where is None else own & where)
        person = matrix.positions(rows["person_id"], people)
        item = matrix.positions(rows["item_id"], self.items)
        known = (person >= 0) & (item >= 0)
        return rows.filter(pa.array(known)), person[known], item[known]

    def rows(self, columns: list[str], where: ds.Expression) -> pa.Table:
        """Rows of the history that had happened and been received before the instant."""
        now = pa.scalar(self.as_of, tables.TIME)
        before = (ds.field("event_time") < now) & (ds.field("received_time") < now)
        return io.read_arrow(self.folder, columns, before & where)

    def blocks(
        self, people: pa.StringArray, where: ds.Expression | None = None, size: int = BLOCK
    ) -> Iterator[Past]:
        """The past of these people, ``size`` of them after the other; ``where`` as of ``of``."""
        for first in range(0, len(people), size):
            yield self.of(people.slice(first, size), where)


def microseconds(times: pa.ChunkedArray) -> np.ndarray:
    """(n,) int64 since 1970 of a column of times."""
    found: np.ndarray = times.cast(tables.TIME).cast(pa.int64()).to_numpy()
    return found


def kinds(rows: pa.Table) -> np.ndarray:
    """(n,) int64: the place of each row's type in ``EVENT_TYPES``."""
    return matrix.known(rows["event_type"], pa.array(EVENT_TYPES), "event type of history")


def ages(times: np.ndarray, as_of: datetime) -> np.ndarray:
    """(n,) days from int64 microseconds to an instant."""
    return (int(as_of.timestamp() * 1_000_000) - times) / DAY


def of_night(night: Night) -> Record:
    """Everybody's history as the night published it."""
    items = night.arrow("items", ["item_id"])["item_id"].combine_chunks()
    return Record(night.folder("history"), night.as_of, items.take(pc.sort_indices(items)))


def arranged(
    rows: pa.Table, person: np.ndarray, item: np.ndarray, n_people: int, as_of: datetime
) -> Past:
    """Rows of ``history`` as arrays; ``person`` and ``item``: (n,) their codes."""
    times, kind = microseconds(rows["event_time"]), kinds(rows)
    _, name = matrix.encode(rows["basket"])
    # A basket's name is the shop's own and may repeat across people.
    _, basket = np.unique(person * (name.max(initial=0) + 1) + name, return_inverse=True)
    order = np.lexsort((basket, kind, times, item, person))
    value = rows["value"].cast(pa.float64()).to_numpy()
    return Past(
        n_people,
        person[order],
        item[order],
        kind[order].astype(np.int8),
        ages(times[order], as_of),
        basket[order].astype(np.int64),
        rows["quantity"].to_numpy()[order],
        value[order],
        in_latest_session(person[order], times[order], np.isin(kind[order], BACK)),
    )


def in_latest_session(person: np.ndarray, times: np.ndarray, back: np.ndarray) -> np.ndarray:
    """(n,) bool: whether no pause is longer than ``PAUSE`` from a row to the person's last one.

    ``times``: (n,) int64 microseconds; ``back``: (n,) bool, what went back, which the shop books
    when it comes and which is no visit.
    """
    visits = np.flatnonzero(~back)
    found = np.zeros(len(person), bool)
    found[visits] = _of_latest_visit(person[visits], times[visits])
    return found


def _of_latest_visit(person: np.ndarray, times: np.ndarray) -> np.ndarray:
    order = np.lexsort((-times, person))
    starts, group = runs(person[order])
    paused = np.zeros(len(order), bool)
    paused[1:] = -np.diff(times[order]) > PAUSE
    paused[starts] = False
    pauses = np.cumsum(paused)
    found = np.empty(len(order), bool)
    found[order] = pauses == pauses[starts][group]
    return found


def kept_purchases(past: Past) -> Past:
    """The purchases that did not go back: those after the pair's last return or reject."""
    bought = past.kind == PURCHASE
    back = np.isin(past.kind, BACK)
    if back.any():
        starts, group = runs(past.person, past.item)
        last_back = np.full(len(starts), np.inf)
        np.minimum.at(last_back, group[back], past.age[back])
        bought &= past.age < last_back[group]
    return past.of(bought)


def bought_pairs(past: Past, n_items: int) -> np.ndarray:
    """(n,) int64 ascending: ``person * n_items + item`` of all that each person ever bought,
    whether it went back or not."""
    lines = past.kind == PURCHASE
    return matrix.distinct(past.person[lines] * n_items + past.item[lines])


def runs(*columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where runs of equal rows begin, (n_runs,), and the run of each row, (n,); columns are sorted
    so that equal rows stand together."""
    size = len(columns[0])
    if size == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    new = np.zeros(size, bool)
    new[0] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(new), np.cumsum(new) - 1


def people_of(persons: pa.Table) -> pa.StringArray:
    """The sorted ids of the table ``persons``."""
    ids = persons["person_id"].combine_chunks()
    return ids.take(pc.sort_indices(ids))
