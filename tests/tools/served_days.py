"""Some days of a small shop on which lists were served, made without a night."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from jobs import io
from jobs.release import recorder
from jobs.release.basis import Known
from jobs.release.reader import PERSONAL, POOLS, Answer, Listed
from jobs.scoring import features
from jobs.sources import simulated
from jobs.sources.simulated.crowd import Crowd
from jobs.sources.simulated.goods import Goods
from jobs.sources.simulated.serving import Answers
from jobs.tables import FEATURES
from tools import world_days
from tools.planting import Planted, Tables, plant
from tools.planting.measurement import STRANGER

SHOP = "events=30000,people=120,items=80,days=24,requests=0,end=2024-03-01"
START = date(2024, 2, 16)
RELEASE = "20240216T000000Z-0123456789"
PAGE = 6
LENGTH = 8


class Store:
    """What a reader of a release answers: a few people's own lists, and one for everybody else."""

    def __init__(self, people: Answers):
        rng = np.random.default_rng(3)
        self.lists = {
            world_days.account_of(person): rng.choice(people.goods.shop.items, LENGTH, False)
            for person in range(people.goods.shop.people)
        }

    def person(self, key_type: str, key: str) -> str | None:
        return f"account:{key}" if key_type == "account" else None

    def recommendations(self, person: str | None, surface: str, length: int) -> Answer:
        own = person is not None
        items = self.lists[person] if own else np.arange(LENGTH)
        listed = tuple(
            Listed(f"i{item}", 0.5 / (1 + place), own=own, scored=own)
            for place, item in enumerate(items[:length])
        )
        kind, why = (PERSONAL, "the person's own list") if own else (POOLS, STRANGER)
        return Answer(RELEASE, kind, why, listed, surface, person)

    def known(self, persons: Sequence[str]) -> dict[str, Known]:
        found = {}
        for person in sorted(persons):
            rng = np.random.default_rng(int(person.removeprefix("account:a")))
            values = rng.uniform(1, 2, (LENGTH, len(FEATURES))).astype(np.float32)
            values[:, 3] = np.nan
            rows = {f"i{item}": row for row, item in enumerate(self.lists[person])}
            versions = [features.VERSION] * LENGTH
            found[person] = Known(FEATURES, rows, values, versions, features.hashes(values))
        return found


@cache
def tables() -> Tables:
    """The tables of these days, before any fault."""
    shop = simulated.parse(SHOP).sized()
    goods = Goods(shop)
    people = Answers(goods, Crowd(shop, goods))
    with TemporaryDirectory() as home:
        simulated.convert(SHOP, Path(home))
        events = io.read_arrow(Path(home) / "events")
        sessions = io.read_arrow(Path(home) / "truth" / "sessions")
        items = io.read_arrow(Path(home) / "items")
    asked = world_days.askers(events, sessions)
    logs, truths = zip(
        *(day(people, asked, START + timedelta(days=n)) for n in range(14)), strict=True
    )
    bought = np.random.default_rng(1).random(4000) < 0.1
    return Tables(
        people=people,
        log=pa.concat_tables(logs).combine_chunks(),
        truth=pa.concat_tables(truths).combine_chunks(),
        shop=events,
        items=items,
        catalogue={
            label: items.select(["item_id", "category"]) for label in ("2024-02-15", "2024-02-22")
        },
        examples=pa.table({
            "taste": pa.array(np.random.default_rng(2).normal(2, 3, 4000).astype(np.float32)),
            "affinity": pa.array(np.ones(4000, np.float32)), "bought": bought,
        }),
        metrics={"decision": {"threshold": None}, "kpi": "conversion"},
        seed=5,
    )  # fmt: skip


def day(people: Answers, asked: pa.Table, when: date) -> tuple[pa.Table, pa.Table]:
    """The log and the truth of one day."""
    noon = datetime(when.year, when.month, when.day, 12, tzinfo=UTC)
    number = (noon - people.goods.shop.start).days
    rng = np.random.default_rng([7, number])
    rows, store = world_days.of_day(asked, when), Store(people)
    served = world_days.answered(
        store, rows, LENGTH, PAGE, rng, "homepage", lambda person: ("new", "old")[person % 2]
    )  # type: ignore[arg-type]
    known = store.known(world_days.people_in(served))
    log = recorder.rows_of(served, {RELEASE: known})
    return log, world_days.truth_of(log, rows, people, number, rng)


def planted(kind: str, severity: float = 0.5, start: date = START, **scope: object) -> Tables:
    """The tables with one fault in them."""
    return plant(tables(), [Planted(kind, start, severity, scope)])


def events(made: Tables) -> pa.Table:
    """The answers to the lists, as events."""
    return world_days.events_of(made.truth, made.people.goods.shop)
