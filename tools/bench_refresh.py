"""The part ``refresh`` of the benchmark: refreshes beside their night, step by step.

The first reads half a day and what changed in the catalogue; the second 8 hours more, in which one
person in a hundred did something and no item changed. Each run is a process of its own, as in a
schedule: a night starts an engine, a refresh needs none.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs import io
from jobs.io import Lake
from jobs.refresh import route

# The simulator's shop has events up to 2024-03-01.
NIGHT, HOURS = "2024-02-29", ("2024-02-29T12:00", "2024-02-29T20:00")
Drive = Callable[[Path, str, str], Any]


def measure(events: int, home: Path, drive: Drive) -> dict[str, Any]:
    """A night and two refreshes of its day.

    ``drive``: runs a night, or a refresh where the run date has an hour, and returns what was
    ``Measured`` of it.
    """
    lake, source = home / f"refresh-{events}", f"simulated:events={events}"
    try:
        shutil.rmtree(lake, ignore_errors=True)
        runs = [drive(lake, as_of, source) for as_of in (NIGHT, *HOURS)]
        return {
            "events": events,
            "runs": [
                {"seconds": _by_step(run.seconds), "processor": _by_step(run.processor),
                 "peak": run.peak}
                for run in runs
            ],
            "touched": [_touched(lake, hour) for hour in HOURS],
        }  # fmt: skip
    finally:
        shutil.rmtree(lake, ignore_errors=True)


def _by_step(spent: dict[str, float]) -> dict[str, float]:
    """Seconds of each step, its gate included; the first gate imports what judges."""
    found: dict[str, float] = {}
    for name, seconds in spent.items():
        step = name.removesuffix("_gate")
        found[step] = found.get(step, 0.0) + seconds
    return found


def _touched(lake: Path, hour: str) -> dict[str, Any]:
    published = Lake(lake).published("changes", io.parse_as_of(hour))
    counts: pa.Table = io.read_arrow(published.table("change_counts"))
    return {row["what"]: row for row in counts.to_pylist()}


def table(found: dict[str, Any]) -> list[str]:
    """Markdown: seconds of each step in the night and in the refreshes, and the ratios of all."""
    runs = found["runs"]
    touched = "; then ".join(
        f"{each['persons']['touched']:,} of {each['persons']['known']:,} people "
        f"({each['persons']['share']:.1%}) and {each['items']['touched']:,} of "
        f"{each['items']['known']:,} items"
        for each in found["touched"]
    )
    lines = [
        f"## Refreshes beside their night: {found['events'] / 1e6:g} million events", "",
        f"Touched were {touched}. Seconds of each step with its gate.", "",
        "| step | in a refresh | night | refresh | the next |",
        "| --- | --- | --: | --: | --: |",
    ]  # fmt: skip

    def row(*cells: str) -> None:
        lines.append(f"| {' | '.join(cells)} |")

    for step, how in route.ROUTE.items():
        row(step, how, *(f"{run['seconds'].get(step, 0.0):.1f}" for run in runs))
    for name, what in (("**total**", "seconds"), ("processor seconds", "processor")):
        totals = [sum(run[what].values()) for run in runs]
        row(name, "", *(f"**{total:.0f}**" for total in totals))
        row("night ÷ refresh", "", "", *(f"{totals[0] / each:.1f}" for each in totals[1:]))
    row("peak, GiB", "", *(f"{run['peak'] / 2**30:.1f}" for run in runs))
    return [*lines, ""]
