"""What was known at a cut and what came after it, as arrays: the ground of a backtest.

Reads ``history``, ``items``, ``persons``, the factors, ``eligibility``, ``blocked_pairs``,
``candidates``, ``pools`` and ``recommendations`` of the night of a cut, and ``after``, what was
bought in the horizon. Nothing here computes what the night computes.

People and items are codes. An item's code is its place in ``items``: those with events before the
cut first, so that what a simple method can score is a prefix; then the rest of the catalogue; then
what was bought later and unknown to both. Only the prefix has columns in score matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import scipy.sparse as sp

from jobs import io, tables
from jobs.errors import Fault
from jobs.evaluation import ranking
from jobs.evaluation.baselines import Purchases
from jobs.filtering.allowed import Allowed
from jobs.io import Lake
from jobs.ordering.surfaces import MAIN
from jobs.retrieval import matrix
from jobs.retrieval.sources import pools

DAY = 86_400_000_000  # microseconds
# What says that a person wants an item.
WANTS = ("view", "click", "add_to_cart", "purchase")


@dataclass(frozen=True)
class Events:
    """Events before the cut that say that a person wants an item, all (n,).

    ``person``, ``item``, ``basket``: int64 codes, the basket's -1 where it is no purchase;
    ``time``, ``known``: int64 microseconds since 1970 UTC at which it happened, and by which it had
    happened and been received.
    """

    person: np.ndarray
    item: np.ndarray
    basket: np.ndarray
    time: np.ndarray
    known: np.ndarray
    n_people: int
    n_items: int

    def before(self, instant: int) -> Events:
        """What was known before an instant, microseconds since 1970 UTC."""
        kept = self.known < instant
        return Events(
            self.person[kept], self.item[kept], self.basket[kept], self.time[kept],
            self.known[kept], self.n_people, self.n_items,
        )  # fmt: skip

    def purchases(self, instant: int) -> Purchases:
        """The purchases among them, aged at an instant after all of them."""
        bought = np.flatnonzero(self.basket >= 0)
        order = bought[np.lexsort((self.item[bought], self.basket[bought], self.person[bought]))]
        person, item, basket = self.person[order], self.item[order], self.basket[order]
        once = np.r_[True, (np.diff(basket) != 0) | (np.diff(item) != 0)][: len(order)]
        person, item, basket, time = (
            column[once] for column in (person, item, basket, self.time[order])
        )
        codes, which = np.unique(basket, return_inverse=True)
        began = np.full(len(codes), np.iinfo(np.int64).max)
        np.minimum.at(began, which, time)
        holder = np.zeros(len(codes), np.int64)
        holder[which] = person
        in_turn = np.lexsort((codes, began, holder))
        place = np.empty(len(codes), np.int64)
        place[in_turn] = np.arange(len(codes)) - np.searchsorted(holder[in_turn], holder[in_turn])
        order = np.lexsort((item, place[which], person))
        return Purchases(
            self.n_people, self.n_items, person[order], item[order], place[which][order],
            (instant - time[order]) / DAY,
        )  # fmt: skip

    def affinity(self) -> sp.csr_matrix:
        """(n_people, n_items) float32 CSR: log(1 + events) of each pair."""
        ones = np.ones(len(self.person), np.float32)
        shape = (self.n_people, self.n_items)
        found = sp.coo_matrix((ones, (self.person, self.item)), shape=shape).tocsr()
        found.data = np.log1p(found.data)
        found.sort_indices()
        return found


@dataclass(frozen=True)
class Wanted:
    """What people bought after an instant, a pair once, ascending by person and item, all (n,).

    ``person``: the place among the judged; ``item``: codes; ``money``: paid for it in the horizon;
    ``again``: whether the person had bought it before.
    """

    n_people: int
    person: np.ndarray
    item: np.ndarray
    money: np.ndarray
    again: np.ndarray


@dataclass(frozen=True)
class Snapshot:
    """One cut. ``judged``: (n_judged,) int64 ascending codes of the people judged, those who have a
    history before the cut and bought something after it; ``without_history``: how many bought and
    had none; ``persons`` and ``catalogue``: rows of ``persons`` by judged person and of ``items``
    by item code (of those the catalogue knows)."""

    cut: datetime
    people: pa.StringArray
    items: pa.StringArray
    n_live: int
    events: Events
    judged: np.ndarray
    wanted: Wanted
    persons: pa.Table
    catalogue: pa.Table
    allowed: Allowed
    without_history: int
    lake: Lake

    @property
    def instant(self) -> int:
        """The cut in microseconds since 1970 UTC."""
        return int(self.cut.timestamp() * 1_000_000)

    @cached_property
    def purchases(self) -> Purchases:
        return self.events.purchases(self.instant)

    @cached_property
    def judged_ids(self) -> pa.StringArray:
        return self.people.take(pa.array(self.judged))

    def table(self, name: str, columns: list[str], where: ds.Expression | None = None) -> pa.Table:
        """A published table of the night of the cut."""
        return read(self.lake, self.cut, name, columns, where)

    def codes(self, ids: pa.ChunkedArray) -> np.ndarray:
        """(n,) int64 codes of items; all of them are known."""
        return matrix.known(ids, self.items, "item of the night's lists")

    def factors(self) -> tuple[np.ndarray, np.ndarray]:
        """The night's factors by code: (n_people, dim) and (n_live, dim) float32; 0 for who or what
        has none."""
        sides = []
        for table, key, ids in (
            ("person_factors", "person_id", self.people),
            ("item_factors", "item_id", self.items.slice(0, self.n_live)),
        ):
            rows = self.table(table, [key, "vector"])
            vectors = matrix.vectors_of(rows)
            place = matrix.positions(ids, rows[key].combine_chunks())
            sides.append(np.where(place[:, None] >= 0, vectors[place], np.float32(0)))
        return sides[0], sides[1]

    def published(self, length: int) -> dict[str, np.ndarray]:
        """The published lists of the judged people: a list of lists for each surface, the main one
        first."""
        columns = ["surface", "person_id", "rank", "item_id"]
        rows = self.table("recommendations", columns, ds.field("rank") <= length)
        person = matrix.positions(rows["person_id"], self.judged_ids)
        mine = rows.append_column("person", pa.array(person)).filter(pa.array(person >= 0))
        found = {}
        names = sorted(
            pc.unique(rows["surface"]).to_pylist(), key=lambda name: (name != MAIN, name)
        )
        for surface in names:
            own = mine.filter(pc.field("surface") == surface)
            found[surface] = ranking.from_places(
                own["person"].to_numpy(), self.codes(own["item_id"]), own["rank"].to_numpy(),
                len(self.judged), length,
            )  # fmt: skip
        return found

    def named(self) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """What each source named for the judged people and they may get: person, item and the
        source's rank, the pools' of their contexts among them."""
        own = self.table("candidates", ["person_id", "item_id", "source", "rank"])
        place = matrix.positions(own["person_id"], self.judged_ids)
        own, person = own.filter(pa.array(place >= 0)), place[place >= 0]
        shared = self.table(
            "pools", ["source", "context_kind", "context", "rank", "item_id", "score"]
        )
        by_id = pc.sort_indices(self.items)
        made = self.lake.published("recommendations", self.cut).manifest
        lists = pools.Lists(
            shared, self.items.take(by_id), len(self.items), made["params"]["surfaces"]
        )
        common, _ = lists.of_people(self.persons["region"], self.persons["segment"])
        source = matrix.known(own["source"], pa.array(tables.SOURCES), "source of candidates")
        columns = (
            np.r_[person, common.person],
            np.r_[self.codes(own["item_id"]), by_id.to_numpy().astype(np.int64)[common.item]],
            np.r_[own["rank"].to_numpy(), common.rank],
            np.r_[source, common.source],
        )
        kept = self.allowed.holds(*columns[:2])
        person, item, rank, source = (column[kept] for column in columns)
        return {
            name: (person[source == code], item[source == code], rank[source == code])
            for code, name in enumerate(tables.SOURCES)
            if (source == code).any()
        }


def read(
    lake: Lake, cut: datetime, name: str, columns: list[str], where: ds.Expression | None = None
) -> pa.Table:
    """A published table of the night of a cut."""
    folder = lake.published(tables.TABLES[name].step, cut).table(name)
    return io.read_arrow(folder, columns, where)


def take(lake: Lake, cut: datetime) -> Snapshot:
    """The snapshot of the night of a cut; raises ``Fault`` where nobody can be judged."""
    columns = ["person_id", "item_id", "event_type", "event_time", "received_time", "basket"]
    history = read(lake, cut, "history", columns, ds.field("event_type").isin(WANTS))
    after = io.read_arrow(lake.root / "after")
    catalogue = read(lake, cut, "items", ["item_id", "position", "category", "available"])
    people, person = matrix.encode(history["person_id"])
    live, item = matrix.encode(history["item_id"])
    items = _in_turn(live, catalogue["item_id"], after["item_id"])
    events = _events(history, person, item, len(people), len(live))
    buyer = matrix.positions(after["person_id"], people)
    judged = np.unique(buyer[buyer >= 0])
    if not len(judged):
        raise Fault(
            f"backtest: nobody with a history before {cut:%Y-%m-%d} bought anything in the days "
            "after it, so no list can be judged; give other CUTS"
        )
    strangers = after["person_id"].filter(pa.array(buyer < 0))
    persons = read(lake, cut, "persons", ["person_id", "region", "segment", "restrictions"])
    ids = people.take(pa.array(judged))
    persons = persons.take(
        pa.array(matrix.known(ids, persons["person_id"], "person of the history"))
    )
    place = matrix.positions(items, catalogue["item_id"].combine_chunks())
    bought = np.flatnonzero(buyer >= 0)
    return Snapshot(
        cut=cut,
        people=people,
        items=items,
        n_live=len(live),
        events=events,
        judged=judged,
        wanted=wanted(
            np.searchsorted(judged, buyer[bought]),
            matrix.known(after["item_id"], items, "item bought after")[bought],
            after["money"].to_numpy()[bought],
            judged,
            events,
        ),
        persons=persons,
        catalogue=catalogue.take(pa.array(place, mask=place < 0)),
        allowed=_allowed(lake, cut, persons, items, catalogue, place),
        without_history=len(pc.unique(strangers)),
        lake=lake,
    )


def wanted(
    person: np.ndarray, item: np.ndarray, money: np.ndarray, judged: np.ndarray, events: Events
) -> Wanted:
    """``Wanted`` from rows in any order; ``person``: places in ``judged``, each of which buys."""
    size = int(max(item.max(initial=0) + 1, events.n_items))
    key, which = np.unique(person * size + item, return_inverse=True)
    paid = np.bincount(which, money, minlength=len(key))
    before = events.basket >= 0
    known = np.sort(events.person[before] * size + events.item[before])
    places, items = key // size, key % size
    again = matrix.among(judged[places] * size + items, known)
    return Wanted(len(judged), places, items, paid, again)


def _in_turn(live: pa.StringArray, *others: pa.ChunkedArray) -> pa.StringArray:
    """The ids of ``live``, then those of each other column that are not there yet, sorted."""
    found = live
    for column in others:
        ids = pc.unique(column).cast(pa.string())
        fresh = ids.filter(pc.invert(pc.is_in(ids, value_set=found)))
        found = pa.concat_arrays([found, fresh.take(pc.sort_indices(fresh))])
    return found


def _events(
    history: pa.Table, person: np.ndarray, item: np.ndarray, n_people: int, n_items: int
) -> Events:
    bought = pc.equal(history["event_type"], "purchase").to_numpy(zero_copy_only=False)
    _, basket = matrix.encode(history["basket"])
    time, received = (
        history[name].cast(tables.TIME).cast(pa.int64()).to_numpy()
        for name in ("event_time", "received_time")
    )
    return Events(
        person, item, np.where(bought, basket, -1), time, np.maximum(time, received), n_people,
        n_items,
    )  # fmt: skip


def _allowed(
    lake: Lake, cut: datetime, persons: pa.Table, items: pa.StringArray, catalogue: pa.Table,
    place: np.ndarray,
) -> Allowed:  # fmt: skip
    """What the judged people may get by the night's own filters; what the catalogue does not know
    nobody gets."""
    eligibility = read(lake, cut, "eligibility", tables.TABLES["eligibility"].schema.names)
    pairs = read(lake, cut, "blocked_pairs", ["person_id", "item_id"])
    person = matrix.positions(pairs["person_id"], persons["person_id"].combine_chunks())
    pairs, person = pairs.filter(pa.array(person >= 0)), person[person >= 0]
    item = matrix.known(pairs["item_id"], items, "item of blocked_pairs")
    position = np.where(place >= 0, catalogue["position"].to_numpy()[place], -1)
    return Allowed.of(eligibility, persons, position, np.unique(person * len(items) + item))
