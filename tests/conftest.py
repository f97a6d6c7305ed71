"""One Spark engine for the whole session, and a lake per test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs import spark
from jobs.io import Lake
from jobs.night import Night, engine_file

AS_OF = datetime(2017, 12, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[spark.Engine]:
    """A local Spark Connect server that the tests share."""
    folder = tmp_path_factory.mktemp("engine")
    started = spark.start(
        "local[2]",
        folder / "spark.log",
        {"spark.driver.memory": "2g", "spark.sql.shuffle.partitions": "2"},
    )
    yield started
    spark.release_session()
    started.stop()


@pytest.fixture(scope="session")
def session(engine: spark.Engine):
    """The shared Spark session."""
    return engine.session()


@pytest.fixture
def lake(tmp_path: Path, engine: spark.Engine) -> Lake:
    """An empty lake whose engine is the shared one."""
    made = Lake(tmp_path / "lake").open()
    engine.save(engine_file(made))
    return made


@pytest.fixture
def night(lake: Lake) -> Callable[..., Night]:
    """Makes the context of a step: ``night("events", source="…")``."""

    def make(step: str, source: str = "test", as_of: datetime = AS_OF, **overrides) -> Night:
        made = Night(lake, as_of, "test-run", source, step, overrides)
        made.reset()
        return made

    return make
