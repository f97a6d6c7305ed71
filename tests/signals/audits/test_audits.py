"""The job as a whole: on a small shop, with and without a measured window, and again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs import gate, io, params, tables
from jobs.evaluation import drift
from jobs.io import Lake
from jobs.night import Night
from jobs.signals.audits import audits
from jobs.signals.audits.audits import Params
from tests.conftest import AS_OF
from tests.expectations import good

PEOPLE = 40
ITEMS = ("sofa", "milk")


@pytest.fixture
def shop(lake: Lake) -> Lake:
    """People who look at an item each day and buy it two days later, at home in two regions."""
    events = [
        {"event_id": f"{kind}{n}-{day}", "revision": 0, "event_time": moment,
         "received_time": moment, "first_received": moment, "key_type": "account", "key": f"p{n}",
         "event_type": kind, "item_id": ITEMS[n % 2], "quantity": 1.0, "value": 2.0,
         "channel": "web", "event_date": moment.date(), "person_id": f"account:p{n}",
         "session": f"s{n}-{day}", "basket": f"b{n}-{day}", "resolved_by": "key"}
        for n in range(PEOPLE)
        for day in range(2, 60, 4)
        for kind, moment in (("view", AS_OF - timedelta(days=day + 2)),
                             ("purchase", AS_OF - timedelta(days=day)))
    ]  # fmt: skip
    persons = [
        {"person_id": f"account:p{n}", "household_id": f"account:p{n}", "personalised": True,
         "region": "north" if n % 3 else "south", "restrictions": [], "keys": 1,
         "first_seen": AS_OF - timedelta(days=62)}
        for n in range(PEOPLE)
    ]  # fmt: skip
    keys = [
        {"key_type": "account", "key": f"p{n}", "person_id": f"account:p{n}",
         "household_id": f"account:p{n}", "component": f"account:p{n}"}
        for n in range(PEOPLE)
    ]  # fmt: skip
    link = {
        "key_type_a": "account", "key_a": "p0", "key_type_b": "account", "key_b": "p1",
        "source": "login", "confidence": 1.0, "known_time": AS_OF - timedelta(days=9),
        "outcome": "would_join_two",
    }  # fmt: skip
    items = [
        {"item_id": item, "position": n, "category": f"{item} > all", "available": True,
         "flags": []}
        for n, item in enumerate(ITEMS)
    ]  # fmt: skip
    found = {
        "events": events, "persons": persons, "identities": keys, "identity_links": [link],
        "items": items, "history": events,
    }  # fmt: skip
    for step in {tables.TABLES[name].step for name in found}:
        for table in tables.of_step(step):
            rows = pa.Table.from_pylist(found.get(table.name, []), table.schema)
            io.write_arrow(lake.staged(step, AS_OF) / table.name, rows)
        lake.publish(step, AS_OF, "one")
    return lake


def run(lake: Lake, **overrides: Any) -> Night:
    step = Night(lake, AS_OF, "one", "small", "audits", {"audits": overrides})
    step.reset()
    audits.run(step, step.params_of("audits"))
    step.close(step.params_of("audits"), "test")
    return step


def read(step: Night) -> dict[str, list[dict[str, Any]]]:
    return {t.name: io.read_arrow(step.staged / t.name).to_pylist()
            for t in tables.of_step("audits")}  # fmt: skip


def test_the_five_tables_say_what_the_shop_is_like(shop):
    found = read(run(shop))
    ages = {(r["measure"], r["population"]): r for r in found["signal_freshness"]}
    assert ages["last_event_age", "active"]["median"] == 2.0
    assert ages["last_event_age", "region: south"]["people"] == 14
    feeds = [(r["event_type"], r["source"], r["channel"], r["late"])
             for r in found["feed_freshness"]]  # fmt: skip
    assert feeds == [("purchase", "account", "web", False), ("view", "account", "web", False)]
    split = {(r["population"], r["stage"], r["by"]): r["split"] for r in found["identity_coverage"]}
    assert split["persons", "after merging", "conflict"] == 2
    assert split["groups", "after merging", "any"] == 1
    windows = {r["category"]: r for r in found["conversion_windows"]}
    assert set(windows) == set(ITEMS)
    assert windows["milk"]["window_median_hours"] == 48.0
    assert windows["milk"]["serving_median_hours"] == 24.0
    assert not windows["milk"]["late"]
    assert found["promises"] == []


def test_a_night_again_leaves_equal_rows(shop):
    first = read(run(shop))
    assert read(run(shop)) == first


def test_a_measured_window_is_used_and_named_as_an_input(shop):
    path = drift.file(shop, "small", AS_OF - timedelta(days=5))
    io.write_json(path, {
        "source": "small", "as_of": (AS_OF - timedelta(days=5)).isoformat(),
        "drift_window_days": 1.5, "low": 1.0, "high": 2.0, "verdict": "measured",
    })  # fmt: skip
    step = run(shop)
    rows = {(r["measure"], r["population"]): r for r in read(step)["signal_freshness"]}
    assert rows["drift_window", "measured"]["median"] == 1.5
    assert rows["last_event_age", "active"]["limit"] == 1.5
    assert list(step.notes["files"]) == ["staleness/small/2017-11-26/staleness.json"]
    with pytest.raises(gate.GateRed, match="limit is not below median"):
        gate.judge(step)


def test_a_window_that_noise_hides_is_not_taken_for_a_measured_one(shop):
    path = drift.file(shop, "small", AS_OF)
    io.write_json(path, {
        "source": "small", "as_of": AS_OF.isoformat(), "drift_window_days": 60.0, "low": 1.0,
        "high": 60.0, "verdict": "unclear",
    })  # fmt: skip
    step = run(shop)
    rows = {(r["measure"], r["population"]): r for r in read(step)["signal_freshness"]}
    assert rows["drift_window", "unclear"]["median"] == rows["last_event_age", "active"]["limit"]
    assert rows["drift_window", "unclear"]["median"] == audits.Params().drift_days
    assert list(step.notes["files"]) == ["staleness/small/2017-12-01/staleness.json"]
    gate.judge(step)
    (warning,) = shop.published("audits", AS_OF).manifest["gate"]["warnings"]
    assert "too noisy to tell" in warning


def test_the_gate_of_a_healthy_shop_lets_it_pass_and_asks_for_the_window(shop):
    step = run(shop)
    gate.judge(step)
    found = shop.published("audits", AS_OF).manifest["gate"]
    assert found["verdict"] == "warning"
    assert len(found["warnings"]) == 1
    assert "make staleness" in found["warnings"][0]


def test_a_shop_that_logs_purchases_alone_has_one_row_without_conversions(shop):
    home = shop.published("events", AS_OF).table("events")
    events = io.read_arrow(home)
    io.write_arrow(home, events.filter(pc.equal(events["event_type"], "purchase")))
    rows = read(run(shop))["conversion_windows"]
    assert [(r["category"], r["conversions"], r["late"]) for r in rows] == [("", 0, False)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("drift_days", 0.0), ("active_days", 0), ("feed_days", -1), ("ended_feeds", ["web"]),
        ("max_releases", -1), ("category_depth", 0),
    ],
)  # fmt: skip
def test_a_parameter_that_cannot_be_is_refused(name, value):
    assert params.faults("audits", Params, {name: value}) != []


def test_the_good_tables_are_of_the_same_columns():
    assert {t.name for t in tables.of_step("audits")} == set(good.audits())
