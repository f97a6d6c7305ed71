"""How old signals are, and which feed is late; ages and lags known by hand."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from expectations import feed_freshness, signal_freshness
from jobs import io
from jobs.findings import evaluate
from jobs.release import releases
from jobs.signals import interactions
from jobs.signals.audits import freshness
from jobs.signals.audits.audits import Params, Window
from jobs.signals.past import Record
from jobs.tables import TIME
from tests.conftest import AS_OF

WINDOW = Window(14.0, 20.0, "measured")
EVENTS = (
    "event_type string, key_type string, channel string, event_time timestamp, "
    "received_time timestamp, event_date date"
)
HISTORY = pa.schema([
    ("person_id", pa.string()), ("item_id", pa.string()), ("event_type", pa.string()),
    ("event_time", TIME), ("received_time", TIME), ("value", pa.float64()),
])  # fmt: skip


def people(*last_event_days: float, region: str = "north", first: float = 400) -> pa.Table:
    """A person per age of the last event, received an hour after it."""
    ages = [timedelta(days=days) for days in last_event_days]
    size = len(ages)
    return pa.table({
        "person_id": [f"p{n}" for n in range(size)],
        "region": pa.array([region] * size, pa.string()),
        "segment": pa.array([None] * size, pa.string()),
        "last_event": pa.array([AS_OF - age for age in ages], TIME),
        "last_received": pa.array([AS_OF - age + timedelta(hours=1) for age in ages], TIME),
        "first_event": pa.array([AS_OF - timedelta(days=first)] * size, TIME),
        "weighted_age": pa.array([100.0] * size, pa.float64()),
    })  # fmt: skip


def measures(rows: pa.Table) -> dict[tuple[str, str], dict]:
    return {(row["measure"], row["population"]): row for row in rows.to_pylist()}


def failed(suite, rows: pa.Table) -> dict[str, list[str]]:
    """The sentences of a suite's failures on a table, by severity."""
    found: dict[str, list[str]] = {"critical": [], "warning": []}
    table = suite.__name__.rpartition(".")[2]
    for finding in evaluate(table, rows.to_pandas(), suite.suite(AS_OF)):
        if not finding.success:
            assert finding.error is None, finding.error
            found[finding.severity].append(finding.sentence())
    return found


# --- people ----------------------------------------------------------------------------------
def test_the_median_is_of_each_active_persons_last_event():
    rows = freshness.signals(people(1, 2, 6, 50, 57, 300), AS_OF, WINDOW, None, Params())
    row = measures(rows)["last_event_age", "active"]
    assert (row["people"], row["median"], row["limit"], row["gated"]) == (4, 4.0, 14.0, True)
    assert row["p95"] == pytest.approx(np.quantile([1, 2, 6, 50], 0.95))


def test_each_clock_has_its_measure_and_only_the_event_clock_is_gated():
    found = measures(freshness.signals(people(1, 2, 3), AS_OF, WINDOW, 6.0, Params()))
    assert found["last_received_age", "active"]["median"] == pytest.approx(2 - 1 / 24)
    assert found["time_to_release", "active"]["median"] == pytest.approx(2.25)
    assert found["signal_age_weighted", "active"]["median"] == 100.0
    gated = [key for key, row in found.items() if row["gated"]]
    assert gated == [("last_event_age", "active")]


def test_without_an_earlier_release_nobody_knows_the_way_to_serving():
    found = measures(freshness.signals(people(1, 2), AS_OF, WINDOW, None, Params()))
    assert not any(measure == "time_to_release" for measure, _ in found)


def test_populations_are_regions_segments_new_and_returning():
    rows = pa.concat_tables([people(1, 2), people(3, region="south", first=10)])
    found = measures(freshness.signals(rows, AS_OF, WINDOW, None, Params()))
    count = {p: row["people"] for (m, p), row in found.items() if m == "last_event_age"}
    assert count == {"active": 3, "new": 1, "returning": 2, "region: north": 2, "region: south": 1}


def test_of_many_regions_the_largest_are_shown():
    rows = pa.concat_tables(
        [people(1, region="c"), people(1, region="b"), people(1, 1, region="z")]
    )
    found = measures(freshness.signals(rows, AS_OF, WINDOW, None, Params(max_groups=2)))
    assert {p for _, p in found if p.startswith("region")} == {"region: z", "region: b"}


def test_a_window_longer_than_half_of_active_days_widens_who_is_active():
    window = Window(60.0, None, "measured")
    found = measures(freshness.signals(people(1, 100, 121), AS_OF, window, None, Params()))
    assert found["last_event_age", "active"]["people"] == 2


def test_a_night_of_fresh_signals_is_green():
    rows = freshness.signals(people(*range(1, 20)), AS_OF, WINDOW, None, Params())
    assert failed(signal_freshness, rows) == {"critical": [], "warning": []}


def test_the_gate_is_red_where_more_than_half_of_the_active_are_beyond_the_window():
    rows = freshness.signals(people(1, 15, 16), AS_OF, WINDOW, None, Params())
    found = failed(signal_freshness, rows)
    assert len(found["critical"]) == 1
    assert "limit is not below median; 1 of" in found["critical"][0]


def test_a_lake_where_nobody_is_active_is_red_too():
    found = failed(
        signal_freshness, freshness.signals(people(90, 300), AS_OF, WINDOW, None, Params())
    )
    assert len(found["critical"]) == 1


def test_a_window_that_nobody_measured_is_a_warning_that_names_the_command():
    assumed = Window(28.0, None, "assumed")
    found = failed(signal_freshness, freshness.signals(people(1), AS_OF, assumed, None, Params()))
    assert found["critical"] == []
    assert "run `make staleness`" in found["warning"][0]


def test_old_signals_weigh_less_and_returns_weigh_nothing(tmp_path, monkeypatch):
    def event(person, kind, days):
        moment = AS_OF - timedelta(days=days)
        return (person, "i", kind, moment, moment + timedelta(hours=2), None)

    rows = [event("p", "purchase", 2), event("p", "purchase", 400), event("p", "return", 1),
            event("r", "reject", 3)]  # fmt: skip
    columns = zip(*rows, strict=True)
    history = pa.table([pa.array(column, field.type) for column, field in
                        zip(columns, HISTORY, strict=True)], schema=HISTORY)  # fmt: skip
    io.write_arrow(tmp_path, history)
    record = Record(tmp_path, AS_OF, pa.array(["i"]))
    persons = pa.table({
        "person_id": ["q", "r", "p"], "region": ["south", None, "north"],
        "segment": pa.nulls(3, pa.string()),
    })  # fmt: skip
    found = freshness.of_people(record, persons, interactions.Params())
    monkeypatch.setattr(freshness, "BLOCK", 1)
    assert freshness.of_people(record, persons, interactions.Params()).equals(found)
    row = found.to_pylist()
    assert row.pop() == {
        "person_id": "r", "region": None, "segment": None, "weighted_age": None,
        "last_event": AS_OF - timedelta(days=3), "first_event": AS_OF - timedelta(days=3),
        "last_received": AS_OF - timedelta(days=3) + timedelta(hours=2),
    }  # fmt: skip
    old = 0.25 + 0.75 * np.exp(-393 / 30)
    assert [r["person_id"] for r in row] == ["p"]
    assert row[0]["weighted_age"] == pytest.approx((2 + 400 * old) / (1 + old))
    assert row[0]["last_event"] == AS_OF - timedelta(days=1)
    assert row[0]["last_received"] == AS_OF - timedelta(days=1) + timedelta(hours=2)


def test_the_usual_lag_is_the_median_of_nights_and_leaves_backfills_and_refreshes_out(tmp_path):
    lake = SimpleNamespace(root=tmp_path)
    published = [(24, 2, "nightly"), (48, 3, "nightly"), (72, 4, "nightly"), (96, 9_000, "nightly")]
    published += [(hour, 0.2, "hourly") for hour in range(1, 7)]
    for number, (ago, hours, kind) in enumerate(published):
        as_of = AS_OF - timedelta(hours=ago)
        name = f"{as_of:%Y%m%dT%H%M%SZ}-{number:010d}"
        io.write_json(tmp_path / "releases" / name / "manifest.json", {
            "format": releases.FORMAT, "id": name, "as_of": as_of.isoformat(), "files": {},
            "tables": {}, "kind": kind, "lag_seconds": hours * 3600,
        })  # fmt: skip
    assert freshness.usual_lag(lake, AS_OF, 48.0) == 3.0
    assert freshness.usual_lag(lake, AS_OF - timedelta(days=3), 48.0) is None


# --- feeds -----------------------------------------------------------------------------------
@pytest.fixture
def feeds(session):
    """The table of (event type, key type, channel, days ago, lag in days, events a day)."""

    def run(*delivered, window=WINDOW, **params) -> pa.Table:
        rows = []
        for kind, key_type, channel, days, lag, count in delivered:
            for day in days:
                moment = AS_OF - timedelta(days=day) + timedelta(hours=12)
                received = moment + timedelta(days=lag)
                rows += [(kind, key_type, channel, moment, received, moment.date())] * count
        events = session.createDataFrame(rows, EVENTS)
        chosen = Params(**params)
        return freshness.feeds(
            freshness.days_of_feeds(events).toArrow(),
            freshness.lags_of_feeds(events, AS_OF, chosen.recent(window)).toArrow(),
            AS_OF, window, chosen,
        )  # fmt: skip

    return run


WEB = ("view", "cookie", "web", range(1, 101), 0.01, 10)
TILL = ("purchase", "account", "store", range(1, 101), 0.01, 10)


def test_feeds_that_come_every_day_are_green(feeds):
    rows = feeds(WEB, TILL, ("purchase", "account", None, range(1, 101), 0.0, 10))
    assert failed(feed_freshness, rows) == {"critical": [], "warning": []}
    row = rows.to_pylist()[2]
    assert (row["event_type"], row["source"], row["channel"]) == ("view", "cookie", "web")
    assert (row["events"], row["recent"], row["age_hours"]) == (1000, 840, 12.0)
    assert row["usual_gap_hours"] == 24.0
    assert row["lag_median_hours"] == row["lag_p95_hours"] == pytest.approx(0.24)
    assert row["limit_hours"] == 14 * 24


def test_a_silent_feed_is_red_and_named(feeds):
    rows = feeds(WEB, ("purchase", "account", "store", range(20, 101), 0.01, 10))
    found = failed(feed_freshness, rows)
    assert len(found["critical"]) == 1
    assert "1 of 2 rows do not (purchase events of account keys in store are silent: the newest " \
        "event is 19.5 days old, where 24 hours is usual, and behaviour drifts in 14 days)" \
        in found["critical"][0]  # fmt: skip


def test_a_feed_that_comes_late_is_red_and_named_even_where_it_is_not_silent(feeds):
    slow = ("purchase", "account", "store", range(21, 101), 20.0, 10)
    found = failed(feed_freshness, feeds(WEB, slow))
    assert len(found["critical"]) == 1
    assert "purchase events of account keys in store come late: one in 20 takes over 20 days" \
        in found["critical"][0]  # fmt: skip


def test_a_silence_that_is_usual_for_the_feed_is_not_late(feeds):
    monthly = ("purchase", "account", "catalogue", range(20, 2000, 30), 0.01, 20)
    assert failed(feed_freshness, feeds(WEB, monthly)) == {"critical": [], "warning": []}


def test_a_silence_that_is_unusual_but_within_the_window_is_a_warning(feeds):
    quiet = ("purchase", "account", "store", range(6, 101), 0.01, 10)
    found = failed(feed_freshness, feeds(WEB, quiet))
    assert found["critical"] == []
    assert "purchase events of account keys in store are quieter than usual" in found["warning"][0]


def test_a_small_feed_that_is_late_only_warns(feeds):
    small = ("return", "account", "store", range(20, 101), 0.01, 1)
    found = failed(feed_freshness, feeds(WEB, small))
    assert found["critical"] == []
    assert "return events of account keys in store are silent" in found["warning"][0]


def test_a_feed_of_a_handful_of_events_has_no_rhythm_to_break(feeds):
    rare = ("reject", "account", "web", range(20, 69), 0.01, 1)
    assert failed(feed_freshness, feeds(WEB, rare)) == {"critical": [], "warning": []}


def test_a_feed_silent_for_a_season_has_ended_and_one_ended_on_purpose_is_forgotten(feeds):
    ended = ("view", "device", "app", range(120, 221), 0.01, 10)
    found = failed(feed_freshness, feeds(WEB, ended))
    assert found["critical"] == []
    assert "view events of device keys in app seem to have ended" in found["warning"][0]
    rows = feeds(WEB, ended, ended_feeds=("view/device/app",))
    assert failed(feed_freshness, rows) == {"critical": [], "warning": []}


def test_an_old_history_loaded_at_once_is_not_a_late_feed(session, feeds):
    loaded = ("purchase", "account", "store", range(90, 400), 300.0, 10)
    rows = feeds(WEB, loaded, ("purchase", "account", "store", range(1, 90), 0.01, 10))
    assert failed(feed_freshness, rows)["critical"] == []


def test_a_history_loaded_yesterday_is_not_a_late_feed(session, feeds):
    def on(day: int) -> tuple[Any, ...]:
        return ("purchase", "account", "store", [day], day - 1.0, 10)

    rows = feeds(WEB, *(on(day) for day in range(1, 400)))
    assert failed(feed_freshness, rows)["critical"] == []
    row = rows.to_pylist()[0]
    assert (row["source"], row["recent"], row["lag_p95_hours"]) == ("account", 10, 0.0)


def test_a_closed_day_of_each_week_is_usual():
    days = [day for day in range(700) if day % 7 != 6]
    assert freshness.usual_gap(days) == 48.0
    assert freshness.usual_gap([3]) is None


def test_one_outage_is_no_usual_silence():
    days = [day for day in range(90) if not 40 <= day < 65]
    assert freshness.usual_gap(days) == 24.0
