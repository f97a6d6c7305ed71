"""A small shop's night, made once, and refreshes of it in lakes that share its files."""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pytest

from jobs import io, lock, spark, steps
from jobs.__main__ import command
from jobs.io import Lake
from jobs.night import Night
from jobs.refresh import route
from jobs.release import releases
from jobs.spark import engine_file
from tests import small_shop

AS_OF = small_shop.AS_OF
# One cut teaches nothing: the blend orders, which is quick.
PARAMS = {"examples": {"cuts": 1, "max_people": 50}}


def hour(number: float) -> datetime:
    """So many hours after the night."""
    return AS_OF + timedelta(hours=number)


@dataclass(frozen=True)
class Shop:
    """A lake, the shop that it reads, and the engine that its runs use."""

    lake: Lake
    source: Path
    engine: spark.Engine

    def night(
        self, as_of: datetime, names: Iterable[str] = tuple(steps.STEPS),
        params: dict[str, dict[str, Any]] = PARAMS,
    ) -> None:  # fmt: skip
        """Run a night, or its first steps."""
        with self.held(as_of, "night", params) as line:
            for step in names:
                command(["run", step, *line])
                command(["gate", step, *line])

    def refresh(
        self, as_of: datetime, until: str | None = None, run: str = "refresh",
        params: dict[str, dict[str, Any]] = PARAMS,
    ) -> None:  # fmt: skip
        """Run a refresh; ``until``: it is killed before this step's gate."""
        with self.opened(as_of, run, params) as line:
            for step, how in route.ROUTE.items():
                if how == route.CARRIED:
                    continue
                command(["run", step, *line])
                if step == until:
                    return
                command(["gate", step, *line])

    @contextmanager
    def opened(
        self, as_of: datetime, run: str, params: dict[str, dict[str, Any]] = PARAMS
    ) -> Iterator[list[str]]:
        """A refresh under way: the command line of its steps."""
        with self.held(as_of, run, params) as line:
            run_id = f"{run} {as_of}"
            chain = route.open_refresh(self.lake, as_of, run_id, str(self.source), params)
            route.carry_over(self.lake, as_of, run_id, chain)
            yield line

    def table(self, name: str, as_of: datetime) -> pa.Table:
        """A published table."""
        from jobs import tables

        folder = self.lake.published(tables.TABLES[name].step, as_of).table(name)
        return io.read_arrow(folder)

    def context(self, step: str, as_of: datetime) -> Night:
        """What a step of a refresh that has run would see."""
        made = Night(
            self.lake, as_of, "again", str(self.source), step, json.loads(json.dumps(PARAMS))
        )
        self.engine.save(engine_file(self.lake))
        return made

    @contextmanager
    def held(
        self, as_of: datetime, run: str, params: dict[str, dict[str, Any]]
    ) -> Iterator[list[str]]:
        """The lake locked for a run: the command line of its steps."""
        run_id = f"{run} {as_of}"
        lock.acquire(self.lake, run_id)
        self.engine.save(engine_file(self.lake))
        try:
            yield [
                f"--lake={self.lake.root}", f"--source={self.source}", f"--run-id={run_id}",
                f"--as-of={as_of.isoformat()}", f"--params={json.dumps(params)}",
            ]  # fmt: skip
        finally:
            route.close(self.lake, run_id)
            lock.release(self.lake, run_id)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, engine: spark.Engine) -> Shop:
    """The shop with its night published; no test changes it."""
    home = tmp_path_factory.mktemp("refresh")
    small_shop.write(home / "shop", people=160, items=120, days=70)
    shop = Shop(Lake(home / "lake").open(), home / "shop", engine)
    shop.night(AS_OF)
    return shop


@pytest.fixture
def shop(tmp_path: Path, published: Shop) -> Shop:
    """The same with a source of its own and a lake that shares the night's files."""
    return moved(published, tmp_path)


S = TypeVar("S", bound=Shop)


def moved(shop: S, home: Path) -> S:
    """The shop at another place: its source copied, its lake's files shared."""
    shutil.copytree(shop.lake.root, home / "lake", copy_function=os.link)
    shutil.copytree(shop.source, home / "shop")
    there = replace(shop, lake=Lake(home / "lake").open(), source=home / "shop")
    _renamed(there, str(shop.source))
    return there


def _renamed(shop: Shop, before: str) -> None:
    """The lake as if its night had read the copied source."""
    for path in [*shop.lake.root.rglob("manifest.json"), *shop.lake.root.rglob("source.json")]:
        text = path.read_text()
        if before in text:
            path.unlink()  # the file is shared with the other lake
            path.write_text(text.replace(before, str(shop.source)))


def rows(table: pa.Table, *names: str) -> list[tuple[Any, ...]]:
    columns = [table[name].to_pylist() for name in names or table.schema.names]
    return sorted(zip(*columns, strict=True), key=repr)


def lists(table: pa.Table) -> dict[tuple[str, str], list[str]]:
    """(surface, person) to items by place."""
    found: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for row in table.select(["surface", "person_id", "rank", "item_id"]).to_pylist():
        found[row["surface"], row["person_id"]].append((row["rank"], row["item_id"]))
    return {key: [item for _, item in sorted(places)] for key, places in found.items()}


def touched(shop: Shop, as_of: Any) -> set[str]:
    found = shop.table("touched_people", as_of).to_pylist()
    return {row["person_id"] for row in found if row["reason"] != "went"}


def current(shop: Shop) -> releases.Release:
    return releases.serving(shop.lake, deep=True)[0]


@pytest.fixture(scope="session")
def refreshed(published: Shop, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The night's lake with a refresh of its sixth hour; no test changes it."""
    home = tmp_path_factory.mktemp("refreshed")
    shutil.copytree(published.lake.root, home / "lake", copy_function=os.link)
    shop = Shop(Lake(home / "lake").open(), published.source, published.engine)
    shop.refresh(hour(6))
    return shop


Change = Callable[[pa.Table], pa.Table]


def rewrite(shop: Shop, name: str, change: Change) -> None:
    """Change a table of the source."""
    small_shop.write_table(shop.source, name, change(small_shop.read_table(shop.source, name)))
