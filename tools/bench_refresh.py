"""The part ``refresh`` of the benchmark: refreshes beside their night, step by step.

The first reads half a day and what changed in the catalogue; the second 8 hours more, in which one
person in a hundred did something and no item changed. All three on an engine that each starts for
itself, and once more on one that stands (``make engine``).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs import io, spark
from jobs.io import Lake
from jobs.refresh import route
from jobs.spark import standing_file

# The simulator's shop has events up to 2024-03-01.
NIGHT, HOURS = "2024-02-29", ("2024-02-29T12:00", "2024-02-29T20:00")
MASTER = "local[*]"
Drive = Callable[[Path, str, str], Any]


def measure(events: int, home: Path, drive: Drive) -> dict[str, Any]:
    """A night and two refreshes of its day, on engines of their own and on one that stands.

    ``drive``: runs a night, or a refresh where the run date has an hour, and returns what was
    ``Measured`` of it.
    """
    lake, source = home / f"refresh-{events}", f"simulated:events={events}"
    found: dict[str, Any] = {"events": events}
    try:
        shutil.rmtree(lake, ignore_errors=True)
        found["own"] = _runs(lake, source, drive)
        found["touched"] = [_touched(lake, hour) for hour in HOURS]
        shutil.rmtree(lake, ignore_errors=True)
        file = standing_file(Lake(lake).open())
        with spark.stand(file, MASTER, file.with_name("standing.log"), {}):
            found["standing"] = _runs(lake, source, drive)
        return found
    finally:
        shutil.rmtree(lake, ignore_errors=True)


def _runs(lake: Path, source: str, drive: Drive) -> list[dict[str, Any]]:
    runs = [drive(lake, as_of, source) for as_of in (NIGHT, *HOURS)]
    return [
        {"seconds": run.of_steps(), "processor": run.of_steps(run.processor), "peak": run.peak}
        for run in runs
    ]


def _touched(lake: Path, hour: str) -> dict[str, Any]:
    published = Lake(lake).published("changes", io.parse_as_of(hour))
    counts: pa.Table = io.read_arrow(published.table("change_counts"))
    return {row["what"]: row for row in counts.to_pylist()}


def table(found: dict[str, Any]) -> list[str]:
    """Markdown: seconds of each step in the night and in the refreshes, and the ratios of all."""
    own, standing = found["own"], found["standing"]
    touched = "; then ".join(
        f"{each['persons']['touched']:,} of {each['persons']['known']:,} people "
        f"({each['persons']['share']:.1%}) and {each['items']['touched']:,} of "
        f"{each['items']['known']:,} items"
        for each in found["touched"]
    )
    lines = [
        f"## Refreshes beside their night: {found['events'] / 1e6:g} million events", "",
        f"Touched were {touched}. Seconds of each step with its gate.", "",
        "| step | in a refresh | night | refresh | the next | night, engine stands | refresh | "
        "the next |",
        "| --- | --- | --: | --: | --: | --: | --: | --: |",
    ]  # fmt: skip

    def row(*cells: str) -> None:
        lines.append(f"| {' | '.join(cells)} |")

    runs = [*own, *standing]
    for step, how in route.ROUTE.items():
        if step != "source":
            row(step, how, *(f"{run['seconds'].get(step, 0.0):.1f}" for run in runs))
    totals = [sum(run["seconds"].values()) for run in runs]
    row("**total**", "", *(f"**{total:.0f}**" for total in totals))
    nights = [totals[0]] * len(own) + [totals[len(own)]] * len(standing)
    ratios = [night / total for night, total in zip(nights, totals, strict=True)]
    row("night ÷ refresh", "", *("" if ratio == 1 else f"{ratio:.1f}" for ratio in ratios))
    # Of an engine that stands the processor seconds are its own process's, and not seen here.
    busy = [sum(run["processor"].values()) for run in own]
    row("processor seconds", "", *(f"{each:.0f}" for each in busy), *[""] * len(standing))
    ratios = [busy[0] / each for each in busy]
    row("night ÷ refresh", "", *("" if r == 1 else f"{r:.1f}" for r in ratios), *[""] * 3)
    return [*lines, ""]
