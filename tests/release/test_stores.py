"""Keys and values come back as they went in, and a pointer only ever names a whole release."""

from __future__ import annotations

import json
from collections.abc import Iterator

import lmdb
import pyarrow as pa
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import Fault
from jobs.release import release, releases, stores
from jobs.release.reader import Reader, Scoped
from tests.release import nights
from tests.release.conftest import start_redis
from tests.release.nights import HOSTILE, SURFACE

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=700)


def test_a_key_is_its_parts_with_slashes_escaped_but_in_the_last():
    assert stores.key_of("i", "account", "900") == b"i/account/900"
    assert stores.key_of("i", "a/b", "c/d") == b"i/a%2Fb/c/d"
    assert stores.key_of("i", "100%", "%") == b"i/100%25/%"
    assert stores.key_of("s", "é") == "s/é".encode()


def test_a_key_too_long_for_lmdb_becomes_its_hash():
    assert len(stores.key_of("s", "x" * 509)) == 511
    long = stores.key_of("s", "x" * 510)
    assert long.startswith(b"z/")
    assert len(long) == 66


@given(st.lists(TEXT, min_size=2, max_size=2), st.lists(TEXT, min_size=2, max_size=2))
def test_different_parts_never_share_a_key(left, right):
    assert (stores.key_of("i", *left) == stores.key_of("i", *right)) == (left == right)


@given(st.lists(TEXT, min_size=1, max_size=8))
def test_any_string_survives_as_json(texts):
    assert [json.loads(one) for one in stores.json_strings(pa.array(texts)).to_pylist()] == texts


def test_numbers_are_json_with_single_precision():
    numbers = [0.1, 1e-30, -2.0, 123456789.0]
    found = [json.loads(one) for one in stores.json_numbers(pa.array(numbers)).to_pylist()]
    assert found == pytest.approx(numbers, rel=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None])
def test_a_score_without_a_number_is_refused(bad):
    with pytest.raises(Fault, match="null or not finite"):
        stores.json_numbers(pa.array([1.0, bad], pa.float64()))


def test_two_entries_with_one_key_are_refused(tmp_path):
    with pytest.raises(Fault, match="share a key"):
        stores.write_lmdb(tmp_path / "kv", [(b"a", b"1"), (b"a", b"2")])


def test_a_store_grows_beyond_its_first_size(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "FIRST_MAP", 1 << 16)
    monkeypatch.setattr(stores, "BATCH", 10)
    entries = [(f"{n:06d}".encode(), b"x" * 5_000) for n in range(200)]
    assert stores.write_lmdb(tmp_path / "kv", entries) == 200
    assert list(stores.LmdbStore(tmp_path / "kv").items()) == entries


def test_hostile_ids_come_back_from_lmdb(lake):
    published = nights.whole(lake)
    store = stores.LmdbStore(releases.root(lake) / published / "kv")
    check_hostile(store)


def test_hostile_ids_come_back_from_redis(lake, redis_url):
    published = nights.whole(lake, redis_url=redis_url)
    store = stores.RedisStore(redis_url)
    assert store.current() == published
    check_hostile(store)


def check_hostile(store: stores.Store) -> None:
    for text in HOSTILE:
        person = f"account:{text}"
        assert store.get("i", "account", text) == person
        assert len(store.get("r", SURFACE, person)["item_id"]) == 5
        assert store.get("s", "cart", text)["item_id"][0] == "i0"
    assert store.get("i", "device/id", "d%1") == "account:p0"
    assert store.get("i", "device", "id/d%1") == "account:p3"
    assert store.get("c", "trending", "region", "so/uth")["item_id"][0] == "i28"
    assert store.get("s", "similar", "nobody") is None


def test_redis_holds_every_entry_of_the_release(lake, redis_url):
    published = nights.whole(lake, redis_url=redis_url)
    embedded = stores.LmdbStore(releases.root(lake) / published / "kv")
    client = redis.Redis.from_url(redis_url)
    for key, value in embedded.items():
        assert client.get(f"nightjar:{published}:".encode() + key) == value
    # And the pointer, what may stand in for it, and the set of releases.
    assert client.dbsize() == embedded.count() + 3


def test_staged_keys_are_not_served_before_the_gate(lake, redis_url):
    first = nights.whole(lake, redis_url=redis_url)
    nights.publish(lake, nights.day(1), "run-2")
    nights.stage(lake, nights.day(1), "run-2", redis_url=redis_url)
    assert stores.RedisStore(redis_url).current() == first


def test_redis_keeps_the_releases_that_the_lake_keeps(lake, redis_url):
    made = [nights.whole(lake, nights.day(n), f"run-{n}", redis_url=redis_url) for n in range(4)]
    store = stores.RedisStore(redis_url)
    assert store.releases() == set(made[1:])
    assert store.get_of(made[0], "m") is None
    assert store.get_of(made[1], "m")["release_id"] == made[1]


def test_entries_of_another_format_are_not_read(lake, redis_url):
    made = [nights.whole(lake, nights.day(n), f"run-{n}", redis_url=redis_url) for n in range(2)]
    store, client = stores.RedisStore(redis_url), redis.Redis.from_url(redis_url)
    entry = f"nightjar:{made[1]}:m"
    meta = json.loads(client.get(entry))
    assert meta["format"] == releases.FORMAT
    client.set(entry, json.dumps(meta | {"format": releases.FORMAT + 1}))
    with pytest.raises(Fault, match=f"release {made[1]}: the format of its entries is"):
        Reader(Scoped(store, made[1]))
    assert Reader.open_redis(redis_url).release_id == made[0]
    (why,) = store.serving()[1]
    assert f"this program reads {releases.FORMAT}" in why
    client.set("nightjar:before", "[]")
    with pytest.raises(Fault, match="serve by the code of the nights that write to it"):
        store.serving()
    # Entries from before they named one are of the second.
    del meta["format"]
    client.set(entry, json.dumps(meta))
    assert (Reader.open_redis(redis_url).release_id == made[1]) == (releases.FORMAT == 2)


def test_keys_lost_between_job_and_gate_are_written_anew_by_the_gate(lake, redis_url):
    nights.publish(lake)
    night = nights.stage(lake, redis_url=redis_url)
    client = redis.Redis.from_url(redis_url)
    lost = next(client.scan_iter(match="nightjar:*:s/*"))
    value = client.getdel(lost)
    assert release.verify(night) == []
    assert client.get(lost) == value


def test_a_redis_that_does_not_keep_what_it_is_given_is_refused(lake, mortal_redis, monkeypatch):
    monkeypatch.setattr(stores, "PIPELINE", 10)
    nights.publish(lake)
    # A cache that another program fills too, then with room for half of it all.
    client = redis.Redis.from_url(mortal_redis.url)
    empty = client.info("memory")["used_memory"]
    for n in range(1_000):
        client.set(f"other:{n}", "x" * 300)
    night = nights.stage(lake, redis_url=mortal_redis.url)
    full = client.info("memory")["used_memory"]
    client.config_set("maxmemory-policy", "allkeys-random")
    client.config_set("maxmemory", (empty + full) // 2)
    with pytest.raises(ConnectionError, match=r"of 208 keys of the release .* run the step again"):
        release.verify(night)
    assert stores.RedisStore(mortal_redis.url).current() is None


def test_a_redis_that_cannot_be_reached_is_a_fault_that_a_retry_may_mend(lake, mortal_redis):
    nights.publish(lake)
    mortal_redis.kill()
    with pytest.raises(ConnectionError, match="does not answer"):
        nights.stage(lake, redis_url=mortal_redis.url)
    assert releases.current_id(lake) is None


def test_a_redis_that_dies_halfway_leaves_the_old_release_and_a_retry_is_whole(
    lake, tmp_path, mortal_redis, monkeypatch
):
    first = nights.whole(lake, redis_url=mortal_redis.url)
    nights.publish(lake, nights.day(1), "run-2")
    night = nights.stage(lake, nights.day(1), "run-2")
    embedded = stores.LmdbStore(night.staged / "release" / "kv")
    monkeypatch.setattr(stores, "PIPELINE", 10)

    def dying() -> Iterator[stores.Entry]:
        for place, entry in enumerate(embedded.items()):
            if place == 40:
                assert stores.RedisStore(mortal_redis.url).current() == first
                mortal_redis.kill()
            yield entry

    with pytest.raises(ConnectionError):
        stores.RedisStore(mortal_redis.url).stage("20171202T000000Z-0123456789", dying())
    again = start_redis(tmp_path)
    try:
        retried = nights.stage(lake, nights.day(1), "run-2", redis_url=again.url)
        assert release.verify(retried) == []
        second = release.publish(retried)
        assert stores.RedisStore(again.url).current() == second == releases.current_id(lake)
    finally:
        again.kill()


def test_a_pointer_that_could_not_be_moved_leaves_files_serving_and_a_retry_moves_it(
    lake, redis_url, monkeypatch
):
    first = nights.whole(lake, redis_url=redis_url)
    nights.publish(lake, nights.day(1), "run-2")
    night = nights.stage(lake, nights.day(1), "run-2", redis_url=redis_url)
    with monkeypatch.context() as patched:
        patched.setattr(stores.RedisStore, "point", _gone)
        with pytest.raises(ConnectionError):
            release.publish(night)
    assert stores.RedisStore(redis_url).current() == first
    second = release.publish(night)
    assert stores.RedisStore(redis_url).current() == second == releases.current_id(lake)


def _gone(*_: object) -> None:
    raise ConnectionError("gone")


def test_a_redis_without_memory_refuses_and_nothing_changes(lake, tmp_path):
    server = start_redis(tmp_path, "--maxmemory", "500kb", "--maxmemory-policy", "noeviction")
    try:
        nights.publish(lake)
        with pytest.raises(Fault, match="refuses"):
            nights.stage(lake, redis_url=server.url)
        assert stores.RedisStore(server.url).current() is None
    finally:
        server.kill()


def test_a_wrong_password_is_a_fault_and_no_secret_is_shown(tmp_path):
    server = start_redis(tmp_path, "--requirepass", "right")
    try:
        url = server.url.replace("redis://", "redis://:wrong@")
        with pytest.raises(Fault, match="refuses the user or password") as caught:
            stores.RedisStore(url).current()
        assert "wrong" not in str(caught.value)
    finally:
        server.kill()


def test_an_address_that_is_none_is_refused():
    with pytest.raises(Fault, match="is no address"):
        stores.RedisStore("localhost:6379")


def test_a_large_store_holds_every_entry(tmp_path):
    entries = [(f"s/{n:08d}".encode(), b"x" * 400) for n in range(100_000)]
    assert stores.write_lmdb(tmp_path / "kv", entries) == 100_000
    with lmdb.open(str(tmp_path / "kv"), readonly=True, lock=False) as env:
        assert env.stat()["entries"] == 100_000
