"""The behaviour-drift window of a source: how old inputs may get before lists lose by it.

``make staleness`` measures it and writes ``staleness/<source>/<as_of>/staleness.json`` in the lake;
the audits hold the age of signals against it. This module says where the file lies and reads it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jobs import io
from jobs.errors import Fault
from jobs.io import Lake

FILE = "staleness.json"


@dataclass(frozen=True)
class Drift:
    """A measured window in days, with its interval, as of the night it was measured for.

    ``clear``: whether the measurement tells a window. Where noise hides whether anything is lost it
    does not, and ``days`` is only the largest age that was looked at.
    """

    source: str
    as_of: datetime
    days: float
    low: float | None
    high: float | None
    clear: bool
    file: Path


def file(lake: Lake, source: str, as_of: datetime) -> Path:
    """Where the measurement of a source for a run date is written."""
    return lake.staleness(source, as_of) / FILE


def newest(lake: Lake, source: str, as_of: datetime) -> Drift | None:
    """The newest measurement of this source for this run date or an earlier one, if any.

    Raises ``Fault`` for a file that is not a measurement: what was measured and cannot be read is
    not the same as never measured.
    """
    home = lake.staleness(source, as_of).parent
    found = [load(path) for path in sorted(home.glob(f"*/{FILE}"))]
    fit = [one for one in found if one.source == source and one.as_of <= as_of]
    return max(fit, key=lambda one: one.as_of, default=None)


def load(path: Path) -> Drift:
    """Read one measurement."""
    try:
        facts = io.read_json(path)
        return Drift(
            source=facts["source"],
            as_of=io.parse_as_of(facts["as_of"]),
            days=_days(facts["drift_window_days"]),
            low=_end(facts.get("low")),
            high=_end(facts.get("high")),
            clear=facts["verdict"] != "unclear",
            file=path,
        )
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise Fault(
            f"staleness: {path} is no measurement of a drift window ({error!r}); run "
            "`make staleness` again or remove the file"
        ) from None


def _days(value: Any) -> float:
    days = float(value)
    if not (math.isfinite(days) and days > 0):
        raise ValueError(f"drift_window_days is {value!r}, expected a number above 0")
    return days


def _end(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(float(value)) else None
