"""The part ``diagnosis`` of the benchmark: every step of the diagnosis over logs of rising size.

It is the log's size that is asked for, so a log of that size is made over what a night published,
and not served request by request:

- A simulated shop, with as many people and events as the log has answers for, has a night; its
  release is what every row names.
- Four answers in five are people's lists as that release has them, in their order, with the scores
  and the features from which they were scored. All places that the diagnosis replays, compares and
  makes again are so.
- One in five is drawn as the simulator draws its lists: the first five places from ten candidates
  of the person's segment, by Plackett and Luce, with the chance of each item at each place as its
  propensity; the places below are the segment's, and stand.
- People ask at any time of six weeks, look at places less the lower they are, and click on and buy
  what is scored high more often.

Before that an earlier day is diagnosed on the first rows, so that there are counterexamples to be
scored again.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import yaml

from jobs import io, steps
from jobs.io import Lake
from jobs.scoring import features
from jobs.sources import contract, simulated
from jobs.sources.simulated.crowd import SEGMENTS, Crowd
from jobs.sources.simulated.goods import Goods
from jobs.sources.simulated.requests import CANDIDATES, WEEK, Logging
from jobs.sources.simulated.requests import PLACES as DRAWN
from jobs.tables import FEATURES
from tools import growth, world
from tools.world import World

SIZES = "1000000,3000000,10000000"  # rows of the log
AS_OF = io.parse_as_of("2024-03-01")
EARLIER = AS_OF - timedelta(days=7)  # the run date of the diagnosis before
EARLIER_ROWS = 50_000  # of the log, when it runs
DAYS, PLACES, SHOWN = 42, 20, 10
BY_LOT = 0.2  # of the answers
NOT_PERSONAL = "a list of the segment, drawn by lot"
PART = 20_000  # answers a file
CLICKED, BOUGHT = 0.06, 0.4  # of what is looked at, on the mean; of what is clicked
STEPS = (*steps.BEFORE_DIAGNOSIS, *steps.DIAGNOSIS)
TO_COUNTEREXAMPLES = (*steps.BEFORE_DIAGNOSIS, "definitions", "served", "leakage", "slices")
NIGHT = {
    **world.NIGHT,
    "recommendations": {
        **world.NIGHT["recommendations"],
        "surfaces": {
            **world.NIGHT["recommendations"]["surfaces"], "homepage": {"length": PLACES},
        },
    },
    "release": {"age_ceiling_hours": 24 * (DAYS + 1)},
}  # fmt: skip
AGREED: dict[str, Any] = {
    "kpi": "revenue_per_session",
    "model_metric": {"name": "ndcg", "at": 10},
    "label": {
        "event": "purchase", "attribution": "request", "within_hours": 72, "maturity_days": 7,
        "returns": "subtract",
    },
    "decision": {"threshold": None, "capacity": 20, "value_of_hit": 1.0, "cost_of_show": 0.001},
    "segments": ["region", "segment", "tenure", "key_type", "category"],
    "baseline": "fallback",
    "guardrails": ["latency_ms"],
    "experiments": [
        {"name": "homepage", "salt": "bench", "starts": "2024-02-01", "control": "old",
         "arms": {"old": 0.5, "new": 0.5}}
    ],
}  # fmt: skip
Drive = Callable[[Path, str, str, tuple[str, ...]], Any]


def measure(rows: int, home: Path, drive: Drive) -> Any:
    """What was ``Measured`` of the diagnosis of a log of so many rows, on a lake of its own."""
    folder = home / f"diagnosis-{rows}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        lake, source = folder / "lake", folder / "source"
        given = published(lake, night_of(rows, folder))
        (source / "metrics.yaml").write_text(yaml.safe_dump(AGREED))
        first = min(EARLIER_ROWS, rows // 2)
        write(source, given, first, name="first")
        drive(lake, io.label(EARLIER), str(source), TO_COUNTEREXAMPLES)
        write(source, given, rows - first, name="rest")
        return drive(lake, io.label(AS_OF), str(source), STEPS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def night_of(rows: int, folder: Path) -> World:
    """Make ``folder``/source, a shop for a log of so many rows, and ``folder``/lake with its night
    of the day on which the log begins."""
    people = max(300, rows // PLACES // 12)
    shop = (
        f"events={max(20_000, rows // 5)},people={people},days=120,requests=0,end={AS_OF:%Y-%m-%d}"
    )
    chosen = World(shop, DAYS, DAYS, length=PLACES, page=SHOWN, night=NIGHT)
    simulated.convert(shop, folder / "source")
    with contextlib.closing(world.nights_of(chosen, folder)) as nights:
        next(nights)
    return chosen


# --- what is given to whom ---------------------------------------------------------------------
@dataclass(frozen=True)
class Published:
    """What a release gives people, and how lists are drawn by lot in its shop.

    ``places``: all rows of all lists, a person's next to each other in their order: item_id,
    score, propensity, features, feature_version and feature_hash; ``first``, ``length``:
    (n_people,) where the list of a person is in it. ``people``: key_type, key and segment, a code.
    ``candidates``: (SEGMENTS, CANDIDATES) items that may stand at the first places,
    ``weight``: the same shape; ``chance``: (SEGMENTS, DRAWN, CANDIDATES), as ``Logging`` has them.
    ``below``: (SEGMENTS, PLACES - DRAWN) the items at the other places. Items are texts.
    """

    release_id: str
    places: pa.Table
    first: np.ndarray
    length: np.ndarray
    people: pa.Table
    candidates: np.ndarray
    weight: np.ndarray
    chance: np.ndarray
    below: np.ndarray


def published(lake: Path, chosen: World) -> Published:
    """What the first night of a world published."""
    shelf, as_of = Lake(lake), io.parse_as_of(chosen.nights()[0].isoformat())
    lists = shelf.published("recommendations", as_of)
    of_surface = ds.field("surface") == "homepage"
    columns = ["person_id", "rank", "item_id", "score", "propensity"]
    rows = io.read_arrow(lists.table("recommendations"), columns, of_surface)
    who = _people(shelf, as_of)
    rows = rows.filter(pc.is_in(rows["person_id"], value_set=who["person_id"].combine_chunks()))
    rows = rows.sort_by([("person_id", "ascending"), ("rank", "ascending")])
    first = _first(rows["person_id"])
    names = rows["person_id"].take(pa.array(first)).combine_chunks()
    people = who.take(pc.index_in(names, value_set=who["person_id"].combine_chunks()))
    release = io.read_json(shelf.published("release", as_of).table("release.json"))["id"]
    return Published(
        release,
        _with_features(rows, io.read_arrow(lists.table("features"))),
        first,
        np.diff(np.r_[first, rows.num_rows]),
        people,
        *_by_lot(chosen),
    )


def _people(shelf: Lake, as_of: datetime) -> pa.Table:
    """person_id, key_type, key and segment of everybody whose segment is known, one key each."""
    made = shelf.published("identities", as_of)
    keys = io.read_arrow(made.table("identities"), ["key_type", "key", "person_id"])
    keys = keys.sort_by([("person_id", "ascending"), ("key", "ascending")])
    keys = keys.take(pa.array(_first(keys["person_id"])))
    facts = io.read_arrow(made.table("persons"), ["person_id", "segment"])
    both = keys.join(facts.filter(pc.is_valid(facts["segment"])), "person_id", join_type="inner")
    segment = pc.index_in(both["segment"], value_set=pa.array(SEGMENTS))
    return both.set_column(both.schema.get_field_index("segment"), "segment", segment)


def _first(values: pa.ChunkedArray) -> np.ndarray:
    """The rows of which each has another value than the row before it, and the first."""
    changes = pc.not_equal(values[1:], values[:-1]).to_numpy(zero_copy_only=False)
    return np.flatnonzero(np.r_[True, changes])


def _with_features(rows: pa.Table, made: pa.Table) -> pa.Table:
    """Rows of lists with what each score was computed from, null where it is of no features."""
    keys = ["person_id", "item_id"]
    numbered = made.select(keys).append_column("row", pa.array(np.arange(made.num_rows)))
    asked = rows.append_column("at", pa.array(np.arange(rows.num_rows)))
    found = asked.join(numbered, keys, join_type="left outer").sort_by("at")["row"]
    found = pc.if_else(pc.is_valid(rows["score"]), found, None).combine_chunks()
    values = features.read(made)
    given = ~np.isnan(values)
    ends = np.r_[0, np.cumsum(given.sum(axis=1))].astype(np.int32)
    maps = pa.MapArray.from_arrays(
        pa.array(ends),
        pa.array(FEATURES, pa.string()).take(pa.array(np.nonzero(given)[1])),
        pa.array(values[given].astype(np.float64)),
    )
    return pa.table({
        **{name: rows[name] for name in ("item_id", "score", "propensity")},
        "features": maps.take(found),
        **{name: made[name].take(found) for name in ("feature_version", "feature_hash")},
    })  # fmt: skip


def _by_lot(chosen: World) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The simulator's policy of the week in which the log begins, and what stands below it."""
    shop = chosen.settings
    goods = Goods(shop)
    drawn = Logging(goods, Crowd(shop, goods))
    week = (shop.days - DAYS) // WEEK
    every = np.argsort(-goods.popularity, kind="stable")
    below = np.stack([
        every[~np.isin(every, candidates)][: PLACES - DRAWN] for candidates in drawn.items[week]
    ])  # fmt: skip
    names = np.array(goods.item_ids(np.arange(shop.items)).to_pylist(), object)
    return names[drawn.items[week]], drawn.weight[week], drawn.propensity[week], names[below]


# --- the log -----------------------------------------------------------------------------------
def write(source: Path, given: Published, rows: int, name: str) -> None:
    """Add about so many rows to the source's log, and to its events what they led to."""
    mean = (1 - BY_LOT) * float(given.length.mean()) + BY_LOT * PLACES
    answers = round(rows / mean)
    for part, first in enumerate(range(0, answers, PART)):
        rng = np.random.default_rng([rows, part])
        asked = Asked(rng, given, f"{name}{part}-", min(PART, answers - first))
        io.append_arrow(source / "recommendation_log", f"{name}-{part:05d}", asked.log())
        io.append_arrow(source / "events", f"{name}-{part:05d}", asked.events())


class Asked:
    """Some answers: who asked when, what was shown, clicked and bought; rows are places."""

    def __init__(self, rng: np.random.Generator, given: Published, name: str, count: int):
        self.rng, self.given = rng, given
        self.name = np.char.add(name, np.arange(count).astype(str))
        self.person = rng.integers(0, len(given.first), count)
        since = rng.random(count) * (DAYS * 86_400 - 1)
        start = (AS_OF - timedelta(days=DAYS)).timestamp()
        self.time = ((start + since) * 1e6).astype(np.int64)
        by_lot = rng.random(count) < BY_LOT
        length = np.where(by_lot, PLACES, given.length[self.person])
        self.answer = np.repeat(np.arange(count), length)
        self.place = np.arange(len(self.answer)) - np.repeat(np.cumsum(length) - length, length)
        self.by_lot = by_lot[self.answer]
        # The row of ``given.places``; of a list by lot there is none.
        row = given.first[self.person][self.answer] + self.place
        self.row = pa.array(row, mask=self.by_lot)
        self._fill(np.flatnonzero(by_lot))
        looks = (self.place + 1.0) ** -0.5 * (self.place < SHOWN)
        liked = np.clip(CLICKED * self.strength / self.strength.mean(), 0, 1)
        self.clicked = rng.random(len(looks)) < looks * liked
        self.bought = self.clicked & (rng.random(len(looks)) < BOUGHT)

    def _fill(self, by_lot: np.ndarray) -> None:
        """Items, propensities and how strongly each draws people, as published or by lot."""
        given, places = self.given, self.given.places
        segment = given.people["segment"].to_numpy()[self.person[by_lot]]
        noisy = np.log(given.weight[segment]) + self.rng.gumbel(size=(len(by_lot), CANDIDATES))
        drawn = np.argsort(-noisy, axis=1)[:, :DRAWN]
        at = (np.arange(len(by_lot))[:, None], drawn)
        chance = given.chance[segment[:, None], np.arange(DRAWN), drawn]
        fixed = (len(by_lot), PLACES - DRAWN)
        item = np.c_[given.candidates[segment][at], given.below[segment]].ravel()
        score = np.c_[given.weight[segment][at], np.full(fixed, 1 / CANDIDATES)].ravel()
        certain = np.c_[chance, np.ones(fixed)].ravel()
        own = {name: places[name].take(self.row) for name in ("item_id", "score", "propensity")}
        self.item = own["item_id"].to_numpy(zero_copy_only=False).astype(object)
        self.propensity = own["propensity"].to_numpy().copy()
        self.score = own["score"].to_numpy().copy()
        self.item[self.by_lot], self.propensity[self.by_lot] = item, certain
        self.score[self.by_lot] = score
        self.strength = np.nan_to_num(np.maximum(self.score, 0.0))
        # Both kinds of lists are answered as often.
        for kind in (self.by_lot, ~self.by_lot):
            mean = self.strength[kind].mean() if kind.any() else 0.0
            self.strength[kind] = self.strength[kind] / mean if mean else 1.0

    def log(self) -> pa.Table:
        """The rows of ``recommendation_log``."""
        n, who = len(self.answer), self.given.people.take(pa.array(self.person[self.answer]))
        featured = ("features", "feature_version", "feature_hash")
        latency = self.rng.lognormal(1, 0.5, len(self.person))
        return _typed("recommendation_log", {
            "request_id": np.char.add("r", self.name)[self.answer],
            "request_time": self.time[self.answer], "surface": np.full(n, "homepage"),
            "key_type": who["key_type"], "key": who["key"], "position": self.place + 1,
            "item_id": self.item, "propensity": self.propensity,
            "release_id": np.full(n, self.given.release_id),
            "score": pa.array(self.score, mask=np.isnan(self.score)),
            **{name: self.given.places[name].take(self.row) for name in featured},
            "experiment": np.full(n, "homepage"),
            "arm": np.where(self.person % 2 == 0, "old", "new")[self.answer],
            "shown_position": pa.array(self.place + 1, mask=self.place >= SHOWN),
            "fallback": pa.array(np.full(n, NOT_PERSONAL), mask=~self.by_lot),
            "latency_ms": latency[self.answer],
        }, n)  # fmt: skip

    def events(self) -> pa.Table:
        """What the answers led to: clicks, and of what is bought the purchase."""
        kinds = [("click", np.flatnonzero(self.clicked)), ("purchase", np.flatnonzero(self.bought))]
        row = np.concatenate([rows for _, rows in kinds])
        kind = np.repeat([name for name, _ in kinds], [len(rows) for _, rows in kinds])
        answer, n = self.answer[row], len(row)
        # A click comes within half an hour, and its purchase after it.
        wait = np.where(kind == "click", self.rng.integers(1, 1_800, n), 1_800)
        time = self.time[answer] + (wait + self.rng.integers(1, 1_800, n)) * 1_000_000
        who = self.given.people.take(pa.array(self.person[answer]))
        name = np.char.add(np.char.add(self.name[answer], "/"), self.place[row].astype(str))
        return _typed("events", {
            "event_id": np.char.add(np.char.add(kind.astype(str), " "), name),
            "revision": np.zeros(n, np.int32), "event_time": time,
            "received_time": time + self.rng.integers(1, 60_000_000, n),
            "key_type": who["key_type"], "key": who["key"], "event_type": kind,
            "item_id": self.item[row], "quantity": np.ones(n),
            "value": pa.array(self.rng.lognormal(2, 1, n), mask=kind == "click"),
            "channel": np.where(self.person % 2 == 0, "web", "app")[answer],
            "request_id": np.char.add("r", self.name)[answer],
        }, n)  # fmt: skip


def _typed(table: str, columns: dict[str, Any], rows: int) -> pa.Table:
    """The contract's table; what is not given is null."""
    schema = contract.schema(table)
    found = []
    for field in schema:
        given = columns.get(field.name)
        if given is None:
            found.append(pa.nulls(rows, field.type))
        else:
            array = given if isinstance(given, pa.Array | pa.ChunkedArray) else pa.array(given)
            found.append(array.cast(field.type))
    return pa.Table.from_arrays(found, schema=schema)


def table(found: Sequence[Any]) -> list[str]:
    """Markdown: seconds of each step by size, in all, the memory they take, and growth."""
    sizes = [each.events for each in found]
    named, grown = [f"{size / 1e6:g} M" for size in sizes], growth.heads(sizes)
    lines = [
        "## The diagnosis by rows of the log", "",
        f"Seconds of each step with its gate; {growth.MEANING}.", "",
        "| " + " | ".join(["step", *named, *grown]) + " |",
        "| --- |" + " --: |" * (len(named) + len(grown)),
    ]  # fmt: skip
    spent = [each.of_steps() for each in found]
    busy = [sum(each.of_steps(each.processor).values()) for each in found]
    for title, values, form in (
        *((step, [one.get(step, 0.0) for one in spent], ".1f") for step in STEPS[1:]),
        ("**total**", [each.total for each in found], ".0f"),
        ("processor seconds", busy, ".0f"),
        ("peak memory, GiB", [each.peak / 2**30 for each in found], ".1f"),
    ):
        cells = [f"{value:{form}}" for value in values] + growth.cells(values, sizes)
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return [*lines, ""]
