"""Events judged in memory: of a table what :func:`jobs.signals.events.judge` says of a frame.

A refresh judges the few events that something may have changed for, which an engine would have to
be started for; tests hold both to the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs import tables
from jobs.refresh import onward
from jobs.release import groups
from jobs.signals.deliveries import AHEAD, CROWDED, DAY_OF_KEY
from jobs.sources import contract
from jobs.tables import EVENT_TYPES

if TYPE_CHECKING:
    from jobs.signals.events import Params

PENDING = "not_yet_received"


def judge(raw: pa.Table, as_of: datetime, params: Params) -> pa.Table:
    """Each row of the source with its ``outcome``; see :func:`jobs.signals.events.judge`."""
    now = pa.scalar(as_of, tables.TIME)
    rows = settle(_filled(raw, now))
    again = pc.greater(rows["place"], 1)
    older = pc.less(rows["revision"], rows["newest_revision"])
    late = pa.scalar(timedelta(hours=params.late_after_hours), pa.duration("us"))
    verdicts = {
        PENDING: rows["pending"],
        "superseded": pc.and_(again, older),
        "duplicate": again,
        **{f"rejected: {name}": holds for name, holds in _impossible(rows, now, params).items()},
        "kept_late": pc.greater(pc.subtract(rows["received_time"], rows["event_time"]), late),
    }
    outcome = pc.fill_null(first_of(verdicts), "kept")
    session = pc.if_else(blank(rows["session_id"]), None, rows["session_id"])
    rows = rows.append_column("event_date", rows["event_time"].cast(pa.date32()))
    rows = rows.set_column(rows.schema.get_field_index("session_id"), "session_id", session)
    kept = pc.starts_with(outcome, "kept")
    days = rows.filter(kept).group_by(DAY_OF_KEY).aggregate([([], "count_all")])
    days = days.filter(pc.field("count_all") > params.max_events_per_key_day)
    crowded = pc.and_(kept, onward.among(rows, days, DAY_OF_KEY))
    outcome = pc.if_else(crowded, f"rejected: {CROWDED}", outcome)
    return rows.append_column("outcome", outcome).select(
        [*tables.TABLES["events"].schema.names, "outcome"]
    )


def _filled(raw: pa.Table, now: pa.Scalar) -> pa.Table:
    arrived = pc.coalesce(raw["received_time"], raw["event_time"])
    filled = {
        "revision": pc.fill_null(raw["revision"], 0),
        "received_time": arrived,
        "quantity": pc.fill_null(raw["quantity"], 1.0),
        "pending": pc.fill_null(pc.greater_equal(arrived, now), False),
    }
    return pa.table({**{name: raw[name] for name in raw.schema.names}, **filled})


def settle(rows: pa.Table) -> pa.Table:
    """The rows with their ``place`` among the deliveries of their event, and what all of these say;
    see :func:`jobs.signals.events.settle`."""
    ranked = ("event_id", "revision", "received_time")
    others = [one.name for one in contract.CONTRACT["events"] if one.name not in ranked]
    order = [
        ("event_id", "ascending"), ("pending", "ascending"), ("revision", "descending"),
        *((name, "ascending") for name in ("received_time", *others)),
    ]  # fmt: skip
    rows = rows.take(pc.sort_indices(rows, sort_keys=order))
    starts = groups.runs(rows, ["event_id", "pending"])  # a row without an id is one by itself
    sizes = np.diff(np.append(starts, rows.num_rows))
    received = pc.fill_null(rows["received_time"].cast(pa.int64()), NEVER).to_numpy()
    first = np.minimum.reduceat(received, starts) if len(starts) else received
    first = np.repeat(first, sizes)
    newest = rows["revision"].to_numpy()[starts]
    return (
        rows.append_column("place", pa.array(groups.ranked(starts, rows.num_rows)))
        .append_column("newest_revision", pa.array(np.repeat(newest, sizes)))
        .append_column(
            "first_received", pa.array(first, mask=first == NEVER).cast(tables.TIME)
        )
    )  # fmt: skip


NEVER = np.iinfo(np.int64).max


def _impossible(rows: pa.Table, now: pa.Scalar, params: Params) -> dict[str, pa.ChunkedArray]:
    """By their names the reasons why a row can't be, the one that counts first."""
    event_time = rows["event_time"]
    ahead = pa.scalar(timedelta(seconds=params.clock_tolerance_seconds), pa.duration("us"))
    return {
        "no_event_id": blank(rows["event_id"]),
        "no_key": pc.or_(blank(rows["key"]), blank(rows["key_type"])),
        "no_item": blank(rows["item_id"]),
        "no_time": pc.is_null(event_time),
        AHEAD: pc.or_(
            pc.greater_equal(event_time, now),
            pc.greater(event_time, pc.add(rows["received_time"], ahead)),
        ),
        "unknown_type": pc.invert(
            pc.is_in(rows["event_type"], value_set=pa.array(EVENT_TYPES, pa.string()))
        ),
        "not_a_number": pc.or_(
            pc.is_nan(rows["quantity"]), pc.fill_null(pc.is_nan(rows["value"]), False)
        ),
        "quantity_not_positive": pc.less_equal(rows["quantity"], 0),
        "negative_price": pc.less(rows["value"], 0),
    }


def first_of(verdicts: Mapping[str, pa.ChunkedArray]) -> pa.ChunkedArray:
    """The first of these names whose condition holds, null where none does."""
    conditions = pc.make_struct(*verdicts.values(), field_names=list(verdicts))
    return pc.case_when(conditions, *(pa.scalar(name) for name in verdicts))


def blank(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """(n_rows,) booleans: which texts are missing, or hold nothing but spaces."""
    return pc.fill_null(pc.equal(pc.utf8_trim(texts, characters=" "), ""), True)
