"""RetailRocket: the events of a web shop (view, addtocart, transaction).

Reads a CSV file, or a folder with ``events*.csv`` files, with the columns user_id, item_id, event
and timestamp (UTC seconds), or in the publisher's own form (visitorid, itemid, milliseconds).
Writes ``events`` in the source contract's shape: one row per line, event_id
``user:item:event:timestamp``, so that an equal repeat is a duplicate.

A visitor id is all that the shop knows of a person and stays with it for months: it is an
``account``. Events of another kind are carried as they are named, and unreadable times as null,
so that the events step quarantines and counts them. There is no catalogue and no money.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from jobs.sources import csvs, writing

VERSION = "1"
USAGE = "retailrocket:FILE_OR_FOLDER (events.csv or events.csv.gz)"
COLUMNS = ("user_id", "item_id", "event", "timestamp")
ALIASES = {"visitorid": "user_id", "itemid": "item_id"}
EVENT_TYPES = {"view": "view", "addtocart": "add_to_cart", "transaction": "purchase"}
LEAST_MILLISECONDS = 10**11  # as seconds, a time in the year 5138


def upstream(argument: str | None) -> list[Path]:
    """The events' files; the publisher's item properties beside them are not read."""
    found = csvs.find("retailrocket", argument, USAGE)
    return [path for path in found if path.name.startswith("events")] or found


def convert(argument: str | None, folder: Path) -> dict[str, Any]:
    """Write the contract's events; the result counts what was left out and why."""
    lines, broken = csvs.read(upstream(argument), COLUMNS, ALIASES)
    seconds = pd.to_numeric(lines["timestamp"], errors="coerce").astype(float)
    seconds = seconds.where(seconds < LEAST_MILLISECONDS, seconds / 1000)
    microseconds = (seconds * 1_000_000).round()  # exact: a float holds integers up to 2^53
    lines = lines.assign(time=pd.to_datetime(microseconds, unit="us", utc=True, errors="coerce"))
    lines = lines.sort_values("time", kind="stable")
    texts = {name: lines[name].where(lines[name] != "", None) for name in COLUMNS}
    event_id = lines["user_id"].str.cat(lines[["item_id", "event", "timestamp"]], sep=":")
    events = writing.write(
        folder, "events",
        event_id=event_id,
        event_time=pa.array(lines["time"]).cast(pa.timestamp("us", tz="UTC")),
        key_type=writing.constant("account", len(lines)),
        key=texts["user_id"],
        event_type=texts["event"].replace(EVENT_TYPES),
        item_id=texts["item_id"],
        channel=writing.constant("web", len(lines)),
    )  # fmt: skip
    return {"events": events, "broken_lines_left_out": broken}
