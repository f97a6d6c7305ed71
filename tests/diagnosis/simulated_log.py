"""A log with features whose truth is known: who asks, what they buy, and what is planted in it.

People ask several times, in the reference and now; features repeat by person, by item or by both;
each person has a taste that no feature tells, and each day its own weather. So rows depend on each
other in the ways that a real log's do. Each feature is drawn by its name, so that one more feature
changes no other and no purchase.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from jobs import io
from jobs.io import Lake
from jobs.tables import FEATURES, TABLES
from tests.diagnosis.small_log import DEFINED
from tests.expectations.good import AS_OF

PLACES = 10
NIGHT = datetime(2017, 11, 16, tzinfo=UTC)
CUTS = [NIGHT - timedelta(days=28), NIGHT - timedelta(days=56)]
START = date(2017, 11, 17)  # of the current period
DAYS = {"current": 14, "reference": 28, "last_year": 14}
# What the first features say of a purchase: the log-odds of a standard deviation of each.
WEIGHTS = np.array([0.7, 0.5, 0.4, -0.4, 0.3])
TRUE = np.r_[WEIGHTS, np.zeros(len(FEATURES) - len(WEIGHTS))]


@dataclass(frozen=True)
class World:
    """People and items of a shop; all periods are drawn from one."""

    seed: int = 1
    people: int = 700
    items: int = 150
    level: float = -2.4
    person: np.ndarray = field(init=False)
    item: np.ndarray = field(init=False)
    taste: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        generator = np.random.default_rng(self.seed)
        set_ = object.__setattr__
        set_(self, "person", _normal(self.people, self.seed, 1))
        set_(self, "item", _normal(self.items, self.seed, 2))
        set_(self, "taste", 0.4 * generator.normal(size=self.people))


@dataclass(frozen=True)
class Planted:
    """What is different in a period: ``rate``: a factor of every chance; ``slope``: of the
    features' log-odds; ``shift``: standard deviations by feature; ``by_region``: log-odds."""

    rate: float = 1.0
    slope: float = 1.0
    shift: Mapping[str, float] = field(default_factory=dict)
    by_region: tuple[float, float, float] = (0.0, 0.0, 0.0)
    regions: tuple[float, float, float] = (0.5, 0.3, 0.2)


def drawn(
    world: World, period: str, requests: int, seed: int, planted: Planted | None = None
) -> pa.Table:
    """Rows of ``served_features`` of one period."""
    planted = planted or Planted()
    generator = np.random.default_rng([world.seed, seed, len(period)])
    # A person lives in one region; a change of who asks brings other people.
    home = np.arange(world.people) % 10
    home = np.where(home < 5, 0, np.where(home < 8, 1, 2))
    chance = np.array(planted.regions)[home] / np.bincount(home, minlength=3)[home]
    who = generator.choice(world.people, requests, p=chance / chance.sum())
    day = generator.integers(0, DAYS[period], requests)
    items = np.array([generator.choice(world.items, PLACES, replace=False) for _ in who])
    own = _normal(items.size, world.seed, seed, len(period))
    z = _features(world, np.repeat(who, PLACES), items.ravel(), own)
    z += np.array([planted.shift.get(name, 0.0) for name in FEATURES])
    expected = z @ TRUE
    # The best first, as lists are; what is left of chance is the order among equals.
    order = np.argsort(-expected.reshape(requests, PLACES), axis=1)
    position = np.argsort(order, axis=1) + 1
    weather = 0.05 * generator.normal(size=DAYS[period])
    region = np.repeat(home[who], PLACES)
    logit = (
        world.level + planted.slope * expected - 0.4 * np.log(position.ravel())
        + np.repeat(world.taste[who] + weather[day], PLACES) + np.array(planted.by_region)[region]
    )  # fmt: skip
    bought = generator.random(len(logit)) < planted.rate / (1 + np.exp(-logit))
    return _table(world, period, requests, who, day, items, position, z, region, expected, bought)


def _normal(size: int, *seed: int) -> np.ndarray:
    """(size, features) standard normal."""
    columns = [
        np.random.default_rng([*seed, zlib.crc32(name.encode())]).normal(size=size)
        for name in FEATURES
    ]
    return np.stack(columns, axis=1)


def _features(world: World, who: np.ndarray, item: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(n, features) standard normal: every third of the person, of the item, and of both with
    what is the row's ``own``."""
    kind = np.arange(len(FEATURES)) % 3
    both = (world.person[who] + world.item[item] + own) / 3**0.5
    return np.where(kind == 0, both, np.where(kind == 1, world.person[who], world.item[item]))


def _table(
    world: World, period: str, requests: int, who: np.ndarray, day: np.ndarray, items: np.ndarray,
    position: np.ndarray, z: np.ndarray, region: np.ndarray, expected: np.ndarray,
    bought: np.ndarray,
) -> pa.Table:  # fmt: skip
    first = {"current": START, "reference": START - timedelta(days=28),
             "last_year": START - timedelta(days=364)}[period]  # fmt: skip
    number = np.repeat(np.arange(requests), PLACES)
    days = [first + timedelta(days=int(one)) for one in np.repeat(day, PLACES)]
    columns: dict[str, Any] = {
        "request_id": [f"{period}-{n}" for n in number], "position": position.ravel(), "day": days,
        "period": [period] * len(number), "mature": [True] * len(number),
        "surface": np.where(number % 2 == 0, "homepage", "basket"),
        "region": np.array(["north", "south", "west"])[region],
        "segment": np.where(np.repeat(who, PLACES) % 4 == 0, "family", "single"),
        "tenure": np.where(np.repeat(who, PLACES) % 5 == 0, "new", "known"),
        "key_type": ["account"] * len(number),
        "category": np.array([f"c{n}" for n in range(6)])[items.ravel() % 6],
        "person_id": [f"p{n}" for n in np.repeat(who, PLACES)],
        "item_id": [f"i{n}" for n in items.ravel()], "release_id": ["r"] * len(number),
        "night": [io.label(NIGHT)] * len(number), "score": 1 / (1 + np.exp(2.4 - expected)),
        "latency_ms": np.full(len(number), 5.0), "feature_version": ["1"] * len(number),
        "feature_hash": ["h"] * len(number), "clicked": bought, "bought": bought,
        "revenue": bought * 2.0, "weight": np.ones(len(number)),
        # Skewed and above 0, as counts and money are.
        **{name: np.exp(z[:, n]).astype(np.float32) for n, name in enumerate(FEATURES)},
    }  # fmt: skip
    schema = TABLES["served_features"].schema
    return pa.table({name: pa.array(columns[name], schema.field(name).type)
                     for name in schema.names}, schema=schema)  # fmt: skip


# --- a lake that holds it --------------------------------------------------------------------
def stage(
    lake: Lake, *parts: pa.Table, event: str = "purchase", threshold: float | None = None
) -> None:
    """Publish an agreement with this label and least score, and the step ``served`` with these rows
    of ``served_features``."""
    label = json.loads(DEFINED["label"]) | {"event": event}
    decision = json.loads(DEFINED["decision"]) | {"threshold": threshold}
    agreed = DEFINED | {"label": json.dumps(label), "decision": json.dumps(decision)}
    named = pa.Table.from_pylist(
        [{"name": name, "value": value, "fault": None} for name, value in agreed.items()],
        TABLES["definitions"].schema,
    )
    io.write_arrow(lake.staged("definitions", AS_OF) / "definitions", named)
    lake.publish("definitions", AS_OF, "one")
    rows = pa.concat_tables(parts)
    schema = pa.schema([field.with_nullable(True) for field in TABLES["served"].schema])
    given = set(rows.column_names) - {"value"}  # there it is a feature
    times = pa.array(
        [datetime(day.year, day.month, day.day, 12, tzinfo=UTC) for day in rows["day"].to_pylist()],
        schema.field("request_time").type,
    )
    columns = {
        field.name: rows[field.name] if field.name in given else pa.nulls(len(rows), field.type)
        for field in schema
    }
    served = pa.table(columns | {"request_time": times}, schema)
    io.write_arrow(lake.staged("served", AS_OF) / "served", served)
    io.write_arrow(lake.staged("served", AS_OF) / "served_features", rows)
    lake.publish("served", AS_OF, "one")


def stage_night(
    lake: Lake, examples: pa.Table | None, features: pa.Table | None, category: Mapping[str, str]
) -> None:
    """Publish of the night that served: its examples, its features and its catalogue."""
    for step, name, rows in (
        ("examples", "examples", examples),
        ("recommendations", "features", features),
        ("catalogue", "items", items(category)),
    ):
        if rows is not None:
            io.write_arrow(lake.staged(step, NIGHT) / name, rows)
            io.write_json(lake.staged(step, NIGHT) / "manifest.json", {})
            lake.publish(step, NIGHT, "one")


def stage_catalogue(lake: Lake, category: Mapping[str, str]) -> None:
    """Publish the run's own catalogue."""
    io.write_arrow(lake.staged("catalogue", AS_OF) / "items", items(category))
    lake.publish("catalogue", AS_OF, "one")


def items(category: Mapping[str, str]) -> pa.Table:
    """Rows of ``items`` of these categories by item."""
    rows = [
        {"item_id": item, "position": n, "category": path, "available": True, "flags": []}
        for n, (item, path) in enumerate(category.items())
    ]
    return pa.Table.from_pylist(rows, TABLES["items"].schema)


def as_examples(rows: pa.Table, cut: datetime = CUTS[0]) -> pa.Table:
    """Rows of ``served_features`` as examples of a cut."""
    return _as(rows, "examples", {
        "as_of": cut, "trained": True, "weight": 1.0, "label": rows["bought"].cast(pa.float64()),
    })  # fmt: skip


def as_features(rows: pa.Table) -> pa.Table:
    """Rows of ``served_features`` as what the night published."""
    return _as(rows, "features", {"event_timestamp": NIGHT})


def _as(rows: pa.Table, name: str, more: Mapping[str, Any]) -> pa.Table:
    schema = TABLES[name].schema
    columns = {
        field.name: rows[field.name] if field.name not in more
        else more[field.name] if isinstance(more[field.name], pa.ChunkedArray)
        else pa.repeat(pa.scalar(more[field.name], field.type), len(rows))
        for field in schema
    }  # fmt: skip
    return pa.table(columns, schema)


def changed(rows: pa.Table, **features: np.ndarray) -> pa.Table:
    """The rows with other values of these features; NaN is missing."""
    for name, values in features.items():
        column = pa.array(values.astype(np.float32), from_pandas=True)
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, rows.schema.field(name), column)
    return rows
