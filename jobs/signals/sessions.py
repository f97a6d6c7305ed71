"""Whose event it was, and in which session of that person.

Reads ``events``, ``identities``, ``persons`` and the contract table ``identity_links`` (its
observed logins). Writes ``history`` (a row per event of a person who consents to personalisation)
and ``sessions`` (a row per session of such a person). People without that consent are in neither:
their events train nothing.

An event belongs to its key's person. An anonymous event, one under a key whose person holds no
account, belongs to the account that logged in within the same session, where exactly one did. That
moves single events: it never merges persons and never reaches into another session. Where two
accounts claim an event it stays with its key, since a wrong merge is worse than a missed one.

A refresh makes the rows of those persons again whose events, keys or claims changed, in memory, by
the same rules in ``stitching``.

A session ends when its person (for a login: its key) does nothing for a while. That is the whole
definition: the client's own ``session_id`` neither ends a session nor holds one together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, Window, WindowSpec
from pyspark.sql import functions as F

from jobs import io
from jobs.night import Night
from jobs.params import check
from jobs.refresh import onward
from jobs.signals import identities, stitched, stitching
from jobs.signals.stitching import Known

KEY = ["key_type", "key"]
# The note that says when the first event happened that an account claims, null where none does.
FIRST_CLAIMED = "first_claimed"
NOTE = "stitched"
AGAIN = "again.parquet"  # beside the tables of a refresh that went on: whose rows it made anew
# Raise this with every change to what becomes of an event: a refresh then goes on from none before.
RULES = 2


@dataclass(frozen=True)
class Params:
    """What ends a session; whose keys are accounts is said by the policy of ``identities``."""

    # A longer pause ends a session, one of exactly this length does not. Half an hour is what web
    # analytics has agreed on; it also keeps a walk through a store in one piece.
    inactivity_minutes: int = 30
    # Whether a session also ends at midnight UTC, so that none is in two days' numbers.
    at_midnight: bool = False
    # Whether a session also ends where its campaign changes to another one.
    at_campaign: bool = False

    def __post_init__(self) -> None:
        check(
            1 <= self.inactivity_minutes <= 24 * 60,
            "inactivity_minutes must be 1 to 1440, which is a day",
        )


@dataclass(frozen=True)
class Seen:
    """``history`` as of a cut, and the keys and persons it rests on.

    ``as_published``: its rows are those of the published table that had been received by the cut.
    """

    history: DataFrame
    known: identities.Known
    as_published: bool


def run(night: Night, params: Params) -> None:
    """Stage ``history`` and ``sessions``."""
    events, keyed, persons = (night.frame(name) for name in ("events", "identities", "persons"))
    logins = identities.at(night, night.as_of).logins
    accounts = night.params_of("identities").account_types
    night.notes[NOTE] = {"rules": RULES}
    claims = claimed(events, keyed, persons, logins, accounts, params)
    if claims is None:
        resolved = resolve(events, keyed, persons, None, accounts)
        night.write("history", by_person(stitch(resolved, params)))
    else:
        # Saves a second run of the login stage; once it is counted, Spark also knows how few
        # claims there are, and does not shuffle the anonymous events for them.
        claims = claims.persist(StorageLevel.MEMORY_AND_DISK)
        try:
            disputed = claims.where(F.col("person_id").isNull()).count()
            night.notes["events_claimed_once"] = claims.count() - disputed
            night.notes["events_claimed_twice"] = disputed
            night.notes[FIRST_CLAIMED] = _first(claims)
            resolved = resolve(events, keyed, persons, claims, accounts)
            night.write("history", by_person(stitch(resolved, params)))
        finally:
            claims.unpersist()
    written = io.frame(night.spark, night.staged / "history")
    night.write("sessions", sessions(written))


def refresh(night: Night, params: Params) -> None:
    """Stage the tables, going on from the base where its events, links and rules allow it."""
    base = night.base("sessions")
    notes = base.manifest["notes"]
    by_our_rules = notes.get(NOTE, {}).get("rules") == RULES
    part = stitched.since(night, base) if by_our_rules else None
    if part is None:
        run(night, params)
        return
    known = Known(part.identities, part.persons, night.params_of("identities").account_types)
    claims = stitching.claimed(part.events, known, part.logins, params)
    firsts = [notes.get(FIRST_CLAIMED)]
    if claims is not None:
        first = pc.min(claims["event_time"]).as_py()
        firsts.append(first.isoformat() if first else None)
    if any(firsts):
        night.notes[FIRST_CLAIMED] = min(filter(None, firsts))
    # The others bear witness to who was in a client session, and are nobody's here.
    mine = part.events.filter(onward.among(part.events, part.keys, KEY))
    found = stitching.history(mine, known, claims, params)
    found = found.filter(pc.is_in(found["person_id"], value_set=part.people))
    behind = {  # the parts that are there already
        name: onward.without(base.table(name), night.staged / name, part.people)
        for name in ("history", "sessions")
    }
    # A table has a file, if none of its rows is left.
    if found.num_rows or not io.parquet_files(night.staged / "history"):
        night.add("history", behind["history"], found)
        night.add("sessions", behind["sessions"], stitching.sessions(found))
    pq.write_table(pa.table({"person_id": part.people}), night.staged / AGAIN)
    night.notes[NOTE] = {
        "rules": RULES, "people": len(part.people), "keys": part.keys.num_rows,
        "events": part.events.num_rows,
    }  # fmt: skip


def _first(claims: DataFrame) -> str | None:
    """When the first of the claimed events happened."""
    first = claims.agg(F.min("event_time").alias("first")).toArrow()["first"][0].as_py()
    return first.isoformat() if first else None


def at(night: Night, cut: datetime) -> Seen:
    """What had happened and been received before an earlier cut, under the persons known then.

    For any step that follows: what becomes known of a key later says nothing about it here.
    """
    known = identities.at(night, cut)
    now = F.lit(cut)
    before = (F.col("received_time") < now) & (F.col("event_time") < now)
    if known.same_as_night and not claimed_before(night, cut):
        return Seen(night.frame("history").where(before), known, as_published=True)
    events = night.frame("events").where(before)
    accounts = night.params_of("identities").account_types
    rows = history(
        events, known.identities, known.persons, known.logins, accounts, night.params_of("sessions")
    )
    return Seen(rows, known, as_published=False)


def claimed_before(night: Night, cut: datetime) -> bool:
    """Whether an account claims an event from before the cut in the published history.

    What claims it may lie after the cut: a login, an account's event in the same client session, or
    a late one that closes a pause. Who claimed it twice, or without consent, left no trace there.
    """
    notes = night.published("sessions").manifest.get("notes", {})
    if FIRST_CLAIMED not in notes:
        return False
    first = notes[FIRST_CLAIMED]
    return first is None or io.parse_as_of(first) < cut


def by_person(history: DataFrame) -> DataFrame:
    """Rows of ``history`` so that files hold ranges of people and a person's rows stand together:
    a block of people is then read without the rest."""
    return history.repartitionByRange("person_id").sortWithinPartitions(
        "person_id", "event_time", "event_id"
    )


def history(
    events: DataFrame,
    identities: DataFrame,
    persons: DataFrame,
    logins: DataFrame,
    accounts: Sequence[str],
    params: Params,
) -> DataFrame:
    """The table ``history`` from events, keys, persons and logins as known at any one instant.

    ``logins``: key_type_a, key_a, key_type_b, key_b, observed_time and claims (and more), in either
    order of the two keys. ``accounts``: the types of key that are used by whoever has logged in,
    and by nobody else.
    """
    claims = claimed(events, identities, persons, logins, accounts, params)
    return stitch(resolve(events, identities, persons, claims, accounts), params)


# --- whose it was ----------------------------------------------------------------------------
def holders(identities: DataFrame, accounts: Sequence[str]) -> DataFrame:
    """``person_id`` of the persons with an account, a row per account."""
    return identities.where(F.col("key_type").isin(*accounts)).select("person_id")


def claimed(
    events: DataFrame,
    identities: DataFrame,
    persons: DataFrame,
    logins: DataFrame,
    accounts: Sequence[str],
    params: Params,
) -> DataFrame | None:
    """The anonymous events that an account claims: event_id, event_time, person_id, personalised.

    ``person_id`` is null where two accounts claim the event, or one that nobody knows. None
    without any claim: no anonymous key, or neither a login on one nor a client session with both
    an anonymous event and one of an account.
    """
    with_account = holders(identities, accounts)
    anonymous = identities.join(with_account, on="person_id", how="anti").select(*KEY)
    if anonymous.isEmpty():
        return None
    known = identities.join(with_account, on="person_id", how="semi").select(*KEY, "person_id")
    claims = []
    on_keys = logins_of_accounts(logins, anonymous, known, accounts)
    if not on_keys.isEmpty():
        claims.append(claimed_by_login(events, on_keys, params))
    shared = shared_client_sessions(events, anonymous, accounts)
    if not shared.isEmpty():
        claims.append(claimed_by_client_session(events, known, shared, accounts, params))
    if not claims:
        return None
    agreed = F.when(F.min("claimant") == F.max("claimant"), F.min("claimant"))
    return (
        reduce(DataFrame.unionByName, claims)
        .groupBy("event_id", "event_time")
        .agg(agreed.alias("person_id"))
        .join(persons.select("person_id", "personalised"), on="person_id", how="left")
        .select(
            "event_id",
            "event_time",
            F.when(F.col("personalised").isNotNull(), F.col("person_id")).alias("person_id"),
            "personalised",
        )
    )


def logins_of_accounts(
    logins: DataFrame, anonymous: DataFrame, known: DataFrame, accounts: Sequence[str]
) -> DataFrame:
    """Logins on anonymous keys: key_type, key, event_time, and the ``login``, a structure whose
    ``claimant`` is the account's person, or null where two logged in at the same instant and where
    the login may claim nothing."""
    sides = [
        logins.select(
            F.col(f"key_type_{key}").alias("key_type"), F.col(f"key_{key}").alias("key"),
            F.col(f"key_type_{account}").alias("account_type"),
            F.col(f"key_{account}").alias("account"),
            F.col("observed_time").alias("event_time"), "claims",
        )
        for key, account in (("a", "b"), ("b", "a"))
    ]  # fmt: skip
    persons = known.select(
        F.col("key_type").alias("account_type"), F.col("key").alias("account"), "person_id"
    )
    # The login of an account that nobody knows gives nothing away, but ends the claim of another,
    # and so does one that is only guessed at or was taken back.
    who = F.coalesce("person_id", F.concat_ws(":", "account_type", "account"))
    alone = (F.min(who) == F.max(who)) & F.max("claims")
    return (
        sides[0]
        .unionByName(sides[1])
        .where(F.col("account_type").isin(*accounts) & F.col("event_time").isNotNull())
        .join(anonymous, on=KEY, how="semi")
        .join(persons, on=["account_type", "account"], how="left")
        .groupBy(*KEY, "event_time")
        .agg(F.when(alone, F.min(who)).alias("claimant"))
        .select(*KEY, "event_time", F.struct("claimant").alias("login"))
    )


def claimed_by_login(events: DataFrame, on_keys: DataFrame, params: Params) -> DataFrame:
    """Events of keys that an account logged in on: event_id, event_time, claimant.

    The last login in the key's session up to the event claims it, else the first one after it. A
    login is activity of its key, as an event is.
    """
    points = (
        events.join(on_keys.select(*KEY).distinct(), on=KEY, how="semi")
        .select(*KEY, "event_time", "event_id")
        .unionByName(on_keys, allowMissingColumns=True)
    )
    order = ("event_time", F.col("event_id").asc_nulls_first())  # a login before its instant
    numbered = number_sessions(points, Window.partitionBy(*KEY).orderBy(*order), params)
    session = Window.partitionBy(*KEY, "number").orderBy(*order)
    whole = session.rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing)
    login = F.coalesce(
        _latest(F.col("login"), session), F.first("login", ignorenulls=True).over(whole)
    )
    return (
        numbered.withColumn("login", login)
        .where(F.col("event_id").isNotNull() & F.col("login").isNotNull())
        .select("event_id", "event_time", "login.claimant")
    )


def shared_client_sessions(
    events: DataFrame, anonymous: DataFrame, accounts: Sequence[str]
) -> DataFrame:
    """``session_id`` of client sessions with an anonymous event and one of an account's key."""
    with_id = events.where(F.col("session_id").isNotNull())
    strangers = with_id.join(anonymous, on=KEY, how="semi").select("session_id")
    return (
        with_id.where(F.col("key_type").isin(*accounts))
        .select("session_id")
        .join(strangers, on="session_id", how="semi")
        .distinct()
    )


def claimed_by_client_session(
    events: DataFrame,
    known: DataFrame,
    shared: DataFrame,
    accounts: Sequence[str],
    params: Params,
) -> DataFrame:
    """Anonymous events beside an account's in one client session: event_id, event_time, claimant.

    A client session is cut at pauses as every other one, since some clients keep an id for years.
    The claimant is null where the account is not alone: the events of another person who holds an
    account, whatever the key, stand against it; and where the id is no single client's, since two
    keys of one type, accounts aside, are in sessions of that name.
    """
    of_account = F.col("key_type").isin(*accounts)
    mine = events.join(shared, on="session_id", how="semi")
    many = (
        mine.where(~of_account)
        .groupBy("session_id", "key_type")
        .agg((F.min("key") != F.max("key")).alias("many"))
        .where("many")
        .select("session_id", "many")
        .distinct()
    )
    points = (
        mine.join(known, on=KEY, how="left")
        .join(many, on="session_id", how="left")
        .select(
            "event_id", "session_id", "event_time", "person_id", "many",
            of_account.alias("account"),
        )
    )  # fmt: skip
    order = Window.partitionBy("session_id").orderBy("event_time", "event_id")
    whole = Window.partitionBy("session_id", "number")
    least, most = F.min("person_id").over(whole), F.max("person_id").over(whole)
    return (
        number_sessions(points, order, params)
        .withColumns(
            {
                "claimant": F.when((least == most) & F.col("many").isNull(), least),
                "logged_in": F.max("account").over(whole),
            }
        )
        .where(F.col("person_id").isNull() & F.col("logged_in"))
        .select("event_id", "event_time", "claimant")
    )


def resolve(
    events: DataFrame,
    identities: DataFrame,
    persons: DataFrame,
    claims: DataFrame | None,
    accounts: Sequence[str],
) -> DataFrame:
    """Events with ``person_id`` and ``resolved_by`` (key or login), of people who consent.

    An event that a login gives to a person needs the consent of both that person and its key's.
    """
    # Semi joins: Spark takes them for as small as the keys are, which it then broadcasts, where
    # it would shuffle the events for an inner join.
    consenting = identities.select(*KEY, "person_id").join(
        persons.where("personalised"), on="person_id", how="semi"
    )
    if claims is None:
        return events.join(consenting, on=KEY, how="inner").withColumn("resolved_by", F.lit("key"))
    # Apart, so that the events of persons with an account need not be joined by their ids.
    with_account = holders(identities, accounts)
    left_alone = consenting.join(with_account, on="person_id", how="semi")
    known = events.join(left_alone, on=KEY, how="inner").withColumn("resolved_by", F.lit("key"))
    given = claims.select(
        "event_id", F.col("person_id").alias("given_to"), F.col("personalised").alias("agrees")
    )
    moved = F.col("given_to").isNotNull()
    anonymous = (
        events.join(consenting.join(with_account, on="person_id", how="anti"), on=KEY, how="inner")
        .join(given, on="event_id", how="left")
        .where(~moved | F.col("agrees"))
        .withColumns(
            {
                "person_id": F.coalesce("given_to", "person_id"),
                "resolved_by": F.when(moved, "login").otherwise("key"),
            }
        )
        .select(*known.columns)
    )
    return known.unionByName(anonymous)


# --- in which session ------------------------------------------------------------------------
def stitch(resolved: DataFrame, params: Params) -> DataFrame:
    """The table ``history``: resolved events, each with its person's session across all keys.

    A session's id is its person and its first instant, which later events do not change.
    """
    # By time alone: rows of one instant are in one session, so their order changes nothing, and
    # the sort is a fifth shorter without their ids.
    in_time = Window.partitionBy("person_id").orderBy("event_time")
    begins = paused(in_time, params)
    if params.at_midnight:
        begins = begins | (F.col("event_date") != F.lag("event_date").over(in_time))
    started = _latest(F.when(begins, F.col("event_time")), in_time)
    rows = resolved.withColumn("started", started)
    if params.at_campaign:
        within = Window.partitionBy("person_id", "started").orderBy("event_time", "event_id")
        before = within.rowsBetween(Window.unboundedPreceding, -1)
        changes = F.col("campaign") != F.last("campaign", ignorenulls=True).over(before)
        rows = rows.withColumn("turned", F.when(changes, F.col("event_time")))
        rows = rows.withColumn("started", F.coalesce(_latest(F.col("turned"), within), "started"))
    own_day = F.concat_ws("|", "person_id", F.col("event_date").cast("string"))
    iso = F.concat(F.translate(F.col("started").cast("string"), " ", "T"), F.lit("Z"))
    return rows.select(
        "event_id", "person_id", "item_id", "event_type", "event_time", "received_time",
        F.concat_ws("|", "person_id", iso).alias("session"),
        F.coalesce("session_id", own_day).alias("basket"), "quantity", "value", "region",
        "channel", "event_date", "resolved_by", *KEY,
    )  # fmt: skip


def sessions(history: DataFrame) -> DataFrame:
    """The table ``sessions`` from the table ``history``."""
    bought = F.col("event_type") == "purchase"
    return history.groupBy("session").agg(
        F.min("person_id").alias("person_id"),
        F.min("event_time").alias("started"),
        F.max("event_time").alias("ended"),
        F.count(F.lit(1)).alias("events"),
        F.size(F.collect_set("item_id")).cast("long").alias("items"),
        F.size(F.collect_set(F.struct(*KEY))).cast("long").alias("keys"),
        F.array_sort(F.collect_set("channel")).alias("channels"),
        F.count_if(bought).alias("purchases"),
        # Spark adds in any order; rounding makes a rerun equal to the last bit.
        F.round(F.coalesce(F.sum(F.when(bought, F.col("value"))), F.lit(0.0)), 9).alias("value"),
        F.count_if(F.col("resolved_by") == "login").alias("by_login"),
    )


def paused(in_time: WindowSpec, params: Params) -> Column:
    """True for the first row of each partition and after a pause that ends a session."""
    pause = F.col("event_time") - F.lag("event_time").over(in_time)
    longest = F.expr(f"INTERVAL {params.inactivity_minutes} MINUTES")
    return F.coalesce(pause > longest, F.lit(True))


def number_sessions(points: DataFrame, in_time: WindowSpec, params: Params) -> DataFrame:
    """The points with the ``number`` of their session within their partition, from 1."""
    so_far = in_time.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    begun = points.withColumn("begins", paused(in_time, params).cast("int"))
    return begun.withColumn("number", F.sum("begins").over(so_far)).drop("begins")


def _latest(values: Column, in_time: WindowSpec) -> Column:
    """The last value that is not null, up to and with each row."""
    so_far = in_time.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    return F.last(values, ignorenulls=True).over(so_far)
