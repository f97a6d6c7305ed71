"""A case on disk shares with its world what the faults leave, and never changes the world."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from jobs import io
from jobs.io import Lake
from jobs.sources import contract
from tests.tools import served_days
from tests.tools.served_days import START
from tools import cases, world, world_days
from tools.cases import Unfaulted
from tools.planted import Case
from tools.planting import Planted
from tools.world import SERVED, Built, World

WORLD = World(shop=served_days.SHOP, days=14, length=served_days.LENGTH, page=served_days.PAGE)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Built:
    """The days of ``served_days`` as a world lies on disk, with what a case reads of its nights."""
    made = Built(WORLD, tmp_path_factory.mktemp("world"))
    tables = served_days.tables()
    io.write_arrow(made.source / "events", tables.shop)
    io.write_arrow(made.source / "items", tables.items)
    world.write_metrics(WORLD, made.source)
    for day in made.days():
        log, truth = (world_days.of_day(rows, day) for rows in (tables.log, tables.truth))
        events = world_days.events_of(truth, WORLD.settings)
        io.append_arrow(made.source / "recommendation_log", SERVED.format(day), log)
        io.append_arrow(made.source / "events", SERVED.format(day), events)
        io.append_arrow(made.folder / "truth" / "answers", str(day), truth)
    lake = Lake(made.lake).open()
    items = next(iter(tables.catalogue.values()))
    for night in WORLD.nights():
        as_of = io.parse_as_of(night.isoformat())
        for step, name, rows in (("catalogue", "items", items),
                                 ("examples", "examples", tables.examples)):  # fmt: skip
            io.write_arrow(lake.staged(step, as_of) / name, rows)
            lake.publish(step, as_of, "one")
    (made.lake / ".night").mkdir()
    (made.lake / ".night" / "lock.json").write_text("{}")
    return made


def write(built: Built, folder: Path, *kinds: str) -> Path:
    faults = tuple(Planted(kind, START, 0.5) for kind in kinds)
    before = states(built.folder)
    unfaulted = Unfaulted(built, served_days.tables().people)
    cases.write(unfaulted, Case("a", faults), folder, seed=3)
    assert states(built.folder) == before
    return folder


def states(folder: Path) -> dict[str, str]:
    """What every file of a folder holds."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def own(built: Built, folder: Path) -> set[str]:
    """The files of a case that it does not share with the world."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
        and not (
            (built.folder / path.relative_to(folder)).exists()
            and path.samefile(built.folder / path.relative_to(folder))
        )
    }


def table(folder: Path, name: str) -> pa.Table:
    return pq.read_table(folder / "source" / name)


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("unit_change", {"source/recommendation_log/served-planted.parquet"}),
        ("label_delay", {"source/events/served-planted.parquet"}),
        ("late_feed", {"source/events/served-planted.parquet",
                       "source/events/part-planted.parquet"}),
        ("renamed_category", {
            "source/items/part-planted.parquet",
            *(f"lake/tables/catalogue/{night}/one/items/part-planted.parquet"
              for night in WORLD.nights()),
        }),
        ("leaked_feature",
         {f"lake/tables/examples/{WORLD.newest_served}/one/examples/part-planted.parquet"}),
        ("threshold", {"source/metrics.yaml", "source/recommendation_log/served-planted.parquet",
                       "source/events/served-planted.parquet"}),
    ],
)  # fmt: skip
def test_only_what_a_fault_changes_is_a_file_of_its_own(built, tmp_path, kind, changed):
    folder = write(built, tmp_path, kind)
    assert own(built, folder) == changed
    assert not (folder / "lake" / ".night").exists()
    assert not (folder / "source" / "truth").exists()


def test_what_was_answered_in_a_clean_copy_is_what_the_world_has(built, tmp_path):
    folder = write(built, tmp_path, "unit_change")
    for name in ("events", "recommendation_log"):
        ids = ["event_id"] if name == "events" else ["request_id", "position"]
        order = [(one, "ascending") for one in ids]
        rows = table(folder, name).sort_by(order)
        before = pq.read_table(built.source / name).sort_by(order)
        kept = [one for one in rows.column_names if not one.startswith("feature")]
        assert rows.select(kept).equals(before.select(kept))


def test_a_case_is_a_source_in_the_contracts_shape(built, tmp_path):
    folder = write(built, tmp_path, "split_persons", "covariate_drift", "renamed_category")
    facts = {one.table: one for one in contract.check(folder / "source")}
    assert facts["recommendation_log"].rows > 0
    named = table(folder, "events").filter(pc.is_valid(table(folder, "events")["request_id"]))
    asked = set(table(folder, "recommendation_log")["request_id"].to_pylist())
    assert np.isin(named["request_id"].to_pylist(), list(asked)).all()
