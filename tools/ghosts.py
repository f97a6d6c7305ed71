"""``make ghosts``: what split people cost a shop's lists, and what finding them again brings.

Three nights over one shop and date, by the same code, parameters and weights:

- ``whole``: the source as it is, a key a person;
- ``merged``: its people split over accounts, cards, devices and cookies (``jobs.sources.split``),
  and found again by the links between these keys;
- ``apart``: the same split data with its links kept from it, so that each key is somebody.

Every household is judged on what it bought in the 28 days after, by the lists that the keys of its
baskets would have been served on the homepage (who has no list there gets the popular one),
NDCG@10, baskets weighing equally within a household and households among themselves.

Settings come from the environment: ``SOURCE`` (completejourney), ``AS_OF`` (2017-11-03: the days
from 2017-12-01 on are for final judgements), ``LAKE`` (``var/ghosts``). Prints two tables and
writes ``ghosts.json`` there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
from rich.console import Console
from rich.table import Table

from jobs import io
from jobs.evaluation import metrics, persons_found
from jobs.io import Lake
from jobs.sources import contract

ROOT = Path(__file__).resolve().parent.parent
HORIZON = timedelta(days=28)
SURFACE = "homepage"
LISTED = 10
SEED = 20171201
STEPS = (
    "source", "events", "catalogue", "identities", "sessions", "interactions", "audits",
    "embeddings", "content_embeddings", "candidates", "filters", "examples", "ranker",
    "recommendations",
)  # fmt: skip
# Nothing is trained or tuned, so that the three differ in nothing but in who is who.
UNTRAINED = {
    "examples": {"cuts": 1},
    "ranker": {"min_people": 1_000_000_000, "min_ranker_people": 1_000_000_000},
}


@dataclass(frozen=True)
class Reached:
    """What a night's lists reached: people found, lists a household was served, NDCG@10 over
    households with its interval."""

    persons: int
    lists_per_household: float
    households: int
    ndcg: float
    low: float
    high: float


def main() -> int:
    source = os.environ.get("SOURCE") or "completejourney"
    as_of = io.parse_as_of(os.environ.get("AS_OF") or "2017-11-03")
    home = Path(os.environ.get("LAKE") or ROOT / "var" / "ghosts")
    lakes = {name: Lake(home / name) for name in ("whole", "apart", "merged")}
    run(lakes["whole"], as_of, source)
    run(lakes["merged"], as_of, f"split:{source},seed=7")
    run(lakes["apart"], as_of, str(without_links(lakes["merged"], as_of, home / "unlinked")))
    households = bought_by_households(lakes["whole"], as_of)
    per_household = {name: judge(lake, as_of, households) for name, lake in lakes.items()}
    reached = {name: summary(lakes[name], as_of, scores) for name, scores in per_household.items()}
    difference = per_household["merged"]["ndcg"] - per_household["apart"]["ndcg"]
    gain = metrics.interval(difference.to_numpy(), SEED)
    pairs = found_pairs(lakes["merged"], as_of)
    io.write_json(home / "ghosts.json", {
        "source": source, "as_of": as_of, "nights": {n: asdict(r) for n, r in reached.items()},
        "merging_gains": gain, "pairs": pairs,
    })  # fmt: skip
    show(reached, gain, pairs)
    print(f"\nWritten to {home / 'ghosts.json'}.")
    return 0


def run(lake: Lake, as_of: datetime, source: str) -> None:
    """The steps up to the lists, in a child; raises ``SystemExit`` where they fail."""
    print(f"{lake.root.name}: {source}", flush=True)
    line = [sys.executable, "-m", "tools.bench_night", str(lake.root), io.label(as_of), source]
    child = subprocess.run(
        [*line, *STEPS],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PARAMS": json.dumps(UNTRAINED)},
    )
    if child.returncode:
        raise SystemExit(f"error: the night of {lake.root.name} stopped; see above")


def without_links(lake: Lake, as_of: datetime, folder: Path) -> Path:
    """The source that a lake's night read, less what it says of which keys belong together."""
    source = io.read_json(lake.published("source", as_of).table("source.json"))
    folder.mkdir(parents=True, exist_ok=True)
    for table in contract.CONTRACT:
        there = Path(source["folder"]) / table
        if table != "identity_links" and there.is_dir() and not (folder / table).exists():
            (folder / table).symlink_to(there)
    return folder


def bought_by_households(lake: Lake, as_of: datetime) -> pa.Table:
    """event_id, household and item_id of the purchases of the horizon, from the whole source."""
    rows = purchases(lake, as_of, ["event_id", "key_type", "key", "item_id"])
    households = pd.Series(rows["key_type"].to_pandas() + ":" + rows["key"].to_pandas())
    return rows.select(["event_id", "item_id"]).append_column(
        "household", pa.array(households, pa.string())
    )


def purchases(lake: Lake, as_of: datetime, columns: list[str]) -> pa.Table:
    """Purchases of the horizon in the source that a lake's night read."""
    source = io.read_json(lake.published("source", as_of).table("source.json"))
    instant = pa.timestamp("us", tz="UTC")
    time = ds.field("event_time").cast(instant)
    after = (
        (ds.field("event_type") == "purchase")
        & (time >= pa.scalar(as_of, instant))
        & (time < pa.scalar(as_of + HORIZON, instant))
    )
    return io.read_arrow(Path(source["folder"]) / "events", columns, after)


def judge(lake: Lake, as_of: datetime, bought: pa.Table) -> pd.DataFrame:
    """ndcg and lists (how many different ones it was served) per household, sorted by it."""
    events = purchases(lake, as_of, ["event_id", "key_type", "key", "session_id"]).to_pandas()
    identities = io.read_arrow(
        lake.published("identities", as_of).table("identities"), ["key_type", "key", "person_id"]
    ).to_pandas()
    events = events.merge(identities, on=["key_type", "key"], how="left")
    events = events.merge(bought.to_pandas(), on="event_id")
    baskets = events.drop_duplicates(["household", "session_id", "key"])
    served = baskets.groupby(["household", "person_id"], dropna=False).size()
    served = served.rename("baskets").reset_index()
    served["list"] = np.arange(len(served))
    own = lists(lake, as_of)
    rows = own.merge(served, on="person_id", how="inner")
    without = served[~served["person_id"].isin(own["person_id"])].drop(columns="person_id")
    rows = pd.concat([rows, without.merge(popular(lake, as_of), how="cross")])
    wanted = events[["household", "item_id"]].drop_duplicates()
    rows = rows.merge(wanted, on=["household", "item_id"], how="left", indicator=True)
    count = served["household"].map(wanted.groupby("household").size()).to_numpy()
    served["ndcg"] = metrics.ndcg(
        rows["list"].to_numpy(), rows["rank"].to_numpy() - 1,
        (rows["_merge"] == "both").to_numpy(), count, LISTED,
    )  # fmt: skip
    served["weighted"] = served["ndcg"] * served["baskets"]
    found = served.groupby("household").agg(
        weighted=("weighted", "sum"), baskets=("baskets", "sum"), lists=("list", "size")
    )
    found["ndcg"] = found["weighted"] / found["baskets"]
    return found[["ndcg", "lists"]].sort_index()


def lists(lake: Lake, as_of: datetime) -> pd.DataFrame:
    """person_id, rank, item_id of the first places of every list of the surface."""
    rows = io.read_arrow(
        lake.published("recommendations", as_of).table("recommendations"),
        ["person_id", "rank", "item_id"],
        (ds.field("surface") == SURFACE) & (ds.field("rank") <= LISTED),
    )
    return rows.to_pandas()


def popular(lake: Lake, as_of: datetime) -> pd.DataFrame:
    """rank and item_id of the list for people who have none of their own."""
    chosen = (
        (ds.field("source") == "popular")
        & (ds.field("context_kind") == "all")
        & (ds.field("rank") <= LISTED)
    )
    pools = lake.published("candidates", as_of).table("pools")
    return io.read_arrow(pools, ["rank", "item_id"], chosen).to_pandas()


def summary(lake: Lake, as_of: datetime, scores: pd.DataFrame) -> Reached:
    """The means over households and the interval of the metric's."""
    low, high = metrics.interval(scores["ndcg"].to_numpy(), SEED)
    return Reached(
        persons=io.count_rows(lake.published("identities", as_of).table("persons")),
        lists_per_household=float(scores["lists"].mean()),
        households=len(scores),
        ndcg=float(scores["ndcg"].mean()),
        low=low,
        high=high,
    )


def found_pairs(lake: Lake, as_of: datetime) -> list[dict[str, Any]]:
    """How well the persons found match the true ones, on what was known at ``as_of``."""
    source = io.read_json(lake.published("source", as_of).table("source.json"))
    folder = Path(source["folder"])
    published = lake.published("identities", as_of)
    return persons_found.judge(
        io.read_arrow(published.table("identities"), ["key_type", "key", "person_id"]),
        io.read_arrow(folder / "truth" / "keys"),
        io.read_arrow(published.table("identity_links")),
    ).to_pylist()


def show(
    reached: Mapping[str, Reached], gain: tuple[float, float], pairs: list[dict[str, Any]]
) -> None:
    """Print what the nights reached and how well persons were found."""
    console = Console()
    table = Table(title="Lists for the same households", title_justify="left")
    for name in ("night", "persons", "lists a household", "NDCG@10", "95 % interval"):
        table.add_column(name, justify="left" if name == "night" else "right")
    for name, row in reached.items():
        table.add_row(
            name, f"{row.persons:,}", f"{row.lists_per_household:.2f}", f"{row.ndcg:.4f}",
            f"{row.low:.4f} to {row.high:.4f}",
        )  # fmt: skip
    console.print(table)
    change = reached["merged"].ndcg / reached["apart"].ndcg - 1
    console.print(
        f"Merging changes NDCG@10 by {change:+.1%} (difference {gain[0]:+.4f} to {gain[1]:+.4f}, "
        f"{reached['whole'].households:,} households)."
    )
    table = Table(title="Persons found against the truth", title_justify="left")
    for name in ("pairs", "holders", "precision", "recall", "f1"):
        table.add_column(name, justify="right" if name in ("precision", "recall", "f1") else "left")
    for one in pairs:
        table.add_row(
            one["pairs"], one["holders"].replace("_", " "),
            *("" if one[n] is None else f"{one[n]:.4f}" for n in ("precision", "recall", "f1")),
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
