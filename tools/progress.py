"""What a person sees while a night runs in this process, and where everything else is written.

Airflow's and the jobs' own lines go to the task's log file, where the UI looks for it; the
terminal gets one line a task.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from airflow.listeners import hookimpl


class Stopped(BaseException):
    """The user or the system asked this process to end; no handler of errors may swallow it."""


@dataclass
class Task:
    """One finished task: ``error`` is empty where it succeeded."""

    task_id: str
    seconds: float
    error: str = ""
    cause: str = ""
    log: Path | None = None
    will_retry: bool = False


@dataclass(eq=False)  # pluggy keeps its listeners in a set
class Progress:
    """Listens to Airflow's tasks in this process and keeps what became of each."""

    terminal: TextIO
    logs: Path
    began: float
    tasks: list[Task] = field(default_factory=list)
    run_id: str = ""
    _log: Path | None = None
    _since: float = 0.0

    @hookimpl
    def on_task_instance_running(self, previous_state: Any, task_instance: Any) -> None:
        self.run_id = task_instance.run_id
        self._since = time.monotonic()
        # Airflow's own place and name for an attempt's log; its UI reads it there.
        self._log = (
            self.logs
            / f"dag_id={task_instance.dag_id}"
            / f"run_id={task_instance.run_id}"
            / f"task_id={task_instance.task_id}"
            / f"attempt={task_instance.try_number}.log"
        )
        send_output_to(self._log)
        if self.terminal.isatty():
            print(f"\r\033[K  … {task_instance.task_id}", end="", file=self.terminal, flush=True)

    @hookimpl
    def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
        self._ended(task_instance, None)

    @hookimpl
    def on_task_instance_failed(
        self, previous_state: Any, task_instance: Any, error: str | BaseException | None
    ) -> None:
        self._ended(task_instance, error)

    def _ended(self, task_instance: Any, error: str | BaseException | None) -> None:
        if isinstance(error, Stopped):
            # Airflow made a failed task of it, and would go on to retry it.
            raise error
        state = str(getattr(task_instance.state, "value", task_instance.state))
        seconds = time.monotonic() - self._since
        task = Task(
            task_id=task_instance.task_id,
            seconds=seconds,
            error=str(error) if error is not None else "",
            cause=type(error).__name__ if isinstance(error, BaseException) else "",
            log=self._log,
            will_retry=state == "up_for_retry",
        )
        self.tasks.append(task)
        mark = "✓" if error is None else ("↻" if task.will_retry else "✗")
        start = "\r\033[K" if self.terminal.isatty() else ""
        at = time.monotonic() - self.began
        line = f"{start}  {mark} {task.task_id:38} {seconds:7.1f} s   at {at:6.1f} s"
        print(line, file=self.terminal, flush=True)
        send_output_to(self.logs / "night.log")


def send_output_to(path: Path) -> None:
    """Send this process's output and error streams, C libraries included, to the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)


@contextlib.contextmanager
def quiet(log: Path) -> Iterator[TextIO]:
    """Send all output to ``log`` inside the block, and yield the terminal as it was."""
    sys.stdout.flush()
    sys.stderr.flush()
    out, err = os.dup(1), os.dup(2)
    # Child processes keep no hand on the terminal: a dup is not inherited.
    terminal = os.fdopen(os.dup(out), "w", encoding="utf-8", errors="replace")
    send_output_to(log)
    try:
        yield terminal
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        terminal.flush()
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.close(out)
        os.close(err)
