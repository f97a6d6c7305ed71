"""What a refresh does at each step, from which release it goes on, and when it must not.

A refresh is a run of the steps for an hour of the day. Signals and filters are the rebuild's: some
computed as in the night, events and sessions anew only where something changed. The model and what
judges it are carried over from the night; vectors, index, candidates and lists go on from the
release before it, its *base*, and change only for the people and items that changed.

The base is the newest refresh of the newest night, or that night itself. A night published since
then is the base of the next refresh, whatever was refreshed meanwhile.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jobs import io, params, steps
from jobs.errors import Fault, NightNeeded
from jobs.io import Lake, Published
from jobs.refresh import explored
from jobs.release import releases
from jobs.release.releases import Release, moment
from jobs.scoring import features
from jobs.scoring.scorer import SCORER

log = logging.getLogger("nightjar")

ANEW, ONWARD, CARRIED = "anew", "onward", "carried"
# In the order of a refresh.
ROUTE: dict[str, str] = {
    "source": ANEW,
    "events": ONWARD,
    "catalogue": ANEW,
    "identities": ANEW,
    "sessions": ONWARD,
    "interactions": ANEW,
    "filters": ANEW,
    "audits": CARRIED,
    "examples": CARRIED,
    "ranker": CARRIED,
    "changes": ONWARD,
    "content_embeddings": ONWARD,
    "embeddings": ONWARD,
    "index": ONWARD,
    "candidates": ONWARD,
    "recommendations": ONWARD,
    "item_lists": ONWARD,
    "release": ANEW,
}
MADE = tuple(step for step, how in ROUTE.items() if how != CARRIED)
CARRIED_STEPS = tuple(step for step, how in ROUTE.items() if how == CARRIED)
# What these are set to shapes lists and nothing that is learnt: lists are then made anew.
CONFIGURES_LISTS = ("filters", "candidates", "recommendations", "item_lists")
# Parameters that a night does not look at: changed for a refresh, they change no night's work.
OF_REFRESHES = {"index": ("guard",)}


@dataclass(frozen=True)
class Refresh:
    """A refresh under way: labels of the run date that it goes on from and of the night at the
    beginning of that chain, and when that night was published."""

    base: str
    night: str
    night_created: str = ""


def file(lake: Lake) -> Path:
    """Where the refresh under way is written down."""
    return lake.root / ".night" / "refresh.json"


def open_refresh(
    lake: Lake, as_of: datetime, run_id: str, source: str, overrides: dict[str, dict[str, Any]]
) -> Refresh:
    """Choose the base and write it down for the run's steps.

    Raises ``Fault`` where there is no night to go on from, ``NightNeeded`` where it learnt by other
    parameters.
    """
    base = base_of(lake, as_of)
    if base.manifest["source"] != source:
        raise Fault(
            f"refresh: the release {base.id} is made from {base.manifest['source']}, not from "
            f"{source}; give the same SOURCE, or another LAKE"
        )
    changed = differing(base.manifest["config"], overrides)
    learnt = [step for step in changed if step not in CONFIGURES_LISTS]
    if learnt:
        raise NightNeeded(
            f"refresh: the parameters of {', '.join(learnt)} are others than those of the night "
            f"{io.label(base.night)}; run a night with them, then refresh"
        )
    version = io.read_json(base.path("scorer") / SCORER)["feature_version"]
    if version != features.VERSION:
        raise NightNeeded(
            f"refresh: the night {io.label(base.night)} learnt by features of {version}, and this "
            f"code measures {features.VERSION}; run a night, then refresh"
        )
    if base.as_of >= as_of:
        raise Fault(
            f"refresh: {io.label(as_of)} is not after {io.label(base.as_of)}, which the release "
            f"{base.id} has read up to; give a later AS_OF, or run the night of {as_of:%Y-%m-%d}"
        )
    if base.shown_as_of > as_of:
        raise Fault(
            f"refresh: the release {base.id} says what may be shown up to "
            f"{io.label(base.shown_as_of)}, and {io.label(as_of)} is before that: it would bring "
            "back what was taken out since; give a later AS_OF"
        )
    chosen = Refresh(io.label(base.as_of), io.label(base.night), base.night_created)
    io.write_json(file(lake), {"run_id": run_id, **dataclasses.asdict(chosen)})
    log.info("refresh=%s base=%s night=%s", io.label(as_of), chosen.base, chosen.night)
    return chosen


def check_clock(lake: Lake, as_of: datetime, now: datetime) -> None:
    """Raise ``Fault`` where a refresh is asked for a moment that is yet to come, or where what
    serves is of one: an hour that a clock ran ahead to, behind which no refresh would serve before
    the time has caught up.

    ``now``: this machine's clock. Runs of any past moment are none of its business.
    """
    latest = now + releases.AHEAD
    clock = f"this machine's clock, which says {now:%Y-%m-%d %H:%M} UTC"
    if as_of > latest:
        raise Fault(
            f"refresh: {io.label(as_of)} is later than {clock}; give an earlier AS_OF, or set the "
            "clock right"
        )
    serving = moment(releases.current_id(lake) or "")
    if serving is not None and serving > latest:
        raise Fault(
            f"refresh: the release {releases.current_id(lake)} serves and is of "
            f"{io.label(serving)}, later than {clock}: it was made while a clock was ahead; serve "
            "the one before it (make rollback), or set the clock right, then refresh"
        )


def under_way(lake: Lake, run_id: str) -> Refresh | None:
    """The refresh that this run is, if it is one."""
    try:
        found: dict[str, Any] = io.read_json(file(lake))
    except FileNotFoundError:
        return None
    return Refresh(**found) if found.pop("run_id") == run_id else None


def differing(config: dict[str, Any], overrides: dict[str, dict[str, Any]]) -> list[str]:
    """The steps whose parameters are not those that a release was made with."""
    found = []
    for step in ROUTE:
        if step in config and step != "release":
            ours = params.build(steps.module(step).Params, overrides.get(step, {}))
            if _canonical(step, dataclasses.asdict(ours)) != _canonical(step, config[step]):
                found.append(step)
    return found


def _canonical(step: str, values: dict[str, Any]) -> str:
    asked = {name: v for name, v in values.items() if name not in OF_REFRESHES.get(step, ())}
    return json.dumps(asked, sort_keys=True, default=str)


def base_of(lake: Lake, as_of: datetime) -> Release:
    """The newest release of the newest night's chain before ``as_of``, that night included; never
    one newer than ``CURRENT``, since what was rolled back stays back.

    Raises ``Fault`` where there is none or it is not whole.
    """
    shelf = [one for one in releases.readable(lake) if one.as_of <= as_of]
    serving = next((one for one in shelf if one.id == releases.current_id(lake)), None)
    shelf = [one for one in shelf if serving is None or one.age <= serving.age]
    nights = [one for one in shelf if one.manifest["kind"] == "nightly"]
    if not nights:
        raise Fault(
            f"refresh: {lake.root} has no release of a night before {io.label(as_of)} to go on "
            "from; run one with `make run`"
        )
    newest = nights[-1]
    chain = [one for one in shelf if one.age[:2] == newest.age[:2] and one.as_of < as_of] or [
        newest
    ]
    passed = []
    for release in reversed(chain):
        try:
            whole = releases.opened(release.folder)
        except releases.Broken as broken:
            passed.append(str(broken))
        else:
            moved = moved_on(lake, whole)
            if not moved:
                return whole
            passed.append(f"release {release.id}: the tables of {', '.join(moved)} are not its own")
        log.warning("refresh=passed_over %s", passed[-1])
    raise Fault(
        f"refresh: nothing of the night {io.label(newest.as_of)} can be gone on from "
        f"({'; '.join(passed)}); run the night again with `make run`"
    )


def moved_on(lake: Lake, release: Release) -> list[str]:
    """The steps whose published tables are gone, or of another attempt than the release: a run of
    the same date that ended red has made some of them anew. All of them for one that does not
    say."""
    attempts = release.manifest.get("attempts", {})
    found = []
    for step in ROUTE:
        of_refresh = step == "changes" and release.manifest["kind"] != "hourly"
        if step != "release" and not of_refresh:
            there = lake.at(step, io.label(release.as_of))
            if there is None or there.attempt != attempts.get(step):
                found.append(step)
    return found


def carry_over(lake: Lake, as_of: datetime, run_id: str, refresh: Refresh) -> None:
    """Publish what a refresh does not make anew as its base has it."""
    for step in CARRIED_STEPS:
        found = lake.published(step, io.parse_as_of(refresh.base))
        carry(lake, found, as_of, run_id, refresh)
        log.info("step=%s carried_from=%s", step, refresh.base)


def carry(lake: Lake, found: Published, as_of: datetime, attempt: str, refresh: Refresh) -> None:
    """Publish a step's output for the run date of a refresh as it is, its files shared."""
    staged = lake.staged(found.step, as_of)
    # What a killed run left there may be another base's, or the very files.
    shutil.rmtree(staged, ignore_errors=True)
    releases.link_tree(found.folder, staged)
    manifest = {
        **found.manifest,
        "carried_from": found.as_of,
        "refresh": dataclasses.asdict(refresh),
    }
    evidence = lake.evidence(found.step, io.parse_as_of(found.as_of), found.attempt)
    target = lake.evidence(found.step, as_of, attempt)
    if evidence.is_file() and not target.exists():
        releases.link(evidence, target)
    io.write_json(staged / "manifest.json", manifest)
    lake.publish(found.step, as_of, attempt)


def forget(lake: Lake, drawn_since: datetime) -> list[str]:
    """Delete tables of refreshes whose release is gone from the shelf, or never came to it, and
    what was staged and found of them; returns their labels. What they drew by chance is kept apart
    (``explored``), of refreshes since ``drawn_since``.

    The tables of nights stay: a backfill, an audit and an explored place look back at them. A label
    is found by its tables, so these go last, and each out of sight in one step: what a kill leaves
    is found again.
    """
    away = lake.root / ".gone"
    shutil.rmtree(away, ignore_errors=True)
    kept = {io.label(release.as_of) for release in releases.readable(lake)}
    gone = {
        folder.name
        for folder in (lake.root / "tables").glob("*/*")
        if folder.name not in kept and _of_refresh(lake, folder)
    }
    for label in sorted(gone):
        if io.parse_as_of(label) >= drawn_since:
            explored.keep(lake, label)
        folders = list((lake.root / "tables").glob(f"*/{label}"))
        # A night of the same run date has its own there; what has no pointer is of a killed run.
        ours = [folder for folder in folders if _of_refresh(lake, folder) is not False]
        places = [lake.root / place / label for place in ("staged", "evidence")]
        if len(ours) < len(folders):
            places = [lake.root / "evidence" / label / folder.parent.name for folder in ours]
        for place in places:
            shutil.rmtree(place, ignore_errors=True)
        away.mkdir(exist_ok=True)
        for folder in ours:
            os.rename(folder, away / f"{folder.parent.name}@{label}")
    explored.drop(lake, drawn_since)
    shutil.rmtree(away, ignore_errors=True)
    return sorted(gone)


def _of_refresh(lake: Lake, folder: Path) -> bool | None:
    """Whether a step's tables of a run date are a refresh's; None where none are published."""
    found = lake.at(folder.parent.name, folder.name)
    return None if found is None else bool(found.manifest.get("refresh"))


def close(lake: Lake, run_id: str) -> None:
    """Let go of what :func:`open_refresh` wrote for this run."""
    if under_way(lake, run_id) is not None:
        os.unlink(file(lake))
