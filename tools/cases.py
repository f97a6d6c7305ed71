"""A case of planted faults on disk: a copy of a world's source and lake that shares, by hard links,
every file that the faults leave as it is."""

from __future__ import annotations

from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from jobs import io
from jobs.io import Lake
from jobs.release import recorder, releases
from jobs.sources.simulated.serving import Answers
from tools import world_days
from tools.planted import Case
from tools.planting import Tables, plant
from tools.world import SERVED, Built

PLANTED = "served-planted"  # the file of all days from a fault's start on
KEPT_APART = ".night"  # of the lake: its lock and its engine


class Unfaulted:
    """The tables of a world before any fault, each read once for all cases that start on a day."""

    def __init__(self, built: Built, people: Answers):
        self.built, self.people = built, people
        self._served: dict[date, dict[str, pa.Table]] = {}

    def since(self, start: date, seed: int) -> Tables:
        """The tables; of what was served the days from ``start`` on."""
        if start not in self._served:
            days = [day for day in self.built.days() if day >= start]
            # Of one start alone, since a log with its features is the greatest of all tables.
            self._served = {start: {
                "log": pa.concat_tables(self.built.log(day) for day in days).combine_chunks(),
                "truth": pa.concat_tables(self.built.truth(day) for day in days).combine_chunks(),
            }}  # fmt: skip
        return Tables(people=self.people, seed=seed, **self._served[start], **self._unserved)

    @cached_property
    def _unserved(self) -> dict[str, Any]:
        built, lake = self.built, Lake(self.built.lake)
        newest = built.world.newest_served.isoformat()
        nights = [night.isoformat() for night in built.world.nights()]
        examples = io.read_arrow(_lake_table(lake, "examples", newest, "examples"))
        return {
            "shop": pa.concat_tables(map(pq.read_table, shop_files(built))).combine_chunks(),
            "items": io.read_arrow(built.source / "items").combine_chunks(),
            "catalogue": {name: io.read_arrow(_lake_table(lake, "catalogue", name, "items"))
                          for name in nights},
            "examples": examples.combine_chunks(),
            "metrics": yaml.safe_load((built.source / "metrics.yaml").read_text(encoding="utf-8")),
        }  # fmt: skip


def write(unfaulted: Unfaulted, case: Case, folder: Path, seed: int) -> tuple[str, ...]:
    """Make ``folder``/source and ``folder``/lake of the faulted world; returns the steps before the
    diagnosis that have to be done again, since the last night's are of the world itself."""
    built, before = unfaulted.built, unfaulted.since(case.start, seed)
    after = plant(before, list(case.faults))
    _copy_source(built, before, after, folder / "source", case.start)
    _copy_lake(built, before, after, folder / "lake")
    events = after.truth is not before.truth or after.shop is not before.shop
    items = events or after.items is not before.items
    return ("source", *(["events"] if events else []), *(["catalogue"] if items else []))


def _copy_source(built: Built, before: Tables, after: Tables, source: Path, start: date) -> None:
    for name in sorted(releases.files_of(built.source)):
        if not name.startswith("truth/"):
            releases.link(built.source / name, source / name)
    days = [day for day in built.days() if day >= start]
    if after.log is not before.log:
        _replace(source / recorder.TABLE, days, after.log)
    if after.truth is not before.truth:
        events = world_days.events_of(after.truth, built.world.settings)
        _replace(source / "events", days, events)
    if after.shop is not before.shop:
        for path in shop_files(built):
            (source / "events" / path.name).unlink()
        io.append_arrow(source / "events", "part-planted", after.shop)
    if after.items is not before.items:
        for path in io.parquet_files(source / "items"):
            path.unlink()
        io.append_arrow(source / "items", "part-planted", after.items)
    if after.metrics is not before.metrics:
        text = yaml.safe_dump(dict(after.metrics), sort_keys=False)
        io.write_text(source / "metrics.yaml", text)


def _replace(folder: Path, days: list[date], rows: pa.Table) -> None:
    """Rows in the place of the files of these days."""
    for day in days:
        (folder / f"{SERVED.format(day)}.parquet").unlink()
    io.append_arrow(folder, PLANTED, rows)


def _copy_lake(built: Built, before: Tables, after: Tables, root: Path) -> None:
    for name in sorted(releases.files_of(built.lake)):
        if not name.startswith(f"{KEPT_APART}/"):
            releases.link(built.lake / name, root / name)
    lake = Lake(root)
    if after.examples is not before.examples:
        newest = built.world.newest_served.isoformat()
        _rewrite(_lake_table(lake, "examples", newest, "examples"), after.examples)
    for night, rows in after.catalogue.items():
        if rows is not before.catalogue[night]:
            _rewrite(_lake_table(lake, "catalogue", night, "items"), rows)


def _rewrite(folder: Path, rows: pa.Table) -> None:
    """Other rows in a table's folder; the files that were there belong to the world too."""
    for path in io.parquet_files(folder):
        path.unlink()
    io.append_arrow(folder, "part-planted", rows)


def _lake_table(lake: Lake, step: str, night: str, table: str) -> Path:
    return lake.published(step, io.parse_as_of(night)).table(table)


def shop_files(built: Built) -> list[Path]:
    """The files of the shop's own events."""
    found = io.parquet_files(built.source / "events")
    return [path for path in found if not path.name.startswith("served-")]
