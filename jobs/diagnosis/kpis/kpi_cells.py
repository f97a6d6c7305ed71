"""What the KPIs are counted over: requests and visits with texts as codes, and cells of them.

A cell is a group (the whole, a surface, an arm, personal or fallback answers), a segment and a
period. Columns are read one at a time and kept as codes: ten million texts of each would not fit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.diagnosis.clusters import MOST, OTHER
from jobs.night import Night

PERIODS = ("current", "reference", "last_year")
SEGMENTS = ("region", "segment", "tenure", "key_type")
# Not of a visit, but of its answers, their places and what came of them: by category and channel a
# visit would be several, and surfaces are groups of requests.
NOT_OF_VISITS = ("category", "channel", "surface")
ALL, SURFACE, ARM, ANSWERS, RELEASE = GROUP_KINDS = ("all", "surface", "arm", "answers", "release")
PERSONAL, FALLBACK = "personal", "fallback"
NEWEST, PREVIOUS = "newest", "previous"


@dataclass(frozen=True)
class Coded:
    """Texts as ``codes`` (n,) int64, places in ``names``; -1 for null."""

    codes: np.ndarray
    names: list[str]

    @staticmethod
    def of(texts: pa.ChunkedArray) -> Coded:
        codes, names = encoded(texts)
        return Coded(codes, names.to_pylist())

    @staticmethod
    def whole(size: int) -> Coded:
        return Coded(np.zeros(size, np.int64), [ALL])

    def at(self, rows: np.ndarray) -> Coded:
        return replace(self, codes=self.codes[rows])

    def frequent(self, most: int = MOST) -> list[str]:
        """The names of the most frequent texts, and ``other`` where there are more."""
        if len(self.names) <= most:
            return self.names
        size = np.bincount(self.codes[self.codes >= 0], minlength=len(self.names)).tolist()
        order = sorted(range(len(size)), key=lambda code: (-size[code], self.names[code]))
        return [*(self.names[code] for code in order[:most] if self.names[code] != OTHER), OTHER]

    def among(self, names: list[str]) -> Coded:
        """With codes into ``names``; texts that are not there are the last of them."""
        place = {name: code for code, name in enumerate(names)}
        codes = np.array([*(place.get(name, len(names) - 1) for name in self.names), -1], np.int64)
        return Coded(codes[self.codes], names)


def encoded(texts: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """(n,) int64 codes and the texts, where these are too many for a list."""
    found = texts.dictionary_encode().unify_dictionaries()
    if not found.num_chunks:
        return np.zeros(0, np.int64), pa.array([], pa.string())
    codes = [pc.fill_null(chunk.indices, -1).to_numpy() for chunk in found.chunks]
    return np.concatenate(codes).astype(np.int64), found.chunk(0).dictionary


@dataclass(frozen=True)
class Cells:
    """The cell of each row (n,), -1 for none, and the names of the cells."""

    codes: np.ndarray
    group: Coded
    segment: Coded

    @staticmethod
    def of(group: Coded, segment: Coded, period: np.ndarray) -> Cells:
        both = group.codes * len(segment.names) + segment.codes
        some = (group.codes >= 0) & (segment.codes >= 0) & (period >= 0)
        return Cells(np.where(some, both * len(PERIODS) + period, -1), group, segment)

    @property
    def number(self) -> int:
        return len(self.group.names) * len(self.segment.names) * len(PERIODS)

    def count(self) -> np.ndarray:
        """(number,) rows of each."""
        return np.bincount(self.codes[self.codes >= 0], minlength=self.number)

    def distinct(self, codes: np.ndarray) -> np.ndarray:
        """(number,) different values of (n,) codes in each."""
        kept = self.codes >= 0
        size = int(codes.max(initial=0)) + 1
        pairs = np.unique(self.codes[kept] * size + codes[kept])
        return np.bincount(pairs // size, minlength=self.number)

    def named(self, cell: int) -> dict[str, str]:
        rest, period = divmod(cell, len(PERIODS))
        group, segment = divmod(rest, len(self.segment.names))
        return {
            "group": self.group.names[group],
            "segment": self.segment.names[segment],
            "period": PERIODS[period],
        }


@dataclass(frozen=True)
class Rows:
    """Requests, or visits: all (n,); ``visit`` numbers a visitor's day, ``day`` is in days since
    1970; ``values`` are the numbers that measures are made of."""

    visitor: np.ndarray
    visit: np.ndarray
    day: np.ndarray
    period: np.ndarray
    groups: dict[str, Coded]
    segments: dict[str, Coded]
    values: dict[str, np.ndarray]


@dataclass(frozen=True)
class Shown:
    """Places of answers: (n_places,) the ``request``, a place in the requests, and the ``item``."""

    request: np.ndarray
    item: np.ndarray

    def distinct(self, cell: np.ndarray, number: int) -> np.ndarray:
        """(number,) different items of each cell; ``cell``: (n_requests,), -1 for none."""
        size = int(self.item.max(initial=0)) + 1
        of = cell[self.request]
        kept = of >= 0
        # Sorted: numpy's own ``unique`` hashes, which takes five times as long on ten million.
        pairs = np.sort(of[kept].astype(np.int64) * size + self.item[kept])
        first = np.diff(pairs, prepend=-1) > 0
        return np.bincount(pairs[first] // size, minlength=number)


def read(night: Night, segments: Iterable[str], by_release: bool) -> tuple[Rows, Shown, Rows]:
    """The requests, what they showed, and the visits."""
    visits = night.arrow("visits", [
        "visitor", "day", "period", "experiment", "arm", *segments, "orders", "revenue",
        "returning",
    ])  # fmt: skip
    asked = night.arrow("served", ["visitor"])["visitor"]
    visitor, _ = encoded(pa.chunked_array([*visits["visitor"].chunks, *asked.chunks], pa.string()))
    requests, shown = _requests(night, visitor[len(visits) :], segments, by_release)
    return requests, shown, _visits(visits, visitor[: len(visits)], segments, requests)


def days_of(column: pa.ChunkedArray) -> np.ndarray:
    """(n,) int64 days since 1970."""
    return column.cast(pa.int32()).to_numpy().astype(np.int64)


def ordinal(day: date) -> int:
    """A date in days since 1970."""
    return (day - date(1970, 1, 1)).days


def _requests(
    night: Night, visitor: np.ndarray, segments: Iterable[str], by_release: bool
) -> tuple[Rows, Shown]:
    def column(name: str) -> pa.ChunkedArray:
        return night.arrow("served", [name])[name]

    request, names = encoded(column("request_id"))
    first = np.zeros(len(names), np.int64)
    first[request[::-1]] = np.arange(len(request))[::-1]
    clicked = column("clicked").to_numpy().astype(float)
    personal = np.bincount(request, column("fallback").is_null().to_numpy(), len(first)) > 0
    day = days_of(column("day"))[first]
    groups = {
        ALL: Coded.whole(len(first)),
        SURFACE: Coded.of(column("surface")).at(first),
        ARM: _arms(column("experiment"), column("arm")).at(first),
        ANSWERS: Coded(np.where(personal, 0, 1), [PERSONAL, FALLBACK]),
    }
    if by_release:
        releases = Coded.of(column("release_id")).at(first)
        groups[RELEASE] = newest(releases.codes, groups[SURFACE].codes, day)
    rows = Rows(
        visitor[first], _of_day(visitor[first], day), day, _period(column("period"))[first], groups,
        {name: _capped(Coded.of(column(name)).at(first)) for name in segments},
        {
            "clicks": np.bincount(request, clicked, len(first)),
            "latency_ms": pc.fill_null(column("latency_ms"), np.nan).to_numpy()[first],
        },
    )  # fmt: skip
    return rows, Shown(request, encoded(column("item_id"))[0])


def _visits(table: pa.Table, visitor: np.ndarray, segments: Iterable[str], requests: Rows) -> Rows:
    day = days_of(table["day"])
    visit = _of_day(visitor, day)
    _, first = np.unique(visit, return_index=True)
    once = np.full(len(visit), -1, np.int64)  # a visit in two experiments counts once in the whole
    once[first] = 0
    groups = {
        ALL: Coded(once, [ALL]),
        ARM: _arms(table["experiment"], table["arm"]),
    }
    for kind in (ANSWERS, RELEASE):
        if kind in requests.groups:
            groups[kind] = _wholly(requests.groups[kind], requests.visit, visit, once >= 0)
    return Rows(
        visitor, visit, day, _period(table["period"]), groups,
        {name: Coded.of(table[name]).among(requests.segments[name].names) for name in segments},
        {
            "orders": table["orders"].to_numpy().astype(float),
            "revenue": table["revenue"].to_numpy(),
            "returning": table["returning"].to_numpy().astype(float),
        },
    )  # fmt: skip


def _capped(segment: Coded) -> Coded:
    return segment.among(segment.frequent())


def newest(release: np.ndarray, surface: np.ndarray, day: np.ndarray) -> Coded:
    """Which answers are still of another release than most of their surface's that day."""
    size = int(release.max(initial=0)) + 1
    place = np.unique(_of_day(surface, day), return_inverse=True)[1]
    pairs, counts = np.unique(place * size + release, return_counts=True)
    order = np.lexsort((counts, pairs // size))
    most = np.zeros(int(place.max(initial=0)) + 1, np.int64)
    most[pairs[order] // size] = pairs[order] % size  # the last of each, which has the most
    return Coded(np.where(release == most[place], 0, 1), [NEWEST, PREVIOUS])


def _wholly(group: Coded, requested: np.ndarray, visit: np.ndarray, once: np.ndarray) -> Coded:
    """The group of the visits all of whose requests are of one; a mixed visit is of none."""
    known, place = np.unique(requested, return_inverse=True)
    counts = np.stack([
        np.bincount(place, group.codes == code, len(known)) for code in range(len(group.names))
    ])  # fmt: skip
    of = np.where((counts > 0).sum(axis=0) == 1, counts.argmax(axis=0), -1)
    at = np.searchsorted(known, visit).clip(max=max(len(known) - 1, 0))
    found = of[at] if len(known) else np.full(len(visit), -1)
    met = known[at] == visit if len(known) else np.zeros(len(visit), bool)
    return Coded(np.where(once & met, found, -1), group.names)


def _of_day(codes: np.ndarray, day: np.ndarray) -> np.ndarray:
    return codes * 100_000 + day  # days since 1970 reach it in 2243


def _period(column: pa.ChunkedArray) -> np.ndarray:
    found = pc.index_in(column, value_set=pa.array(PERIODS, pa.string()))
    return pc.fill_null(found, -1).to_numpy().astype(np.int64)


def _arms(experiment: pa.ChunkedArray, arm: pa.ChunkedArray) -> Coded:
    """``experiment: arm``; null and '' are none."""
    some = pc.and_(pc.not_equal(experiment, ""), pc.not_equal(arm, ""))
    named = pc.binary_join_element_wise(experiment, arm, ": ")
    return Coded.of(pc.if_else(some, named, pa.scalar(None, pa.string())))
