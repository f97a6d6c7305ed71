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

from jobs import io
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
    files = night.source_files("events")
    before = io.read_json(night.base("source").table("source.json")).get("files", {})
    before = before.get("events", {})
    if not before or any(files.get(name) != mark for name, mark in before.items()):
        return None
    read_up_to = io.parse_as_of(base.as_of)
    folder, columns = night.source_folder(), [column.name for column in contract.CONTRACT["events"]]
    arrived = F.coalesce("received_time", "event_time")

    def received_by(cut: datetime) -> Column:
        return ~F.coalesce(arrived >= F.lit(cut), F.lit(False))

    rows = contract.read(night.spark, folder, "events", before)
    assert rows is not None
    rows = rows.withColumn("then", received_by(read_up_to))
    added = contract.read(night.spark, folder, "events", files.keys() - before.keys())
    if added is not None:
        rows = rows.unionAll(added.withColumn("then", F.lit(False)))
    rows = rows.where(received_by(night.as_of))
    new = rows.where(~F.col("then"))
    told = new.select("event_id", *KEY, F.to_date("event_time").alias("event_date"))
    ids = touched(told.distinct().toArrow(), base)
    chosen = night.spark.createDataFrame(pa.table({"event_id": ids})).withColumn("is", F.lit(True))
    unnamed = F.col("event_id").isNull() & ~F.col("then")
    again = rows.join(F.broadcast(chosen), on="event_id", how="left").where(F.col("is") | unnamed)
    return Again(again.select(*columns, "then"), ids)


def touched(new: pa.Table, base: Published) -> pa.StringArray:
    """The sorted ids of the events to be judged again.

    ``new``: event_id, key_type, key, event_date of what came since the base.
    """
    held = io.read_arrow(base.table("events"), ["event_id", *DAY_OF_KEY])
    refused = io.read_arrow(base.table("events_rejected"))
    refused = refused.append_column("event_date", refused["event_time"].cast(pa.date32()))
    ahead = refused.filter(pc.equal(refused["reason"], AHEAD))
    crowded = refused.filter(pc.equal(refused["reason"], CROWDED)).select(held.schema.names)
    counted = pa.concat_tables([held, crowded])
    named = onward.both(new["event_id"], ahead["event_id"]).drop_null()
    mine = counted.filter(pc.is_in(counted["event_id"], value_set=named))
    days = pa.concat_tables(
        [one.select(DAY_OF_KEY) for one in (new, ahead, mine)], promote_options="permissive"
    )
    beside = counted.filter(onward.among(counted, days, DAY_OF_KEY))
    return onward.both(named, beside["event_id"])
