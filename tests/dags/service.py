"""Airflow's services as a test sees them: ``make ui``'s program in a home of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 900  # for what takes one or two minutes on a quiet machine
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
TEAR_DOWNS = {
    "nightly": "close_night", "hourly_refresh": "close_refresh", "diagnose": "close_diagnosis",
}  # fmt: skip
ENDED = ("success", "failed", "upstream_failed")


def environment(home: Path, **more: str) -> dict[str, str]:
    """What child processes see: an Airflow home, nothing of this process's own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "NIGHTJAR"))}
    return {**kept, "PATH": PATH, "NIGHTJAR_AIRFLOW_HOME": str(home), **more}


@dataclass
class Airflow:
    """A running ``make ui``: its address, and a token of its admin."""

    process: subprocess.Popen[str]
    address: str
    token: str = ""

    def ask(
        self, path: str, body: Any = None, token: bool = True, method: str | None = None
    ) -> tuple[int, Any]:
        """GET, or POST where there is a body: the status and the answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.address}{path}", data, method=method)
        request.add_header("Content-Type", "application/json")
        if token:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def trigger(self, dag: str = "nightly", **conf: Any) -> tuple[int, Any]:
        return self.ask(f"/api/v2/dags/{dag}/dagRuns", {"logical_date": None, "conf": conf})

    def states(self, run_id: str, dag: str = "nightly") -> dict[str, str]:
        """The state of each task, and of the run under ''."""
        run = f"/api/v2/dags/{dag}/dagRuns/{urllib.parse.quote(run_id)}"
        _, found = self.ask(run)
        _, answer = self.ask(f"{run}/taskInstances?limit=100")
        states = {task["task_id"]: task["state"] for task in answer["task_instances"]}
        return {**states, "": found["state"]}

    def wait(self, run_id: str, dag: str = "nightly") -> dict[str, str]:
        """Wait until a run ends; its states."""
        # The tear-down may still be closing the night when the run is already decided.
        last = TEAR_DOWNS.get(dag, "")
        return self.until(run_id, dag, lambda now: now[""] in ENDED and now[last] in ENDED)

    def until(self, run_id: str, dag: str, true: Any) -> dict[str, str]:
        """Wait until something is true of a run's states; the states."""
        deadline = time.monotonic() + SECONDS
        while not true(found := self.states(run_id, dag)) and time.monotonic() < deadline:
            time.sleep(0.5)
        return found

    def loop(self) -> None:
        """Wait until the scheduler has gone round once: two of its heartbeats, one a round at most.

        A task that waits for an answer has ended in its executor. Where it goes on before the
        scheduler has seen that, Airflow 3.3 takes the end for that of the task as it goes on, and
        fails it ("state mismatch"); nobody answers as quickly as a test.
        """
        deadline = time.monotonic() + SECONDS
        for _ in range(2):
            before = self._beat()
            while self._beat() == before and time.monotonic() < deadline:
                time.sleep(0.5)

    def _beat(self) -> str:
        _, told = self.ask("/api/v2/monitor/health")
        return told["scheduler"]["latest_scheduler_heartbeat"]


@contextlib.contextmanager
def running(environment: dict[str, str], hang_up: bool = False) -> Iterator[Airflow]:
    """The services over a home, ended with everything that they started; ``hang_up``: as a
    terminal that is closed ends them, which can be written to no more."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.ui"],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    told = ""
    for line in process.stdout:
        told += line
        if "Ctrl-C" in line:
            break
    found = re.search(r"Airflow: (\S+)\n\s+login\s+(\S+)\n\s+password (\S+)", told)
    assert found, told
    made = Airflow(process, found.group(1))
    login = {"username": found.group(2), "password": found.group(3)}
    status, answer = made.ask("/auth/token", login, token=False)
    assert status == 201, answer
    made.token = answer["access_token"]
    family = psutil.Process(process.pid).children(recursive=True)
    try:
        yield made
    finally:
        if hang_up:
            process.stdout.close()
        process.send_signal(signal.SIGHUP if hang_up else signal.SIGTERM)
        process.wait(60)
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive, "make ui left processes behind"
