"""Online retrieval: the items of a release's index that a person may get, nearest first.

Reads a release's folder alone: ``index/``, ``id_maps/``, ``filters/eligibility/``,
``filters/removed_items/``, ``model/`` and, for who somebody is and what is blocked for them,
``kv/``. Writes nothing and starts no engine.

    reader = serving.reader()
    retriever = Retriever.open("var/lake", reader.release_id)  # once a release
    answer = retriever.for_person("account:900", length=20, without=sold_out)
    query = retriever.vector_of(["995242"])  # of what was just watched
    answer = retriever.for_vector(query, version=retriever.version, person_id="account:900")

What may be found is one bitmap: the AND of those of the person's rules (availability, region,
restrictions), less what bans and margin floors take out of the surface, the person's blocked items
and ``without``.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs import io
from jobs.errors import Fault
from jobs.io import Lake
from jobs.release import releases, stores
from jobs.release.reader import RETRIEVED, Answer, Listed
from jobs.release.releases import REMOVED, Release
from jobs.retrieval import bundles, matrix

SURFACE = "feed"  # the surface that leaves retrieval to serving, as the night is shipped
GROUPS = 1_024  # bitmaps kept of persons with the same region and restrictions
_Where = tuple[str | None, str | None]  # a surface and a region that a rule names, None for all
_Group = tuple[str, tuple[str, ...], tuple[_Where, ...]]


class Retriever:
    """Searches one release's index, from as many threads as there are.

    Holds the index, the vectors of all persons, 4 bytes a dimension, and the ids in memory.
    """

    def __init__(self, release: Release, now: Callable[[], datetime] | None = None):
        """Raises ``Fault`` where the release's parts are of different embedding spaces."""
        self.release_id = release.id
        self.as_of = release.as_of
        self._ceiling = timedelta(hours=release.manifest["age_ceiling_hours"])
        self._now = now or _now
        self._store = stores.LmdbStore(release.path("kv"))
        self._bundle = _bundle(release)
        self.version: str = self._bundle.facts["embedding_version"]
        self.dim: int = self._bundle.facts["dim"]
        factors = io.read_arrow(release.path("model/person_factors"), ["person_id", "vector"])
        factors = factors.sort_by("person_id")
        # Searched by halving: a dictionary of a million ids would take more room than the vectors.
        self._people = pa.concat_arrays(factors["person_id"].chunks) if factors.num_rows else []
        self._vectors = matrix.vectors_of(factors)
        items = io.read_arrow(release.path("id_maps"), ["item_id", "position"])
        self._item_at = dict(
            zip(items["position"].to_pylist(), items["item_id"].to_pylist(), strict=True)
        )
        self._position = {item: position for position, item in self._item_at.items()}
        self._rules = _bitmaps(release)
        names = release.manifest["eligibility"]
        self._everyone: tuple[str, str] = tuple(names["everyone"])
        self._unknown_region: str = names["unknown_region"]
        self._removed = _removed(release, self._position)
        self._groups: dict[_Group, np.ndarray] = {}

    @classmethod
    def open(
        cls, lake: str | Path, release_id: str | None = None,
        now: Callable[[], datetime] | None = None,
    ) -> Retriever:  # fmt: skip
        """That of a release, such as the one that a reader answers from, so that the two never mix;
        of the newest valid one for None. Raises ``Fault`` where it is not whole."""
        if release_id is None:
            release, _ = releases.serving(Lake(lake))
        else:
            release = releases.opened(releases.root(Lake(lake)) / release_id)
        return cls(release, now)

    def for_person(
        self, person_id: str, surface: str = SURFACE, length: int = 20, *,
        without: Collection[str] = (),
    ) -> Answer:  # fmt: skip
        """The items nearest to a person's vector; none, and why, for one without a vector and past
        the release's age ceiling, where a reader has shared lists to give.

        ``without``: items that may not be shown after all, as in ``Reader.recommendations``.
        """
        row = self._row(person_id)
        if row is None:
            return self._answer((), "the person has no vector", surface, person_id)
        if self._now() - self.as_of > self._ceiling:
            return self._answer((), "the release is past its age ceiling", surface, person_id)
        found = self._nearest(self._vectors[row], person_id, surface, length, without)
        return self._answer(found, "nearest to the person's vector", surface, person_id)

    def for_vector(
        self, vector: np.ndarray, surface: str = SURFACE, length: int = 20, *, version: str,
        person_id: str | None = None, without: Collection[str] = (),
    ) -> Answer:  # fmt: skip
        """The items of largest inner product with a (dim,) vector of the space ``version`` that
        this person may get, or that anybody may get where nobody is known.

        Raises ``Fault`` for a vector of another space or length, and for one that is not finite.
        """
        if version != self.version:
            raise Fault(
                f"retriever: the vector is of the embedding space {version}, the index of "
                f"{self.release_id} holds {self.version}; take both from one release"
            )
        query = np.asarray(vector, np.float32)
        if query.shape != (self.dim,) or not np.isfinite(query).all():
            raise Fault(f"retriever: a query is {self.dim} finite numbers, not {query.shape}")
        found = self._nearest(query, person_id, surface, length, without)
        return self._answer(found, "nearest to a vector", surface, person_id)

    def vector_of(self, items: Sequence[str]) -> np.ndarray | None:
        """(dim,) float32, the mean of these items' vectors; None where the index knows none."""
        points = []
        for item in items:
            # What is not available has a position and stands in no index: a RuntimeError of FAISS.
            with contextlib.suppress(RuntimeError):
                if item in self._position:
                    points.append(self._bundle.index.reconstruct(self._position[item]))
        return np.asarray(np.mean(points, axis=0)[: self.dim], np.float32) if points else None

    def allowed(
        self, person_id: str | None, without: Collection[str] = (), surface: str = SURFACE
    ) -> np.ndarray:
        """(n_bytes,) uint8: bit i of byte i // 8, least significant first, is set where the person
        may get the item at position i on the surface."""
        facts: dict[str, Any] = {}
        blocked: Sequence[str] = ()
        if person_id is not None:
            facts = self._store.get("n", person_id) or {}
            blocked = (self._store.get("b", person_id) or {"item_id": ()})["item_id"]
        restrictions = facts.get("restrictions") or ()
        bits = self._of_group(facts.get("region"), restrictions, surface).copy()
        taken = [self._position[item] for item in (*blocked, *without) if item in self._position]
        _clear(bits, np.array(taken, np.int64))
        return bits

    def _nearest(
        self, query: np.ndarray, person_id: str | None, surface: str, length: int,
        without: Collection[str],
    ) -> tuple[Listed, ...]:  # fmt: skip
        if length < 1:
            return ()
        allowed = self.allowed(person_id, without, surface)
        found, scores = bundles.search(self._bundle, query[None], self.version, length, allowed)
        return tuple(
            Listed(self._item_at[position], score)
            for position, score in zip(found[0].tolist(), scores[0].tolist(), strict=True)
            if position >= 0
        )

    def _answer(
        self, found: tuple[Listed, ...], why: str, surface: str, person_id: str | None
    ) -> Answer:
        return Answer(self.release_id, RETRIEVED, why, found, surface, person_id)

    def _row(self, person_id: str) -> int | None:
        """Where a person's vector stands, or None."""
        people = self._people
        row = bisect_left(range(len(people)), person_id, key=lambda at: people[at].as_py())
        return row if row < len(people) and people[row].as_py() == person_id else None

    def _of_group(
        self, region: str | None, restrictions: Sequence[str], surface: str
    ) -> np.ndarray:
        """What everybody of a region and with these restrictions may get on a surface, as bits; not
        to be written into. Raises ``Fault`` for a restriction that the release does not know."""
        # Where rules name neither the surface nor the region, one bitmap serves all alike.
        ruled = tuple(where for where in _where(surface, region) if where in self._removed)
        place = region or self._unknown_region
        if ("region", place) not in self._rules:
            place = self._unknown_region
        group = (place, tuple(sorted(restrictions)), ruled)
        known = self._groups.get(group)
        if known is None:
            rules = [self._everyone, ("region", place), *(("restriction", r) for r in group[1])]
            missing = [
                f"{kind} {value!r}" for kind, value in rules if (kind, value) not in self._rules
            ]
            if missing:
                raise Fault(
                    f"retriever: filters/eligibility/ of {self.release_id} has no row for "
                    f"{', '.join(missing)}; run the step filters and the release again"
                )
            known = np.bitwise_and.reduce([self._rules[rule] for rule in rules])
            for where in ruled:
                _clear(known, self._removed[where])
            if len(self._groups) < GROUPS:
                self._groups[group] = known
        return known


def _bundle(release: Release) -> bundles.Bundle:
    """The index, ready to say an item's vector; of the same space as the persons' vectors."""
    import faiss

    try:
        space = io.read_json(release.path("model/embedding.json"))["version"]
    except FileNotFoundError:
        raise Fault(f"retriever: {release.id} has no model/embedding.json") from None
    bundle = bundles.load(release.path("index"))
    if bundle.facts["embedding_version"] != space:
        raise Fault(
            f"retriever: of {release.id} the persons' vectors are of the embedding space {space}, "
            f"the index holds {bundle.facts['embedding_version']}; run the steps embeddings, index "
            "and release again"
        )
    bundle.index.set_direct_map_type(faiss.DirectMap.Hashtable)  # type: ignore[attr-defined]
    return bundle


def _where(surface: str, region: str | None) -> list[_Where]:
    """The surfaces and regions, None for all, whose removals concern a person of the region."""
    places: list[_Where] = [(None, None), (surface, None)]
    return places if region is None else [*places, (None, region), (surface, region)]


def _removed(release: Release, position: Mapping[str, int]) -> dict[_Where, np.ndarray]:
    """Positions of what bans and margin floors take out, by surface and region, None for all; none
    in a release that is older than this folder."""
    if REMOVED not in release.manifest["tables"]:
        return {}
    found: dict[_Where, list[int]] = {}
    for row in io.read_arrow(release.path(REMOVED)).to_pylist():
        found.setdefault((row["surface"], row["region"]), []).append(position[row["item_id"]])
    return {where: np.array(taken, np.int64) for where, taken in found.items()}


def _clear(bits: np.ndarray, places: np.ndarray) -> None:
    """Take these positions out of a bitmap, in place."""
    np.bitwise_and.at(bits, places >> 3, ~(np.uint8(1) << (places & 7).astype(np.uint8)))


def _bitmaps(release: Release) -> dict[tuple[str, str], np.ndarray]:
    """Each rule's bitmap, (n_bytes,) uint8, by kind and value."""
    rows = io.read_arrow(release.path("filters/eligibility"), ["kind", "value", "bitmap"])
    return {
        (row["kind"], row["value"]): np.frombuffer(row["bitmap"], np.uint8)
        for row in rows.to_pylist()
    }


def _now() -> datetime:
    return datetime.now(UTC)
