"""``make faults``: plant known faults in a world that is served, diagnose each, and tell who was
found out.

For every case of the file the world's source and lake are copied with the fault in them, and the
diagnosis runs on the copy as in a day's run. What it names first is held against what was planted.

Settings come from the environment: ``FILE`` (``tools/faults.yaml``), ``LAKE`` (``var/faults``), the
folder of the worlds, the cases and the results, and ``MASTER``. Prints the confusion table; writes
``results.json`` and ``report.md`` there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs import io, lock, spark, steps
from jobs.__main__ import command
from jobs.errors import GateRed, exit_code
from jobs.io import Lake
from jobs.night import engine_file
from jobs.sources.simulated.crowd import Crowd
from jobs.sources.simulated.goods import Goods
from jobs.sources.simulated.serving import Answers
from tools import by_hand, cases, heavy, planted, world
from tools.planted import Case
from tools.world import Built

ROOT = Path(__file__).resolve().parent.parent
RUN_ID = "faults"
MEDIUM = 0.5  # from this severity on a fault is to be named
NOTHING = "nothing"


@dataclass(frozen=True)
class Diagnosed:
    """A case and what the diagnosis said: its symptoms in the verdict's order, those that are no
    warnings first; ``red``: the step whose gate stopped it; seconds by step."""

    case: Case
    found: list[dict[str, Any]]
    red: str | None
    seconds: dict[str, float]

    @property
    def first(self) -> str:
        """The kind that is named first."""
        if self.red:
            return f"red gate: {self.red}"
        return next((row["kind"] for row in self.found if not row["warning"]), NOTHING)

    @property
    def right(self) -> bool:
        """Whether one of the planted kinds is named first, and nothing where none was planted."""
        return self.first in (self.case.kinds or (NOTHING,))


def main() -> int:
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(message)s")
    return exit_code(lambda: run(os.environ))


def run(values: Mapping[str, str]) -> int:
    """Read the file, build the world, run every case, tell."""
    root = Path(values.get("LAKE") or ROOT / "var" / "faults").expanduser().resolve()
    file = Path(values.get("FILE") or ROOT / "tools" / "faults.yaml").expanduser().resolve()
    chosen = world.World()
    chosen_cases = planted.read(file, chosen.nights()[0], chosen.end)
    Lake(root).open()
    found: list[Diagnosed] = []
    text = ""
    with by_hand.stoppable():
        built = world.built(chosen, root / "worlds")
        every = diagnosed(built, chosen_cases, root, values.get("MASTER") or "local[*]")
        with contextlib.closing(every):
            for one in every:
                found.append(one)
                # After each, since a run takes hours and what is known need not be lost with it.
                text = "\n".join(report(found))
                io.write_json(root / "results.json", results(found, built, file))
                io.write_text(root / "report.md", text)
    print(f"\n{text}\nresults: {root / 'results.json'}")
    return 0


# --- running -----------------------------------------------------------------------------------
def diagnosed(
    built: Built, chosen: Sequence[Case], root: Path, master: str
) -> Generator[Diagnosed]:
    """Diagnose every case, on one engine; a line each."""
    shop = built.world.settings
    goods = Goods(shop)
    people = Answers(goods, Crowd(shop, goods))
    heavy.load()
    engine = spark.start(master, root / "spark.log")
    try:
        for number, case in enumerate(chosen, start=1):
            folder = root / "cases" / f"{number:03d}"
            shutil.rmtree(folder, ignore_errors=True)
            began = time.monotonic()
            again = cases.write(built, case, people, folder, seed=number)
            made = time.monotonic() - began
            line = (*again, *steps.DIAGNOSIS)
            one = diagnose(case, folder, built.world.end.isoformat(), engine, line)
            print(
                f"{number}/{len(chosen)} {case.name}: {one.first}"
                f"{'' if one.right else ' (not ' + (' or '.join(case.kinds) or NOTHING) + ')'}, "
                f"{made:.0f} + {sum(one.seconds.values()):.0f} s",
                flush=True,
            )
            shutil.rmtree(folder)
            yield one
    finally:
        spark.release_session()
        engine.stop()


def diagnose(
    case: Case, folder: Path, as_of: str, engine: spark.Engine, line: Sequence[str]
) -> Diagnosed:
    """Run these steps on a case's copy; a red gate ends it."""
    lake = Lake(folder / "lake")
    engine.save(engine_file(lake))
    lock.acquire(lake, RUN_ID)
    where = [
        f"--lake={lake.root}", f"--source={folder / 'source'}", f"--as-of={as_of}",
        f"--run-id={RUN_ID}",
    ]  # fmt: skip
    seconds: dict[str, float] = {}
    red = None
    for step in line:
        began = time.monotonic()
        try:
            command(["run", *where, step])
            command(["gate", *where, step])
        except GateRed:
            red = step
            break
        finally:
            seconds[step] = round(time.monotonic() - began, 2)
    rows = []
    if red is None:
        verdict = lake.published("verdict", io.parse_as_of(as_of))
        rows = io.read_arrow(verdict.table("verdict_symptoms")).sort_by("place").to_pylist()
    return Diagnosed(case, rows, red, seconds)


# --- telling -----------------------------------------------------------------------------------
def shares(found: Sequence[Diagnosed]) -> dict[str, Any]:
    """How many were named rightly at medium severity and above, and alarms on clean worlds."""
    grave = [one for one in found if one.case.kinds and one.case.severity >= MEDIUM]
    faint = [one for one in found if one.case.kinds and one.case.severity < MEDIUM]
    unfaulted = [one for one in found if not one.case.kinds]
    return {
        "medium and above": {"cases": len(grave), "right": sum(one.right for one in grave)},
        "faint": {"cases": len(faint), "right": sum(one.right for one in faint)},
        "clean": {"cases": len(unfaulted), "alarms": sum(not one.right for one in unfaulted)},
    }


def results(found: Sequence[Diagnosed], built: Built, file: Path) -> dict[str, Any]:
    """All that was planted and found."""
    return {
        "world": built.world.digest,
        "file": str(file),
        **shares(found),
        "cases": [
            {
                "name": one.case.name, "kinds": one.case.kinds, "severity": one.case.severity,
                "start": one.case.start.isoformat(),
                "scope": [dict(fault.scope) for fault in one.case.faults],
                "first": one.first, "right": one.right, "seconds": one.seconds, "found": one.found,
            }
            for one in found
        ],
    }  # fmt: skip


def report(found: Sequence[Diagnosed]) -> Iterator[str]:
    """Markdown: the shares, planted against named, and each miss with what was found instead."""
    share = shares(found)
    grave, unfaulted = share["medium and above"], share["clean"]
    yield "# Planted faults and what was named first"
    yield ""
    if grave["cases"]:
        yield (
            f"{grave['right']} of {grave['cases']} faults of medium severity and above were named "
            f"rightly first ({grave['right'] / grave['cases']:.0%}), and {share['faint']['right']} "
            f"of {share['faint']['cases']} faint ones."
        )
    yield f"{unfaulted['alarms']} of {unfaulted['cases']} worlds without a fault raised an alarm."
    yield from (
        "",
        "| planted | severity | cases | right | named first |",
        "| --- | --: | --: | --: | --- |",
    )
    for (planted_kinds, severity), some in _grouped(found).items():
        named = Counter(one.first for one in some)
        told = ", ".join(f"{kind} {count}" if count > 1 else kind for kind, count in named.items())
        right = sum(one.right for one in some)
        yield f"| {planted_kinds} | {severity:g} | {len(some)} | {right} | {told} |"
    missed = [one for one in found if not one.right]
    if missed:
        yield from ("", "## Missed", "")
    for one in missed:
        yield (
            f"- **{one.case.name}** ({' + '.join(one.case.kinds) or 'clean'}, "
            f"{one.case.severity:g}): {one.first}."
        )
        for row in one.found[:4]:
            mark = "warning: " if row["warning"] else ""
            where = f"{mark}{row['kind']} of {row['subject']} ({row['step']})"
            yield f"    - {where}: {row['sentence']}"


def _grouped(found: Sequence[Diagnosed]) -> dict[tuple[str, float], list[Diagnosed]]:
    grouped: dict[tuple[str, float], list[Diagnosed]] = {}
    for one in found:
        key = (" + ".join(one.case.kinds) or "clean", one.case.severity)
        grouped.setdefault(key, []).append(one)
    return dict(sorted(grouped.items()))


if __name__ == "__main__":
    sys.exit(main())
