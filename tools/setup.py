"""Prepare this checkout, then become the command that follows ``--``.

    python3 tools/setup.py [--dev] [--with java,neural,…] [-- ARGUMENTS OF .venv/bin/python]

Run by the system's own Python with nothing installed. It makes ``.venv``, installs the locked
requirements with their hashes, and finds (as root: installs) a Java that Spark can use; each
only where it is not done yet, so a repeat costs a few milliseconds. The command runs with
``JAVA_HOME`` set and ``.venv/bin`` first on PATH, which is the one way Java reaches Spark.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STATE = VENV / "nightjar.json"
OLDEST_PYTHON = (3, 11)
JAVA_MAJORS = (21, 17)  # what Spark 4.3 runs on, the one we prefer first
# The module that Spark's launcher asks for; a trimmed runtime may lack it.
JAVA_MODULE = "jdk.incubator.vector"


class Unable(Exception):
    """Set-up cannot go on; the text says what to do."""


def main(arguments: list[str]) -> int:
    """Prepare what the options ask for and run the command after ``--``, if there is one."""
    options, _, command = _split(arguments)
    try:
        environment = prepare(dev="--dev" in options, extras=_extras(options))
    except Unable as unable:
        print(f"error: {unable}", file=sys.stderr)
        return 2
    if command:
        sys.stdout.flush()
        os.chdir(ROOT)
        os.execve(str(PYTHON), [str(PYTHON), *command], environment)  # noqa: S606 no shell is the aim
    return 0


def prepare(dev: bool, extras: frozenset[str]) -> dict[str, str]:
    """Make everything ready and return the environment that commands run in."""
    if sys.version_info < OLDEST_PYTHON:
        have, need = platform.python_version(), ".".join(map(str, OLDEST_PYTHON))
        raise Unable(
            f"Python {need} or newer is needed, {sys.executable} is {have}; "
            f"install one and name it: make PYTHON=python{need} …"
        )
    # Two set-ups at once would spoil each other's install: the second waits here.
    lock = os.open(ROOT, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        state = install("dev" if dev else "run")
        # Once asked for it stays, and is renewed when its lock changes.
        if "neural" in extras or "neural" in state:
            state = neural(state)
        environment = {**os.environ, "VIRTUAL_ENV": str(VENV)}
        environment["PATH"] = f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        environment.pop("PYTHONHOME", None)
        if "java" in extras:
            environment["JAVA_HOME"] = java_home(state)
        if "redis" in extras:
            redis_server()
        if "chromium" in extras:
            chromium()
    finally:
        os.close(lock)
    return environment


def say(line: str) -> None:
    print(f"setup: {line}", flush=True)


# --- Python ----------------------------------------------------------------------------------
def install(kind: str) -> dict[str, object]:
    """Install ``requirements/<kind>.txt`` into .venv unless that lock is already there."""
    digests = {
        name: hashlib.sha256((ROOT / "requirements" / f"{name}.txt").read_bytes()).hexdigest()
        for name in ("run", "dev")
    }
    state = _state()
    same_place = state.get("folder") == str(VENV) and PYTHON.exists()
    if same_place and state.get(kind) == digests[kind]:
        return state
    if not same_place:
        _make_venv()
        state = {"folder": str(VENV)}
    # Without its stamp a broken install is redone from the start of this function.
    installed = {**state}
    for name in ("run", "dev"):
        state.pop(name, None)
    _save(state)
    started = time.monotonic()
    _pip(ROOT / "requirements" / f"{kind}.txt", "a few minutes the first time")
    # The dev lock holds everything that the run lock holds.
    state.update(digests if kind == "dev" else {"run": digests["run"]})
    if kind == "run" and installed.get("run") == digests["run"] and "dev" in installed:
        state["dev"] = installed["dev"]
    _save(state)
    say(f"installed in {time.monotonic() - started:.0f} s")
    return state


def neural(state: dict[str, object]) -> dict[str, object]:
    """Install ``requirements/neural.txt`` beside the run lock unless it is already there; the dev
    lock holds it."""
    lock = ROOT / "requirements" / "neural.txt"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    if state.get("neural") != digest:
        if "dev" not in state:
            _pip(lock, "some 100 MB to fetch, 380 MB on disk")
        state = {**state, "neural": digest}
        _save(state)
    return state


def _pip(lock: Path, cost: str) -> None:
    say(f"installing {lock.relative_to(ROOT)} ({cost})")
    log = VENV / "install.log"
    with log.open("w") as output:
        failed = subprocess.run(
            [str(PYTHON), "-m", "pip", "install", "--require-hashes", "--requirement", str(lock)],
            stdout=output,
            stderr=subprocess.STDOUT,
        ).returncode
    if failed:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise Unable(f"pip could not install {lock.name}; {log} ends:\n{tail}")


def _make_venv() -> None:
    if VENV.is_symlink():
        raise Unable(
            f"{VENV} is a link to {VENV.resolve()}, which another checkout may use, and making the "
            "environment would empty it; remove the link and run this again"
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        package = "python{}.{}-venv".format(*sys.version_info[:2])
        if not _apt_install((package, "python3-venv"), "Python's venv module"):
            raise Unable(
                f"this Python ({sys.executable}) has no venv module; install it, for example "
                f"with `apt-get install {package}` (Debian, Ubuntu: python3-venv)"
            ) from None
    say(f"making {VENV.name} with {sys.executable} ({platform.python_version()})")
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(VENV)], capture_output=True, text=True
    )
    if made.returncode:
        raise Unable(f"could not make {VENV}: {(made.stdout + made.stderr).strip()}")


def _state() -> dict[str, object]:
    try:
        state = json.loads(STATE.read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return {}
    return state if isinstance(state, dict) else {}


def _save(state: dict[str, object]) -> None:
    partial = STATE.with_suffix(".partial")
    partial.write_text(json.dumps(state, indent=1) + "\n")
    partial.replace(STATE)


# --- Java ------------------------------------------------------------------------------------
def java_home(state: dict[str, object]) -> str:
    """The home of a Java that Spark can use: found, remembered, or installed."""
    asked = [os.environ.get("JAVA_HOME") or "", shutil.which("java") or ""]
    known = str(state.get("java_home", ""))
    if state.get("java_asked") == asked and known and (Path(known) / "bin" / "java").exists():
        return known
    home = _find_java()
    if home is None:
        packages = tuple(f"openjdk-{major}-jre-headless" for major in JAVA_MAJORS)
        _apt_install(packages, "a Java runtime")
        home = _find_java()
    if home is None:
        raise Unable(f"Spark needs Java 17 or 21, and none was found; {_java_advice()}")
    say(f"Java: {home}")
    _save({**state, "java_asked": asked, "java_home": str(home)})
    return str(home)


def _find_java() -> Path | None:
    """JAVA_HOME, then PATH, if they will do; else the best of the usual places."""
    named = os.environ.get("JAVA_HOME")
    if named:
        if java_major(Path(named)) in JAVA_MAJORS:
            return Path(named)
        say(f"JAVA_HOME={named} is no Java 17 or 21 that Spark can use; looking elsewhere")
    on_path = shutil.which("java")
    candidates = [Path(on_path).resolve().parent.parent] if on_path else []
    if candidates and java_major(candidates[0]) in JAVA_MAJORS:
        return candidates[0]
    found = {place.resolve() for place in _java_places() if (place / "bin" / "java").exists()}
    majors = {home: java_major(home) for home in sorted(found)}
    return next((h for wanted in JAVA_MAJORS for h, m in majors.items() if m == wanted), None)


def _java_places() -> list[Path]:
    """Where package managers and people put Javas."""
    places: list[Path] = []
    for pattern in (
        "/usr/lib/jvm/*",
        "/opt/java/*",
        "/Library/Java/JavaVirtualMachines/*/Contents/Home",
        "/opt/homebrew/opt/openjdk@*/libexec/openjdk.jdk/Contents/Home",
        "/usr/local/opt/openjdk@*/libexec/openjdk.jdk/Contents/Home",
    ):
        places += sorted(Path("/").glob(pattern[1:]))
    places += sorted(Path.home().glob(".sdkman/candidates/java/*"))
    return places


def java_major(home: Path) -> int | None:
    """The major version of a Java that has what Spark asks for; None where it will not do."""
    try:
        shown = subprocess.run(
            [str(home / "bin" / "java"), "--add-modules", JAVA_MODULE, "-version"],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r'version "(\d+)', shown.stderr + shown.stdout)
    return int(match.group(1)) if match and shown.returncode == 0 else None


def _java_advice() -> str:
    if sys.platform == "darwin":
        return "install it with `brew install openjdk@21`"
    names = " or ".join(f"openjdk-{major}-jre-headless" for major in JAVA_MAJORS)
    return (
        f"install {names} with your package manager (as root this set-up does it by apt-get; "
        "NIGHTJAR_SUDO=1 lets it use sudo), or set JAVA_HOME"
    )


# --- system packages -------------------------------------------------------------------------
def redis_server() -> None:
    """A redis-server for the tests that talk to one."""
    if shutil.which("redis-server"):
        return
    if not _apt_install(("redis-server",), "redis-server for the tests"):
        say("no redis-server: tests that need one will say so")


def chromium() -> None:
    """A browser for the tests that look at pages in one."""
    if shutil.which("chromium"):
        return
    if not _apt_install(("chromium",), "the browser that tests look at pages in"):
        say("no chromium: tests that need one will say so")


def _apt_install(packages: tuple[str, ...], purpose: str) -> bool:
    """Install the first of ``packages`` that apt offers, where we may; whether it worked."""
    prefix = _apt_prefix()
    if prefix is None:
        return False
    if not any(map(_offered, packages)):
        say("refreshing apt's package lists")
        subprocess.run([*prefix, "update", "-qq"], capture_output=True)
    package = next(filter(_offered, packages), None)
    if package is None:
        return False
    say(f"installing {package} by apt-get: {purpose}")
    command = [*prefix, "install", "-y", "-qq", "--no-install-recommends", package]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        # The lists may be older than the mirror's files: once more with fresh ones.
        subprocess.run([*prefix, "update", "-qq"], capture_output=True)
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        say(f"apt-get could not install {package}: {done.stderr.strip()[-400:]}")
    return done.returncode == 0


def _apt_prefix() -> list[str] | None:
    """How apt-get may be called: as root, or by sudo where the user set NIGHTJAR_SUDO=1."""
    if not shutil.which("apt-get"):
        return None
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    if os.geteuid() == 0:
        return quiet
    if os.environ.get("NIGHTJAR_SUDO") == "1" and shutil.which("sudo"):
        return ["sudo", "-n", *quiet]
    return None


def _offered(package: str) -> bool:
    shown = subprocess.run(["apt-cache", "policy", package], capture_output=True, text=True)
    return "Candidate:" in shown.stdout and "Candidate: (none)" not in shown.stdout


def _split(arguments: list[str]) -> tuple[list[str], str, list[str]]:
    if "--" not in arguments:
        return arguments, "", []
    place = arguments.index("--")
    return arguments[:place], "--", arguments[place + 1 :]


def _extras(options: list[str]) -> frozenset[str]:
    if "--with" not in options:
        return frozenset()
    return frozenset(options[options.index("--with") + 1].split(","))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
