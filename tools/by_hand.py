"""A night by the jobs' own command line, without Airflow: for children of benchmarks and backtests.

``PARAMS`` and ``MASTER`` in the environment are those of ``make run``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator

from jobs.__main__ import command
from jobs.errors import exit_code


def arguments(lake: str, as_of: str, source: str, run_id: str) -> list[str]:
    """What says which night a command is about."""
    where = ["--lake", lake, "--as-of", as_of, "--source", source, "--run-id", run_id]
    return [*where, f"--params={os.environ.get('PARAMS', '')}"]


def opened(where: list[str], work: Callable[[], None], verb: str = "open-night") -> int:
    """Take the lake, start the engine, do the work, and close whatever happened; the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    master = os.environ.get("MASTER")

    def night() -> None:
        command([verb, *where, *(["--master", master] if master else [])])
        work()

    with stoppable():
        try:
            return exit_code(night)
        finally:
            command(["close-night", *where])


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Turn a terminate and a hang-up into an exit of this process, so that the engine, which is in
    a session of its own, ends with it; more of them do not disturb that."""
    numbers = [
        number for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN  # as under nohup
    ]  # fmt: skip

    def stop(number: int, frame: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
