"""Lists of people who did nothing since the base: an item that must go is taken out, and the place
filled from the person's own deeper candidates; nothing else moves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs import io
from jobs.filtering.allowed import Allowed
from jobs.ordering import rules
from jobs.ordering.rules import Rule
from jobs.refresh.onward import among, both
from jobs.release import groups
from jobs.retrieval import matrix
from jobs.tables import TABLES

# The tables whose rows are persons'.
OF_LISTS = ("recommendations", "model_lists")
OF_PERSONS = (*OF_LISTS, "features")
# Where a part of a table goes: its name, the rows.
Add = Callable[[str, pa.Table], None]
# A table of persons: in its folder, or held.
Rows: TypeAlias = "Path | pa.Table"
LIST = ["surface", "person_id"]
PLACE = [*LIST, "item_id"]
PAIR = ["person_id", "item_id"]
# Places of a base's lists that are looked at at a time.
LOOKED_AT = 1_000_000


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
        # Of few people each, a file costs more to look ids up for than it holds.
        for rows in io.read_chunks(base, PLACE, LOOKED_AT, coded=PLACE):
            rows = rows.filter(pa.array(~io.are_among(rows["person_id"], apart)))
            found.append(rows.filter(pa.array(self.wrong(rows))).cast(schema))
        return pa.concat_tables(found)

    @cached_property
    def _people(self) -> tuple[pa.StringArray, np.ndarray]:
        """Ids, and (n_people,) regions."""
        ids = pa.concat_arrays(self.persons["person_id"].chunks)
        return ids, np.array(self.persons["region"].to_pylist(), dtype=object)

    def wrong(self, rows: pa.Table) -> np.ndarray:
        """(n_rows,) bool: which places, by surface, person_id and item_id, may not stand."""
        ids, regions_of = self._people
        person = matrix.known(rows["person_id"], ids, "person of the base's lists")
        item = matrix.known(rows["item_id"], self.item_ids, "item of the base's lists")
        wrong = ~self.allowed.holds(person, item)
        surfaces = rows["surface"].cast(pa.string())
        for surface in pc.unique(surfaces).to_pylist():
            of_surface = rules.Rules(self.known, len(self.item_ids), surface)
            if not of_surface:
                continue
            here, regions = pc.equal(surfaces, surface).to_numpy(), regions_of[person]
            for region in {*regions[here].tolist()}:
                mine = here & (regions == region)
                wrong[mine] |= of_surface.of(region).removed_by[item[mine]] >= 0
        return wrong


@dataclass(frozen=True)
class Anew:
    """Lists that are made as a whole: those of the people ``due`` on the surfaces ``following``,
    those of the people ``whole`` on every surface, and the lists ``also``, rows of surface and
    person_id. Ids are sorted."""

    due: pa.StringArray
    whole: pa.StringArray
    following: tuple[str, ...]
    also: pa.Table | None = None

    @property
    def people(self) -> pa.StringArray:
        """Whoever has one."""
        also = [] if self.also is None else [self.also["person_id"]]
        return both(self.whole, *([self.due] if self.following else []), *also)

    def among(self, people: pa.StringArray) -> Anew:
        """Those of these people alone."""
        due, whole = (_among(ids, people) for ids in (self.due, self.whole))
        also = None if self.also is None else _theirs(self.also, people)
        return Anew(due, whole, self.following, also)

    def on(self, surface: str, *others: pa.Table) -> pa.StringArray:
        """Whose list on this surface is one of these, or of ``others``, rows as of ``also``."""
        also = [rows.filter(pc.field("surface") == surface)["person_id"]
                for rows in (self.also, *others) if rows is not None]  # fmt: skip
        return both(self.whole, *([self.due] if surface in self.following else []), *also)

    def of(self, rows: pa.Table) -> pa.Table:
        """The rows that belong to these lists, by surface and person_id."""
        return rows.filter(self._mine(rows))

    def without(self, rows: pa.Table) -> pa.Table:
        """The rows that do not."""
        return rows.filter(pc.invert(self._mine(rows)))

    def _mine(self, rows: pa.Table) -> pa.ChunkedArray:
        following = pc.is_in(rows["surface"], value_set=pa.array(self.following, pa.string()))
        due, whole = (pc.is_in(rows["person_id"], value_set=ids) for ids in (self.due, self.whole))
        mine = pc.or_(whole, pc.and_(due, following))
        if self.also is None or self.also.num_rows == 0:
            return mine
        return pc.or_(mine, among(rows, self.also, LIST))


@dataclass(frozen=True)
class Merging:
    """The lists of ``people``, of which some stand, written for a block of them after the other, so
    memory does not grow with their number; those of all others are handed on as they are made.

    ``before``: the base's tables, or of each the rows of these people at least; ``lost``, ``anew``,
    ``remodelled``, ``scored``: as in :func:`merged`, of everybody; ``written``: where parts of
    tables go. Of each block it is told first who it is (:meth:`open`), and that all of it was added
    last (:meth:`close`).
    """

    before: Mapping[str, Rows]
    people: pa.StringArray
    lost: pa.Table
    anew: Anew
    remodelled: pa.Table
    scored: Sequence[str]
    written: Add
    _made: dict[str, list[pa.Table]] = field(default_factory=lambda: defaultdict(list))
    _before: dict[str, pa.Table] = field(default_factory=dict)

    def open(self, people: pa.StringArray) -> tuple[pa.Table, pa.Table]:
        """surface, person_id and item_id of the places in the base's published lists, and in the
        model's, of those among these people of whose lists some stand."""
        mine = _among(self.people, people)
        for name in OF_LISTS:
            self._before[name] = rows_of(self.before[name], mine)
        published, model = (self._before[name].select(PLACE) for name in OF_LISTS)
        return published, model

    def add(self, name: str, rows: pa.Table) -> None:
        """Take the rows of a part of a table as it would be made now."""
        schema, aside = TABLES[name].schema, pc.is_in(rows["person_id"], value_set=self.people)
        self._made[name].append(rows.filter(aside).select(schema.names).cast(schema))
        others = rows.filter(pc.invert(aside))
        if others.num_rows:
            self.written(name, others)

    def close(self, people: pa.StringArray) -> None:
        """Write the lists of those among these people, of whom all that is made was added."""
        mine = _among(self.people, people)
        parts = {name: self._made.pop(name, []) for name in OF_PERSONS}
        before = {name: self._before.pop(name) for name in OF_LISTS}
        if len(mine) == 0:
            return
        before["features"] = rows_of(self.before["features"], mine)
        now = {
            name: pa.concat_tables([TABLES[name].schema.empty_table(), *found])
            for name, found in parts.items()
        }
        lost, remodelled = (_theirs(rows, mine) for rows in (self.lost, self.remodelled))
        whole = merged(before, now, lost, self.anew.among(mine), remodelled, self.scored)
        for name, rows in whole.items():
            self.written(name, rows.sort_by("person_id"))


def rows_of(rows: Rows, people: pa.StringArray, columns: list[str] | None = None) -> pa.Table:
    """The rows of these people, whose ids are sorted, in a table of persons."""
    if isinstance(rows, Path):
        return io.read_rows(rows, people, columns)
    return _theirs(rows, people).select(columns or rows.column_names)


def _among(ids: pa.StringArray, people: pa.StringArray) -> pa.StringArray:
    return ids.filter(pc.is_in(ids, value_set=people))


def _theirs(rows: pa.Table, people: pa.StringArray) -> pa.Table:
    return rows.filter(pc.is_in(rows["person_id"], value_set=people))


def merged(
    before: dict[str, pa.Table], now: dict[str, pa.Table], lost: pa.Table, anew: Anew,
    remodelled: pa.Table, scored: Sequence[str],
) -> dict[str, pa.Table]:  # fmt: skip
    """``recommendations``, ``features`` and ``model_lists`` of people of whose lists some stand.

    ``before``, ``now``: their rows of the three tables in the base, and as they would be made now;
    ``lost``: the places that go, filled from what would be made now, in its order; ``remodelled``:
    those of the model's lists; ``anew``: the lists that are taken from there as a whole;
    ``scored``: the surfaces whose places have features.

    A pair has one row of features, and one score on all surfaces that are scored: the base's, but
    of people with a list that is anew, where it is made of what is known now. A place says where
    its item stands in the model's list as that is then.
    """
    rows, model = (
        _mended(before[name], now[name], gone, anew)
        for name, gone in zip(OF_LISTS, (lost, remodelled), strict=True)
    )
    rows = _scored_once(rows, before["recommendations"], now["recommendations"], anew, scored)
    rows = _with(rows, "model_rank", _ranks_in(model, rows))
    return {
        "recommendations": rows,
        "features": _of_listed(rows, before["features"], now["features"], anew, scored),
        "model_lists": model,
    }


def _mended(before: pa.Table, offered: pa.Table, lost: pa.Table, anew: Anew) -> pa.Table:
    """The lists that stand, their gaps filled, and those that are anew."""
    kept = anew.without(before)
    standing = kept.filter(pc.invert(among(kept, lost, PLACE)))
    added = _fillings(offered.filter(among(offered, lost, LIST)), lost, standing)
    # Behind the last place that stands, in the order in which they were offered.
    behind = np.arange(added.num_rows, dtype=np.int32) + 1_000_000
    added = _with(added, "rank", pa.array(behind)).cast(kept.schema)
    mended = closed_up(pa.concat_tables([standing, added]))
    return pa.concat_tables([mended, anew.of(offered).cast(kept.schema)])


def _fillings(offered: pa.Table, lost: pa.Table, standing: pa.Table) -> pa.Table:
    """The first places of each list that is ``offered`` whose items do not stand in it already, as
    many as it ``lost``, list by list in their order."""
    lacking, lists = _together(LIST, lost, offered)
    room = np.bincount(lacking, minlength=lists.max(initial=-1) + 1)
    new = np.flatnonzero(~np.asarray(among(offered, standing, PLACE), bool))
    mine = lists[new]
    order, starts = groups.in_order(mine, offered["rank"].to_numpy()[new])
    fits = groups.ranked(starts, len(order)) <= room[mine[order]]
    return offered.take(pa.array(new[order][fits], pa.int64()))


def _scored_once(
    rows: pa.Table, before: pa.Table, now: pa.Table, anew: Anew, scored: Sequence[str]
) -> pa.Table:
    """The rows with the score of each pair that goes with its features."""
    own, then, ours = _together(PAIR, rows, before, now)
    asked, of_base, of_now = (
        np.asarray(pc.is_in(one["surface"], value_set=pa.array(list(scored), pa.string())), bool)
        for one in (rows, before, now)
    )
    most = max(codes.max(initial=-1) for codes in (own, then, ours)) + 1
    found, known = np.zeros(most), np.zeros(most, bool)
    found[then[of_base]] = before["score"].to_numpy()[of_base]
    known[then[of_base]] = True
    fresh = np.asarray(pc.is_in(now["person_id"], value_set=anew.people), bool)
    replaced = of_now & (fresh | ~known[ours])
    found[ours[replaced]] = now["score"].to_numpy()[replaced]
    scores = np.where(asked, found[own], rows["score"].to_numpy())
    return _with(rows, "score", pa.array(scores, pa.float64()))


def _ranks_in(model: pa.Table, rows: pa.Table) -> pa.Array:
    """(n_rows,) int32: the rank in its list of ``model`` of each row's item, null where it is not
    there."""
    own, theirs = _together(PLACE, rows, model)
    ranks = np.zeros(max(codes.max(initial=-1) for codes in (own, theirs)) + 1, np.int32)
    ranks[theirs] = model["rank"].to_numpy()
    return pa.array(ranks[own], mask=ranks[own] == 0)


def _together(names: Sequence[str], *tables: pa.Table) -> list[np.ndarray]:
    """(n_rows,) int64 of each table, from 0 without a gap: equal where rows of any of them agree in
    these columns."""
    rows = pa.concat_tables([one.select(names) for one in tables], promote_options="permissive")
    codes = np.unique(groups.codes(rows, names), return_inverse=True)[1]
    return np.split(codes, np.cumsum([one.num_rows for one in tables])[:-1])


def kept_contexts(then: pa.Table, now: pa.Table, surface: str, may: Lawful) -> pa.Table:
    """The lists of a surface made for contexts that stand as they were, without what may not stand
    in them any more; of contexts that had none, and that is all that is taken from ``now``.

    ``then``, ``now``: rows of ``context_lists``; ``may``: of contexts by ``kind:name``.
    """
    ids = pa.concat_arrays(may.persons["person_id"].chunks)

    def named(rows: pa.Table) -> pa.Table:
        name = pc.binary_join_element_wise(rows["context_kind"], rows["context"], ":")
        return rows.append_column("person_id", name)

    then = named(then.filter(pc.field("surface") == surface))
    then = then.filter(pc.is_in(then["person_id"], value_set=ids))
    standing = closed_up(then.filter(pa.array(~may.wrong(then))))
    now = named(now)
    new = now.filter(pc.invert(pc.is_in(now["person_id"], value_set=standing["person_id"])))
    rows = pa.concat_tables([standing, new.select(standing.schema.names).cast(standing.schema)])
    return rows.drop_columns(["person_id"])


def closed_up(rows: pa.Table, of: Sequence[str] = LIST) -> pa.Table:
    """Lists with places from 1 without a gap, in their order; ``of``: the columns that name one."""
    order, starts = groups.in_order(groups.codes(rows, list(of)), rows["rank"].to_numpy())
    ordered = rows.take(pa.array(order))
    return _with(ordered, "rank", pa.array(groups.ranked(starts, len(order)), pa.int32()))


def _of_listed(
    rows: pa.Table, before: pa.Table, now: pa.Table, anew: Anew, scored: Sequence[str]
) -> pa.Table:
    """The features of the pairs that are listed: the base's where it has some, else those of now;
    of people with a list that is anew the other way round."""
    ranked = rows.filter(pc.is_in(rows["surface"], value_set=pa.array(list(scored), pa.string())))
    now = now.select(before.schema.names).cast(before.schema)
    found = [before.schema.empty_table()]
    fresh = [pc.is_in(table["person_id"], value_set=anew.people) for table in (before, now)]
    for first, second in (
        (before.filter(pc.invert(fresh[0])), now.filter(pc.invert(fresh[1]))),
        (now.filter(fresh[1]), before.filter(fresh[0])),
    ):
        mine = first.filter(among(first, ranked, PAIR))
        other = second.filter(among(second, ranked, PAIR))
        found += [mine, other.filter(pc.invert(among(other, mine, PAIR)))]
    return pa.concat_tables(found)


def _with(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    place = rows.schema.get_field_index(name)
    return rows.set_column(place, rows.schema.field(place), values)
