"""The benchmark's part ``scoring``: people with 200 candidates each, scored block by block.

``python -m tools.bench_scoring FOLDER PEOPLE`` is its child: it measures the items over the history
of all these people, then for ``recommendations.BLOCK`` people after the other reads their
candidates and past, makes the features, asks the trees and writes the scores as an Arrow batch; all
by the night's own functions. Prints one JSON object: seconds of each of these and in all, processor
seconds, rows, and the mean of the scores.

The parent draws what the child reads, seeded and in the tables' own form: some hundred events a
person in files by person, vectors, and a ranker of the night's own size, trained on a part of it.
A smaller size is the first people of the largest.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from jobs import io, tables
from jobs.ordering import recommendations
from jobs.retrieval import matrix
from jobs.scoring import blend, features, ranker, scorer
from jobs.scoring.features import Ground, Vectors
from jobs.scoring.scorer import Scorer
from jobs.signals import shop
from jobs.signals.homes import Homes
from jobs.signals.past import DAY, PURCHASE, Record
from jobs.signals.shop import Catalogue
from jobs.tables import EVENT_TYPES, SOURCES
from tools.bench_contenders import Watch, processor_seconds

ROOT = Path(__file__).resolve().parent.parent
SIZES = "50000,100000,200000"
CANDIDATES = 200
ITEMS, NARROW, BROAD, DIMENSIONS = 27_000, 1_500, 60, 64
EVENTS = 100  # of a person, on the mean
SHARES = (0.5, 0.1, 0.1, 0.27, 0.0, 0.02, 0.01)  # of EVENT_TYPES
LEARNERS = 500  # people whose candidates the ranker learns from
AS_OF = datetime(2024, 3, 1, tzinfo=UTC)
SEED = 20171201
# People of a file, as the night's partitions of history and its parts of candidates have them.
OF_HISTORY, OF_CANDIDATES = 25_000, 10_000
STAGES = {
    "items": "items measured", "past": "past and candidates", "features": "features",
    "trees": "trees", "written": "written",
}  # fmt: skip


# --- the child -------------------------------------------------------------------------------
def score(folder: Path, n_people: int) -> dict[str, Any]:
    """Score the candidates of the first people; what it took, by stage."""
    shop_of = _Shop(folder, person_ids(n_people))
    spent = dict.fromkeys(STAGES, 0.0)

    def timed(stage: str, work: Callable) -> Any:
        watch = Watch()
        result = watch(stage, work)
        spent[stage] += watch.spent[f"{stage}_seconds"]
        return result

    busy = processor_seconds()
    timed("items", shop_of.measure)
    ranking = Scorer.load(folder / "scorer")
    rows, total = 0, 0.0
    schema = pa.schema({"person_id": tables.S, "item_id": tables.S, "score": tables.F64})
    with pq.ParquetWriter(folder / "scores.parquet", schema) as out:
        for people in shop_of.blocks():
            pairs, ground = timed("past", lambda people=people: shop_of.of(people))
            values = timed("features", lambda g=ground, p=pairs: features.values(g, p))
            scores = timed("trees", lambda v=values: ranking.of_features(v))
            ids = (people.take(pa.array(pairs.person)), shop_of.items.take(pa.array(pairs.item)))
            batch = pa.table([*ids, scores], schema=schema)
            timed("written", lambda b=batch: out.write_table(b))
            rows, total = rows + len(scores), total + float(scores.sum())
    return {
        "people": n_people, "rows": rows, "mean": total / rows,
        "seconds": sum(spent.values()), "processor": processor_seconds() - busy, "stages": spent,
    }  # fmt: skip


class _Shop:
    """What the night reads, for these people."""

    def __init__(self, folder: Path, people: pa.StringArray) -> None:
        self.folder, self.people = folder, people
        self.catalogue = Catalogue.of(io.read_arrow(folder / "items"))
        self.items = self.catalogue.ids
        self.record = Record(folder / "history", AS_OF, self.items)
        self.factors, self.content = (
            features.placed(io.read_arrow(folder / name), "item_id", self.items)
            for name in ("item_factors", "content_vectors")
        )
        self.measured: dict[str, np.ndarray] = {}
        self.homes = Homes.of(pa.table({
            "person_id": people, "household_id": people,
            "personalised": np.ones(len(people), bool),
        }))  # fmt: skip

    def measure(self) -> None:
        self.measured = shop.measure(self.record.blocks(self.people), self.catalogue)

    def blocks(self) -> Iterator[pa.StringArray]:
        step = recommendations.BLOCK
        for first in range(0, len(self.people), step):
            yield self.people.slice(first, step)

    def of(self, people: pa.StringArray) -> tuple[features.Pairs, Ground]:
        """The pairs named for a block of people, and what their features are looked up in."""
        own = (ds.field("person_id") >= people[0]) & (ds.field("person_id") <= people[-1])
        named = io.read_arrow(self.folder / "candidates", None, own)
        pairs = features.wide(features.coded(named, people, self.items))
        factors = io.read_arrow(self.folder / "person_factors", None, own)
        vectors = Vectors(
            self.factors,
            features.placed(factors, "person_id", people, self.factors.shape[1]),
            self.content,
        )
        past = self.record.of(people)
        mates = self.homes.mates(people, len(self.items))
        return pairs, Ground.of(past, self.catalogue, self.measured, mates, vectors)


def main() -> int:
    print(json.dumps(score(Path(sys.argv[1]), int(sys.argv[2]))), flush=True)
    return 0


# --- what the child reads --------------------------------------------------------------------
def person_ids(n_people: int) -> pa.StringArray:
    return pa.array([f"account:{number:08d}" for number in range(n_people)])


def item_ids() -> pa.StringArray:
    return pa.array([f"{number:06d}" for number in range(ITEMS)])


def generate(folder: Path, n_people: int) -> None:
    """Draw the tables of so many people, and train the ranker on the first of them."""
    generator = np.random.default_rng(SEED)
    people, items = person_ids(n_people), item_ids()
    narrow = generator.integers(0, NARROW, ITEMS)
    path = [f"{c % BROAD:02d} > {c % (4 * BROAD):03d} > {c:04d}" for c in narrow.tolist()]
    _write(folder / "items", 0, pa.table({"item_id": items, "category": path}))
    for name in ("item_factors", "content_vectors"):
        _write(folder / name, 0, pa.table({"item_id": items, "vector": _vectors(generator, ITEMS)}))
    popular = np.cumsum(1 / np.arange(1, ITEMS + 1) ** 0.8)
    known: list[np.ndarray] = []
    for number, first in enumerate(range(0, n_people, OF_HISTORY)):
        part = people.slice(first, OF_HISTORY)
        rows, person, item = _events(part, items, popular, generator)
        _write(folder / "history", number, rows)
        known += np.split(item, np.searchsorted(person, np.arange(1, len(part))))
    for number, first in enumerate(range(0, n_people, OF_CANDIDATES)):
        part = people.slice(first, OF_CANDIDATES)
        named = _candidates(known[first : first + OF_CANDIDATES], part, items, popular, generator)
        _write(folder / "candidates", number, named)
        vectors = _vectors(generator, len(part))
        _write(folder / "person_factors", number, pa.table({"person_id": part, "vector": vectors}))
    _train(folder, people.slice(0, LEARNERS), generator)


def _write(folder: Path, number: int, rows: pa.Table) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, folder / f"part-{number:05d}.parquet")


def _vectors(generator: np.random.Generator, n_rows: int) -> pa.ListArray:
    return matrix.vector_column(generator.standard_normal((n_rows, DIMENSIONS), np.float32))


def _events(
    people: pa.StringArray,
    items: pa.StringArray,
    popular: np.ndarray,
    generator: np.random.Generator,
) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """The columns of ``history`` that the past is made from, by person and time; and the codes of
    person and item. Half of what people do is with some twenty items of their own."""
    count = 1 + generator.poisson(generator.gamma(1.5, (EVENTS - 1) / 1.5, len(people)))
    person = np.repeat(np.arange(len(people)), count)
    n_rows = len(person)
    item = np.searchsorted(popular, generator.random(n_rows) * popular[-1])
    own = np.searchsorted(popular, generator.random((len(people), 20)) * popular[-1])
    mine = generator.random(n_rows) < 0.5
    item[mine] = own[person[mine], generator.integers(0, 20, int(mine.sum()))]
    # A person's day in the shop is a basket.
    day = generator.integers(1, 365, n_rows)
    day = day[np.lexsort((-day, person))]
    now = int(AS_OF.timestamp() * 1_000_000)
    time = pa.array(now - day * DAY + generator.integers(0, DAY // 2, n_rows)).cast(tables.TIME)
    kind = generator.choice(len(EVENT_TYPES), n_rows, p=SHARES)
    quantity = 1.0 + generator.poisson(0.3, n_rows)
    price = np.round(np.exp(np.sin(np.arange(ITEMS)) + 1), 2)[item]
    rows = pa.table({
        "person_id": people.take(pa.array(person)), "item_id": items.take(pa.array(item)),
        "event_type": pa.array(EVENT_TYPES).take(pa.array(kind)), "event_time": time,
        "received_time": time, "basket": pa.array((person * 365 + day).astype(str)),
        "quantity": quantity, "value": np.where(kind == PURCHASE, price * quantity, np.nan),
    })  # fmt: skip
    return rows, person, item


def _candidates(
    known: list[np.ndarray],
    people: pa.StringArray,
    items: pa.StringArray,
    popular: np.ndarray,
    generator: np.random.Generator,
) -> pa.Table:
    """``CANDIDATES`` items of each person: what it knows, then popular ones; every fourth is named
    by a second source."""
    chosen = []
    for mine in known:
        more = np.searchsorted(popular, generator.random(4 * CANDIDATES) * popular[-1])
        distinct, first = np.unique(np.concatenate([mine, more]), return_index=True)
        chosen.append(distinct[np.argsort(first)][:CANDIDATES])
    item = np.concatenate(chosen)
    person = np.repeat(np.arange(len(people)), [len(each) for each in chosen])
    source = generator.integers(0, len(SOURCES), len(item))
    again = np.flatnonzero(generator.random(len(item)) < 0.25)
    rows = np.sort(np.r_[np.arange(len(item)), again])
    second = np.diff(rows, prepend=-1) == 0
    return pa.table({
        "person_id": people.take(pa.array(person[rows])),
        "item_id": items.take(pa.array(item[rows])),
        "source": pa.array(SOURCES).take(pa.array((source[rows] + second) % len(SOURCES))),
        "rank": generator.integers(1, 101, len(rows)).astype(np.int32),
    })  # fmt: skip


def _train(folder: Path, people: pa.StringArray, generator: np.random.Generator) -> None:
    """A ranker by the night's parameters; bought is likelier where the pair's own past says so."""
    asked = _Shop(folder, people)
    asked.measure()
    pairs, ground = asked.of(people)
    values = features.values(ground, pairs)
    wanted = np.nan_to_num(values[:, features.COLUMNS.index("decayed_60")])
    bought = generator.random(len(values)) < 0.02 + 0.3 * np.tanh(wanted)
    everything = np.ones(len(values), bool)
    examples = ranker.Examples(
        values, everything, bought, bought.astype(float), np.ones(len(values))
    )
    params = ranker.Params()
    members = ranker.train(examples, params, SEED)
    scorer.save(
        folder / "scorer",
        ranker.model_table(members),
        blend.weight_table(dict(params.prior)),
        scorer.calibrate(scorer.mean_margin(members, values), bought),
    )


# --- the parent ------------------------------------------------------------------------------
def measure(
    sizes: list[int], home: Path, sample: Callable[[int, list[str], dict[str, int]], None]
) -> list[dict[str, Any]]:
    """A run per size, in a process of its own; ``sample`` watches its memory, as the benchmark's
    own does."""
    folder = home / "scoring"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        generate(folder, max(sizes))
        runs = []
        for size in sizes:
            line = [sys.executable, "-m", "tools.bench_scoring", str(folder), str(size)]
            memory: dict[str, int] = {}
            child = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)
            watcher = threading.Thread(
                target=sample, args=(child.pid, ["scoring"], memory), daemon=True
            )
            watcher.start()
            printed, _ = child.communicate()
            if child.returncode:
                raise SystemExit(f"error: scoring {size} people failed; see above")
            told = json.loads(printed.strip().splitlines()[-1])
            runs.append({**told, "memory": memory.get("scoring", 0)})
            print(json.dumps(runs[-1]), flush=True)
        return runs
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def table(runs: list[dict[str, Any]]) -> list[str]:
    """Markdown: seconds of each stage by size, memory, and the exponents that they grow with."""
    grown = [f"exponent {a['people']:,} → {b['people']:,}" for a, b in pairwise(runs)]
    lines = [
        "## Scoring", "",
        f"{CANDIDATES} candidates a person, {len(features.COLUMNS)} features, some {EVENTS} events "
        "a person; seconds. An exponent of 1 grows as the people, one below 1 slower.", "",
        _row(["stage", *(f"{run['people']:,} people" for run in runs), *grown]),
        _row(["---", *["--:"] * (len(runs) + len(grown))]),
    ]  # fmt: skip
    spent = {title: [run["stages"][stage] for run in runs] for stage, title in STAGES.items()}
    spent["**together**"] = [run["seconds"] for run in runs]
    spent["processor seconds"] = [run["processor"] for run in runs]
    spent["peak memory, GiB"] = [run["memory"] / 2**30 for run in runs]
    for title, values in spent.items():
        exponents = [
            math.log(b / a) / math.log(after["people"] / before["people"]) if a and b else math.nan
            for (a, b), (before, after) in zip(pairwise(values), pairwise(runs), strict=True)
        ]
        lines.append(
            _row([title, *(f"{value:.1f}" for value in values), *(f"{e:.2f}" for e in exponents)])
        )
    return [*lines, ""]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
