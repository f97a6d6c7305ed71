"""Places that refreshes drew by chance, kept when their tables go: they are what a bandit's shares
and off-policy estimates are counted from, weeks later.

Layout under the lake's root::

    explored/persons/<stamp>.parquet    surface, key_type, key, item_id, sources, stamp
    explored/contexts/<stamp>.parquet   surface, item_id, sources, stamp

A row per place of a key's list, or per item of the lists that many share, with the sources that
named it and how the ids of that run date's releases begin; no file where nothing was drawn.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from jobs import io
from jobs.io import Lake
from jobs.release import releases

PERSONS, CONTEXTS = "persons", "contexts"


def keep(lake: Lake, label: str) -> None:
    """Write down what the refresh of this label drew, before its tables go; safe to repeat."""
    lists, keys = lake.at("recommendations", label), lake.at("identities", label)
    if lists is not None:
        shared = _drawn(lists.table("context_lists"), ["surface", "item_id", "sources"])
        _add(lake, CONTEXTS, label, of_each(shared))
        if keys is not None:
            own = _drawn(
                lists.table("recommendations"), ["surface", "person_id", "item_id", "sources"]
            )
            known = io.read_arrow(keys.table("identities"), ["key_type", "key", "person_id"])
            _add(lake, PERSONS, label, by_key(own, known))


def drop(lake: Lake, oldest: datetime) -> None:
    """Delete what was kept of refreshes before this run date."""
    for kind in (PERSONS, CONTEXTS):
        for path in files(lake, kind):
            if as_of(path) < oldest:
                path.unlink()


def files(lake: Lake, kind: str) -> list[Path]:
    """The files of one kind, oldest first."""
    return sorted((lake.root / "explored" / kind).glob("*.parquet"))


def as_of(path: Path) -> datetime:
    """The run date of the refresh that drew what a file holds."""
    return datetime.strptime(f"{path.stem}+0000", "%Y%m%dT%H%M%SZ%z")


def of_each(rows: pa.Table) -> pa.Table:
    """surface, item_id and all its sources, a row per pair."""
    found: dict[tuple[str, str], set[str]] = {}
    for row in rows.to_pylist():
        found.setdefault((row["surface"], row["item_id"]), set()).update(row["sources"])
    return pa.Table.from_pylist(
        [{"surface": surface, "item_id": item, "sources": sorted(sources)}
         for (surface, item), sources in sorted(found.items())],
        rows.schema,
    )  # fmt: skip


def _drawn(folder: Path, columns: list[str]) -> pa.Table:
    return io.read_arrow(folder, columns, ds.field("propensity") < 1.0)


def by_key(rows: pa.Table, keys: pa.Table) -> pa.Table:
    """The rows, by surface, person_id, item_id and sources, under every key of their person."""
    # A list of texts cannot go through a join: it is taken behind it, by its row.
    numbered = rows.drop_columns(["sources"])
    numbered = numbered.append_column("row", pa.array(range(rows.num_rows), pa.int64()))
    found = keys.join(numbered, "person_id", join_type="inner").sort_by(
        [("row", "ascending"), ("key_type", "ascending"), ("key", "ascending")]
    )
    sources = rows["sources"].take(found["row"])
    names = ["key_type", "key", "surface", "item_id"]
    return found.select(names).append_column("sources", sources)


def _add(lake: Lake, kind: str, label: str, rows: pa.Table) -> None:
    if rows.num_rows:
        name = releases.stamp(io.parse_as_of(label))
        path = lake.root / "explored" / kind / f"{name}.parquet"
        if not path.exists():
            rows = rows.append_column("stamp", pa.repeat(name, rows.num_rows))
            io.append_arrow(path.parent, name, rows)
