"""``make bench``: how long the night takes, how much memory, how both grow, and beside what.

Part ``night``: the whole night at several sizes of the simulator's shop, every job and gate by the
command line that the DAG calls. Part ``beside``: training and top-100 lists on one matrix, by the
pipeline's own functions, by a straight script with implicit and FAISS, and by Spark MLlib; on the
simulator's and on Complete Journey's interactions, judged on the purchases of the 28 days after.
Part ``links``: persons from links, by arrays and by Spark, beside a plain label propagation.
Part ``persons``: how well persons are found in the simulator's noise, and in two and four times it.
Part ``topk``: the exact best items that each person may get, beside FAISS and implicit.
Part ``scoring``: features and scores of 200 candidates a person, for rising numbers of people.
Part ``index``: an hourly refresh of an index of 500,000 items beside building it again.
Part ``refresh``: two refreshes of a day beside its night, at each of ``EVENTS``.
Part ``als``: nights fitted from the night before beside cold fits, and people folded in.
Part ``diagnosis``: every step of the daily diagnosis, for logs of rising size.
Part ``reader``: how long serving waits for an answer from LMDB, from Redis and from the index.
Part ``off_policy``: what items drawn by lot bring, estimated and in truth (Open Bandit Dataset).

Settings come from the environment: ``EVENTS=1000000,3000000`` (sizes), ``PARTS=night,beside`` (all
where it is not given), ``ROUNDS=3`` (alternations of the contenders; Spark MLlib runs in the first
only), ``LINKS=1000000`` (sizes of the part links) and ``LIMIT=1800`` (seconds for its label
propagation), ``PEOPLE=50000,100000`` (sizes of the part scoring), ``ROWS=1000000`` (sizes of the
part diagnosis), ``LAKE`` (where the benchmark's lakes are made, ``var/bench``; each is deleted when
it is measured), ``MASTER``. Prints tables and writes ``report.md`` and ``results.json`` there.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import scipy.sparse as sp

from jobs import io
from jobs.io import Lake
from jobs.retrieval import matrix
from tools import (
    bench_als,
    bench_diagnosis,
    bench_index,
    bench_links,
    bench_off_policy,
    bench_persons,
    bench_reader,
    bench_refresh,
    bench_scoring,
    bench_topk,
    growth,
)

ROOT = Path(__file__).resolve().parent.parent
PARTS = dict.fromkeys(
    ("night", "beside", "links", "persons", "topk", "scoring", "index", "refresh", "als", "reader",
     "off_policy", "diagnosis")
).keys()  # fmt: skip
PERSONS_EVENTS = 200_000
SIZES = "1000000,3000000,10000000"
END = "2024-03-01"  # the run date that sees all of the simulator's events
HORIZON = timedelta(days=28)
TO_INTERACTIONS = ("source", "events", "catalogue", "identities", "sessions", "interactions")
# Complete Journey's days from 2017-12-01 on are for final judgements only.
BESIDE = {
    "simulated shop": ("simulated:events=1000000", "2024-02-02"),
    "Complete Journey": ("completejourney", "2017-11-03"),
}
SAMPLE_SECONDS = 0.2
GIB = 2**30


@dataclass
class Measured:
    """A night at one size: per job or gate, in order, seconds by the wall and by the processors,
    and peak bytes of memory."""

    events: int
    seconds: dict[str, float] = field(default_factory=dict)
    processor: dict[str, float] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)

    def of_steps(self, spent: dict[str, float] | None = None) -> dict[str, float]:
        """Seconds per step, its gate included; making the data (step source) left out."""
        found: dict[str, float] = {}
        for name, seconds in (self.seconds if spent is None else spent).items():
            step = name.removesuffix("_gate")
            if step != "source":
                found[step] = found.get(step, 0.0) + seconds
        return found

    @property
    def total(self) -> float:
        return sum(self.of_steps().values())

    @property
    def peak(self) -> int:
        return max(bytes_ for name, bytes_ in self.memory.items() if not name.startswith("source"))


def main() -> int:
    chosen = _Settings.read(os.environ)
    chosen.home.mkdir(parents=True, exist_ok=True)
    report = [f"Measured on {_machine()}, {datetime.now():%Y-%m-%d}.", ""]
    results: dict[str, Any] = {}
    if "night" in chosen.parts:
        nights = []
        for events in chosen.sizes:
            nights.append(night(events, chosen.home))
            report[2:] = night_tables(nights)
            _keep(chosen.home, report, results | {"night": [vars(each) for each in nights]})
        results["night"] = [vars(each) for each in nights]
    if "beside" in chosen.parts:
        results["beside"] = {}
        for title, (source, as_of) in BESIDE.items():
            runs = beside(source, as_of, chosen.rounds, chosen.home)
            results["beside"][title] = runs
            report += beside_table(title, runs)
            _keep(chosen.home, report, results)
    if "links" in chosen.parts:
        results["links"] = []
        start = len(report)
        for links in chosen.links:
            results["links"].append(bench_links.measure(links, chosen.home, chosen.limit, _sample))
            report[start:] = bench_links.table(results["links"])
            _keep(chosen.home, report, results)
    if "persons" in chosen.parts:
        results["persons"] = bench_persons.measure(PERSONS_EVENTS, chosen.home)
        report += bench_persons.table(results["persons"], PERSONS_EVENTS)
        _keep(chosen.home, report, results)
    if "topk" in chosen.parts:
        results["topk"] = bench_topk.measure(chosen.rounds)
        report += bench_topk.table(results["topk"])
        _keep(chosen.home, report, results)
    if "scoring" in chosen.parts:
        results["scoring"] = bench_scoring.measure(chosen.people, chosen.home, _sample)
        report += bench_scoring.table(results["scoring"])
        _keep(chosen.home, report, results)
    if "refresh" in chosen.parts:
        results["refresh"] = []
        for events in chosen.sizes:
            found = bench_refresh.measure(events, chosen.home, partial(_measured, events))
            results["refresh"].append(found)
            report += bench_refresh.table(found)
            _keep(chosen.home, report, results)
    if "als" in chosen.parts:
        nightly = bench_als.measure(chosen.home)
        results["als"] = bench_als.summary(nightly)
        report += bench_als.table(nightly)
        io.write_text(chosen.home / "als.svg", bench_als.drawing(nightly))
        _keep(chosen.home, report, results)
    if "index" in chosen.parts:
        results["index"] = bench_index.measure(chosen.rounds)
        report += bench_index.table(results["index"])
        _keep(chosen.home, report, results)
    if "reader" in chosen.parts:
        results["reader"] = bench_reader.measure(chosen.home, _sample)
        report += bench_reader.table(results["reader"])
        _keep(chosen.home, report, results)
    if "diagnosis" in chosen.parts:
        logs = []
        start = len(report)
        for rows in chosen.rows:
            drive = partial(_driven, rows)
            logs.append(bench_diagnosis.measure(rows, chosen.home, drive))
            report[start:] = bench_diagnosis.table(logs)
            results["diagnosis"] = [vars(each) for each in logs]
            _keep(chosen.home, report, results)
    if "off_policy" in chosen.parts:
        results["off_policy"] = bench_off_policy.measure(chosen.home)
        report += bench_off_policy.table(results["off_policy"])
        _keep(chosen.home, report, results)
    print("\n".join(report))
    print(f"\nWritten to {chosen.home / 'report.md'} and {chosen.home / 'results.json'}.")
    return 0


@dataclass(frozen=True)
class _Settings:
    sizes: list[int]
    parts: list[str]
    rounds: int
    links: list[int]
    limit: int
    people: list[int]
    rows: list[int]
    home: Path

    @staticmethod
    def read(values: Mapping[str, str]) -> _Settings:
        def numbers(name: str, default: str) -> list[int]:
            return sorted(int(size) for size in (values.get(name) or default).split(","))

        try:
            sizes = numbers("EVENTS", SIZES)
            rounds = int(values.get("ROUNDS") or 3)
            links = numbers("LINKS", bench_links.SIZES)
            limit = int(values.get("LIMIT") or bench_links.LIMIT)
            people = numbers("PEOPLE", bench_scoring.SIZES)
            rows = numbers("ROWS", bench_diagnosis.SIZES)
        except ValueError as error:
            raise SystemExit(
                f"error: {error}; write numbers: make bench EVENTS=1000000,3000000 ROUNDS=3"
            ) from None
        parts = (values.get("PARTS") or ",".join(PARTS)).split(",")
        too_small = min(*sizes, *links, *people, *rows) < 1000 or min(rounds, limit) < 1
        if too_small or not set(parts) <= PARTS:
            raise SystemExit(
                "error: EVENTS, LINKS, PEOPLE and ROWS must be 1000 or more each, ROUNDS and LIMIT "
                f"1 or more, PARTS of {', '.join(PARTS)}"
            )
        home = Path(values.get("LAKE") or ROOT / "var" / "bench")
        return _Settings(sizes, parts, rounds, links, limit, people, rows, home)


# --- the night at several sizes --------------------------------------------------------------
def night(events: int, home: Path) -> Measured:
    """One whole night over a simulated shop with so many events, on a lake of its own."""
    lake = home / f"night-{events}"
    shutil.rmtree(lake, ignore_errors=True)
    try:
        return _drive(lake, END, f"simulated:events={events}", (), Measured(events))
    finally:
        shutil.rmtree(lake, ignore_errors=True)


def _measured(events: int, lake: Path, as_of: str, source: str) -> Measured:
    return _drive(lake, as_of, source, (), Measured(events))


def _driven(rows: int, lake: Path, as_of: str, source: str, chosen: tuple[str, ...]) -> Measured:
    return _drive(lake, as_of, source, chosen, Measured(rows))


def _drive(
    lake: Path, as_of: str, source: str, chosen: tuple[str, ...], measured: Measured
) -> Measured:
    """Run steps in a child and watch it; raises ``SystemExit`` where it fails."""
    line = [sys.executable, "-m", "tools.bench_night", str(lake), as_of, source, *chosen]
    # Without buffering through a shell; the child's stderr goes to ours.
    child = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    now = ["start"]
    watcher = threading.Thread(target=_sample, args=(child.pid, now, measured.memory), daemon=True)
    watcher.start()
    try:
        assert child.stdout is not None
        for text in child.stdout:
            if not text.startswith("{"):
                continue
            told = json.loads(text)
            if "begin" in told:
                now[0] = told["begin"]
            else:
                measured.seconds[told["end"]] = told["seconds"]
                measured.processor[told["end"]] = told["processor"]
                peak = measured.memory.get(told["end"], 0) / GIB
                print(
                    f"{source} {told['end']}: {told['seconds']:.1f} s, {peak:.1f} GiB", flush=True
                )
        code = child.wait()
    except BaseException:
        child.terminate()
        child.wait(timeout=60)
        raise
    if code:
        raise SystemExit(f"error: the night on {source} stopped at {now[0]}; see above")
    return measured


def _sample(pid: int, now: list[str], peaks: dict[str, int]) -> None:
    """Keep the largest resident memory of a process and all its children, by what it does."""
    try:
        root = psutil.Process(pid)
        while root.is_running():
            peaks[now[0]] = max(peaks.get(now[0], 0), resident(root))
            time.sleep(SAMPLE_SECONDS)
    except psutil.NoSuchProcess:
        return


def resident(root: psutil.Process) -> int:
    """Bytes in memory of a process and all its children.

    A child that is about to become another program still lives in its parent's memory, and has its
    command line: of such a one that counts by which it is greater. (A JVM of 5 GiB that runs
    ``chmod`` seemed to take 10.)
    """
    told: dict[int, tuple[int, list[str], int]] = {}
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess), process.oneshot():
            told[process.pid] = process.ppid(), process.cmdline(), process.memory_info().rss
    total = 0
    for parent, line, held in told.values():
        _, same, shared = told.get(parent, (0, None, 0))
        total += max(0, held - shared) if same == line else held
    return total


def night_tables(nights: list[Measured]) -> list[str]:
    """Markdown: seconds per step and size, and how time grows from size to size."""
    sizes = [f"{each.events / 1e6:g} M" for each in nights]
    events = [each.events for each in nights]
    grown = growth.heads(events)
    lines = [
        "## The night by size", "",
        f"Seconds of each step with its gate; {growth.MEANING}.", "",
        _row(["step", *sizes, *grown]),
        _row(["---", *["--:"] * (len(sizes) + len(grown))]),
    ]  # fmt: skip
    per_size = [each.of_steps() for each in nights]
    for step in per_size[0]:
        spent = [steps.get(step, float("nan")) for steps in per_size]
        lines.append(_row([step, *(f"{s:.1f}" for s in spent), *growth.cells(spent, events)]))
    totals = [each.total for each in nights]
    busy = [sum(each.of_steps(each.processor).values()) for each in nights]
    lines += [
        _row(["**total**", *(f"{s:.0f}" for s in totals), *growth.cells(totals, events)]),
        _row(["processor seconds", *(f"{s:.0f}" for s in busy), *growth.cells(busy, events)]),
        _row(
            ["peak memory, GiB", *(f"{each.peak / GIB:.1f}" for each in nights), *[""] * len(grown)]
        ),
        "",
    ]
    return lines


# --- side by side ----------------------------------------------------------------------------
def beside(source: str, as_of: str, rounds: int, home: Path) -> list[dict[str, Any]]:
    """Every contender's runs on one matrix; the order turns round from one round to the next."""
    lake = home / "beside"
    shutil.rmtree(lake, ignore_errors=True)
    try:
        _drive(lake, as_of, source, TO_INTERACTIONS, Measured(0))
        facts = prepare(Lake(lake), io.parse_as_of(as_of), lake / "matrix")
        print(f"{source}: {facts}", flush=True)
        runs = []
        for round_ in range(rounds):
            names = ["pipeline", "script"] if round_ % 2 == 0 else ["script", "pipeline"]
            for name in [*names, "mllib"] if round_ == 0 else names:
                runs.append({**_contend(name, lake / "matrix"), "round": round_, **facts})
                print(json.dumps(runs[-1]), flush=True)
        return runs
    finally:
        shutil.rmtree(lake, ignore_errors=True)


def prepare(lake: Lake, as_of: datetime, folder: Path) -> dict[str, int]:
    """Write the matrix of the published interactions and what was bought in the days after."""
    folder.mkdir(parents=True)
    rows = io.read_arrow(
        lake.published("interactions", as_of).table("interactions"),
        ["person_id", "item_id", "weight", "last_time"],
    )
    known = matrix.build(rows)
    sp.save_npz(folder / "weights.npz", known.matrix)
    coordinates = known.matrix.tocoo()
    pq.write_table(
        pa.table({
            "person": coordinates.row.astype(np.int32), "item": coordinates.col.astype(np.int32),
            "weight": coordinates.data.astype(np.float64),
        }),
        folder / "pairs.parquet",
    )  # fmt: skip
    bought = _bought_after(lake, as_of, known)
    sp.save_npz(folder / "bought.npz", bought)
    return {
        "people": known.matrix.shape[0], "items": known.matrix.shape[1],
        "pairs": int(known.matrix.nnz), "judged": int((np.diff(bought.indptr) > 0).sum()),
    }  # fmt: skip


def _bought_after(lake: Lake, as_of: datetime, known: matrix.Interactions) -> sp.csr_matrix:
    """(n_people, n_items) int8: purchases of the horizon, of known people and items."""
    source = io.read_json(lake.published("source", as_of).table("source.json"))
    after = (
        (ds.field("event_type") == "purchase")
        & (ds.field("event_time") >= pa.scalar(as_of, pa.timestamp("us", tz="UTC")))
        & (ds.field("event_time") < pa.scalar(as_of + HORIZON, pa.timestamp("us", tz="UTC")))
    )
    events = io.read_arrow(Path(source["folder"]) / "events", ["key_type", "key", "item_id"], after)
    identities = io.read_arrow(lake.published("identities", as_of).table("identities"))
    joined = events.join(
        identities.select(["key_type", "key", "person_id"]), ["key_type", "key"], join_type="inner"
    )
    people = matrix.positions(joined["person_id"], known.person_ids)
    items = matrix.positions(joined["item_id"], known.item_ids)
    both = (people >= 0) & (items >= 0)
    found = sp.csr_matrix(
        (np.ones(int(both.sum()), np.int32), (people[both], items[both])), shape=known.matrix.shape
    )
    found.data[:] = 1
    return found.astype(np.int8)


def _contend(name: str, folder: Path) -> dict[str, Any]:
    line = [sys.executable, "-m", "tools.bench_contenders", name, str(folder)]
    memory: dict[str, int] = {}
    child = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    watcher = threading.Thread(target=_sample, args=(child.pid, [name], memory), daemon=True)
    watcher.start()
    printed, _ = child.communicate()
    if child.returncode:
        raise SystemExit(f"error: the contender {name} failed; see above")
    return {**json.loads(printed.strip().splitlines()[-1]), "memory": memory.get(name, 0)}


def beside_table(title: str, runs: list[dict[str, Any]]) -> list[str]:
    """Markdown: medians of each contender, and medians over rounds of ratios to the pipeline."""
    first = runs[0]
    lines = [
        f"## Beside others: {title}", "",
        f"{first['people']:,} people, {first['items']:,} items, {first['pairs']:,} pairs; recall "
        f"over the {first['judged']:,} people who bought something known in the 28 days after.", "",
        _row(["contender", "train, s", "lists, s", "together, s", "processor, s",
              "recall@100", "memory, GiB", "time ÷ pipeline", "processor ÷ pipeline"]),
        _row(["---", *["--:"] * 8]),
    ]  # fmt: skip
    for name in ("pipeline", "script", "mllib"):
        mine = [run for run in runs if run["name"] == name]
        lines.append(_row([
            NAMES[name],
            *(f"{statistics.median(run[key] for run in mine):.2f}"
              for key in ("train_seconds", "lists_seconds")),
            f"{statistics.median(map(_wall, mine)):.2f}",
            f"{statistics.median(map(_processor, mine)):.2f}",
            f"{statistics.median(run['recall'] for run in mine):.4f}",
            f"{max(run['memory'] for run in mine) / GIB:.1f}",
            *(f"{statistics.median(_ratios(runs, mine, of)):.2f}" for of in (_wall, _processor)),
        ]))  # fmt: skip
    rounds = 1 + max(run["round"] for run in runs)
    return [*lines, "", f"Medians of {rounds} rounds in turn; Spark MLlib ran in the first.", ""]


NAMES = {
    "pipeline": "the pipeline's functions",
    "script": "script: implicit and FAISS",
    "mllib": "Spark MLlib",
}


def _wall(run: dict[str, Any]) -> float:
    return run["train_seconds"] + run["lists_seconds"]


def _processor(run: dict[str, Any]) -> float:
    return run["train_processor"] + run["lists_processor"]


def _ratios(runs: list[dict[str, Any]], mine: list[dict[str, Any]], of: Any) -> list[float]:
    """What each run took over what the pipeline took in the same round."""
    ours = {run["round"]: of(run) for run in runs if run["name"] == "pipeline"}
    return [of(run) / ours[run["round"]] for run in mine]


# --- the report ------------------------------------------------------------------------------
def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _keep(home: Path, report: list[str], results: dict[str, Any]) -> None:
    io.write_text(home / "report.md", "\n".join(report) + "\n")
    io.write_json(home / "results.json", results)


def _machine() -> str:
    memory = psutil.virtual_memory().total / GIB
    load = psutil.getloadavg()[0]
    return (
        f"{psutil.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB, "
        f"Python {platform.python_version()}; load {load:.1f} at the start"
    )


if __name__ == "__main__":
    sys.exit(main())
