"""Candidates that were held beside what served are told again with what people bought since."""

from __future__ import annotations

import json
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from jobs import gate, io, tables
from jobs.__main__ import command
from jobs.diagnosis import shadow
from jobs.io import Lake
from jobs.night import Night
from jobs.release import release, releases
from jobs.release import shadow as compared
from tests.release import nights

LATER = nights.day(7)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake").open()


@pytest.fixture
def candidate(lake: Lake, tmp_path: Path) -> str:
    """A night that serves, and one without its first places in a lake of its own, compared."""
    nights.whole(lake, nights.AS_OF, "live")
    other = Lake(tmp_path / "other").open()
    rows = nights.tables_of_night(nights.AS_OF)["recommendations"]
    kept = rows.filter(rows["rank"].to_numpy() != 1)
    place = kept.schema.get_field_index("rank")
    ranks = pa.array(kept["rank"].to_numpy() - 1, kept.schema.field("rank").type)
    moved = kept.set_column(place, "rank", ranks)
    nights.publish(other, nights.AS_OF, "candidate", recommendations=moved)
    release.publish(nights.stage(other, nights.AS_OF, "candidate"))
    command(["shadow", f"--lake={lake.root}", str(other.root)])
    return str(releases.current_id(other))


def decide(lake: Lake, tmp_path: Path, what: str) -> None:
    options = [f"--decision={what}", "--reason=the tail is richer"]
    command(["shadow", f"--lake={lake.root}", str(tmp_path / "other"), *options])


def bought(lake: Lake, when: datetime) -> None:
    """Everybody buys what the serving list had first, which a night a week later knows."""
    live = nights.tables_of_night(nights.AS_OF)["recommendations"]
    first = live.filter(live["rank"].to_numpy() == 1).to_pylist()
    row = nights.tables_of_night(nights.AS_OF)["history"].to_pylist()[0]
    history = [
        row | {"event_id": f"late{n}", "person_id": one["person_id"], "item_id": one["item_id"],
               "key_type": "account", "key": one["person_id"].removeprefix("account:"),
               "event_time": when, "received_time": when, "event_date": when.date()}
        for n, one in enumerate(first)
    ]  # fmt: skip
    schema = tables.TABLES["history"].schema
    nights.publish(lake, LATER, "later", history=pa.Table.from_pylist(history, schema))


def diagnosed(lake: Lake, as_of: datetime = LATER, run_id: str = "one") -> Night:
    night = Night(lake, as_of, run_id, "test", "shadow")
    night.reset()
    shadow.run(night, shadow.Params())
    night.close(shadow.Params(), "abc")
    return night


def rows(night: Night, name: str) -> list[dict]:
    return io.read_arrow(night.staged / name).to_pylist()


def test_who_is_promoted_and_loses_by_what_was_bought_since_is_told(
    lake, candidate, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(compared, "LEAST", 2)
    decide(lake, tmp_path, "promote")
    shutil.rmtree(tmp_path / "other")  # what serves lies in the lake
    bought(lake, nights.day(3))
    night = diagnosed(lake)
    (one,) = rows(night, "shadow_candidates")
    assert (one["candidate"], one["decision"]) == (candidate, "promote")
    assert one["reason"] == "the tail is richer"
    assert one["decided_by"]
    assert one["serves"]
    assert one["bought_until"] == LATER
    assert one["loses"] >= 1
    everybody = [
        row
        for row in rows(night, "shadow_lists")
        if row["group_kind"] == "all" and row["surface"] == nights.SURFACE
    ]
    (of_all,) = everybody
    assert of_all["verdict"] == "loses"
    # Each bought the one thing that was first: NDCG 1 where it stood, 0 where it was left out.
    assert of_all["gain"] == pytest.approx(-1.0)
    assert of_all["buyers"] == of_all["people"] > 2
    (warned,) = [one for one in gate.judge_table(night, "shadow_candidates") if not one.success]
    assert warned.severity == "warning"
    assert "roll back" in warned.notes
    # Once another serves, it is history.
    nights.whole(lake, nights.day(1), "next")
    again = diagnosed(lake, run_id="two")
    assert all(one.success for one in gate.judge_table(again, "shadow_candidates"))


def test_a_decision_is_of_the_candidate_whatever_served_then(lake, candidate, tmp_path) -> None:
    decide(lake, tmp_path, "promote")
    # It took the place of a refresh of the night that it was compared with.
    history = releases.root(lake) / "history.jsonl"
    lines = [json.loads(line) for line in history.read_text().splitlines()]
    lines[-1]["from"] = "20171201T060000Z-0123456789"
    history.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (one,) = rows(diagnosed(lake), "shadow_candidates")
    assert (one["decision"], one["reason"]) == ("promote", "the tail is richer")


def test_before_anybody_bought_the_evidence_is_insufficient_and_the_comparison_stands(
    lake, candidate
) -> None:
    bought(lake, nights.day(3))
    night = diagnosed(lake, nights.day(1))
    (one,) = rows(night, "shadow_candidates")
    assert (one["decision"], one["reason"], one["loses"]) == ("open", None, 0)
    told = {row["surface"]: row for row in rows(night, "shadow_lists")}
    assert told[nights.SURFACE]["verdict"] == "insufficient evidence"
    assert 0 < told[nights.SURFACE]["rank_biased_overlap"] < 1
    mixes = rows(night, "shadow_sources")
    assert {row["surface"] for row in mixes} == set(told)
    assert all(gate.judge_table(night, name) for name in shadow.NAMES)
    assert all(one.success for name in shadow.NAMES for one in gate.judge_table(night, name))


def test_what_was_seen_before_a_release_went_is_carried_on(
    lake, candidate, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(compared, "LEAST", 2)
    bought(lake, nights.day(3))
    seen = diagnosed(lake)
    io.write_json(lake.evidence("shadow", LATER, "one"), {"step": "shadow", "verdict": "green"})
    lake.publish("shadow", LATER, "one")
    before = io.read_arrow(lake.published("shadow", LATER).table("shadow_lists")).to_pylist()
    shutil.rmtree(tmp_path / "other")
    decide_later = diagnosed(lake, LATER + timedelta(days=1), "two")
    assert rows(decide_later, "shadow_lists") == before
    assert seen.as_of < decide_later.as_of


def test_comparisons_of_long_ago_are_no_longer_told(lake, candidate) -> None:
    night = diagnosed(lake, nights.day(50))
    assert rows(night, "shadow_candidates") == []


def test_without_a_comparison_the_tables_are_empty_and_the_gate_is_green(lake) -> None:
    night = diagnosed(lake)
    for name in shadow.NAMES:
        assert rows(night, name) == []
        assert all(one.success for one in gate.judge_table(night, name))


@pytest.mark.parametrize("text", ["{", '{"candidate": "x"}', '{"live": 1, "compared_at": "x"}'])
def test_a_comparison_that_cannot_be_read_is_named_and_stops_nothing(lake, candidate, text) -> None:
    (path,) = (lake.root / "shadow").glob("*/comparison.json")
    path.write_text(text)
    night = diagnosed(lake)
    (one,) = rows(night, "shadow_candidates")
    assert (one["candidate"], one["decision"]) == (candidate, "unreadable")
    (warned,) = [one for one in gate.judge_table(night, "shadow_candidates") if not one.success]
    assert warned.severity == "warning"
    assert str(path) in warned.sentence()


def test_a_comparison_of_before_builds_were_timed_is_read_all_the_same(lake, candidate) -> None:
    (path,) = (lake.root / "shadow").glob("*/comparison.json")
    old = io.read_json(path)
    del old["build_seconds"]
    for told in old["surfaces"].values():
        told.pop("rank_correlation", None)
    io.write_json(path, old)
    (one,) = rows(diagnosed(lake), "shadow_candidates")
    assert (one["candidate"], one["decision"], one["build_live"]) == (candidate, "open", None)


def test_a_comparison_made_later_tells_an_earlier_day_nothing_of_what_came_after(
    lake, candidate, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(compared, "LEAST", 2)
    bought(lake, nights.day(3))
    command(["shadow", f"--lake={lake.root}", str(tmp_path / "other")])
    (path,) = (lake.root / "shadow").glob("*/comparison.json")
    assert io.read_json(path)["bought_until"] == io.label(LATER)
    night = diagnosed(lake, nights.day(1))
    assert {row["verdict"] for row in rows(night, "shadow_lists")} == {"insufficient evidence"}
    (one,) = rows(night, "shadow_candidates")
    assert (one["bought_until"], one["loses"]) == (None, 0)
