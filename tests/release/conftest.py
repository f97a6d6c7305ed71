"""A lake without an engine: nothing of the release needs Spark."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from jobs.io import Lake


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake").open()


@dataclass
class Server:
    """A redis-server of this test session."""

    url: str
    process: subprocess.Popen

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def start_redis(folder: Path, *options: str, port: int = 0) -> Server:
    """A real redis-server on a loopback port, a free one for 0, that keeps nothing on disk."""
    program = shutil.which("redis-server")
    if program is None:
        missing = "redis-server is not on PATH; install it (apt-get install redis-server)"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
         "--dir", str(folder), *options],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            if time.monotonic() > deadline or process.poll() is not None:
                process.kill()
                raise
            time.sleep(0.05)
    return Server(f"redis://127.0.0.1:{port}/0", process)


@pytest.fixture(scope="session")
def _redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def redis_url(_redis_server: Server) -> str:
    """An empty Redis."""
    redis.Redis.from_url(_redis_server.url).flushall()
    return _redis_server.url


@pytest.fixture
def mortal_redis(tmp_path: Path) -> Iterator[Server]:
    """An empty Redis that the test may kill."""
    server = start_redis(tmp_path)
    yield server
    server.kill()
