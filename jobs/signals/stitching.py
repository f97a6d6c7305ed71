"""Whose events they were, and in which sessions, in memory: of tables what
:mod:`jobs.signals.sessions` says of frames.

A refresh stitches the few histories that something may have changed for, which an engine would have
to be started for; tests hold both to the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs import tables
from jobs.refresh import onward
from jobs.release import groups
from jobs.signals import codes
from jobs.signals.links import KEY

if TYPE_CHECKING:
    from jobs.signals.sessions import Params

MINUTE = 60_000_000  # microseconds
CLAIMS = pa.schema(
    [("event_id", pa.string()), ("event_time", tables.TIME), ("claimant", pa.string())]
)


@dataclass(frozen=True)
class Known:
    """Keys and persons: ``identities`` (key_type, key, person_id), ``persons`` (person_id,
    personalised), and the types of key that only who has logged in uses."""

    identities: pa.Table
    persons: pa.Table
    accounts: Sequence[str]

    def of_account(self, rows: pa.Table) -> pa.ChunkedArray:
        """(n_rows,) booleans: which keys are an account's."""
        return pc.is_in(rows["key_type"], value_set=pa.array(self.accounts, pa.string()))

    def with_account(self, person_ids: pa.ChunkedArray) -> pa.ChunkedArray:
        """(n_ids,) booleans: which persons hold an account."""
        holders = self.identities["person_id"].filter(self.of_account(self.identities))
        return pc.is_in(person_ids, value_set=holders.combine_chunks())

    def person_of(self, rows: pa.Table) -> pa.ChunkedArray:
        """(n_rows,) texts: whose each key is, null of a key that is nobody's."""
        ours, theirs = codes.of_rows(KEY, rows, self.identities)
        return self.identities["person_id"].take(codes.places(ours, theirs))


def history(events: pa.Table, known: Known, claims: pa.Table | None, params: Params) -> pa.Table:
    """The table ``history``; see :func:`jobs.signals.sessions.history`. ``claims``: of
    :func:`claimed`."""
    return stitch(resolve(events, known, claims), params)


# --- whose it was ----------------------------------------------------------------------------
def claimed(events: pa.Table, known: Known, logins: pa.Table, params: Params) -> pa.Table | None:
    """The anonymous events that an account claims; see :func:`jobs.signals.sessions.claimed`."""
    held = known.with_account(known.identities["person_id"])
    anonymous = known.identities.filter(pc.invert(held)).select(KEY)
    if anonymous.num_rows == 0:
        return None
    of_accounts = Known(known.identities.filter(held), known.persons, known.accounts)
    claims = []
    on_keys = logins_of_accounts(logins, anonymous, of_accounts)
    if on_keys.num_rows:
        claims.append(claimed_by_login(events, on_keys, params))
    shared = shared_client_sessions(events, anonymous, known)
    if len(shared):
        claims.append(claimed_by_client_session(events, of_accounts, shared, params))
    if not claims:
        return None
    rows = pa.concat_tables(part.cast(CLAIMS) for part in claims).group_by(CLAIMS.names[:2])
    rows = rows.aggregate([("claimant", "min"), ("claimant", "max")])
    agreed = _agreed(rows["claimant_min"], rows["claimant_max"])
    place = pc.index_in(agreed, value_set=known.persons["person_id"].combine_chunks())
    personalised = known.persons["personalised"].take(place)
    return pa.table({
        "event_id": rows["event_id"], "event_time": rows["event_time"],
        "person_id": pc.if_else(pc.is_valid(place), agreed, None), "personalised": personalised,
    })  # fmt: skip


def _agreed(least: pa.ChunkedArray, most: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.fill_null(pc.equal(least, most), False), least, None)


def logins_of_accounts(logins: pa.Table, anonymous: pa.Table, known: Known) -> pa.Table:
    """Logins on anonymous keys: key_type, key, event_time and ``claimant``, null where two logged
    in at the same instant and where the login may claim nothing."""
    sides = []
    for key, account in (("a", "b"), ("b", "a")):
        rows = logins.select(
            [f"key_type_{key}", f"key_{key}", f"key_type_{account}", f"key_{account}",
             "observed_time", "claims"]
        )  # fmt: skip
        sides.append(rows.rename_columns([*KEY, "type", "account", "event_time", "claims"]))
    rows = pa.concat_tables(sides)
    accounts = pa.array(known.accounts, pa.string())
    named = pc.and_(pc.is_in(rows["type"], value_set=accounts), pc.is_valid(rows["event_time"]))
    rows = rows.filter(named)
    rows = rows.filter(onward.among(rows, anonymous, KEY))
    person = known.person_of(rows.select(["type", "account"]).rename_columns(KEY))
    who = pc.coalesce(person, pc.binary_join_element_wise(rows["type"], rows["account"], ":"))
    found = rows.append_column("who", who).group_by([*KEY, "event_time"])
    found = found.aggregate([("who", "min"), ("who", "max"), ("claims", "any")])
    agreed = _agreed(found["who_min"], found["who_max"])
    claimant = pc.if_else(found["claims_any"], agreed, None)
    return found.select([*KEY, "event_time"]).append_column("claimant", claimant)


def claimed_by_login(events: pa.Table, on_keys: pa.Table, params: Params) -> pa.Table:
    """Events of keys that an account logged in on, as ``CLAIMS``; see
    :func:`jobs.signals.sessions.claimed_by_login`."""
    mine = events.filter(onward.among(events, on_keys, KEY)).select(
        [*KEY, "event_time", "event_id"]
    )
    points = pa.concat_tables(
        [
            mine.append_column("is_login", pa.repeat(False, mine.num_rows)),
            on_keys.append_column("is_login", pa.repeat(True, on_keys.num_rows)),
        ],
        promote_options="permissive",
    )
    points, starts = _in_sessions(points, codes.of_rows(KEY, points)[0], params)
    size, login = points.num_rows, points["is_login"].to_numpy()
    place = np.arange(size)
    last = np.maximum.accumulate(np.where(login, place, -1))
    begun = np.repeat(starts, np.diff(np.append(starts, size)))
    next_ = np.minimum.accumulate(np.where(login, place, size)[::-1])[::-1]
    ends = np.repeat(np.append(starts, size)[1:], np.diff(np.append(starts, size)))
    of_login = np.where(last >= begun, last, np.where(next_ < ends, next_, -1))
    chosen = ~login & (of_login >= 0)
    claimant = points["claimant"].take(pa.array(of_login[chosen]))
    rows = points.filter(pa.array(chosen)).select(CLAIMS.names[:2])
    return rows.append_column("claimant", claimant)


def shared_client_sessions(events: pa.Table, anonymous: pa.Table, known: Known) -> pa.Array:
    """The ids of client sessions with an anonymous event and one of an account's key."""
    with_id = events.filter(pc.is_valid(events["session_id"]))
    strangers = with_id["session_id"].filter(onward.among(with_id, anonymous, KEY))
    of_account = with_id["session_id"].filter(known.of_account(with_id))
    shared = pc.is_in(of_account, value_set=strangers.combine_chunks())
    return groups.one(pc.unique(of_account.filter(shared)))


def claimed_by_client_session(
    events: pa.Table, known: Known, shared: pa.Array, params: Params
) -> pa.Table:
    """Anonymous events beside an account's in one client session, as ``CLAIMS``; see
    :func:`jobs.signals.sessions.claimed_by_client_session`. ``known``: keys of who has an account.
    """
    mine = events.filter(pc.is_in(events["session_id"], value_set=shared))
    of_account = known.of_account(mine)
    kinds = mine.filter(pc.invert(of_account)).group_by(["session_id", "key_type"])
    kinds = kinds.aggregate([("key", "min"), ("key", "max")])
    several = kinds["session_id"].filter(pc.not_equal(kinds["key_min"], kinds["key_max"]))
    many = pc.is_in(mine["session_id"], value_set=several.combine_chunks())
    person = known.person_of(mine)
    points = pa.table({
        "event_id": mine["event_id"], "event_time": mine["event_time"], "person_id": person,
        "many": many, "account": of_account,
    })  # fmt: skip
    points, starts = _in_sessions(points, codes.of_rows(["session_id"], mine)[0], params)
    number = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, points.num_rows)))
    whole = points.append_column("number", pa.array(number)).group_by("number")
    whole = whole.aggregate(
        [("person_id", "min"), ("person_id", "max"), ("account", "any"), ("many", "any")]
    ).sort_by("number")
    alone = _agreed(whole["person_id_min"], whole["person_id_max"])
    claimant = pc.if_else(whole["many_any"], None, alone)
    logged_in = whole["account_any"].take(pa.array(number))
    chosen = pc.and_(pc.is_null(points["person_id"]), logged_in)
    rows = points.select(["event_id", "event_time"])
    return rows.append_column("claimant", claimant.take(pa.array(number))).filter(chosen)


def _in_sessions(points: pa.Table, group: pa.Array, params: Params) -> tuple[pa.Table, np.ndarray]:
    """The points group by group in their order, and where each session begins among them: with its
    group, and after a pause; a point without ``event_id`` is before its instant."""
    keyed = pa.table(
        {"group": group, **{name: points[name] for name in ("event_time", "event_id")}}
    )
    order = pc.sort_indices(keyed, sort_keys=[
        ("group", "ascending"), ("event_time", "ascending"), ("event_id", "ascending", "at_start"),
    ])  # fmt: skip
    points, group = points.take(order), group.take(order)
    return points, np.flatnonzero(_begins(group.to_numpy(), points["event_time"], params))


def _begins(group: np.ndarray, times: pa.ChunkedArray, params: Params) -> np.ndarray:
    """(n,) bool: which rows, in order, are the first of their group or after a pause that ends a
    session."""
    begins = np.ones(len(group), bool)
    pause = np.diff(times.cast(pa.int64()).to_numpy()) > params.inactivity_minutes * MINUTE
    begins[1:] = (np.diff(group) != 0) | pause
    return begins


def resolve(events: pa.Table, known: Known, claims: pa.Table | None) -> pa.Table:
    """Events with ``person_id`` and ``resolved_by``; see :func:`jobs.signals.sessions.resolve`."""
    own = known.person_of(events)
    willing = known.persons["person_id"].filter(known.persons["personalised"])
    keep = pc.is_in(own, value_set=willing.combine_chunks())
    if claims is None:
        by = pa.repeat("key", events.num_rows)
        found = events.append_column("person_id", own).append_column("resolved_by", by)
        return found.filter(keep)
    place = pc.index_in(events["event_id"], value_set=claims["event_id"].combine_chunks())
    given, agrees = (claims[name].take(place) for name in ("person_id", "personalised"))
    moved = pc.and_(pc.is_valid(given), pc.invert(known.with_account(own)))
    keep = pc.and_(keep, pc.or_(pc.invert(moved), pc.fill_null(agrees, False)))
    found = events.append_column("person_id", pc.if_else(moved, given, own))
    return found.append_column("resolved_by", pc.if_else(moved, "login", "key")).filter(keep)


# --- in which session ------------------------------------------------------------------------
def stitch(resolved: pa.Table, params: Params) -> pa.Table:
    """The table ``history``; see :func:`jobs.signals.sessions.stitch`."""
    by = [(name, "ascending") for name in ("person_id", "event_time", "event_id")]
    rows = resolved.take(pc.sort_indices(resolved, sort_keys=by))
    person = codes.of_rows(["person_id"], rows)[0].to_numpy()
    begins = _begins(person, rows["event_time"], params)
    if params.at_midnight:
        begins[1:] |= np.diff(rows["event_date"].cast(pa.int32()).to_numpy()) != 0
    if params.at_campaign:
        begins = _with_turns(begins, rows)
    place = np.maximum.accumulate(np.where(begins, np.arange(rows.num_rows), 0))
    started = rows["event_time"].take(pa.array(place))
    session = pc.binary_join_element_wise(rows["person_id"], _iso(started), "|")
    day = rows["event_date"].cast(pa.string())
    basket = pc.binary_join_element_wise(rows["person_id"], day, "|")
    rows = rows.append_column("session", session).append_column(
        "basket", pc.coalesce(rows["session_id"], basket)
    )
    schema = tables.TABLES["history"].schema
    return rows.select(schema.names).cast(schema)


def _with_turns(begins: np.ndarray, rows: pa.Table) -> np.ndarray:
    """(n,) bool: where sessions begin, also with another campaign than the last one in them."""
    texts = groups.one(rows["campaign"])
    campaign = pc.fill_null(texts.dictionary_encode().indices, -1).to_numpy()
    place = np.arange(len(campaign))
    last = np.maximum.accumulate(np.where(campaign >= 0, place, -1))
    before = np.concatenate([[-1], last[:-1]]) if len(last) else last
    begun = np.maximum.accumulate(np.where(begins, place, 0))
    turned = (campaign >= 0) & (before >= begun) & (campaign != campaign[before])
    return begins | turned


def _iso(times: pa.ChunkedArray) -> pa.ChunkedArray:
    """Times as ``2017-11-20T22:00:00Z``, with as many decimals as they need."""
    texts = pc.strftime(times, "%Y-%m-%dT%H:%M:%S")  # with six decimals
    texts = pc.utf8_rtrim(pc.utf8_rtrim(texts, characters="0"), characters=".")
    return pc.binary_join_element_wise(texts, "Z", "")


def sessions(history: pa.Table) -> pa.Table:
    """The table ``sessions`` from the table ``history``."""
    bought = pc.equal(history["event_type"], "purchase")
    paid = pc.if_else(bought, history["value"], None)
    asked = pa.table({
        **{name: history[name] for name in ("session", "person_id", "event_time", "item_id")},
        "key": onward.joined(history, KEY), "bought": bought.cast(pa.int64()), "paid": paid,
        "login": pc.equal(history["resolved_by"], "login").cast(pa.int64()),
    })  # fmt: skip
    found = asked.group_by("session").aggregate([
        ("person_id", "min"), ("event_time", "min"), ("event_time", "max"), ([], "count_all"),
        ("item_id", "count_distinct"), ("key", "count_distinct"), ("bought", "sum"),
        ("paid", "sum"), ("login", "sum"),
    ]).sort_by("session")  # fmt: skip
    schema = tables.TABLES["sessions"].schema
    return pa.table({
        "session": found["session"], "person_id": found["person_id_min"],
        "started": found["event_time_min"], "ended": found["event_time_max"],
        "events": found["count_all"], "items": found["item_id_count_distinct"],
        "keys": found["key_count_distinct"], "channels": _channels(history, found["session"]),
        "purchases": found["bought_sum"], "value": _rounded(found["paid_sum"]),
        "by_login": found["login_sum"],
    }).cast(schema)  # fmt: skip


def _channels(history: pa.Table, names: pa.ChunkedArray) -> pa.Array:
    """The sorted channels of each of these sessions, once each."""
    rows = history.select(["session", "channel"]).drop_null()
    rows = rows.group_by(["session", "channel"]).aggregate([])
    rows = rows.sort_by([("session", "ascending"), ("channel", "ascending")])
    place = pc.index_in(rows["session"], value_set=names.combine_chunks()).to_numpy()
    offsets = np.searchsorted(place, np.arange(len(names) + 1))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), groups.one(rows["channel"]))


def _rounded(sums: pa.ChunkedArray) -> pa.Array:
    """Sums to nine decimals, half away from zero, by their shortest decimal text; 0 for none."""
    nano = Decimal("1e-9")
    return pa.array([
        0.0 if one is None else float(Decimal(repr(one)).quantize(nano, ROUND_HALF_UP))
        for one in sums.to_pylist()
    ], pa.float64())  # fmt: skip
