"""One night at a time on a lake: a lock with an owner and an expiry.

The lock is one file, taken by an exclusive create. A night renews it at each step; a lock whose
engine died on this machine, or whose time ran out, is taken over with a log line.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from jobs import io
from jobs.errors import Busy, Fault
from jobs.io import Lake
from jobs.spark import Engine

log = logging.getLogger("nightjar")
HOLD = timedelta(hours=2)  # longer than the longest step; a step renews it when it starts


def path(lake: Lake) -> Path:
    return lake.root / ".night" / "lock.json"


def acquire(lake: Lake, owner: str) -> None:
    """Take the lake for a run, or raise ``Busy`` that names who holds it."""
    path(lake).parent.mkdir(parents=True, exist_ok=True)
    if _create(lake, owner):
        return
    holder = holder_of(lake)
    if holder is not None and holder["owner"] != owner and not _abandoned(lake, holder):
        raise Busy(
            f"lake: {lake.root} is in use by the run {holder['owner']} on {holder['host']} since "
            f"{holder['taken']}; wait for it to end, or, if it is dead, for "
            f"{holder['expires']}, when its hold runs out"
        )
    if holder is not None and holder["owner"] != owner:
        log.warning("lock=taken_over from=%s", holder["owner"])
    io.write_json(path(lake), _entry(owner))


def renew(lake: Lake, owner: str) -> None:
    """Extend the hold of a run that owns the lake, or raise ``Fault`` where it does not."""
    holder = holder_of(lake)
    if holder is None or holder["owner"] != owner:
        by = "nobody" if holder is None else holder["owner"]
        raise Fault(
            f"lake: {lake.root} is held by {by}, not by the run {owner}; "
            "start the night from its first task, which takes the lake"
        )
    io.write_json(path(lake), {**_entry(owner), "taken": holder["taken"]})


def release(lake: Lake, owner: str) -> None:
    """Let the lake go if this run holds it."""
    holder = holder_of(lake)
    if holder is not None and holder["owner"] == owner:
        path(lake).unlink(missing_ok=True)


def holder_of(lake: Lake) -> dict[str, Any] | None:
    """Who holds the lake, if anybody does."""
    try:
        return io.read_json(path(lake))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError:
        # Half-written by a crash between create and write: nobody's.
        return None


def _create(lake: Lake, owner: str) -> bool:
    try:
        handle = os.open(path(lake), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w") as file:
        json.dump(_entry(owner), file)
    return True


def _entry(owner: str) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "owner": owner,
        "host": socket.gethostname(),
        "taken": now.isoformat(timespec="seconds"),
        "expires": (now + HOLD).isoformat(timespec="seconds"),
    }


def _abandoned(lake: Lake, holder: dict[str, Any]) -> bool:
    if datetime.fromisoformat(holder["expires"]) < datetime.now(UTC):
        return True
    engine = lake.root / ".night" / "engine.json"
    return (
        holder["host"] == socket.gethostname()
        and engine.exists()
        and not Engine.load(engine).alive()
    )
