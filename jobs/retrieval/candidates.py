"""Who is nominated what, by which source, because of what.

Reads ``history``, ``interactions``, ``items``, ``persons``, ``editorial``, ``content_vectors`` and
the factors. Writes ``candidates`` (a row per person, item and personal source), ``pools`` (the
lists that many people share), ``candidate_counts`` (a row per source) and, where the two towers are
on, what they were trained to: ``two_tower_items``, ``two_tower_persons``, ``two_tower_weights``.

The sources are modules in ``sources/``; this job gives each what it may look at, as of one cut,
and gathers what they name. Deduplication comes later and keeps every source. So does eligibility:
sources and pools name what may not be shown too, sold out or not for the person, alike at a night
and at the earlier cuts of ``examples``, where nobody knows what was in stock. What nobody at all
may get is left out where ``candidates`` are written, and whatever else a source named keeps the
place that it had there, so that a place means the same in an example and in a list.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from jobs import io
from jobs.filtering import filters
from jobs.filtering.allowed import Allowed
from jobs.io import Published
from jobs.night import Night
from jobs.params import check
from jobs.refresh import changes, onward
from jobs.release import groups
from jobs.retrieval import als, matrix, towers
from jobs.retrieval.matrix import Interactions
from jobs.retrieval.sources import (
    bought_together,
    buy_again,
    collaborative,
    considered,
    content_neighbours,
    item_to_item,
    pools,
    two_tower,
)
from jobs.retrieval.sources.two_tower import Towers
from jobs.retrieval.towers import Ground, Words
from jobs.signals import shop
from jobs.signals.past import BOUGHT, Record, people_of
from jobs.signals.shop import Catalogue
from jobs.tables import SOURCES, TABLES

log = logging.getLogger("nightjar")

OF_ITEMS = ["item_id", "category", "created_time", "first_seen", "available"]
OF_PERSONS = ["person_id", "region", "segment"]
# People that the numeric sources name for at a time: a million rows a source, some 150 MB.
BLOCK = 10_000
# The tables of the two towers, in the order of ``two_tower.rows_of``.
TOWERS = ("two_tower_weights", "two_tower_persons", "two_tower_items")


@dataclass(frozen=True)
class Params:
    """How deep the sources go."""

    # Places a personal source fills for each person: several lists' worth, so that filters and
    # quotas find enough behind the first; what nobody may get counts among them.
    depth: int = 100
    # Places of a pool, likewise.
    pool_depth: int = 100
    # Whether two towers are trained and name items too; needs the package jax (`make neural`).
    two_tower: bool = False

    def __post_init__(self) -> None:
        check(1 <= self.depth <= 10_000, "depth must be 1 to 10,000")
        check(1 <= self.pool_depth <= 10_000, "pool_depth must be 1 to 10,000")


@dataclass(frozen=True)
class Seen:
    """What the sources may look at: nothing in it was received at ``as_of`` or later.

    ``record``: the history as arrays; ``item_gap``: days between two purchases of each of its items
    by one person. ``items``: those known by then, with ``OF_ITEMS``; ``persons``: ``OF_PERSONS``;
    ``content``: item_id and vector of the items. ``factors`` belong to the rows and columns of
    ``interactions``' matrix. ``people`` limits for whom candidates are
    made, not from whom is learned; None is everybody.
    """

    as_of: datetime
    record: Record
    item_gap: np.ndarray
    interactions: Interactions
    items: pa.Table
    persons: pa.Table
    editorial: pa.Table
    content: pa.Table
    factors: als.Factors
    people: pa.StringArray | None = None


def run(night: Night, params: Params) -> None:
    """Stage ``candidates``, ``pools`` and ``candidate_counts``."""
    seen = of_night(night)
    trained = learned(night, seen, params)
    writer, nobody = onward.Writer(night), for_nobody(night)
    for part in personal(night, seen, params, trained):
        writer.add("candidates", without_items(part, nobody))
    writer.close("candidates")
    write_towers(night, trained, params)
    _write_shared(night, seen, params)


def refresh(night: Night, params: Params) -> None:
    """Stage the base's candidates with those of people who are due named anew, and none of those
    who get pools instead; what nobody may get any more leaves everybody's. Pools are all new. Where
    that would leave candidates to nobody, nobody gets pools instead."""
    base = night.base("candidates")
    due, gone = changes.due(night), changes.gone(night)
    apart, nobody = onward.both(due, gone), for_nobody(night)
    staged = night.staged / "candidates"
    first = onward.without(base.table("candidates"), staged, apart, also={"item_id": nobody})
    writer = onward.Writer(night, {"candidates": first})
    pooled = changes.pooled(night)
    own = due.filter(pc.invert(pc.is_in(due, value_set=pooled)))
    seen = of_night(night)
    trained = _carried(night, base, seen, due) if params.two_tower else None
    for people in (own, pooled):
        for part in personal(night, replace(seen, people=people), params, trained):
            named = without_items(part, nobody)
            if named.num_rows:
                writer.add("candidates", named)
        if io.parquet_files(staged):
            break
    write_towers(night, trained, params)
    _write_shared(night, seen, params)


def for_nobody(night: Night) -> pa.StringArray:
    """The sorted ids of the items that nobody may get now: not available, or flagged so."""
    items = night.arrow("items", ["item_id", "available", "regions", "flags"])
    allowed = filters.for_somebody(items, night.params_of("filters"))
    return onward.both(items["item_id"].filter(pa.array(~allowed)))


def without_items(rows: pa.Table, item_ids: pa.StringArray) -> pa.Table:
    """The rows of ``candidates`` but those of these items; places stay as they were."""
    return rows.filter(pc.invert(pc.is_in(rows["item_id"], value_set=item_ids)))


def _carried(night: Night, base: Published, seen: Seen, touched: pa.StringArray) -> Towers | None:
    """The base's towers with the vectors of touched people, and of people and items that the base
    does not know, made anew; all others stand."""
    weights, people, items = (io.read_arrow(base.table(name)) for name in TOWERS)
    if weights.num_rows == 0:
        log.warning("two_tower as_of=%s absent: the base has no weights", io.label(seen.as_of))
        return None
    _, words, _ = two_tower.read(weights)
    ground = tower_ground(seen, words)
    return two_tower.onward(ground, (weights, people, items), touched, two_tower.Params())


def write_towers(night: Night, trained: Towers | None, params: Params) -> None:
    """Stage what the towers were trained to, and note where they are on and there is nothing."""
    for name, rows in zip(TOWERS, two_tower.rows_of(trained), strict=True):
        night.write(name, rows)
    if trained is None and params.two_tower:
        night.notes["no_two_tower"] = (
            "too short a history to train on" if night.refresh is None
            else "the base has no weights; a night trains them"
        )  # fmt: skip
    if trained is not None:
        night.notes["two_tower"] = {
            "version": two_tower.version(trained), "dim": trained.items.shape[1],
            "items": len(trained.items), "persons": len(trained.people),
            "rows": len(trained.rows),
        }  # fmt: skip


def _write_shared(night: Night, seen: Seen, params: Params) -> None:
    night.write("pools", shared(seen, params))
    folders = night.staged / "candidates", night.staged / "pools"
    night.write("candidate_counts", counts(*folders, asked(params)))


def asked(params: Params) -> list[str]:
    """The sources that are on."""
    return [source for source in SOURCES if source != two_tower.NAME or params.two_tower]


def of_night(night: Night) -> Seen:
    """What the sources may look at as of the run date, from the published tables."""
    known = matrix.build(
        night.arrow("interactions", ["person_id", "item_id", "weight", "last_time"])
    )
    items, persons = night.arrow("items", OF_ITEMS), night.arrow("persons", OF_PERSONS)
    catalogue = Catalogue.of(items)
    record = Record(night.folder("history"), night.as_of, catalogue.ids)
    return Seen(
        as_of=night.as_of,
        record=record,
        item_gap=shop.gaps(record.blocks(people_of(persons), BOUGHT), catalogue),
        interactions=known,
        items=items,
        persons=persons,
        editorial=night.arrow("editorial"),
        content=night.arrow("content_vectors"),
        factors=als.Factors(
            people=_aligned(night.arrow("person_factors"), "person_id", known.person_ids),
            items=_aligned(night.arrow("item_factors"), "item_id", known.item_ids),
        ),
    )


def nominate(night: Night, seen: Seen, params: Params) -> pa.Table:
    """All that is named for ``seen.people``, from personal sources and pools: a row per person,
    item and source with person_id, item_id, source and rank."""
    columns = ["person_id", "item_id", "source", "rank"]
    trained = learned(night, seen, params)
    own = [part.select(columns) for part in personal(night, seen, params, trained)]
    people = seen.persons
    if seen.people is not None:
        people = people.filter(pc.is_in(people["person_id"], value_set=seen.people))
    surfaces = night.params_of("recommendations").surfaces
    common = shared(seen, params, requests=False)
    from_pools = pools.for_people(common, people, params.pool_depth, surfaces)
    schema = from_pools.schema
    return pa.concat_tables([from_pools, *(part.cast(schema) for part in own)])


def learned(night: Night, seen: Seen, params: Params) -> Towers | None:
    """The two towers, trained on what may be seen; None where they are off, or where nobody bought
    anything in a horizon after an instant at which something was known."""
    if not params.two_tower:
        return None
    trained = two_tower.train(tower_ground(seen), two_tower.Params(), night.seed)
    if trained is None:
        log.warning("two_tower as_of=%s untrained: too short a history", io.label(seen.as_of))
    return trained


def tower_ground(seen: Seen, words: Words | None = None) -> Ground:
    """What the two towers may look at; ``words``: those of a training, None of a new one."""
    said = ds.field("event_type").isin(list(towers.SAID))
    return Ground.of(
        seen.record.rows(towers.COLUMNS, said),
        seen.interactions.person_ids,
        seen.items,
        seen.content,
        seen.persons,
        int(seen.as_of.timestamp() * 1_000_000),
        words,
    )


def personal(
    night: Night, seen: Seen, params: Params, trained: Towers | None = None
) -> Iterator[pa.Table]:
    """What the personal sources name, in the columns of ``candidates``, of some people after the
    other, in the order of their ids.

    ``trained``: the two towers, which name only where they are given. Sources name for a block of
    people at a time, so that memory does not grow with their number.
    """
    everybody, factors = seen.interactions, seen.factors
    chosen, people_factors = everybody, factors.people
    if seen.people is not None:
        rows = np.sort(matrix.positions(seen.people, everybody.person_ids))
        rows = rows[rows >= 0]
        if len(rows) == 0:
            return
        chosen, people_factors = everybody.of_people(rows), factors.people[rows]
    allowed = np.ones(len(everybody.item_ids), dtype=bool)  # filters come behind, see above
    now = int(seen.as_of.timestamp() * 1_000_000)
    baskets = seen.record.rows(
        ["person_id", "basket", "item_id", "event_type"], ds.field("event_type") == "purchase"
    )
    alike = item_to_item.neighbours(everybody.matrix, item_to_item.Params())
    together = bought_together.pairs(baskets, bought_together.Params())
    cold = content_neighbours.cold(
        chosen,
        seen.content,
        now,
        content_neighbours.Params(),
        choosers=np.bincount(everybody.matrix.indices, minlength=len(everybody.item_ids)),
        seed=night.seed,
    )
    for first in range(0, len(chosen.person_ids), BLOCK):
        rows = np.arange(first, min(first + BLOCK, len(chosen.person_ids)))
        block = chosen.of_people(rows)
        past = seen.record.of(block.person_ids)
        named = [
            buy_again.candidates(
                past, seen.item_gap, block.person_ids, seen.record.items, seen.as_of, params.depth,
                buy_again.Params(),
            ),
            considered.candidates(
                past, block.person_ids, seen.record.items, seen.as_of, params.depth,
                considered.Params(),
            ),
            collaborative.top_items(
                block.person_ids, people_factors[rows], block.item_ids, factors.items,
                Allowed.for_all(len(rows), allowed), params.depth,
            ),
            item_to_item.candidates(
                block, alike, now, allowed, params.depth, item_to_item.Params()
            ),
            bought_together.candidates(
                block, together, now, allowed, params.depth, bought_together.Params()
            ),
            content_neighbours.candidates(
                block, cold, now, params.depth, content_neighbours.Params()
            ),
        ]  # fmt: skip
        if trained is not None:
            named.append(two_tower.candidates(trained, block.person_ids, params.depth))
        yield from onward.by_people(named, block.person_ids)


def shared(seen: Seen, params: Params, requests: bool = True) -> pa.Table:
    """The table ``pools``; ``requests``: with those of a request's own contexts."""
    return pools.pools(
        seen.record, seen.items, seen.persons, seen.editorial, params.pool_depth, pools.Params(),
        requests,
    )  # fmt: skip


def counts(candidates: Path, shared_lists: Path, sources: Iterable[str]) -> pa.Table:
    """The table ``candidate_counts`` from the files of two others: a pool counts no persons, since
    everybody may get it. ``sources``: those that are on, whose rows are 0 where they named nothing,
    so that silence is counted too."""
    rows = Counter(dict.fromkeys(sources, 0))
    persons: dict[str, list[pa.Array]] = defaultdict(list)
    items: dict[str, list[pa.Array]] = defaultdict(list)
    # File by file: three texts a row of everybody's candidates would be the night's largest table.
    for folder, whose in ((candidates, {"person_id": persons}), (shared_lists, {})):
        for path in io.parquet_files(folder):
            found = _coded(path, ["source", "item_id", *whose])
            source, names = found["source"].indices.to_numpy(), found["source"].dictionary
            for name, count in zip(names.to_pylist(), np.bincount(source).tolist(), strict=False):
                rows[name] += count
            for column, of_source in {"item_id": items, **whose}.items():
                texts = found[column].dictionary
                there = np.zeros((len(names), len(texts)), bool)
                there[source, found[column].indices.to_numpy()] = True
                for name, mine in zip(names.to_pylist(), there, strict=True):
                    of_source[name].append(texts.filter(pa.array(mine)))
    return pa.Table.from_pylist([
        {"source": source, "rows": rows[source], "persons": _distinct(persons[source]),
         "items": _distinct(items[source])}
        for source in sorted(rows)
    ], TABLES["candidate_counts"].schema)  # fmt: skip


def _coded(path: Path, columns: list[str]) -> dict[str, pa.DictionaryArray]:
    """Columns of texts of a file, each in one piece and coded."""
    with pq.ParquetFile(path, read_dictionary=columns) as file:
        found = file.read(columns).unify_dictionaries()
    return {name: groups.one(found[name]) for name in columns}


def _distinct(ids: list[pa.Array]) -> int:
    return len(pc.unique(pa.chunked_array(ids, pa.string())))


def _aligned(rows: pa.Table, key: str, ids: pa.StringArray) -> np.ndarray:
    """(n_ids, dim) float32: a factor table's vectors in the order of ``ids``; it has them all."""
    return matrix.vectors_of(rows.take(pc.index_in(ids, value_set=rows[key].combine_chunks())))
