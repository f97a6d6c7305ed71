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

from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs import io, tables
from jobs.io import Published
from jobs.night import Night
from jobs.refresh import onward
from jobs.signals.links import KEY
from jobs.sources import contract

DAY_OF_KEY = [*KEY, "event_date"]
# Reasons that do not stand for ever: other events of the key, or the clock, may take them back.
CROWDED, AHEAD = "bot_like_volume", "time_in_the_future"


@dataclass(frozen=True)
class Again:
    """What is judged again.

    ``rows``: the contract's columns of every delivery received by now of the events ``ids``, which
    are sorted, and of new ones that name no event; ``then`` says whether the base had received it.
    """

    rows: DataFrame
    ids: pa.StringArray


def since(night: Night, base: Published) -> Again | None:
    """What a refresh judges again; ``None`` where it cannot go on from ``base``, its base's step
    ``events``."""
    now, before = files(night.published("source")) or {}, files(night.base("source"))
    if not before or any(now.get(name) != mark for name, mark in before.items()):
        return None
    folder, columns = night.source_folder(), [column.name for column in contract.CONTRACT["events"]]
    rows = contract.read(night.spark, folder, "events", before)
    assert rows is not None
    arrived = F.coalesce("received_time", "event_time")

    def received_by(cut: datetime) -> Column:
        return ~F.coalesce(arrived >= F.lit(cut), F.lit(False))

    rows = rows.withColumn("then", received_by(read_up_to(base)))
    added = contract.read(night.spark, folder, "events", now.keys() - before.keys())
    if added is not None:
        rows = rows.unionAll(added.withColumn("then", F.lit(False)))
    rows = rows.where(received_by(night.as_of))
    new = rows.where(~F.col("then"))
    told = new.select("event_id", *KEY, F.to_date("event_time").alias("event_date")).distinct()
    most = int(onward.MOST * io.count_rows(base.table("events")))
    came = told.limit(most + 1).toArrow()
    ids = touched(came, base, night.as_of)
    if max(came.num_rows, len(ids)) > most:
        return None
    chosen = night.spark.createDataFrame(pa.table({"event_id": ids}), "event_id string")
    chosen = chosen.withColumn("is", F.lit(True))
    unnamed = F.col("event_id").isNull() & ~F.col("then")
    again = rows.join(F.broadcast(chosen), on="event_id", how="left").where(F.col("is") | unnamed)
    return Again(again.select(*columns, "then"), ids)


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
