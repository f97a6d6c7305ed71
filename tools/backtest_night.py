"""A child of the backtest: the night of a cut by the jobs' own command line, then what came after.

``python -m tools.backtest_night LAKE CUT UNTIL SOURCE``, with ``PARAMS`` and ``MASTER`` in the
environment as for ``make run``. Every step up to the lists runs and is judged as of CUT, as the DAG
does it; then those that tell whose the purchases until UNTIL were. A line a step on standard
output.
"""

from __future__ import annotations

import sys
import time

from jobs import io
from jobs.__main__ import command
from jobs.evaluation import nights
from jobs.io import Lake
from jobs.night import Night
from tools import by_hand

RUN_ID = "backtest"


def main() -> int:
    root, cut, until, source = sys.argv[1:]
    where = by_hand.arguments(root, cut, source, RUN_ID)
    return by_hand.opened(where, lambda: make(root, cut, until, source))


def make(root: str, cut: str, until: str, source: str) -> None:
    """The night of a cut and what came after it, on a lake that this run holds."""
    for label, chosen in ((cut, nights.LISTED), (until, nights.TOLD)):
        where = by_hand.arguments(root, label, source, RUN_ID)
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
