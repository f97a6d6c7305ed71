"""The keys that events and the people table name, and what is known of the persons they are of.

On arrays, some events at a time: what Spark groups by two shuffles of all events is a few arrays of
a value a key.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs import io, tables
from jobs.refresh.onward import joined
from jobs.release import groups
from jobs.retrieval import matrix
from jobs.signals.links import KEY

ROWS = 1_000_000  # events that are looked at together
CONSENT = "personalisation"


@dataclass(frozen=True)
class Named:
    """``events``: the folder of the table, of which those count that were received before ``cut``;
    ``people``: the contract table, None where the source has none."""

    events: Path
    people: pa.Table | None
    cut: datetime

    def keys(self) -> pa.Table:
        """Every key that an event or the people table names: key_type, key, first_seen (when its
        first event came; null where it has none)."""
        first = [("first_received", "min")]
        found = [part.group_by(KEY).aggregate(first) for part in self._parts(["first_received"])]
        found = [part.rename_columns([*KEY, "first_seen"]) for part in found]
        if self.people is not None:
            filled = self.people.select(KEY)
            for name in KEY:
                trimmed = pc.utf8_trim(filled[name], characters=" ")
                filled = filled.filter(pc.fill_null(pc.not_equal(trimmed, ""), False))
            none = pa.nulls(filled.num_rows, tables.TIME)
            found.append(filled.append_column("first_seen", none))
        whole = pa.concat_tables([KEYS.empty_table(), *(part.cast(KEYS) for part in found)])
        whole = whole.group_by(KEY).aggregate([("first_seen", "min")])
        return whole.rename_columns([*KEY, "first_seen"]).cast(KEYS)

    def persons(self, identities: pa.Table) -> pa.Table:
        """The table ``persons``: what is known of each, over all of its keys.

        Where keys disagree the stricter word counts: one refused consent is a refusal, restrictions
        add up. A region that the people table does not give is the one most of the events name.
        ``identities``: key_type, key, person_id, household_id.
        """
        ids, person = matrix.encode(identities["person_id"])
        seen = Seen(len(ids))
        holders = Holders.of(identities, person)
        for part in self._parts(["event_time", "region"]):
            seen.add(holders.persons_of(part), part)
        households = pa.table({"person": person, "household": identities["household_id"]})
        least = households.group_by("person").aggregate([("household", "min")]).sort_by("person")
        told = _told(self.people, holders, len(ids))
        return pa.table({
            "person_id": ids,
            "household_id": least["household_min"],
            "region": pc.coalesce(told["region"], seen.regions()),
            "segment": told["segment"],
            "personalised": told["personalised"],
            "restrictions": told["restrictions"],
            "keys": pa.array(np.bincount(person, minlength=len(ids)), pa.int32()),
            "first_seen": seen.time(seen.first),
            "last_seen": seen.time(seen.last),
        }).cast(tables.TABLES["persons"].schema)  # fmt: skip

    def _parts(self, columns: list[str]) -> Iterator[pa.Table]:
        """These columns and the keys of the events that count, some at a time."""
        cut = pa.scalar(self.cut, tables.TIME)
        names = [*KEY, *columns]
        read = [*names, *({"first_received"} - {*columns})]
        for rows in io.read_chunks(self.events, read, ROWS):
            yield rows.filter(pc.less(rows["first_received"], cut)).select(names)


KEYS = pa.schema([*((name, pa.string()) for name in KEY), ("first_seen", tables.TIME)])


@dataclass(frozen=True)
class Holders:
    """Whose a key is: ``names``, (n_keys,) texts of the keys, and ``person``, (n_keys,) codes."""

    names: pa.Array
    person: np.ndarray

    @staticmethod
    def of(identities: pa.Table, person: np.ndarray) -> Holders:
        return Holders(groups.one(joined(identities, KEY)), person)

    def persons_of(self, rows: pa.Table) -> np.ndarray:
        """(n_rows,) int64: whose the key of each row is, -1 where it is nobody's; none is null."""
        if rows.num_rows == 0 or len(self.names) == 0:
            return np.full(rows.num_rows, -1, np.int64)
        # Texts are made of the different keys alone.
        _, firsts, key = np.unique(groups.codes(rows, KEY), return_index=True, return_inverse=True)
        names = joined(rows.select(KEY).take(pa.array(firsts)), KEY)
        place = matrix.positions(names, self.names)
        return np.where(place < 0, -1, self.person[place])[key]


@dataclass
class Seen:
    """What the events say of each of ``n`` persons, as they are added."""

    n: int
    first: np.ndarray = field(init=False)
    last: np.ndarray = field(init=False)
    # Of each pair of a person and a region, its code and its events, once for each part.
    _pairs: list[np.ndarray] = field(default_factory=list)
    _counts: list[np.ndarray] = field(default_factory=list)
    _regions: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.first = np.full(self.n, np.iinfo(np.int64).max)
        self.last = np.full(self.n, np.iinfo(np.int64).min)

    def add(self, person: np.ndarray, rows: pa.Table) -> None:
        """Count events in; ``person``: (n_rows,) codes, -1 of nobody's."""
        mine = person >= 0
        time = rows["event_time"].cast(pa.int64()).to_numpy()
        np.minimum.at(self.first, person[mine], time[mine])
        np.maximum.at(self.last, person[mine], time[mine])
        encoded = groups.one(rows["region"]).dictionary_encode()
        names = encoded.dictionary.to_pylist()
        known = [self._regions.setdefault(name, len(self._regions)) for name in names]
        place = pc.fill_null(encoded.indices, -1).to_numpy()
        there = mine & (place >= 0)
        region = np.array([*known, -1], np.int64)[place[there]]
        pairs, counts = np.unique(region * self.n + person[there], return_counts=True)
        self._pairs.append(pairs)
        self._counts.append(counts)

    def regions(self) -> pa.Array:
        """(n,) texts: the region that most of a person's events name, of several the first by its
        name; null where none does."""
        pairs = np.concatenate([np.zeros(0, np.int64), *self._pairs])
        pairs, part = np.unique(pairs, return_inverse=True)
        counts = np.bincount(part, np.concatenate([np.zeros(0), *self._counts]), len(pairs))
        names = pa.array(list(self._regions), pa.string())
        place = np.zeros(len(names), np.int64)
        place[pc.sort_indices(names).to_numpy()] = np.arange(len(names))
        region, person = np.divmod(pairs, max(self.n, 1))
        order = np.lexsort((place[region], -counts, person))
        firsts = order[np.flatnonzero(np.diff(person[order], prepend=-1))]
        chosen = np.full(self.n, -1)
        chosen[person[firsts]] = region[firsts]
        return names.take(pa.array(chosen, mask=chosen < 0))

    def time(self, values: np.ndarray) -> pa.Array:
        """(n,) times; null of who did nothing."""
        return pa.array(values, mask=self.last < self.first).cast(tables.TIME)


def _told(people: pa.Table | None, holders: Holders, n: int) -> dict[str, pa.Array]:
    """What the people table says of each of ``n`` persons: region, segment, personalised and
    restrictions, as the columns of ``persons``."""
    rows = PEOPLE.empty_table()
    if people is not None:
        rows = people.select(PEOPLE.names).cast(PEOPLE)
        rows = rows.filter(pc.and_(*(pc.is_valid(rows[name]) for name in KEY)))
    person = holders.persons_of(rows)
    rows = rows.filter(pa.array(person >= 0)).append_column("person", pa.array(person[person >= 0]))
    found = {name: _least(rows["person"], rows[name], n) for name in ("region", "segment")}
    # A person whose keys name no consents at all has refused nothing.
    given = groups.one(rows["consents"])
    agreed = np.zeros(len(given), bool)
    yes = pc.fill_null(pc.equal(pc.list_flatten(given), CONSENT), False)
    agreed[pc.list_parent_indices(given).filter(yes).to_numpy()] = True
    agreed |= pc.is_null(given).to_numpy(zero_copy_only=False)
    personalised = np.ones(n, bool)
    personalised[rows["person"].to_numpy()[~agreed]] = False
    limits = groups.one(rows["restrictions"])
    holder = rows["person"].take(pc.list_parent_indices(limits))
    pairs = pa.table({"person": holder, "value": pc.list_flatten(limits)})
    pairs = pairs.group_by(["person", "value"]).aggregate([])
    pairs = pairs.sort_by([("person", "ascending"), ("value", "ascending")])
    starts = np.searchsorted(pairs["person"].to_numpy(), np.arange(n + 1))
    lists = pa.ListArray.from_arrays(pa.array(starts, pa.int32()), groups.one(pairs["value"]))
    return found | {"personalised": pa.array(personalised), "restrictions": lists}


PEOPLE = pa.schema([
    *((name, pa.string()) for name in (*KEY, "region", "segment")),
    *((name, pa.list_(pa.string())) for name in ("consents", "restrictions")),
])  # fmt: skip


def _least(person: pa.ChunkedArray, values: pa.ChunkedArray, n: int) -> pa.Array:
    """(n,) texts: the least value of each person, null where it has none."""
    rows = pa.table({"person": person, "value": values}).drop_null()
    least = rows.sort_by([("person", "ascending"), ("value", "ascending")])
    whose = least["person"].to_numpy()
    firsts = np.flatnonzero(np.diff(whose, prepend=-1))
    place = np.full(n, -1)
    place[whose[firsts]] = firsts
    return groups.one(least["value"]).take(pa.array(place, mask=place < 0))
