"""One Spark engine for a night: a Spark Connect server that every step talks to.

``start`` runs Spark's own Connect server as a child in its own process group, bound to loopback
and guarded by a token; ``Engine.stop`` ends exactly that group. With a ``spark://host:port``
master the same server is the driver of a cluster; with a ``sc://host:port`` address an engine
that somebody else runs is used and left alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.errors import Fault
from jobs.io import Lake

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

START_SECONDS = 180
# Local defaults of power; a connection's or the caller's conf goes over them.
LOCAL_CONF = {
    "spark.driver.memory": "4g",
    "spark.sql.shuffle.partitions": "4",
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -Xss4m",
}
# What the jobs rely on wherever they run; not open to change.
FIXED_CONF = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.execution.arrow.pyspark.fallback.enabled": "false",
    "spark.sql.parquet.compression.codec": "zstd",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.connect.grpc.binding.address": "127.0.0.1",
    "spark.connect.grpc.maxInboundMessageSize": str(512 * 1024 * 1024),
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


@dataclass(frozen=True)
class Engine:
    """How to reach a running engine; ``pid`` is 0 where its process is not ours, ``log`` the file
    that it writes."""

    url: str
    token: str
    pid: int
    master: str
    log: str = ""

    @property
    def address(self) -> str:
        """Where clients find it, with the token: a secret, and a ``master`` for others."""
        return f"{self.url}/;token={self.token}" if self.token else self.url

    def save(self, path: Path) -> None:
        """Write where the engine is, readable by this user alone, since it holds the token."""
        _write_private(path, asdict(self))

    @staticmethod
    def load(path: Path) -> Engine:
        """Read what :meth:`save` wrote."""
        try:
            told = json.loads(path.read_text())
        except FileNotFoundError:
            raise Fault(
                f"spark: no engine runs for this lake ({path} is missing); start one with "
                "`python -m jobs open-night`"
            ) from None
        # What another version of this code wrote may say more.
        return Engine(**{one.name: told[one.name] for one in fields(Engine) if one.name in told})

    def alive(self) -> bool:
        """Whether its process still runs (always true where that is not known)."""
        if not self.pid:
            return True
        try:
            with open(f"/proc/{self.pid}/cmdline", "rb") as file:
                return b"SparkConnectServer" in file.read()
        except FileNotFoundError:
            if os.path.isdir("/proc/self"):
                return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def session(self) -> SparkSession:
        """A Connect session on this engine; equal calls in one process share it.

        Raises ``Fault`` where the engine has ended; once it does, whoever waits for it is told.
        """
        from pyspark.sql.connect.client.retries import DefaultPolicy
        from pyspark.sql.connect.session import SparkSession as ConnectSession

        alive = self.alive

        class WhileAlive(DefaultPolicy):
            """The client's own patience of ten minutes, for an engine that can still answer."""

            def can_retry(self, error: BaseException) -> bool:
                return alive() and super().can_retry(error)

        if not alive():
            raise self.ended()
        # What SparkSession.builder.remote sets: pyspark.sql.functions then build Connect columns.
        os.environ["SPARK_CONNECT_MODE_ENABLED"] = "1"
        session = ConnectSession.builder.remote(self.address).getOrCreate()
        session.client.set_retry_policies([WhileAlive()])
        return session  # type: ignore[return-value]

    def ended(self) -> Fault:
        """What to say where the engine that we started is gone."""
        return Fault(
            f"spark: the engine on {self.master} (process {self.pid}) has ended, as one does that "
            f"is killed or finds no memory; start the run again. {tail(self.log)}"
        )

    def stop(self) -> None:
        """End the server, if we started it, and wait until it is gone."""
        if not self.pid or not self.alive():
            return
        for signal_number, seconds in ((signal.SIGTERM, 20), (signal.SIGKILL, 5)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal_number)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(self.pid, os.WNOHANG)
                if not self.alive():
                    return
                time.sleep(0.1)


@dataclass(frozen=True)
class Promise:
    """An engine that is started when something first needs it: on which ``master``, and with what
    ``conf`` beyond our own."""

    master: str
    conf: Mapping[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it down, readable by this user alone, since settings may be secrets."""
        _write_private(path, asdict(self))

    @staticmethod
    def load(path: Path) -> Promise:
        """Read what :meth:`save` wrote."""
        return Promise(**json.loads(path.read_text()))


def _write_private(path: Path, value: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump(value, file)


@contextlib.contextmanager
def needed(path: Path) -> Iterator[None]:
    """Do work that needs the engine of this file: where the work fails and the engine has ended,
    that is what is said, as a ``Fault``."""
    try:
        yield
    except Fault:
        raise
    except Exception as error:
        if path.exists() and not (engine := Engine.load(path)).alive():
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            raise Fault(f"{engine.ended()}\nWhat failed then: {why}") from error
        raise


def tail(log: str | Path) -> str:
    """The last lines of an engine's log, with where it is."""
    if not log:
        return "Where its log is was not noted."
    try:
        lines = Path(log).read_text(errors="replace").splitlines()
    except OSError as error:
        return f"Its log cannot be read: {error}"
    return "\n".join([f"Its log ({log}) ends:", *lines[-15:]])


def release_session() -> None:
    """Close this process's Connect session, so that nothing waits for an engine that ended."""
    from pyspark.sql.connect.session import SparkSession as ConnectSession

    active = ConnectSession.getActiveSession()
    if active is not None:
        active.client.set_retry_policies([])
        active.stop()


def check(master: str) -> None:
    """Raise ``Fault`` for what is no master."""
    if not master.startswith(("local", "spark://", "sc://")):
        raise Fault(
            f"spark: {master!r} is no master; give local[*], spark://host:port or sc://host:port"
        )


def start(master: str, log: Path, conf: Mapping[str, str] | None = None) -> Engine:
    """Start a Connect server on ``master`` and wait until it answers.

    Raises ``Fault`` with the end of the server's log when it does not come up.
    """
    check(master)
    if master.startswith("sc://"):
        return Engine(url=master, token="", pid=0, master=master)
    import pyspark

    home = Path(pyspark.__file__).parent
    port = free_port()
    token = secrets.token_urlsafe(32)
    local = LOCAL_CONF if master.startswith("local") else {}
    settings = {
        **local,
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.pyspark.python": sys.executable,
        "spark.local.dir": str(log.parent / "spark-local"),
        "spark.sql.warehouse.dir": str(log.parent / "spark-warehouse"),
        **(conf or {}),
        **FIXED_CONF,
        "spark.connect.grpc.binding.port": str(port),
    }
    arguments = [str(home / "bin" / "spark-submit"), "--master", master]
    arguments += ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer"]
    for name, value in settings.items():
        arguments += ["--conf", f"{name}={value}"]
    arguments.append("spark-internal")
    environment = {
        **os.environ,
        "SPARK_HOME": str(home),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_CONNECT_AUTHENTICATE_TOKEN": token,
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        server = subprocess.Popen(
            arguments,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"sc://localhost:{port}"
    engine = Engine(url, token, server.pid, master, str(log))
    deadline = time.monotonic() + START_SECONDS
    up = False
    try:
        while not up and time.monotonic() < deadline and server.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
                up = True
            except OSError:
                time.sleep(0.1)
    finally:
        # Nobody else knows of it yet, also where this process is stopped while it waits.
        if not up:
            engine.stop()
    if up:
        return engine
    raise Fault(f"spark: the engine on {master} did not start. {tail(log)}")


def free_port() -> int:
    """A TCP port that is free on loopback at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def promise_file(lake: Lake) -> Path:
    """Where it is kept how to start the run's engine, once something needs it."""
    return lake.root / ".night" / "promised.json"


def engine_file(lake: Lake) -> Path:
    """Where the address of the night's engine is kept."""
    return lake.root / ".night" / "engine.json"
