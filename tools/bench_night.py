"""A child of the benchmark: one night by the jobs' own command line, its progress as JSON lines.

``python -m tools.bench_night LAKE AS_OF SOURCE [STEP …]``; without steps, all of them. ``PARAMS``
and ``MASTER`` in the environment are those of ``make run``. Its parent (``tools.bench``) reads when
each begins and ends, and watches the memory of this process tree.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable

from jobs import steps
from jobs.__main__ import command
from jobs.errors import Fault
from tools.bench_contenders import processor_seconds

RUN_ID = "bench"


def main() -> int:
    lake, as_of, source, *chosen = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the night is closed
    where = ["--lake", lake, "--as-of", as_of, "--source", source, "--run-id", RUN_ID]
    where += [f"--params={os.environ.get('PARAMS', '')}"]
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        _timed("open_night", lambda: command(["open-night", *where, *_engine()]))
        for step in chosen or steps.STEPS:
            _timed(step, lambda step=step: command(["run", *where, step]))  # type: ignore[misc]
            _timed(f"{step}_gate", lambda step=step: command(["gate", *where, step]))  # type: ignore[misc]
    except Fault as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 2
    finally:
        command(["close-night", *where])
    return 0


def _timed(name: str, work: Callable[[], None]) -> None:
    _tell(begin=name)
    started, busy = time.monotonic(), processor_seconds()
    work()
    _tell(
        end=name,
        seconds=round(time.monotonic() - started, 2),
        # A task ends with fewer children than it began with where the engine was restarted.
        processor=round(max(0.0, processor_seconds() - busy), 2),
    )


def _tell(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def _engine() -> list[str]:
    master = os.environ.get("MASTER")
    return ["--master", master] if master else []


if __name__ == "__main__":
    sys.exit(main())
