"""Lists of people who did nothing since the base: an item that must go is taken out, and the place
filled from the person's own deeper candidates; nothing else moves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs import io
from jobs.filtering.allowed import Allowed
from jobs.ordering import rules
from jobs.ordering.rules import Rule
from jobs.release import groups
from jobs.retrieval import matrix
from jobs.tables import TABLES

LIST = ["surface", "person_id"]
PLACE = [*LIST, "item_id"]
PAIR = ["person_id", "item_id"]


@dataclass(frozen=True)
class Lawful:
    """What may stand in lists now.

    ``persons``: person_id and region of everybody, in the order of ``allowed``'s people;
    ``item_ids``: by the items' codes; ``known``: the rules in force on any surface.
    """

    persons: pa.Table
    item_ids: pa.StringArray
    allowed: Allowed
    known: list[Rule]

    def lost(self, base: Path, apart: pa.StringArray) -> pa.Table:
        """surface, person_id, item_id of the places in the base's lists that may not stand any
        more, because of what the item is, what the person may get, or a ban; without the lists of
        ``apart``, which are made anew."""
        schema = pa.schema([TABLES["recommendations"].schema.field(name) for name in PLACE])
        found = [schema.empty_table()]
        for path in io.parquet_files(base):
            rows = pq.read_table(path, columns=PLACE)
            rows = rows.filter(pc.invert(pc.is_in(rows["person_id"], value_set=apart)))
            if rows.num_rows:
                found.append(rows.filter(pa.array(self._wrong(rows))).cast(schema))
        return pa.concat_tables(found)

    @cached_property
    def _people(self) -> tuple[pa.StringArray, np.ndarray]:
        """Ids, and (n_people,) regions."""
        ids = pa.concat_arrays(self.persons["person_id"].chunks)
        return ids, np.array(self.persons["region"].to_pylist(), dtype=object)

    def _wrong(self, rows: pa.Table) -> np.ndarray:
        """(n_rows,) bool."""
        ids, regions_of = self._people
        person = matrix.known(rows["person_id"], ids, "person of the base's lists")
        item = matrix.known(rows["item_id"], self.item_ids, "item of the base's lists")
        wrong = ~self.allowed.holds(person, item)
        regions = regions_of[person]
        for surface in pc.unique(rows["surface"]).to_pylist():
            here = pc.equal(rows["surface"], surface).to_numpy()
            of_surface = rules.Rules(self.known, len(self.item_ids), surface)
            if not of_surface:
                continue
            for region in {*regions[here].tolist()}:
                mine = here & (regions == region)
                wrong[mine] |= of_surface.of(region).removed_by[item[mine]] >= 0
        return wrong


@dataclass(frozen=True)
class Filled:
    """The lists of people who lost places, whole again."""

    rows: pa.Table
    features: pa.Table


def filled(
    kept: pa.Table, lost: pa.Table, offered: pa.Table, features: pa.Table,
    offered_features: pa.Table, scored: Sequence[str],
) -> Filled:  # fmt: skip
    """Lists of people who lost places.

    ``kept``, ``features``: their rows of ``recommendations`` and ``features`` in the base;
    ``lost``: the places among them that go; ``offered``, ``offered_features``: their rows as they
    would be made now, from which places are filled in their order. What was scored in the base
    keeps its values and its score. ``scored``: the surfaces whose places have features.
    """
    standing = kept.filter(pa.array(~_holds(kept, lost, PLACE)))
    known = {
        (row["person_id"], row["item_id"]): row["score"]
        for row in kept.select([*PLACE, "score"]).to_pylist()
        if row["surface"] in scored
    }
    room: dict[tuple[str, str], int] = {}
    for row in lost.select(LIST).to_pylist():
        room[row["surface"], row["person_id"]] = room.get((row["surface"], row["person_id"]), 0) + 1
    taken = {tuple(row.values()) for row in standing.select(PLACE).to_pylist()}
    places, scores = [], []
    offered = offered.sort_by([(name, "ascending") for name in (*LIST, "rank")])
    for number, row in enumerate(offered.select([*PLACE, "score"]).to_pylist()):
        of_list = (row["surface"], row["person_id"])
        if room.get(of_list, 0) and (*of_list, row["item_id"]) not in taken:
            room[of_list] -= 1
            places.append(number)
            of_base = known.get((row["person_id"], row["item_id"]))
            scores.append(
                row["score"] if row["surface"] not in scored or of_base is None else of_base
            )
    added = offered.take(pa.array(places, pa.int64()))
    added = _with(added, "score", pa.array(scores, pa.float64()))
    # Behind the last place that stands, in the order in which they were offered.
    behind = np.arange(added.num_rows, dtype=np.int32) + 1_000_000
    added = _with(added, "rank", pa.array(behind)).cast(kept.schema)
    rows = closed_up(pa.concat_tables([standing, added]))
    return Filled(rows, _of_listed(rows, features, offered_features, scored))


def closed_up(rows: pa.Table) -> pa.Table:
    """Lists with places from 1 without a gap, in their order."""
    order, starts = groups.in_order(groups.codes(rows, LIST), rows["rank"].to_numpy())
    ordered = rows.take(pa.array(order))
    return _with(ordered, "rank", pa.array(groups.ranked(starts, len(order)), pa.int32()))


def _of_listed(rows: pa.Table, before: pa.Table, now: pa.Table, scored: Sequence[str]) -> pa.Table:
    """The features of the pairs that are listed: as before where there are, else as now."""
    ranked = rows.filter(pc.is_in(rows["surface"], value_set=pa.array(list(scored), pa.string())))
    old = before.filter(pa.array(_holds(before, ranked, PAIR)))
    new = now.filter(pa.array(_holds(now, ranked, PAIR) & ~_holds(now, old, PAIR)))
    return pa.concat_tables([old, new.select(before.schema.names).cast(before.schema)])


def _holds(rows: pa.Table, other: pa.Table, names: list[str]) -> np.ndarray:
    """(n_rows,) bool: which rows agree with one of ``other`` in the columns ``names``."""
    plain = pa.schema([(name, pa.string()) for name in names])
    both = pa.concat_tables([rows.select(names).cast(plain), other.select(names).cast(plain)])
    code = groups.codes(both, names)
    return np.isin(code[: rows.num_rows], code[rows.num_rows :])


def _with(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    place = rows.schema.get_field_index(name)
    return rows.set_column(place, rows.schema.field(place), values)


def rows_of(base: Path, people: pa.StringArray) -> pa.Table:
    """A table's rows of these people."""
    return pa.concat_tables(_parts(base, people))


def _parts(base: Path, people: pa.StringArray) -> Iterator[pa.Table]:
    for path in io.parquet_files(base):
        rows = pq.read_table(path)
        yield rows.filter(pc.is_in(rows["person_id"], value_set=people))
