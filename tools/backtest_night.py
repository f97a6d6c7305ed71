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
    where = ["--lake", root, "--source", source, "--run-id", RUN_ID]
    where += [f"--params={os.environ.get('PARAMS', '')}"]
    at = {label: [*where, "--as-of", label] for label in (cut, until)}
    master = os.environ.get("MASTER")
    try:
        command(["open-night", *at[cut], *(["--master", master] if master else [])])
        for label, chosen in ((cut, nights.LISTED), (until, nights.TOLD)):
            for step in chosen:
                started = time.monotonic()
                command(["run", *at[label], step])
                command(["gate", *at[label], step])
                print(f"{label} {step} {time.monotonic() - started:.1f} s", flush=True)
        lake = Lake(root)
        contexts = [
            Night(lake, io.parse_as_of(label), RUN_ID, source, "source") for label in (cut, until)
        ]
        nights.keep_truth(*contexts)
    except GateRed as red:
        print(f"red gate: {red}", file=sys.stderr)
        return 3
    except Fault as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 2
    finally:
        command(["close-night", *at[cut]])
    return 0


if __name__ == "__main__":
    sys.exit(main())
