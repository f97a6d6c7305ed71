"""The benchmark's part ``persons``: how well persons are found, and how that falls with the noise.

Simulated shops that differ in one rate of noise each, at its default, twice and four times as much;
then in all of them. For each the steps up to ``identities`` run, and the persons they find are held
to the truth that the simulator wrote (``jobs.evaluation.persons_found`` defines the measures).
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from jobs import io
from jobs.__main__ import command
from jobs.evaluation import metrics
from jobs.io import Lake
from jobs.sources.simulated.settings import Shop
from tools import ghosts

END = "2024-03-01"
RATES = ("false_links", "shared", "recycled", "links_late")
TIMES = (2, 4)
STEPS = ("source", "events", "identities")


def measure(events: int, home: Path) -> list[dict[str, Any]]:
    """A row per shop and kind of pairs: the noise, and how well persons were found."""
    shutil.rmtree(home / "persons", ignore_errors=True)
    lake = Lake(home / "persons").open()
    logging.getLogger("nightjar").setLevel(logging.ERROR)
    where = ["--lake", str(lake.root), "--as-of", END, "--run-id", "bench"]
    rows = []
    try:
        command(["open-night", *where])
        for noise in noises():
            settings = "".join(f",{name}={value:g}" for name, value in noise.items())
            source = ["--source", f"simulated:events={events}{settings}"]
            for step in STEPS:
                command(["run", *where, *source, step])
                command(["gate", *where, *source, step])
            rows += [
                {"noise": noise, **row} for row in ghosts.found_pairs(lake, io.parse_as_of(END))
            ]
            print(f"persons{settings or ', the default noise'}: {rows[-4]}", flush=True)
    finally:
        command(["close-night", *where])
        shutil.rmtree(lake.root, ignore_errors=True)
    return rows


def noises() -> list[dict[str, float]]:
    """What each shop changes of the default noise."""
    usual = {name: float(getattr(Shop(), name)) for name in RATES}
    single = [{name: times * usual[name]} for name in RATES for times in TIMES]
    return [{}, *single, *({name: times * usual[name] for name in RATES} for times in TIMES)]


def table(rows: list[dict[str, Any]], events: int) -> list[str]:
    """Markdown: precision, recall and F1 of the pairs that a link joins, shop by shop."""
    lines = [
        "## Persons found", "",
        f"Simulated shops of {events:,} events; pairs of keys that a link joins, held to the truth "
        "(a key is a person's while nobody else uses it). In brackets Wilson's 95 % interval.", "",
        "| noise | joined pairs | precision | recall | F1 | connected pairs: precision | recall |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]  # fmt: skip
    readings: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        if row["holders"] == "in_their_time":
            noise = ", ".join(f"{n} {v:.0%}" for n, v in row["noise"].items()) or "as it comes"
            readings.setdefault(noise, {})[row["pairs"]] = row
    for noise, of in readings.items():
        direct, connected = of["direct"], of["connected"]
        cells = [noise, f"{direct['joined']:,}"]
        cells += [_share(direct["right"], direct[of]) for of in ("found", "true")]
        cells.append(f"{direct['f1']:.4f}")
        cells += [f"{connected[name]:.4f}" for name in ("precision", "recall")]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def _share(right: int, of: int) -> str:
    low, high = metrics.wilson(right, of)
    return f"{right / of:.4f} ({low:.4f} to {high:.4f})"
