"""Places that refreshes drew by chance, kept when their tables go: they are what a bandit's shares
and off-policy estimates are counted from, weeks later.

Layout under the lake's root::

    explored/persons/<stamp>.parquet    surface, key_type, key, item_id, sources, stamp
    explored/contexts/<stamp>.parquet   surface, item_id, sources, stamp

A row per place of a key's list, or per item of the lists that many share, with the sources that
named it and how the ids of that run date's releases begin; no file where nothing was drawn.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs import io
from jobs.io import Lake
from jobs.release import releases

PERSONS, CONTEXTS = "persons", "contexts"
# No surface that learns from its log looks further back.
KEPT = timedelta(days=366)


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
            _add(lake, PERSONS, label, _by_key(own, known))
    oldest = io.parse_as_of(label) - KEPT
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


def _by_key(rows: pa.Table, keys: pa.Table) -> pa.Table:
    """The rows under every key of their person."""
    mine = keys.filter(pc.is_in(keys["person_id"], value_set=rows["person_id"]))
    of_person: dict[str, list[tuple[str, str]]] = {}
    for row in mine.to_pylist():
        of_person.setdefault(row["person_id"], []).append((row["key_type"], row["key"]))
    names = ["surface", "item_id", "sources"]
    schema = pa.schema([
        ("key_type", pa.string()), ("key", pa.string()), *(rows.schema.field(n) for n in names)
    ])  # fmt: skip
    return pa.Table.from_pylist(
        [{"key_type": kind, "key": key, **{name: row[name] for name in names}}
         for row in rows.to_pylist() for kind, key in of_person.get(row["person_id"], [])],
        schema,
    )  # fmt: skip


def _add(lake: Lake, kind: str, label: str, rows: pa.Table) -> None:
    if rows.num_rows:
        name = releases.stamp(io.parse_as_of(label))
        path = lake.root / "explored" / kind / f"{name}.parquet"
        if not path.exists():
            rows = rows.append_column("stamp", pa.repeat(name, rows.num_rows))
            io.append_arrow(path.parent, name, rows)
