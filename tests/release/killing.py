"""A program that kills publishing before each of its writes and looks at what is left.

Usage: ``python -m tests.release.killing FOLDER publish|run``; prints one JSON line with the
number of kills and what was wrong after them. A program of its own, since it forks: a process that
has started Arrow's or gRPC's threads must not.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from jobs.io import Lake
from jobs.night import Night
from jobs.release import release, releases
from tests.release import nights

WRITES = ("rename", "replace", "link", "unlink", "rmdir", "mkdir")
# Publishing begins with the writes that matter, one by one; then comes the long deletion of the
# oldest release. The job's writes are all staged: a few places in it stand for the rest.
NUMBERS = {"publish": [*range(10), 20, 40, 60, 1_000], "run": [0, 9, 40, 70, 80, 1_000]}


def main(home: Path, what: str) -> dict:
    template = home / "template"
    in_child(lambda: prepare(template, what))
    wrong: list[str] = []
    kills = 0
    for number in NUMBERS[what]:
        folder = home / f"{number}"
        shutil.copytree(template, folder)
        if in_child(lambda f=folder, n=number: act(f, what, n)) == 0:
            break
        kills += 1
        if in_child(lambda f=folder: whole(f)):
            wrong.append(f"after a kill before write {number} CURRENT names no whole release")
        if in_child(lambda f=folder: retry(f, what)):
            wrong.append(f"after a kill before write {number} a retry does not publish")
        shutil.rmtree(folder)
    return {"kills": kills, "wrong": wrong}


def prepare(folder: Path, what: str) -> None:
    """Four nights published, a fifth ready, so that publishing also deletes the oldest."""
    lake = Lake(folder).open()
    for number in range(3):
        nights.whole(lake, nights.day(number), f"run-{number}")
    nights.publish(lake, nights.day(3), "run-3")
    if what == "publish":
        nights.stage(lake, nights.day(3), "run-3")


def act(folder: Path, what: str, number: int) -> None:
    """Do the work and die before the write of this number."""
    lake = Lake(folder)
    left = [number]
    for name in WRITES:
        setattr(os, name, counted(getattr(os, name), left))
    if what == "run":
        nights.stage(lake, nights.day(3), "run-3")
    else:
        finish(nights.night(lake, nights.day(3), "run-3"))


def counted(write: Callable, left: list[int]) -> Callable:
    def wrapped(*args, **kwargs):
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return write(*args, **kwargs)

    return wrapped


def whole(folder: Path) -> None:
    lake = Lake(folder)
    release_now, passed = releases.serving(lake, deep=True)
    assert passed == []
    assert release_now.as_of in (nights.day(2), nights.day(3))


def retry(folder: Path, what: str) -> None:
    """What a person does next: the task again."""
    lake = Lake(folder)
    again = (
        nights.stage(lake, nights.day(3), "run-3")
        if what == "run"
        else nights.night(lake, nights.day(3), "run-3")
    )
    finish(again)
    release_now, passed = releases.serving(lake, deep=True)
    assert passed == []
    assert release_now.as_of == nights.day(3)
    kept = [one.as_of for one in releases.readable(lake)]
    assert kept == [nights.day(number) for number in (1, 2, 3)]
    names = {path.name for path in releases.root(lake).iterdir()}
    assert not {name for name in names if name.startswith(".gone-")}


def finish(night: Night) -> None:
    """The gate's part."""
    assert release.verify(night) == []
    release.publish(night)


def in_child(work: Callable[[], None]) -> int:
    """Run in a forked process; 0 where it ended well."""
    pid = os.fork()
    if pid == 0:
        os.environ["ARROW_IO_THREADS"] = "1"
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitpid(pid, 0)[1]


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2])))
