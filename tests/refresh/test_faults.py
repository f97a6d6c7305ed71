"""A refresh that is killed, a Redis that is restarted, and what is left when releases retire."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs import io
from jobs.__main__ import command
from jobs.errors import Fault, GateRed
from jobs.io import Lake
from jobs.refresh import explored, route
from jobs.release import releases
from jobs.release.reader import Reader
from tests.refresh.conftest import AS_OF, Shop, current, hour, moved
from tests.release.conftest import Server, start_redis

# What makes something in the lake readable, or takes it away.
WRITES = ("rename", "replace", "link", "unlink", "rmdir")


@contextmanager
def watched(lake: Lake, look: Callable[[str], None]) -> Iterator[None]:
    """Call ``look`` before each of this process's writes to the lake: what a kill there leaves."""
    before = {name: getattr(os, name) for name in WRITES}
    busy = False

    def around(name: str) -> Callable[..., Any]:
        def write(first: Any, *rest: Any, **how: Any) -> Any:
            nonlocal busy
            # Folders are removed by names relative to a handle, whose place nobody can tell.
            if not busy and "dir_fd" not in how and str(first).startswith(str(lake.root)):
                busy = True
                try:
                    look(f"{name} {Path(str(first)).relative_to(lake.root)}")
                finally:
                    busy = False
            return before[name](first, *rest, **how)

        return write

    with pytest.MonkeyPatch.context() as patch:
        for name in WRITES:
            patch.setattr(os, name, around(name))
        yield


def snapshot(lake: Lake, target: Path) -> None:
    """The lake as it is, its files shared, without the engine's own."""

    def shared(source: str, copy: str) -> None:
        # What is appended to in place would change in the copy as well.
        (shutil.copy2 if source.endswith((".jsonl", ".json")) else os.link)(source, copy)

    ignored = shutil.ignore_patterns(".night")
    shutil.copytree(lake.root, target, copy_function=shared, ignore=ignored)


def test_a_refresh_killed_before_any_write_leaves_a_whole_release_and_the_next_heals(
    shop: Shop, tmp_path: Path
) -> None:
    night, wrong, seen = current(shop).id, [], []
    kept = {}

    def look(write: str) -> None:
        seen.append(write)
        try:
            serves = releases.serving(shop.lake)[0]
            # What the next refresh goes on from: the night, or this hour once it serves.
            base = route.base_of(shop.lake, hour(2))
        except Fault as error:
            wrong.append(f"before {write}: {error}")
            return
        if serves.as_of not in (AS_OF, hour(1)) or base.id != serves.id:
            wrong.append(f"before {write}: {serves.id} serves, {base.id} is the base")
        for name, here in (
            ("half", write.startswith("replace tables/candidates")),
            ("shelved", write.startswith("replace releases/.CURRENT")),
        ):
            if here and name not in kept:
                kept[name] = tmp_path / name
                snapshot(shop.lake, kept[name])

    with watched(shop.lake, look):
        shop.refresh(hour(1), run="watched")
    assert wrong == []
    places = {write.split()[1].split("/")[1] for write in seen if " tables/" in write}
    assert places >= set(route.MADE), "every step writes"
    assert len(seen) > 200
    assert current(shop).as_of == hour(1)
    assert set(kept) == {"half", "shelved"}
    for name, root in kept.items():
        left = Shop(Lake(root).open(), shop.source, shop.engine)
        assert releases.serving(left.lake, deep=True)[0].id == night, name
        left.refresh(hour(1), run="again")
        healed = current(left)
        assert healed.as_of == hour(1), name
        assert releases.damage(healed, deep=True) == []


# --- Redis -----------------------------------------------------------------------------------
@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[Server]:
    server = start_redis(tmp_path)
    yield server
    server.kill()


def test_a_redis_that_restarts_halfway_is_written_anew_and_one_that_is_gone_serves_as_before(
    refreshed: Shop, tmp_path: Path, redis_server: Server
) -> None:
    shop = moved(refreshed, tmp_path / "there")
    night = next(one for one in releases.readable(shop.lake) if one.as_of == AS_OF)
    command(["rollback", f"--lake={shop.lake.root}", f"--to={night.id}",
             f"--redis-url={redis_server.url}"])  # fmt: skip
    assert Reader.open_redis(redis_server.url).as_of == AS_OF
    port = int(redis_server.url.rpartition(":")[2].removesuffix("/0"))
    with shop.opened(hour(6), "again") as line:
        line = [*line, f"--redis-url={redis_server.url}"]
        command(["run", "release", *line])
        redis_server.kill()
        with pytest.raises(ConnectionError, match="does not answer"):
            command(["gate", "release", *line])
        assert current(shop).id == night.id
        assert Reader.open(shop.lake.root).as_of == AS_OF
        # Airflow's next try is a process of its own; here the fault's frames hold the store open.
        gc.collect()
        again = start_redis(tmp_path, port=port)
        try:
            command(["gate", "release", *line])
            assert current(shop).as_of == hour(6)
            reader = Reader.open_redis(redis_server.url)
            assert reader.as_of == hour(6)
            person = shop.table("identities", hour(6)).to_pylist()[0]
            assert reader.person(person["key_type"], person["key"]) == person["person_id"]
        finally:
            again.kill()


# --- what is left ----------------------------------------------------------------------------
def drawn(shop: Shop, hours: tuple[int, ...]) -> None:
    """Refreshes of these hours with places that were drawn, none of them released."""
    for number in hours:
        for step in ("recommendations", "identities"):
            base = shop.lake.published(step, AS_OF)
            chain = route.Refresh(io.label(AS_OF), io.label(AS_OF))
            route.carry(shop.lake, base, hour(number), "run", chain)
        io.write_json(shop.lake.evidence("identities", hour(number), "run"), {})
        io.write_json(shop.lake.evidence("index", hour(number), "red"), {})
        (shop.lake.staged("index", hour(number))).mkdir(parents=True)


# Further back than anything was drawn.
EVER = AS_OF - timedelta(days=1)


def test_what_a_red_refresh_staged_and_found_goes_and_what_it_drew_stays(shop: Shop) -> None:
    drawn(shop, (1, 2))
    io.write_json(shop.lake.evidence("index", AS_OF, "night"), {})
    assert route.forget(shop.lake, EVER) == [io.label(hour(n)) for n in (1, 2)]
    for place in ("staged", "evidence"):
        assert not [one for one in (shop.lake.root / place).iterdir() if "T" in one.name], place
    assert shop.lake.evidence("index", AS_OF, "night").is_file()
    lists = shop.table("context_lists", AS_OF).to_pylist()
    wanted = {(row["surface"], row["item_id"]) for row in lists if row["propensity"] < 1}
    assert wanted
    for path in explored.files(shop.lake, explored.CONTEXTS):
        kept = io.read_arrow(path.parent).to_pylist()
        mine = [row for row in kept if row["stamp"] == path.stem]
        assert {(row["surface"], row["item_id"]) for row in mine} == wanted
        assert all(row["sources"] for row in mine)
    assert [explored.as_of(path) for path in explored.files(shop.lake, explored.CONTEXTS)] == [
        hour(1), hour(2),
    ]  # fmt: skip
    # No surface looks further back any more.
    drawn(shop, (1, 3))
    route.forget(shop.lake, hour(2))
    assert [explored.as_of(path) for path in explored.files(shop.lake, explored.CONTEXTS)] == [
        hour(2), hour(3),
    ]  # fmt: skip


def test_a_kill_while_tables_are_forgotten_leaves_what_the_next_time_finds(
    shop: Shop, tmp_path: Path
) -> None:
    drawn(shop, (1, 2))
    killed: list[Lake] = []

    def look(write: str) -> None:
        if write.startswith(("rename tables/", "rmdir evidence", "rmdir .gone")):
            root = tmp_path / f"killed-{len(killed)}"
            snapshot(shop.lake, root)
            killed.append(Lake(root))

    with watched(shop.lake, look):
        route.forget(shop.lake, EVER)
    assert len(killed) >= 4
    for lake in [shop.lake, *killed]:
        # What a kill behind the last of it leaves.
        (lake.root / ".gone" / "index@then").mkdir(parents=True)
        route.forget(lake, EVER)
        labels = {io.label(hour(number)) for number in (1, 2)}
        left = [path.relative_to(lake.root) for path in lake.root.glob("*/**") if path.is_dir()]
        assert not [path for path in left if labels & {*path.parts}]
        assert not list(lake.root.glob(".gone"))
        assert releases.serving(lake, deep=True)[0].as_of == AS_OF


def test_what_a_person_was_drawn_is_kept_under_each_of_the_persons_keys(shop: Shop) -> None:
    lists = shop.table("recommendations", AS_OF).to_pylist()
    keys = shop.table("identities", AS_OF).to_pylist()
    person = next(row["person_id"] for row in lists
                  if sum(key["person_id"] == row["person_id"] for key in keys) > 1)  # fmt: skip
    drawn(shop, (1,))
    folder = shop.lake.at("recommendations", io.label(hour(1))).table("recommendations")
    first = next(row for row in lists if row["person_id"] == person)
    rows = [{**row, "propensity": 0.25 if row is first else 1.0} for row in lists]
    shutil.rmtree(folder)
    schema = shop.table("recommendations", AS_OF).schema
    io.write_arrow(folder, pa.Table.from_pylist(rows, schema))
    route.forget(shop.lake, EVER)
    (path,) = explored.files(shop.lake, explored.PERSONS)
    found = {(row["key_type"], row["key"], row["item_id"])
             for row in io.read_arrow(path.parent).to_pylist()}  # fmt: skip
    assert found == {(key["key_type"], key["key"], first["item_id"])
                     for key in keys if key["person_id"] == person}  # fmt: skip
    assert {tuple(row["sources"]) for row in io.read_arrow(path.parent).to_pylist()} == {
        tuple(first["sources"])
    }


def test_a_red_gate_leaves_the_release_before_it_serving(shop: Shop) -> None:
    night = current(shop).id
    with shop.opened(hour(1), "red") as line:
        command(["run", "source", *line])
        command(["gate", "source", *line])
        command(["run", "events", *line])
        staged = shop.lake.staged("events", hour(1)) / "events"
        shutil.rmtree(staged)
        io.write_arrow(staged, shop.table("events", AS_OF).slice(0, 0))
        with pytest.raises(GateRed):
            command(["gate", "events", *line])
    assert current(shop).id == night
    assert route.base_of(shop.lake, hour(2)).id == night
