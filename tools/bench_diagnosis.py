"""The part ``diagnosis`` of the benchmark: every step of the diagnosis over logs of rising size.

The log is made here, since it is its size that is asked for: answers of twenty places over the six
weeks that are looked at, with features on every scored place, and events of four times as many
rows as there are answers, one in fifty of which answers a place.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from jobs import io, steps
from jobs.sources import contract
from jobs.tables import FEATURES

SIZES = "1000000,3000000,10000000"  # rows of the log
AS_OF = datetime(2024, 3, 1, tzinfo=UTC)
DAYS, PLACES, ITEMS = 42, 20, 20_000
PART = 50_000  # answers a file
SHOWN = 10
# Maps that rows share: their content costs nothing to make, and as much to read as any.
MAPS = 2_000
STEPS = (*steps.BEFORE_DIAGNOSIS, *steps.DIAGNOSIS)
AGREED: dict[str, Any] = {
    "kpi": "revenue_per_session",
    "model_metric": {"name": "ndcg", "at": 10},
    "label": {
        "event": "purchase", "attribution": "request", "within_hours": 72, "maturity_days": 7,
        "returns": "subtract",
    },
    "decision": {"threshold": None, "capacity": 20, "value_of_hit": 1.0, "cost_of_show": 0.001},
    "segments": ["region", "tenure", "key_type", "category"],
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
    lake, source = home / f"diagnosis-{rows}", home / f"log-{rows}"
    for folder in (lake, source):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        make(source, rows)
        return drive(lake, io.label(AS_OF), str(source), STEPS)
    finally:
        for folder in (lake, source):
            shutil.rmtree(folder, ignore_errors=True)


def make(folder: Path, rows: int) -> None:
    """Write the source: items, events, the log and what was agreed."""
    rng = np.random.default_rng(rows)
    ids = np.char.add("i", np.arange(ITEMS).astype(str))
    categories = np.char.add("department ", (np.arange(ITEMS) % 30).astype(str))
    items = {"item_id": ids, "category": categories, "price": rng.lognormal(2, 1, ITEMS)}
    io.write_arrow(folder / "items", _typed("items", items, ITEMS))
    (folder / "metrics.yaml").write_text(yaml.safe_dump(AGREED))
    maps = _maps(rng)
    answers = rows // PLACES
    people = max(1_000, answers // 12)
    for part, first in enumerate(range(0, answers, PART)):
        asked = _Asked(rng, np.arange(first, min(first + PART, answers)), people)
        io.write_arrow(folder / "recommendation_log", asked.log(ids, maps), part)
        io.write_arrow(folder / "events", asked.events(ids), part)


class _Asked:
    """Some answers: who asked when, what was shown and bought."""

    def __init__(self, rng: np.random.Generator, number: np.ndarray, people: int):
        self.rng, self.number, n = rng, number, len(number)
        self.person = rng.integers(0, people, n)
        since = rng.random(n) * (DAYS * 86_400 - 1)
        start = (AS_OF - timedelta(days=DAYS)).timestamp()
        self.time = ((start + since) * 1e6).astype(np.int64)
        self.item = rng.integers(0, ITEMS, (n, PLACES))
        self.score = np.sort(rng.beta(1, 20, (n, PLACES)), axis=1)[:, ::-1]
        looks = np.arange(1, PLACES + 1) ** -0.5 * (np.arange(PLACES) < SHOWN)
        self.bought = rng.random((n, PLACES)) < self.score * looks * 0.4

    def log(self, ids: np.ndarray, maps: pa.Array) -> pa.Table:
        n, each = len(self.number), PLACES
        place = np.tile(np.arange(1, each + 1), n)
        row = np.repeat(np.arange(n), each)
        latency = self.rng.lognormal(1, 0.5, n)
        return _typed("recommendation_log", {
            "request_id": np.char.add("r", self.number.astype(str))[row],
            "request_time": self.time[row], "surface": np.full(n * each, "homepage"),
            "key_type": np.where(self.person % 3 == 0, "cookie", "account")[row],
            "key": np.char.add("k", self.person.astype(str))[row],
            "position": place, "item_id": ids[self.item.ravel()],
            "propensity": np.ones(n * each),
            "release_id": np.full(n * each, "20240115T000000Z-0123456789"),
            "score": self.score.ravel(),
            "features": maps.take(pa.array(self.rng.integers(0, MAPS, n * each))),
            "feature_version": np.full(n * each, "bench"),
            "feature_hash": np.full(n * each, "0"),
            "experiment": np.full(n * each, "homepage"),
            "arm": np.where(self.person % 2 == 0, "old", "new")[row],
            "shown_position": pa.array(place, mask=place > SHOWN), "latency_ms": latency[row],
        }, n * each)  # fmt: skip

    def events(self, ids: np.ndarray) -> pa.Table:
        """Four looks or purchases an answer of their own, and what the answers led to."""
        n = len(self.number)
        row, place = np.nonzero(self.bought)
        own = np.repeat(np.arange(n), 4)
        who = np.r_[own, row]
        item = np.r_[self.rng.integers(0, ITEMS, 4 * n), self.item[row, place]]
        time = self.time[who] + self.rng.integers(1, 3_600_000_000, len(who))
        kind = np.r_[self.rng.choice(["view", "purchase"], 4 * n, p=[0.8, 0.2]),
                     np.full(len(row), "purchase")]  # fmt: skip
        answers = pa.array(
            np.char.add("r", self.number[who].astype(str)), mask=np.arange(len(who)) < 4 * n
        )
        names = np.char.add(f"e{self.number[0]}-", np.arange(len(who)).astype(str))
        return _typed("events", {
            "event_id": names, "event_time": time,
            "received_time": time + self.rng.integers(1, 60_000_000, len(who)),
            "key_type": np.where(self.person % 3 == 0, "cookie", "account")[who],
            "key": np.char.add("k", self.person.astype(str))[who], "event_type": kind,
            "item_id": ids[item],
            "value": pa.array(self.rng.lognormal(2, 1, len(who)), mask=kind == "view"),
            "channel": np.where(self.person % 2 == 0, "web", "app")[who], "request_id": answers,
        }, len(who))  # fmt: skip


def _maps(rng: np.random.Generator) -> pa.Array:
    values = rng.lognormal(0, 1, MAPS * len(FEATURES)).astype(np.float32).astype(float)
    ends = np.arange(MAPS + 1, dtype=np.int32) * len(FEATURES)
    return pa.MapArray.from_arrays(
        pa.array(ends), pa.array(list(FEATURES) * MAPS), pa.array(values)
    )


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
    """Markdown: seconds of each step by size, in all, and the memory they take."""
    sizes = [f"{each.events / 1e6:g} M" for each in found]
    lines = [
        "## The diagnosis by rows of the log", "",
        "Seconds of each step with its gate.", "",
        "| step | " + " | ".join(sizes) + " |", "| --- |" + " --: |" * len(sizes),
    ]  # fmt: skip
    spent = [each.of_steps() for each in found]
    for step in STEPS[1:]:
        lines.append(f"| {step} | " + " | ".join(f"{s.get(step, 0.0):.1f}" for s in spent) + " |")
    for title, values in (
        ("**total**", [f"{each.total:.0f}" for each in found]),
        ("processor seconds", [f"{sum(e.of_steps(e.processor).values()):.0f}" for e in found]),
        ("peak memory, GiB", [f"{each.peak / 2**30:.1f}" for each in found]),
    ):
        lines.append(f"| {title} | " + " | ".join(values) + " |")
    return [*lines, ""]
