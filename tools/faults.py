"""``make faults``: plant known faults in a world that is served, diagnose each, and tell who was
found out.

For every case of the file the world's source and lake are copied with the fault in them, and the
diagnosis runs on the copy as in a day's run. What it names first is held against what was planted.
A case that was diagnosed before, by the same code on the same world, is not done again: a run that
was ended goes on where it stopped.

Settings come from the environment: ``FILE`` (``tools/faults.yaml``), ``LAKE`` (``var/faults``), the
folder of the worlds, the cases and the results, ``WORLD`` (``days=49,every=7``: the days on which
lists are served before the end, and how far nights lie apart), and ``MASTER``. Prints the confusion
table of all results of this code and world; writes ``results.json`` and ``report.md`` there.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from jobs import io, lock, spark, steps
from jobs.__main__ import command
from jobs.errors import GateRed, exit_code
from jobs.io import Lake
from jobs.sources.simulated.crowd import Crowd
from jobs.sources.simulated.goods import Goods
from jobs.sources.simulated.serving import Answers
from jobs.spark import engine_file
from tools import by_hand, cases, fault_results, heavy, planted, world
from tools.cases import Unfaulted
from tools.fault_results import NOTHING, Diagnosed, Kept
from tools.planted import Case
from tools.world import Built

ROOT = Path(__file__).resolve().parent.parent
RUN_ID = "faults"


def main() -> int:
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(message)s")
    return exit_code(lambda: run(os.environ))


def run(values: Mapping[str, str]) -> int:
    """Read the file, build the world, run every case that was not run before, tell."""
    root = Path(values.get("LAKE") or ROOT / "var" / "faults").expanduser().resolve()
    file = Path(values.get("FILE") or ROOT / "tools" / "faults.yaml").expanduser().resolve()
    chosen = world.parse(values.get("WORLD") or "")
    chosen_cases = planted.read(file, chosen.nights()[0], chosen.end)
    Lake(root).open()
    with by_hand.stoppable():
        built = world.built(chosen, root / "worlds")
        kept = Kept(root, chosen.digest)
        left = [case for case in chosen_cases if not kept.holds(case)]
        known = len(chosen_cases) - len(left)
        if known:
            print(f"{known} of {len(chosen_cases)} cases are in {kept.folder}", flush=True)
        if left:
            every = diagnosed(built, left, root, values.get("MASTER") or "local[*]")
            with contextlib.closing(every):
                for one in every:
                    kept.add(one)
    print(f"\n{kept.text()}\nresults: {root / 'results.json'}")
    return 0


def seed_of(case: Case) -> int:
    """What a case's draws come from: its name, so that it is the same in any file."""
    return int.from_bytes(hashlib.sha256(case.name.encode()).digest()[:4])


# --- running -----------------------------------------------------------------------------------
def diagnosed(
    built: Built, chosen: Sequence[Case], root: Path, master: str
) -> Generator[Diagnosed]:
    """Diagnose every case, on one engine; a line each."""
    shop = built.world.settings
    goods = Goods(shop)
    unfaulted = Unfaulted(built, Answers(goods, Crowd(shop, goods)))
    heavy.load()
    engine = spark.start(master, root / "spark.log")
    try:
        for number, case in enumerate(chosen, start=1):
            folder = root / "cases" / fault_results.digest(case)
            shutil.rmtree(folder, ignore_errors=True)
            began = time.monotonic()
            again = cases.write(unfaulted, case, folder, seed_of(case))
            made = time.monotonic() - began
            line = (*again, *steps.DIAGNOSIS)
            one = replace(
                diagnose(case, folder, built.world.end.isoformat(), engine, line),
                made=round(made, 2),
            )
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


if __name__ == "__main__":
    sys.exit(main())
