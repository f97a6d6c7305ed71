"""The lists of the key-value store that a refresh takes over from its base, as they stand there.

Most people's lists are the base's, row by row, and so are their entries: to make them anew of the
rows was most of what a refresh did for the store. Whose lists may be others the step
``recommendations`` says, beside its tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import io
from jobs.night import Night
from jobs.ordering.recommendations import AGAIN
from jobs.release import releases
from jobs.release.entries import Entry
from jobs.release.releases import Release
from jobs.release.stores import LmdbStore

LISTS, HASHED = b"r/", b"z/"


@dataclass(frozen=True)
class Standing:
    """The ``store`` of the base's release, and the sorted ids of the ``people`` whose lists are
    not taken from there."""

    store: LmdbStore
    people: pa.StringArray

    def entries(self) -> Iterator[Entry]:
        """The entries of all other people's lists, in the order of their keys."""
        again = {person.encode() for person in self.people.to_pylist()}
        for key, value in self.store.items(LISTS):
            # r/<surface>/<person_id>, and what is behind the second stroke is the person's alone.
            if key.split(b"/", 2)[2] not in again:
                yield key, value


def find(night: Night, surfaces: list[str], drawn: bool) -> Standing | None:
    """What a refresh takes over; None in a night, and where the base's release does not hold its
    lists as this one would: other surfaces, no propensities beside its places, keys too long to
    tell whose they are, or a file that is not as it was made.

    ``surfaces``: those of persons; ``drawn``: whether entries name propensities.
    """
    path = night.published("recommendations").table(AGAIN)
    if night.refresh is None or not path.is_file():
        return None
    base = _release_of(night, night.refresh.base)
    if base is None or base.manifest["kv"].get("lists") != form(surfaces, drawn):
        return None
    kept = base.path("kv") / "data.mdb"
    if releases.digest(kept) != base.manifest["files"]["kv/data.mdb"]["sha256"]:
        return None
    store = LmdbStore(base.path("kv"))
    if next(store.items(HASHED), None) is not None:
        return None
    return Standing(store, pq.read_table(path)["person_id"].combine_chunks())


def form(surfaces: list[str], drawn: bool) -> dict[str, object]:
    """What the entries of a release's lists are like, as its manifest says."""
    return {"format": releases.FORMAT, "surfaces": sorted(surfaces), "propensities": drawn}


def _release_of(night: Night, label: str) -> Release | None:
    """The newest release of these published lists."""
    found = night.lake.at("recommendations", label)
    mine = [
        one
        for one in releases.readable(night.lake)
        if found is not None
        and io.label(one.as_of) == label
        and one.manifest.get("attempts", {}).get("recommendations") == found.attempt
    ]
    return mine[-1] if mine else None
