"""A child of the benchmark: one night by the jobs' own command line, its progress as JSON lines.

``python -m tools.bench_night LAKE AS_OF SOURCE [STEP …]``; without steps, all of them. A run date
with an hour is a refresh. ``PARAMS`` and ``MASTER`` in the environment are those of ``make run``.
Its parent (``tools.bench``) reads when each begins and ends, and watches the memory of this tree.
"""

from __future__ import annotations

import json
import sys
import time

from jobs import steps
from jobs.__main__ import command
from jobs.refresh import route
from tools import by_hand
from tools.bench_contenders import processor_seconds

RUN_ID = "bench"


def main() -> int:
    lake, as_of, source, *chosen = sys.argv[1:]
    where = by_hand.arguments(lake, as_of, source, RUN_ID)

    hourly = "T" in as_of

    def work() -> None:
        for step in chosen or (route.MADE if hourly else steps.STEPS):
            for verb, name in (("run", step), ("gate", f"{step}_gate")):
                _timed(name, [verb, *where, step])

    return by_hand.opened(where, work, "open-refresh" if hourly else "open-night")


def _timed(name: str, line: list[str]) -> None:
    _tell(begin=name)
    started, busy = time.monotonic(), processor_seconds()
    command(line)
    _tell(
        end=name,
        seconds=round(time.monotonic() - started, 2),
        # A task ends with fewer children than it began with where the engine was restarted.
        processor=round(max(0.0, processor_seconds() - busy), 2),
    )


def _tell(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    sys.exit(main())
