"""One Spark engine for the whole session (of a worker, where workers share the tests), a lake per
test, and what workers share.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from jobs import spark
from jobs.io import Lake
from jobs.night import Night
from jobs.spark import engine_file
from tools import heavy

AS_OF = datetime(2017, 12, 1, tzinfo=UTC)
# What one worker runs, the longest first; any other file is a group of its own.
GROUPS = {
    "tests/refresh/": "refresh",  # nearly all of it begins with the same night
    # `make ui` looks for a free port some seconds before it listens there.
    "tests/dags/test_airflow_for_real.py": "services",
    "tests/dags/test_retrain.py": "services",
}
# A JVM of one small night mostly compiles: the first of its two compilers alone needs half the
# time. What runs longer than some minutes earns the second. Alone it has a fifth of the room for
# compiled code (48 MB), which a night fills, and a JVM without any ends.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m")
LONG = "-XX:+UseSerialGC -Xss4m -XX:TieredStopAtLevel=4"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where workers share the tests, a group is one worker's. (Marks of pytest-xdist 3.8 are not
    seen under pytest 9.2.)"""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Groups(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Workers begin with the longest groups."""
    if hasattr(config, "workerinput"):
        places = {group: place for place, group in enumerate(dict.fromkeys(GROUPS.values()))}
        items.sort(key=lambda item: places.get(group_of(item.nodeid), len(places)))


def group_of(test: str) -> str:
    path = test.partition("::")[0]
    return next((group for start, group in GROUPS.items() if path.startswith(start)), path)


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is there before the first test stays there: no step's collection looks at it again."""
    if any("engine" in getattr(item, "fixturenames", ()) for item in session.items):
        heavy.load()


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[spark.Engine]:
    """A local Spark Connect server that the tests share."""
    folder = tmp_path_factory.mktemp("engine")
    started = spark.start(
        "local[2]",
        folder / "spark.log",
        {
            "spark.driver.memory": "2g",
            "spark.sql.shuffle.partitions": "2",
            "spark.driver.extraJavaOptions": LONG,
        },
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
