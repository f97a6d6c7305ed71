"""Synthetic examples that hold a rule which a ranker can learn and no single source knows."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa

from jobs.scoring.features import signal
from jobs.tables import FEATURES, SOURCES, TABLES
from tests.conftest import AS_OF

CANDIDATES = 30


def tables(people: int, cuts: int = 3, seed: int = 1, noise: bool = False) -> dict[str, pa.Table]:
    """``examples`` and ``example_people``: who bought follows ``due`` and ``affinity`` together;
    buy_again ranks by ``due`` alone. With ``noise`` nothing says what is bought."""
    generator = np.random.default_rng(seed)
    rows, asked = [], []
    for cut in range(1, cuts + 1):
        size = people * CANDIDATES
        person = np.repeat(np.arange(people), CANDIDATES)
        values = {name: np.full(size, np.nan) for name in FEATURES}
        values |= {name: np.zeros(size) for name in FEATURES[-len(SOURCES) :]}
        due, affinity = generator.normal(size=(2, size))
        values |= {"due": due, "affinity": affinity, "baskets": generator.integers(0, 2, size)}
        ranks = np.lexsort((-due, person)).reshape(people, CANDIDATES)
        place = np.empty(size)
        place[ranks] = np.arange(1, CANDIDATES + 1)
        values["buy_again_signal"] = signal(place)
        odds = generator.normal(size=size) if noise else 1.2 * due + 2.0 * affinity - 2.0
        bought = generator.random(size) < 1 / (1 + np.exp(-odds))
        bought[::CANDIDATES] = True
        ids = pa.array([f"p{p:04d}" for p in range(people)])
        moment = AS_OF - timedelta(days=28 * cut)
        rows.append(pa.table({
            "person_id": ids.take(pa.array(person)),
            "item_id": pa.array([f"i{n % CANDIDATES:03d}" for n in range(size)]),
            "as_of": pa.array([moment] * size, pa.timestamp("us", tz="UTC")),
            "trained": np.ones(size, bool), "bought": bought, "label": bought.astype(float),
            "weight": np.ones(size),
            **{name: column.astype(np.float32) for name, column in values.items()},
        }, schema=TABLES["examples"].schema))  # fmt: skip
        new = bought & (values["baskets"] == 0)
        asked.append(pa.table({
            "person_id": ids, "as_of": pa.array([moment] * people, pa.timestamp("us", tz="UTC")),
            "wanted": np.bincount(person, bought, people).astype(np.int64),
            "wanted_new": np.bincount(person, new, people).astype(np.int64),
            "region": ["north" if p % 4 else "south" for p in range(people)],
            "segment": pa.nulls(people, pa.string()),
            "first_seen": pa.array(
                [moment - timedelta(days=1 + 10 * (p % 5)) for p in range(people)],
                pa.timestamp("us", tz="UTC"),
            ),
            "events": np.arange(people, dtype=np.int64) % 7,
        }, schema=TABLES["example_people"].schema))  # fmt: skip
    return {"examples": pa.concat_tables(rows), "example_people": pa.concat_tables(asked)}
