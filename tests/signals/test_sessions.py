"""Whose an event was, and which events were one session."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.signals import sessions
from jobs.sources import contract
from jobs.tables import TABLES
from tests.conftest import AS_OF

EVENING = datetime(2017, 11, 20, 22, tzinfo=UTC)
ACCOUNT_TYPES = ("account",)
LOGINS = pa.schema(
    [(name, pa.string()) for name in ("key_type_a", "key_a", "key_type_b", "key_b")]
    + [(name, pa.timestamp("us", tz="UTC")) for name in ("observed_time", "known_time")]
)
Rows = list[dict[str, Any]]


def event(event_id: str, key: str, minute: float, **changes: Any) -> dict[str, Any]:
    """An event so many minutes after the evening's begin (22:00)."""
    at = EVENING + timedelta(minutes=minute)
    kind, _, name = key.partition(":")
    return {
        "event_id": event_id, "revision": 0, "event_time": at, "received_time": at,
        "key_type": kind, "key": name, "event_type": "view", "item_id": "i", "quantity": 1.0,
        "event_date": at.date(),
    } | changes  # fmt: skip


def login(key: str, account: str, minute: float) -> dict[str, Any]:
    """An observed login of an account on another key, so many minutes after 22:00."""
    at = EVENING + timedelta(minutes=minute)
    sides = {
        f"{column}_{side}": part
        for side, name in (("a", key), ("b", account))
        for column, part in zip(("key_type", "key"), name.split(":"), strict=True)
    }
    return {**sides, "observed_time": at, "known_time": at}


@pytest.fixture(scope="session")
def resolve(session) -> Callable[..., tuple[Rows, Rows]]:
    """The rows of ``history`` and of ``sessions``.

    ``merged`` names the person of a key where the key is not its own; ``refused`` the persons
    without consent.
    """

    def run(
        events: Rows,
        logins: Rows = (),
        merged: dict[str, str] | None = None,
        refused: Iterable[str] = (),
        known: Iterable[str] = (),
        **params: Any,
    ) -> tuple[Rows, Rows]:
        keys = {f"{row['key_type']}:{row['key']}" for row in events} | set(known)
        person_of = {key: (merged or {}).get(key, key) for key in sorted(keys)}
        identities = [(*key.split(":"), person) for key, person in person_of.items()]
        persons = [(person, person not in refused) for person in sorted(set(person_of.values()))]
        history = sessions.history(
            session.createDataFrame(pa.Table.from_pylist(events, TABLES["events"].schema)),
            session.createDataFrame(identities, "key_type string, key string, person_id string"),
            session.createDataFrame(persons, "person_id string, personalised boolean"),
            session.createDataFrame(pa.Table.from_pylist(list(logins), LOGINS))
            if logins
            else session.createDataFrame([], sessions.LOGINS),
            sessions.Params(**params),
            ACCOUNT_TYPES,
        )
        found = history.toArrow()
        stitched = sessions.sessions(session.createDataFrame(found)) if found.num_rows else None
        return (
            sorted(found.to_pylist(), key=lambda row: row["event_id"]),
            sorted(stitched.toArrow().to_pylist(), key=lambda row: row["session"])
            if stitched
            else [],
        )

    return run


def persons(history: Rows) -> dict[str, str]:
    return {row["event_id"]: row["person_id"] for row in history}


def together(history: Rows) -> list[str]:
    """The ids of each session's events, joined; sessions in the order of their ids."""
    found: dict[str, str] = defaultdict(str)
    for row in history:
        found[row["session"]] += row["event_id"]
    return [found[name] for name in sorted(found)]


# --- what ends a session ---------------------------------------------------------------------
def test_a_pause_of_exactly_30_minutes_ends_no_session_and_a_longer_one_does(resolve):
    history, found = resolve(
        [event("a", "account:1", 0), event("b", "account:1", 30), event("c", "account:1", 60.001)]
    )
    assert together(history) == ["ab", "c"]
    assert [row["session"] for row in found] == [
        "account:1|2017-11-20T22:00:00Z", "account:1|2017-11-20T23:00:00.06Z",
    ]  # fmt: skip


def test_the_pause_is_a_parameter(resolve):
    visits = [event("a", "account:1", 0), event("b", "account:1", 20)]
    assert together(resolve(visits, inactivity_minutes=10)[0]) == ["a", "b"]


def test_a_session_goes_on_across_channels_and_keys_and_counts_them(resolve):
    history, found = resolve(
        [
            event("a", "account:1", 0, channel="web", item_id="x"),
            event("b", "device:d", 10, channel="app", item_id="y"),
            event("c", "account:1", 20, channel="store", event_type="purchase", value=2.5),
            event("d", "account:1", 25, event_type="purchase", value=None),
            event("e", "account:1", 25, event_type="return", value=1.0, item_id="y"),
            event("f", "account:2", 5),
        ],
        merged={"device:d": "account:1"},
    )
    assert together(history) == ["abcde", "f"]
    assert found[0] == {
        "session": "account:1|2017-11-20T22:00:00Z", "person_id": "account:1",
        "started": EVENING, "ended": EVENING + timedelta(minutes=25), "events": 5, "items": 3,
        "keys": 2, "channels": ["app", "store", "web"], "purchases": 2, "value": 2.5,
        "by_login": 0,
    }  # fmt: skip
    assert (found[1]["channels"], found[1]["value"]) == ([], 0.0)


def test_the_clients_own_session_neither_ends_a_session_nor_holds_one_together(resolve):
    history, _ = resolve(
        [
            event("a", "account:1", 0, session_id="s"),
            event("b", "account:1", 10, session_id="t"),
            event("c", "account:1", 50, session_id="t"),
        ]
    )
    assert together(history) == ["ab", "c"]
    assert [row["basket"] for row in history] == ["s", "t", "t"]


def test_midnight_ends_a_session_where_the_option_says_so(resolve):
    visits = [
        event("a", "account:1", 110),
        event("b", "account:1", 119),
        event("c", "account:1", 120),
    ]
    assert together(resolve(visits)[0]) == ["abc"]
    assert together(resolve(visits, at_midnight=True)[0]) == ["ab", "c"]


def test_another_campaign_ends_a_session_where_the_option_says_so(resolve):
    campaigns = {"a": None, "b": "x", "c": None, "d": "x", "e": "y", "f": None, "g": "x"}
    visits = [
        event(name, "account:1", 5 * place, campaign=campaign)
        for place, (name, campaign) in enumerate(campaigns.items())
    ]
    # A day later the campaign of the last visit is over: y ends nothing here.
    visits += [event("h", "account:1", 1440), event("i", "account:1", 1445, campaign="y")]
    assert together(resolve(visits)[0]) == ["abcdefg", "hi"]
    assert together(resolve(visits, at_campaign=True)[0]) == ["abcd", "ef", "g", "hi"]


def test_later_events_change_no_session_that_has_begun(resolve):
    visits = [event(name, "account:1", 25 * place) for place, name in enumerate("abc")]
    early, late = resolve(visits[:2])[1], resolve(visits)[1]
    assert [row["session"] for row in early] == [row["session"] for row in late]


# --- what a login moves ----------------------------------------------------------------------
def test_a_login_moves_the_events_of_its_session_and_of_no_other(resolve):
    history, found = resolve(
        [
            event("a", "device:d", 0),
            event("b", "device:d", 40),
            event("c", "device:d", 60),
            event("d", "account:1", 61),
            event("e", "device:d", 90),
            event("f", "device:d", 121),
        ],
        [login("device:d", "account:1", 60.5)],
    )
    assert persons(history) == {
        "a": "device:d", "b": "account:1", "c": "account:1", "d": "account:1", "e": "account:1",
        "f": "device:d",
    }  # fmt: skip
    assert [row["resolved_by"] for row in history] == [
        "key",
        "login",
        "login",
        "key",
        "login",
        "key",
    ]
    assert [row["by_login"] for row in found if row["person_id"] == "account:1"] == [3]
    assert [row["basket"] for row in history][:2] == ["device:d|2017-11-20", "account:1|2017-11-20"]


def test_a_login_is_activity_of_its_key(resolve):
    visits = [event("a", "device:d", 0), event("b", "device:d", 50), event("c", "account:1", 300)]
    history, _ = resolve(visits, [login("device:d", "account:1", 25)])
    assert persons(history) == {"a": "account:1", "b": "account:1", "c": "account:1"}
    history, _ = resolve(visits, [login("device:d", "account:1", 81)])
    assert persons(history) == {"a": "device:d", "b": "device:d", "c": "account:1"}


def test_a_second_login_on_a_shared_device_splits_the_session(resolve):
    visits = [event(name, "device:d", 10 * place) for place, name in enumerate("abcde")]
    history, _ = resolve(
        visits,
        [
            login("device:d", "account:1", 10),
            login("account:2", "device:d", 25),
            login("device:d", "account:1", 40),
        ],
        known=["account:1", "account:2"],
    )
    assert persons(history) == {
        "a": "account:1", "b": "account:1", "c": "account:1", "d": "account:2", "e": "account:1",
    }  # fmt: skip


def test_two_logins_at_the_same_instant_move_nothing(resolve):
    history, _ = resolve(
        [event("a", "device:d", 0), event("b", "account:3", 200)],
        [login("device:d", "account:1", 5), login("device:d", "account:2", 5)],
        known=["account:1", "account:2"],
    )
    assert persons(history)["a"] == "device:d"


def test_the_login_of_an_account_that_nobody_knows_moves_nothing_and_ends_what_was(resolve):
    history, _ = resolve(
        [event("a", "device:d", 0), event("b", "device:d", 20)],
        [login("device:d", "account:1", 5), login("device:d", "account:ghost", 10)],
        known=["account:1"],
    )
    assert persons(history) == {"a": "account:1", "b": "device:d"}


def test_keys_of_a_person_with_an_account_are_left_alone(resolve):
    history, _ = resolve(
        [event("a", "device:d", 0), event("b", "account:1", 1)],
        [login("device:d", "account:2", 5)],
        merged={"device:d": "account:1"},
        known=["account:2"],
    )
    assert persons(history) == {"a": "account:1", "b": "account:1"}
    assert {row["resolved_by"] for row in history} == {"key"}


def test_a_login_becomes_known_with_its_delivery_and_not_before(session, night, monkeypatch):
    at = EVENING
    link = {
        "key_type_a": "device", "key_a": "d", "key_type_b": "account", "key_b": "1",
        "source": "login", "confidence": 1.0, "observed_time": at,
    }  # fmt: skip
    links = [
        link,
        link | {"key_a": "late", "received_time": AS_OF},
        link | {"key_a": "tomorrow", "observed_time": AS_OF},
        link | {"key_a": "early", "received_time": at - timedelta(hours=1)},
        link | {"key_a": "taken back", "action": "unlink"},
        link | {"key_a": "guess", "source": "probabilistic"},
        link | {"key_a": "beyond", "confidence": 1.5},
    ]
    frame = session.createDataFrame(pa.Table.from_pylist(links, contract.schema("identity_links")))
    monkeypatch.setattr(sessions.contract, "read", lambda *_: frame)
    monkeypatch.setattr(sessions.Night, "source_folder", lambda _: None)
    found = sessions.known_logins(night("sessions"), AS_OF).toArrow().to_pylist()
    assert {row["key_a"] for row in found} == {"d", "early"}
    assert next(row["known_time"] for row in found if row["key_a"] == "d") == at


# --- what a client's own session moves -------------------------------------------------------
def test_anonymous_events_beside_an_account_in_one_client_session_are_its_own(resolve):
    history, _ = resolve(
        [
            event("a", "cookie:c", 0, session_id="s"),
            event("b", "account:1", 20, session_id="s"),
            event("c", "cookie:c", 30, session_id="s"),
            event("d", "cookie:c", 31, session_id="other"),
            event("e", "cookie:c", 32),
            # The client kept its session id overnight.
            event("f", "cookie:c", 600, session_id="s"),
        ]
    )
    assert {name for name, person in persons(history).items() if person == "account:1"} == set(
        "abc"
    )


def test_two_accounts_in_one_client_session_move_nothing(resolve):
    visits = [
        event("a", "cookie:c", 0, session_id="s"),
        event("b", "account:1", 5, session_id="s"),
        event("c", "account:2", 10, session_id="s"),
    ]
    assert persons(resolve(visits)[0])["a"] == "cookie:c"
    # Nor does one account beside another person's device.
    visits[2] = event("c", "device:d", 10, session_id="s")
    history, _ = resolve(visits, merged={"device:d": "account:2"}, known=["account:2"])
    assert persons(history)["a"] == "cookie:c"
    # A device alone has not logged in.
    history, _ = resolve(
        [visits[0], visits[2]], merged={"device:d": "account:2"}, known=["account:2"]
    )
    assert persons(history)["a"] == "cookie:c"


def test_a_login_and_a_client_session_that_disagree_move_nothing(resolve):
    visits = [
        event("a", "cookie:c", 0, session_id="s"),
        event("b", "account:1", 5, session_id="s"),
        event("c", "account:2", 200),
    ]
    assert persons(resolve(visits, [login("cookie:c", "account:2", 1)])[0])["a"] == "cookie:c"
    assert persons(resolve(visits, [login("cookie:c", "account:1", 1)])[0])["a"] == "account:1"


def test_a_login_decides_where_a_client_session_holds_two_accounts(resolve):
    history, _ = resolve(
        [
            event("a", "device:d", 0, session_id="s"),
            event("b", "account:1", 1, session_id="s"),
            event("c", "device:d", 11, session_id="s"),
            event("d", "account:2", 12, session_id="s"),
        ],
        [login("device:d", "account:1", 0.5), login("device:d", "account:2", 10)],
    )
    assert persons(history) == {
        "a": "account:1", "b": "account:1", "c": "account:2", "d": "account:2"
    }  # fmt: skip


# --- consent, order, nothing to do -----------------------------------------------------------
def test_events_of_people_without_consent_are_in_neither_table(resolve):
    visits = [event("a", "account:yes", 0), event("b", "account:no", 0), event("c", "device:d", 0)]
    history, found = resolve(visits, refused=["account:no"])
    assert persons(history) == {"a": "account:yes", "c": "device:d"}
    assert [row["person_id"] for row in found] == ["account:yes", "device:d"]


@pytest.mark.parametrize("refused", ["account:1", "device:d"])
def test_an_event_given_by_a_login_needs_the_consent_of_both(resolve, refused):
    visits = [event("a", "device:d", 0), event("b", "account:2", 0)]
    logins = [login("device:d", "account:1", 5)]
    history, _ = resolve(visits, logins, refused=[refused], known=["account:1"])
    assert persons(history) == {"b": "account:2"}


def test_nobody_with_consent_leaves_an_empty_history(resolve):
    assert resolve([event("a", "account:no", 0)], refused=["account:no"]) == ([], [])


def test_without_anonymous_keys_logins_or_shared_client_sessions_nothing_is_claimed(session):
    def claims(events: Rows, identities: list[tuple[str, ...]]):
        frame = session.createDataFrame(pa.Table.from_pylist(events, TABLES["events"].schema))
        keys = session.createDataFrame(
            [(*row, True) for row in identities],
            "key_type string, key string, person_id string, personalised boolean",
        )
        people = keys.select("person_id", "personalised").distinct()
        keys = sessions.persons_of_keys(keys, people, ACCOUNT_TYPES)
        logins = session.createDataFrame([], sessions.LOGINS)
        return sessions.claimed(frame, keys, logins, sessions.Params(), ACCOUNT_TYPES)

    of_account = event("a", "account:1", 0, session_id="s")
    assert claims([of_account], [("account", "1", "account:1")]) is None
    both = [("account", "1", "account:1"), ("cookie", "c", "cookie:c")]
    assert claims([of_account, event("b", "cookie:c", 1, session_id="t")], both) is None
    assert claims([of_account, event("b", "cookie:c", 1, session_id="s")], both) is not None


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [({"inactivity_minutes": 0}, "1 to 1440"), ({"inactivity_minutes": 9999}, "1 to 1440")],
)
def test_a_pause_that_is_none_is_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        sessions.Params(**wrong)


# --- the same in plain Python ----------------------------------------------------------------
KEYS = ("account:a", "account:b", "device:d", "cookie:c", "cookie:e")
OWNERS = list(product(("device:d", "account:a"), ("cookie:c", "account:b")))
EVENT_CHOICES = list(
    product(KEYS, range(0, 240, 10), (None, "s", "t"), (None, "x", "y"), ("view", "purchase"))
)
LOGIN_CHOICES = list(product(KEYS[2:], ("account:a", "account:b", "account:z"), range(0, 240, 10)))
CASE = st.tuples(
    st.sampled_from(OWNERS),
    st.lists(st.integers(0, len(EVENT_CHOICES) - 1), min_size=1, max_size=14),
    st.lists(st.integers(0, len(LOGIN_CHOICES) - 1), max_size=5),
    st.sampled_from([*[None] * 5, *KEYS]),
)


class World:
    """Many small cases side by side, each under names of its own."""

    def __init__(self, cases: list[Any]):
        self.events: Rows = []
        self.logins: Rows = []
        self.merged: dict[str, str] = {}
        self.known: list[str] = []
        self.refused: list[str] = []
        for number, (owners, events, logins, refused) in enumerate(cases):
            self.known += [f"{key}{number}" for key in KEYS]
            for key, owner in zip(("device:d", "cookie:c"), owners, strict=True):
                self.merged[f"{key}{number}"] = f"{owner}{number}"
            for place, choice in enumerate(events):
                key, minute, client, campaign, kind = EVENT_CHOICES[choice]
                self.events.append(event(
                    f"{number}-{place:02d}", f"{key}{number}", minute, campaign=campaign,
                    session_id=client and f"{client}{number}", event_type=kind,
                    item_id=f"i{place % 3}", channel=(None, "web", "app")[place % 3],
                    value=place / 4,
                ))  # fmt: skip
            for choice in logins:
                key, account, minute = LOGIN_CHOICES[choice]
                ends = [f"{key}{number}", f"{account}{number}"]
                self.logins.append(login(*ends[:: 1 if choice % 2 else -1], minute))
            if refused:
                self.refused.append(f"{refused}{number}")


def split(points: list[Any], minutes: int) -> list[list[Any]]:
    """Points (a time first) in order, cut where the pause is longer."""
    found: list[list[Any]] = []
    for point in sorted(points):
        if not found or point[0] - found[-1][-1][0] > timedelta(minutes=minutes):
            found.append([])
        found[-1].append(point)
    return found


def claims_in_python(world: World, person_of: dict[str, str], minutes: int) -> dict[str, set[str]]:
    """Per anonymous event the accounts that claim it; two where it is disputed."""
    holders = {person for key, person in person_of.items() if key.startswith("account:")}
    anonymous = {key for key, person in person_of.items() if person not in holders}
    claims: dict[str, set[str]] = defaultdict(set)
    logins: dict[str, dict[datetime, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in world.logins:
        ends = (f"{row['key_type_a']}:{row['key_a']}", f"{row['key_type_b']}:{row['key_b']}")
        account, key = sorted(ends)
        if key in anonymous:
            logins[key][row["observed_time"]].add(account)
    for key, of_key in logins.items():
        points: list[Any] = [(at, "", tuple(accounts)) for at, accounts in of_key.items()]
        points += [
            (row["event_time"], row["event_id"], ())
            for row in world.events
            if f"{row['key_type']}:{row['key']}" == key
        ]
        for one in split(points, minutes):
            first = next((accounts for _, _, accounts in one if accounts), ())
            for _, event_id, accounts in one:
                first = accounts or first
                if event_id and len(first) == 1:
                    claims[event_id].add(first[0])
    clients: dict[str, list[Any]] = defaultdict(list)
    for row in world.events:
        if row.get("session_id"):
            key = f"{row['key_type']}:{row['key']}"
            clients[row["session_id"]].append((row["event_time"], row["event_id"], key))
    for points in clients.values():
        for one in split(points, minutes):
            keys = {key for _, _, key in one}
            accounts = {person_of[key] for key in keys - anonymous}
            if len(accounts) == 1 and any(key.startswith("account:") for key in keys):
                for _, event_id, key in one:
                    if key in anonymous:
                        claims[event_id] |= accounts
    return claims


def history_in_python(
    world: World, minutes: int, at_midnight: bool, at_campaign: bool
) -> dict[str, tuple[str, str, str]]:
    """Per event its person, session and what resolved it."""
    person_of = {key: world.merged.get(key, key) for key in world.known}
    claims = claims_in_python(world, person_of, minutes)
    own: dict[str, list[Any]] = defaultdict(list)
    by: dict[str, str] = {}
    for row in world.events:
        person = person_of[f"{row['key_type']}:{row['key']}"]
        claimants = claims.get(row["event_id"], set())
        moved = len(claimants) == 1 and claimants <= set(person_of)
        owner = next(iter(claimants)) if moved else person
        by[row["event_id"]] = "login" if moved else "key"
        if not {person, owner} & set(world.refused):
            own[owner].append((row["event_time"], row["event_id"], row.get("campaign")))
    found = {}
    for person, points in own.items():
        for one in split(points, minutes):
            began, campaign = one[0][0], None
            before = one[0][0]
            for at, event_id, told in one:
                if at_midnight and at.date() != before.date():
                    began, campaign = at, None
                if at_campaign and told and campaign and told != campaign:
                    began = at
                before, campaign = at, told or campaign
                iso = began.isoformat().replace("+00:00", "Z")
                found[event_id] = (person, f"{person}|{iso}", by[event_id])
    return found


@settings(max_examples=8, deadline=None)
@given(
    st.lists(CASE, min_size=15, max_size=40),
    st.booleans(),
    st.booleans(),
    st.sampled_from([20, 30]),
)
def test_many_small_shops_come_out_as_in_plain_python(resolve, cases, midnight, campaign, minutes):
    world = World(cases)
    history, found = resolve(
        world.events, world.logins, world.merged, world.refused, world.known,
        inactivity_minutes=minutes, at_midnight=midnight, at_campaign=campaign,
    )  # fmt: skip
    expected = history_in_python(world, minutes, midnight, campaign)
    assert {
        row["event_id"]: (row["person_id"], row["session"], row["resolved_by"]) for row in history
    } == expected
    events = {row["event_id"]: row for row in world.events}
    grouped: dict[str, Rows] = defaultdict(list)
    for event_id, (_, name, _) in expected.items():
        grouped[name].append(events[event_id])
    assert [row["session"] for row in found] == sorted(grouped)
    for row in found:
        of_it = grouped[row["session"]]
        bought = [one for one in of_it if one["event_type"] == "purchase"]
        assert row["events"] == len(of_it)
        assert row["items"] == len({one["item_id"] for one in of_it})
        assert row["keys"] == len({(one["key_type"], one["key"]) for one in of_it})
        assert row["channels"] == sorted({one["channel"] for one in of_it} - {None})
        assert row["purchases"] == len(bought)
        assert row["value"] == sum(one["value"] for one in bought)
        assert row["started"] == min(one["event_time"] for one in of_it)
        assert row["ended"] == max(one["event_time"] for one in of_it)
        assert row["by_login"] == sum(expected[one["event_id"]][2] == "login" for one in of_it)


def test_the_order_of_rows_does_not_matter_and_a_rerun_is_equal(resolve):
    choices = range(7, len(EVENT_CHOICES), 29)
    world = World([(OWNERS[0], list(choices), list(range(3, len(LOGIN_CHOICES), 17)), None)])
    told = {"merged": world.merged, "known": world.known, "at_campaign": True}
    one = resolve(world.events, world.logins, **told)
    assert one == resolve(world.events[::-1], world.logins[::-1], **told)
    assert one == resolve(world.events, world.logins, **told)
