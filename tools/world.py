"""A world in which releases of ours are served and people answer: a shop, its nights, its days.

The simulated shop lies in the source contract's shape; a night of the pipeline runs every few days
on what had been received by then; between two nights each online session asks the newest release,
the page shows the first places, people answer by the simulator's truth, and log and answers go into
the source, so that later nights learn from them. A last night is begun at the end itself: what a
day's diagnosis runs behind.

    <folder>/source/   the contract's tables, with what was served in files of its own, a day each
    <folder>/lake/     the nights and their releases
    <folder>/truth/    answers/<day>.parquet: each shown place, its chances and what was drawn
    <folder>/world.json   written last: the settings and the commit

A world is built once for its settings and its code, and kept for as many planted faults as share
it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from jobs import io, steps
from jobs.__main__ import code_version, command
from jobs.diagnosis.experiments import assignment
from jobs.errors import Fault
from jobs.io import Lake
from jobs.release import recorder, releases
from jobs.release.basis import Basis
from jobs.release.reader import Reader
from jobs.release.stores import LmdbStore
from jobs.sources import simulated
from jobs.sources.simulated.crowd import Crowd
from jobs.sources.simulated.goods import Goods
from jobs.sources.simulated.serving import Answers
from jobs.sources.simulated.settings import Shop
from tools import code_digest, world_days

# What makes a world: the code of its nights, its shop and its days.
CODE = ("jobs", "expectations", "tools/world.py", "tools/world_days.py")
ONLY_DIAGNOSES = ("jobs/diagnosis", "jobs/pages")
RUN_ID = "world"
SETTINGS = ("days", "every", "length", "page", "seed")  # that can be chosen in a line of text
LAST = (*steps.BEFORE_DIAGNOSIS, "identities", "sessions")  # of the night of the end
SERVED = "served-{:%Y-%m-%d}"  # a day's files in events and in recommendation_log
# Small nights: one surface, and of everything as much as a shop of a few thousand people needs.
NIGHT: dict[str, dict[str, Any]] = {
    "embeddings": {"factors": 16},
    "candidates": {"depth": 40, "pool_depth": 40},
    "examples": {"max_people": 500, "cuts": 2},
    "ranker": {"scored": 100, "members": 1, "trees": 80},
    "recommendations": {
        "surfaces": {
            "homepage": {"length": 12},
            "discover": None, "digest": None, "trending": None, "feed": None,
        },
        "pool_depth": 40,
    },
    "audits": {"max_people": 300, "max_releases": 1},
    # Nights are a week apart here, and their releases are to serve all of it.
    "release": {"age_ceiling_hours": 400},
}  # fmt: skip


@dataclass(frozen=True)
class World:
    """The settings of a world."""

    # The simulated shop; the nights see no list of its own making.
    shop: str = (
        "events=300000,people=3000,items=600,days=120,requests=0,end=2024-03-01,"
        "logins=0.4,cookie_days=60"
    )
    # The days before the end on which our releases are served, and how far nights lie apart.
    days: int = 49
    every: int = 7
    # Places of an answer, and how many of them the page shows.
    length: int = 12
    page: int = 10
    seed: int = 11
    # Of the experiment, in which both arms are served alike.
    salt: str = "winter"
    night: dict[str, dict[str, Any]] = field(default_factory=lambda: NIGHT)

    @property
    def settings(self) -> Shop:
        return simulated.parse(self.shop).sized()

    @property
    def end(self) -> date:
        """The first day that is not in the world: the run date of its diagnosis."""
        return date.fromisoformat(self.settings.end)

    @property
    def digest(self) -> str:
        """Names what the settings make, by the code as it is: of other features or other lists it
        is another world."""
        code = code_digest.of(CODE, without=ONLY_DIAGNOSES)
        text = json.dumps([code, asdict(self), repr(self.settings)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def arm(self, person: int) -> str:
        """The experiment's arm of a person: of the human being, whatever the key."""
        return assignment.assign(self.salt, world_days.account_of(person), ARMS)

    def nights(self) -> list[date]:
        """The run dates, oldest first; the last is the end."""
        return [self.end - timedelta(days=back) for back in range(self.days, -1, -self.every)]

    @property
    def newest_served(self) -> date:
        """The newest night whose release serves: that of the end has nobody to serve yet."""
        return self.nights()[-2]


@dataclass(frozen=True)
class Built:
    """A world that lies there whole."""

    world: World
    folder: Path

    @property
    def source(self) -> Path:
        return self.folder / "source"

    @property
    def lake(self) -> Path:
        return self.folder / "lake"

    def truth(self, day: date) -> pa.Table:
        """The places that the page showed on a day; see ``world_days.truth_of``."""
        return pq.read_table(_truth(self.folder, day))

    def log(self, day: date) -> pa.Table:
        """The rows of the day's log."""
        return pq.read_table(self.source / recorder.TABLE / f"{SERVED.format(day)}.parquet")

    def days(self) -> list[date]:
        """The days on which releases were served."""
        return [self.world.end - timedelta(days=back) for back in range(self.world.days, 0, -1)]


def parse(text: str) -> World:
    """The world of settings like ``days=42,every=14``; what is not named is as usual.

    Raises one ``Fault`` that names everything that is wrong.
    """
    parts = [part.partition("=") for part in text.split(",") if part]
    given = {name: value for name, _, value in parts}
    strange = [f"{name} is no setting" for name in given if name not in SETTINGS]
    uncounted = [
        f"{name} is {value!r}, which is no whole number above 0"
        for name, value in given.items()
        if name in SETTINGS and not (value.isascii() and value.isdecimal() and int(value))
    ]
    wrong = strange + uncounted
    if not wrong:
        numbers: dict[str, Any] = {name: int(value) for name, value in given.items()}
        chosen = World(**numbers)
        if chosen.days % chosen.every:
            wrong.append(f"{chosen.days} days are no multiple of {chosen.every}, a night's")
        if chosen.days >= chosen.settings.days:
            wrong.append(
                f"the shop is open for {chosen.settings.days} days, not beyond {chosen.days}"
            )
        if chosen.page > chosen.length:
            wrong.append(f"a page of {chosen.page} places is longer than a list of {chosen.length}")
        if not wrong:
            return chosen
    told = "; ".join(wrong)
    raise Fault(
        f"world: {text!r}: {told}. Give some of {', '.join(SETTINGS)}, like days=42,every=14"
    )


def built(world: World, home: Path) -> Built:
    """The world of these settings below ``home``; made where it is not there."""
    folder = home / world.digest
    if (folder / "world.json").is_file():
        return Built(world, folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    _build(world, folder)
    io.write_json(folder / "world.json", asdict(world) | {"code": code_version()})
    print(f"world {world.digest}: built in {time.monotonic() - began:.0f} s", flush=True)
    return Built(world, folder)


def _build(world: World, folder: Path) -> None:
    source = folder / "source"
    simulated.convert(world.shop, source)
    # Nights read it as of dates before the end; what was not yet received is not seen by them.
    write_metrics(world, source)
    shop = world.settings
    goods = Goods(shop)
    people = Answers(goods, Crowd(shop, goods))
    asked = world_days.askers(
        io.read_arrow(source / "events"), io.read_arrow(source / "truth" / "sessions")
    )
    for run_date in nights_of(world, folder):
        serve(world, folder, people, asked, run_date)


def nights_of(world: World, folder: Path) -> Generator[date]:
    """Run the nights one after the other, on one engine; yields each run date when its release is
    published, so that what it is served for can happen before the next. Of the last one, which
    nobody is served by, only what the end's diagnosis runs behind."""
    where = [
        f"--lake={folder / 'lake'}", f"--source={folder / 'source'}", f"--run-id={RUN_ID}",
        f"--params={json.dumps(world.night)}",
    ]  # fmt: skip
    first = world.nights()[0]
    command(["open-night", *where, f"--as-of={first}"])
    try:
        for run_date in world.nights():
            began = time.monotonic()
            for step in steps.STEPS if run_date < world.end else LAST:
                for verb in ("run", "gate"):
                    command([verb, *where, f"--as-of={run_date}", step])
            print(f"night {run_date}: {time.monotonic() - began:.0f} s", flush=True)
            yield run_date
    finally:
        command(["close-night", *where, f"--as-of={first}"])


def serve(world: World, folder: Path, people: Answers, asked: pa.Table, first: date) -> None:
    """Serve the newest release from a day on until there is another: its log, its answers and
    their truth."""
    release, _ = releases.serving(Lake(folder / "lake"))
    noon = datetime(first.year, first.month, first.day, 12, tzinfo=UTC)
    reader = Reader(LmdbStore(release.path("kv")), now=lambda: noon)
    basis = Basis(release)
    end = min(first + timedelta(days=world.every), world.end)
    for back in range((end - first).days):
        day = first + timedelta(days=back)
        number = (noon - people.goods.shop.start).days + back
        rng = np.random.default_rng([world.seed, number])
        rows = world_days.of_day(asked, day)
        served = world_days.answered(
            reader, rows, world.length, world.page, rng, EXPERIMENT, world.arm
        )
        known = basis.of(world_days.people_in(served))
        log = recorder.rows_of(served, {release.id: known})
        truth = world_days.truth_of(log, rows, people, number, rng)
        events = world_days.events_of(truth, people.goods.shop)
        for table, made in ((recorder.TABLE, log), ("events", events)):
            io.append_arrow(folder / "source" / table, SERVED.format(day), made)
        path = _truth(folder, day)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(truth, path, compression=io.COMPRESSION)


def _truth(folder: Path, day: date) -> Path:
    return folder / "truth" / "answers" / f"{day}.parquet"


# --- what the team has agreed -----------------------------------------------------------------
EXPERIMENT = "homepage"
ARMS = {"old": 0.5, "new": 0.5}


def write_metrics(world: World, source: Path) -> None:
    """Write the metrics file of the shop."""
    starts = world.end - timedelta(days=world.days)
    agreed = {
        "kpi": "revenue_per_session",
        "model_metric": {"name": "ndcg", "at": world.page},
        "label": {
            "event": "purchase", "attribution": "request", "within_hours": 72,
            "maturity_days": 7, "returns": "subtract",
        },
        # Showing costs next to nothing here, so that to show all is right.
        "decision": {
            "threshold": None, "capacity": world.page, "value_of_hit": 1.0, "cost_of_show": 0.0005,
        },
        "segments": ["region", "segment", "tenure", "key_type", "category"],
        "baseline": "popularity",
        "guardrails": ["latency_ms"],
        "experiments": [{
            "name": EXPERIMENT, "salt": world.salt, "starts": starts, "control": "old",
            "arms": ARMS,
        }],
    }  # fmt: skip
    io.write_text(source / "metrics.yaml", yaml.safe_dump(agreed, sort_keys=False))


if __name__ == "__main__":
    import sys

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    print(built(World(), Path(sys.argv[1]).resolve()).folder)
