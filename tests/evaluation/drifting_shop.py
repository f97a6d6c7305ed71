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
    _publish(lake, "history", _history(random, bought, start))
    _publish(lake, "items", pa.Table.from_pylist(
        [{"item_id": item, "position": place, "available": True, "flags": [],
          "first_seen": start - timedelta(days=99)} for place, item in enumerate(item_ids)],
        tables.TABLES["items"].schema,
    ), editorial=tables.TABLES["editorial"].schema.empty_table())  # fmt: skip
    _publish(lake, "persons", pa.Table.from_pylist(
        [{"person_id": f"account:{person}", "household_id": f"account:{person}",
          "personalised": True, "restrictions": [], "keys": 1} for person in range(people)],
        tables.TABLES["persons"].schema,
    ))  # fmt: skip
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
    }
    schema = tables.TABLES["history"].schema
    return pa.table(
        {name: columns.get(name, pa.nulls(len(day), schema.field(name).type))
         for name in schema.names}, schema=schema,
    )  # fmt: skip


def _publish(lake: Lake, name: str, rows: pa.Table, **more: pa.Table) -> None:
    step = tables.TABLES[name].step
    folder = lake.staged(step, AS_OF)
    for each, table in ({name: rows} | more).items():
        io.write_arrow(folder / each, table)
    io.write_json(folder / "manifest.json", {"step": step, "source": "test"})
    lake.publish(step, AS_OF, "test-run")
