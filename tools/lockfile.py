"""One process at a time where two would disturb each other."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def held(file: Path, purpose: str, refusal: Callable[[str], Exception]) -> Iterator[None]:
    """Hold a lock file, which is let go however this process ends; where another one holds it,
    ``refusal`` of what that told of itself is raised."""
    with file.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise refusal(lock.read().strip() or "another process") from None
        lock.truncate(0)
        lock.write(f"{purpose} (process {os.getpid()})\n")
        lock.flush()
        yield
