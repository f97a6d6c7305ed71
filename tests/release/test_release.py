"""A release reaches serving as a whole, or not at all."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from jobs import gate, io, params, steps, tables
from jobs.errors import Fault, GateRed
from jobs.io import Lake
from jobs.refresh.route import Refresh
from jobs.release import checks, entries, release, releases, rollback
from jobs.retrieval import index
from jobs.scoring import features
from tests.release import nights


def test_a_green_release_becomes_current_with_its_manifest(lake):
    published = nights.whole(lake)
    manifest = releases.opened(releases.root(lake) / published, deep=True).manifest
    assert (releases.root(lake) / "CURRENT").read_text() == published + "\n"
    assert published.startswith("20171201T000000Z-")
    assert manifest["gates"]["recommendations"] == "green"
    assert manifest["gates"]["release"] == "green"
    assert manifest["tables"]["item_lists"] == 620
    assert manifest["data"]["events"] == 20
    assert manifest["data"]["last_event_time"] == "2017-11-29T22:00:00+00:00"
    assert manifest["lag_seconds"] > 0
    assert manifest["build_seconds"] == pytest.approx(1.5 * (len(steps.STEPS) - 1))
    assert manifest["previous"] is None
    assert not lake.staged("release", nights.AS_OF).joinpath("release").exists()


def test_nothing_is_served_before_the_gate_publishes(lake):
    nights.publish(lake)
    nights.stage(lake)
    assert releases.current_id(lake) is None
    assert releases.readable(lake) == []


def test_published_tables_are_shared_and_never_copied(lake):
    published = nights.whole(lake)
    table = lake.published("recommendations", nights.AS_OF).table("recommendations")
    inside = releases.root(lake) / published / "recommendations"
    for path in io.parquet_files(table):
        assert path.samefile(inside / path.name)


def test_large_files_that_did_not_change_are_shared_with_the_release_before(lake, monkeypatch):
    monkeypatch.setattr(releases, "SMALL", 500)
    first = releases.root(lake) / nights.whole(lake, nights.AS_OF)
    second = releases.root(lake) / nights.whole(lake, nights.day(1), "run-2")
    for name in ("id_maps/part-00000.parquet", "index/items.faiss"):
        assert (first / name).samefile(second / name)
    assert not (first / "index/index.json").samefile(second / "index/index.json")
    assert releases.load(second).manifest["previous"] == first.name


def test_a_rotten_file_of_the_release_before_is_not_shared(lake, monkeypatch):
    monkeypatch.setattr(releases, "SMALL", 500)
    first = releases.root(lake) / nights.whole(lake, nights.AS_OF)
    (first / "id_maps/part-00000.parquet").write_bytes(b"rot")
    second = releases.root(lake) / nights.whole(lake, nights.day(1), "run-2")
    assert releases.damage(releases.load(second), deep=True) == []


def test_running_a_night_again_makes_another_release_with_equal_lists(lake):
    first = nights.whole(lake, run_id="run-1")
    second = nights.whole(lake, run_id="run-2")
    assert first != second
    assert releases.current_id(lake) == second
    lists = [
        io.read_arrow(releases.root(lake) / one / "recommendations") for one in (first, second)
    ]
    assert lists[0].equals(lists[1])


def test_a_gate_that_is_run_again_finishes_what_it_began(lake):
    nights.publish(lake)
    night = nights.stage(lake)
    first = release.publish(night)
    assert release.verify(night) == []
    assert release.publish(night) == first


def test_a_release_that_served_when_its_gate_was_killed_is_told_of_by_the_next_one(
    lake, monkeypatch
):
    first = nights.whole(lake)
    nights.publish(lake, nights.day(1), "run-2")
    night = nights.stage(lake, nights.day(1), "run-2")

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(releases, "record", killed)
        with pytest.raises(KeyboardInterrupt):
            release.publish(night)
    second = releases.current_id(lake)
    for _ in range(2):
        assert release.publish(night) == second
        assert releases.published_ids(lake) == {first, second}
        lines = releases.history(lake)
        assert [line["what"] for line in lines] == ["publish", "publish"]
        assert (lines[1]["from"], lines[1]["to"], lines[1]["by"]) == (first, second, "run-2")


def test_a_candidate_that_was_rejected_is_not_called_published(lake):
    first = nights.whole(lake)
    releases.record(lake, what=releases.REJECTED, **{"from": first, "to": "candidate"})
    assert releases.published_ids(lake) == {first}
    release.publish(nights.night(lake))
    assert len(releases.history(lake)) == 2


def test_staging_the_same_run_again_keeps_the_release_it_made(lake):
    first = nights.whole(lake)
    night = nights.stage(lake)
    assert release.verify(night) == []
    assert release.publish(night) == first
    assert len(releases.readable(lake)) == 1


def test_a_backfilled_night_is_kept_but_does_not_serve(lake):
    newer = nights.whole(lake, nights.day(1), "run-1")
    older = nights.whole(lake, nights.day(0), "run-2")
    assert releases.current_id(lake) == newer
    assert {one.id for one in releases.readable(lake)} == {older, newer}


def test_three_nights_stay_and_the_oldest_goes(lake):
    made = [nights.whole(lake, nights.day(n), f"run-{n}") for n in range(5)]
    assert [one.id for one in releases.readable(lake)] == made[2:]
    assert not list(releases.root(lake).glob(".gone-*"))


def test_a_night_that_is_run_again_pushes_out_no_earlier_night(lake):
    nights_made = [nights.whole(lake, nights.day(n), f"run-{n}") for n in range(3)]
    again = [nights.whole(lake, nights.day(2), f"again-{n}") for n in range(4)]
    # Two earlier nights, and the newest three releases of the night that was run five times.
    assert [one.id for one in releases.readable(lake)] == nights_made[:2] + again[1:]
    # A newer night takes the place of the oldest date, and of what was run again alone.
    newer = nights.whole(lake, nights.day(3), "run-3")
    assert [one.id for one in releases.readable(lake)] == [nights_made[1], *again[2:], newer]
    assert releases.current_id(lake) == newer


def test_hourly_releases_never_push_out_a_night(lake):
    night = nights.whole(lake)
    for hour in range(1, 8):
        as_of = nights.AS_OF.replace(hour=hour)
        chain = Refresh(base=io.label(nights.AS_OF), night=io.label(nights.AS_OF))
        nights.publish(lake, as_of, refresh=chain)
        made = nights.stage(lake, as_of, refresh=chain)
        release.publish(made)
    kinds = [one.manifest["kind"] for one in releases.readable(lake)]
    assert kinds == ["nightly"] + ["hourly"] * 6
    assert releases.readable(lake)[0].id == night


def test_a_night_published_after_refreshes_of_what_was_before_serves(lake):
    def refreshed(as_of, night):
        serving = releases.serving(lake)[0]
        chain = Refresh(io.label(night), io.label(night), serving.night_created)
        nights.publish(lake, as_of, refresh=chain)
        return release.publish(nights.stage(lake, as_of, refresh=chain))

    nights.whole(lake)
    late = nights.day(1).replace(hour=3)
    first = refreshed(late, nights.AS_OF)
    assert releases.current_id(lake) == first
    # A newer night of an earlier run date, then a refresh of it.
    newer = nights.whole(lake, nights.day(1), "run-2")
    assert releases.current_id(lake) == newer
    hour = refreshed(nights.day(1).replace(hour=4), nights.day(1))
    assert releases.current_id(lake) == hour
    kinds = [one.manifest["kind"] for one in releases.readable(lake)]
    assert kinds == ["nightly", "hourly", "nightly", "hourly"]


def test_the_current_release_and_newer_ones_are_never_deleted(lake):
    made = [nights.whole(lake, nights.day(n), f"run-{n}") for n in range(3)]
    releases.switch(lake, made[0])
    assert releases.retire(lake, {"nightly": 1}, spare=set()) == []
    releases.switch(lake, made[2])
    assert releases.retire(lake, {"nightly": 1}, spare={made[1]}) == [made[0]]


# --- what the gate refuses -------------------------------------------------------------------
def refused(lake: Lake, **changes: pa.Table) -> str:
    """All that keeps a night with these tables from being published."""
    nights.publish(lake, **changes)
    return "\n".join(release.verify(nights.stage(lake)))


def test_a_good_night_is_not_refused(lake):
    assert refused(lake) == ""


def with_column(name: str, column: str, change) -> dict[str, pa.Table]:
    """A table of the small night with one column changed, value by value."""
    table = nights.tables_of_night()[name]
    place = table.schema.get_field_index(column)
    values = [change(value) for value in table[column].to_pylist()]
    field = table.schema.field(place)
    return {name: table.set_column(place, field, pa.array(values, field.type))}


def swapped(old, new):
    return lambda value: new if value == old else value


def model_lists(*items: str) -> dict[str, pa.Table]:
    """The model's own list of one person."""
    rows = [
        {"surface": nights.SURFACE, "person_id": "account:p0", "rank": rank, "item_id": item,
         "score": 1.0 / rank}
        for rank, item in enumerate(items, start=1)
    ]  # fmt: skip
    return {"model_lists": pa.Table.from_pylist(rows, tables.TABLES["model_lists"].schema)}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (with_column("recommendations", "item_id", swapped("i2", "ghost")), "1 unknown items"),
        (with_column("item_lists", "listed_item_id", swapped("i2", "ghost")), "unknown items"),
        (with_column("context_lists", "item_id", swapped("i2", "ghost")), "1 unknown items"),
        (with_column("pools", "item_id", swapped("i2", "ghost")), "pools.item_id: 1 unknown"),
        (with_column("recommendations", "item_id", swapped("i2", "i29")), "nobody may get"),
        (with_column("item_lists", "listed_item_id", swapped("i2", "i29")), "nobody may get"),
        (with_column("context_lists", "item_id", swapped("i2", "i29")), "nobody may get"),
        (model_lists("i2", "ghost"), "model_lists.item_id: 1 unknown items"),
        (model_lists("i2", "i29"), "model_lists.item_id: 1 items that nobody may get"),
        (with_column("context_lists", "rank", swapped(2, 3)), "places after a gap"),
        (with_column("recommendations", "item_id", swapped("i4", "i27")), "restriction excludes"),
        (with_column("recommendations", "item_id", swapped("i4", "i28")), "region excludes"),
        (with_column("recommendations", "item_id", swapped("i1", "i0")), "blocked_pairs forbids"),
        (with_column("recommendations", "person_id", swapped("account:p5", "x")), "1 persons that"),
        (with_column("recommendations", "rank", swapped(2, 3)), "places after a gap"),
        (with_column("recommendations", "rank", swapped(1, 0)), "places after a gap"),
        (with_column("recommendations", "item_id", swapped("i3", "i2")), "item twice"),
        (with_column("recommendations", "score", lambda score: score + 0.1), "110 scores that"),
        (with_column("recommendations", "sources", lambda _: ["buy_again"]), "personal sources"),
        (with_column("person_factors", "person_id", swapped("account:p0", "account:p1")), "1 p"),
        (with_column("features", "item_id", swapped("i2", "i20")), "have no row of features"),
        (with_column("features", "item_id", swapped("i2", "i3")), "pairs have a second row"),
        ({"recommendations": tables.TABLES["recommendations"].schema.empty_table()}, "is empty"),
    ],
)  # fmt: skip
def test_a_broken_promise_is_refused(lake, changes, sentence):
    assert sentence in refused(lake, **changes)


def test_places_are_judged_alike_in_one_file_and_in_many(lake, monkeypatch):
    nights.publish(lake)
    staged = releases.load(nights.stage(lake).staged / "release")
    (file,) = io.parquet_files(staged.path("recommendations"))
    rows = pq.read_table(file)
    place = rows.schema.get_field_index("item_id")
    wrong = {"i4": "i27", "i3": "i28", "i1": "i0"}
    items = [wrong.get(item, item) for item in rows["item_id"].to_pylist()]
    rows = rows.set_column(place, rows.schema.field(place), pa.array(items))
    found = []
    for size, files in ((rows.num_rows, 200), (3, 4)):
        shutil.rmtree(staged.path("recommendations"))
        for number in range(0, rows.num_rows, size):
            io.write_arrow(staged.path("recommendations"), rows.slice(number, size), number)
        monkeypatch.setattr(checks, "FILES", files)
        found.append([one for one in checks.faults(staged) if " place" in one])
    assert found[0] == found[1]
    for sentence in ("region excludes", "restriction excludes", "blocked_pairs forbids"):
        assert any(sentence in one for one in found[0])


def test_pairs_that_stand_are_scored_again_in_turn_and_those_of_now_always(lake, monkeypatch):
    monkeypatch.setattr(checks, "TURNS", 4)
    monkeypatch.setattr(checks, "WIDE_FILES", 2)
    nights.publish(lake)
    release_of_now = releases.load(nights.stage(lake).staged / "release")
    folder = release_of_now.path("features")
    rows = io.read_arrow(folder)
    shutil.rmtree(folder)
    place = rows.schema.get_field_index("event_timestamp")
    stamp = rows.schema.field(place)
    each = -(-rows.num_rows // 6)
    listed = []  # of each file, places of scored lists
    lists = io.read_arrow(release_of_now.path("recommendations"), ["person_id", "item_id"])
    lists = set(zip(*(column.to_pylist() for column in lists.columns), strict=True))
    for number in range(6):
        part = rows.slice(number * each, each)
        pairs = zip(part["person_id"].to_pylist(), part["item_id"].to_pylist(), strict=True)
        listed.append(sum(pair in lists for pair in pairs))
        old = release_of_now.as_of - timedelta(hours=1)
        times = [old if number < 4 else release_of_now.as_of] * part.num_rows
        # From these the scorer gives what is no number.
        part = part.set_column(place, stamp, pa.array(times, stamp.type))
        for name in features.COLUMNS:
            column = part.schema.get_field_index(name)
            part = part.set_column(
                column, part.schema.field(column), pa.nulls(part.num_rows, pa.float32())
            )
        io.write_arrow(folder, part, number)
    turn = int(release_of_now.as_of.timestamp()) // 3600 % 4
    in_turn = [number for number in range(4)
               if zlib.crc32(f"part-{number:05d}.parquet".encode()) % 4 == turn]  # fmt: skip
    (found,) = [one for one in checks.faults(release_of_now) if "scores that" in one]
    assert int(found.split()[1]) == sum(listed[number] for number in (*in_turn, 4, 5))
    assert len(in_turn) < 4


@pytest.mark.parametrize(
    ("key", "entry"),
    [
        (("r", nights.SURFACE, "account:p0"), {"item_id": ["i2", "i1"], "score": [1, 1]}),
        (("s", "similar", "i3"), {"item_id": [], "score": []}),
        (("c", "feed", "region", "so/uth"), {"item_id": ["i2"], "score": [1]}),
        (("i", "device/id", "d%1"), "account:p3"),
        (("n", "account:p2"), {"region": None, "segment": None, "personalised": True,
                               "restrictions": []}),
        (("b", "account:p0"), {"item_id": ["i0", "i0"]}),
        (("b", "account:p4"), {"item_id": ["i0"]}),
        (("e", "i27"), {"kind": ["restriction"], "value": ["wine"]}),
        (("e", "i3"), {"kind": ["region"], "value": ["north"]}),
        (("m",), {"release_id": "another"}),
    ],
)  # fmt: skip
def test_an_entry_that_differs_from_the_tables_is_refused(lake, key, entry):
    nights.publish(lake)
    staged = releases.load(nights.stage(lake).staged / "release")
    assert checks.faults(staged) == []
    with (
        lmdb.open(str(staged.path("kv")), map_size=1 << 27, lock=False) as env,
        env.begin(write=True) as transaction,
    ):
        before = transaction.get(entries.key_of(*key))
        transaction.put(entries.key_of(*key), json.dumps(entry).encode())
    found = [one for one in checks.faults(staged) if "differ from the tables" in one]
    assert found == [f"kv/: 1 entries differ from the tables (such as {entries.joined(*key)!r})"]
    assert (before is None) == (key in (("b", "account:p4"), ("e", "i3")))


@pytest.mark.parametrize(
    ("where", "sentences"),
    [
        ({}, ["recommendations.item_id: ", "context_lists.item_id: ",
              "item_lists.listed_item_id: "]),
        ({"surface": "homepage"}, ["recommendations.item_id: ", "context_lists.item_id: 3 places"]),
        ({"surface": "cart"}, ["context_lists.item_id: 3 places", "item_lists.listed_item_id: "]),
        # The north's own lists, and p0 and hostile people of the north.
        ({"surface": "homepage", "region": "north"},
         ["context_lists: 1 places that a rule", "recommendations: 1 places that a rule"]),
        ({"region": "south"}, []),
    ],
)  # fmt: skip
def test_a_place_that_a_rule_forbids_is_refused(lake, where, sentences):
    ban = {"rule_id": "a", "scope": "item:i2", **where}
    found = refused(lake, rules_in_force=nights.in_force(ban)).splitlines()
    found = [one for one in found if "nobody may get" not in one]
    assert len(found) == len(sentences)
    for sentence, wanted in zip(found, sentences, strict=True):
        assert sentence.startswith(wanted)
        assert "a rule forbids" in sentence


@pytest.mark.parametrize(
    ("where", "sentences"),
    [
        ({}, ["pools.item_id: 3 places that a rule forbids (such as 'i9')"]),
        ({"region": "north"}, ["pools: 1 places that a rule forbids in their region"]),
        ({"surface": "homepage"}, []),
    ],
)
def test_a_pool_that_holds_what_a_rule_took_out_everywhere_is_refused(lake, where, sentences):
    ban = {"rule_id": "a", "scope": "item:i9", **where}
    nights.publish(lake, rules_in_force=nights.in_force(ban))
    staged = releases.load(nights.stage(lake).staged / "release")
    assert not [one for one in checks.faults(staged) if one.startswith("pools")]
    shutil.rmtree(staged.path("pools"))
    io.write_arrow(staged.path("pools"), nights.tables_of_night()["pools"])
    found = [one for one in checks.faults(staged) if "a rule forbids" in one]
    found = [one for one in found if one.startswith("pools")]
    assert len(found) == len(sentences)
    for sentence, wanted in zip(found, sentences, strict=True):
        assert sentence.startswith(wanted)


def test_a_red_or_missing_verdict_is_refused(lake):
    nights.publish(lake)
    path = lake.published("filters", nights.AS_OF).folder / "manifest.json"
    io.write_json(path, io.read_json(path) | {"gate": {"verdict": "red"}})
    assert release.verify(nights.stage(lake)) == ["the gate of filters is red, not green"]


def test_index_and_factors_of_two_spaces_are_refused(lake):
    nights.publish(lake)
    path = lake.published("index", nights.AS_OF).table("index_bundle") / "index.json"
    io.write_json(path, {"embedding_version": "space-2"})
    assert "embedding versions differ" in release.verify(nights.stage(lake))[0]


@pytest.mark.parametrize(
    ("of_index", "sentences"),
    [
        # A delisted item that was left in the index, in no table of vectors.
        (lambda held: [*held, 29], ["1 positions that model/item_vectors has no item of (such as"]),
        (lambda held: held[1:], ["1 positions of model/item_vectors are not in it (such as 0)"]),
        # As many as there should be, so that a count says nothing.
        (lambda held: [29, *held[1:]], ["has no item of (such as 29)", "are not in it"]),
        (lambda held: [*held, 3], ["1 positions stand in it twice (such as 3)"]),
    ],
)
def test_an_index_that_holds_other_items_than_its_vectors_is_refused(lake, of_index, sentences):
    nights.publish(lake)
    rows = nights.tables_of_night()["item_vectors"]
    places = np.array(of_index(rows["position"].to_pylist()))
    vectors = np.ones((len(places), 4), np.float32)
    folder = lake.published("index", nights.AS_OF).table("index_bundle")
    index.save(index.build(places, vectors, "space-1", index.Params(), 7), folder)
    found = release.verify(nights.stage(lake))
    assert len(found) == len(sentences)
    for sentence, wanted in zip(found, sentences, strict=True):
        assert sentence.startswith("index: ")
        assert wanted in sentence


def test_a_vector_at_another_items_place_is_refused(lake):
    changed = with_column("item_vectors", "item_id", swapped("i2", "i29"))
    assert "1 items at another position than in id_maps (such as 'i29')" in refused(lake, **changed)


def test_a_file_changed_added_or_removed_after_staging_is_refused(lake):
    nights.publish(lake)
    folder = nights.stage(lake).staged / "release"
    (folder / "scorer/scorer.json").write_text("{}")
    (folder / "reports/evidence/events.json").unlink()
    (folder / "stray.txt").write_text("")
    found = release.verify(nights.night(lake))[0]
    for name in ("scorer/scorer.json has", "evidence/events.json is missing", "stray.txt is not"):
        assert name in found


def test_a_manifest_cut_short_is_refused(lake):
    nights.publish(lake)
    manifest = nights.stage(lake).staged / "release" / "manifest.json"
    manifest.write_text(manifest.read_text()[:200])
    assert "cut short" in release.verify(nights.night(lake))[0]


def test_publishing_without_staging_says_to_run_the_step(lake):
    with pytest.raises(Fault, match="run the step release first"):
        release.publish(nights.night(lake))


def test_pools_lose_what_nobody_may_get_and_their_ranks_close_up(lake):
    published = nights.whole(lake)
    pools = io.read_arrow(releases.root(lake) / published / "pools")
    of_all = pools.filter(pc.equal(pools["context_kind"], "all")).sort_by("rank")
    assert of_all["item_id"].to_pylist()[:3] == ["i28", "i27", "i0"]
    assert of_all["rank"].to_pylist() == list(range(1, of_all.num_rows + 1))
    of_south = pools.filter(pc.equal(pools["context"], "so/uth")).sort_by("rank")
    assert of_south["item_id"].to_pylist()[:2] == ["i27", "i0"]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ({"keep_nightly": 2}, "keep_nightly must be at least 3"),
        ({"keep_hourly": 1}, "keep_hourly must be at least 6"),
        ({"age_ceiling_hours": 1}, "age_ceiling_hours must be at least 24"),
    ],
)
def test_overrides_that_break_a_promise_are_refused(override, sentence):
    assert params.faults("release", release.Params, override) == [f"release: {sentence}"]


# --- the real gate ---------------------------------------------------------------------------
def test_the_gate_publishes_a_good_release_and_its_step(lake):
    nights.publish(lake)
    gate.judge(nights.stage(lake))
    served = releases.current_id(lake)
    assert (
        io.read_json(lake.published("release", nights.AS_OF).table("release.json"))["id"] == served
    )


def test_a_red_gate_leaves_the_release_that_serves(lake):
    first = nights.whole(lake)
    changes = with_column("recommendations", "item_id", swapped("i2", "i29"))
    nights.publish(lake, nights.day(1), "run-2", **changes)
    with pytest.raises(GateRed, match="nobody may get"):
        gate.judge(nights.stage(lake, nights.day(1), "run-2"))
    assert releases.current_id(lake) == first
    assert [one.id for one in releases.readable(lake)] == [first]
    with pytest.raises(Fault, match="nothing is published"):
        lake.published("release", nights.day(1))


# --- bad places ------------------------------------------------------------------------------
@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 3 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("left", [8_192, 12_288, 16_384, 20_480, 24_576])
def test_a_full_disk_is_one_clear_error_and_the_release_before_serves(tiny_disk, left):
    lake = Lake(tiny_disk / "lake").open()
    first = nights.whole(lake)
    nights.publish(lake, nights.day(1), "run-2")
    free = os.statvfs(tiny_disk)
    (tiny_disk / "ballast").write_bytes(b"0" * (free.f_bavail * free.f_frsize - left))
    with pytest.raises(Fault, match=r"release: .* cannot be written"):
        nights.stage(lake, nights.day(1), "run-2")
    assert releases.serving(lake, deep=True)[0].id == first
    (tiny_disk / "ballast").unlink()
    night = nights.stage(lake, nights.day(1), "run-2")
    assert release.verify(night) == []
    assert release.publish(night) == releases.current_id(lake)


def test_a_lake_that_cannot_be_written_is_one_clear_error(tiny_disk):
    lake = Lake(tiny_disk / "lake").open()
    made = [nights.whole(lake, nights.day(n), f"run-{n}") for n in range(2)]
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    with pytest.raises(Fault, match="cannot be written"):
        Lake(tiny_disk / "lake").open()
    with pytest.raises(Fault, match=r"rollback: .* cannot be written"):
        rollback.main(argparse.Namespace(lake=str(lake.root), to=None, redis_url=None))
    assert releases.serving(lake)[0].id == made[1]


def test_a_file_beyond_the_limit_is_one_clear_error(lake):
    nights.publish(lake)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, hard))
    try:
        with pytest.raises(Fault, match="cannot be written"):
            nights.stage(lake)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert releases.current_id(lake) is None


def test_the_manifest_is_readable_json_with_a_hash_for_every_file(lake):
    folder = releases.root(lake) / nights.whole(lake)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    on_disk = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert set(manifest["files"]) == on_disk - {"manifest.json"}
    assert all(pq.read_schema(folder / name) for name in on_disk if name.endswith(".parquet"))
