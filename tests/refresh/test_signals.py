"""Events and sessions that a refresh makes again only where something changed are those of one run
over the same data.

The hours are drawn from a seed: what a shop delivers in files of its own, and what becomes known of
its keys. The one run knows no night before.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import io, spark, tables
from jobs.__main__ import command
from jobs.io import Lake
from jobs.refresh import route
from jobs.signals import deliveries, events, sessions
from tests import small_shop
from tests.refresh.conftest import AS_OF, Shop, hour, moved, rows

STEPS = ("source", "events", "identities", "sessions")
EXACT = (
    "events", "events_rejected", "events_counts", "events_volume", "identities", "persons",
    "history", "sessions",
)  # fmt: skip
BUSIEST = 12  # events of a key on a day that are still a person's
PARAMS = {"events": {"max_events_per_key_day": BUSIEST}}
LINKS = small_shop.LINKS.append(pa.field("action", pa.string()))
Row = dict[str, Any]


class Signals(Shop):
    """A shop whose runs end with its sessions."""

    def until_sessions(self, as_of: datetime) -> None:
        self.night(as_of, STEPS, PARAMS)

    def go_on(self, base: datetime, as_of: datetime) -> None:
        """A refresh of the night of ``AS_OF`` that goes on from ``base``."""
        with self.held(as_of, "refresh", PARAMS) as line:
            io.write_json(route.file(self.lake), {
                "run_id": f"refresh {as_of}", "base": io.label(base), "night": io.label(AS_OF),
                "night_created": "",
            })  # fmt: skip
            for step in STEPS:
                command(["run", step, *line])
                command(["gate", step, *line])

    def notes(self, step: str, as_of: datetime) -> Row:
        found: Row = self.lake.published(step, as_of).manifest["notes"]
        return found


@dataclass
class Hours:
    """What happens to a shop from one run to the next, drawn, and written as files of its own."""

    source: Path
    random: np.random.Generator
    number: int
    since: datetime
    until: datetime
    events: list[Row] = field(default_factory=list)
    links: list[Row] = field(default_factory=list)

    def happen(self) -> None:
        """Everything, and write it down."""
        known = [
            row for row in self._read("events").to_pylist()
            if all(row[name] for name in ("event_id", "key", "item_id"))
            and row["event_type"] == "purchase"
            and row["received_time"] < self.since and row["event_time"] < self.since
        ]  # fmt: skip
        self.known = sorted(known, key=lambda row: (row["event_id"], row["revision"] or 0))
        for happens in (
            self.is_bought, self.is_late, self.is_corrected, self.is_odd, self.is_crowded,
            self.is_shared, self.is_walked_past, self.is_linked,
        ):  # fmt: skip
            happens()
        order = self.random.permutation(len(self.events))
        made = pa.Table.from_pylist([self.events[i] for i in order], small_shop.EVENTS)
        pq.write_table(made, self.source / "events" / f"part-{self.number + 1}.parquet")
        self._refuses()
        links = self._read("identity_links").to_pylist()
        all_links = [{name: row.get(name) for name in LINKS.names} for row in links + self.links]
        small_shop.write_table(
            self.source, "identity_links", pa.Table.from_pylist(all_links, LINKS)
        )

    # --- what happens ----------------------------------------------------------------------------
    def is_bought(self) -> None:
        for place in range(5):
            at = self._at()
            self._add(f"new-{place}", event_time=at, received_time=at)

    def is_late(self) -> None:
        for place, ago in enumerate((400, 30, 0.3)):
            happened = self.since - timedelta(hours=ago)
            self._add(f"late-{place}", event_time=happened, received_time=self._at())

    def is_corrected(self) -> None:
        """Told twice; more of it; none of it; another day; another key; an older revision."""
        now = self._at()
        other = self._one()
        for change in (
            {}, {"revision": 7 + self.number, "quantity": 9.0},
            {"revision": 7 + self.number, "quantity": 0.0},
            {"revision": 7 + self.number, "event_time": self.since - timedelta(days=3)},
            {"revision": 7 + self.number, "key": other["key"], "key_type": other["key_type"]},
            {"revision": -1},
        ):  # fmt: skip
            self.events.append({**self._one(), "received_time": now, **change})

    def is_odd(self) -> None:
        at = self._at()
        for name, change in (
            ("none", {"event_id": None}), ("blank", {"event_id": " "}), ("item", {"item_id": None}),
            ("ahead", {"event_time": self.until + timedelta(minutes=90)}),
            ("soon", {"event_time": self.until + timedelta(seconds=20), "received_time": at}),
            ("pending", {"received_time": self.until + timedelta(hours=1)}),
        ):  # fmt: skip
            self._add(name, **{"event_time": at, "received_time": at, **change})

    def is_crowded(self) -> None:
        """A key's day has too many events for a person; of the last such day some are corrected."""
        at, many = self._at(), self._one()
        for place in range(BUSIEST + 3):
            self._add(f"crowd-{place}", event_time=at, received_time=at, key=many["key"],
                      key_type=many["key_type"])  # fmt: skip
        before = [f"h{self.number - 1}-crowd-{place}" for place in range(5)]
        for row in self.known:
            if row["event_id"] in before and row["revision"] is None:
                earlier = row["event_time"] - timedelta(days=1)
                self.events.append(
                    {**row, "revision": 1, "received_time": at, "event_time": earlier}
                )

    def is_shared(self) -> None:
        """Two accounts log in on one cookie, which is neither's; what it did near is theirs."""
        key = f"kiosk-{int(self.random.integers(2))}"
        for account in sorted({str(1001 + 4 * int(self.random.integers(8))) for _ in range(2)}):
            at = self._at()
            self.links.append({"key_type_a": "cookie", "key_a": key, "key_type_b": "account",
                               "key_b": account, "source": "login", "confidence": 1.0,
                               "observed_time": at, "action": None})  # fmt: skip
            for place, minutes in enumerate((-50, -10, 5, 20)):
                self._add(f"{key}-{account}-{place}", key_type="cookie", key=key,
                          event_time=at + timedelta(minutes=minutes), session_id=None,
                          received_time=self.until - timedelta(seconds=1 + place))  # fmt: skip

    def is_walked_past(self) -> None:
        """A client session in which an account turns up in one hour, and a stranger in another."""
        for session in (f"walk-{self.number}", f"walk-{self.number - 1}"):
            at = self.since - timedelta(minutes=5)
            known = session.endswith(str(self.number - 1)) == bool(self.number % 2)
            who = {} if known else {"key_type": "cookie", "key": f"c-{session}"}
            self._add(f"{session}-{known}", session_id=session, event_time=at,
                      received_time=self.since + timedelta(minutes=1), **who)  # fmt: skip

    def is_linked(self) -> None:
        """A stranger turns out to be somebody; a link is taken back."""
        at = self._at()
        self.links.append({"key_type_a": "cookie", "key_a": f"c-walk-{self.number - 2}",
                           "key_type_b": "account", "key_b": self._one()["key"], "source": "login",
                           "confidence": 1.0, "observed_time": at, "action": None})  # fmt: skip
        links = [row for row in self._read("identity_links").to_pylist()
                 if row["key_a"].startswith("c-1")]  # fmt: skip
        self.links.append({**links[int(self.random.integers(len(links)))], "observed_time": at,
                           "action": "unlink"})  # fmt: skip

    def _refuses(self) -> None:
        """One withdraws consent, another gives it."""
        people = self._read("people").to_pylist()
        refused = [row for row in people if row["consents"]]
        refused[int(self.random.integers(len(refused)))]["consents"] = None
        people[int(self.random.integers(len(people)))]["consents"] = ["analytics"]
        small_shop.write_table(
            self.source, "people", pa.Table.from_pylist(people, small_shop.PEOPLE)
        )

    # --- how -------------------------------------------------------------------------------------
    def _add(self, name: str, **change: Any) -> None:
        whole = {"event_id": f"h{self.number}-{name}", "revision": None}
        self.events.append({**self._one(), **whole, **change})

    def _one(self) -> Row:
        return self.known[int(self.random.integers(len(self.known)))]

    def _at(self) -> datetime:
        return self.since + float(self.random.random()) * (self.until - self.since)

    def _read(self, name: str) -> pa.Table:
        return pa.concat_tables(
            [pq.ParquetFile(path).read() for path in io.parquet_files(self.source / name)]
        )


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory, engine: spark.Engine) -> Signals:
    home = tmp_path_factory.mktemp("nights")
    small_shop.write(home / "shop", people=420, items=120, days=20)
    Hours(home / "shop", np.random.default_rng(1), 0, AS_OF - timedelta(days=2), AS_OF).happen()
    shop = Signals(Lake(home / "lake").open(), home / "shop", engine)
    shop.until_sessions(AS_OF)
    return shop


@dataclass(frozen=True)
class Refreshed:
    shop: Signals
    ends: list[datetime]


@pytest.fixture(scope="module", params=[5, 6])
def refreshed(request: Any, nights: Signals, tmp_path_factory: pytest.TempPathFactory) -> Refreshed:
    shop, random = (
        moved(nights, tmp_path_factory.mktemp("hours")),
        np.random.default_rng(request.param),
    )
    ends = [AS_OF]
    for number in range(1, 4):
        until = ends[-1] + (hour(1) - hour(0)) * int(random.integers(1, 9))
        Hours(shop.source, random, number, ends[-1], until).happen()
        shop.go_on(ends[-1], until)
        ends.append(until)
    return Refreshed(shop, ends)


def same(shop: Signals, now: datetime, home: Path) -> None:
    """The tables are those of a run that knows no night before."""
    rebuilt = Signals(Lake(home / "rebuilt").open(), shop.source, shop.engine)
    rebuilt.until_sessions(now)
    for name in EXACT:
        ours, theirs = (Counter(map(repr, rows(lake.table(name, now)))) for lake in (shop, rebuilt))
        assert theirs, name
        assert [*(ours - theirs)][:3] == [*(theirs - ours)][:3] == [], name


def test_tables_are_those_of_a_run_that_knows_no_night_before(
    refreshed: Refreshed, tmp_path: Path
) -> None:
    same(refreshed.shop, refreshed.ends[-1], tmp_path)


def test_only_what_changed_was_made_again(refreshed: Refreshed) -> None:
    shop = refreshed.shop
    for now in refreshed.ends[1:]:
        known, people = (shop.table(name, now).num_rows for name in ("events", "persons"))
        assert 10 < shop.notes("events", now)[events.NOTE]["again"] < known / 4
        assert 5 < shop.notes("sessions", now)[sessions.NOTE]["people"] < people / 4


def test_the_hours_held_what_is_hard(refreshed: Refreshed) -> None:
    """Else their equality would say little."""
    shop, now = refreshed.shop, refreshed.ends[-1]
    reasons = set(shop.table("events_rejected", now)["reason"].to_pylist())
    assert {deliveries.CROWDED, deliveries.AHEAD, "no_event_id", "quantity_not_positive"} <= reasons
    by_login = [shop.table("history", end)["resolved_by"].to_pylist().count("login")
                for end in refreshed.ends]  # fmt: skip
    assert by_login[0] > 0
    assert len(set(by_login)) > 1
    assert shop.table("identity_changes", now).num_rows > 0


@pytest.mark.parametrize("refreshed", [5], indirect=True)
def test_events_are_judged_anew_where_a_file_that_was_read_is_another(
    refreshed: Refreshed, tmp_path: Path
) -> None:
    shop, last = moved(refreshed.shop, tmp_path), refreshed.ends[-1]
    now = last + timedelta(hours=1)
    path = shop.source / "events" / "part-1.parquet"
    pq.write_table(pq.ParquetFile(path).read().slice(3), path)
    shop.go_on(last, now)
    assert "again" not in shop.notes("events", now)[events.NOTE]
    assert "people" not in shop.notes("sessions", now)[sessions.NOTE]
    same(shop, now, tmp_path)


@pytest.mark.parametrize("refreshed", [6], indirect=True)
def test_events_are_judged_anew_by_other_rules(
    refreshed: Refreshed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, last = moved(refreshed.shop, tmp_path), refreshed.ends[-1]
    monkeypatch.setattr(events, "RULES", events.RULES + 1)
    monkeypatch.setattr(sessions, "RULES", sessions.RULES + 1)
    now = last + timedelta(hours=1)
    shop.go_on(last, now)
    assert "again" not in shop.notes("events", now)[events.NOTE]
    assert "people" not in shop.notes("sessions", now)[sessions.NOTE]
    shop.go_on(now, now + timedelta(hours=1))
    assert "again" in shop.notes("events", now + timedelta(hours=1))[events.NOTE]
    assert "people" in shop.notes("sessions", now + timedelta(hours=1))[sessions.NOTE]


# --- single cases ----------------------------------------------------------------------------
ANNE, BOB = ("account", "1001"), ("account", "1002")
CARD, TILL = ("loyalty_card", "c"), ("cookie", "till")
MORNING = AS_OF - timedelta(hours=14)


def seen(name: str, key: tuple[str, str], minutes: float, session: str | None = None) -> Row:
    """A view, so many minutes after ten in the morning of the day before the night."""
    at = MORNING + timedelta(minutes=minutes)
    return dict.fromkeys(small_shop.EVENTS.names) | {
        "event_id": name, "key_type": key[0], "key": key[1], "event_time": at, "received_time": at,
        "event_type": "view", "item_id": "i0001", "session_id": session,
    }  # fmt: skip


def login(key: tuple[str, str], account: tuple[str, str], minutes: float) -> Row:
    return {"key_type_a": key[0], "key_a": key[1], "key_type_b": account[0], "key_b": account[1],
            "source": "login", "confidence": 1.0, "action": None,
            "observed_time": MORNING + timedelta(minutes=minutes)}  # fmt: skip


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, engine: spark.Engine) -> Signals:
    """A clean shop in which nothing waits to be received. Anne has a card; she and Bob log in on a
    till, which is neither's, and she and the till are in one client session."""
    home = tmp_path_factory.mktemp("calm")
    small_shop.write(home / "shop", people=40, items=60, days=10, days_after=0, dirt=False)
    rows_of = [
        seen("a1", ANNE, 0, "S"), seen("t1", TILL, 25, "S"), seen("a2", ANNE, 50),
        seen("b1", BOB, 13), seen("c1", CARD, -600),
    ]  # fmt: skip
    pq.write_table(
        pa.Table.from_pylist(rows_of, small_shop.EVENTS),
        home / "shop" / "events" / "part-1.parquet",
    )
    links = [login(TILL, ANNE, 0), login(TILL, BOB, 12), login(CARD, ANNE, -700)]
    small_shop.write_table(home / "shop", "identity_links", pa.Table.from_pylist(links, LINKS))
    shop = Signals(Lake(home / "lake").open(), home / "shop", engine)
    shop.until_sessions(AS_OF)
    return shop


def test_an_hour_in_which_nothing_came_leaves_everything(calm: Signals, tmp_path: Path) -> None:
    shop = moved(calm, tmp_path)
    shop.go_on(AS_OF, hour(1))
    assert shop.notes("events", hour(1))[events.NOTE]["again"] == 0
    assert shop.notes("sessions", hour(1))[sessions.NOTE]["people"] == 0
    for name in ("events", "history"):
        now, then = (shop.lake.published(tables.TABLES[name].step, at).table(name)
                     for at in (hour(1), AS_OF))  # fmt: skip
        assert all(path.samefile(then / path.name) for path in io.parquet_files(now))
    same(shop, hour(1), tmp_path)


def test_who_only_bears_witness_to_a_client_session_is_nobodys(
    calm: Signals, tmp_path: Path
) -> None:
    """Anne's card buys, so that she is made again. The till's view between two sessions of hers,
    which Bob's login disputes, would make one of them if his login were not looked at."""
    shop = moved(calm, tmp_path)
    came = [seen("c2", CARD, 14 * 60 + 30)]
    pq.write_table(
        pa.Table.from_pylist(came, small_shop.EVENTS), shop.source / "events" / "part-2.parquet"
    )
    shop.go_on(AS_OF, hour(1))
    assert shop.notes("sessions", hour(1))[sessions.NOTE]["people"] == 1
    mine = {row["event_id"]: row["session"] for row in shop.table("history", hour(1)).to_pylist()
            if row["event_id"] in ("a1", "a2", "t1", "c2")}  # fmt: skip
    assert len(set(mine.values())) == 4
    same(shop, hour(1), tmp_path)


def test_a_delivery_of_much_of_the_past_is_judged_with_everything(
    calm: Signals, tmp_path: Path
) -> None:
    shop = moved(calm, tmp_path)
    rows_of = pq.ParquetFile(shop.source / "events" / "part-0.parquet").read().to_pylist()
    late = [{**row, "event_id": f"late {row['event_id']}", "received_time": hour(0.5),
             "event_time": row["event_time"] - timedelta(days=15)}
            for row in rows_of[: len(rows_of) // 3]]  # fmt: skip
    made = pa.Table.from_pylist(late, small_shop.EVENTS)
    pq.write_table(made, shop.source / "events" / "part-9.parquet")
    shop.go_on(AS_OF, hour(1))
    assert "again" not in shop.notes("events", hour(1))[events.NOTE]
    same(shop, hour(1), tmp_path)
