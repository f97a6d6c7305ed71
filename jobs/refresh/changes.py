"""What changed since the base: hours, people and items.

Reads ``events``, ``history``, ``persons`` and ``items``, and the same tables of the base. Writes
``intervals`` (a row per hour since the night), ``touched_people`` and ``touched_items`` (a row per
person or item and reason) and ``change_counts``.

What is touched is decided by content, never by counts or by a time mark: a person whose events are
others than in the base (a late one, a returned one, one that a login gave away), or whose region,
segment, consent or restrictions are; an item that is new, described otherwise, or may be shown to
others than before. So an hour that was missed, or came twice, heals by itself: whatever the source
holds now and the base did not know is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs import io, tables
from jobs.io import Published
from jobs.night import Night
from jobs.signals.past import people_of

HOUR = timedelta(hours=1)
READ, HEALED = "read", "healed"
EVENTS, FACTS, CAME, WENT = "events", "facts", "came", "went"
DESCRIBED, SHOWN = "described", "shown"
# What is known of a person, beside the events, that lists depend on.
PERSON = ["person_id", "region", "segment", "personalised", "restrictions"]
ITEM = ["item_id", "title", "category", "brand", "seller", "price", "margin", "flags", "attributes"]
SHOWING = ["item_id", "available", "regions"]


@dataclass(frozen=True)
class Params:
    """Nothing to choose."""


def refresh(night: Night, params: Params) -> None:
    """Stage the four tables."""
    then = {step: night.base(step) for step in ("events", "catalogue", "identities", "sessions")}
    night.write("intervals", intervals(night, then["events"]))
    people = touched_people(night, then["sessions"], then["identities"])
    items = touched_items(night, then["catalogue"])
    night.write("touched_people", people)
    night.write("touched_items", items)
    known = {
        "persons": night.arrow("persons", ["person_id"]).num_rows,
        "items": night.arrow("items", ["item_id"]).num_rows,
    }
    there = people.filter(pc.not_equal(people["reason"], WENT))["person_id"]
    touched = {"persons": _distinct(there), "items": _distinct(items["item_id"])}
    night.write("change_counts", pa.table({
        "what": list(known), "known": list(known.values()), "touched": list(touched.values()),
        "share": [touched[what] / max(known[what], 1) for what in known],
    }))  # fmt: skip
    night.notes["touched"] = {what: [touched[what], known[what]] for what in known}


def people(night: Night) -> pa.StringArray:
    """The sorted ids of the people whose lists a refresh makes anew."""
    rows = night.arrow("touched_people")
    there = rows.filter(pc.not_equal(rows["reason"], WENT))
    return people_of(there.group_by("person_id").aggregate([]))


def gone(night: Night) -> pa.StringArray:
    """The sorted ids of those who were persons in the base and are none now."""
    rows = night.arrow("touched_people")
    return people_of(rows.filter(pc.equal(rows["reason"], WENT)))


def _distinct(ids: pa.ChunkedArray) -> int:
    return len(pc.unique(ids))


# --- hours -----------------------------------------------------------------------------------
def intervals(night: Night, base: Published) -> pa.Table:
    """The table ``intervals``."""
    assert night.refresh is not None
    begun, read = (io.parse_as_of(label) for label in (night.refresh.night, night.refresh.base))
    now = _received(night.published("events"), begun)
    then = _received(base, begun)
    new = pc.invert(pc.is_in(now["event_id"], value_set=then["event_id"]))
    time = now["received_time"]
    before = _states(night)
    rows = []
    for started, ended in hours(begun, read, night.as_of):
        inside = pc.and_(
            pc.greater_equal(time, pa.scalar(started, tables.TIME)),
            pc.less(time, pa.scalar(ended, tables.TIME)),
        )
        found = pc.sum(pc.and_(inside, new)).as_py() or 0
        newly = READ if ended == night.as_of else HEALED
        rows.append({
            "started": started, "ended": ended,
            "state": before.get(started, READ) if ended <= read else newly,
            "events": pc.sum(inside).as_py() or 0,
            "late": found if ended <= read else 0,
        })  # fmt: skip
    return pa.Table.from_pylist(rows, tables.TABLES["intervals"].schema)


def hours(begun: datetime, read: datetime, now: datetime) -> list[tuple[datetime, datetime]]:
    """The hours from ``begun`` to ``now``, cut where the base had ``read`` up to."""
    marks, mark = {begun, read, now}, begun
    while mark < now:
        marks.add(mark)
        mark += HOUR
    edges = sorted(mark for mark in marks if begun <= mark <= now)
    return list(pairwise(edges))


def _received(events: Published, since: datetime) -> pa.Table:
    recent = ds.field("received_time") >= pa.scalar(since, tables.TIME)
    return io.read_arrow(events.table("events"), ["event_id", "received_time"], recent)


def _states(night: Night) -> dict[datetime, str]:
    """How the base says that earlier hours were read."""
    found = night.previous("changes")
    if found is None:
        return {}
    rows = io.read_arrow(found.table("intervals"), ["started", "state"]).to_pylist()
    return {row["started"]: row["state"] for row in rows}


# --- people ----------------------------------------------------------------------------------
def touched_people(night: Night, sessions: Published, identities: Published) -> pa.Table:
    """The table ``touched_people``; who ``went`` is a person no more, by a merge or a split."""
    read = night.spark.read.parquet
    now, then = night.frame("persons"), read(str(identities.table("persons")))
    known = [F.col("person_id"), _hash(PERSON[1:]).alias("hash")]
    facts = _differing(
        now.select(*known), then.select(*known)
    ).select(
        "person_id",
        F.when(F.col("then").isNull(), CAME).when(F.col("now").isNull(), WENT).otherwise(FACTS)
        .alias("reason"),
    )  # fmt: skip
    acted = _differing(
        _acts(night.frame("history")), _acts(read(str(sessions.table("history"))))
    ).join(now, on="person_id", how="semi")
    found = facts.unionByName(acted.select("person_id", F.lit(EVENTS).alias("reason"))).toArrow()
    return found.sort_by([("person_id", "ascending"), ("reason", "ascending")])


def _hash(names: Sequence[str]) -> Column:
    """A number for the values of these columns; null is a value of its own."""
    return F.xxhash64(F.to_json(F.struct(*names), {"ignoreNullFields": "false"}))


def _acts(history: DataFrame) -> DataFrame:
    """Per person one number that its events add up to, whatever their order."""
    schema = tables.TABLES["history"].schema
    # Null would be passed over, wherever it stands.
    of_event = F.xxhash64(*[
        F.coalesce(F.col(field.name).cast("string"), F.lit("\0")) if field.nullable
        else F.col(field.name)
        for field in schema
    ])  # fmt: skip
    # Two sums of 32 bits each: the whole 64 could overflow, which ends a query in ANSI mode.
    low, high = F.sum(of_event.bitwiseAND(0xFFFFFFFF)), F.sum(F.shiftrightunsigned(of_event, 32))
    return history.groupBy("person_id").agg(F.xxhash64(low, high).alias("hash"))


def _differing(now: DataFrame, then: DataFrame) -> DataFrame:
    """person_id, now, then: the hashes where they are not the same."""
    both = now.withColumnRenamed("hash", "now").join(
        then.withColumnRenamed("hash", "then"), on="person_id", how="full"
    )
    return both.where(~F.col("now").eqNullSafe(F.col("then")))


# --- items -----------------------------------------------------------------------------------
def touched_items(night: Night, catalogue: Published) -> pa.Table:
    """The table ``touched_items``. Items never go: one that left the catalogue is unavailable."""
    read = night.spark.read.parquet
    now, then = night.frame("items"), read(str(catalogue.table("items")))
    hashes = [_hash(ITEM[1:]), _hash(SHOWING[1:])]
    of_now, of_then = (
        rows.select(
            "item_id", hashes[0].alias(f"{DESCRIBED}_{at}"), hashes[1].alias(f"{SHOWN}_{at}")
        )
        for rows, at in ((now, "now"), (then, "then"))
    )
    both = of_now.join(of_then, on="item_id", how="left")
    came = F.col(f"{DESCRIBED}_then").isNull()
    reasons = F.array_compact(F.array(
        F.when(came, F.lit(CAME)),
        *(
            F.when(~came & (F.col(f"{name}_now") != F.col(f"{name}_then")), F.lit(name))
            for name in (DESCRIBED, SHOWN)
        ),
    ))  # fmt: skip
    found = both.select("item_id", F.explode(reasons).alias("reason")).toArrow()
    return found.sort_by([("item_id", "ascending"), ("reason", "ascending")])
