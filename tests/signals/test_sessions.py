"""Whose an event was, and which events were one session."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F

from jobs import io
from jobs.night import Night
from jobs.signals import sessions, stitching
from jobs.sources import contract, simulated
from jobs.tables import TABLES
from tests.conftest import AS_OF

EVENING = datetime(2017, 11, 20, 22, tzinfo=UTC)
LOGINS = pa.schema(
    [(name, pa.string()) for name in ("key_type_a", "key_a", "key_type_b", "key_b")]
    + [(name, pa.timestamp("us", tz="UTC")) for name in ("observed_time", "known_time")]
    + [("claims", pa.bool_())]
)
NO_LOGINS = (
    "key_type_a string, key_a string, key_type_b string, key_b string, observed_time timestamp, "
    "known_time timestamp, claims boolean"
)
Rows = list[dict[str, Any]]


def event(event_id: str, key: str, minute: float, **changes: Any) -> dict[str, Any]:
    """An event so many minutes after the evening's begin (22:00)."""
    at = EVENING + timedelta(minutes=minute)
    kind, _, name = key.partition(":")
    return {
        "event_id": event_id, "revision": 0, "event_time": at, "received_time": at,
        "first_received": at,
        "key_type": kind, "key": name, "event_type": "view", "item_id": "i", "quantity": 1.0,
        "event_date": at.date(),
    } | changes  # fmt: skip


def login(key: str, account: str, minute: float, claims: bool = True) -> dict[str, Any]:
    """An observed login of an account on another key, so many minutes after 22:00."""
    at = EVENING + timedelta(minutes=minute)
    sides = {
        f"{column}_{side}": part
        for side, name in (("a", key), ("b", account))
        for column, part in zip(("key_type", "key"), name.split(":"), strict=True)
    }
    return {**sides, "observed_time": at, "known_time": at, "claims": claims}


@dataclass(eq=False)
class Case:
    """A small shop: ``merged`` names the person of a key that is not its own person, ``refused``
    the persons without consent, ``known`` the keys without an event."""

    events: Rows
    logins: Rows
    merged: dict[str, str]
    refused: tuple[str, ...]
    known: tuple[str, ...]
    params: sessions.Params

    @property
    def person_of(self) -> dict[str, str]:
        keys = {f"{row['key_type']}:{row['key']}" for row in self.events} | set(self.known)
        return {key: self.merged.get(key, key) for key in sorted(keys)}


CASES: list[Case] = []


def case(
    *events: dict[str, Any],
    logins: Iterable[dict[str, Any]] = (),
    merged: dict[str, str] | None = None,
    refused: Iterable[str] = (),
    known: Iterable[str] = (),
    **params: Any,
) -> Case:
    """A shop whose outcome a test asks for; all of them are computed together."""
    made = Case(
        list(events), list(logins), merged or {}, tuple(refused), tuple(known),
        sessions.Params(**params),
    )  # fmt: skip
    CASES.append(made)
    return made


def in_memory(
    events: pa.Table, identities: pa.Table, persons: pa.Table, logins: pa.Table,
    params: sessions.Params,
) -> tuple[pa.Table, pa.Table]:  # fmt: skip
    """The tables ``history`` and ``sessions`` as a refresh makes them."""
    known = stitching.Known(identities, persons, ("account",))
    history = stitching.history(
        events, known, stitching.claimed(events, known, logins, params), params
    )
    return history, stitching.sessions(history)


def outcomes(session: Any, cases: list[Case], params: sessions.Params) -> list[tuple[Rows, Rows]]:
    """Per case the rows of ``history`` and ``sessions``; each case has names of its own."""
    events, logins, identities, people = [], [], [], []
    for number, one in enumerate(cases):
        mark = f"@{number}"
        for row in one.events:
            own = {name: row[name] + mark for name in ("event_id", "key")}
            if row.get("session_id"):
                own["session_id"] = row["session_id"] + mark
            events.append(row | own)
        logins += [
            row | {name: row[name] + mark for name in ("key_a", "key_b")} for row in one.logins
        ]
        for key, person in one.person_of.items():
            kind, _, name = key.partition(":")
            identities.append((kind, name + mark, person + mark))
        people += [
            (person + mark, person not in one.refused) for person in set(one.person_of.values())
        ]
    tables = [
        pa.Table.from_pylist(events, TABLES["events"].schema), pa.table(
            dict(zip(("key_type", "key", "person_id"), zip(*identities, strict=True), strict=True))
        ),
        pa.table(dict(zip(("person_id", "personalised"), zip(*people, strict=True), strict=True))),
        pa.Table.from_pylist(logins, LOGINS),
    ]  # fmt: skip
    frames = [
        session.createDataFrame(one) if one.num_rows else session.createDataFrame([], NO_LOGINS)
        for one in tables
    ]
    history = sessions.history(*frames, ("account",), params).toArrow()
    stitched = sessions.sessions(session.createDataFrame(history)).toArrow()
    for ours, theirs in zip(in_memory(*tables, params), (history, stitched), strict=True):
        by = ours.schema.names[0]
        assert ours.sort_by(by).to_pylist() == theirs.cast(ours.schema).sort_by(by).to_pylist()
    found: list[tuple[Rows, Rows]] = [([], []) for _ in cases]
    for place, name, rows in ((0, "event_id", history), (1, "session", stitched)):
        for row in rows.to_pylist():
            number = int(re.search(r"@(\d+)", row["person_id"])[1])
            found[number][place].append({
                column: re.sub(r"@\d+", "", value) if isinstance(value, str) else value
                for column, value in row.items()
            })  # fmt: skip
        for of_case in found:
            of_case[place].sort(key=lambda row: row[name])
    return found


@pytest.fixture(scope="session")
def outcome(session) -> Callable[[Case], tuple[Rows, Rows]]:
    """The rows of ``history`` and of ``sessions`` of a case, in the order of their ids."""
    found: dict[Case, tuple[Rows, Rows]] = {}
    for params in dict.fromkeys(one.params for one in CASES):
        alike = [one for one in CASES if one.params == params]
        found.update(zip(alike, outcomes(session, alike, params), strict=True))
    return found.__getitem__


def persons(history: Rows) -> dict[str, str]:
    return {row["event_id"]: row["person_id"] for row in history}


def together(history: Rows) -> list[str]:
    """The ids of each session's events, joined; sessions in the order of their ids."""
    found: dict[str, str] = defaultdict(str)
    for row in history:
        found[row["session"]] += row["event_id"]
    return [found[name] for name in sorted(found)]


# --- what ends a session ---------------------------------------------------------------------
PAUSES = case(
    event("a", "account:1", 0), event("b", "account:1", 30), event("c", "account:1", 60.001)
)
SHORT_PAUSE = case(
    event("a", "account:1", 0), event("b", "account:1", 20), inactivity_minutes=10
)  # fmt: skip


def test_a_pause_of_exactly_30_minutes_ends_no_session_and_a_longer_one_does(outcome):
    history, found = outcome(PAUSES)
    assert together(history) == ["ab", "c"]
    assert [row["session"] for row in found] == [
        "account:1|2017-11-20T22:00:00Z", "account:1|2017-11-20T23:00:00.06Z",
    ]  # fmt: skip


def test_the_pause_is_a_parameter(outcome):
    assert together(outcome(SHORT_PAUSE)[0]) == ["a", "b"]


ACROSS = case(
    event("a", "account:1", 0, channel="web", item_id="x"),
    event("b", "device:d", 10, channel="app", item_id="y"),
    event("c", "account:1", 20, channel="store", event_type="purchase", value=2.5),
    event("d", "account:1", 25, event_type="purchase", value=None),
    event("e", "account:1", 25, event_type="return", value=1.0, item_id="y"),
    event("f", "account:2", 5),
    merged={"device:d": "account:1"},
)


def test_a_session_goes_on_across_channels_and_keys_and_counts_them(outcome):
    history, found = outcome(ACROSS)
    assert together(history) == ["abcde", "f"]
    assert found[0] == {
        "session": "account:1|2017-11-20T22:00:00Z", "person_id": "account:1",
        "started": EVENING, "ended": EVENING + timedelta(minutes=25), "events": 5, "items": 3,
        "keys": 2, "channels": ["app", "store", "web"], "purchases": 2, "value": 2.5,
        "by_login": 0,
    }  # fmt: skip
    assert (found[1]["channels"], found[1]["value"]) == ([], 0.0)


CLIENT = case(
    event("a", "account:1", 0, session_id="s"),
    event("b", "account:1", 10, session_id="t"),
    event("c", "account:1", 50, session_id="t"),
    event("d", "account:1", 51),
)


def test_the_clients_own_session_neither_ends_a_session_nor_holds_one_together(outcome):
    history, _ = outcome(CLIENT)
    assert together(history) == ["ab", "cd"]
    assert [row["basket"] for row in history] == ["s", "t", "t", "account:1|2017-11-20"]


LATE_VISIT = [
    event(name, "account:1", minute) for name, minute in (("a", 110), ("b", 119), ("c", 120))
]
PAST_MIDNIGHT, CUT_AT_MIDNIGHT = case(*LATE_VISIT), case(*LATE_VISIT, at_midnight=True)


def test_midnight_ends_a_session_where_the_option_says_so(outcome):
    assert together(outcome(PAST_MIDNIGHT)[0]) == ["abc"]
    assert together(outcome(CUT_AT_MIDNIGHT)[0]) == ["ab", "c"]


CLICKS = [
    event(name, "account:1", 5 * place, campaign=campaign)
    for place, (name, campaign) in enumerate(
        {"a": None, "b": "x", "c": None, "d": "x", "e": "y", "f": None, "g": "x"}.items()
    )
]
# A day later the campaign of the last visit is over: y ends nothing here.
CLICKS += [event("h", "account:1", 1440), event("i", "account:1", 1445, campaign="y")]
CAMPAIGNS, CUT_AT_CAMPAIGN = case(*CLICKS), case(*CLICKS, at_campaign=True)


def test_another_campaign_ends_a_session_where_the_option_says_so(outcome):
    assert together(outcome(CAMPAIGNS)[0]) == ["abcdefg", "hi"]
    assert together(outcome(CUT_AT_CAMPAIGN)[0]) == ["abcd", "ef", "g", "hi"]


def test_a_simulated_visit_is_cut_where_it_comes_to_another_campaign_and_nowhere_else(
    session, tmp_path
):
    """Of people known for certain; visits that no other visit of the person runs into."""
    simulated.convert(
        "events=8000,people=300,items=80,days=30,duplicates=0,corrections=0,returns=0,"
        "campaigns=0.5,campaign_changes=0.4",
        tmp_path,
    )
    told = pd.read_parquet(tmp_path / "truth" / "sessions").set_index("session_id")
    events = session.read.parquet(str(tmp_path / "events")).withColumns({
        "event_date": F.to_date("event_time"), "resolved_by": F.lit("key"),
    })  # fmt: skip
    whose = session.read.parquet(str(tmp_path / "truth" / "sessions"))
    resolved = events.join(
        whose.select("session_id", F.col("person").cast("string").alias("person_id")),
        on="session_id", how="inner",
    )  # fmt: skip
    found = []
    for params in (sessions.Params(), sessions.Params(at_campaign=True)):
        rows = sessions.stitch(resolved, params).select("event_id", "session", "basket")
        found.append(rows.toArrow().to_pandas().set_index("event_id"))
    plain, cut = found[0], found[1].loc[found[0].index]
    alone = plain.groupby("session")["basket"].transform("nunique") == 1
    alone &= plain.groupby("basket")["session"].transform("nunique") == 1
    parts = cut[alone].groupby("basket")["session"].nunique()
    turned = told.loc[parts.index, ["first_campaign", "later_campaign"]].notna().all(axis=1)
    assert 100 < turned.sum() < 0.5 * len(turned)
    assert parts.to_dict() == turned.map({True: 2, False: 1}).to_dict()
    after = pd.read_parquet(tmp_path / "events").set_index("event_id").loc[cut.index]
    named = after["campaign"].notna() & alone & cut["basket"].isin(turned.index[turned])
    part = after[named].groupby(cut["session"][named])["campaign"].agg(["nunique", "first"])
    assert (part["nunique"] == 1).all()
    assert len(part) == 2 * turned.sum()


VISIT = [event(name, "account:1", 25 * place) for place, name in enumerate("abc")]
YESTERDAY, TODAY = case(*VISIT[:2]), case(*VISIT)


def test_later_events_rename_no_session_that_has_begun(outcome):
    early, late = outcome(YESTERDAY)[1], outcome(TODAY)[1]
    assert [row["session"] for row in early] == [row["session"] for row in late]


# --- what a login moves ----------------------------------------------------------------------
LOGGED_IN = case(
    event("a", "device:d", 0),
    event("b", "device:d", 40),
    event("c", "device:d", 60),
    event("d", "account:1", 61),
    event("e", "device:d", 90),
    event("f", "device:d", 121),
    logins=[login("device:d", "account:1", 60.5)],
)


def test_a_login_moves_the_events_of_its_session_and_of_no_other(outcome):
    history, found = outcome(LOGGED_IN)
    assert persons(history) == {
        "a": "device:d", "b": "account:1", "c": "account:1", "d": "account:1", "e": "account:1",
        "f": "device:d",
    }  # fmt: skip
    by_login = [row["event_id"] for row in history if row["resolved_by"] == "login"]
    assert by_login == ["b", "c", "e"]
    assert [row["by_login"] for row in found] == [3, 0, 0]
    days = {row["event_id"]: row["basket"] for row in history}
    assert (days["a"], days["b"]) == ("device:d|2017-11-20", "account:1|2017-11-20")


APART = [event("a", "device:d", 0), event("b", "device:d", 50), event("c", "account:1", 300)]
BETWEEN = case(*APART, logins=[login("device:d", "account:1", 25)])
TOO_LATE = case(*APART, logins=[login("device:d", "account:1", 81)])


def test_a_login_is_activity_of_its_key(outcome):
    assert set(persons(outcome(BETWEEN)[0]).values()) == {"account:1"}
    assert persons(outcome(TOO_LATE)[0]) == {"a": "device:d", "b": "device:d", "c": "account:1"}


SHARED = case(
    *[event(name, "device:d", 10 * place) for place, name in enumerate("abcde")],
    logins=[
        login("device:d", "account:1", 10),
        login("account:2", "device:d", 25),
        login("device:d", "account:1", 40),
    ],
    known=["account:1", "account:2"],
)


def test_a_second_login_on_a_shared_device_splits_the_session(outcome):
    assert persons(outcome(SHARED)[0]) == {
        "a": "account:1", "b": "account:1", "c": "account:1", "d": "account:2", "e": "account:1",
    }  # fmt: skip


AT_ONCE = case(
    event("a", "device:d", 0),
    logins=[login("device:d", "account:1", 5), login("device:d", "account:2", 5)],
    known=["account:1", "account:2"],
)
GHOST = case(
    event("a", "device:d", 0),
    event("b", "device:d", 20),
    logins=[login("device:d", "account:1", 5), login("device:d", "account:ghost", 10)],
    known=["account:1"],
)


def test_two_logins_at_the_same_instant_move_nothing(outcome):
    assert persons(outcome(AT_ONCE)[0]) == {"a": "device:d"}


def test_the_login_of_an_account_that_nobody_knows_moves_nothing_and_ends_what_was(outcome):
    assert persons(outcome(GHOST)[0]) == {"a": "account:1", "b": "device:d"}


OWNED = case(
    event("a", "device:d", 0),
    event("b", "account:1", 1),
    logins=[login("device:d", "account:2", 5)],
    merged={"device:d": "account:1"},
    known=["account:2"],
)


def test_keys_of_a_person_with_an_account_are_left_alone(outcome):
    history, _ = outcome(OWNED)
    assert persons(history) == {"a": "account:1", "b": "account:1"}
    assert {row["resolved_by"] for row in history} == {"key"}


UNSURE = case(
    event("a", "device:d", 0), event("b", "device:d", 12), event("c", "device:d", 25),
    logins=[
        login("device:d", "account:1", 5),
        login("device:d", "account:2", 20, claims=False),
    ],
    known=["account:1", "account:2"],
)  # fmt: skip


AT_ONCE = case(
    event("a", "device:d", 9),
    logins=[
        login("device:d", "account:1", 5),
        login("device:d", "account:2", 5, claims=False),
    ],
    known=["account:1", "account:2"],
)  # fmt: skip
TOLD_TWICE = case(
    event("a", "device:d", 9),
    logins=[
        login("device:d", "account:1", 5),
        login("device:d", "account:1", 5, claims=False),
    ],
    known=["account:1"],
)  # fmt: skip


def test_a_login_that_claims_nothing_stands_against_another_at_its_instant(outcome):
    assert persons(outcome(AT_ONCE)[0]) == {"a": "device:d"}
    assert persons(outcome(TOLD_TWICE)[0]) == {"a": "account:1"}


def test_a_login_that_claims_nothing_ends_the_claim_of_another(outcome):
    found = persons(outcome(UNSURE)[0])
    assert found == {"a": "account:1", "b": "account:1", "c": "device:d"}


# --- what a client's own session moves -------------------------------------------------------
BESIDE = case(
    event("a", "cookie:c", 0, session_id="s"),
    event("b", "account:1", 20, session_id="s"),
    event("c", "cookie:c", 30, session_id="s"),
    event("d", "cookie:c", 31, session_id="other"),
    event("e", "cookie:c", 32),
    # The client kept its session id overnight.
    event("f", "cookie:c", 600, session_id="s"),
)


def test_anonymous_events_beside_an_account_in_one_client_session_are_its_own(outcome):
    found = persons(outcome(BESIDE)[0])
    assert {name for name, person in found.items() if person == "account:1"} == set("abc")


TWO_BROWSERS = case(
    event("a", "cookie:c", 0, session_id="0"),
    event("b", "account:1", 20, session_id="0"),
    # Weeks later: the id is a placeholder, and no client's own.
    event("c", "cookie:e", 40_000, session_id="0"),
)
APP_AND_BROWSER = case(
    event("a", "cookie:c", 0, session_id="s"),
    event("b", "account:1", 20, session_id="s"),
    event("c", "device:d", 21, session_id="s"),
)


def test_an_id_that_several_clients_use_moves_nothing(outcome):
    assert persons(outcome(TWO_BROWSERS)[0])["a"] == "cookie:c"
    found = persons(outcome(APP_AND_BROWSER)[0])
    assert (found["a"], found["c"]) == ("account:1", "account:1")


STRANGER = event("a", "cookie:c", 0, session_id="s")
FIRST = event("b", "account:1", 5, session_id="s")
DEVICE_OF_2 = event("c", "device:d", 10, session_id="s")
OF_2 = {"merged": {"device:d": "account:2"}, "known": ["account:2"]}
TWO_ACCOUNTS = case(STRANGER, FIRST, event("c", "account:2", 10, session_id="s"))
ACCOUNT_AND_DEVICE = case(STRANGER, FIRST, DEVICE_OF_2, **OF_2)
DEVICE_ALONE = case(STRANGER, DEVICE_OF_2, **OF_2)


def test_two_accounts_in_one_client_session_move_nothing(outcome):
    assert persons(outcome(TWO_ACCOUNTS)[0])["a"] == "cookie:c"
    assert persons(outcome(ACCOUNT_AND_DEVICE)[0])["a"] == "cookie:c"


def test_a_device_beside_it_is_no_login(outcome):
    assert persons(outcome(DEVICE_ALONE)[0])["a"] == "cookie:c"


SAYS_2 = case(STRANGER, FIRST, logins=[login("cookie:c", "account:2", 1)], known=["account:2"])
SAYS_1 = case(STRANGER, FIRST, logins=[login("cookie:c", "account:1", 1)])
KIOSK = case(
    event("a", "device:d", 0, session_id="s"),
    event("b", "account:1", 1, session_id="s"),
    event("c", "device:d", 11, session_id="s"),
    event("d", "account:2", 12, session_id="s"),
    logins=[login("device:d", "account:1", 0.5), login("device:d", "account:2", 10)],
)


def test_a_login_and_a_client_session_that_disagree_move_nothing(outcome):
    assert persons(outcome(SAYS_2)[0])["a"] == "cookie:c"
    assert persons(outcome(SAYS_1)[0])["a"] == "account:1"


def test_logins_decide_where_a_client_session_holds_two_accounts(outcome):
    assert persons(outcome(KIOSK)[0]) == {
        "a": "account:1", "b": "account:1", "c": "account:2", "d": "account:2",
    }  # fmt: skip


# --- consent, order, nothing to do -----------------------------------------------------------
CONSENT = case(
    event("a", "account:yes", 0), event("b", "account:no", 0), event("c", "device:d", 0),
    refused=["account:no"],
)  # fmt: skip
GIVEN = {"logins": [login("device:d", "account:1", 5)], "known": ["account:1"]}
REFUSED_BY_PERSON = case(event("a", "device:d", 0), **GIVEN, refused=["account:1"])
REFUSED_ON_DEVICE = case(event("a", "device:d", 0), **GIVEN, refused=["device:d"])


def test_events_of_people_without_consent_are_in_neither_table(outcome):
    history, found = outcome(CONSENT)
    assert persons(history) == {"a": "account:yes", "c": "device:d"}
    assert [row["person_id"] for row in found] == ["account:yes", "device:d"]


def test_an_event_given_by_a_login_needs_the_consent_of_both(outcome):
    assert outcome(REFUSED_BY_PERSON) == ([], [])
    assert outcome(REFUSED_ON_DEVICE) == ([], [])


def test_without_anonymous_keys_logins_or_shared_client_sessions_nothing_is_claimed(session):
    def claims(*keys: str, clients: tuple[str, ...]) -> Any:
        rows = [event(key, key, 0, session_id=s) for key, s in zip(keys, clients, strict=True)]
        identities = [(*key.split(":"), key) for key in keys]
        return sessions.claimed(
            session.createDataFrame(pa.Table.from_pylist(rows, TABLES["events"].schema)),
            session.createDataFrame(identities, "key_type string, key string, person_id string"),
            session.createDataFrame(
                [(key, True) for key in keys], "person_id string, personalised boolean"
            ),
            session.createDataFrame([], NO_LOGINS),
            ("account",),
            sessions.Params(),
        )

    assert claims("account:1", "account:2", clients=("s", "s")) is None
    assert claims("account:1", "cookie:c", clients=("s", "t")) is None
    assert claims("account:1", "cookie:c", clients=("s", "s")) is not None


@pytest.mark.parametrize("minutes", [0, -1, 1441])
def test_a_pause_of_nothing_or_of_more_than_a_day_is_refused(minutes):
    with pytest.raises(ValueError, match="inactivity_minutes must be 1 to 1440"):
        sessions.Params(inactivity_minutes=minutes)


# --- the night -------------------------------------------------------------------------------
@pytest.fixture
def staged(lake, night, tmp_path) -> Callable[..., Night]:
    """The night after the step, from events and the contract's links (None: no such table)."""

    def run(events: Rows, links: Rows | None, persons_of: dict[str, str], **policy: Any) -> Night:
        source = tmp_path / "source"
        if links is not None:
            rows = pa.Table.from_pylist(links, contract.schema("identity_links"))
            io.write_arrow(source / "identity_links", rows)
        rows = pa.Table.from_pylist(events, TABLES["events"].schema)
        io.write_arrow(lake.staged("events", AS_OF) / "events", rows)
        keys = [
            dict(zip(("key_type", "key"), key.split(":"), strict=True))
            | dict.fromkeys(("person_id", "household_id", "component"), person)
            for key, person in persons_of.items()
        ]
        people = [
            {
                "person_id": person,
                "household_id": person,
                "personalised": True,
                "restrictions": [],
                "keys": 1,
            }
            for person in sorted(set(persons_of.values()))
        ]
        for name, table in (("identities", keys), ("persons", people), ("identity_links", [])):
            rows = pa.Table.from_pylist(table, TABLES[name].schema)
            io.write_arrow(lake.staged("identities", AS_OF) / name, rows)
        io.write_json(lake.staged("source", AS_OF) / "source.json", {"folder": str(source)})
        for step in ("source", "events", "identities"):
            lake.publish(step, AS_OF, "one")
        made = night("sessions", identities=policy)
        sessions.run(made, sessions.Params())
        return made

    return run


def test_a_login_moves_what_it_must_once_it_is_known_and_disputes_are_counted(staged):
    link = {
        "key_type_a": "account", "key_a": "1", "key_type_b": "device", "key_b": "d",
        "source": "login", "confidence": 1.0, "observed_time": EVENING,
    }  # fmt: skip
    unseen = {
        "late": {"received_time": AS_OF}, "tomorrow": {"observed_time": AS_OF},
        "undone": {"action": "unlink"}, "guess": {"source": "probabilistic"},
        "beyond": {"confidence": 1.5},
    }  # fmt: skip
    links = [link, link | {"key_b": "two"}, link | {"key_b": "two", "key_a": "2"}]
    links += [link | {"key_b": key} | change for key, change in unseen.items()]
    devices = [f"device:{key}" for key in ("d", "two", *unseen)]
    made = staged(
        [event(key, key, 1) for key in devices],
        links,
        {key: key for key in (*devices, "account:1", "account:2")},
    )
    history = io.read_arrow(made.staged / "history").to_pylist()
    assert persons(history) == {key: key for key in devices} | {"device:d": "account:1"}
    assert made.notes == {
        "stitched": {"rules": sessions.RULES}, "events_claimed_once": 1, "events_claimed_twice": 1,
        "first_claimed": (EVENING + timedelta(minutes=1)).isoformat(),
    }  # fmt: skip
    found = io.read_arrow(made.staged / "sessions").to_pylist()
    assert {row["person_id"]: row["by_login"] for row in found if row["by_login"]} == {
        "account:1": 1
    }


def test_the_policy_of_identities_says_whose_keys_are_accounts(staged):
    members = {"max_joined": {"member": 1}, "max_of_type": {"member": 1}}
    link = {
        "key_type_a": "member", "key_a": "1", "key_type_b": "device", "key_b": "d",
        "source": "login", "confidence": 1.0, "observed_time": EVENING,
    }  # fmt: skip
    keys = {"device:d": "device:d", "member:1": "member:1"}
    made = staged([event("a", "device:d", 1), event("b", "member:1", 90)], [link], keys, **members)
    history = io.read_arrow(made.staged / "history").to_pylist()
    assert persons(history) == {"a": "member:1", "b": "member:1"}


def test_a_source_without_links_has_sessions_all_the_same(staged):
    made = staged([event("a", "device:d", 0)], None, {"device:d": "device:d"})
    assert persons(io.read_arrow(made.staged / "history").to_pylist()) == {"a": "device:d"}
    assert made.notes == {"stitched": {"rules": sessions.RULES}}


# --- the same in plain Python ----------------------------------------------------------------
KEYS = ("account:a", "account:b", "device:d", "cookie:c", "cookie:e")
OWNERS = list(product(("device:d", "account:a"), ("cookie:c", "account:b")))
VISITS = list(
    product(KEYS, range(0, 240, 10), (None, "s", "t"), (None, "x", "y"), ("view", "purchase"))
)
SIGN_INS = list(product(KEYS[2:], ("account:a", "account:b", "account:z"), range(0, 240, 10)))


def small_shop(
    owners: tuple[str, str], visits: list[int], sign_ins: list[int], refused: str | None
) -> Case:
    """A shop of five keys in one evening, from places in the lists of choices."""
    events = []
    for place, choice in enumerate(visits):
        key, minute, client, campaign, kind = VISITS[choice]
        events.append(event(
            f"e{place:02d}", key, minute, session_id=client, campaign=campaign, event_type=kind,
            item_id=f"i{place % 3}", channel=(None, "web", "app")[place % 3], value=place / 4,
        ))  # fmt: skip
    logins = [
        login(*SIGN_INS[choice][:2][:: 1 if choice % 2 else -1], SIGN_INS[choice][2])
        for choice in sign_ins
    ]
    merged = dict(zip(("device:d", "cookie:c"), owners, strict=True))
    return Case(events, logins, merged, (refused,) if refused else (), KEYS, sessions.Params())


SHOPS = st.builds(
    small_shop,
    st.sampled_from(OWNERS),
    st.lists(st.integers(0, len(VISITS) - 1), min_size=1, max_size=14),
    st.lists(st.integers(0, len(SIGN_INS) - 1), max_size=5),
    st.sampled_from([*[None] * 5, *KEYS]),
)


def split(points: list[Any], minutes: int) -> list[list[Any]]:
    """Points (a time first) in order, cut where the pause is longer."""
    found: list[list[Any]] = []
    for point in sorted(points):
        if not found or point[0] - found[-1][-1][0] > timedelta(minutes=minutes):
            found.append([])
        found[-1].append(point)
    return found


def key_of(row: dict[str, Any]) -> str:
    return f"{row['key_type']}:{row['key']}"


def claims_in_python(shop: Case, minutes: int) -> dict[str, set[str]]:
    """Per anonymous event the accounts that claim it; two where it is disputed."""
    holders = {person for key, person in shop.person_of.items() if key.startswith("account:")}
    anonymous = {key for key, person in shop.person_of.items() if person not in holders}
    claims: dict[str, set[str]] = defaultdict(set)
    logins: dict[str, dict[datetime, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in shop.logins:
        account, key = sorted(f"{row[f'key_type_{side}']}:{row[f'key_{side}']}" for side in "ab")
        logins[key][row["observed_time"]].add(account)
    for key in anonymous & set(logins):
        points: list[Any] = [(at, "", tuple(accounts)) for at, accounts in logins[key].items()]
        points += [(e["event_time"], e["event_id"], ()) for e in shop.events if key_of(e) == key]
        for one in split(points, minutes):
            claimants = next((accounts for _, _, accounts in one if accounts), ())
            for _, event_id, accounts in one:
                claimants = accounts or claimants
                if event_id and len(claimants) == 1:
                    claims[event_id] |= set(claimants)
    for client in {row["session_id"] for row in shop.events} - {None}:
        of_client = [row for row in shop.events if row["session_id"] == client]
        own = {key_of(row) for row in of_client} - {"account:a", "account:b"}
        if len(own) > len({key.partition(":")[0] for key in own}):
            continue  # several browsers: the id is no client's own
        for one in split([(e["event_time"], e["event_id"], key_of(e)) for e in of_client], minutes):
            keys = {key for _, _, key in one}
            accounts = {shop.person_of[key] for key in keys - anonymous}
            if len(accounts) == 1 and any(key.startswith("account:") for key in keys):
                for _, event_id, key in one:
                    if key in anonymous:
                        claims[event_id] |= accounts
    return claims


def history_in_python(shop: Case, params: sessions.Params) -> dict[str, tuple[str, str, str]]:
    """Per event its person, session and what resolved it."""
    claims = claims_in_python(shop, params.inactivity_minutes)
    own: dict[str, list[Any]] = defaultdict(list)
    resolved_by = {}
    for row in shop.events:
        person = owner = shop.person_of[key_of(row)]
        claimants = claims.get(row["event_id"], set())
        if len(claimants) == 1 and claimants <= set(shop.person_of):
            owner = next(iter(claimants))
        resolved_by[row["event_id"]] = "key" if owner == person else "login"
        if not {person, owner} & set(shop.refused):
            own[owner].append((row["event_time"], row["event_id"], row["campaign"]))
    found = {}
    for person, points in own.items():
        for one in split(points, params.inactivity_minutes):
            started = before = one[0][0]
            campaign = None
            for at, event_id, told in one:
                if params.at_midnight and at.date() != before.date():
                    started, campaign = at, None
                if params.at_campaign and told and campaign and told != campaign:
                    started = at
                before, campaign = at, told or campaign
                session = f"{person}|{started:%Y-%m-%dT%H:%M:%S}Z"
                found[event_id] = (person, session, resolved_by[event_id])
    return found


def session_in_python(name: str, rows: Rows, resolved_by: list[str]) -> dict[str, Any]:
    """A row of ``sessions`` from its events."""
    times = [row["event_time"] for row in rows]
    bought = [row["value"] for row in rows if row["event_type"] == "purchase"]
    return {
        "session": name, "person_id": name.partition("|")[0], "started": min(times),
        "ended": max(times), "events": len(rows), "items": len({row["item_id"] for row in rows}),
        "keys": len({key_of(row) for row in rows}),
        "channels": sorted({row["channel"] for row in rows} - {None}),
        "purchases": len(bought), "value": sum(bought), "by_login": resolved_by.count("login"),
    }  # fmt: skip


@settings(max_examples=5, deadline=None)
@given(st.lists(SHOPS, min_size=20, max_size=40), st.booleans(), st.booleans())
def test_many_small_shops_come_out_as_in_plain_python(session, shops, midnight, campaign):
    params = sessions.Params(at_midnight=midnight, at_campaign=campaign)
    for shop, (history, found) in zip(shops, outcomes(session, shops, params), strict=True):
        expected = history_in_python(shop, params)
        columns = ("person_id", "session", "resolved_by")
        assert {row["event_id"]: tuple(row[c] for c in columns) for row in history} == expected
        rows_of, by_of = defaultdict(list), defaultdict(list)
        for row in shop.events:
            if row["event_id"] in expected:
                _, name, by = expected[row["event_id"]]
                rows_of[name].append(row)
                by_of[name].append(by)
        assert found == [
            session_in_python(name, rows_of[name], by_of[name]) for name in sorted(rows_of)
        ]


ANY_ORDER = [
    small_shop(OWNERS[0], list(range(7, len(VISITS), 29)), list(range(3, 200, 17)), None),
    small_shop(OWNERS[1], list(range(1, len(VISITS), 31)), list(range(1, 200, 23)), None),
]


def test_the_order_of_rows_does_not_matter_and_a_rerun_is_equal(session):
    params = sessions.Params(at_campaign=True)
    one = outcomes(session, ANY_ORDER, params)
    assert any(row["resolved_by"] == "login" for row in one[0][0])
    assert one == outcomes(session, ANY_ORDER, params)
    for shop in ANY_ORDER:
        shop.events.reverse()
        shop.logins.reverse()
    assert one == outcomes(session, ANY_ORDER, params)


def test_a_block_of_people_is_read_without_the_rest(session, tmp_path):
    rows = session.range(5 * io.ROWS_PER_GROUP).select(
        F.format_string("p%07d", "id").alias("person_id"),
        F.col("id").alias("event_time"),
        F.col("id").alias("event_id"),
    )
    io.kept(sessions.by_person(rows.coalesce(1)), tmp_path / "history")
    files = [pq.read_metadata(path) for path in io.parquet_files(tmp_path / "history")]
    sizes = [file.row_group(n).num_rows for file in files for n in range(file.num_row_groups)]
    assert sum(sizes) == 5 * io.ROWS_PER_GROUP
    assert max(sizes) <= io.ROWS_PER_GROUP
    few = pa.array([f"p{number:07d}" for number in range(1000, 1010)])
    read = [file.row_group(n).num_rows for file in files for n in io.groups_of(file, few)]
    assert 0 < sum(read) <= 2 * io.ROWS_PER_GROUP
