"""What the lists of persons in a release rest on: the features of each score, and what put an item
at its place where that was not the model.

Reads ``features/`` and ``recommendations/`` of a release. A night writes people in order, so that a
row group holds few of them and its statistics say which; but it is read whole, so that many people
are best asked about at once (``docs/decisions/release-stores.md``).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs import io
from jobs.release.releases import Release

PEOPLE = 1_000  # who stay in memory, with some 16 kB each
# Columns of features/ that are no features.
NOT_FEATURES = ("person_id", "item_id", "event_timestamp", "feature_version", "feature_hash")
PLACES = ["person_id", "surface", "item_id", "placed_by", "rule_id"]
BY_MODEL = "model"


@dataclass
class Known:
    """What a release knows of one person's places.

    ``row_of``: the row of an item in what follows. ``values``: (n_items, n_features) float32 in the
    order of ``names``, NaN where a feature is not known; ``versions`` and ``hashes``: (n_items,).
    ``reasons``: by surface and item, what placed it, where that was not the model.
    """

    names: Sequence[str]
    row_of: dict[str, int]
    values: np.ndarray
    versions: list[str]
    hashes: list[str]
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)


class Basis:
    """Looks people up in one release, for one thread; who was asked about lately is kept."""

    def __init__(self, release: Release, people: int = PEOPLE):
        """Raises ``OSError`` where the release was retired meanwhile."""
        self._features = PersonRows(release.path("features"))
        self._places = PersonRows(release.path("recommendations"), PLACES)
        self._people = people
        self._kept: OrderedDict[str, Known] = OrderedDict()

    def of(self, person_ids: Collection[str]) -> dict[str, Known]:
        """What is known of these people; those of whom nothing is are left out.

        Raises ``OSError`` where the release was retired meanwhile.
        """
        found = {one: self._kept[one] for one in set(person_ids) if one in self._kept}
        missing = set(person_ids) - set(found)
        if missing:
            found |= self._read(missing)
        for one, known in found.items():
            self._kept[one] = known
            self._kept.move_to_end(one)
        while len(self._kept) > self._people:
            self._kept.popitem(last=False)
        return found

    def _read(self, person_ids: set[str]) -> dict[str, Known]:
        found: dict[str, Known] = {}
        for rows in self._features.of(person_ids):
            names = [name for name in rows.column_names if name not in NOT_FEATURES]
            values = np.column_stack([rows[name].to_numpy().astype(np.float32) for name in names])
            items, versions, hashes = (
                rows[name].to_pylist() for name in ("item_id", "feature_version", "feature_hash")
            )
            for person, places in _by_person(rows).items():
                known = found.setdefault(person, _nothing(names))
                first = len(known.hashes)
                known.row_of |= {items[at]: first + n for n, at in enumerate(places)}
                known.values = np.concatenate([known.values, values[places]])
                known.versions += [versions[at] for at in places]
                known.hashes += [hashes[at] for at in places]
        for rows in self._places.of(person_ids):
            moved = rows.filter(pc.not_equal(rows["placed_by"], BY_MODEL))
            for row in moved.to_pylist():
                known = found.setdefault(row["person_id"], _nothing([]))
                by = f"rule {row['rule_id']}" if row["rule_id"] else row["placed_by"]
                known.reasons[row["surface"], row["item_id"]] = by
        return found


def _nothing(names: list[str]) -> Known:
    return Known(names, {}, np.zeros((0, len(names)), np.float32), [], [])


def _by_person(rows: pa.Table) -> dict[str, list[int]]:
    """The places in ``rows`` of each person."""
    found: dict[str, list[int]] = {}
    for place, person in enumerate(rows["person_id"].to_pylist()):
        found.setdefault(person, []).append(place)
    return found


# --- rows of chosen people -------------------------------------------------------------------
@dataclass(frozen=True)
class _File:
    """A file and its footer; ``spans``: the first and last person of each row group, None where
    the footer does not say."""

    path: Path
    footer: pq.FileMetaData
    spans: tuple[tuple[str, str] | None, ...]


class PersonRows:
    """One Parquet folder with a column ``person_id``, whose footers are read once."""

    def __init__(self, folder: Path, columns: list[str] | None = None):
        """``columns``: those to be given, ``person_id`` among them; None for all."""
        self._columns = columns
        self._files = [_file(path) for path in io.parquet_files(folder)]

    def of(self, person_ids: Collection[str]) -> list[pa.Table]:
        """Every row of these people, in some tables."""
        wanted = sorted(person_ids)
        values = pa.array(wanted, pa.string())
        found = []
        for file in self._files:
            groups = [n for n, span in enumerate(file.spans) if _may_hold(span, wanted)]
            if not groups:
                continue
            with pq.ParquetFile(file.path, metadata=file.footer) as opened:
                for group in groups:
                    # One thread: the others are for those who wait for an answer.
                    rows = opened.read_row_group(group, self._columns, use_threads=False)
                    rows = rows.filter(pc.is_in(rows["person_id"], value_set=values))
                    found += [rows.combine_chunks()] if rows.num_rows else []
        return found


def _file(path: Path) -> _File:
    footer = pq.read_metadata(path)
    column = next(
        n for n in range(footer.num_columns) if footer.schema.column(n).path == "person_id"
    )
    spans: list[tuple[str, str] | None] = []
    for group in range(footer.num_row_groups):
        known = footer.row_group(group).column(column).statistics
        has = known is not None and known.has_min_max
        spans.append((known.min, known.max) if has else None)
    return _File(path, footer, tuple(spans))


def _may_hold(span: tuple[str, str] | None, wanted: list[str]) -> bool:
    """Whether one of the sorted people may be in a row group."""
    return span is None or bisect_left(wanted, span[0]) < bisect_right(wanted, span[1])
