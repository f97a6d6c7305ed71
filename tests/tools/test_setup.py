"""Set-up from nothing and again: what it finds, what it refuses, what it does only once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools import setup

ROOT = Path(__file__).resolve().parents[2]


def java(folder: Path, version: str, module: bool = True) -> Path:
    """A home whose java says that it is this version, with or without Spark's module."""
    (folder / "bin").mkdir(parents=True)
    program = folder / "bin" / "java"
    answer = f"echo 'openjdk version \"{version}\" 2024-01-01' >&2"
    program.write_text(f"#!/bin/sh\n{answer}\nexit {0 if module else 1}\n")
    program.chmod(0o755)
    return folder


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose locks hold nothing, so that a real install takes a second."""
    root = tmp_path / "a checkout"
    (root / "requirements").mkdir(parents=True)
    for name in ("run", "dev", "neural"):
        (root / "requirements" / f"{name}.txt").write_text(f"# {name}: nothing\n")
    monkeypatch.setattr(setup, "ROOT", root)
    monkeypatch.setattr(setup, "VENV", root / ".venv")
    monkeypatch.setattr(setup, "PYTHON", root / ".venv" / "bin" / "python")
    monkeypatch.setattr(setup, "STATE", root / ".venv" / "nightjar.json")
    return root


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any Java: nothing on PATH, nothing in the usual places, no apt."""
    empty = tmp_path / "bin"
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(setup, "_java_places", lambda: [])
    monkeypatch.setattr(setup, "_save", lambda state: None)
    return empty


def test_an_install_is_done_once_and_again_when_the_lock_changes(checkout, capsys):
    setup.install("run")
    assert setup.PYTHON.exists()
    assert "installing" in capsys.readouterr().out
    setup.install("run")
    assert capsys.readouterr().out == ""
    (checkout / "requirements" / "run.txt").write_text("# another\n")
    setup.install("run")
    assert "installing" in capsys.readouterr().out


def test_a_dev_install_holds_the_run_install(checkout, capsys):
    setup.install("dev")
    capsys.readouterr()
    setup.install("run")
    assert capsys.readouterr().out == ""


def test_what_the_neural_parts_need_is_asked_for_once_and_renewed_with_its_lock(checkout, capsys):
    setup.prepare(dev=False, extras=frozenset({"neural"}))
    assert "installing requirements/neural.txt" in capsys.readouterr().out
    setup.prepare(dev=False, extras=frozenset())
    assert capsys.readouterr().out == ""
    (checkout / "requirements" / "neural.txt").write_text("# another\n")
    setup.prepare(dev=False, extras=frozenset())
    assert "installing requirements/neural.txt" in capsys.readouterr().out


def test_a_night_without_the_neural_parts_installs_nothing_for_them(checkout, capsys):
    setup.prepare(dev=False, extras=frozenset())
    assert "requirements/neural.txt" not in capsys.readouterr().out
    assert "neural" not in json.loads(setup.STATE.read_text())


def test_the_neural_lock_agrees_with_what_a_night_runs_on():
    pins = {}
    for name in ("run", "neural"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text()
        lines = {line.removesuffix(" \\") for line in text.splitlines() if line[:1].isalnum()}
        pins[name] = {(line.split("==")[0], line) for line in lines}
    shared = {package for package, _ in pins["run"]} & {package for package, _ in pins["neural"]}
    assert {"numpy", "scipy"} == shared
    assert {pin for pin in pins["neural"] if pin[0] in shared} <= pins["run"]


def test_a_failed_install_is_one_error_and_is_redone(checkout, capsys):
    lock = checkout / "requirements" / "run.txt"
    lock.write_text("no-hash-here==1.0\n")
    with pytest.raises(setup.Unable, match=r"pip could not install run\.txt"):
        setup.install("run")
    lock.write_text("# mended\n")
    setup.install("run")
    assert json.loads(setup.STATE.read_text())["run"]


def test_a_moved_checkout_is_installed_anew(checkout, capsys):
    setup.install("run")
    state = json.loads(setup.STATE.read_text())
    setup.STATE.write_text(json.dumps({**state, "folder": "/somewhere/else"}))
    capsys.readouterr()
    setup.install("run")
    assert "making .venv" in capsys.readouterr().out


def test_a_linked_environment_is_refused_and_what_it_links_to_stays(checkout, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("of another checkout")
    setup.VENV.symlink_to(elsewhere)
    with pytest.raises(setup.Unable, match=r"is a link to .* remove the link"):
        setup.install("run")
    assert [path.name for path in elsewhere.iterdir()] == ["kept"]


def test_the_locks_name_no_index_and_hash_everything():
    for name, least in (("run", 100), ("dev", 100), ("neural", 6)):
        text = (ROOT / "requirements" / f"{name}.txt").read_text()
        assert "index-url" not in text
        assert "://" not in "".join(line for line in text.splitlines() if "# via" not in line)
        pins = [line for line in text.splitlines() if line and line[0].isalnum()]
        assert len(pins) >= least
        assert all(line.endswith("\\") for line in pins)


def test_an_old_python_is_refused_with_the_way_out(monkeypatch):
    monkeypatch.setattr(setup.sys, "version_info", (3, 9, 2))
    with pytest.raises(setup.Unable, match=r"Python 3\.11 or newer is needed"):
        setup.prepare(dev=False, extras=frozenset())


def test_a_java_that_spark_cannot_use_is_passed_over(no_java, tmp_path, monkeypatch):
    homes = [
        java(tmp_path / "25", "25.0.1"),
        java(tmp_path / "11", "11.0.2"),
        java(tmp_path / "21-trimmed", "21.0.2", module=False),
        java(tmp_path / "17", "17.0.15"),
    ]
    monkeypatch.setattr(setup, "_java_places", lambda: homes)
    monkeypatch.setenv("PATH", str(tmp_path / "25" / "bin"))
    assert setup.java_home({}) == str(tmp_path / "17")


def test_the_newer_of_the_usable_javas_is_taken(no_java, tmp_path, monkeypatch):
    homes = [java(tmp_path / "17", "17.0.1"), java(tmp_path / "21", "21.0.1")]
    monkeypatch.setattr(setup, "_java_places", lambda: homes)
    assert setup.java_home({}) == str(tmp_path / "21")


def test_java_home_goes_first_where_it_will_do(no_java, tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "_java_places", lambda: [java(tmp_path / "21", "21.0.1")])
    monkeypatch.setenv("JAVA_HOME", str(java(tmp_path / "mine", "17.0.1")))
    assert setup.java_home({}) == str(tmp_path / "mine")


def test_a_known_java_is_not_asked_again(no_java, tmp_path):
    home = java(tmp_path / "17", "17.0.1")
    (home / "bin" / "java").write_text("#!/bin/sh\nexit 9\n")
    assert setup.java_home({"java_home": str(home), "java_asked": ["", ""]}) == str(home)


def test_without_java_the_error_says_what_to_install(no_java):
    with pytest.raises(setup.Unable, match=r"Java 17 or 21.*openjdk-21-jre-headless"):
        setup.java_home({})


def test_sudo_is_never_used_unasked(no_java, monkeypatch):
    for name in ("apt-get", "sudo"):
        (no_java / name).write_text("#!/bin/sh\nexit 1\n")
        (no_java / name).chmod(0o755)
    monkeypatch.setattr(setup.os, "geteuid", lambda: 1000)
    monkeypatch.delenv("NIGHTJAR_SUDO", raising=False)
    assert setup._apt_prefix() is None
    monkeypatch.setenv("NIGHTJAR_SUDO", "1")
    assert setup._apt_prefix()[:2] == ["sudo", "-n"]


def test_the_command_runs_with_java_home_and_its_own_python(checkout, tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(java(tmp_path / "17", "17.0.1")))
    environment = setup.prepare(dev=False, extras=frozenset({"java"}))
    shown = subprocess.run(
        ["python", "-c", "import os, sys; print(sys.prefix, os.environ['JAVA_HOME'])"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout.split(str(setup.VENV))[1].strip() == str(tmp_path / "17")


def test_set_up_needs_nothing_but_the_standard_library():
    shown = subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "tools" / "help.py")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "make TARGET" in shown.stdout
    code = f"import runpy; runpy.run_path({str(ROOT / 'tools' / 'setup.py')!r}, run_name='x')"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
