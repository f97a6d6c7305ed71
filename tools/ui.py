"""``make ui``: Airflow's API server, scheduler and DAG processor on this machine, until Ctrl-C.

Loopback only; what ``make run`` left behind is in it. Nights start when somebody triggers one
(`AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE=True` in the environment lets the scheduler start them by
its clock). Reads LAKE and MASTER from the environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any

from tools import airflow_home

HOST = "127.0.0.1"
PORT = 8080  # Airflow's own; another one where it is taken
START_SECONDS = 180
# Log servers would listen on every interface; the logs are read from disk.
SERVICES = {
    "api-server": ["api-server", "--host", HOST, "--workers", "1"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
}
# Tasks are forked from the scheduler: what it has imported, they need not.
PROGRAM = {"scheduler": "tools.heavy"}
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def main() -> int:
    airflow_home.set_environment()
    try:
        with airflow_home.alone("make ui"):
            return _serve()
    except airflow_home.InUse as unable:
        print(f"error: {unable}", file=sys.stderr)
        return 2


def _serve() -> int:
    stop = _Stop()
    port = free_port()
    _configure(port)
    print("starting Airflow (15 to 30 s) …", flush=True)
    airflow_home.migrate()
    airflow_home.end_unfinished_runs()
    password = airflow_home.password()
    _adopt_orphans()
    services: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, arguments in SERVICES.items():
            extra = ["--port", str(port)] if name == "api-server" else []
            services[name] = _start(name, [*arguments, *extra])
        address = f"http://{HOST}:{port}"
        fault = _wait_until_healthy(address, services, stop)
        if fault:
            print(f"error: {fault}", file=sys.stderr)
            return 1
        if not stop.asked:
            print(
                f"Airflow: {address}\n  login    admin\n  password {password}\n"
                f"  a night  {address}/dags/nightly, button Trigger\n"
                f"  an hour  {address}/dags/hourly_refresh, likewise\n"
                f"  verdict  {address}/dags/diagnose, and {address}/dags/retrain\n"
                f"  logs     {airflow_home.home() / 'logs'}\nCtrl-C ends it.",
                flush=True,
            )
        while not stop.asked:
            time.sleep(0.5)
            _reap(services)
            dead = [name for name, service in services.items() if service.poll() is not None]
            if dead:
                print(f"error: {dead[0]} ended; see {_log(dead[0])}", file=sys.stderr)
                return 1
        return 0
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        with contextlib.suppress(OSError):  # the terminal may be gone
            print("stopping Airflow …", flush=True)
        _end_everything()
        airflow_home.end_unfinished_runs()


class _Stop:
    """Whether Ctrl-C, a terminate or a hang-up arrived."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True


def free_port() -> int:
    """``PORT`` where it is free on loopback, else any other."""
    for port in (PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError(f"no free port on {HOST}")


def _configure(port: int) -> None:
    os.environ["AIRFLOW__API__PORT"] = str(port)
    os.environ["AIRFLOW__API__BASE_URL"] = f"http://{HOST}:{port}"
    os.environ["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] = f"http://{HOST}:{port}/execution/"
    if os.environ.get("LAKE"):
        os.environ["NIGHTJAR_LAKE"] = str(Path(os.environ["LAKE"]).expanduser().resolve())
    if os.environ.get("MASTER"):
        os.environ["AIRFLOW_CONN_NIGHTJAR_SPARK"] = json.dumps(
            {"conn_type": "spark", "host": os.environ["MASTER"]}
        )


def _start(name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
    with _open_log(name) as output:
        return subprocess.Popen(
            [sys.executable, "-m", PROGRAM.get(name, "airflow"), *arguments],
            cwd=airflow_home.ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Out of the terminal's group: Ctrl-C reaches this process, which ends them in order.
            start_new_session=True,
        )


def _log(name: str) -> Path:
    return airflow_home.home() / "logs" / f"{name}.log"


def _open_log(name: str) -> IO[bytes]:
    _log(name).parent.mkdir(parents=True, exist_ok=True)
    return _log(name).open("wb")


def _wait_until_healthy(
    address: str, services: dict[str, subprocess.Popen[bytes]], stop: _Stop
) -> str:
    """Wait for the API, the scheduler and the DAG processor; what is wrong, or nothing."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and not stop.asked:
        for name, service in services.items():
            if service.poll() is not None:
                tail = "\n".join(_log(name).read_text(errors="replace").splitlines()[-10:])
                return f"{name} did not start; {_log(name)} ends:\n{tail}"
        with contextlib.suppress(urllib.error.URLError, TimeoutError, ConnectionError):
            with urllib.request.urlopen(f"{address}/api/v2/monitor/health", timeout=5) as answer:  # noqa: S310 our own address
                health = json.load(answer)
            if all(health[part]["status"] == "healthy" for part in ("scheduler", "dag_processor")):
                return ""
        time.sleep(0.5)
    return "" if stop.asked else f"Airflow was not healthy after {START_SECONDS} s"


def _adopt_orphans() -> None:
    """Make every orphaned descendant ours (Linux): tasks and Spark's engine must end with us."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _reap(services: dict[str, subprocess.Popen[bytes]]) -> None:
    """Collect adopted processes that ended by themselves; the services collect their own."""
    import psutil

    ours = {service.pid for service in services.values()}
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess, ChildProcessError):
            if child.pid not in ours and child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)


def _end_everything() -> None:
    """End all descendants: ask, wait up to 20 s, then force."""
    import psutil

    def descendants() -> list[psutil.Process]:
        return psutil.Process().children(recursive=True)

    for process in descendants():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(descendants(), timeout=20)
    while alive:
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        # A killed parent's children become ours, and are asked in the next turn.
        psutil.wait_procs(alive, timeout=5)
        alive = [p for p in descendants() if p.status() != psutil.STATUS_ZOMBIE]


if __name__ == "__main__":
    sys.exit(main())
