"""A shop whose people's tastes drift at a known rate, as the published tables of a night.

Every person has a few favourite items and buys mostly those. Each favourite is replaced by another
item at a constant hazard, so that a favourite is still one after ``a`` days with probability
``exp(-a / taste_days)``, and so fades what a list foresees.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from jobs import io, tables
from jobs.io import Lake

AS_OF = datetime(2024, 3, 1, tzinfo=UTC)
FAVOURITES = 5


def publish(
    lake: Lake,
    taste_days: float,
    people: int = 400,
    items: int = 300,
    days: int = 200,
    newcomers: int = 0,
    seed: int = 3,
) -> None:
    """Publish what :mod:`jobs.evaluation.staleness` reads, as of ``AS_OF``.

    A person visits every other day and buys of each favourite with probability 0.3, and now and
    then anything. ``newcomers`` of the people come in the last week alone.
    """
    random = np.random.default_rng(seed)
    bought = _bought(random, taste_days, people, items, days)
    came = np.where(np.arange(people) < newcomers, days - 7, 0)
    bought = bought[bought[:, 2] >= came[bought[:, 0]]]
    item_ids = [f"i{number:04d}" for number in range(items)]
    start = AS_OF - timedelta(days=days)
    history = _history(random, bought, start)
    _publish(lake, "history", history)
    _publish(lake, "events", _events(history))
    io.write_json(lake.staged("source", AS_OF) / "source.json", {"folder": str(lake.root)})
    _publish(lake, "source_tables", tables.TABLES["source_tables"].schema.empty_table())
    _publish(lake, "items", pa.Table.from_pylist(
        [{"item_id": item, "position": place, "available": True, "flags": [],
          "first_seen": start - timedelta(days=99)} for place, item in enumerate(item_ids)],
        tables.TABLES["items"].schema,
    ), editorial=tables.TABLES["editorial"].schema.empty_table())  # fmt: skip
    _publish(lake, "persons", pa.Table.from_pylist(
        [{"person_id": f"account:{person}", "household_id": f"account:{person}",
          "personalised": True, "restrictions": [], "keys": 1} for person in range(people)],
        tables.TABLES["persons"].schema,
    ), identities=pa.Table.from_pylist(
        [{"key_type": "account", "key": str(person), "person_id": f"account:{person}",
          "household_id": f"account:{person}", "component": f"account:{person}"}
         for person in range(people)],
        tables.TABLES["identities"].schema,
    ), identity_links=tables.TABLES["identity_links"].schema.empty_table())  # fmt: skip
    vectors = random.normal(size=(items, 8)).astype(np.float32)
    _publish(lake, "content_vectors", pa.table(
        {"item_id": item_ids, "vector": list(vectors)}, tables.TABLES["content_vectors"].schema
    ))  # fmt: skip


def _bought(
    random: np.random.Generator, taste_days: float, people: int, items: int, days: int
) -> np.ndarray:
    """(n, 3) int64: person, item and day of each purchase."""
    favourites = random.integers(0, items, (people, FAVOURITES))
    found = []
    for day in range(days):
        replaced = random.random(favourites.shape) > np.exp(-1 / taste_days)
        favourites = np.where(replaced, random.integers(0, items, favourites.shape), favourites)
        visits = random.random(people) < 0.5
        person, slot = np.nonzero((random.random(favourites.shape) < 0.3) & visits[:, None])
        stray = np.flatnonzero(visits & (random.random(people) < 0.2))
        found += [
            np.c_[person, favourites[person, slot], np.full(len(person), day)],
            np.c_[stray, random.integers(0, items, len(stray)), np.full(len(stray), day)],
        ]
    return np.concatenate(found)


def _history(random: np.random.Generator, bought: np.ndarray, start: datetime) -> pa.Table:
    person, item, day = bought.T
    seconds = day * 86_400 + random.integers(0, 86_400, len(day))
    times = pa.array((int(start.timestamp()) + seconds) * 1_000_000).cast(tables.TIME)
    columns: dict[str, Any] = {
        "event_id": [f"e{number}" for number in range(len(day))],
        "person_id": [f"account:{each}" for each in person],
        "item_id": [f"i{each:04d}" for each in item],
        "event_type": ["purchase"] * len(day),
        "event_time": times,
        "received_time": times,
        "basket": [f"{p}|{d}" for p, d in zip(person, day, strict=True)],
        "session": [f"{p}|{d}" for p, d in zip(person, day, strict=True)],
        "quantity": np.ones(len(day)),
        "value": np.full(len(day), 2.0),
        "event_date": times.cast(tables.DATE),
        "resolved_by": ["key"] * len(day),
        "key_type": ["account"] * len(day),
        "key": [str(each) for each in person],
    }
    return _table("history", columns, len(day))


def _events(history: pa.Table) -> pa.Table:
    """The events that the history was resolved from."""
    columns = {name: history[name] for name in history.schema.names}
    columns["first_received"] = history["received_time"]
    columns["revision"] = np.zeros(history.num_rows, np.int32)
    return _table("events", columns, history.num_rows)


def _table(name: str, columns: dict[str, Any], rows: int) -> pa.Table:
    """The declared table from the columns that are given, the rest null."""
    schema = tables.TABLES[name].schema
    return pa.table(
        {column: columns.get(column, pa.nulls(rows, schema.field(column).type))
         for column in schema.names}, schema=schema,
    )  # fmt: skip


def _publish(lake: Lake, name: str, rows: pa.Table, **more: pa.Table) -> None:
    step = tables.TABLES[name].step
    folder = lake.staged(step, AS_OF)
    for each, table in ({name: rows} | more).items():
        io.write_arrow(folder / each, table)
    io.write_json(folder / "manifest.json", {"step": step, "source": "test"})
    lake.publish(step, AS_OF, "test-run")
