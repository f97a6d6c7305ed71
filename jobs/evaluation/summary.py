"""From values per person to numbers with intervals, per cut and over the cuts.

Every interval is a percentile bootstrap over people (Efron, 1979): people are drawn once for all
lists and all cuts, so that differences are paired and a person's cuts stay together. A number over
the cuts is the mean of the cuts' numbers. How many items a catalogue's lists reach is no mean over
people: a draw, which holds some people twice, reaches fewer, so the draws are moved to the number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from jobs import io
from jobs.evaluation.backtest import Judged
from jobs.evaluation.judging import Column
from jobs.ordering.surfaces import MAIN
from jobs.tables import BOOL, F64, I64, S, Table

MEAN = "mean"
EVERYBODY = ("all", "")
TAIL = 0.025
# Draws whose weights are held at a time, 4 bytes a person and draw.
DRAWS_AT_A_TIME = 100
# What is also told by segment.
BY_SEGMENT = ("ndcg", "recall")
DISCOVER = "discover"

MEASURES = Table(
    "measures", "backtest",
    "one row per cut (or their mean), list, measure, kind of purchases, length and segment",
    ("cut", "ranking", "role", "new_only", "metric", "kind", "length", "segment_kind", "segment"),
    pa.schema([
        pa.field("cut", S, False), pa.field("ranking", S, False), pa.field("role", S, False),
        pa.field("new_only", BOOL, False), pa.field("metric", S, False),
        pa.field("kind", S, False), pa.field("length", I64, False),
        pa.field("segment_kind", S, False), pa.field("segment", S, False),
        pa.field("people", I64, False), pa.field("value", F64), pa.field("low", F64),
        pa.field("high", F64),
        # The published list's number less this one's, paired; null on its own rows.
        pa.field("difference", F64), pa.field("difference_low", F64),
        pa.field("difference_high", F64),
    ]),
)  # fmt: skip

Key = tuple[Column, tuple[str, str]]


@dataclass(frozen=True)
class Drawn:
    """Numbers and their draws: ``value``, ``people``: (n_keys,); ``draws``: (n_draws, n_keys)."""

    keys: list[Key]
    value: np.ndarray
    people: np.ndarray
    draws: np.ndarray


def measures(cuts: Sequence[Judged], draws: int, seed: int) -> pa.Table:
    """The table ``measures`` of all cuts and of their mean."""
    everybody = np.unique(np.concatenate([cut.people.to_numpy(False) for cut in cuts]))
    drawn = [
        draw(cut, np.searchsorted(everybody, cut.people.to_numpy(False)), len(everybody), draws,
             seed)
        for cut in cuts
    ]  # fmt: skip
    labels = [io.label(cut.cut) for cut in cuts]
    parts = [rows(label, each) for label, each in zip(labels, drawn, strict=True)]
    parts.append(rows(MEAN, mean(drawn)))
    return pa.concat_tables(parts)


def draw(judged: Judged, place: np.ndarray, n_everybody: int, draws: int, seed: int) -> Drawn:
    """The numbers of one cut. ``place``: (n_people,) where its people stand among all drawn."""
    chosen = np.array([column.metric in BY_SEGMENT for column in judged.columns])
    groups = [(EVERYBODY, np.ones(len(place), bool), np.ones(len(chosen), bool))]
    groups += [(name, people, chosen) for name, people in judged.segments.items()]
    reached = list(_reached(judged))
    keys: list[Key] = [
        (column, name)
        for name, _, wanted in groups
        for column, take in zip(judged.columns, wanted, strict=True)
        if take
    ] + [(column, EVERYBODY) for column, _, _ in reached]
    finite = np.isfinite(judged.values).astype(np.float32)
    values = np.nan_to_num(judged.values)
    people = np.concatenate(
        [finite[mine][:, wanted].sum(axis=0) for _, mine, wanted in groups]
        + [np.full(len(reached), len(place))]
    ).astype(np.int64)

    def numbers(weights: np.ndarray) -> np.ndarray:
        """(n_rows, n_keys) numbers when each person counts (n_rows, n_people) times."""
        found = [
            _ratio(weights[:, mine] @ values[mine][:, wanted],
                   weights[:, mine] @ finite[mine][:, wanted])
            for _, mine, wanted in groups
        ]  # fmt: skip
        there = (weights > 0).astype(np.float32)
        found += [
            (np.count_nonzero(listed @ there.T, axis=0) / size)[:, None]
            for _, listed, size in reached
        ]
        return np.concatenate(found, axis=1)

    point = numbers(np.ones((1, len(place)), np.float32))[0]
    generator = np.random.default_rng(seed)
    parts = []
    for first in range(0, draws, DRAWS_AT_A_TIME):
        count = min(DRAWS_AT_A_TIME, draws - first)
        weights = generator.multinomial(n_everybody, np.full(n_everybody, 1 / n_everybody), count)
        parts.append(numbers(weights[:, place].astype(np.float32)))
    drawn = np.concatenate(parts)
    moved = slice(len(keys) - len(reached), len(keys))
    drawn[:, moved] += point[moved] - drawn[:, moved].mean(axis=0)
    return Drawn(keys, point, people, drawn)


def _reached(judged: Judged) -> Iterator[tuple[Column, sp.csr_matrix, int]]:
    """For each list and length: its (n_items listed, n_people) incidence, and the items it could
    have reached."""
    lengths = sorted({column.length for column in judged.columns if column.metric == "ndcg"})
    for (name, role, new_only), codes in judged.lists.items():
        for length in lengths:
            person, place = np.nonzero(codes[:, :length] >= 0)
            _, item = np.unique(codes[person, place], return_inverse=True)
            shape = (int(item.max(initial=-1)) + 1, len(codes))
            listed = sp.csr_matrix((np.ones(len(item), np.float32), (item, person)), shape=shape)
            for metric, size in (
                ("coverage", judged.catalogue), ("coverage_of_active", judged.active),
            ):  # fmt: skip
                if size:
                    yield Column(name, role, new_only, metric, "listed", length), listed, size


def mean(cuts: Sequence[Drawn]) -> Drawn:
    """The means over the cuts of the numbers that all of them have; people are added up."""
    places = [{key: number for number, key in enumerate(cut.keys)} for cut in cuts]
    keys = [key for key in cuts[0].keys if all(key in place for place in places)]
    at = [[place[key] for key in keys] for place in places]
    pairs = list(zip(cuts, at, strict=True))
    return Drawn(
        keys,
        np.mean([cut.value[rows] for cut, rows in pairs], axis=0),
        np.sum([cut.people[rows] for cut, rows in pairs], axis=0),
        np.mean([cut.draws[:, rows] for cut, rows in pairs], axis=0),
    )


def rows(label: str, drawn: Drawn) -> pa.Table:
    """The rows of ``measures`` of one cut, or of the mean."""
    low, high = _ends(drawn.draws)
    place = {key: number for number, key in enumerate(drawn.keys)}
    against = np.array([reference(key, place) for key in drawn.keys], np.int64)
    paired = against >= 0
    difference = np.where(paired, drawn.value[against] - drawn.value, np.nan)
    difference_low, difference_high = _ends(drawn.draws[:, against] - drawn.draws)
    found = []
    for number, (column, segment) in enumerate(drawn.keys):
        found.append({
            "cut": label, "ranking": column.ranking, "role": column.role,
            "new_only": column.new_only, "metric": column.metric, "kind": column.kind,
            "length": column.length, "segment_kind": segment[0], "segment": segment[1],
            "people": int(drawn.people[number]), "value": _known(drawn.value[number]),
            "low": _known(low[number]), "high": _known(high[number]),
            "difference": _known(difference[number]),
            "difference_low": _known(difference_low[number]) if paired[number] else None,
            "difference_high": _known(difference_high[number]) if paired[number] else None,
        })  # fmt: skip
    return pa.Table.from_pylist(found, MEASURES.schema)


def reference(key: Key, place: dict[Key, int]) -> int:
    """The place of the published list's same number, -1 where there is none or it is this one.

    Lists of what is new alone are held against the surface made for that, where it is published.
    """
    column, segment = key
    if column.role == "published":
        return -1
    surfaces = (DISCOVER, MAIN) if column.new_only else (MAIN,)
    published = [one.ranking for one, _ in place if one.role == "published"]
    for surface in (*surfaces, *published[:1]):
        same = Column(
            surface, "published", column.new_only, column.metric, column.kind, column.length
        )
        if (same, segment) in place:
            return place[same, segment]
    return -1


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan, part.dtype), where=whole > 0)


def _ends(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n_keys,) the ends of the interval of each column; a draw without a number says nothing."""
    empty = np.isnan(drawn).all(axis=0)
    low, high = np.full((2, drawn.shape[1]), np.nan)
    low[~empty], high[~empty] = np.nanquantile(drawn[:, ~empty], [TAIL, 1 - TAIL], axis=0)
    return low, high


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


# --- the table of a terminal, a page and the README -------------------------------------------
@dataclass(frozen=True)
class Cell:
    """A number with its interval; None where there is none."""

    value: float | None
    low: float | None
    high: float | None


def pick(measured: pa.Table, **wanted: object) -> pa.Table:
    """The rows of everybody where each named column has this value."""
    chosen = pc.field("segment_kind") == EVERYBODY[0]
    for name, value in wanted.items():
        chosen = chosen & (pc.field(name) == value)
    return measured.filter(chosen)


def headline(measured: pa.Table, cut: str = MEAN) -> tuple[list[str], dict[str, list[Cell]]]:
    """Names of columns, and a row of cells for each published list and simple method.

    The columns: NDCG of all purchases at the least and the greatest length, recall at the greatest,
    NDCG at the least of what was new among lists of new items only, coverage of the catalogue, and
    by how much the published list's NDCG at the least length is above the row's.
    """
    lengths = sorted(set(pick(measured, metric="ndcg")["length"].to_pylist()))
    least, most = lengths[0], lengths[-1]
    ends = ("value", "low", "high")
    ndcg = {"metric": "ndcg", "kind": "all", "length": least, "new_only": False}
    columns = {
        f"NDCG@{least}": (ndcg, ends),
        f"NDCG@{most}": ({**ndcg, "length": most}, ends),
        f"recall@{most}": ({**ndcg, "metric": "recall", "length": most}, ends),
        f"new items NDCG@{least}": ({**ndcg, "kind": "new", "new_only": True}, ends),
        f"coverage@{most}": (
            {"metric": "coverage", "kind": "listed", "length": most, "new_only": False}, ends
        ),
        "published above it": (
            ndcg, ("difference", "difference_low", "difference_high")
        ),
    }  # fmt: skip
    found: dict[str, dict[str, Cell]] = {}
    for name, (wanted, three) in columns.items():
        for row in pick(measured, cut=cut, **wanted).to_pylist():
            if row["role"] != "source":
                cells = found.setdefault(row["ranking"], {})
                cells[name] = Cell(*(row[end] for end in three))
    nothing = Cell(None, None, None)
    return list(columns), {
        ranking: [cells.get(name, nothing) for name in columns] for ranking, cells in found.items()
    }
