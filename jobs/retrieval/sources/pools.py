"""Lists shared by many people, one module each: popular, trending, new arrivals, editorial.

A pool belongs to a context: everybody, a region, a segment, or what a request says of itself (the
category looked at, the channel, the quarter of the day); what was curated for a surface belongs to
that. :class:`Lists` turns pools into candidates of persons, each from the contexts that the person
is in, and what was curated for any surface, of which each takes its own.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs import tables
from jobs.retrieval.matrix import encode, known
from jobs.retrieval.neighbours import first_of_each
from jobs.retrieval.sources import editorial, interest, new_arrivals, popular, trending
from jobs.retrieval.sources.interest import EVERYBODY, OF_PERSONS, Context, Params
from jobs.scoring.features import Named
from jobs.signals.past import Record
from jobs.tables import SOURCES

SHARED = (popular.NAME, trending.NAME, new_arrivals.NAME, editorial.NAME)


def pools(
    record: Record, items: pa.Table, persons: pa.Table, curated: pa.Table, depth: int,
    params: Params, requests: bool = True,
) -> pa.Table:  # fmt: skip
    """The table ``pools``, every pool to ``depth``. ``items``: item_id, category, created_time,
    first_seen and available; ``persons``: person_id, region and segment; ``curated``: the table
    ``editorial``; ``requests``: whether also those of what a request may say of itself, which no
    person's list reads."""
    of_item = items.take(pc.index_in(record.items, value_set=items["item_id"].combine_chunks()))
    counted = interest.interest(record, persons, of_item["category"], params, requests)
    pairs = (counted.context, counted.item)
    newness = new_arrivals.newness(of_item, record.as_of, params.arrival_days)
    named = {
        popular.NAME: (*pairs, popular.scores(counted)),
        trending.NAME: (*pairs, trending.scores(counted, params)),
        new_arrivals.NAME: new_arrivals.scores(counted, newness),
    }
    parts = [editorial.pool(curated, depth)]
    for name, (context, item, score) in named.items():
        above = np.flatnonzero(score > 0)
        best, rank = first_of_each(context[above], item[above], score[above], depth)
        rows = above[best]
        kinds, contexts = (pa.array(column) for column in zip(*counted.contexts, strict=True))
        of = pa.array(context[rows])
        parts.append(
            pa.table(
                {
                    "source": pa.repeat(name, len(rows)), "context_kind": kinds.take(of),
                    "context": contexts.take(of), "rank": rank.astype(np.int32),
                    "item_id": record.items.take(pa.array(item[rows])), "score": score[rows],
                },
                schema=tables.TABLES["pools"].schema,
            )
        )  # fmt: skip
    return pa.concat_tables(parts)


def for_people(
    shared: pa.Table, people: pa.Table, depth: int, surfaces: Collection[str]
) -> pa.Table:
    """The pools as candidates of these people: person_id, item_id, source and rank.

    ``shared``: the table ``pools``; ``people``: person_id, region and segment; ``surfaces``: those
    whose curated lists count.
    """
    item_ids, _ = encode(shared["item_id"])
    lists = Lists(shared, item_ids, depth, surfaces)
    named, _ = lists.of_people(people["region"], people["segment"])
    return pa.table({
        "person_id": people["person_id"].take(pa.array(named.person)),
        "item_id": item_ids.take(pa.array(named.item)),
        "source": pa.array(SOURCES).take(pa.array(named.source)),
        "rank": named.rank.astype(np.int32),
    })  # fmt: skip


class Lists:
    """The pools in codes, as people of each region and segment get them."""

    def __init__(self, shared: pa.Table, item_ids: pa.Array, depth: int, surfaces: Collection[str]):
        """``shared``: the table ``pools``, read to ``depth``; an item's code is its place in
        ``item_ids``, which are sorted; ``surfaces``: those that there are, what was curated for
        another counts nowhere."""
        of_any = pc.not_equal(shared["context_kind"], editorial.OF_SURFACE)
        there = pc.is_in(shared["context"], value_set=pa.array(list(surfaces), pa.string()))
        near = shared.filter(pc.and_(pc.less_equal(shared["rank"], depth), pc.or_(of_any, there)))
        self._depth = depth
        self._item = known(near["item_id"], item_ids, "item of pools")
        self._source = known(near["source"], pa.array(SOURCES), "source of pools")
        self._rank = near["rank"].to_numpy().astype(np.int64)
        self._score = near["score"].to_numpy()
        self._n_items = len(item_ids)
        self._context = {
            name: rows.to_numpy(zero_copy_only=False)
            for name in sorted(
                set(zip(near["context_kind"].to_pylist(), near["context"].to_pylist(), strict=True))
            )
            for rows in [
                pc.and_(pc.equal(near["context_kind"], name[0]), pc.equal(near["context"], name[1]))
            ]
        }
        self._mixed: dict[tuple[Context, ...], tuple[np.ndarray, ...]] = {}

    @property
    def contexts(self) -> list[Context]:
        """Every context that has a pool: everybody's, then those that persons are in, then the
        others."""
        apart = {EVERYBODY, *self.of_surfaces}
        others = [context for context in self._context if context not in apart]
        return [EVERYBODY, *sorted(others, key=lambda context: context[0] not in OF_PERSONS)]

    @property
    def of_surfaces(self) -> tuple[Context, ...]:
        """What was curated for one surface each, as contexts."""
        return tuple(one for one in self._context if one[0] == editorial.OF_SURFACE)

    def curated(self, surface: str) -> np.ndarray:
        """(n_items,) bool: what the editors chose for this surface, or for all of them."""
        mine = self._of(EVERYBODY) | self._of((editorial.OF_SURFACE, surface))
        found = np.zeros(self._n_items, bool)
        found[self._item[mine & (self._source == SOURCES.index(editorial.NAME))]] = True
        return found

    def _of(self, context: Context) -> np.ndarray:
        """(n_rows,) bool: the pools of a context."""
        return self._context.get(context, np.zeros(len(self._item), bool))

    def of_people(
        self, regions: pa.ChunkedArray, segments: pa.ChunkedArray
    ) -> tuple[Named, np.ndarray]:
        """What the pools name for people with codes from 0, and the pools' scores.

        A source names an item by its best rank over the person's contexts (all, the region, the
        segment), ranks close up to the depth, ties go to the lower item. What was curated for a
        surface keeps its rank there, so that no surface's list moves another's items.
        """
        return self.of_contexts([
            (EVERYBODY, ("region", region), ("segment", segment), *self.of_surfaces)
            for region, segment in zip(regions.to_pylist(), segments.to_pylist(), strict=True)
        ])  # fmt: skip

    def of_contexts(self, mixtures: Sequence[tuple[Context, ...]]) -> tuple[Named, np.ndarray]:
        """The same for whoever is in all contexts of a mixture; a mixture's code is its place."""
        distinct = {mixture: code for code, mixture in enumerate(dict.fromkeys(mixtures))}
        mixed = [self._mixture(mixture) for mixture in distinct]
        code = np.array([distinct[mixture] for mixture in mixtures], np.int64)
        sizes = np.array([len(rows[0]) for rows in mixed])
        starts = np.r_[0, np.cumsum(sizes)]
        flat = [np.concatenate(column) for column in zip(*mixed, strict=True)]
        count = sizes[code]
        person = np.repeat(np.arange(len(code)), count)
        first = np.repeat(starts[code] - np.r_[0, np.cumsum(count)[:-1]], count)
        item, source, rank, score = (column[first + np.arange(len(person))] for column in flat)
        return Named(person, item, source, rank), score

    def _mixture(self, contexts: tuple[Context, ...]) -> tuple[np.ndarray, ...]:
        """(item, source, rank, score) of the pools of whoever is in all of these contexts."""
        found = self._mixed.get(contexts)
        if found is None:
            shared, own = (np.zeros(len(self._item), bool) for _ in range(2))
            for context in contexts:
                mine = own if context[0] == editorial.OF_SURFACE else shared
                mine |= self._of(context)
            found = self._mixed[contexts] = self._best(np.flatnonzero(shared), np.flatnonzero(own))
        return found

    def _best(self, shared: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, ...]:
        """Each (source, item) of these rows once: the ``shared`` ranked anew in their source to
        the depth, beside them the ``own`` as they are, by its best rank of the two."""
        item, source, rank, score = self._once(
            self._item[shared], self._source[shared], self._rank[shared], self._score[shared]
        )
        order, rank = first_of_each(source, item, -rank, self._depth)
        item, source, score = item[order], source[order], score[order]
        if not len(own):
            return item, source, rank, score
        return self._once(
            np.r_[item, self._item[own]], np.r_[source, self._source[own]],
            np.r_[rank, self._rank[own]], np.r_[score, self._score[own]],
        )  # fmt: skip

    def _once(
        self, item: np.ndarray, source: np.ndarray, rank: np.ndarray, score: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        """Each (source, item) once, by its least rank and greatest score, in their order."""
        size = int(self._item.max(initial=0)) + 1
        pair, which = np.unique(source * size + item, return_inverse=True)
        least = np.full(len(pair), np.iinfo(np.int64).max)
        np.minimum.at(least, which, rank)
        greatest = np.full(len(pair), -np.inf)
        np.maximum.at(greatest, which, score)
        return pair % size, pair // size, least, greatest
