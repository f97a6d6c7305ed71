"""The release in whose place a night will serve, where that one has read on.

A night reads what had been received by midnight and serves hours later, in place of refreshes that
have read on since. What is learnt may be as of midnight; what may be shown may not: an item that
was recalled at half past twelve, and taken out by a refresh of one o'clock, would be back until the
next refresh. So what the catalogue and the rules say of showing counts up to where that release has
read (``jobs.signals.catalogue``), and what its people refused since is taken over
(``jobs.filtering.filters``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from jobs import io
from jobs.errors import Fault
from jobs.night import Night
from jobs.release import releases
from jobs.release.releases import Release

NOTE = "replaces"  # in the manifest of the step that looks first


@dataclass(frozen=True)
class Replaced:
    """A release by its id, and the instant up to which it has read."""

    id: str
    as_of: datetime


def find(night: Night) -> Replaced | None:
    """The release that serves, where it has read more than this night and the night will serve in
    its place; noted for the steps that follow. None in a refresh, which has read most."""
    if night.refresh:
        return None
    try:
        serving, _ = releases.serving(night.lake)
    except Fault:
        return None  # nothing whole serves that could lose anything
    reads_on = serving.as_of > night.as_of and serving.manifest["source"] == night.source
    if not reads_on or serving.night > night.as_of:
        return None
    night.notes[NOTE] = {"release": serving.id, "as_of": serving.as_of.isoformat()}
    return Replaced(serving.id, serving.as_of)


def noted(night: Night) -> Replaced | None:
    """What :func:`find` found when the step ``catalogue`` of this run asked."""
    facts = night.published("catalogue").manifest.get("notes", {}).get(NOTE)
    return facts and Replaced(facts["release"], datetime.fromisoformat(facts["as_of"]))


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
