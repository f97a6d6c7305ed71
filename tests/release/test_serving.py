"""A program that serves for days follows the pointer, and keeps what it has where it cannot."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from jobs import io
from jobs.errors import Fault
from jobs.io import Lake
from jobs.refresh.route import Refresh
from jobs.release import release, releases, serving, stores
from jobs.release.rollback import rollback
from jobs.release.serving import Gauge, Serving
from tests.release import nights
from tests.release.conftest import start_redis

AT_ONCE = timedelta(0)


def now():
    """A moment three days after the first night."""
    return nights.day(3)


def night(lake: Lake, number: int, redis_url: str | None = None) -> str:
    """Publish the night of this number; returns the release's id."""
    return nights.whole(lake, nights.day(number), f"run-{number}", redis_url=redis_url)


@pytest.fixture(params=["files", "redis"])
def place(request, lake, redis_url):
    """Where one program serves from: a function that opens it, and the Redis it may stand in."""

    def open_(retry: timedelta = AT_ONCE) -> Serving:
        if request.param == "redis":
            return Serving.open_redis(redis_url, now, retry)
        return Serving.open(lake.root, now, retry=retry)

    return open_


def hours_between(lake: Lake, redis_url: str | None) -> tuple[str, str, str]:
    """A night, its refresh five hours after the next run date, and the night of that date."""
    first, named = night(lake, 0, redis_url), io.label(nights.day(0))
    five = nights.day(1) + timedelta(hours=5)
    chain = Refresh(base=named, night=named)
    hour = nights.whole(lake, five, "hour", redis_url=redis_url, refresh=chain)
    return first, hour, night(lake, 1, redis_url)


# --- following -------------------------------------------------------------------------------
def test_a_new_release_is_taken_up_with_the_next_request(place, lake, redis_url):
    first = night(lake, 0, redis_url)
    program = place()
    before = program.reader()
    assert before.release_id == first
    assert program.reader() is before
    second = night(lake, 1, redis_url)
    assert program.reader().release_id == second
    # A request under way keeps to the release that it began with.
    assert before.recommendations("account:p0").release_id == first


def test_a_rollback_is_followed_too(place, lake, redis_url):
    first, second = (night(lake, number, redis_url) for number in range(2))
    program = place()
    assert program.reader().release_id == second
    rollback(lake, None, redis_url, "test")
    assert program.reader().release_id == first


def test_while_the_new_release_is_not_whole_the_old_one_answers(lake, tmp_path, caplog):
    first = night(lake, 0)
    program = Serving.open(lake.root, now, retry=AT_ONCE)
    second = night(lake, 1)
    index, aside = releases.root(lake) / second / "index/items.faiss", tmp_path / "aside"
    shutil.move(index, aside)
    with caplog.at_level(logging.WARNING, "nightjar"):
        for _ in range(3):
            assert program.reader().release_id == first
    assert caplog.text.count("index/items.faiss is missing") == 1
    shutil.move(aside, index)
    assert program.reader().release_id == second


def test_a_release_that_is_not_whole_is_looked_at_again_after_a_while_alone(lake, tmp_path):
    first = night(lake, 0)
    program = Serving.open(lake.root, now, retry=timedelta(hours=1))
    second = night(lake, 1)
    index, aside = releases.root(lake) / second / "index/items.faiss", tmp_path / "aside"
    shutil.move(index, aside)
    assert program.reader().release_id == first
    shutil.move(aside, index)
    assert program.reader().release_id == first
    # Another name in the pointer is looked at without waiting.
    third = night(lake, 2)
    assert program.reader().release_id == third


@pytest.mark.parametrize("damage", ["gone", "empty", "noise", "a folder"])
def test_a_pointer_that_cannot_be_read_keeps_the_release_in_use(lake, damage):
    night(lake, 0)
    second = night(lake, 1)
    program = Serving.open(lake.root, now, retry=AT_ONCE)
    third = night(lake, 2)
    pointer = releases.root(lake) / "CURRENT"
    pointer.unlink()
    if damage == "a folder":
        pointer.mkdir()
    elif damage != "gone":
        pointer.write_bytes(b"" if damage == "empty" else b"\xff\xfe")
    assert program.reader().release_id == second
    if damage == "a folder":
        pointer.rmdir()
        releases.switch(lake, second)
        assert program.reader().release_id == second
    releases.switch(lake, third)
    assert program.reader().release_id == third


def test_after_a_rollback_to_a_damaged_release_what_was_rolled_back_is_left_all_the_same(lake):
    first, second, third = (night(lake, number) for number in range(3))
    program = Serving.open(lake.root, now, retry=AT_ONCE)
    assert program.reader().release_id == third
    releases.switch(lake, second)
    (releases.root(lake) / second / "scorer/scorer.json").unlink()
    assert program.reader().release_id == first


def test_every_time_that_the_pointer_goes_is_told_once(lake, caplog):
    first = night(lake, 0)
    program = Serving.open(lake.root, now, retry=AT_ONCE)
    for _ in range(2):
        (releases.root(lake) / "CURRENT").unlink()
        for _ in range(3):
            program.reader()
        releases.switch(lake, first)
        program.reader()
    assert caplog.text.count("the pointer names no release") == 2


def test_a_whole_lake_that_went_away_leaves_the_release_in_use_answering(lake):
    first = night(lake, 0)
    program = Serving.open(lake.root, now, retry=AT_ONCE)
    os.rename(lake.root, lake.root.with_name("away"))
    assert program.reader().release_id == first
    assert program.reader().recommendations("account:p0").kind == "personal"


def test_many_threads_never_see_two_releases_in_one_answer(place, lake, redis_url):
    made = [night(lake, 0, redis_url)]
    program, stop = place(), threading.Event()

    def ask() -> set[str]:
        seen = set()
        while not stop.is_set():
            reader = program.reader()
            answers = [reader.recommendations("account:p0"), reader.beside(["i9"], "cart")]
            assert {one.release_id for one in answers} == {reader.release_id}
            assert all(len(one.items) == 5 for one in answers)
            seen.add(reader.release_id)
        return seen

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        try:
            made += [night(lake, number, redis_url) for number in (1, 2)]
        finally:
            stop.set()
        for one in asking:
            assert one.result() <= set(made)
    assert program.reader().release_id == made[-1]


# --- Redis -----------------------------------------------------------------------------------
def test_while_redis_does_not_answer_the_reader_stays_and_says_so(lake, tmp_path, mortal_redis):
    first = night(lake, 0, mortal_redis.url)
    program = Serving.open_redis(mortal_redis.url, now, AT_ONCE)
    mortal_redis.kill()
    reader = program.reader()
    assert reader.release_id == first
    with pytest.raises(ConnectionError, match="does not answer"):
        reader.recommendations("account:p0")


def test_redis_that_lost_the_newest_release_serves_the_one_before(lake, redis_url, caplog):
    first, second = (night(lake, number, redis_url) for number in range(2))
    program = Serving.open_redis(redis_url, now, AT_ONCE)
    redis.Redis.from_url(redis_url).delete(f"nightjar:{second}:m")
    assert program.reader().release_id == second  # its other keys are there
    with caplog.at_level(logging.WARNING, "nightjar"):
        assert Serving.open_redis(redis_url, now, AT_ONCE).reader().release_id == first
    assert f"has lost keys of the release {second}" in caplog.text


def test_what_was_rolled_back_never_stands_in_whatever_its_run_date(lake, redis_url):
    first, hour, second = hours_between(lake, redis_url)
    rollback(lake, hour, redis_url, "test")
    redis.Redis.from_url(redis_url).delete(f"nightjar:{hour}:m")
    assert stores.RedisStore(redis_url).serving()[0] == first
    redis.Redis.from_url(redis_url).delete(f"nightjar:{first}:m")
    with pytest.raises(Fault, match=f"holds no whole release .* --to={hour}"):
        stores.RedisStore(redis_url).serving()
    assert stores.RedisStore(redis_url).get_of(second, "m") is not None


def test_an_emptied_redis_is_a_fault_and_no_list_of_nothing(lake, redis_url):
    night(lake, 0, redis_url)
    program = Serving.open_redis(redis_url, now, AT_ONCE)
    redis.Redis.from_url(redis_url).flushall()
    for _ in range(2):
        with pytest.raises(Fault, match="is gone, and the pointer names no release"):
            program.reader()
    second = night(lake, 1, redis_url)
    assert program.reader().release_id == second


# --- gauges ----------------------------------------------------------------------------------
def test_while_all_is_well_the_three_gauges_are_one(place, lake, redis_url):
    night(lake, 0, redis_url)
    second = night(lake, 1, redis_url)
    found = place().gauges()
    assert found == serving.Gauges(*[Gauge(second, nights.day(1), 48.0)] * 3)


def test_a_night_is_newer_than_a_refresh_of_the_one_before_with_a_later_run_date(
    place, lake, redis_url
):
    _, _, second = hours_between(lake, redis_url)
    found = place().gauges()
    assert found == serving.Gauges(*[Gauge(second, nights.day(1), 48.0)] * 3)


def test_a_release_that_is_built_but_not_whole_shows_in_the_first_gauge_alone(lake):
    first = night(lake, 0)
    program = Serving.open(lake.root, now, retry=AT_ONCE)
    second = night(lake, 1)
    (releases.root(lake) / second / "index/items.faiss").unlink()
    found = program.gauges()
    assert (found.newest_built.release_id, found.newest_built.age_hours) == (second, 48.0)
    assert (found.newest_valid.release_id, found.newest_valid.age_hours) == (first, 72.0)
    assert found.in_use == found.newest_valid


def test_what_was_rolled_back_is_built_and_not_valid(place, lake, redis_url):
    first, second = (night(lake, number, redis_url) for number in range(2))
    program = place()
    rollback(lake, None, redis_url, "test")
    found = program.gauges()
    assert found.newest_built.release_id == second
    assert found.newest_valid.release_id == first
    assert found.in_use.release_id == second  # nobody asked since
    program.reader()
    assert program.gauges().in_use.release_id == first


def test_a_release_that_is_not_taken_up_yet_is_valid_and_not_in_use(place, lake, redis_url):
    first = night(lake, 0, redis_url)
    program = place()
    second = night(lake, 1, redis_url)
    found = program.gauges()
    assert (found.newest_valid.release_id, found.in_use.release_id) == (second, first)


def test_what_waits_for_its_gate_is_built_in_redis_and_not_in_files(lake, redis_url):
    first = night(lake, 0, redis_url)
    nights.publish(lake, nights.day(1), "run-1")
    made = nights.stage(lake, nights.day(1), "run-1", redis_url=redis_url)
    staged = json.loads((made.staged / "release.json").read_text())["id"]
    assert serving.gauges(lake.root, now=now).newest_built.release_id == first
    found = serving.gauges_of_redis(redis_url, now=now)
    assert (found.newest_built.release_id, found.newest_valid.release_id) == (staged, first)
    assert release.verify(made) == []


def test_without_any_release_the_gauges_are_empty(lake, redis_url):
    nothing = serving.Gauges(None, None, None)
    assert serving.gauges(lake.root) == nothing
    assert serving.gauges(Path(lake.root) / "nowhere") == nothing
    assert serving.gauges_of_redis(redis_url) == nothing


def test_the_gauges_of_a_redis_that_is_away_are_refused(tmp_path):
    server = start_redis(tmp_path)
    server.kill()
    with pytest.raises(ConnectionError, match="does not answer"):
        serving.gauges_of_redis(server.url)
