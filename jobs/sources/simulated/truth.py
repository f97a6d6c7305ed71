"""Writing what is true beside what is delivered: ``truth/<name>/*.parquet`` and settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs import io
from jobs.sources.simulated.keys import Keyring
from jobs.sources.simulated.spells import AFTER, BEFORE

FOLDER = "truth"
DAY = 86_400_000_000  # in microseconds


def write(folder: Path, name: str, rows: pa.Table, part: int = 0) -> int:
    """Write one file of a truth; returns its rows."""
    home = folder / FOLDER / name
    home.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, home / f"part-{part:05d}.parquet", compression=io.COMPRESSION)
    return rows.num_rows


def write_settings(folder: Path, values: dict[str, Any]) -> None:
    """Write ``truth/settings.json``."""
    io.write_json(folder / FOLDER / "settings.json", values)


def write_keys(folder: Path, keyring: Keyring, start: int) -> int:
    """Write ``truth/keys``, a row per key and spell of a holder; ``start`` in microseconds."""
    code, person, starts, ends = keyring.holders()
    key_type, key = keyring.names(code)
    rows = pa.table({
        "key_type": key_type, "key": key, "person": person,
        "starts": day_time(starts, start), "ends": day_time(ends, start),
    })  # fmt: skip
    return write(folder, "keys", rows)


def day_time(day: np.ndarray, start: int) -> pa.Array:
    """The midnights at which days begin; null where a spell has no known bound."""
    unknown = (day == BEFORE) | (day == AFTER)
    return pa.array(start + day.astype(np.int64) * DAY, mask=unknown).cast(
        pa.timestamp("us", tz="UTC")
    )


def utc(microseconds: np.ndarray) -> pa.Array:
    """Microseconds since 1970 as UTC timestamps."""
    return pa.array(microseconds.astype(np.int64)).cast(pa.timestamp("us", tz="UTC"))
