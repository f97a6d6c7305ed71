"""The items that a night knows, each with its place in the append-only id map.

Reads the contract tables ``items``, ``editorial`` and ``rules`` and the published ``events``.
Writes ``items`` (a row per item of the catalogue or of any event, as valid at ``as_of``),
``editorial`` (a row per place of a curated list in force) and ``rules_in_force`` (a row per
business rule and what became of it). Rules are read here, where the items that they name are first
known, so that rules that contradict stop a night in its first minutes and not after its training.

``position`` is the integer by which implicit, FAISS and the eligibility bitmaps know an item. A
night takes yesterday's positions and appends its new items in the order of their ids.

An item that left the catalogue (``catalogued``: tonight's or an earlier one named it) keeps its
row, place, description, flags and regions, as unavailable. One whose rows all hold from ``as_of``
on has not left: it is as the run before knew it, available or not. One that no catalogue ever named
is known by its events alone, and available; so is one that no run before has seen in force.

A night that will serve in place of a refresh that has read on (``jobs.release.replaced``) takes the
catalogue, lists and rules as valid for that refresh, and events alone as of its run date.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs import io, tables
from jobs.night import Night
from jobs.ordering import rules
from jobs.params import check
from jobs.refresh import onward
from jobs.release import groups, replaced
from jobs.retrieval import matrix
from jobs.sources import in_memory
from jobs.tables import TIME

ITEM_COLUMNS = (
    "title", "category", "brand", "seller", "price", "margin", "created_time", "regions",
    "attributes",
)  # fmt: skip


ITEMS = tables.TABLES["items"].schema
NEVER = np.iinfo(np.int64).min  # in place of a time that is not given


@dataclass(frozen=True)
class Params:
    """How the catalogue is read."""

    # An item without a catalogue price takes the median paid per unit over this many days.
    price_days: int = 90

    def __post_init__(self) -> None:
        check(self.price_days > 0, "price_days must be positive")


def run(night: Night, params: Params) -> None:
    """Stage ``items``, ``editorial`` and ``rules_in_force``."""
    source = night.source_folder()
    catalogue = in_memory.read(source, "items")
    yesterday, now = held(night), replaced.note(night)
    known = join_catalogue(seen(night.folder("events"), night.as_of, params), catalogue, now)
    if catalogue is not None:
        night.notes["catalogue_duplicates"] = duplicates(catalogue)
        if yesterday is not None:
            night.notes["catalogue_not_in_force"] = not_in_force(catalogue, yesterday, now)
            known = keep_absent(known, yesterday, catalogue)
    items = place(known, yesterday)
    night.write("items", items)
    night.write("editorial", editorial(in_memory.read(source, "editorial"), items, now))
    night.write("rules_in_force", rules_in_force(night, source, now))
    night.notes["id_map_sha256"] = id_map_hash(items)


def held(night: Night) -> pa.Table | None:
    """The items of the night before, in a refresh of its base; None without one."""
    predecessor = night.previous("catalogue")
    if predecessor is None:
        return None
    found = io.read_arrow(predecessor.table("items"))
    if "catalogued" not in found.column_names:
        # Of an earlier version, which described what the catalogue named and nothing else.
        described = [pc.is_valid(found[name]) for name in ITEM_COLUMNS if name != "price"]
        named = reduce(pc.or_, described, pc.greater(pc.list_value_length(found["flags"]), 0))
        found = found.append_column("catalogued", named)
    return found.select(ITEMS.names).cast(ITEMS)


def rules_in_force(night: Night, source: Path, at: datetime) -> pa.Table:
    """The table ``rules_in_force``, from the source's rules and the items just staged."""
    stated = in_memory.read(source, "rules")
    if stated is None:
        return tables.TABLES["rules_in_force"].schema.empty_table()
    items = io.read_arrow(night.staged / "items", rules.ITEM_COLUMNS)
    surfaces = list(night.params_of("recommendations").surfaces)
    found = rules.in_force(stated, items, at, surfaces)
    outcomes = Counter(found["outcome"].to_pylist())
    night.notes["rules"] = {outcome: outcomes[outcome] for outcome in rules.OUTCOMES}
    return found


# --- what is known ---------------------------------------------------------------------------
def seen(events: Path, as_of: datetime, params: Params) -> pa.Table:
    """Per item of any event: item_id, first_seen and ``paid``, the lower median of what was lately
    paid per unit; null of what was not bought."""
    since = pa.scalar(as_of - timedelta(days=params.price_days), TIME)
    first, prices = [], []
    columns = ["item_id", "event_time", "event_type", "value", "quantity"]
    for rows in io.read_chunks(events, columns, ROWS, coded=["item_id", "event_type"]):
        rows = rows.unify_dictionaries()
        first.append(rows.group_by("item_id").aggregate([("event_time", "min")]))
        bought = pc.equal(rows["event_type"].cast(pa.string()), "purchase")
        lately = pc.greater_equal(rows["event_time"], since)
        paid = pc.fill_null(pc.greater(rows["value"], 0), False)
        rows = rows.filter(pc.and_(pc.and_(bought, lately), paid))
        price = pc.divide(rows["value"], rows["quantity"])
        prices.append(pa.table({"item_id": rows["item_id"], "price": price}))
    whole = pa.concat_tables(part.cast(FIRST) for part in first)
    whole = whole.group_by("item_id").aggregate([("event_time_min", "min")])
    ids, item = matrix.encode(pa.concat_tables(part.cast(PAID) for part in prices)["item_id"])
    price = np.concatenate([part["price"].to_numpy() for part in prices])
    order, starts = groups.in_order(item, price)
    sizes = np.diff(np.append(starts, len(order)))
    median = pa.array(price[order[starts + (sizes - 1) // 2]], pa.float64())
    place = pc.index_in(whole["item_id"], value_set=ids)
    return pa.table({
        "item_id": whole["item_id"], "first_seen": whole["event_time_min_min"],
        "paid": median.take(place),
    })  # fmt: skip


ROWS = 1_000_000  # events that are looked at together
FIRST = pa.schema([("item_id", pa.string()), ("event_time_min", TIME)])
PAID = pa.schema([("item_id", pa.string()), ("price", pa.float64())])


def join_catalogue(seen_items: pa.Table, catalogue: pa.Table | None, as_of: datetime) -> pa.Table:
    """Items of the catalogue at ``as_of`` and of the events, in one table without positions."""
    valid = None if catalogue is None else in_force(catalogue, as_of)
    valid = ITEMS.empty_table() if valid is None else valid
    ids = onward.both(seen_items["item_id"], valid["item_id"])
    of_catalogue, of_events = _at(valid, ids), _at(seen_items, ids)
    return pa.table({
        "item_id": ids,
        **{name: of_catalogue[name] for name in ITEM_COLUMNS},
        "price": pc.coalesce(of_catalogue["price"], of_events["paid"]),
        "first_seen": of_events["first_seen"],
        "available": pc.fill_null(of_catalogue["available"], True),
        "flags": _lists(of_catalogue["flags"]),
        "catalogued": pc.is_in(ids, value_set=groups.one(valid["item_id"])),
    })  # fmt: skip


def in_force(catalogue: pa.Table, as_of: datetime) -> pa.Table:
    """Of each item the row of the catalogue that holds at ``as_of``, if one does: the newest.

    Of rows that hold from the same instant the one that withholds most counts, whichever order they
    come in: then by every other column, so that a rerun takes the same.
    """
    rows = catalogue.filter(pc.and_(pc.is_valid(catalogue["item_id"]), _holds(catalogue, as_of)))
    asked = pa.table({
        "item_id": rows["item_id"], "valid_from": rows["valid_from"],
        "available": pc.fill_null(rows["available"], True),
        "flags": pc.fill_null(pc.list_value_length(rows["flags"]), 0),
        "regions": pc.list_value_length(rows["regions"]),
    })  # fmt: skip
    descending = ("valid_from", "flags")
    order = pc.sort_indices(asked, sort_keys=[
        (name, "descending" if name in descending else "ascending") for name in asked.column_names
    ])  # fmt: skip
    rows, asked = rows.take(order), asked.take(order)
    firsts = groups.runs(asked, ["item_id"])
    # Rows that agree in all of that are few: of these the rest is compared.
    since = pc.fill_null(asked["valid_from"].cast(pa.int64()), NEVER)
    shelves = pc.fill_null(asked["regions"], -1)
    told = asked.drop_columns(["valid_from", "regions"])
    told = told.append_column("since", since).append_column("shelves", shelves)
    alike = groups.runs(told, told.column_names)
    ends = np.append(alike, rows.num_rows)[np.searchsorted(alike, firsts, side="right")]
    for number in np.flatnonzero(ends - firsts > 1):
        several = rows.slice(firsts[number], ends[number] - firsts[number]).to_pylist()
        firsts[number] += min(range(len(several)), key=lambda n: _rest(several[n]))
    return rows.take(pa.array(firsts))


def _rest(row: dict[str, Any]) -> list[Any]:
    """By what rows of one item are ordered that withhold as much; null comes first."""
    attributes = row["attributes"]
    ordered = [
        row["flags"],
        *(row[name] for name in ITEM_COLUMNS if name != "attributes"),
        None if attributes is None else sorted(dict(attributes).items(), key=_ordered),
        row["available"],
    ]
    return [_ordered(value) for value in ordered]


def _ordered(value: Any) -> tuple[Any, ...]:
    if value is None:
        return (0,)
    if isinstance(value, list | tuple):
        return (1, [_ordered(part) for part in value])
    return (1, value != value, 0.0 if value != value else value)


def duplicates(catalogue: pa.Table) -> int:
    """How many rows of the catalogue hold from the same instant as another one of their item."""
    named = catalogue.filter(pc.is_valid(catalogue["item_id"])).select(["item_id", "valid_from"])
    return int(named.num_rows - named.group_by(["item_id", "valid_from"]).aggregate([]).num_rows)


def not_in_force(catalogue: pa.Table, yesterday: pa.Table, as_of: datetime) -> int:
    """How many items that a catalogue named before are named tonight in rows alone that are not in
    force at ``as_of``."""
    now = catalogue["item_id"].filter(_holds(catalogue, as_of))
    was = yesterday["item_id"].filter(yesterday["catalogued"])
    named = pc.is_in(was, value_set=groups.one(catalogue["item_id"]))
    later = pc.and_(named, pc.invert(pc.is_in(was, value_set=groups.one(now))))
    return int(pc.sum(later, min_count=0).as_py())


def keep_absent(known: pa.Table, yesterday: pa.Table, catalogue: pa.Table) -> pa.Table:
    """The items, those that a catalogue named before and of which no row of tonight's is in force
    as they were; unavailable where it has none at all."""
    was = yesterday.filter(yesterday["catalogued"])
    ids = onward.both(known["item_id"], was["item_id"])
    of_now, before = (
        pc.fill_null(pc.index_in(ids, value_set=groups.one(rows["item_id"])), -1).to_numpy()
        for rows in (known, was)
    )
    of_catalogue = pc.is_in(ids, value_set=groups.one(known["item_id"].filter(known["catalogued"])))
    absent = (before >= 0) & ~of_catalogue.to_numpy(zero_copy_only=False)
    kept = [*ITEM_COLUMNS, "flags", "available"]
    both = pa.concat_tables([known.select(kept), was.select(kept).cast(known.select(kept).schema)])
    rows = both.take(pa.array(np.where(absent, known.num_rows + before, of_now)))
    named = pc.is_in(ids, value_set=groups.one(catalogue["item_id"]))
    departed = pc.and_(pa.array(absent), pc.invert(named))
    there = known.take(pa.array(of_now, mask=of_now < 0))
    return pa.table({
        "item_id": ids,
        **{name: rows[name] for name in kept},
        "first_seen": there["first_seen"],
        "available": pc.if_else(departed, False, rows["available"]),
        "catalogued": pc.fill_null(there["catalogued"], False),
    })  # fmt: skip


# --- its place -------------------------------------------------------------------------------
def place(known: pa.Table, yesterday: pa.Table | None) -> pa.Table:
    """The table ``items``: every item with its position, yesterday's or the next free ones in the
    order of ids."""
    before = ITEMS.empty_table() if yesterday is None else yesterday
    ids = onward.both(known["item_id"], before["item_id"])
    rows, was = _at(known, ids), _at(before, ids)
    position = pc.fill_null(was["position"], -1).to_numpy().copy()
    new = position < 0
    position[new] = position.max(initial=-1) + 1 + np.arange(np.count_nonzero(new))
    catalogued = (pc.fill_null(one["catalogued"], False) for one in (rows, was))
    return pa.table({
        **{name: rows[name] for name in rows.column_names},
        "item_id": ids,
        "position": position,
        "available": pc.fill_null(rows["available"], False),
        "flags": _lists(rows["flags"]),
        "catalogued": pc.or_(*catalogued),
    }).select(ITEMS.names).cast(ITEMS)  # fmt: skip


def editorial(lists: pa.Table | None, items: pa.Table, as_of: datetime) -> pa.Table:
    """The table ``editorial``: places of curated lists that are in force at ``as_of`` and name a
    known item."""
    schema = tables.TABLES["editorial"].schema
    if lists is None:
        return schema.empty_table()
    now = pa.scalar(as_of, TIME)
    begun = pc.fill_null(pc.less_equal(lists["starts"], now), True)
    lasts = pc.fill_null(pc.greater(lists["ends"], now), True)
    known = pc.is_in(lists["item_id"], value_set=groups.one(items["item_id"]))
    return lists.filter(pc.and_(pc.and_(begun, lasts), known)).select(schema.names)


def id_map_hash(items: pa.Table) -> str:
    """sha256 over the item ids in the order of their positions, newline after each."""
    digest = hashlib.sha256()
    for item_id in items.sort_by("position")["item_id"].to_pylist():
        digest.update(item_id.encode() + b"\n")
    return digest.hexdigest()


def _holds(catalogue: pa.Table, as_of: datetime) -> pa.ChunkedArray:
    """(n_rows,) booleans: which rows are in force."""
    now = pa.scalar(as_of, TIME)
    valid, created = (
        pc.fill_null(pc.less(catalogue[name], now), True) for name in ("valid_from", "created_time")
    )
    return pc.and_(valid, created)


def _at(rows: pa.Table, ids: pa.Array) -> pa.Table:
    """The row of each id, nulls for one that has none."""
    return rows.take(pc.index_in(ids, value_set=groups.one(rows["item_id"])))


def _lists(lists: pa.ChunkedArray) -> pa.Array:
    """The lists, empty ones in place of null."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    offsets = pa.array(np.cumsum([0, *lengths]), pa.int32())
    return pa.ListArray.from_arrays(offsets, groups.one(pc.list_flatten(lists)))
