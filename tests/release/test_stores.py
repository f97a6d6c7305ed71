"""Keys and values come back as they went in, and a pointer only ever names a whole release."""

from __future__ import annotations

import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import lmdb
import pyarrow as pa
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from jobs import tables
from jobs.errors import Fault
from jobs.release import entries, release, releases, stores
from jobs.release.reader import Reader, Scoped
from tests.release import nights
from tests.release.conftest import start_redis
from tests.release.nights import HOSTILE, SURFACE

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=700)


def test_a_key_is_its_parts_with_slashes_escaped_but_in_the_last():
    assert entries.key_of("i", "account", "900") == b"i/account/900"
    assert entries.key_of("i", "a/b", "c/d") == b"i/a%2Fb/c/d"
    assert entries.key_of("i", "100%", "%") == b"i/100%25/%"
    assert entries.key_of("s", "é") == "s/é".encode()


def test_a_key_too_long_for_lmdb_becomes_its_hash():
    assert len(entries.key_of("s", "x" * 509)) == 511
    long = entries.key_of("s", "x" * 510)
    assert long.startswith(b"z/")
    assert len(long) == 66


@given(st.lists(TEXT, min_size=2, max_size=2), st.lists(TEXT, min_size=2, max_size=2))
def test_different_parts_never_share_a_key(left, right):
    assert (entries.key_of("i", *left) == entries.key_of("i", *right)) == (left == right)


@given(st.lists(TEXT, min_size=1, max_size=8))
def test_any_string_survives_as_json(texts):
    assert [json.loads(one) for one in entries.json_strings(pa.array(texts)).to_pylist()] == texts


def test_numbers_are_json_with_single_precision():
    numbers = [0.1, 1e-30, -2.0, 123456789.0]
    found = [json.loads(one) for one in entries.json_numbers(pa.array(numbers)).to_pylist()]
    assert found == pytest.approx(numbers, rel=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None])
def test_a_score_without_a_number_is_refused(bad):
    with pytest.raises(Fault, match="null or not finite"):
        entries.json_numbers(pa.array([1.0, bad], pa.float64()))


# Letters that keys escape, that JSON escapes, around the slash, and whose order in UTF-16 is not
# that of their bytes; a text of them may be empty, or as long as a key may be and a little longer.
LETTERS = ("%", "/", "%2F", "%25", ".", "-", "0", "a", '"', "\\", "\0", "\n", "\x1f", "\x7f", "é",
           "漢", "\u2028", "\ufb01", "\uffff", "🦉", "\U0010ffff")  # fmt: skip
LONG = (450, 520)


@pytest.mark.parametrize("seed", range(8))
def test_entries_are_those_that_the_format_describes(seed, monkeypatch):
    monkeypatch.setattr(entries, "LISTS", 3)
    monkeypatch.setattr(entries, "BATCH", 4)
    frames, surfaces = nasty(random.Random(seed), drawn=bool(seed % 2))
    meta = {"release_id": "é", "surfaces": {}}
    found = list(entries.of(frames, {k: lambda v=v: v for k, v in surfaces.items()}, meta))
    assert found == described(frames, surfaces, meta)
    hashed = [key.startswith(b"z/") for key, _ in found]
    assert hashed == sorted(hashed)
    assert any(hashed)


def nasty(rng: random.Random, drawn: bool) -> tuple[dict[str, pa.Table], dict[str, pa.Table]]:
    """Tables of a release whose ids are hard to write, some in order and some in none; and by
    surface the lists of persons."""

    def texts(count: int) -> list[str]:
        found = {
            "",
            "a",
            "a/",
            "a%2F",
            "x" * rng.randrange(*LONG),
            "é" * (rng.randrange(*LONG) // 2),
        }
        while len(found) < count:
            found.add("".join(rng.choices(LETTERS, k=rng.randrange(6))))
        return rng.sample(sorted(found), count)

    def some(of: list[str], most: int) -> list[str]:
        return rng.sample(of, rng.randrange(most))

    def table(name: str, rows: list[tuple], columns: str) -> pa.Table:
        names = columns.split()
        schema = pa.schema([tables.TABLES[name].schema.field(one) for one in names])
        order = rng.choice([sorted, lambda rows, key: rng.sample(rows, len(rows))])
        rows = order(rows, key=repr)
        halves = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
        return pa.concat_tables(
            pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in half], schema)
            for half in halves
        )

    def places(length: int) -> list[tuple]:
        return [
            (rank, rng.choice(items), rng.choice([1.0, 1e-30, -2e9, rng.random()]),
             some(["popular", 'so"urce', ""], 3), rng.random() if drawn else 1.0)
            for rank in range(1, length + 1)
        ]  # fmt: skip

    people, items, kinds = texts(20), texts(20), texts(9)
    place = "rank item_id score sources"
    own = {
        surface: table(
            "recommendations",
            [(surface, one, *at[: 5 if drawn else 4])
             for one in people for at in places(rng.randrange(4))],
            f"surface person_id {place} propensity" if drawn else f"surface person_id {place}",
        )
        for surface in kinds
    }  # fmt: skip
    return {
        "identities": table(
            "identities",
            [(kind, key, rng.choice(people)) for kind in kinds for key in some(people, 9)],
            "key_type key person_id",
        ),
        "persons": table(
            "persons",
            [(one, rng.choice([None, *kinds]), rng.choice([None, "s"]), rng.random() < 0.5,
              rng.choice([None, [], [None], some(kinds, 4)])) for one in people],
            "person_id region segment personalised restrictions",
        ),
        "blocked_pairs": table(
            "blocked_pairs", [(one, item) for one in people[:9] for item in some(items, 4)],
            "person_id item_id",
        ),
        "context_lists": table(
            "context_lists",
            [(surface, kind, context, *at) for surface in kinds[:4] for kind in kinds[2:5]
             for context in some(people, 4) for at in places(2)],
            f"surface context_kind context {place} propensity",
        ),
        "item_lists": table(
            "item_lists",
            [(surface, item, *at[:3]) for surface in kinds[:4] for item in some(items, 9)
             for at in places(3)],
            "surface item_id rank listed_item_id score",
        ),
        "ineligible_items": table(
            "ineligible_items",
            [(item, kind, value) for item in [*items, *texts(9)] for kind in some(kinds, 3)
             for value in some(kinds, 3)],
            "item_id kind value",
        ),
    }, own  # fmt: skip


def described(
    frames: dict[str, pa.Table], surfaces: dict[str, pa.Table], meta: dict[str, Any]
) -> list[entries.Entry]:
    """The entries as docs/release-format.md describes them, row by row."""
    rows = {name: frame.to_pylist() for name, frame in frames.items()}
    own = [row for frame in surfaces.values() for row in frame.to_pylist()]
    beside = [{**row, "for": row["item_id"], "item_id": row["listed_item_id"]}
              for row in rows["item_lists"]]  # fmt: skip
    shared = rows["context_lists"]
    listed = {row["item_id"] for row in shared + beside}
    excluded = [row for row in rows["ineligible_items"] if row["item_id"] in listed]
    lists: dict[tuple[str, ...], dict[str, list]] = defaultdict(lambda: defaultdict(list))
    place = ["item_id", "score", "sources"]
    for kind, some, key, members in (
        ("b", rows["blocked_pairs"], ["person_id"], ["item_id"]),
        ("r", own, ["surface", "person_id"], place),
        ("c", shared, ["surface", "context_kind", "context"], place),
        ("s", beside, ["surface", "for"], ["item_id", "score"]),
        ("e", excluded, ["item_id"], ["kind", "value"]),
    ):
        for row in sorted(some, key=lambda row: row.get("rank", 0)):
            explores = members is place and any(one.get("propensity", 1.0) < 1.0 for one in some)
            for name in [*members, *(["propensity"] if explores else [])]:
                lists[kind, *(row[part] for part in key)][name].append(row[name])
    found: dict[tuple[str, ...], Any] = {("m",): meta, **lists}
    for row in rows["identities"]:
        found["i", row["key_type"], row["key"]] = row["person_id"]
    for row in rows["persons"]:
        found["n", row.pop("person_id")] = row
    entries = [
        (described_key(key), described_value(value).encode()) for key, value in found.items()
    ]
    return sorted(entries, key=lambda entry: (entry[0].startswith(b"z/"), entry))


def described_key(parts: tuple[str, ...]) -> bytes:
    kind, *rest = parts
    escaped = [part.replace("%", "%25").replace("/", "%2F") for part in rest[:-1]]
    whole = "/".join([kind, *escaped, *rest[-1:]]).encode()
    return whole if len(whole) <= 511 else b"z/" + hashlib.sha256(whole).hexdigest().encode()


def described_value(value: Any) -> str:
    if isinstance(value, dict):
        members = (f"{json.dumps(name)}:{described_value(one)}" for name, one in value.items())
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(described_value(one) for one in value) + "]"
    if isinstance(value, float):
        return pa.scalar(value, pa.float32()).cast(pa.string()).as_py()
    return json.dumps(value, ensure_ascii=False)


def test_rows_in_any_order_make_the_same_lists():
    rows = pa.table({"person_id": ["b", "a", "b", "a"], "rank": [2, 1, 1, 2], "item_id": [*"wxyz"]})
    for order in ([0, 1, 2, 3], [1, 3, 2, 0], [3, 1, 0, 2], [2, 0, 1, 3]):
        found = entries.lists(
            "r", rows.take(order), ["person_id"], "rank", entries.strings("item_id")
        )
        keys, values = (column.to_pylist() for column in found)
        assert dict(zip(keys, values, strict=True)) == {
            b"r/a": b'{"item_id":["x","z"]}', b"r/b": b'{"item_id":["y","w"]}',
        }  # fmt: skip


def test_a_key_without_one_of_its_parts_is_refused():
    rows = pa.table({"key_type": ["account", None], "key": ["1", "2"]})
    with pytest.raises(Fault, match=r"1 entries i/… lack one of key_type, key"):
        entries.keys("i", rows)


def test_two_entries_with_one_key_are_refused(tmp_path):
    with pytest.raises(Fault, match="share a key"):
        stores.write_lmdb(tmp_path / "kv", [(b"a", b"1"), (b"a", b"2")])


def test_a_store_grows_beyond_its_first_size(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "FIRST_MAP", 1 << 16)
    monkeypatch.setattr(stores, "BATCH", 10)
    found = [(f"{n:06d}".encode(), b"x" * 5_000) for n in range(200)]
    assert stores.write_lmdb(tmp_path / "kv", found) == 200
    assert list(stores.LmdbStore(tmp_path / "kv").items()) == found


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

    def dying() -> Iterator[entries.Entry]:
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
