"""A child of the backtest: the night of a cut by the jobs' own command line, then what came after.

``python -m tools.backtest_night LAKE CUT UNTIL SOURCE``, with ``PARAMS`` and ``MASTER`` in the
environment as for ``make run``. Every step up to the lists runs and is judged as of CUT, as the DAG
does it; then those that tell whose the purchases until UNTIL were. A line a step on standard
output.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time

from jobs import io
from jobs.__main__ import command
from jobs.errors import Fault, GateRed
from jobs.evaluation import nights
from jobs.io import Lake
from jobs.night import Night

RUN_ID = "backtest"


def main() -> int:
    root, cut, until, source = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the night is closed
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    where = ["--lake", root, "--source", source, "--run-id", RUN_ID, "--as-of", cut]
    given = os.environ.get("PARAMS", "")
    master = os.environ.get("MASTER")
    try:
        command(["open-night", *where, f"--params={given}",
                 *(["--master", master] if master else [])])  # fmt: skip
        make(root, cut, until, source, given)
    except GateRed as red:
        print(f"red gate: {red}", file=sys.stderr)
        return 3
    except Fault as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 2
    finally:
        command(["close-night", *where])
    return 0


def make(root: str, cut: str, until: str, source: str, given: str = "") -> None:
    """The night of a cut and what came after it, on a lake that this run holds."""
    for label, chosen in ((cut, nights.LISTED), (until, nights.TOLD)):
        where = ["--lake", root, "--source", source, "--run-id", RUN_ID, "--as-of", label]
        where += [f"--params={given}"]
        for step in chosen:
            started = time.monotonic()
            command(["run", *where, step])
            command(["gate", *where, step])
            print(f"{label} {step} {time.monotonic() - started:.1f} s", flush=True)
    at_cut, later = (
        Night(Lake(root), io.parse_as_of(label), RUN_ID, source, "sessions")
        for label in (cut, until)
    )
    nights.keep_truth(at_cut, later)


if __name__ == "__main__":
    sys.exit(main())
