"""The command line of the jobs: ``python -m jobs COMMAND``, and :func:`command` for the DAGs.

Exit codes: 0 done, 1 a fault of the machine or the code (with its traceback), 2 bad input or a
bad place, 3 a red gate.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import gc
import importlib
import json
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs import engine, io, lock, params, spark, steps
from jobs.errors import Busy, Fault, exit_code
from jobs.io import Lake
from jobs.night import Night, scratch_folder
from jobs.refresh import route
from jobs.release import replaced
from jobs.spark import engine_file

log = logging.getLogger("nightjar")
PATIENCE_SECONDS, PAUSE_SECONDS = 900.0, 1.0
DEFAULT_LAKE = "var/lake"
MANY = 100  # modules that a step or gate brings with it, as the first one of each kind does
_frozen = 0  # modules whose objects the collector does not look at any more
DEFAULT_SOURCE = "completejourney"


def command(arguments: Sequence[str]) -> None:
    """Run one command; raises ``Fault`` (or ``GateRed``) instead of exiting."""
    chosen = _parser().parse_args(list(arguments))
    chosen.function(chosen)


def main() -> int:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    log.setLevel(logging.INFO)  # the libraries tell of their own doings on this level
    try:
        return exit_code(lambda: command(sys.argv[1:]))
    except BrokenPipeError:
        # The reader of our output has had enough, as `| head` has; nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


# --- the night -------------------------------------------------------------------------------
def open_night(chosen: argparse.Namespace) -> None:
    """Check the run's parameters, take the lake, and start the engine."""
    lake = _open(chosen)
    try:
        engine.start(lake, chosen.master, dict(chosen.conf or []))
    except BaseException:
        lock.release(lake, chosen.run_id)
        raise


def open_refresh(chosen: argparse.Namespace) -> None:
    """The same for a refresh, with the release that it goes on from, and what it takes over. Its
    engine is started once a step needs one, which few do."""
    lake, as_of = _open(chosen, brief=True), io.parse_as_of(chosen.as_of)
    try:
        route.check_clock(lake, as_of, datetime.now(UTC))
        overrides = params.from_json(chosen.params)
        refresh = route.open_refresh(lake, as_of, chosen.run_id, chosen.source, overrides)
        route.carry_over(lake, as_of, chosen.run_id, refresh)
        engine.promise(lake, chosen.master, dict(chosen.conf or []))
    except BaseException:
        route.close(lake, chosen.run_id)
        lock.release(lake, chosen.run_id)
        raise


def _open(chosen: argparse.Namespace, brief: bool = False) -> Lake:
    lake = Lake(chosen.lake).open()
    check_overrides(params.from_json(chosen.params))
    io.parse_as_of(chosen.as_of)
    take(lake, chosen.run_id, brief)
    try:
        route.close(lake, chosen.run_id)  # left by a refresh of this name that was killed
        with lock.alone(lake):
            engine.stop(lake)
    except BaseException:
        lock.release(lake, chosen.run_id)
        raise
    return lake


def take(
    lake: Lake, run_id: str, brief: bool, patience: float = PATIENCE_SECONDS,
    pause: float = PAUSE_SECONDS,
) -> None:  # fmt: skip
    """Take the lake; a refresh at work is waited for, since it takes minutes, and a night hours.
    ``brief``: whether this run is one.

    Raises ``Busy`` at once where a night is at work, and where a refresh still is after
    ``patience`` seconds; it is looked at every ``pause`` seconds.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            lock.acquire(lake, run_id, brief)
            return
        except Busy:
            holder = lock.holder_of(lake)
            if holder and (not holder.get("brief") or time.monotonic() > deadline):
                raise
        time.sleep(pause)


def close_night(chosen: argparse.Namespace) -> None:
    """End the engine and let the lake go; safe to repeat."""
    lake = Lake(chosen.lake)
    if _held_by_another(lake, chosen.run_id):
        return
    if engine_file(lake).exists():
        spark.release_session()
    with lock.alone(lake):
        # Where nobody held the lake, another run may have taken it since.
        if _held_by_another(lake, chosen.run_id):
            return
        engine.stop(lake)
        shutil.rmtree(scratch_folder(lake), ignore_errors=True)
    route.close(lake, chosen.run_id)
    lock.release(lake, chosen.run_id)


def _held_by_another(lake: Lake, run_id: str) -> bool:
    holder = lock.holder_of(lake)
    if holder is None or holder["owner"] == run_id:
        return False
    log.info("lake=%s held_by=%s nothing_to_close", lake.root, holder["owner"])
    return True


def run_step(chosen: argparse.Namespace) -> None:
    """Do a step's work and stage its tables."""
    night = _night(chosen)
    lock.renew(night.lake, night.run_id)
    if overtaken := replaced.overtaken(night):
        raise Fault(overtaken)
    module = steps.module(night.step)
    chosen_params = night.params_of(night.step)
    night.reset()
    onward = night.refresh and route.ROUTE[night.step] == route.ONWARD
    with spark.needed(engine_file(night.lake)):
        (module.refresh if onward else module.run)(night, chosen_params)
    night.close(chosen_params, code_version())
    tidy(night)


def gate_step(chosen: argparse.Namespace) -> None:
    """Judge what a step staged; publish it when green, raise ``GateRed`` when not."""
    from jobs import gate

    night = _night(chosen)
    lock.renew(night.lake, night.run_id)
    try:
        with spark.needed(engine_file(night.lake)):
            gate.judge(night)
    finally:
        tidy(night)


def ensure_step(chosen: argparse.Namespace) -> None:
    """Do a step and judge it, unless it is published for the run date from the same source."""
    if _missing(_night(chosen), (chosen.step,)):
        run_step(chosen)
        gate_step(chosen)
    else:
        log.info("step=%s as_of=%s published_already", chosen.step, chosen.as_of)


def tidy(night: Night) -> None:
    """Collect what is left, and in a night return freed memory to the system: a process that does
    many steps would otherwise hold what the greatest of them took, beside the engine, for the rest
    of it. A refresh has no engine beside it, and is over in a minute, a fifteenth of which it would
    spend on asking for the same memory again."""
    global _frozen
    gc.collect()
    # Those of modules are half a million objects that need not be looked at again; what else lives
    # here is little.
    if len(sys.modules) > _frozen + MANY:
        gc.freeze()
        _frozen = len(sys.modules)
    if night.refresh is None:
        pa.default_memory_pool().release_unused()
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)  # glibc's; other systems have no such call


def measure_staleness(chosen: argparse.Namespace) -> None:
    """Make the tables that are not published yet, measure on an engine of its own, and tell."""
    from jobs.evaluation import advice, staleness

    overrides = params.from_json(chosen.params)
    own = overrides.pop("staleness", {})
    faults = params.faults("staleness", staleness.Params, own)
    if faults:
        raise Fault("params: " + "; ".join(faults))
    chosen.params = json.dumps(overrides)
    if Path(chosen.source).is_dir():
        chosen.source = str(Path(chosen.source).resolve())
    # A name of its own: the lake is then refused to it while any other run holds it.
    chosen.run_id = f"staleness-{secrets.token_hex(4)}"
    chosen.step = "staleness"
    missing = _missing(_night(chosen), staleness.NEEDS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the engine is ended
    open_night(chosen)
    try:
        for step in missing:
            of_step = argparse.Namespace(**{**vars(chosen), "step": step})
            run_step(of_step)
            gate_step(of_step)
        night = _night(chosen)
        lock.renew(night.lake, night.run_id)
        night.reset()
        with spark.needed(engine_file(night.lake)):
            found = staleness.run(night, params.build(staleness.Params, own))
    finally:
        close_night(chosen)
    for line in advice.told(*advice.read(found)):
        print(line)
    print(f"\nmeasured: {found}")
    print(f"page: {night.lake.root / 'docs' / advice.page(found)} (built by make docs)")


def _missing(night: Night, needs: Sequence[str]) -> list[str]:
    """The steps among ``needs`` that are not published for the run date, in the night's order."""
    found = {step: night.lake.at(step, io.label(night.as_of)) for step in steps.STEPS}
    for published in found.values():
        if published is not None and published.manifest["source"] != night.source:
            raise Fault(
                f"lake: {night.lake.root} holds the night of {published.as_of} of the source "
                f"{published.manifest['source']}, not of {night.source}; give another LAKE"
            )
    return [step for step in steps.STEPS if step in needs and found[step] is None]


def check_overrides(overrides: dict[str, dict[str, Any]]) -> None:
    """Refuse overrides of unknown steps or parameters, all named at once."""
    found = []
    for step, values in overrides.items():
        if step not in steps.EVERY:
            found.append(f"there is no step {step!r} (there are: {', '.join(steps.EVERY)})")
        else:
            found += params.faults(step, steps.module(step).Params, values)
    if found:
        raise Fault("params: " + "; ".join(found))


@functools.cache
def code_version() -> str:
    """The commit that runs, with ``+`` where the tree differed from it when this was first asked;
    else the package's state."""
    folder = Path(__file__).resolve().parent.parent
    try:
        described = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--exclude=*"],
            capture_output=True, text=True, check=True, timeout=20,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip()


def _night(chosen: argparse.Namespace) -> Night:
    as_of: datetime = io.parse_as_of(chosen.as_of)
    lake = Lake(chosen.lake).open()
    return Night(
        lake=lake,
        as_of=as_of,
        run_id=chosen.run_id,
        source=chosen.source,
        step=chosen.step,
        overrides=params.from_json(chosen.params),
        redis_url=chosen.redis_url,
        refresh=route.under_way(lake, chosen.run_id),
    )


# --- asking and operating --------------------------------------------------------------------
def _later(module: str) -> Any:
    """A command whose module is loaded only when it is called: ``module.main(chosen)``."""

    def call(chosen: argparse.Namespace) -> None:
        importlib.import_module(module).main(chosen)

    return call


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m jobs", description="Nightjar's jobs.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        lake = os.environ.get("NIGHTJAR_LAKE", DEFAULT_LAKE)
        sub.add_argument("--lake", default=lake, help="the lake's folder")
        return sub

    def add_redis(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--redis-url",
            default=os.environ.get("NIGHTJAR_REDIS_URL") or None,
            help="also serve from this Redis, redis://host:port/db",
        )

    def add_run(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        sub = add(name, function, text)
        sub.add_argument("--as-of", required=True, help="exclusive UTC instant, YYYY-MM-DD")
        sub.add_argument("--source", default=DEFAULT_SOURCE, help="a named source or a folder")
        sub.add_argument("--run-id", default="by-hand", help="names this attempt")
        sub.add_argument("--params", default="", help='overrides: {"step": {"parameter": value}}')
        add_redis(sub)
        return sub

    def add_engine(name: str, function: Any, text: str) -> None:
        sub = add_run(name, function, text)
        sub.add_argument("--master", default="local[*]", help="local[*], spark://… or sc://…")
        sub.add_argument(
            "--conf", action="append", type=_pair, metavar="NAME=VALUE", help="Spark settings"
        )

    add_engine("open-night", open_night, "take the lake and start the engine")
    add_engine("open-refresh", open_refresh, "take the lake and choose what a refresh goes on from")
    add_engine("staleness", measure_staleness, "what lists lose as tables age")
    add_run("close-night", close_night, "end the engine and let the lake go")
    add_run("run", run_step, "do a step").add_argument("step", choices=steps.EVERY)
    add_run("gate", gate_step, "judge and publish a step").add_argument("step", choices=steps.EVERY)
    ensure = add_run("ensure", ensure_step, "do and judge a step that is not published yet")
    ensure.add_argument("step", choices=steps.STEPS)

    show = add("show", _later("jobs.release.show"), "a person's recent signals and list")
    show.add_argument("person", help="a person_id, key_type:key, or a key that is unambiguous")
    show.add_argument("--surface", default="homepage")
    why = add("why", _later("jobs.filtering.explain"), "why a person does not get an item")
    why.add_argument("person")
    why.add_argument("item")
    rollback = add("rollback", _later("jobs.release.rollback"), "serve an earlier release")
    rollback.add_argument("--to", help="a release id; without it, the one before CURRENT")
    add_redis(rollback)
    shadow = add("shadow", _later("jobs.release.shadow"), "a candidate beside what serves")
    shadow.add_argument("candidate", help="the lake that the candidate was built in")
    shadow.add_argument("--decision", choices=("promote", "reject"), help="after comparing")
    shadow.add_argument("--reason", help="why, for the history")
    add_redis(shadow)
    plan = add("plan", _later("jobs.diagnosis.experiments.plan"), "how long an experiment takes")
    plan.add_argument("--effect", type=float, default=0.05, help="the least worth finding, a share")
    plan.add_argument("--arms", type=int, default=2, help="of one size, the control among them")
    assign = add(
        "assign", _later("jobs.diagnosis.experiments.assigning"), "balanced arms for who is known"
    )
    assign.add_argument("experiment", help="its name in the metrics file")
    assign.add_argument("--file", help="the metrics file; without it, that of the source")
    lineage = add("lineage", _later("jobs.lineage"), "the way back from a table to its source")
    lineage.add_argument("table")
    lineage.add_argument("--as-of", help="without it, the newest published")
    docs = add("docs", _later("jobs.pages.docs"), "build the data docs and report pages")
    docs.add_argument("--out", help="a folder; without it, docs/ in the lake")
    return parser


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
