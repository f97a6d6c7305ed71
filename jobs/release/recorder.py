"""What was served, in the recommendation log's form: who asked, what was shown where, and why.

Reads, of the releases that the answers are of, ``features/`` (what scores were computed from) and
``recommendations/`` (what put an item at its place). Writes files of ``recommendation_log/``, a row
per item of an answer, as the source contract has it: the folder is a source's, and the nights that
read it learn from it.

    recorder = Recorder("var/served", lake="var/lake")
    answer = reader.recommendations(person)
    now = datetime.now(UTC)
    recorder.record(answer, Request("r-1", now, "account", "900", latency_ms=0.4, shown=[1, 2]))
    recorder.flush()  # every minute, by a thread of your own: one file for all of them

``record`` keeps the answer in memory and takes a microsecond; features are looked up by ``flush``,
for all people at once.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs import io
from jobs.errors import Fault
from jobs.io import Lake
from jobs.release import releases
from jobs.release.basis import Basis, Known
from jobs.release.reader import PERSONAL, POOLS, Answer, Listed
from jobs.sources import contract

log = logging.getLogger("nightjar")
TABLE = "recommendation_log"
# Why an item stands in a person's answer that is not of the person's own list.
FILLED = "a shared list fills the place of what may not be shown"
# Answers in memory before a recorder that nobody flushes writes by itself; with 20 items and 80
# features each, some 0.6 GB while they are written.
MOST = 10_000
SHELVES = 3  # releases kept open: the one in use and those it followed

Served = tuple[Answer, "Request"]
OfRelease = Mapping[str, Known]  # what a release knows, by person


@dataclass(frozen=True)
class Request:
    """Who asked, when, and what became of the answer.

    ``time``: with its zone. ``key_type`` and ``key``: the identity key that asked, also of a
    stranger. ``latency_ms``: from question to answer. ``shown``: for each item of the answer in its
    order, the place on the page, from 1, or None for one that was not shown; those beyond its end
    were not shown either. Without ``shown`` the log does not say what the page showed.
    """

    request_id: str
    time: datetime
    key_type: str
    key: str
    latency_ms: float | None = None
    shown: Sequence[int | None] | None = None
    experiment: str | None = None
    arm: str | None = None

    def __post_init__(self) -> None:
        """Raises ``Fault`` that names everything that no log can hold."""
        wrong = [
            f"{name} is no text that can be written"
            for name in ("request_id", "key_type", "key", "experiment", "arm")
            if not _is_text(getattr(self, name), optional=name in ("experiment", "arm"))
        ]
        if self.time.tzinfo is None:
            wrong.append("time has no zone")
        if self.shown is not None and not all(map(_is_place, self.shown)):
            wrong.append("shown has something else than places from 1 and None")
        if self.latency_ms is not None and not isinstance(self.latency_ms, int | float):
            wrong.append("latency_ms is no number")
        if wrong:
            raise Fault(f"request: {'; '.join(wrong)}; correct what is recorded")

    def shown_at(self, place: int) -> int | None:
        """Where on the page the item at this place of the answer, from 1, was shown."""
        if self.shown is None or place > len(self.shown):
            return None
        return self.shown[place - 1]


class Recorder:
    """Collects what was served and appends it to a folder; for as many threads as there are.

    What was recorded and not flushed is lost with the program; leaving ``with`` flushes.
    """

    def __init__(self, folder: str | Path, lake: str | Path | None = None, most: int = MOST):
        """``folder``: a source in the contract's shape, or a new one. ``lake``: with the releases
        that are served; without it no features and no reasons of places are recorded."""
        self._folder = Path(folder)
        self._lake = None if lake is None else Lake(lake)
        self._most = most
        self._served: list[Served] = []
        self._shelves: OrderedDict[str, Basis] = OrderedDict()
        self._counting, self._writing = threading.Lock(), threading.Lock()

    def record(self, answer: Answer, request: Request) -> None:
        """Keep an answer for the next flush; the one that is too many flushes by itself, and raises
        as :meth:`flush` does."""
        with self._counting:
            self._served.append((answer, request))
            full = len(self._served) >= self._most
        if full:
            self.flush()

    def flush(self) -> Path | None:
        """Append what was recorded since the last flush as one file; None where nothing was.

        Raises ``OSError`` where the folder cannot be written; what was recorded then stays for the
        next flush.
        """
        with self._writing:
            with self._counting:
                served, self._served = self._served, []
            try:
                rows = rows_of(served, self._known(served))
                return append(self._folder, rows) if rows.num_rows else None
            except BaseException:
                with self._counting:
                    self._served = served + self._served
                raise

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def _known(self, served: Iterable[Served]) -> dict[str, OfRelease]:
        """What the releases of these answers know of the people in them, by release id. Rows are
        written without it where it is gone, which is better than not at all."""
        people: dict[str, set[str]] = {}
        for answer, _ in served:
            if self._lake is not None and answer.kind == PERSONAL and answer.person_id is not None:
                people.setdefault(answer.release_id, set()).add(answer.person_id)
        found: dict[str, OfRelease] = {}
        for release_id, who in people.items():
            try:
                found[release_id] = self._basis(release_id).of(who)
            except (Fault, OSError) as gone:
                log.warning("recorder=no_features release=%s because %s", release_id, gone)
        return found

    def _basis(self, release_id: str) -> Basis:
        assert self._lake is not None
        if release_id not in self._shelves:
            release = releases.load(releases.root(self._lake) / release_id)
            self._shelves[release_id] = Basis(release)
        self._shelves.move_to_end(release_id)
        while len(self._shelves) > SHELVES:
            self._shelves.popitem(last=False)
        return self._shelves[release_id]


# --- rows ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Place:
    """One row to be: an item of an answer, at its place from 1."""

    answer: Answer
    request: Request
    place: int
    listed: Listed
    known: Known | None

    @property
    def row(self) -> int | None:
        """Where its features stand, if the score was computed from any that are known."""
        if self.known is None or not self.listed.scored:
            return None
        return self.known.row_of.get(self.listed.item_id)

    @property
    def reason(self) -> str | None:
        """What placed it in the person's own list, where that was not the model."""
        if self.known is None or not self.listed.own:
            return None
        return self.known.reasons.get((self.answer.surface, self.listed.item_id))

    @property
    def fallback(self) -> str | None:
        """Why it is not of the list that was asked for."""
        if self.answer.kind == POOLS:
            return self.answer.reason
        return FILLED if self.answer.kind == PERSONAL and not self.listed.own else None


def rows_of(served: Sequence[Served], known: Mapping[str, OfRelease] | None = None) -> pa.Table:
    """The rows of ``recommendation_log`` in the contract's types, one an item of an answer.

    ``known``: by release id and person, where ``Basis.of`` has it. A feature that was not known is
    not in ``features``; ``feature_version`` and ``feature_hash`` are as published.
    """
    parts = [contract.schema(TABLE).empty_table()]
    in_order = sorted(served, key=lambda one: one[0].release_id)
    for release_id, some in groupby(in_order, key=lambda one: one[0].release_id):
        of_release = (known or {}).get(release_id, {})
        places = [
            _Place(answer, request, place, listed, of_release.get(answer.person_id or ""))
            for answer, request in some
            for place, listed in enumerate(answer.items, start=1)
        ]
        parts.append(_rows(places))
    return pa.concat_tables(parts)


def _rows(places: list[_Place]) -> pa.Table:
    """The rows of places that are of one release."""
    columns: dict[str, Any] = {
        "request_id": [one.request.request_id for one in places],
        "request_time": [one.request.time.astimezone(UTC) for one in places],
        "surface": [one.answer.surface for one in places],
        "key_type": [one.request.key_type for one in places],
        "key": [one.request.key for one in places],
        "position": [one.place for one in places],
        "item_id": [one.listed.item_id for one in places],
        "propensity": [one.listed.propensity for one in places],
        "release_id": [one.answer.release_id for one in places],
        "score": [one.listed.score for one in places],
        "experiment": [one.request.experiment for one in places],
        "arm": [one.request.arm for one in places],
        "shown_position": [one.request.shown_at(one.place) for one in places],
        "override_reason": [one.reason for one in places],
        "fallback": [one.fallback for one in places],
        "latency_ms": [one.request.latency_ms for one in places],
        **_featured(places),
    }
    schema = contract.schema(TABLE)
    typed = {
        name: pa.array(column, schema.field(name).type) if isinstance(column, list) else column
        for name, column in columns.items()
    }
    return pa.table([typed[name] for name in schema.names], schema=schema)


def _featured(places: list[_Place]) -> dict[str, Any]:
    """features, feature_version and feature_hash, null where the score is of no features."""
    found = [(one.known, one.row) for one in places]
    has = np.array([row is not None for _, row in found], bool)
    values = [known.values[row] for known, row in found if known is not None and row is not None]
    names = next((known.names for known, row in found if known and row is not None), [])
    stacked = np.array(values, np.float32).reshape(len(values), len(names))
    given = ~np.isnan(stacked)
    sizes = np.zeros(len(places), np.int32)
    sizes[has] = given.sum(axis=1)
    ends = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    # A null before its start is how Arrow is told of a row without a map.
    starts = pa.array(ends, mask=np.r_[~has, False])
    maps = pa.MapArray.from_arrays(
        starts,
        pa.array(names, pa.string()).take(pa.array(np.nonzero(given)[1])),
        pa.array(stacked[given].astype(np.float64)),
    )
    return {
        "features": maps,
        "feature_version": [k.versions[r] if k and r is not None else None for k, r in found],
        "feature_hash": [k.hashes[r] if k and r is not None else None for k, r in found],
    }


def append(folder: Path, rows: pa.Table) -> Path:
    """Add rows of ``recommendation_log`` to a source's folder as one file, whole or not at all.

    Raises ``Fault`` where the rows have other columns than the contract and ``OSError`` where the
    folder cannot be written.
    """
    schema = contract.schema(TABLE)
    if not rows.schema.equals(schema):
        raise Fault(f"recorder: the rows have the columns {rows.schema.names}, not the contract's")
    first = pc.min(rows["request_time"]).as_py()
    name = f"served-{first:%Y%m%dT%H%M%S}-{uuid.uuid4().hex}"
    return io.append_arrow(folder / TABLE, name, rows)


def _is_place(value: Any) -> bool:
    return value is None or (isinstance(value, int) and value >= 1)


def _is_text(value: Any, optional: bool) -> bool:
    if value is None:
        return optional
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:  # half a surrogate pair
        return False
