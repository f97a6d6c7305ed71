"""What changed since the base, hours, people and items, and what is therefore made anew.

Reads ``events``, ``history``, ``persons``, ``items`` and ``rules_in_force``, and the same tables of
the base. Writes ``intervals`` (a row per hour since the night), ``touched_people`` and
``touched_items`` (a row per person or item and reason), ``surface_digests`` (a row per surface:
whether its configuration changed), ``ladder`` (a row per person and item: its tier, and what
becomes of its lists), ``ladder_counts`` and ``change_counts``.

What is touched is decided by content, never by counts or by a time mark: a person whose events are
others than in the base (a late one, a returned one, one that a login gave away), or whose region,
segment, consent or restrictions are; an item that is new, described otherwise, or may be shown to
others than before. So an hour that was missed, or came twice, heals by itself: whatever the source
holds now and the base did not know is found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs import io, tables
from jobs.io import Published
from jobs.night import Night
from jobs.ordering import rules
from jobs.ordering.surfaces import CONTEXT, ITEM, PERSON
from jobs.refresh import ladder, onward
from jobs.refresh.ladder import AGED, KEPT, POOLED, Params
from jobs.release import groups, releases
from jobs.retrieval import matrix
from jobs.signals import sessions
from jobs.signals.past import people_of

HOUR = timedelta(hours=1)
# Rows of the history, and people with theirs, that are looked at together.
CHUNK_ROWS, PEOPLE = 5_000_000, 20_000
READ, HEALED = "read", "healed"
EVENTS, FACTS, CAME, WENT = "events", "facts", "came", "went"
DESCRIBED, SHOWN = "described", "shown"
# What is known of a person, beside the events, that lists depend on; ``mates`` is who lives there
# and consents, whatever the household is named after.
FACTS_OF = ["person_id", "region", "segment", "personalised", "restrictions", "mates"]
DESCRIPTION = [
    "item_id",
    "title",
    "category",
    "brand",
    "seller",
    "price",
    "margin",
    "flags",
    "attributes",
]
SHOWING = ["item_id", "available", "regions"]
# The steps whose parameters configure lists, and nothing that is learnt; by the surfaces' grain.
LISTS = {
    PERSON: ("filters", "candidates"), CONTEXT: ("filters", "candidates"),
    ITEM: ("filters", "item_lists"),
}  # fmt: skip
ORDERING = pa.array(["boost", "pin", "cap"])
# Grain, cadence and digest by the name of a surface.
Digests = dict[str, tuple[str, str, str]]
__all__ = ["Params", "refresh"]


def refresh(night: Night, params: Params) -> None:
    """Stage the tables."""
    then = {step: night.base(step) for step in ("events", "catalogue", "identities", "sessions")}
    night.write("intervals", intervals(night, then["events"]))
    people = touched_people(night, then["sessions"], then["identities"])
    items = touched_items(night, then["catalogue"])
    night.write("touched_people", people)
    night.write("touched_items", items)
    digests = surface_digests(night)
    night.write("surface_digests", digests)
    there = people.filter(pc.not_equal(people["reason"], WENT))["person_id"]
    decided = {
        "person": decided_people(
            night, params, there, _altered(people)["person_id"], _changed(digests, PERSON)
        ),
        "item": decided_items(night, params, items["item_id"], _changed(digests, ITEM)),
    }
    rows = pa.concat_tables(decided.values())
    night.write("ladder", rows)
    counted = rows.group_by(["what", "tier", "decision"]).aggregate([([], "count_all")])
    night.write("ladder_counts", counted.rename_columns(["what", "tier", "decision", "count"]))
    touched = {"persons": _distinct(there), "items": _distinct(items["item_id"])}
    known = {f"{what}s": one.num_rows for what, one in decided.items()}
    due = {
        f"{what}s": pc.sum(pc.not_equal(one["decision"], KEPT)).as_py() or 0
        for what, one in decided.items()
    }
    night.write("change_counts", pa.table({
        "what": list(known), "known": list(known.values()), "touched": list(touched.values()),
        "share": [touched[what] / max(known[what], 1) for what in known],
        "due": [due[what] for what in known],
    }))  # fmt: skip
    night.notes["touched"] = {what: [touched[what], known[what]] for what in known}


# --- what other steps ask ----------------------------------------------------------------------
def people(night: Night) -> pa.StringArray:
    """The sorted ids of the people who are touched: they or what they did are not as they were."""
    rows = night.arrow("touched_people")
    return _ids(rows.filter(pc.not_equal(rows["reason"], WENT)))


def altered(night: Night) -> pa.StringArray:
    """The sorted ids of those who came, or of whom something else is known: what they may get is
    no cadence's to wait for."""
    return _ids(_altered(night.arrow("touched_people")))


def _altered(touched: pa.Table) -> pa.Table:
    return touched.filter(pc.is_in(touched["reason"], value_set=pa.array([FACTS, CAME])))


def due(night: Night) -> pa.StringArray:
    """The sorted ids of the people whose lists a refresh makes anew."""
    return _decided(night, "person", pc.field("decision") != KEPT)


def whole(night: Night) -> pa.StringArray:
    """Those among them of whom all lists are made anew, on surfaces of every cadence: all where a
    surface's configuration changed, else who is altered or has one that is too old."""
    if everybody_anew(night):
        return due(night)
    old = pc.field("decision").isin([AGED, POOLED])
    return onward.both(altered(night), _decided(night, "person", old))


def pooled(night: Night) -> pa.StringArray:
    """Those among them who have no candidates of their own any more, but pools."""
    return _decided(night, "person", pc.field("decision") == POOLED)


def due_items(night: Night) -> pa.StringArray:
    """The sorted ids of the items whose lists a refresh makes anew on surfaces of every cadence."""
    return _decided(night, "item", pc.field("decision") != KEPT)


def reconfigured(night: Night) -> set[str]:
    """The surfaces whose configuration is another than the base's."""
    rows = night.arrow("surface_digests")
    return set(rows.filter(rows["changed"])["surface"].to_pylist())


def everybody_anew(night: Night) -> bool:
    """Whether one of the surfaces of persons is among them: all of their lists are made anew."""
    return _changed(night.arrow("surface_digests"), PERSON)


def _decided(night: Night, what: str, which: pc.Expression) -> pa.StringArray:
    rows = night.arrow("ladder").filter((pc.field("what") == what) & which)
    return people_of(rows.select(["id"]).rename_columns(["person_id"]))


def _ids(rows: pa.Table) -> pa.StringArray:
    return people_of(rows.group_by("person_id").aggregate([]))


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
    before = _states(night, begun)
    rows = []
    for started, ended in hours(begun, read, night.as_of):
        inside = pc.and_(
            pc.greater_equal(time, pa.scalar(started, tables.TIME)),
            pc.less(time, pa.scalar(ended, tables.TIME)),
        )
        found = pc.sum(pc.and_(inside, new)).as_py() or 0
        newly = READ if ended <= read or ended == night.as_of else HEALED
        until, known = before.get(started, (ended, newly))
        rows.append({
            "started": started, "ended": ended,
            "state": known if ended <= max(read, until) else newly,
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


def _states(night: Night, begun: datetime) -> dict[datetime, tuple[datetime, str]]:
    """By the beginning of earlier hours their end and how the base says that they were read; behind
    a night the newest refresh that was released of the hours since it ``begun``, since people saw
    lists that knew of what it had read."""
    assert night.refresh is not None
    found = night.previous("changes") if night.refresh.base != night.refresh.night else None
    if found is None:
        since = [
            io.label(one.as_of)
            for one in releases.readable(night.lake)
            if one.manifest["kind"] == "hourly" and begun < one.as_of < night.as_of
        ]
        there = [label for label in sorted(since) if night.lake.at("changes", label)]
        if not there:
            return {}
        found = night.earlier("changes", there[-1])
    rows = io.read_arrow(found.table("intervals"), ["started", "ended", "state"]).to_pylist()
    return {row["started"]: (row["ended"], row["state"]) for row in rows if row["started"] >= begun}


# --- people ----------------------------------------------------------------------------------
def touched_people(night: Night, stitched: Published, identities: Published) -> pa.Table:
    """The table ``touched_people``; who ``went`` is a person no more, by a merge or a split.

    ``stitched`` and ``identities``: those of the base.
    """
    now, then = night.arrow("persons"), io.read_arrow(identities.table("persons"))
    now, then = (_with_mates(persons).select(FACTS_OF) for persons in (now, then))
    gone, came = onward.differing(then, now, "person_id")
    before, there = (rows["person_id"].combine_chunks() for rows in (then, now))
    facts = pa.table({
        "person_id": pa.chunked_array(
            [*came["person_id"].chunks, *gone["person_id"].chunks], pa.string()
        ),
        "reason": pa.chunked_array([
            *_reasons(came["person_id"], before, CAME), *_reasons(gone["person_id"], there, WENT),
        ]),
    }).group_by(["person_id", "reason"]).aggregate([])  # fmt: skip
    acted = _acted(night, stitched)
    acted = acted.filter(pc.is_in(acted, value_set=there))
    schema = tables.TABLES["touched_people"].schema
    reasons = pa.table({"person_id": acted, "reason": pa.repeat(EVENTS, len(acted))})
    found = pa.concat_tables([facts.select(schema.names).cast(schema), reasons.cast(schema)])
    return found.sort_by([("person_id", "ascending"), ("reason", "ascending")])


def _acted(night: Night, then: Published) -> pa.Array:
    """The people whose events are others than ``then``, by all that is known of each of them."""
    now = night.published("sessions")
    again = now.table(sessions.AGAIN)
    if not again.is_file():
        acts = _differing(
            _acts(night.frame("history")), _acts(io.frame(night.spark, then.table("history")))
        )
        return acts.select("person_id").toArrow()["person_id"].combine_chunks()
    # Everybody else's rows were taken over as they stood.
    people = pq.read_table(again)["person_id"].combine_chunks()
    schema = tables.TABLES["history"].schema
    found: list[pa.ChunkedArray] = []
    for first in range(0, len(people), PEOPLE):
        some = people.slice(first, PEOPLE)
        stood, stands = (
            io.read_rows(one.table("history"), some, schema.names).cast(schema)
            for one in (then, now)
        )
        found += [one["person_id"] for one in onward.differing(stood, stands, "event_id")]
    return onward.both(*found)


def _reasons(ids: pa.ChunkedArray, others: pa.Array, alone: str) -> list[pa.Array]:
    """Why each of these persons differs: ``alone`` where it is not among the others."""
    known = pc.is_in(ids, value_set=others)
    return [pa.array([], pa.string()), *pc.if_else(known, FACTS, alone).chunks]


def _with_mates(persons: pa.Table) -> pa.Table:
    """The persons with the sorted ids of who lives there and consents; null for nobody."""
    rows = persons.filter(persons["personalised"]).select(["household_id", "person_id"])
    rows = rows.sort_by([("household_id", "ascending"), ("person_id", "ascending")])
    starts = groups.runs(rows, ["household_id"])
    offsets = pa.array(np.append(starts, rows.num_rows), pa.int32())
    mates = pa.ListArray.from_arrays(offsets, rows["person_id"].combine_chunks())
    homes = rows["household_id"].take(pa.array(starts)).combine_chunks()
    return persons.append_column(
        "mates", mates.take(pc.index_in(persons["household_id"], value_set=homes))
    )


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


# --- the ladder ------------------------------------------------------------------------------
def decided_people(
    night: Night, params: Params, touched: pa.ChunkedArray, altered: pa.ChunkedArray,
    configured: bool,
) -> pa.Table:  # fmt: skip
    """The rows of ``ladder`` of persons; ``touched``: ids, ``altered``: of those whose lists are
    all made anew by that."""
    rows = night.arrow("persons", ["person_id"]).join(_newest(night, "person_id"), "person_id")
    known = rows.select(["person_id", "active"]).rename_columns(["id", "active"]).sort_by("id")
    return _laddered(night, params, "person", known, touched, altered, configured)


def decided_items(
    night: Night, params: Params, touched: pa.ChunkedArray, configured: bool
) -> pa.Table:
    """The rows of ``ladder`` of items; an item is as active as who looked at it, and came."""
    rows = night.arrow("items", ["item_id", "first_seen", "created_time"])
    rows = rows.join(_newest(night, "item_id"), "item_id")
    named = ("active", "first_seen", "created_time")
    times = (rows[name].cast(tables.TIME).cast(pa.int64()) for name in named)  # Arrow compares none
    active = pc.max_element_wise(*times).cast(tables.TIME)
    known = pa.table({"id": rows["item_id"], "active": active})
    return _laddered(night, params, "item", known.sort_by("id"), touched, touched, configured)


def _newest(night: Night, column: str) -> pa.Table:
    """``column``, active: when each of its values was last in the history."""
    folder = night.folder("history")
    newest = [
        rows.group_by(column).aggregate([("event_time", "max")])
        for rows in io.read_chunks(folder, [column, "event_time"], CHUNK_ROWS)
    ]
    whole = pa.concat_tables(newest).rename_columns([column, "active"])
    found = whole.group_by(column).aggregate([("active", "max")])
    return found.rename_columns([column, "active"])


def _laddered(
    night: Night, params: Params, what: str, known: pa.Table, touched: pa.ChunkedArray,
    altered: pa.ChunkedArray, configured: bool,
) -> pa.Table:  # fmt: skip
    """``known``: id and active of each, sorted by id."""
    ids = pa.concat_arrays(known["id"].cast(pa.string()).chunks)
    tier = ladder.tiers(_times(known["active"]), night.as_of, params)
    made = _made(night, what, ids)
    acted, known_otherwise = (
        pc.is_in(ids, value_set=which).to_numpy(zero_copy_only=False)
        for which in (touched, altered)
    )
    decision = ladder.decide(
        tier, made, acted, configured, night.as_of, params, pooled=what == "person"
    )
    made = ladder.made(decision, made, known_otherwise, configured, night.as_of)
    return pa.table({
        "what": pa.repeat(what, len(ids)), "id": ids,
        "tier": pa.array(ladder.TIERS).take(pa.array(tier)),
        "decision": pa.array(ladder.DECISIONS).take(pa.array(decision)),
        "made": pa.array(made).cast(tables.TIME),
    })  # fmt: skip


def _made(night: Night, what: str, ids: pa.StringArray) -> np.ndarray:
    """(n,) datetime64[us] of when the oldest list in the base was made; NaT for who was not there,
    whom a comparison of content finds."""
    assert night.refresh is not None
    if night.refresh.base == night.refresh.night:
        begun = io.parse_as_of(night.refresh.night).replace(tzinfo=None)
        return np.full(len(ids), np.datetime64(begun, "us"))
    rows = io.read_arrow(night.base("changes").table("ladder"), ["id", "made"],
                         ds.field("what") == what)  # fmt: skip
    place = matrix.positions(ids, rows["id"].combine_chunks())
    found = np.full(len(ids), np.datetime64("NaT"), "datetime64[us]")
    found[place >= 0] = _times(rows["made"])[place[place >= 0]]
    return found


def _times(column: pa.ChunkedArray) -> np.ndarray:
    """(n,) datetime64[us] of UTC instants."""
    return column.cast(pa.timestamp("us")).to_numpy().astype("datetime64[us]")


def surface_digests(night: Night) -> pa.Table:
    """The table ``surface_digests``."""
    steps = {step for several in LISTS.values() for step in several} | {"recommendations"}
    now = _digests(
        {step: dataclasses.asdict(night.params_of(step)) for step in steps},
        night.arrow("rules_in_force"),
    )
    then = _digests(
        {step: night.base(step).manifest["params"] for step in steps},
        io.read_arrow(night.base("catalogue").table("rules_in_force")),
    )
    return compared(now, then)


def compared(now: Digests, then: Digests) -> pa.Table:
    """The table ``surface_digests`` of these surfaces and the base's."""
    # A surface that is no more, or is for others, leaves lists behind, which only making all of
    # that grain anew takes away.
    gone = {
        grain for name, (grain, _, _) in then.items()
        if name not in now or now[name][0] != grain
    }  # fmt: skip
    return pa.Table.from_pylist([
        {"surface": name, "grain": grain, "cadence": cadence, "digest": digest,
         "changed": grain in gone or then.get(name) != (grain, cadence, digest)}
        for name, (grain, cadence, digest) in now.items()
    ], tables.TABLES["surface_digests"].schema)  # fmt: skip


def _digests(params: Mapping[str, dict[str, Any]], in_force: pa.Table) -> Digests:
    """Grain, cadence and digest of every surface, from parameters by step and the table
    ``rules_in_force``."""
    found = {}
    for name, surface in params["recommendations"]["surfaces"].items():
        grain = surface["grain"]
        own = [surface, *(params[step] for step in LISTS[grain])]
        if grain != ITEM:
            own += [params["recommendations"]["pool_depth"], ordering_rules(in_force, name)]
        found[name] = (grain, surface["cadence"], ladder.digest(own))
    return found


def ordering_rules(in_force: pa.Table, surface: str) -> list[dict[str, Any]]:
    """The rows of ``rules_in_force`` that boost, pin or cap on a surface, in the order of their
    ids. A ban or margin floor takes out places alone, which needs nobody's whole list."""
    held = pc.equal(in_force["outcome"], rules.IN_FORCE)
    here = pc.or_(
        pc.is_null(in_force["surface"]), pc.fill_null(pc.equal(in_force["surface"], surface), False)
    )
    ordering = pc.is_in(in_force["kind"], value_set=ORDERING)
    rows = in_force.filter(pc.and_(pc.and_(held, here), ordering))
    return rows.drop_columns(["items", "unjudged"]).sort_by("rule_id").to_pylist()


def _changed(digests: pa.Table, grain: str) -> bool:
    rows = digests.filter(pc.field("grain") == grain)
    return bool(pc.any(rows["changed"], min_count=0).as_py())


# --- items -----------------------------------------------------------------------------------
def touched_items(night: Night, catalogue: Published) -> pa.Table:
    """The table ``touched_items``. Items never go: one that left the catalogue is unavailable."""
    now, then = night.arrow("items"), io.read_arrow(catalogue.table("items"))
    place = pc.index_in(now["item_id"], value_set=then["item_id"].combine_chunks())
    came, was = pc.is_null(place).to_numpy(zero_copy_only=False), then.take(place)
    reasons = {
        CAME: came,
        DESCRIBED: ~came & ~onward.same(now, was, DESCRIPTION[1:]),
        SHOWN: ~came & ~onward.same(now, was, SHOWING[1:]),
    }
    found = [
        pa.table({"item_id": ids, "reason": pa.repeat(reason, len(ids))})
        for reason, holds in reasons.items()
        for ids in [now["item_id"].filter(pa.array(holds))]
    ]
    return pa.concat_tables(found).sort_by([("item_id", "ascending"), ("reason", "ascending")])
