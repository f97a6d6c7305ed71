"""What was served is logged as the contract has it, whole, and the next night learns from it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import io, tables
from jobs.errors import Fault
from jobs.night import Night
from jobs.ordering import logged
from jobs.ordering.surfaces import Surface
from jobs.release import basis, recorder, releases
from jobs.release.reader import Reader
from jobs.release.recorder import Recorder, Request
from jobs.release.retriever import Retriever
from jobs.scoring import features
from jobs.sources import contract
from jobs.spark import engine_file
from tests.release import nights
from tests.release.nights import HOSTILE

ROOT = Path(__file__).resolve().parents[2]
NOW = nights.AS_OF + timedelta(hours=7)


def fresh():
    """A moment at which the first night's release is a few hours old."""
    return NOW


def asked(number: int = 0, key: str = "p0", **more) -> Request:
    return Request(f"r{number}", NOW, "account", key, **more)


@pytest.fixture
def reader(lake) -> Reader:
    nights.whole(lake)
    return Reader.open(lake.root, now=fresh)


@pytest.fixture
def served(tmp_path) -> Path:
    """A source's folder, with its events and nothing else yet."""
    io.write_arrow(tmp_path / "served/events", contract.schema("events").empty_table())
    return tmp_path / "served"


def rows(folder: Path) -> list[dict]:
    found = io.read_arrow(folder / "recommendation_log").to_pylist()
    return sorted(found, key=lambda row: (row["request_id"], row["position"]))


def log_one(reader, served, answer, request=None, lake=None) -> list[dict]:
    with_lake = Recorder(served, lake)
    with_lake.record(answer, request or asked())
    with_lake.flush()
    return rows(served)


# --- what is in a row ------------------------------------------------------------------------
def test_a_personal_list_is_logged_with_all_that_the_contract_has(lake, reader, served):
    answer = reader.recommendations("account:p0")
    request = asked(latency_ms=1.5, shown=[1, None, 2], experiment="e", arm="b")
    found = log_one(reader, served, answer, request, lake.root)
    assert [row["item_id"] for row in found] == [item.item_id for item in answer.items]
    assert [row["position"] for row in found] == [1, 2, 3, 4, 5]
    assert [row["shown_position"] for row in found] == [1, None, 2, None, None]
    assert [row["override_reason"] for row in found] == [None, "rule spring", None, None, None]
    first = found[0]
    assert set(first) == {column.name for column in contract.CONTRACT["recommendation_log"]}
    wanted = {
        "request_id": "r0", "request_time": NOW, "surface": "homepage", "key_type": "account",
        "key": "p0", "propensity": 1.0, "release_id": reader.release_id,
        "score": answer.items[0].score, "experiment": "e", "arm": "b", "fallback": None,
        "latency_ms": 1.5, "feature_version": features.VERSION, "feature_hash": "0" * 64,
    }  # fmt: skip
    assert {name: first[name] for name in wanted} == wanted


def test_features_are_those_that_the_release_published_for_the_person_and_the_item(
    lake, reader, served
):
    found = log_one(reader, served, reader.recommendations("account:p0"), None, lake.root)
    published = nights.tables_of_night()["features"]
    at = {
        (row["person_id"], row["item_id"]): number
        for number, row in enumerate(published.to_pylist())
    }
    wanted = features.read(published)[[at["account:p0", row["item_id"]] for row in found]]
    logged_values = np.array(
        [[dict(row["features"]).get(name, np.nan) for name in tables.FEATURES] for row in found],
        np.float32,
    )
    np.testing.assert_array_equal(logged_values, wanted)
    assert features.hashes(logged_values) == features.hashes(wanted)
    # What was not known is not in the map.
    assert all(value is not None for row in found for _, value in row["features"])
    assert len(found[0]["features"]) == len(tables.SOURCES)


def test_what_fills_a_place_has_no_features_and_says_why_it_is_there(lake, reader, served):
    answer = reader.recommendations("account:p0", length=5, without={"i1"})
    found = log_one(reader, served, answer, None, lake.root)
    assert [row["features"] is None for row in found] == [False] * 4 + [True]
    assert [row["fallback"] for row in found] == [None] * 4 + [recorder.FILLED]
    assert found[4]["feature_hash"] is None


@pytest.mark.parametrize("who", ["account:p1", None])
def test_a_list_that_stands_in_is_logged_with_its_reason_and_without_features(
    lake, reader, served, who
):
    answer = reader.recommendations(who)
    found = log_one(reader, served, answer, None, lake.root)
    assert {row["fallback"] for row in found} == {answer.reason}
    assert {row["features"] for row in found} == {None}
    assert {row["override_reason"] for row in found} == {None}


def test_shared_lists_and_searches_are_no_fallback_and_keep_their_propensity(lake, reader, served):
    with Recorder(served, lake.root) as log:
        log.record(reader.recommendations("account:p3", "feed", 5), asked(1))
        log.record(reader.beside(["i9"], "cart"), asked(2))
        search = Retriever.open(lake.root, now=fresh)
        log.record(search.for_person("account:p0", "feed"), asked(3))
    found = rows(served)
    assert {row["fallback"] for row in found} == {None}
    assert [row["propensity"] for row in found if row["request_id"] == "r1"] == [
        1.0, 1.0, 1.0, 0.5, 1.0,
    ]  # fmt: skip
    assert {row["surface"] for row in found if row["request_id"] == "r2"} == {"cart"}
    assert len([row for row in found if row["request_id"] == "r3"]) == 20


def test_answers_of_two_releases_have_the_features_of_their_own(lake, reader, served):
    second = nights.whole(lake, nights.day(1), "run-2")
    with Recorder(served, lake.root) as log:
        log.record(reader.recommendations("account:p0"), asked(1))
        log.record(Reader.open(lake.root, now=fresh).recommendations("account:p0"), asked(2))
    found = rows(served)
    assert {row["request_id"]: row["release_id"] for row in found} == {
        "r1": reader.release_id, "r2": second,
    }  # fmt: skip
    assert all(row["features"] for row in found)


def test_hostile_ids_come_back_as_they_went_in(lake, reader, served):
    with Recorder(served, lake.root) as log:
        for number, text in enumerate(HOSTILE):
            answer = reader.recommendations(f"account:{text}")
            log.record(answer, asked(number, text))
    found = rows(served)
    assert {row["key"] for row in found} == set(HOSTILE)
    assert len(found) == 5 * len(HOSTILE)
    assert all(row["features"] for row in found)


def test_a_time_of_another_zone_is_logged_in_utc(lake, reader, served):
    there = datetime(2017, 12, 1, 9, tzinfo=timezone(timedelta(hours=2)))
    answer = reader.recommendations("account:p0")
    found = log_one(reader, served, answer, Request("r", there, "account", "p0"))
    assert found[0]["request_time"] == datetime(2017, 12, 1, 7, tzinfo=UTC)


def test_a_request_that_no_log_can_hold_is_refused_with_all_that_is_wrong():
    with pytest.raises(Fault) as caught:
        Request("r", datetime(2017, 12, 1), "account", "half \ud83e", "1", [0, "2"])
    for words in ("key is no text", "time has no zone", "shown has", "latency_ms is no number"):
        assert words in str(caught.value)


# --- looking features up ---------------------------------------------------------------------
def test_only_row_groups_that_may_hold_a_person_are_read(tmp_path, monkeypatch):
    people = [f"p{n:03d}" for n in range(40)]
    schema = tables.TABLES["features"].schema
    given = [
        {name: 1.0 for name in tables.FEATURES}
        | {"person_id": person, "item_id": item, "event_timestamp": NOW,
           "feature_version": "v", "feature_hash": f"{person} {item}"}
        for person in people for item in ("a", "b")
    ]  # fmt: skip
    table = pa.Table.from_pylist(given, schema)
    for number in range(2):
        path = tmp_path / f"part-{number}.parquet"
        pq.write_table(table.slice(40 * number, 40), path, row_group_size=8)
    read = []
    whole = pq.ParquetFile.read_row_group

    def counted(self, group, *args, **kwargs):
        read.append(group)
        return whole(self, group, *args, **kwargs)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    found = basis.PersonRows(tmp_path).of({"p003", "p021", "p999"})
    assert [hash_ for rows in found for hash_ in rows["feature_hash"].to_pylist()] == [
        "p003 a", "p003 b", "p021 a", "p021 b",
    ]  # fmt: skip
    assert read == [0, 0]


def test_who_was_asked_about_lately_is_not_read_again(lake):
    folder = releases.root(lake) / nights.whole(lake)
    known = basis.Basis(releases.load(folder), people=2)
    first = known.of(["account:p0", "account:p2"])
    shutil.rmtree(folder)  # retired
    assert known.of(["account:p2", "account:p0"]) == first
    with pytest.raises(OSError, match="features"):
        known.of(["account:p0", "account:p3"])


def test_of_a_release_that_went_everything_but_features_is_logged(lake, reader, served, caplog):
    answer = reader.recommendations("account:p0")
    shutil.rmtree(releases.root(lake) / reader.release_id)
    found = log_one(reader, served, answer, None, lake.root)
    assert len(found) == 5
    assert {row["features"] for row in found} == {None}
    assert "recorder=no_features" in caplog.text
    assert "p0" not in caplog.text


# --- appending -------------------------------------------------------------------------------
def test_every_flush_adds_one_file_and_nothing_is_logged_twice(reader, served):
    log = Recorder(served)
    assert log.flush() is None
    for number in range(3):
        log.record(reader.recommendations("account:p0"), asked(number))
        assert log.flush().parent == served / "recommendation_log"
    assert log.flush() is None
    assert len(io.parquet_files(served / "recommendation_log")) == 3
    assert len(rows(served)) == 15


def test_an_answer_of_nothing_makes_no_row_and_no_file(reader, served):
    log = Recorder(served)
    log.record(reader.recommendations(None, "discover"), asked())
    assert log.flush() is None
    assert not (served / "recommendation_log").exists()


def test_a_recorder_that_nobody_flushes_writes_by_itself(reader, served):
    log = Recorder(served, most=2)
    for number in range(5):
        log.record(reader.recommendations("account:p0"), asked(number))
    assert len(io.parquet_files(served / "recommendation_log")) == 2
    assert len(rows(served)) == 20


def test_many_threads_log_every_answer_once(lake, reader, served):
    log = Recorder(served, lake.root, most=7)

    def serve(worker: int) -> None:
        for number in range(20):
            log.record(reader.recommendations("account:p0"), asked(100 * worker + number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(serve, range(4)))
    log.flush()
    found = rows(served)
    assert len(found) == 4 * 20 * 5
    assert len({row["request_id"] for row in found}) == 80


def test_what_could_not_be_written_waits_for_the_next_flush(reader, served):
    log = Recorder(served)
    log.record(reader.recommendations("account:p0"), asked(1))
    (served / "recommendation_log").write_text("in the way")
    with pytest.raises(OSError, match="recommendation_log"):
        log.flush()
    (served / "recommendation_log").unlink()
    log.record(reader.recommendations("account:p0"), asked(2))
    log.flush()
    assert {row["request_id"] for row in rows(served)} == {"r1", "r2"}


def test_who_reads_the_folder_meanwhile_only_ever_sees_whole_files(reader, served):
    log, stop = Recorder(served), threading.Event()
    answer = reader.recommendations("account:p0")
    seen = []

    def look() -> None:
        while not stop.is_set():
            facts = {one.table: one for one in contract.check(served)}
            seen.append(facts["recommendation_log"].rows)

    watcher = ThreadPoolExecutor(1).submit(look)
    for flush in range(20):
        for number in range(10):
            log.record(answer, asked(10 * flush + number))
        log.flush()
    stop.set()
    watcher.result()
    assert all(count % 50 == 0 for count in seen)
    assert len(rows(served)) == 1_000


def test_a_program_that_is_killed_while_it_writes_leaves_no_half_file(reader, served):
    program = f"""
import os, signal
from pathlib import Path
import pyarrow.parquet as pq
from jobs import io
from jobs.sources import contract
whole = pq.write_table
def cut(table, file, **kwargs):
    whole(table, file, **kwargs)
    file.truncate(file.tell() // 2)
    os.kill(os.getpid(), signal.SIGKILL)
pq.write_table = cut
io.append_arrow(Path({str(served)!r}) / "recommendation_log", "one",
                contract.schema("recommendation_log").empty_table())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert os.listdir(served / "recommendation_log")
    assert {one.table: one.files for one in contract.check(served)}["recommendation_log"] == 0
    log_one(reader, served, reader.recommendations("account:p0"))
    assert {one.table: one.rows for one in contract.check(served)}["recommendation_log"] == 5


def test_rows_that_are_none_of_the_log_are_refused(served):
    with pytest.raises(Fault, match="not the contract's"):
        recorder.append(served, contract.schema("editorial").empty_table())


# --- the way back into the night -------------------------------------------------------------
def test_the_contract_takes_the_folder_and_the_next_night_learns_from_it(
    lake, reader, served, engine
):
    with Recorder(served, lake.root) as log:
        request = asked(1, shown=[1, 2])
        log.record(reader.recommendations("account:p0"), request)
        log.record(reader.recommendations("account:p3", "feed", 5), asked(2, "p3"))
        stranger = Request("r3", NOW, "cookie", "unknown")
        log.record(reader.recommendations(None, "homepage"), stranger)
    facts = {one.table: one for one in contract.check(served)}
    assert facts["recommendation_log"].rows == len(rows(served)) == 5 + 5 + 20

    later = nights.day(1)
    nights.publish(lake, later, "run-2")
    source = lake.published("source", later)
    io.write_json(source.table("source.json"), {"folder": str(served)})
    engine.save(engine_file(lake))
    night = Night(lake, later, "run-2", "test", "recommendations")
    assert pairs(logged.shown(night, 7, "homepage")) == {("account:p0", "i1"), ("account:p0", "i2")}
    assert len(pairs(logged.shown(night, 7, "feed"))) == 5
    feed = Surface(
        grain="context", blended="ordering", sources={"popular": 1.0}, explore_places=1,
        explore_rewards=("purchase",),
    )  # fmt: skip
    explored = logged.explored(night, "feed", feed).to_pylist()
    assert explored == [{"source": "popular", "impressions": 1, "conversions": 0}]

    read = contract.read(night.spark, served, "recommendation_log").toArrow().to_pylist()
    by_place = {(row["request_id"], row["position"]): row for row in read}
    for row in rows(served):
        same = by_place[row["request_id"], row["position"]]
        assert dict(same.pop("features") or ()) == dict(row.pop("features") or ())
        assert same == row


def pairs(found) -> set[tuple[str, str]]:
    return {(row["person_id"], row["item_id"]) for row in found.to_pylist()}
