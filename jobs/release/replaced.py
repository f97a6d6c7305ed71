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
from jobs.io import Lake, Published
from jobs.night import Night
from jobs.release import releases
from jobs.release.releases import Release

NOTE = "replaces"  # in the manifests of the steps catalogue and filters
# Steps that may run again, or beside it, before the step catalogue has looked.
BEFORE = ("source", "events", "catalogue", "identities", "sessions")


@dataclass(frozen=True)
class Replaced:
    """A release by its id, and the instant up to which it says what may be shown."""

    id: str
    as_of: datetime

    @property
    def note(self) -> dict[str, Any]:
        """It in a step's manifest."""
        return {NOTE: {"release": self.id, "as_of": self.as_of.isoformat()}}


def find(night: Night) -> Replaced | None:
    """The release that serves, where it says more of what may be shown than this night has read and
    the night will serve in its place. None in a refresh, which has read most."""
    named = _named(night.lake)
    if night.refresh or (named is not None and not _read_on(night, named, night.as_of)):
        return None
    try:
        serving, _ = releases.serving(night.lake)
    except Fault:
        return None  # nothing whole serves that could lose anything
    reads_on = _read_on(night, serving, night.as_of)
    return Replaced(serving.id, serving.shown_as_of) if reads_on else None


def _named(lake: Lake) -> Release | None:
    """What ``CURRENT`` names, its files unseen; None where its manifest cannot be read."""
    try:
        return releases.load(releases.root(lake) / (releases.current_id(lake) or "none"))
    except releases.Broken:
        return None


def _read_on(night: Night, serving: Release, until: datetime) -> bool:
    """Whether it is one that the night will replace and that says what may be shown beyond
    ``until``; what a clock that was ahead has made says nothing."""
    replaceable = serving.night <= night.as_of and serving.manifest["source"] == night.source
    return replaceable and until < serving.shown_as_of <= datetime.now(UTC) + releases.AHEAD


def _serving_beyond(night: Night, until: datetime) -> str | None:
    """The id of what this night will replace where that says what may be shown beyond ``until``."""
    named = _named(night.lake)
    if named is not None:
        return named.id if _read_on(night, named, until) else None
    found = find(night)
    return found.id if found and found.as_of > until else None


def note(night: Night) -> datetime:
    """The instant up to which what may be shown counts in this run: of the release that it will
    replace, which is noted for the steps that follow, or its run date."""
    found = find(night)
    if found is None:
        return night.as_of
    night.notes |= found.note
    return found.as_of


def noted(made: Published) -> Replaced | None:
    """What a published step has noted of what its night will replace."""
    facts = made.manifest.get("notes", {}).get(NOTE)
    return facts and Replaced(facts["release"], datetime.fromisoformat(facts["as_of"]))


def shown_as_of(made: Published | None, as_of: datetime) -> datetime:
    """The instant up to which a night says what may be shown, by its step ``catalogue``."""
    found = noted(made) if made else None
    return found.as_of if found else as_of


def overtaken(night: Night) -> str | None:
    """Why this run must look at the catalogue again, in a sentence: refreshes have read on since it
    did, as where a red gate let the lake go for hours. None where it need not."""
    looked = night.lake.at("catalogue", io.label(night.as_of))
    if night.step in BEFORE or night.step not in steps.STEPS or night.refresh or looked is None:
        return None
    # The tables of another run may be those that this one is about to make anew; what is published
    # stands on them whoever made them.
    if looked.manifest.get("run_id") != night.run_id and night.step != "release":
        return None
    until = shown_as_of(looked, night.as_of)
    if night.step == "release" and noted(looked) != noted(night.published("filters")):
        why = "was looked at for another refresh than what people refused was taken from"
    elif now := _serving_beyond(night, until):
        why = f"was looked at for {io.label(until)}, and {now} serves, which has read on"
    else:
        return None
    return (
        f"{night.step}: the catalogue {why}; what was taken out since would come back: run the "
        "night again from its step catalogue, in Airflow by clearing that with its downstream tasks"
    )


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
