"""Turn make's variables into a command line: ``python -m tools.ask show PERSON``.

The values come through the environment, so that no shell ever reads them; an empty one counts
as not given.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tools import night

ROOT = Path(__file__).resolve().parent.parent
# Variables that become options, and the commands that know them.
OPTIONS = {
    "LAKE": (
        "--lake",
        {"show", "why", "docs", "lineage", "rollback", "shadow", "plan", "assign"},
    ),
    "SURFACE": ("--surface", {"show"}),
    "AS_OF": ("--as-of", {"lineage"}),
    "TO": ("--to", {"rollback"}),
    "DECISION": ("--decision", {"shadow"}),
    "REASON": ("--reason", {"shadow"}),
    "EFFECT": ("--effect", {"plan"}),
    "ARMS": ("--arms", {"plan"}),
    "FILE": ("--file", {"assign"}),
}


def arguments(command: str, names: list[str], values: Mapping[str, str]) -> list[str]:
    """The command line of ``python -m jobs``; raises ``SystemExit`` where a value is missing."""
    missing = [name for name in names if not values.get(name)]
    if missing:
        wanted = " ".join(f"{name}=…" for name in names)
        raise SystemExit(f"error: {missing[0]} is not given; write `make {command} {wanted}`")
    line = [command]
    for name, (option, commands) in OPTIONS.items():
        if command in commands and values.get(name):
            # One word, since a value may begin with a dash.
            line.append(f"{option}={values[name]}")
    return [*line, "--", *(values[name] for name in names)] if names else line


def measurement(values: Mapping[str, str]) -> list[str]:
    """The command line of ``staleness``: what is given, read and checked as for ``make run``."""
    given = night.trigger(values)
    if "params" in given:
        given["params"] = json.dumps(given["params"])
    if values.get("MASTER"):
        given["master"] = values["MASTER"]
    options = {"source": "--source", "as_of": "--as-of", "lake": "--lake", "params": "--params",
               "master": "--master"}  # fmt: skip
    return ["staleness", *(f"{option}={given[name]}" for name, option in options.items()
                           if name in given)]  # fmt: skip


def tests(chosen: str, cores: int) -> list[str]:
    """The command line of pytest: two workers share all tests, or those of a folder."""
    line = [chosen] if chosen else []
    if cores < 2 or not (ROOT / chosen).is_dir():
        return line
    # In the order of tests/conftest.py, which puts the longest first.
    return ["--numprocesses=2", "--dist=loadscope", "--no-loadscope-reorder", *line]


def main() -> int:
    command, *names = sys.argv[1:]
    if command == "test":
        line = tests(os.environ.get("TESTS", ""), os.cpu_count() or 1)
        return subprocess.run(
            [sys.executable, "-m", "pytest", *line], cwd=ROOT, env=of_tests()
        ).returncode
    if command == "check":
        lines = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"])
        # Every check runs, so that one visit shows everything there is to mend.
        return max(
            subprocess.run([sys.executable, "-m", *line], cwd=ROOT).returncode for line in lines
        )
    from jobs.__main__ import main as jobs

    try:
        measured = command == "staleness"
        line = measurement(os.environ) if measured else arguments(command, names, os.environ)
    except night.BadInput as unable:
        print(f"error: {unable}", file=sys.stderr)
        return 2
    sys.argv = ["jobs", *line]
    return jobs()


def of_tests() -> dict[str, str]:
    """The environment without this make's own variables, which tests of make would inherit; BLAS on
    one thread, since a second one waits for the other worker's."""
    mine = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "TESTS")
    kept = {name: value for name, value in os.environ.items() if name not in mine}
    return {"OPENBLAS_NUM_THREADS": "1", **kept}


if __name__ == "__main__":
    sys.exit(main())
