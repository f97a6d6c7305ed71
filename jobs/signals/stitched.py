"""Whose events a refresh gives to persons and sessions again; all other persons' rows stand.

Reads ``events``, ``identities`` and ``persons`` of now and of the base, the logins, and the base's
``history``; writes nothing.

An event belongs to the person of its key, or to the account that claims it: by a login on its key,
or beside it in a client session. So its owner can change only with

- the events of its key, or of another key in one of that key's client sessions;
- the person of its key or of an account that claims it, or whether that person consents;
- a login on its key.

The keys of which one of these changed are the touched ones; whoever owned one of their events in
the base, or may own one now, is made again, from all of its keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from jobs import io, tables
from jobs.io import Published
from jobs.night import Night
from jobs.refresh import onward
from jobs.signals import continuing, events, identities
from jobs.signals.linking import LOGINS, ends
from jobs.signals.links import KEY

ROWS = 1_000_000  # events that are looked through together


@dataclass(frozen=True)
class Again:
    """Who is made again, and from what.

    ``people``: sorted ids, of now or of the base. ``keys``: key_type, key; of the others no event
    is a person's of these. ``events``, ``identities``, ``persons`` and ``logins`` (as of
    ``links.logins``): the rows that decide what becomes of the events of those keys.
    """

    people: pa.StringArray
    keys: pa.Table
    events: pa.Table
    identities: pa.Table
    persons: pa.Table
    logins: pa.Table


def since(night: Night, base: Published) -> Again | None:
    """Who is made again; ``None`` where a refresh cannot go on from ``base``, its base's step
    ``sessions``, or where that would be no less work."""
    if "again" not in night.published("events").manifest["notes"][events.NOTE]:
        return None
    if night.published("identities").manifest["notes"][continuing.NOTE]["differs"]:
        return None
    accounts = night.params_of("identities").account_types
    now, then = (Keys.of(folder, accounts) for folder in (
        night.published("identities").folder, night.base("identities").folder
    ))  # fmt: skip
    moved = pa.concat_tables([
        rows.select(KEY) for rows in onward.differing(then.states, now.states, "name")
    ])  # fmt: skip
    folder = night.published("events").table("events")
    gone, came = onward.moved(night.base("events").table("events"), folder, "event_id")
    touched = [moved, gone.select(KEY), came.select(KEY)]
    # Where every key is an account's, and was, nobody claims anything.
    alone = not (now.anonymous or then.anonymous)
    logins = LOGINS.empty_table() if alone else identities.logins(night)
    if not alone:
        touched += ends(logins.filter(_stirred(io.parse_as_of(base.manifest["as_of"]))))
        touched += ends(_with_end(logins, moved))
        keys = _distinct(touched)
        beside = onward.both(gone["session_id"], _of_keys(folder, keys, "session_id")).drop_null()
        touched.append(io.read_arrow(folder, KEY, pc.field("session_id").isin(beside)))
    keys = _distinct(touched)
    owned = [] if alone else [_of_keys(base.table("history"), keys, "person_id")]
    mine = keys if alone else _distinct([keys, *ends(_with_end(logins, keys))])
    people = onward.both(now.persons_of(mine), then.persons_of(keys), *owned)
    if len(people) > onward.MOST * now.persons.num_rows:
        return None
    whole = [keys, now.keys_of(people)]
    if not alone:
        whole.append(io.read_rows(base.table("history"), people, KEY))
    keys = _distinct(whole)
    return _with_rows(people, keys, now, logins, folder)


def _with_rows(
    people: pa.StringArray, keys: pa.Table, now: Keys, logins: pa.Table, folder: Path
) -> Again | None:
    """What decides of the events of these keys: they, whatever else is in their client sessions,
    and every key of the persons of all these."""
    columns = tables.TABLES["events"].schema.names
    sessions = _of_keys(folder, keys, "session_id") if now.anonymous else pa.array([], pa.string())
    rows = _chosen(folder, columns, keys, sessions)
    if rows is None:
        return None
    logins = _with_end(logins, keys)
    named = _distinct([rows.select(KEY), keys, *ends(logins)])
    holders = now.persons_of(named)
    persons = now.persons
    return Again(
        people,
        keys,
        rows,
        now.identities.filter(pc.is_in(now.identities["person_id"], value_set=holders)),
        persons.filter(pc.is_in(persons["person_id"], value_set=holders)),
        logins,
    )


@dataclass(frozen=True)
class Keys:
    """``identities`` and ``persons`` as the tables; ``states``: a row per key, its ``name``, whose
    it is, and whether that person consents and holds an account."""

    identities: pa.Table
    persons: pa.Table
    states: pa.Table

    @staticmethod
    def of(folder: Path, accounts: Sequence[str]) -> Keys:
        """Those of a published step ``identities``."""
        keys, persons = (io.read_arrow(folder / name) for name in ("identities", "persons"))
        of_account = pc.is_in(keys["key_type"], value_set=pa.array(accounts, pa.string()))
        holders = pc.unique(keys["person_id"].filter(of_account))
        place = pc.index_in(keys["person_id"], value_set=persons["person_id"].combine_chunks())
        states = pa.table({
            "name": onward.joined(keys, KEY), "key_type": keys["key_type"], "key": keys["key"],
            "person_id": keys["person_id"], "personalised": persons["personalised"].take(place),
            "account": pc.is_in(keys["person_id"], value_set=holders),
        })  # fmt: skip
        return Keys(keys, persons, states)

    @property
    def anonymous(self) -> bool:
        """Whether some key is of a person without an account."""
        return not pc.all(self.states["account"], min_count=0).as_py()

    def persons_of(self, keys: pa.Table) -> pa.ChunkedArray:
        """The ids of those who hold one of these keys."""
        return self.identities["person_id"].filter(onward.among(self.identities, keys, KEY))

    def keys_of(self, people: pa.StringArray) -> pa.Table:
        """key_type, key of these persons."""
        held = pc.is_in(self.identities["person_id"], value_set=people)
        return self.identities.filter(held).select(KEY)


def _stirred(since: datetime) -> pc.Expression:
    """Logins that the base did not see: known only now, or by its clock still to come."""
    moment = pa.scalar(since, tables.TIME)
    return (pc.field("known_time") >= moment) | (pc.field("observed_time") >= moment)


def _with_end(logins: pa.Table, keys: pa.Table) -> pa.Table:
    """Those of which a side is one of these keys."""
    of_a, of_b = (onward.among(side, keys, KEY) for side in ends(logins))
    return logins.filter(pc.or_(of_a, of_b))


def _distinct(some: Sequence[pa.Table]) -> pa.Table:
    rows = pa.concat_tables([one.select(KEY).cast(KEYS) for one in some])
    return rows.group_by(KEY).aggregate([])


KEYS = pa.schema([(name, pa.string()) for name in KEY])


def _of_keys(events: Path, keys: pa.Table, name: str) -> pa.StringArray:
    """What stands in a column of texts of ``events`` or ``history`` where the key is one of these,
    sorted and once each."""
    found = [
        part[name].filter(onward.among(part, keys, KEY))
        for part in io.read_chunks(events, [*KEY, name], ROWS)
    ]
    return onward.both(*found).drop_null()


def _chosen(
    events: Path, columns: list[str], keys: pa.Table, sessions: pa.StringArray
) -> pa.Table | None:
    """The events of these keys, and those in these client sessions; None where they are too many,
    as of a client that calls all its sessions the same."""
    most, found, rows = onward.MOST * io.count_rows(events), [], 0
    for part in io.read_chunks(events, columns, ROWS):
        beside = pc.is_in(part["session_id"], value_set=sessions)
        mine = part.filter(pc.or_(onward.among(part, keys, KEY), beside.combine_chunks()))
        found.append(mine)
        rows += mine.num_rows
        if rows > most:
            return None
    return pa.concat_tables(found)
