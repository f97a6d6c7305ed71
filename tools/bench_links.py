"""The benchmark's part ``links``: persons out of 1 and 10 million links, five ways side by side.

Components alone, over the same numbered links: by arrays (scipy), by stars on Spark, and by a plain
Spark loop that passes the least label on until none changes. The whole policy, from texts to
persons with reasons: by the array engine and by the Spark engine. Each contender runs in a process
of its own (``python -m tools.bench_links NAME FOLDER LIMIT``) that prints one JSON object; starting
Spark is not in its seconds. All must find the same partition, which is checked.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs import io, spark
from jobs.signals import components, identities, resolution, stars
from tools.bench_contenders import Watch

ROOT = Path(__file__).resolve().parent.parent
SIZES = "1000000,10000000"
LIMIT = "1800"  # seconds that a contender may take
SEED = 20171201
LINKS_PER_PERSON = 5.6  # of the shape below, a little less than it has
ACCOUNT, COOKIE, DEVICE = range(3)
TYPES = ("account", "cookie", "device")
COMPONENTS = ("scipy", "stars", "propagation")
ENGINES = ("array", "spark")
NAMES = {
    "scipy": "components: arrays",
    "stars": "components: stars on Spark",
    "propagation": "components: label propagation on Spark",
    "array": "policy: array engine",
    "spark": "policy: Spark engine",
}


# --- links -----------------------------------------------------------------------------------
def generate(links: int, folder: Path) -> dict[str, int]:
    """Write ``keys`` (in the order of founding), ``candidates`` and ``edges`` (left, right: the
    candidates by place in ``keys``).

    People have an account, 1 to 4 devices and some cookies on each; a person in ten has no account
    but a chain of up to 40 cookies that clicks in e-mails tied together. 2 % of the devices are
    logged in to by two to five people, 5 % of the cookies are seen on a stranger's device, and one
    link in ten is a guess, 3 % of them wrong.
    """
    random = np.random.default_rng(SEED)
    people = int(links / LINKS_PER_PERSON)
    devices = random.choice([1, 2, 3, 4], people, p=[0.5, 0.3, 0.15, 0.05])
    device_of = np.repeat(np.arange(people), devices)
    cookie_on = np.repeat(np.arange(len(device_of)), random.poisson(1.6, len(device_of)))
    chained = random.geometric(0.12, people // 10).clip(2, 40)
    cookies, chain = len(cookie_on), int(chained.sum())
    pairs = [
        (ACCOUNT, device_of, DEVICE, np.arange(len(device_of))),
        (COOKIE, np.arange(cookies), DEVICE, cookie_on),
    ]
    shared = np.repeat(*_some(random, len(device_of), 0.02, [1, 2, 3, 4]))
    pairs.append((ACCOUNT, random.integers(0, people, len(shared)), DEVICE, shared))
    recycled = np.flatnonzero(random.random(cookies) < 0.05)
    pairs.append((COOKIE, recycled, DEVICE, random.integers(0, len(device_of), len(recycled))))
    steps = cookies + np.delete(np.arange(chain), np.cumsum(chained) - 1)
    pairs.append((COOKIE, steps, COOKIE, steps + 1))
    exact = sum(len(left) for _, left, _, _ in pairs)
    guessed = random.integers(0, cookies, exact // 9)
    wrong = random.random(len(guessed)) < 0.03
    twin = np.searchsorted(cookie_on, cookie_on[guessed])  # the first cookie of the same device
    stranger = random.integers(0, cookies, len(guessed))
    pairs.append((COOKIE, guessed, COOKIE, np.where(wrong, stranger, twin)))
    counts = (people, cookies + chain, len(device_of))
    left, right = (
        np.concatenate([sum(counts[: pair[side]]) + pair[side + 1] for pair in pairs])
        for side in (0, 2)
    )
    confidence = np.ones(len(left))
    confidence[exact:] = random.uniform(0.9, 1.0, len(guessed))
    chosen = random.permutation(np.flatnonzero(left != right))[:links]
    place = random.permutation(sum(counts))  # founding order: any key may be seen first
    left, right, confidence = place[left[chosen]], place[right[chosen]], confidence[chosen]
    keys = _keys(counts, np.argsort(place))
    swap = pc.greater(keys["key_type"].take(pa.array(left)), keys["key_type"].take(pa.array(right)))
    left, right = np.where(swap.to_numpy(), (right, left), (left, right))
    guess = confidence < 1
    io.write_arrow(folder / "keys", keys)
    io.write_arrow(folder / "edges", pa.table({"left": left, "right": right}))
    ends = {
        f"{name}_{end}": keys[name].take(pa.array(side))
        for end, side in (("a", left), ("b", right))
        for name in ("key_type", "key")
    }
    source = pa.array(["login", "probabilistic"]).take(pa.array(guess.astype(np.int8)))
    io.write_arrow(
        folder / "candidates",
        pa.table({**ends, "source": source, "confidence": confidence, "guess": guess}).select(
            resolution.CANDIDATE
        ),
    )
    return {"keys": keys.num_rows, "links": len(left), "guesses": int(guess.sum())}


def _some(
    random: np.random.Generator, size: int, share: float, repeats: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """A share of the numbers below ``size``, and how often each is to be repeated."""
    chosen = np.flatnonzero(random.random(size) < share)
    return chosen, random.choice(repeats, len(chosen))


def _keys(counts: tuple[int, ...], order: np.ndarray) -> pa.Table:
    """key_type, key, first_seen: one microsecond apart, in this order."""
    kinds = np.repeat(np.arange(len(counts)), counts)[order]
    numbers = pa.array(order).cast(pa.string())
    types = pa.array(TYPES).take(pa.array(kinds))
    start = np.datetime64("2024-01-01", "us").astype(np.int64)
    return pa.table({
        "key_type": types, "key": pc.binary_join_element_wise(types, numbers, "-"),
        "first_seen": pa.array(start + np.arange(len(order))).cast(pa.timestamp("us", tz="UTC")),
    })  # fmt: skip


# --- contenders ------------------------------------------------------------------------------
def scipy(folder: Path, out: Path, watch: Watch, limit: float) -> dict[str, Any]:
    edges = io.read_arrow(folder / "edges")
    left, right = edges["left"].to_numpy(), edges["right"].to_numpy()
    keys = io.count_rows(folder / "keys")
    least = watch("run", lambda: components.label(keys, left, right))
    io.write_arrow(out, pa.table({"least": least}))
    return {}


def array(folder: Path, out: Path, watch: Watch, limit: float) -> dict[str, Any]:
    caps = identities.Params().caps
    watch("run", lambda: resolution.resolve(
        None, folder / "keys", folder / "candidates", out, caps, "array", 0  # type: ignore[arg-type]
    ))  # fmt: skip
    return _outcomes(out)


def on_spark(work: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A contender that is handed a session on all local cores, with the night's settings."""

    def run(folder: Path, out: Path, watch: Watch, limit: float) -> dict[str, Any]:
        engine = spark.start("local[*]", folder / "engine" / "spark.log", {})
        try:
            session = engine.session()
            session.range(1000).count()  # the first job of an engine is slow for anybody
            return work(session, folder, out, watch, limit)
        finally:
            spark.release_session()
            engine.stop()

    return run


def whole(session: Any, folder: Path, out: Path, watch: Watch, limit: float) -> dict[str, Any]:
    caps = identities.Params().caps
    watch("run", lambda: resolution.resolve(
        session, folder / "keys", folder / "candidates", out, caps, "spark", 0
    ))  # fmt: skip
    return _outcomes(out)


def star(session: Any, folder: Path, out: Path, watch: Watch, limit: float) -> dict[str, Any]:
    edges = session.read.parquet(str(folder / "edges"))
    rounds = out.parent / "star-rounds"
    watch("run", lambda: stars.connect(edges, rounds).write.parquet(str(out)))
    return {"rounds": len(list(rounds.glob("round-*")))}


def propagate(session: Any, folder: Path, out: Path, watch: Watch, limit: float) -> dict[str, Any]:
    """Each key takes the least label of its neighbours, until no label changes."""
    from pyspark.sql import functions as F

    edges = session.read.parquet(str(folder / "edges"))
    found = {"rounds": 0, "finished": False}
    work = out.parent / "propagation-rounds"
    started = time.monotonic()

    def loop() -> None:
        turned = edges.select(F.col("right").alias("left"), F.col("left").alias("right"))
        both = io.kept(edges.unionAll(turned), work / "both")
        own = both.select(F.col("left").alias("number")).distinct()
        labels = io.kept(own.withColumn("least", F.col("number")), work / "labels-0")
        while not found["finished"] and time.monotonic() - started < limit:
            found["rounds"] += 1
            told = both.join(labels, F.col("right") == F.col("number"), how="inner").select(
                F.col("left").alias("number"), "least"
            )
            after = work / f"labels-{found['rounds']}"
            fewer = labels.withColumn("was", F.col("least")).unionAll(
                told.withColumn("was", F.lit(None).cast("bigint"))
            )
            labels = io.kept(
                fewer.groupBy("number").agg(
                    F.min("least").alias("least"),
                    F.coalesce(F.min("least") != F.max("was"), F.lit(False)).alias("changed"),
                ),
                after,
            )
            changed = io.read_arrow(after, ["changed"])["changed"]
            found["finished"] = not pc.any(changed).as_py()
            found["changed"] = int(pc.sum(changed).as_py())
            labels = labels.select("number", "least")
        labels.write.parquet(str(out))

    watch("run", loop)
    return found


CONTENDERS = {
    "scipy": scipy, "array": array, "stars": on_spark(star), "propagation": on_spark(propagate),
    "spark": on_spark(whole),
}  # fmt: skip


def _outcomes(out: Path) -> dict[str, Any]:
    counted = io.read_arrow(out / "links", ["outcome"])["outcome"].value_counts().to_pylist()
    persons = pc.count_distinct(io.read_arrow(out / "keys", ["person_id"])["person_id"]).as_py()
    return {"persons": persons, "outcomes": {c["values"]: c["counts"] for c in counted}}


def main() -> int:
    name, folder, limit = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    watch = Watch()
    found = CONTENDERS[name](folder, folder / "found" / name, watch, limit)
    print(json.dumps({"name": name, **watch.spent, **found}), flush=True)
    return 0


# --- the parent ------------------------------------------------------------------------------
def measure(
    links: int, home: Path, limit: float, sample: Callable[[int, list[str], dict[str, int]], None]
) -> list[dict[str, Any]]:
    """All contenders at one size, in a folder of its own that is deleted again.

    ``sample`` watches the memory of a process and its children, as the benchmark's own does.
    """
    folder = home / f"links-{links}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        size = generate(links, folder)
        runs = []
        for name in (*COMPONENTS, *ENGINES):
            run = {**size, **_contend(name, folder, limit, sample)}
            runs.append(run)
            print(json.dumps(run), flush=True)
        _compare(folder, runs)
        return runs
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _contend(
    name: str, folder: Path, limit: float, sample: Callable[[int, list[str], dict[str, int]], None]
) -> dict[str, Any]:
    line = [sys.executable, "-m", "tools.bench_links", name, str(folder), str(limit)]
    memory: dict[str, int] = {}
    child = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    threading.Thread(target=sample, args=(child.pid, [name], memory), daemon=True).start()
    printed, _ = child.communicate()
    if child.returncode:
        raise SystemExit(f"error: the contender {name} failed; see above")
    told = json.loads(printed.strip().splitlines()[-1])
    return {**told, "memory": memory.get(name, 0)}


def _compare(folder: Path, runs: list[dict[str, Any]]) -> None:
    """Say in each run whether its partition is the arrays'."""
    found = folder / "found"
    expected = io.read_arrow(found / "scipy")["least"].to_numpy()
    for run in runs:
        name = run["name"]
        if name in ENGINES:
            run["same"] = _keys_of(found / name).equals(_keys_of(found / "array"))
        elif run.get("finished", True):
            run["same"] = np.array_equal(_labels(found / name, len(expected)), expected)
    ids = io.read_arrow(folder / "keys", ["key_type", "key"])
    named = resolution.key_ids(ids["key_type"], ids["key"]).take(pa.array(expected))
    order = io.read_arrow(found / "array" / "keys", ["component"])["component"]
    for run in runs:
        if run["name"] == "array":
            run["same"] = order.cast(named.type).combine_chunks().equals(named)


def _labels(folder: Path, keys: int) -> np.ndarray:
    """(n_keys,) the least number of each key's component; a key without a link has its own."""
    rows = pq.read_table(folder)
    if "number" not in rows.column_names:
        return rows["least"].to_numpy()
    labels = np.arange(keys)
    labels[rows["number"].to_numpy()] = rows["least"].to_numpy()
    return labels


def _keys_of(folder: Path) -> pa.Table:
    """The keys in the order of founding, with columns of one type whoever wrote them."""
    names = ["key_type", "key", "person_id", "component"]
    keys = io.read_arrow(folder / "keys").sort_by([("first_seen", "ascending")]).select(names)
    return keys.cast(pa.schema([(name, pa.large_string()) for name in names])).combine_chunks()


def table(sizes: list[list[dict[str, Any]]]) -> list[str]:
    """Markdown: per contender and size seconds, processor seconds, memory, and growth."""
    heads = [f"{runs[0]['links'] / 1e6:g} M" for runs in sizes]
    lines = ["## Persons from links", ""]
    for runs, head in zip(sizes, heads, strict=True):
        array_run = next(run for run in runs if run["name"] == "array")
        told = ", ".join(f"{n:,} {name}" for name, n in sorted(array_run["outcomes"].items()))
        lines.append(
            f"{head} links ({runs[0]['guesses']:,} of them guesses), {runs[0]['keys']:,} keys, "
            f"{array_run['persons']:,} persons: {told}."
        )
    columns = [f"{what}, {head}" for head in heads for what in ("s", "processor s", "GiB")]
    grown = [f"growth to {head}" for head in heads[1:]]
    cells = ["contender", *columns, *grown, "same partition", ""]
    lines += ["", _row(cells), _row(["---"] + ["--:"] * (len(cells) - 2) + ["---"])]
    for place, first in enumerate(sizes[0]):
        mine = [runs[place] for runs in sizes]
        row = [NAMES[first["name"]]]
        for run in mine:
            row += [f"{run['run_seconds']:.1f}", f"{run['run_processor']:.1f}",
                    f"{run['memory'] / 2**30:.1f}"]  # fmt: skip
        for small, large in pairwise(mine):
            ratio = large["run_seconds"] / small["run_seconds"]
            row.append(f"{ratio / (large['links'] / small['links']):.2f}")
        same = [run.get("same") for run in mine]
        row.append("no" if False in same else "yes" if all(same) else "where it ended")
        lines.append(_row([*row, "; ".join(filter(None, map(_remark, mine)))]))
    return [*lines, ""]


def _remark(run: dict[str, Any]) -> str:
    if run.get("finished", True):
        return f"{run['rounds']} rounds" if "rounds" in run else ""
    return (
        f"stopped after {run['rounds']} rounds in {run['run_seconds']:.0f} s: "
        f"{run['changed']:,} labels still changed"
    )


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
