"""The commands that a newcomer types: they list themselves, and no value is ever executed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import ask, help

ROOT = Path(__file__).resolve().parents[2]
needs_make = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
HOSTILE = 'it\'s "1" $(touch made) `touch made` $(shell touch made) ; touch made & a b\\c $HOME #x'


def make(folder: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run the real Makefile, with a stand-in for python3 that prints what reaches it."""
    kept = ("PATH", "HOME", "LANG")
    environment = {name: os.environ[name] for name in kept if name in os.environ} | extra
    return subprocess.run(
        ["make", "--no-print-directory", "-f", str(ROOT / "Makefile"), *arguments],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture
def echo(tmp_path: Path) -> str:
    script = tmp_path / "echo"
    script.write_text(
        f"#!{sys.executable}\nimport os, sys\nprint(repr(sys.argv[1:]))\n"
        "print('\\n'.join(f'{k}={os.environ.get(k)!r}' for k in ('PERSON', 'SOURCE', 'LAKE')))\n"
    )
    script.chmod(0o755)
    return f"PYTHON={script}"


def test_help_names_every_target_of_the_makefile():
    text = (ROOT / "Makefile").read_text()
    phony = next(line for line in text.splitlines() if line.startswith(".PHONY:")).split()[1:]
    assert set(help.targets(text)) == set(phony)
    assert {
        "run",
        "test",
        "ui",
        "show",
        "why",
        "docs",
        "check",
        "rollback",
        "lineage",
        "bench",
    } <= (set(phony))


def test_every_target_is_one_line():
    lines = (ROOT / "Makefile").read_text().splitlines()
    recipes = [i for i, line in enumerate(lines) if line.startswith("\t")]
    assert all(i + 1 not in recipes for i in recipes)


@needs_make
@pytest.mark.parametrize("by", ["command line", "environment"])
def test_a_hostile_value_reaches_python_as_typed_and_nothing_runs(tmp_path, echo, by):
    if by == "command line":
        shown = make(tmp_path, "show", echo, f"PERSON={HOSTILE}", f"LAKE={HOSTILE}")
    else:
        shown = make(tmp_path, "show", echo, PERSON=HOSTILE, LAKE=HOSTILE)
    assert shown.returncode == 0, shown.stderr
    assert f"PERSON={HOSTILE!r}" in shown.stdout
    assert f"LAKE={HOSTILE!r}" in shown.stdout
    assert not (tmp_path / "made").exists()
    assert HOSTILE not in shown.stdout.splitlines()[0]


@needs_make
def test_a_value_that_is_not_given_is_empty(tmp_path, echo):
    assert "PERSON=''" in make(tmp_path, "show", echo).stdout


def test_workers_share_the_tests_of_a_folder_and_a_file_is_run_by_itself():
    shared = ["--numprocesses=2", "--dist=loadscope", "--no-loadscope-reorder"]
    assert ask.tests("", 2) == shared
    assert ask.tests("tests/signals", 4) == [*shared, "tests/signals"]
    for chosen in ("tests/test_docs.py", "tests/test_docs.py::test_one"):
        assert ask.tests(chosen, 2) == [chosen]
    assert ask.tests("", 1) == []


def test_values_become_one_word_each_behind_the_options():
    values = {"PERSON": "--x y", "ITEM": "1;2", "LAKE": "-a b", "AS_OF": "2017-12-01"}
    assert ask.arguments("why", ["PERSON", "ITEM"], values) == [
        "why", "--lake=-a b", "--", "--x y", "1;2",
    ]  # fmt: skip
    assert ask.arguments("lineage", ["TABLE"], {"TABLE": "events", **values})[1:3] == [
        "--lake=-a b",
        "--as-of=2017-12-01",
    ]
    assert ask.arguments("docs", [], {}) == ["docs"]


def test_a_missing_value_is_named_with_the_line_to_type():
    with pytest.raises(SystemExit, match=r"PERSON is not given; write `make show PERSON=…`"):
        ask.arguments("show", ["PERSON"], {"PERSON": ""})
