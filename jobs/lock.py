"""One night at a time on a lake: a lock with an owner and an expiry.

The lock is one file. A night renews it at each step; a lock whose engine died on this machine,
whose machine was started again, or whose time ran out, is taken over with a log line. Whoever looks
at the lock and then changes it, or ends an engine that others take as a sign of life, does so
:func:`alone`.
"""

from __future__ import annotations

import fcntl
import json
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from jobs import io
from jobs.errors import Busy, Fault
from jobs.io import Lake
from jobs.spark import Engine, engine_file

log = logging.getLogger("nightjar")
HOLD = timedelta(hours=2)  # longer than the longest step; a step renews it when it starts


def path(lake: Lake) -> Path:
    return lake.root / ".night" / "lock.json"


def acquire(lake: Lake, owner: str, brief: bool = False) -> None:
    """Take the lake for a run, or raise ``Busy`` that names who holds it. ``brief``: for minutes,
    so that others may wait for it."""
    with alone(lake):
        holder = holder_of(lake)
        if holder is not None and holder["owner"] != owner:
            if not _abandoned(lake, holder):
                raise Busy(
                    f"lake: {lake.root} is in use by the run {holder['owner']} on "
                    f"{holder['host']} since {holder['taken']}; wait for it to end, or, if it is "
                    f"dead, for {holder['expires']}, when its hold runs out"
                )
            log.warning("lock=taken_over from=%s", holder["owner"])
        if _engine_died(lake):  # so that it tells nobody that this run is dead
            engine_file(lake).unlink()
        io.write_json(path(lake), _entry(owner, brief))


@contextmanager
def alone(lake: Lake) -> Iterator[None]:
    """No two processes are inside at once; kept short, the others wait."""
    path(lake).parent.mkdir(parents=True, exist_ok=True)
    with open(path(lake).with_suffix(".guard"), "w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield


def renew(lake: Lake, owner: str) -> None:
    """Extend the hold of a run that owns the lake, or raise ``Fault`` where it does not."""
    with alone(lake):
        holder = holder_of(lake)
        if holder is None or holder["owner"] != owner:
            by = "nobody" if holder is None else holder["owner"]
            raise Fault(
                f"lake: {lake.root} is held by {by}, not by the run {owner}; "
                "start the night from its first task, which takes the lake"
            )
        entry = _entry(owner, holder.get("brief", False))
        io.write_json(path(lake), {**entry, "taken": holder["taken"]})


def release(lake: Lake, owner: str) -> None:
    """Let the lake go if this run holds it."""
    with alone(lake):
        holder = holder_of(lake)
        if holder is not None and holder["owner"] == owner:
            path(lake).unlink(missing_ok=True)


def holder_of(lake: Lake) -> dict[str, Any] | None:
    """Who holds the lake, if anybody does."""
    try:
        return io.read_json(path(lake))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError:  # spoilt by hand or by the disk: nobody's
        return None


def _entry(owner: str, brief: bool) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "owner": owner,
        "brief": brief,
        "host": socket.gethostname(),
        "boot": _boot(),
        "taken": now.isoformat(timespec="seconds"),
        "expires": (now + HOLD).isoformat(timespec="seconds"),
    }


def _abandoned(lake: Lake, holder: dict[str, Any]) -> bool:
    if datetime.fromisoformat(holder["expires"]) < datetime.now(UTC):
        return True
    if holder["host"] != socket.gethostname():
        return False
    # Nothing of a run outlives its machine; one that needs no engine has no other sign of life.
    return holder.get("boot", _boot()) != _boot() or _engine_died(lake)


def _boot() -> str:
    """What tells this start of the machine from every other, where it says so."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _engine_died(lake: Lake) -> bool:
    engine = engine_file(lake)
    return engine.exists() and not Engine.load(engine).alive()
