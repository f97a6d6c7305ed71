"""``make backtest``: what the lists of earlier nights would have foreseen, beside simple methods.

For each cut the night's own jobs run as of it, in a lake of its own (``tools.backtest_night``), or
a whole night made there earlier of the same source, parameters and code is taken. Then every list
is judged by what was bought in the days after the cut.

Settings come from the environment: ``SOURCE`` (completejourney), ``CUTS`` (for completejourney four
monthly cuts before 2017-12-01, since the days from then on are for final judgements), ``LAKE``
(``var/backtest``), ``PARAMS`` (of the nights; those of ``backtest`` are this command's own) and
``MASTER``. Prints a table, and writes ``backtest/<source>/`` there and a page.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from jobs import io, params
from jobs.__main__ import check_overrides, code_version
from jobs.errors import Fault, exit_code
from jobs.evaluation import backtest, nights, snapshot, summary
from jobs.evaluation.backtest import Judged, Params
from jobs.evaluation.nights import Made
from jobs.io import Lake
from jobs.pages import backtest as page
from jobs.pages import docs
from jobs.sources import source as sources
from tools.asked import source_of

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_SOURCE = "completejourney"
WIDTH = 140
DEFAULT_CUTS = "2017-08-11,2017-09-08,2017-10-06,2017-11-03"


@dataclass(frozen=True)
class Asked:
    """What a run was asked for; ``overrides`` are those of the nights."""

    source: str
    cuts: tuple[datetime, ...]
    root: Path
    overrides: dict[str, dict[str, Any]]
    params: Params
    master: str


def main() -> int:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    return exit_code(lambda: run(asked(os.environ)))


def asked(values: Mapping[str, str]) -> Asked:
    """The settings, checked; an empty value is not given. Raises ``Fault``."""
    source = values.get("SOURCE") or DEFAULT_SOURCE
    cuts = values.get("CUTS") or (DEFAULT_CUTS if source == DEFAULT_SOURCE else "")
    if not cuts:
        raise Fault(
            f"CUTS is not given; write SOURCE={source} CUTS=YYYY-MM-DD,YYYY-MM-DD, the dates whose "
            "nights are judged by what came after"
        )
    overrides = params.from_json(values.get("PARAMS"))
    own = overrides.pop("backtest", {})
    faults = params.faults("backtest", Params, own)
    if faults:
        raise Fault("params: " + "; ".join(faults))
    check_overrides(overrides)
    return Asked(
        source=source_of(source),
        cuts=dates(cuts),
        root=Path(values.get("LAKE") or ROOT / "var" / "backtest").expanduser().resolve(),
        overrides=overrides,
        params=params.build(Params, own),
        master=values.get("MASTER") or "",
    )


def dates(text: str) -> tuple[datetime, ...]:
    """The cuts, each once, oldest first. Raises ``Fault`` that names every text that is no date."""
    found, faults = set(), []
    for word in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.add(date.fromisoformat(word))
        except ValueError:
            faults.append(repr(word))
    if faults or not found:
        raise Fault(
            f"CUTS: {', '.join(faults) or repr(text)} is not a date; write YYYY-MM-DD, several "
            "with commas between"
        )
    return tuple(datetime(d.year, d.month, d.day, tzinfo=UTC) for d in sorted(found))


def run(chosen: Asked) -> int:
    """Nights, then judgement; returns the exit code."""
    Lake(chosen.root).open()
    source = sources.prepare(chosen.source, chosen.root / "sources")
    horizon = timedelta(days=chosen.params.horizon_days)
    nights.check_cuts(source, chosen.cuts, horizon)
    state, code = nights.state_of(source), nights.code_of_night()
    judged: list[Judged] = []
    for cut in chosen.cuts:
        until = cut + horizon
        made = Made(
            chosen.source, state, io.label(cut), io.label(until), chosen.overrides, code
        )  # fmt: skip
        lake = nights.lake_of(chosen.root, chosen.source, cut)
        if nights.is_made(lake, made):
            print(f"{io.label(cut)}: the night that lies in {lake.root}", flush=True)
        else:
            failed = make(lake, made, chosen.master)
            if failed:
                print(f"error: the night of {io.label(cut)} stopped; see above", file=sys.stderr)
                return failed
        began = time.monotonic()
        judged.append(backtest.judge(snapshot.take(lake, cut), chosen.params))
        people = judged[-1].facts["people"]
        print(
            f"{io.label(cut)}: {people:,} people judged in {time.monotonic() - began:.0f} s",
            flush=True,
        )
    measured = summary.measures(judged, chosen.params.draws, chosen.params.seed)
    folder = keep(chosen, judged, measured)
    show(measured)
    docs.build(Lake(chosen.root), chosen.root / "docs")
    print(f"\nresults: {folder}")
    print(f"page: {chosen.root / 'docs' / page.page(folder)}")
    return 0


def make(lake: Lake, made: Made, master: str) -> int:
    """Make a night and what came after it, in a child; returns the child's exit code."""
    print(f"{made.cut}: the night, in {lake.root}", flush=True)
    (lake.root / "night.json").unlink(missing_ok=True)
    began = time.monotonic()
    line = ["tools.backtest_night", str(lake.root), made.cut, made.until, made.source]
    child = subprocess.run(
        [sys.executable, "-m", *line],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PARAMS": json.dumps(made.params), "MASTER": master},
    )
    if not child.returncode:
        io.write_json(lake.root / "night.json", asdict(made))
        print(f"{made.cut}: made in {time.monotonic() - began:.0f} s", flush=True)
    return child.returncode


def keep(chosen: Asked, judged: Sequence[Judged], measured: pa.Table) -> Path:
    """Put the results in their place, in place of earlier ones; never a part of them."""
    home = chosen.root / "backtest"
    home.mkdir(parents=True, exist_ok=True)
    cuts = [each.facts for each in judged]
    pairs = np.array([cut["purchased_pairs"] for cut in cuts])
    facts = {
        "source": chosen.source,
        "cuts": cuts,
        "people": sum(cut["people"] for cut in cuts),
        "purchased_pairs": int(pairs.sum()),
        "again": float(np.average([cut["again"] for cut in cuts], weights=pairs)),
        "catalogue": [each.catalogue for each in judged],
        "params": asdict(chosen.params),
        "nights_params": chosen.overrides,
        "code_version": code_version(),
        "code_of_night": nights.code_of_night(),
    }
    building = Path(tempfile.mkdtemp(dir=home, prefix=".building-"))
    try:
        io.write_arrow(building / summary.MEASURES.name, measured)
        io.write_json(building / "results.json", facts)
        building.chmod(0o755)
        folder = home / io.folder_name(chosen.source)
        io.replace_folder(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def show(measured: pa.Table) -> None:
    """Print the mean over the cuts, a row a list."""
    names, rows = summary.headline(measured)
    table = Table(title="Mean over the cuts, 95 % intervals over people", title_justify="left")
    table.add_column("list")
    for name in names:
        table.add_column(name, justify="right")
    for ranking, cells in rows.items():
        table.add_row(ranking, *(page.cell(each).rstrip(")").replace(" (", "\n") for each in cells))
    # Wider than a pipe's 80 columns, in which every cell would be broken.
    Console(width=max(Console().width, WIDTH)).print(table)


if __name__ == "__main__":
    sys.exit(main())
