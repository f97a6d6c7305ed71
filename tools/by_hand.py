"""A night by the jobs' own command line, without Airflow: for children of benchmarks and backtests.

``PARAMS`` and ``MASTER`` in the environment are those of ``make run``.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable

from jobs.__main__ import command
from jobs.errors import exit_code


def arguments(lake: str, as_of: str, source: str, run_id: str) -> list[str]:
    """What says which night a command is about."""
    where = ["--lake", lake, "--as-of", as_of, "--source", source, "--run-id", run_id]
    return [*where, f"--params={os.environ.get('PARAMS', '')}"]


def opened(where: list[str], work: Callable[[], None], verb: str = "open-night") -> int:
    """Take the lake, start the engine, do the work, and close whatever happened; the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the night is closed
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    master = os.environ.get("MASTER")

    def night() -> None:
        command([verb, *where, *(["--master", master] if master else [])])
        work()

    try:
        return exit_code(night)
    finally:
        command(["close-night", *where])
