"""The benchmark of reading: its release is whole, and what it asks is answered."""

from __future__ import annotations

import shutil

import pytest

from jobs import io
from jobs.io import Lake
from jobs.release import releases, stores
from jobs.release.reader import Reader
from tools import bench_reader

PEOPLE, ITEMS = 60, 1_500


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Lake:
    made = Lake(tmp_path_factory.mktemp("reader") / "lake").open()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_reader, "OF_CANDIDATES", 50)
        bench_reader.generate(made, PEOPLE, ITEMS)
    return made


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(bench_reader, "ITEMS", ITEMS)
    monkeypatch.setattr(bench_reader, "RECORDED", 30)
    monkeypatch.setattr(bench_reader, "JUDGED", 20)


def test_the_drawn_release_is_whole_and_gives_everybody_a_list(lake):
    release, passed = releases.serving(lake, deep=True)
    assert passed == []
    assert io.count_rows(release.path("features")) == PEOPLE * bench_reader.LENGTH
    reader = Reader.open(lake.root, now=bench_reader._now)
    for key in ("00000000", f"{PEOPLE - 1:08d}"):
        answer = reader.recommendations(reader.person("account", key))
        assert answer.kind == "personal"
        assert len({one.item_id for one in answer.items}) == bench_reader.LENGTH
    assert len(reader.recommendations(None).items) == bench_reader.LENGTH
    assert reader.beside(["000003"], "cart", "account:00000001").kind == "beside"


def test_every_question_is_asked_of_every_store_and_told(lake, tmp_path):
    with bench_reader.redis_server(tmp_path) as url:
        if url:
            published = releases.current_id(lake)
            store = stores.RedisStore(url)
            embedded = stores.LmdbStore(releases.root(lake) / published / "kv")
            store.stage(published, embedded.items())
            store.point(published)
        told = bench_reader.serve(lake.root, url, 40)
    assert set(told["times"]) == {"LMDB", "index", "memory"} | ({"Redis"} if url else set())
    asked = {name for of_store in told["times"].values() for name in of_store}
    assert asked == set(bench_reader.NAMES)
    for of_store in told["times"].values():
        for spent in of_store.values():
            assert 0 < spent["p50"] <= spent["p95"] <= spent["p99"] <= spent["max"]
    assert told["recall"] == 1.0  # of so few items the search is exact
    assert told["flush"]["answers"] == 30
    rows = io.read_arrow(lake.root / "served" / "recommendation_log")
    assert rows.num_rows == 30 * bench_reader.LENGTH
    assert rows["features"].null_count == 0
    shutil.rmtree(lake.root / "served")
    run = {**told, "people": PEOPLE, "memory": 1, "kv_bytes": 1, "nlist": 1, "nprobe": 1}
    lines = bench_reader.table(run)
    assert len([line for line in lines if line.startswith("| LMDB")]) == 7
    assert any("no redis-server" in line.lower() for line in lines) == (not url)
