"""The release in whose place a night will serve, where that one has read on.

A night reads what had been received by midnight and serves hours later, in place of refreshes that
have read on since. What people did may be known as of midnight; what may be shown may not: an item
that was recalled at half past twelve, and taken out by a refresh of one o'clock, would be back
until the next refresh. So the catalogue and the rules count up to where that release has read
(``jobs.signals.catalogue``), and what its people refused since is taken over
(``jobs.filtering.filters``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jobs import io, steps
from jobs.errors import Fault
from jobs.io import Lake
from jobs.night import Night
from jobs.release import releases
from jobs.release.releases import Release

NOTE = "replaces"  # in the manifest of the step catalogue
# Steps that may run again, or beside it, before the step catalogue has looked.
BEFORE = ("source", "events", "catalogue", "identities", "sessions")


@dataclass(frozen=True)
class Replaced:
    """A release by its id, and the instant up to which it says what may be shown."""

    id: str
    as_of: datetime


def find(night: Night) -> Replaced | None:
    """The release that serves, where it says more of what may be shown than this night has read and
    the night will serve in its place. None in a refresh, which has read most."""
    if night.refresh:
        return None
    try:
        serving, _ = releases.serving(night.lake)
    except Fault:
        return None  # nothing whole serves that could lose anything
    stays = serving.night > night.as_of or serving.manifest["source"] != night.source
    if stays or serving.shown_as_of <= night.as_of:
        return None
    return Replaced(serving.id, serving.shown_as_of)


def note(night: Night) -> datetime:
    """The instant up to which what may be shown counts in this run: of the release that it will
    replace, which is noted for the steps that follow, or its run date."""
    found = find(night)
    if found is None:
        return night.as_of
    night.notes[NOTE] = {"release": found.id, "as_of": found.as_of.isoformat()}
    return found.as_of


def noted(night: Night) -> Replaced | None:
    """What the step ``catalogue`` of this run has noted."""
    return _noted(night.published("catalogue").manifest)


def _noted(manifest: dict[str, Any]) -> Replaced | None:
    facts = manifest.get("notes", {}).get(NOTE)
    return facts and Replaced(facts["release"], datetime.fromisoformat(facts["as_of"]))


def overtaken(night: Night) -> str | None:
    """Why this run must look at the catalogue again, in a sentence: refreshes have read on since it
    did, as where a red gate let the lake go for hours. None where it need not."""
    looked = night.lake.at("catalogue", io.label(night.as_of))
    if night.step in BEFORE or night.step not in steps.STEPS or night.refresh or looked is None:
        return None
    known = _noted(looked.manifest)
    until = known.as_of if known else night.as_of
    if looked.manifest.get("run_id") != night.run_id or _reach(night.lake) <= until:
        return None
    found = find(night)
    if found is None or found.as_of <= until:
        return None
    return (
        f"{night.step}: {found.id} serves and says what may be shown up to "
        f"{io.label(found.as_of)}; this night looked at the catalogue before, for "
        f"{io.label(until)}, and would bring back what was taken out since: run it again from its "
        "step catalogue, in Airflow by clearing that with its downstream tasks"
    )


def _reach(lake: Lake) -> datetime:
    """The instant up to which what ``CURRENT`` names says what may be shown, by its manifest alone;
    the last there is where that cannot be read, which :func:`find` then looks into."""
    named = releases.current_id(lake)
    try:
        return releases.load(releases.root(lake) / (named or "none")).shown_as_of
    except releases.Broken:
        return datetime.max.replace(tzinfo=UTC)


def read(night: Night, found: Replaced) -> Release:
    """The release itself, as it lies there. Raises ``Fault`` where it is gone since."""
    folder = releases.root(night.lake) / found.id
    try:
        return releases.opened(folder)
    except releases.Broken as broken:
        raise Fault(
            f"{night.step}: {io.label(night.as_of)} serves in place of {found.id}, of which it "
            f"takes over what people refused since, and that is no longer whole ({broken}); run "
            "the night again from its step catalogue"
        ) from None
