"""What ordering reads of the past: purchases, what was shown, and what exploring brought."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs import io, tables
from jobs.io import Lake
from jobs.night import Night
from jobs.ordering import logged
from jobs.ordering.surfaces import Surface
from jobs.refresh import explored as kept
from jobs.sources import contract
from tests.conftest import AS_OF

YESTERDAY = AS_OF - timedelta(days=1)
RELEASE = "20171130T000000Z-0123456789"
NOON = YESTERDAY + timedelta(hours=12)
PURCHASE = {"event_type": "purchase", "event_time": NOON, "received_time": NOON}
SHOWN = {
    "request_id": "r1", "request_time": NOON, "surface": "homepage", "key_type": "account",
    "key": "1", "position": 1, "item_id": "a", "release_id": RELEASE,
}  # fmt: skip


def publish(lake: Lake, as_of: datetime, **rows: list[dict[str, Any]]) -> None:
    """Publish these tables, and no others, of their steps."""
    steps = {tables.TABLES[name].step for name in rows}
    for step in steps:
        for name in rows.keys() & {table.name for table in tables.of_step(step)}:
            # What a test does not look at may be null, whatever the declaration says.
            schema = pa.schema([field.with_nullable(True) for field in tables.TABLES[name].schema])
            found = pa.Table.from_pylist(rows[name], schema)
            io.write_arrow(lake.staged(step, as_of) / name, found)
        lake.publish(step, as_of, "one")


@pytest.fixture
def shop(lake: Lake, tmp_path: Path) -> Callable[..., Night]:
    """Makes a night with a log: yesterday's lists explored b and c for p, a was the model's."""

    def make(*log: dict[str, Any], **more: list[dict[str, Any]]) -> Night:
        source = tmp_path / "source"
        io.write_arrow(source / "events", contract.schema("events").empty_table())
        if log:
            rows = [{**SHOWN, **row} for row in log]
            table = pa.Table.from_pylist(rows, contract.schema("recommendation_log"))
            io.write_arrow(source / "recommendation_log", table)
        io.write_json(lake.staged("source", AS_OF) / "source.json", {"folder": str(source)})
        io.write_arrow(
            lake.staged("source", AS_OF) / "source_tables",
            tables.TABLES["source_tables"].schema.empty_table(),
        )
        lake.publish("source", AS_OF, "one")
        keys = [{"key_type": "account", "key": "1"}]
        publish(lake, YESTERDAY, identities=[{**one, "person_id": "p"} for one in keys],
                recommendations=[
                    {"surface": "homepage", "person_id": "p", "item_id": item, "sources": sources,
                     "propensity": propensity}
                    for item, sources, propensity in (
                        ("a", ["popular"], 1.0), ("b", ["popular", "trending"], 0.2),
                        ("c", ["trending"], 0.1),
                    )
                ], **more)  # fmt: skip
        # Overnight the person was found to be another one too.
        publish(lake, AS_OF, identities=[{**one, "person_id": "q"} for one in keys],
                items=[{"item_id": item} for item in "abc"],
                history=[
                    {"event_id": "e1", "person_id": "q", "item_id": "b", **PURCHASE},
                    {"event_id": "e2", "person_id": "q", "item_id": "c",
                     **PURCHASE, "event_time": NOON - timedelta(days=30)},
                ],
                events=[
                    {"event_id": "e1", "item_id": "b", "request_id": "r1", **PURCHASE},
                    # Of somebody without consent: in no history, and no conversion.
                    {"event_id": "e9", "item_id": "c", "request_id": "r1", **PURCHASE},
                ])  # fmt: skip
        return Night(lake, AS_OF, "test-run", "test", "recommendations")

    return make


def explored(night: Night, days: int, reward: str) -> pa.Table:
    surface = Surface(explore_days=max(days, 1), explore_rewards=(reward,))
    return logged.explored(night, "homepage", surface)


def pairs(found: pa.Table) -> set[tuple[str, str]]:
    return {(row["person_id"], row["item_id"]) for row in found.to_pylist()}


def test_what_was_bought_in_the_days_before_counts(shop):
    night = shop()
    assert pairs(logged.bought(night, 7)) == {("q", "b")}
    assert pairs(logged.bought(night, 60)) == {("q", "b"), ("q", "c")}
    assert logged.bought(night, 0).num_rows == 0


def test_what_was_shown_counts_for_the_person_that_the_key_is_now(shop):
    night = shop(
        {"item_id": "a"}, {"item_id": "a"}, {"item_id": "b", "surface": "discover"},
        {"item_id": "c", "request_time": NOON - timedelta(days=9)}, {"item_id": "gone"},
        {"item_id": "b", "key": "unknown"}, {"item_id": "b", "request_time": AS_OF},
    )  # fmt: skip
    assert pairs(logged.shown(night, 7, "homepage")) == {("q", "a")}
    assert pairs(logged.shown(night, 30, "homepage")) == {("q", "a"), ("q", "c")}


def test_where_the_log_knows_what_the_page_showed_the_rest_was_not_seen(shop):
    night = shop({"item_id": "a", "shown_position": 1}, {"item_id": "b"})
    assert pairs(logged.shown(night, 7, "homepage")) == {("q", "a")}


def test_without_a_log_nothing_was_shown_and_nothing_explored(shop):
    night = shop()
    assert logged.shown(night, 7, "homepage").num_rows == 0
    assert explored(night, 7, "purchase").num_rows == 0


def test_explored_places_are_counted_by_source_and_answered_by_request(shop):
    night = shop(
        {"item_id": "a"}, {"item_id": "b"}, {"item_id": "c"},
        {"item_id": "c", "request_id": "r2"}, {"item_id": "b", "release_id": "another-shop"},
    )  # fmt: skip
    found = {
        row["source"]: (row["impressions"], row["conversions"])
        for row in explored(night, 7, "purchase").to_pylist()
    }
    # b once and bought; c in two requests, its purchase one without consent; a was not explored.
    assert found == {"popular": (1, 1), "trending": (3, 1)}
    clicks = explored(night, 7, "click").to_pylist()
    assert {row["source"]: row["conversions"] for row in clicks} == {"popular": 0, "trending": 0}


def test_what_a_refresh_drew_counts_when_its_tables_are_gone(shop):
    night = shop(
        {"item_id": "a"}, {"item_id": "b"}, {"item_id": "c", "request_id": "r2"},
        {"item_id": "x", "surface": "feed", "propensity": 0.3},
        context_lists=[
            {"surface": "feed", "item_id": "x", "sources": ["trending"], "propensity": 0.5},
            {"surface": "feed", "item_id": "x", "sources": ["popular"], "propensity": 0.2},
        ],
    )  # fmt: skip
    feed = Surface(grain="context", blended="ordering", sources={"popular": 1.0},
                   explore_places=1)  # fmt: skip
    before = [explored(night, 7, "purchase"), logged.explored(night, "feed", feed)]
    assert [found.num_rows for found in before] == [2, 2]
    label = io.label(YESTERDAY)
    kept.keep(night.lake, label)
    # A kill between keeping and forgetting counts nothing twice.
    assert explored(night, 7, "purchase").sort_by("source").equals(before[0].sort_by("source"))
    for step in ("recommendations", "identities"):
        shutil.rmtree(night.lake.root / "tables" / step / label)
    after = [explored(night, 7, "purchase"), logged.explored(night, "feed", feed)]
    for now, then in zip(after, before, strict=True):
        assert now.sort_by("source").equals(then.sort_by("source"))


def test_nights_before_the_days_looked_at_are_left_out(shop):
    night, later = shop({"item_id": "b"}), AS_OF + timedelta(days=1)
    io.write_json(
        night.lake.staged("source", later) / "source.json", {"folder": str(night.source_folder())}
    )
    night.lake.publish("source", later, "one")
    assert explored(replace(night, as_of=later), 1, "purchase").num_rows == 0
    assert explored(night, 1, "purchase").num_rows == 2


def test_what_shared_lists_drew_is_known_by_the_log(shop):
    night = shop(
        {"item_id": "x", "surface": "feed", "propensity": 0.3},
        {"item_id": "x", "surface": "feed", "propensity": 0.3, "request_id": "r2"},
        {"item_id": "y", "surface": "feed", "propensity": 0.3},
        # Elsewhere it stood for certain, or the log does not say.
        {"item_id": "x", "surface": "feed", "propensity": 1.0, "request_id": "r3"},
        {"item_id": "x", "surface": "feed", "request_id": "r4"},
        context_lists=[
            {"surface": "feed", "item_id": item, "sources": sources, "propensity": propensity}
            for item, sources, propensity in (
                ("x", ["popular"], 0.5), ("x", ["trending"], 0.2), ("y", ["popular"], 1.0),
            )
        ],
    )  # fmt: skip
    surface = Surface(
        grain="context", blended="ordering", sources={"popular": 1.0}, explore_places=1,
        explore_rewards=("purchase",),
    )  # fmt: skip
    rows = logged.explored(night, "feed", surface).to_pylist()
    assert {row["source"]: row["impressions"] for row in rows} == {"popular": 2, "trending": 2}


def test_the_nights_that_were_read_are_recorded_as_inputs(shop):
    night = shop({"item_id": "b"})
    explored(night, 7, "purchase")
    assert {"recommendations@2017-11-30", "identities@2017-11-30"} <= set(night.inputs)
