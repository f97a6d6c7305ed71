"""Small shops made of arrays: crowds of people who choose among their own items."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobs import io
from jobs.io import Lake
from jobs.night import Night
from jobs.tables import TABLES

AS_OF = datetime(2017, 12, 1, tzinfo=UTC)
AS_OF_US = int(AS_OF.timestamp() * 1_000_000)
DAY = 86_400_000_000


def crowds(n_people: int = 60, n_items: int = 40, n_crowds: int = 4, seed: int = 1) -> pa.Table:
    """The table ``interactions``: person p belongs to crowd p % n_crowds and chooses about half
    of the items i with i % n_crowds equal to it, and now and then another one."""
    generator = np.random.default_rng(seed)
    own = np.arange(n_people)[:, None] % n_crowds == np.arange(n_items)[None, :] % n_crowds
    chosen = generator.random((n_people, n_items)) < np.where(own, 0.5, 0.03)
    people, items = np.nonzero(chosen)
    order = generator.permutation(len(people))
    people, items = people[order], items[order]
    days = generator.integers(1, 90, len(people))
    times = pa.array(AS_OF_US - days * DAY).cast(pa.timestamp("us", tz="UTC"))
    return pa.table(
        {
            "person_id": [f"account:{p:03d}" for p in people],
            "item_id": [f"i{i:03d}" for i in items],
            "weight": generator.uniform(0.3, 3.0, len(people)),
            "purchases": np.ones(len(people)),
            "events": np.ones(len(people), np.int64),
            "first_time": times,
            "last_time": times,
        }
    )


def catalogue(item_ids: list[str], **columns: list) -> pa.Table:
    """The table ``items`` with nothing known of an item but what is given."""
    schema = TABLES["items"].schema
    rows = {name: [None] * len(item_ids) for name in schema.names} | {
        "item_id": item_ids,
        "position": list(range(len(item_ids))),
        "available": [True] * len(item_ids),
        "flags": [[] for _ in item_ids],
    }
    return pa.table(rows | columns, schema=schema)


@pytest.fixture
def publish(tmp_path: Path) -> Callable[..., Night]:
    """Publishes tables of a step in a lake without an engine, and makes nights of it."""

    lake = Lake(tmp_path / "lake").open()

    def make(step: str, as_of: datetime = AS_OF, **tables: pa.Table) -> Night:
        night = Night(lake, as_of, "test-run", "test", step)
        night.reset()
        for name, rows in tables.items():
            night.write(name, rows)
        if tables:
            io.write_json(night.staged / "manifest.json", {})
            lake.publish(step, as_of, "test-run")
            night.reset()
        return night

    return make
