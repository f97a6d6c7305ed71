"""The benchmark's part ``reader``: how long serving waits for an answer.

``python -m tools.bench_reader LAKE REDIS`` is its child, a program that serves: it opens the
release, asks thousands of times, one after the other, and takes the time of each call by the wall
and by its own processor; from LMDB, from the Redis at the address ``REDIS`` (none where it is
empty), and from the index. Prints one JSON object.

The parent draws a release and writes it with the night's own functions: ``PEOPLE`` persons with
lists of 20, who have a dozen regions and some blocked items; lists beside each of ``ITEMS`` items;
vectors that the pipeline's own ALS fitted to a drawn shop (``bench_topk``), an index tuned as the
night tunes it; and the features of every place. The Redis is one of its own, on loopback.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs import io, tables
from jobs.filtering import filters
from jobs.io import Lake
from jobs.release import entries, release, releases, stores
from jobs.release.reader import Reader
from jobs.release.recorder import Recorder, Request
from jobs.release.retriever import Retriever
from jobs.release.serving import Serving
from jobs.retrieval import index, matrix
from jobs.retrieval.recall import Strata, draw_queries
from jobs.scoring import features
from jobs.tables import SOURCES
from tools import bench_topk
from tools.bench_scoring import OF_CANDIDATES, SEED, person_ids

ROOT = Path(__file__).resolve().parent.parent
PEOPLE, ITEMS, LENGTH = 100_000, bench_topk.ITEMS, 20
TASTED = 20_000  # people whose vectors are fitted; the others have those of one of them
BLOCKED = 5  # one in so many of the pairs that bench_topk blocks
CALLS, WARM = 20_000, 500
SOLD_OUT = 10  # one in so many items
REGIONAL = 3  # one in so many items is not sold everywhere
RECORDED = 2_000  # answers of one flush
JUDGED = 300  # people whose searches are held to a full sort
AS_OF = datetime(2024, 3, 1, tzinfo=UTC)
SPACE = "bench"
TIMES = {
    "p50": "p50", "p95": "p95", "p99": "p99", "max": "longest",
    "own50": "processor, p50", "own99": "p99",
}  # fmt: skip
NAMES = {
    "pointer": "`reader()`: the pointer looked at",
    "person": "`person()`: whose key it is",
    "personal": "`recommendations()` of a person",
    "sold_out": "the same, a tenth of all items sold out",
    "stranger": "`recommendations()` of a stranger",
    "beside": "`beside()` one item",
    "basket": "`beside()` a basket of five",
    "search": "`for_person()`: the index searched",
    "record": "`record()`",
}


# --- the child -------------------------------------------------------------------------------
def serve(root: Path, redis_url: str, calls: int = CALLS) -> dict[str, Any]:
    """Ask the release of this lake; per store and kind of question the time of every call."""
    generator = np.random.default_rng(SEED)
    opened = time.perf_counter()
    programs = {"LMDB": Serving.open(root, _now)}
    told: dict[str, Any] = {"open": {"LMDB": time.perf_counter() - opened}}
    if redis_url:
        programs["Redis"] = Serving.open_redis(redis_url, _now)
    people = io.read_arrow(releases.root(Lake(root)) / _id(root) / "persons", ["person_id"])
    asked = people["person_id"].take(pa.array(generator.integers(0, people.num_rows, calls)))
    ids = asked.to_pylist()
    items = generator.integers(0, ITEMS, (calls, 5)).tolist()
    told["times"] = {
        store: {
            name: timed(call, calls)
            for name, call in questions(program, ids, _item_names(), items).items()
        }
        for store, program in programs.items()
    }
    opened = time.perf_counter()
    retriever = Retriever.open(root, None, _now)
    told["open"]["index"] = time.perf_counter() - opened
    few = max(1, calls // 4)
    told["times"]["index"] = {
        "search": timed(lambda n: retriever.for_person(ids[n], length=LENGTH), few)
    }
    told["recall"] = recall(root, retriever, list(dict.fromkeys(ids))[:JUDGED])
    told["flush"], told["times"]["memory"] = record(root, programs["LMDB"].reader(), ids)
    return told


def questions(
    program: Serving, people: list[str], names: list[str], items: list[list[int]]
) -> dict[str, Callable[[int], Any]]:
    """By name, what to call with the number of the call."""
    reader = program.reader()
    sold_out = frozenset(names[::SOLD_OUT])
    keys = [person.removeprefix("account:") for person in people]
    baskets = [[names[item % len(names)] for item in basket] for basket in items]
    return {
        "pointer": lambda n: program.reader(),
        "person": lambda n: reader.person("account", keys[n]),
        "personal": lambda n: reader.recommendations(people[n], length=LENGTH),
        "sold_out": lambda n: reader.recommendations(people[n], length=LENGTH, without=sold_out),
        "stranger": lambda n: reader.recommendations(None, length=LENGTH),
        "beside": lambda n: reader.beside(baskets[n][:1], "similar", people[n], LENGTH),
        "basket": lambda n: reader.beside(baskets[n], "cart", people[n], LENGTH),
    }


def timed(call: Callable[[int], Any], calls: int) -> dict[str, float]:
    """Quantiles of the time of a call in microseconds: ``p50``, ``p95``, ``p99`` and ``max`` by the
    wall; ``own50`` and ``own99`` of the thread's own processor time, which waits for nothing."""
    for number in range(min(WARM, calls)):
        call(number)
    wall, own = np.empty(calls), np.empty(calls)
    for number in range(calls):
        start, busy = time.perf_counter_ns(), time.thread_time_ns()
        call(number)
        own[number] = time.thread_time_ns() - busy
        wall[number] = time.perf_counter_ns() - start
    found = np.quantile(wall / 1_000, (0.5, 0.95, 0.99, 1.0)).tolist()
    found += np.quantile(own / 1_000, (0.5, 0.99)).tolist()
    return dict(zip(TIMES, found, strict=True)) | {"calls": calls}


def recall(root: Path, retriever: Retriever, people: list[str]) -> float:
    """The mean share of a search's places whose item is among the best that the person may get, by
    a full sort; ties and the last bits of a float aside."""
    folder = releases.root(Lake(root)) / retriever.release_id
    items = io.read_arrow(folder / "id_maps").sort_by("position")["item_id"].to_pylist()
    place = {item: number for number, item in enumerate(items)}
    vectors = index_vectors(retriever, items)
    longest = np.linalg.norm(vectors, axis=1).max()
    factors = io.read_arrow(folder / "model/person_factors")
    own = matrix.vectors_of(factors)[matrix.positions(pa.array(people), factors["person_id"])]
    right = 0
    for person, vector in zip(people, own, strict=True):
        allowed = np.unpackbits(retriever.allowed(person), bitorder="little")[: len(items)]
        score = np.where(allowed, vectors @ vector, -np.inf)
        least = np.sort(score)[-LENGTH]
        least -= bench_topk.TOLERANCE * longest * np.linalg.norm(vector)
        found = {one.item_id for one in retriever.for_person(person, length=LENGTH).items}
        right += sum(score[place[item]] >= least for item in found)
    return float(right / (LENGTH * len(people)))


def index_vectors(retriever: Retriever, items: list[str]) -> np.ndarray:
    """(n_items, dim) the vectors that the index holds."""
    found = [retriever.vector_of([item]) for item in items]
    return np.stack([vector for vector in found if vector is not None])


def record(
    root: Path, reader: Reader, people: list[str]
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """What writing the log takes: a flush with the features of every answer, and each call."""
    log = Recorder(root / "served", root, most=10 * CALLS)
    some = people[:RECORDED]
    answers = [reader.recommendations(person, length=LENGTH) for person in some]
    request = Request("r", AS_OF, "account", "k", 1.0, range(1, LENGTH + 1))
    each = timed(lambda n: log.record(answers[n % len(answers)], request), len(answers))
    log = Recorder(root / "served", root)
    for answer in answers:
        log.record(answer, request)
    wall, busy = time.perf_counter(), time.process_time()
    path = log.flush()
    wall, busy = time.perf_counter() - wall, time.process_time() - busy
    assert path is not None
    return {
        "answers": len(answers), "seconds": wall, "processor": busy, "bytes": path.stat().st_size,
    }, {"record": each}  # fmt: skip


def main() -> int:
    print(json.dumps(serve(Path(sys.argv[1]), sys.argv[2])), flush=True)
    return 0


def _now() -> datetime:
    return AS_OF + timedelta(hours=7)


def _id(root: Path) -> str:
    return str(releases.current_id(Lake(root)))


# --- the release -----------------------------------------------------------------------------
def generate(lake: Lake, n_people: int = PEOPLE, n_items: int = ITEMS) -> str:
    """Draw a release and let it serve; returns its id."""
    release_id = releases.new_id(AS_OF, "0123456789")
    folder = releases.root(lake) / release_id
    folder.mkdir(parents=True)
    generator = np.random.default_rng(SEED)
    people, items = person_ids(n_people), pa.array(_item_names(n_items))
    problem = bench_topk.generate("fitted", min(n_people, TASTED), n_items)
    taste = np.arange(n_people) % len(problem.people)
    persons, catalogue = _who_and_what(people, items, problem, taste)
    io.write_arrow(folder / "persons", persons)
    io.write_arrow(folder / "id_maps", catalogue.select(["item_id", "position"]))
    rules = filters.judge_items(
        catalogue, filters.regions_of(catalogue, persons), [], filters.Params()
    )
    io.write_arrow(folder / "filters/eligibility", filters.eligibility(catalogue, rules))
    _write_vectors(folder, people, problem, taste)
    lists = _lists(folder, people, items, generator)
    blocked = _blocked(people, items, problem, taste)
    ineligible = filters.ineligible_items(catalogue, rules)
    frames = {
        "identities": pa.table({
            "key_type": pa.repeat("account", n_people), "person_id": people,
            "key": pa.array([person.removeprefix("account:") for person in people.to_pylist()]),
        }),
        "persons": persons, "blocked_pairs": blocked, "recommendations": lists,
        "context_lists": _shared(items, persons), "item_lists": _beside(items, generator),
        "ineligible_items": ineligible.select(["item_id", "kind", "value"]),
    }  # fmt: skip
    _publish(lake, folder, frames)
    return release_id


def _item_names(n_items: int = ITEMS) -> list[str]:
    return [f"{number:06d}" for number in range(n_items)]


def _who_and_what(
    people: pa.Array, items: pa.Array, problem: bench_topk.Problem, taste: np.ndarray
) -> tuple[pa.Table, pa.Table]:
    """The tables persons and items, as far as serving looks: a group of the problem is a region,
    and an item that is not sold everywhere is in those whose group may get it."""
    n_people, n_items = len(people), len(items)
    names = np.array([f"region {number:02d}" for number in range(bench_topk.GROUPS)])
    persons = pa.table({
        "person_id": people, "region": pa.array(names[problem.allowed.group[taste]]),
        "segment": pa.nulls(n_people, pa.string()), "personalised": pa.repeat(True, n_people),
        "restrictions": pa.array([[]] * n_people, pa.list_(pa.string())),
    })  # fmt: skip
    sold = [
        None if number % REGIONAL else names[may].tolist()
        for number, may in enumerate(problem.allowed.masks.T)
    ]
    return persons, pa.table({
        "item_id": items, "position": np.arange(n_items), "available": pa.repeat(True, n_items),
        "regions": pa.array(sold, pa.list_(pa.string())),
        "flags": pa.array([[]] * n_items, pa.list_(pa.string())),
    })  # fmt: skip


def _write_vectors(
    folder: Path, people: pa.Array, problem: bench_topk.Problem, taste: np.ndarray
) -> None:
    """model/ and index/: built and tuned as the night does."""
    params = index.Params()
    positions = np.arange(len(problem.items))
    bundle = index.build(positions, problem.items, SPACE, params, SEED)
    strata = {"all": Strata(("all",), np.zeros(len(problem.items), np.int64))}
    tune, _ = draw_queries(
        problem.items, problem.people, strata, bundle.facts["bound"], params.person_queries,
        params.item_queries, SEED,
    )  # fmt: skip
    bundle = index.tuned(bundle, positions, problem.items, tune, params.target_recall)
    index.save(bundle, folder / "index")
    io.write_json(folder / "model/embedding.json", {"version": SPACE, "dim": bundle.facts["dim"]})
    vectors = matrix.vector_column(problem.people[taste])
    io.write_arrow(
        folder / "model/person_factors", pa.table({"person_id": people, "vector": vectors})
    )


def _lists(
    folder: Path, people: pa.Array, items: pa.Array, generator: np.random.Generator
) -> pa.Table:
    """The lists of persons; written with their features in parts, as the night writes them."""
    popular = np.cumsum(1 / np.arange(1, len(items) + 1) ** 0.8)
    parts = []
    for number, first in enumerate(range(0, len(people), OF_CANDIDATES // 2)):
        some = people.slice(first, OF_CANDIDATES // 2)
        drawn = np.searchsorted(popular, generator.random((len(some), 60)) * popular[-1])
        # A few more are drawn than are listed, so that a list has an item once.
        item = np.concatenate([list(dict.fromkeys(row))[:LENGTH] for row in drawn.tolist()])
        person = some.take(pa.array(np.repeat(np.arange(len(some)), LENGTH)))
        rows, named = len(item), items.take(pa.array(item))
        source = pa.array(SOURCES).take(pa.array(generator.integers(0, len(SOURCES), 2 * rows)))
        part = pa.table({
            "surface": pa.repeat("homepage", rows), "person_id": person,
            "rank": np.tile(np.arange(1, LENGTH + 1, dtype=np.int32), len(some)),
            "item_id": named, "score": np.sort(generator.random(rows))[::-1],
            "propensity": np.ones(rows),
            "sources": pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * 2, source),
            "placed_by": pa.repeat("model", rows), "rule_id": pa.nulls(rows, pa.string()),
        })  # fmt: skip
        io.write_arrow(folder / "recommendations", part, number)
        values = generator.random((rows, len(features.COLUMNS)), np.float32)
        values[generator.random(values.shape) < 0.2] = np.nan
        stamped = features.stamped(person, named, values, AS_OF)
        io.write_arrow(folder / "features", stamped, number)
        parts.append(part)
    return pa.concat_tables(parts)


def _blocked(
    people: pa.Array, items: pa.Array, problem: bench_topk.Problem, taste: np.ndarray
) -> pa.Table:
    """Some of the pairs that the problem blocks, for everybody of the same taste."""
    who, what = np.divmod(problem.allowed.blocked[::BLOCKED], len(items))
    starts = np.searchsorted(who, np.arange(len(problem.people) + 1))
    counts = np.diff(starts)[taste]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    pair = np.repeat(starts[taste], counts) + within
    return pa.table({
        "person_id": people.take(pa.array(np.repeat(np.arange(len(people)), counts))),
        "item_id": items.take(pa.array(what[pair])),
    })  # fmt: skip


def _shared(items: pa.Array, persons: pa.Table) -> pa.Table:
    """What stands in on the homepage for all and in every region: twice a list's length."""
    length = 2 * LENGTH
    contexts = [("all", ""), *(("region", name) for name in persons["region"].unique().to_pylist())]
    rows = [
        {"surface": "homepage", "context_kind": kind, "context": context, "rank": place,
         "item_id": items[place].as_py(), "score": 1 / place, "propensity": 1.0,
         "sources": ["popular"]}
        for kind, context in contexts for place in range(1, length + 1)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, pa.schema([
        (name, tables.TABLES["context_lists"].schema.field(name).type) for name in rows[0]
    ]))  # fmt: skip


def _beside(items: pa.Array, generator: np.random.Generator) -> pa.Table:
    """Twenty items beside each, on two surfaces."""
    n_items = len(items)
    step = generator.permutation(np.arange(1, n_items))[:LENGTH]
    other = (np.arange(n_items)[:, None] + step).ravel() % n_items
    one = np.repeat(np.arange(n_items), LENGTH)
    rank = np.tile(np.arange(1, LENGTH + 1, dtype=np.int32), n_items)
    return pa.concat_tables([
        pa.table({
            "surface": pa.repeat(surface, len(one)), "item_id": items.take(pa.array(one)),
            "rank": rank, "listed_item_id": items.take(pa.array(other)), "score": 1.0 / rank,
        })
        for surface in ("similar", "cart")
    ])  # fmt: skip


def _publish(lake: Lake, folder: Path, frames: dict[str, pa.Table]) -> None:
    """The key-value store, the manifest and the pointer."""
    facts = {"length": LENGTH, "scored": True, "cadence": "nightly", "online": [], "fallback": []}
    grains = {"homepage": "person", "similar": "item", "cart": "item"}
    meta = {
        "format": releases.FORMAT, "release_id": folder.name, "as_of": AS_OF.isoformat(),
        "age_ceiling_hours": 96,
        "eligibility": release.ELIGIBILITY,
        "surfaces": {name: {"grain": grain, **facts} for name, grain in grains.items()},
    }  # fmt: skip
    recommended = {"homepage": lambda: frames["recommendations"].drop_columns("propensity")}
    stores.write_lmdb(folder / "kv", entries.of(frames, recommended, meta))
    files = {
        name: {"sha256": releases.digest(folder / name), "bytes": (folder / name).stat().st_size}
        for name in sorted(releases.files_of(folder))
    }
    io.write_json(folder / "manifest.json", {
        "format": releases.FORMAT, "id": folder.name, "kind": "nightly", "tables": {},
        "files": files, **meta,
    })  # fmt: skip
    releases.switch(lake, folder.name)


# --- the parent ------------------------------------------------------------------------------
def measure(
    home: Path, sample: Callable[[int, list[str], dict[str, int]], None], n_people: int = PEOPLE
) -> dict[str, Any]:
    """Draw a release, and serve it by a process of its own; ``sample`` watches its memory, as the
    benchmark's own does."""
    folder = home / "reader"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        lake = Lake(folder / "lake").open()
        release_id = generate(lake, n_people)
        with redis_server(folder) as url:
            if url:
                store = stores.RedisStore(url)
                embedded = stores.LmdbStore(releases.root(lake) / release_id / "kv")
                store.stage(release_id, embedded.items())
                store.point(release_id)
            line = [sys.executable, "-m", "tools.bench_reader", str(lake.root), url]
            memory: dict[str, int] = {}
            child = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)
            watcher = threading.Thread(
                target=sample, args=(child.pid, ["reader"], memory), daemon=True
            )
            watcher.start()
            printed, _ = child.communicate()
            if child.returncode:
                raise SystemExit("error: serving the release failed; see above")
        told = json.loads(printed.strip().splitlines()[-1])
        print(json.dumps(told), flush=True)
        kv = releases.root(lake) / release_id / "kv/data.mdb"
        facts = io.read_json(releases.root(lake) / release_id / "index/index.json")
        return {
            **told, "people": n_people, "memory": memory.get("reader", 0),
            "kv_bytes": kv.stat().st_size, "nlist": facts["nlist"], "nprobe": facts["nprobe"],
        }  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """The address of a redis-server of our own, gone at the end; empty where none is installed."""
    program = shutil.which("redis-server")
    if program is None:
        yield ""
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    line = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
            "--dir", str(folder)]  # fmt: skip
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


def table(run: dict[str, Any]) -> list[str]:
    """Markdown: quantiles of every question from every store, in microseconds."""
    lines = [
        "## Reading", "",
        f"One release of {run['people']:,} people with lists of {LENGTH} and {ITEMS:,} items "
        f"({run['kv_bytes'] / 2**20:.0f} MiB of LMDB), asked by one thread; microseconds a call by "
        "the wall, and of the processor alone.", "",
        _row(["from", "question", *TIMES.values(), "calls"]),
        _row(["---", "---", *["--:"] * (len(TIMES) + 1)]),
    ]  # fmt: skip
    for store, of_store in run["times"].items():
        for name, spent in of_store.items():
            cells = [f"{spent[what]:,.0f}" for what in (*TIMES, "calls")]
            lines.append(_row([store, NAMES[name], *cells]))
    flush = run["flush"]
    lines += [
        "",
        f"Opened in {run['open']['LMDB'] * 1e3:.0f} ms, the index with all vectors in "
        f"{run['open']['index'] * 1e3:.0f} ms; {run['memory'] / 2**20:.0f} MiB of memory at the "
        f"most. The search probes {run['nprobe']} of {run['nlist']} cells, more the less a person "
        f"may get, and finds {run['recall']:.4f} of the best {LENGTH}. Logging "
        f"{flush['answers']:,} answers with their features took {flush['seconds']:.1f} s, "
        f"{flush['processor']:.1f} s of a processor, and {flush['bytes'] / 2**20:.0f} MiB.",
    ]
    if "Redis" not in run["times"]:
        lines.append("No redis-server is installed here: Redis was not measured.")
    return [*lines, ""]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
