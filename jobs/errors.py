"""Errors that a person reads: each says what is wrong, where, and what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable


class Fault(Exception):
    """Bad input or a bad place: running again unchanged would fail again, so nothing retries it."""


class Busy(Fault):
    """Another run holds the lake."""


class NightNeeded(Fault):
    """A refresh may not go on from what there is; a night with the same parameters mends it."""


class GateRed(Fault):
    """A critical expectation failed: the staged tables stay unpublished."""


def exit_code(work: Callable[[], int | None]) -> int:
    """Do a command's work: its own code, else 3 for a red gate or 2 for a fault, which it tells."""
    try:
        return work() or 0
    except GateRed as red:
        print(f"red gate: {red}", file=sys.stderr)
        return 3
    except Fault as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 2
