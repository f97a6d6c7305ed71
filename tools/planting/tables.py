"""What faults change: the tables of a world and the requests in them; what several faults share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.sources.simulated.crowd import SEGMENTS, Crowd
from jobs.sources.simulated.serving import Answers, looks
from tools import world_days

WHERE = ("region", "segment", "channel", "key_type")  # of requests
TIME = pa.timestamp("us", tz="UTC")
CHANCES = ("attraction", "conversion")


@dataclass(frozen=True)
class Planted:
    """One fault to be planted."""

    kind: str
    start: date
    severity: float
    scope: Mapping[str, Any] = field(default_factory=dict)

    @property
    def begins(self) -> datetime:
        return datetime(self.start.year, self.start.month, self.start.day, tzinfo=UTC)

    def option(self, name: str, default: Any) -> Any:
        return self.scope.get(name, default)


@dataclass(frozen=True)
class Tables:
    """What faults change; a table that none of them changes stays the same object.

    ``log``: rows of ``recommendation_log``; ``truth``: the places that the page showed, as
    ``world_days.truth_of`` has them; ``shop``: the events that answer no list; ``items``: the
    contract's; ``catalogue``: by run date, the table ``items`` of a night; ``examples``: those of
    the newest night; ``metrics``: the metrics file.
    """

    people: Answers
    log: pa.Table
    truth: pa.Table
    shop: pa.Table
    items: pa.Table
    catalogue: Mapping[str, pa.Table]
    examples: pa.Table
    metrics: Mapping[str, Any]
    seed: int = 0

    def with_columns(self, table: str, **columns: Any) -> Tables:
        """With columns of one of its tables replaced."""
        rows = getattr(self, table)
        for name, values in columns.items():
            at = rows.schema.get_field_index(name)
            kind = rows.schema.field(at).type
            made = pa.chunked_array([pa.array(values, kind)]) if isinstance(
                values, np.ndarray | list) else values.cast(kind)  # fmt: skip
            rows = rows.set_column(at, rows.schema.field(at), made)
        return replace(self, **{table: rows})

    @cached_property
    def requests(self) -> Requests:
        """Who asked, a row per request."""
        first = self.truth.group_by("request_id", use_threads=False).aggregate([
            (name, "first")
            for name in ("request_time", "person", "region", "channel", "key_type", "key")
        ])  # fmt: skip
        person = first["person_first"].to_numpy()
        names = {name: texts(first[f"{name}_first"]) for name in ("region", "channel", "key_type")}
        return Requests(
            texts(first["request_id"]), first["request_time_first"].to_numpy(), person,
            {**names, "segment": np.array(SEGMENTS)[self.people.crowd.segment[person]]},
            np.char.add(np.char.add(names["key_type"], ":"), texts(first["key_first"])),
        )  # fmt: skip


@dataclass(frozen=True)
class Requests:
    """(n,) columns, a row per request; ``facts``: by name, what ``scope`` may choose by."""

    ids: np.ndarray
    time: np.ndarray
    person: np.ndarray
    facts: Mapping[str, np.ndarray]
    key: np.ndarray

    def of(self, rows: pa.Table) -> np.ndarray:
        """(n,) the request of each row of a table."""
        return pc.index_in(rows["request_id"], pa.array(self.ids)).to_numpy()

    def since(self, fault: Planted) -> np.ndarray:
        """(n,) bool: in the fault's time and scope."""
        inside = self.time >= np.datetime64(fault.begins.replace(tzinfo=None))
        for name in WHERE:
            if name in fault.scope:
                inside &= np.isin(self.facts[name], listed(fault.scope[name]))
        return inside


# --- rows ----------------------------------------------------------------------------------
def hidden(tables: Tables, rows: np.ndarray) -> Tables:
    """With rows of the log not shown, so that nobody answers them."""
    place = tables.log["shown_position"]
    shown = pc.if_else(pa.array(rows), pa.scalar(None, place.type), place)
    return looked_at(tables.with_columns("log", shown_position=shown))


def looked_at(tables: Tables) -> Tables:
    """The truth's places and looks as the log now says; 0 where it does not show them."""
    bias = tables.people.goods.shop.position_bias
    key = {
        (request, position): place
        for request, position, place in zip(
            *(tables.log[name].to_pylist() for name in ("request_id", "position",
                                                        "shown_position")), strict=True)
    }  # fmt: skip
    rows = zip(tables.truth["request_id"].to_pylist(), tables.truth["position"].to_pylist(),
               strict=True)  # fmt: skip
    place = np.array([key.get(row) or 0 for row in rows], np.int64)
    look = looks(max(place.max(initial=1), 1), bias)[np.maximum(place, 1) - 1]
    return tables.with_columns("truth", look=np.where(place > 0, look, 0.0))


def answered_anew(tables: Tables, request_ids: pa.Array) -> Tables:
    """The truth's items and chances as the log now says, for these requests; luck stays."""
    log, truth, goods = tables.log, tables.truth, tables.people.goods
    # People of their own: their days can be asked for in order alone.
    people = Answers(goods, Crowd(goods.shop, goods))
    hit = pc.is_in(truth["request_id"], value_set=pc.unique(request_ids)).to_numpy()
    item = dict(zip(zip(log["request_id"].to_pylist(), log["position"].to_pylist(), strict=True),
                    log["item_id"].to_pylist(), strict=True))  # fmt: skip
    rows = list(zip(truth["request_id"].to_pylist(), truth["position"].to_pylist(), strict=True))
    names = [item.get(row, old) for row, old in
             zip(rows, truth["item_id"].to_pylist(), strict=True)]  # fmt: skip
    number = np.array([int(name[1:]) for name in names])
    gone = np.array([row not in item for row in rows])
    start = np.datetime64(goods.shop.start.replace(tzinfo=None))
    day = (truth["request_time"].to_numpy() - start) // np.timedelta64(1, "D")
    price = truth["price"].to_numpy().copy()
    chances = {name: truth[name].to_numpy().copy() for name in CHANCES}
    for one in np.unique(day[hit]):
        mine = np.flatnonzero(hit & (day == one))
        found = people.chances(
            int(one), truth["person"].to_numpy()[mine], number[mine, None],
            goods.in_stock(int(one)),
        )  # fmt: skip
        chances["attraction"][mine] = found.attraction[:, 0]
        chances["conversion"][mine] = found.conversion[:, 0]
        price[mine] = goods.prices(int(one))[number[mine]]
    look = np.where(gone, 0.0, truth["look"].to_numpy())
    return tables.with_columns("truth", item_id=names, price=price, look=look, **chances)


def with_luck(tables: Tables, rows: np.ndarray, rng: np.random.Generator) -> Tables:
    """With new luck for these rows of the truth."""
    drawn = world_days.drawn(rng, tables.truth.num_rows)
    return tables.with_columns("truth", **{
        name: np.where(rows, values, tables.truth[name].to_numpy())
        for name, values in drawn.items()
    })  # fmt: skip


def own_events(tables: Tables, fault: Planted, kind: str) -> np.ndarray:
    """(n,) bool: the shop's own events of a kind, in the fault's time and scope."""
    shop, crowd = tables.shop, tables.people.crowd
    inside = pc.and_(
        pc.equal(shop["event_type"], kind),
        pc.greater_equal(shop["event_time"], pa.scalar(fault.begins, TIME)),
    ).to_numpy()
    for name in ("region", "channel", "key_type"):
        if name in fault.scope:
            inside &= np.isin(texts(shop[name]), listed(fault.scope[name]))
    if "segment" in fault.scope:
        # Whose an event is can be told of accounts alone.
        number = {f"a{world_days.FIRST + person}": person for person in range(len(crowd.segment))}
        person = np.array([number.get(key, -1) for key in shop["key"].to_pylist()])
        named = np.array(SEGMENTS)[crowd.segment[person]]
        inside &= (person >= 0) & np.isin(named, listed(fault.scope["segment"]))
    return inside


def luck(names: np.ndarray, seed: int, fault: Planted) -> np.ndarray:
    """(n,) draws in [0, 1), the same for the same name, seed and kind, at every severity: what a
    faint fault hits, a gross one hits too."""
    each, at = np.unique(names, return_inverse=True)
    salt = f"{seed}\0{fault.kind}\0".encode()
    drawn = np.array([
        int.from_bytes(hashlib.blake2b(salt + str(name).encode(), digest_size=8).digest()) / 2**64
        for name in each
    ])  # fmt: skip
    return drawn[at]


def texts(column: pa.ChunkedArray) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False).astype(str)


def keys_of(rows: pa.Table) -> np.ndarray:
    """(n,) key type and key in one text."""
    return np.char.add(np.char.add(texts(rows["key_type"]), ":"), texts(rows["key"]))


def listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
