"""Which deliveries of events a refresh judges again; all other events stand as its base has them.

Reads the contract table ``events`` and the base's ``events`` and ``events_rejected``; writes
nothing.

What becomes of an event depends on its own deliveries, on how many events its key has on its day,
and, while it lies in the future, on the run date. So what came since the base touches the events
it names, and what these touch are all events of the same keys on the same days, and of the same
days before they were corrected. That is whole: judged by themselves, these events come out as they
would among all.

What came since is found file by file: of a file that is as it was when the base read it, the rows
received since; of a new one, all of them. Where a file that the base read is another now, or gone,
nothing tells what it no longer says, and all events are judged anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from jobs import io, tables
from jobs.io import Published
from jobs.night import Night
from jobs.refresh import onward
from jobs.signals.links import KEY
from jobs.sources import contract, in_memory
from jobs.sources.contract import File
from jobs.sources.in_memory import Where

DAY_OF_KEY = [*KEY, "event_date"]
# Reasons that do not stand for ever: other events of the key, or the clock, may take them back.
CROWDED, AHEAD = "bot_like_volume", "time_in_the_future"


@dataclass(frozen=True)
class Again:
    """What is judged again.

    ``rows``: the contract's columns of every delivery received by now of the events ``ids``, which
    are sorted, and of new ones that name no event; ``then`` says whether the base had received it.
    """

    rows: pa.Table
    ids: pa.StringArray


def since(night: Night, base: Published) -> Again | None:
    """What a refresh judges again; ``None`` where it cannot go on from ``base``, its base's step
    ``events``, or where that would be no less work."""
    now, before = files(night.published("source")) or {}, files(night.base("source"))
    if not before or any(now.get(name) != mark for name, mark in before.items()):
        return None
    folder, most = night.source_folder(), int(onward.MOST * io.count_rows(base.table("events")))
    added = now.keys() - before.keys()
    stood, new = (
        contract.files(folder, "events", names) or [] if names else [] for names in (before, added)
    )
    if sum(file.rows for file in new) > max(most, FEW):
        return None
    cut, until = (pa.scalar(at, tables.TIME) for at in (read_up_to(base), night.as_of))

    def read(files: list[File], columns: list[str], holds: Holds) -> pa.Table:
        return in_memory.of_files("events", files, columns, Where(["event_id", *TIMES], holds))

    def later(rows: pa.Table) -> pa.ChunkedArray:
        return pc.and_(received(rows, until), pc.invert(received(rows, cut)))

    named = ["event_id", *KEY, "event_time"]
    came = pa.concat_tables([
        read(stood, named, later), read(new, named, lambda rows: received(rows, until)),
    ])  # fmt: skip
    came = came.append_column("event_date", came["event_time"].cast(pa.date32()))
    came = came.group_by(["event_id", *DAY_OF_KEY]).aggregate([])
    ids = touched(came, base, night.as_of) if came.num_rows <= most else None
    if ids is None or len(ids) > most:
        return None

    def asked(rows: pa.Table) -> pa.ChunkedArray:
        unnamed = pc.and_(pc.is_null(rows["event_id"]), pc.invert(received(rows, cut)))
        mine = pc.or_(pc.is_in(rows["event_id"], value_set=ids), unnamed)
        return pc.and_(received(rows, until), mine)

    columns = [column.name for column in contract.CONTRACT["events"]]
    known = read(stood, columns, asked)
    brought = read(new, columns, lambda rows: received(rows, until))
    then = pa.chunked_array([
        *received(known, cut).chunks, pa.repeat(pa.scalar(False), brought.num_rows),
    ], pa.bool_())  # fmt: skip
    return Again(pa.concat_tables([known, brought]).append_column("then", then), ids)


Holds = Callable[[pa.Table], pa.ChunkedArray]
TIMES = ["received_time", "event_time"]
FEW = 1_000_000  # deliveries in new files that are looked through in memory whatever they repeat


def received(rows: pa.Table, at: pa.Scalar) -> pa.ChunkedArray:
    """(n_rows,) booleans: which deliveries had come before an instant; one without a time had."""
    arrived = pc.coalesce(rows["received_time"], rows["event_time"])
    return pc.invert(pc.fill_null(pc.greater_equal(arrived, at), False))


def files(source: Published) -> dict[str, str] | None:
    """The files of ``events`` that a run's step ``source`` found, each with what tells that it is
    as it was; None where it does not say."""
    found: dict[str, str] | None = io.read_json(source.table("source.json")).get("event_files")
    return found


def read_up_to(base: Published) -> datetime:
    """What was received from then on the base has not read."""
    return io.parse_as_of(base.manifest["as_of"])


def touched(new: pa.Table, base: Published, as_of: datetime) -> pa.StringArray:
    """The sorted ids of the events to be judged again at ``as_of``.

    ``new``: event_id, key_type, key, event_date of what came since the base.
    """
    held = io.read_arrow(base.table("events"), ["event_id", *DAY_OF_KEY])
    refused = io.read_arrow(base.table("events_rejected"))
    refused = refused.append_column("event_date", refused["event_time"].cast(pa.date32()))
    # Of these the clock has come to some; all others were ahead of what received them.
    since, now = (pa.scalar(time, tables.TIME) for time in (read_up_to(base), as_of))
    reached = (pc.field("event_time") >= since) & (pc.field("event_time") < now)
    ahead = refused.filter((pc.field("reason") == AHEAD) & reached)
    crowded = refused.filter(pc.equal(refused["reason"], CROWDED)).select(held.schema.names)
    counted = pa.concat_tables([held, crowded], promote_options="default")
    named = onward.both(new["event_id"], ahead["event_id"]).drop_null()
    mine = counted.filter(pc.is_in(counted["event_id"], value_set=named))
    days = pa.concat_tables(
        [one.select(DAY_OF_KEY) for one in (new, ahead, mine)], promote_options="permissive"
    )
    beside = counted.filter(onward.among(counted, days, DAY_OF_KEY))
    return onward.both(named, beside["event_id"])
