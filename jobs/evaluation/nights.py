"""The nights of a backtest: where they lie, what they were made by, and what came after them.

Each cut has a lake of its own, so that what is measured at one cut does not depend on which others
are: no night starts from the vectors of another. All share the conversions of the source. Under the
backtest's root::

    sources/                       foreign sources in the contract's shape
    nights/<source>/<cut>/         the lake of a cut
    nights/<source>/<cut>/after/   what was bought after it, by whom as known at it
    nights/<source>/<cut>/night.json   written last: what the night and its truth were made of
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs import io, steps
from jobs.errors import Fault
from jobs.evaluation import outcomes
from jobs.io import Lake
from jobs.night import Night
from jobs.sources.source import Source

ROOT = Path(__file__).resolve().parents[2]
# What the judged lists need, in the night's order: every step up to them.
LISTED = tuple(steps.STEPS)[: list(steps.STEPS).index("recommendations") + 1]
# What tells whose a later purchase was.
TOLD = ("source", "events", "identities", "sessions")
ENTRY = "jobs.__main__"
# Loaded by name and not by an import statement.
BY_NAME = ("jobs/sources", "expectations")


@dataclass(frozen=True)
class Made:
    """What a night and its truth were made of; equal ones need not be made again."""

    source: str
    state: str
    cut: str
    until: str
    params: dict[str, dict[str, Any]]
    code: str


def lake_of(root: Path, source: str, cut: datetime) -> Lake:
    """The lake of a cut, opened; it sees the conversions that all cuts share."""
    lake = Lake(root / "nights" / io.folder_name(source) / io.label(cut)).open()
    shared = root.resolve() / "sources"
    shared.mkdir(parents=True, exist_ok=True)
    if not (lake.root / "sources").exists():
        (lake.root / "sources").symlink_to(shared)
    return lake


def is_made(lake: Lake, made: Made) -> bool:
    """Whether a whole night made of just this lies there."""
    note = lake.root / "night.json"
    return note.is_file() and io.read_json(note) == asdict(made)


# --- what a night is made of -----------------------------------------------------------------
def code_of_night() -> str:
    """A digest over the code that makes a night: what its command line and its steps import, what
    is loaded by name, and the locked requirements.

    Not the commit: two uncommitted trees have one name there, and most commits change no list.
    """
    files = closure([ENTRY, *steps.STEPS.values()])
    for folder in BY_NAME:
        files |= set((ROOT / folder).rglob("*.py"))
    files |= {ROOT / "requirements" / f"{name}.txt" for name in ("run", "neural")}
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(ROOT)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def closure(modules: Iterable[str]) -> set[Path]:
    """The files of these modules and of every module of ``jobs`` that they import."""
    found: set[Path] = set()
    waiting = list(modules)
    while waiting:
        path = ROOT / f"{waiting.pop().replace('.', '/')}.py"
        if path in found or not path.is_file():
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
    return found


def state_of(source: Source) -> str:
    """What tells one state of a source from another: a conversion's digest, which its folder is
    named by; of a folder used in place the names, sizes and times of its files."""
    if source.adapter != "contract":
        return source.folder.name
    digest = hashlib.sha256()
    for path in sorted(source.folder.rglob("*.parquet")):
        facts = path.stat()
        digest.update(f"{path.relative_to(source.folder)}\0{facts.st_size}\0".encode())
        digest.update(f"{facts.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]


def check_cuts(
    source: Source, cuts: Sequence[datetime], horizon: timedelta, what: str = "backtest"
) -> None:
    """Raise ``Fault`` that names every cut which the source's events do not cover; ``what``: who
    asks."""
    span = _span(source)
    first, last, bought = span["first"], span["last"], span["bought"]
    if first is None:
        raise Fault(f"{what}: the source {source.name} has no events in {source.folder}")
    faults = []
    for cut in cuts:
        end = cut + horizon
        if cut <= first:
            faults.append(
                f"the cut {cut:%Y-%m-%d} is not after the first event, of {first:%Y-%m-%d}"
            )
        elif last < end - timedelta(days=1):
            until = last.date() + timedelta(days=1) - horizon
            faults.append(
                f"the {horizon.days} days after the cut {cut:%Y-%m-%d} are not covered: the last "
                f"event is of {last:%Y-%m-%d}, so give cuts up to {until}"
            )
        elif not ((bought >= cut) & (bought < end)).any():
            faults.append(
                f"nobody bought anything in the {horizon.days} days after the cut {cut:%Y-%m-%d}, "
                "so nothing says whether a list was right"
            )
    if faults:
        raise Fault(f"{what}: " + "; ".join(faults))


def _span(source: Source) -> dict[str, Any]:
    """The first and the last event, and (n,) the days' starts on which something was bought."""
    instant = pa.timestamp("us", tz="UTC")
    files = [str(path) for path in io.parquet_files(source.folder / "events")]
    first = last = None
    days: set[int] = set()
    columns = {
        "time": ds.field("event_time").cast(instant), "kind": ds.field("event_type"),
    }  # fmt: skip
    for batch in ds.dataset(files, format="parquet").to_batches(columns=columns):
        if not batch.num_rows:
            continue
        ends = pc.min_max(batch["time"])
        if not ends["min"].is_valid:
            continue
        low, high = ends["min"].as_py(), ends["max"].as_py()
        first = low if first is None else min(first, low)
        last = high if last is None else max(last, high)
        mine = batch["time"].filter(pc.fill_null(pc.equal(batch["kind"], "purchase"), False))
        days.update(pc.unique(pc.floor_temporal(mine, unit="hour")).to_pylist())
    return {"first": first, "last": last, "bought": np.array(sorted(filter(None, days)), object)}


# --- what came after -------------------------------------------------------------------------
def bought_after(later: DataFrame, keyed: DataFrame, cut: datetime, until: datetime) -> DataFrame:
    """person_id, item_id, money, baskets: what the persons known at the cut bought from it until
    before ``until``.

    ``later``: the table ``history`` as of ``until``; ``keyed``: ``identities`` as of the cut.
    """
    time = F.col("event_time")
    bought = (F.col("event_type") == "purchase") & (time >= F.lit(cut)) & (time < F.lit(until))
    return (
        outcomes.of_persons(later.where(bought), keyed)
        .groupBy("person_id", "item_id")
        .agg(
            F.coalesce(F.sum("value"), F.lit(0.0)).alias("money"),
            F.count_distinct("basket").alias("baskets"),
        )
        .select("person_id", "item_id", "money", "baskets")
    )


def keep_truth(at_cut: Night, later: Night) -> None:
    """Write ``after`` in the lake of a cut; ``later``: the context as of the horizon's end."""
    rows = bought_after(
        later.frame("history"), at_cut.frame("identities"), at_cut.as_of, later.as_of
    ).toArrow()
    by_pair = [("person_id", "ascending"), ("item_id", "ascending")]
    io.write_arrow(at_cut.lake.root / "after", rows.sort_by(by_pair))
