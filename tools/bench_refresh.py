"""The part ``refresh`` of the benchmark: an hour's refresh beside its night, step by step."""

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
NIGHT, HOUR = "2024-02-29", "2024-02-29T22:00"
Drive = Callable[[Path, str, str], Any]


def measure(events: int, home: Path, drive: Drive) -> dict[str, Any]:
    """A night and a refresh of the 22 hours after it, in which 2 % of the people did something.

    ``drive``: runs a night, or a refresh where the run date has an hour, and returns what was
    ``Measured`` of it.
    """
    lake, source = home / f"refresh-{events}", f"simulated:events={events}"
    shutil.rmtree(lake, ignore_errors=True)
    try:
        found: dict[str, Any] = {"events": events}
        for name, as_of in (("night", NIGHT), ("refresh", HOUR)):
            measured = drive(lake, as_of, source)
            found[name] = {
                "seconds": measured.of_steps(), "peak": measured.peak,
                "processor": measured.of_steps(measured.processor),
            }  # fmt: skip
        changes = Lake(lake).published("changes", io.parse_as_of(HOUR))
        counts: pa.Table = io.read_arrow(changes.table("change_counts"))
        return found | {row["what"]: row for row in counts.to_pylist()}
    finally:
        shutil.rmtree(lake, ignore_errors=True)


def table(found: dict[str, Any]) -> list[str]:
    """Markdown: seconds of each step in the night and in the refresh, and their ratio."""
    night, refresh = found["night"], found["refresh"]
    people, items = found["persons"], found["items"]
    lines = [
        f"## A refresh beside its night: {found['events'] / 1e6:g} million events", "",
        f"{people['touched']:,} of {people['known']:,} people ({people['share']:.1%}) and "
        f"{items['touched']:,} of {items['known']:,} items touched. Seconds of each step with "
        "its gate.", "",
        "| step | in a refresh | night | refresh | night ÷ refresh |",
        "| --- | --- | --: | --: | --: |",
    ]  # fmt: skip
    for step, how in route.ROUTE.items():
        if step == "source":
            continue
        ours, theirs = (each["seconds"].get(step, 0.0) for each in (refresh, night))
        ratio = f"{theirs / ours:.1f}" if ours and theirs else ""
        lines.append(f"| {step} | {how} | {theirs:.1f} | {ours:.1f} | {ratio} |")
    for title, of in (("**total**", "seconds"), ("processor seconds", "processor")):
        whole = [sum(each[of].values()) for each in (night, refresh)]
        lines.append(f"| {title} | | {whole[0]:.0f} | {whole[1]:.0f} | {whole[0] / whole[1]:.1f} |")
    peaks = [each["peak"] / 2**30 for each in (night, refresh)]
    return [*lines, f"| peak memory, GiB | | {peaks[0]:.1f} | {peaks[1]:.1f} | |", ""]
