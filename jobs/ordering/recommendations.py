"""The lists of every person and context: filter, then fill by quota, then order.

Reads ``candidates``, ``pools``, ``persons``, ``items``, ``rules_in_force``, ``history``, the
vectors, the tables of ``filters`` and ``ranker``, and what the stages that are on look at
(``jobs/ordering/logged.py``). Writes
``recommendations`` (a row per place of a person's list), ``context_lists`` (a row per place of a
list that many share), ``model_lists`` (a row per place of the lists that
the model alone would have published), ``overrides`` (a row per rule and stage: what it changed),
``explore_shares`` (a row per source that is explored), ``features`` (the rows that the lists were
scored from), ``delivery`` (a row per source: quota and delivered share) and ``shortfalls`` (a row
per way in which lists were topped up or stayed short).

People without consent, or without history, have no personal candidates: their list comes from the
pools of their contexts. A source that cannot fill its quota is topped up from its own deeper
candidates first (filtering comes before filling), then by the best of the rest.

Lists are made for a block of people after the other, so memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from jobs.filtering.allowed import Allowed
from jobs.night import Night
from jobs.ordering import lists, logged
from jobs.ordering.listing import COLUMNS, Chosen, Gathered, Listing
from jobs.ordering.stages import Ordered
from jobs.ordering.starvation import Starvation
from jobs.ordering.surfaces import ALWAYS, CONTEXT, MOST, PERSON, RETRIEVAL, SURFACES, Surface
from jobs.params import check
from jobs.retrieval import matrix
from jobs.retrieval.sources import pools
from jobs.scoring import features
from jobs.scoring.features import Named
from jobs.scoring.scored import Scored
from jobs.signals.past import people_of
from jobs.tables import TABLES

# People whose lists are made at a time: some 700 named rows each, 150 bytes a row at the widest.
BLOCK = 5_000


@dataclass(frozen=True)
class Params:
    """The surfaces, and how deep shared lists are read for them."""

    # By the names under which serving asks for them.
    surfaces: Mapping[str, Surface] = field(default_factory=lambda: dict(SURFACES))
    # How deep a person's pools are read; several times a list, so that filters leave enough.
    pool_depth: int = 60

    def __post_init__(self) -> None:
        check(
            any(surface.grain == PERSON for surface in self.surfaces.values()),
            "surfaces must hold one with a person's lists at least",
        )
        for name, surface in self.surfaces.items():
            check(bool(name), "a surface must have a name")
            check(
                self.pool_depth >= surface.length,
                f"pool_depth must be at least the length of {name}, {surface.length}",
            )
            surface.ordering(name)

    def of_grain(self, grain: str) -> dict[str, Surface]:
        """The surfaces whose lists are for these."""
        return {name: one for name, one in self.surfaces.items() if one.grain == grain}


def run(night: Night, params: Params) -> None:
    """Stage the tables."""
    # An item's code is its place among the sorted ids, so that ties by code are ties by id.
    items = night.arrow("items", COLUMNS).sort_by("item_id")
    shared = pools.Lists(night.arrow("pools"), items["item_id"], params.pool_depth)
    made = of_persons(night, params, items, shared)
    made |= of_contexts(night, params, items, shared)
    for table in ("overrides", "explore_shares", "delivery", "shortfalls"):
        night.write(table, pa.concat_tables(getattr(one, table)() for one in made.values()))


# --- of persons ------------------------------------------------------------------------------
def of_persons(
    night: Night, params: Params, items: pa.Table, shared: pools.Lists
) -> dict[str, Listing]:
    """Stage the lists of every person; returns the surfaces with what was counted."""
    persons = night.arrow("persons", ["person_id", "region", "segment", "restrictions"])
    persons = persons.sort_by("person_id")
    item_ids = pa.concat_arrays(items["item_id"].chunks)
    scored = Scored.read(night, people_of(persons), items)
    listings = {
        name: Listing(night, name, surface, items)
        for name, surface in params.of_grain(PERSON).items()
    }
    lately = {
        name: tuple(
            Lately.of(pairs, persons, item_ids, what)
            for what, pairs in (
                ("purchases", logged.bought(night, listing.surface.bought_days)),
                ("recommendation_log", logged.shown(night, listing.surface.shown_days, name)),
            )
        )
        for name, listing in listings.items()
    }
    pairs_blocked = night.arrow("blocked_pairs", ["person_id", "item_id", "reason"])
    blocked = Lately.of(pairs_blocked, persons, item_ids, "blocked_pairs")
    starvation = Starvation.of(
        night.arrow("ineligible_items", ["item_id", "kind", "value"]), pairs_blocked,
        persons["person_id"], item_ids,
    )  # fmt: skip
    allowed = Allowed.of(
        night.arrow("eligibility"), persons, items["position"].to_numpy(), blocked.keys
    )
    new_only = any(listing.surface.new_only for listing in listings.values())
    for number, first in enumerate(range(0, persons.num_rows, BLOCK)):
        people = persons.slice(first, BLOCK)
        own = candidates_of(night, people["person_id"])
        named, scores = gather(own, people, shared, item_ids)
        gathered = Gathered.of(
            people["person_id"].to_pylist(), people["region"].to_pylist(), named, scores,
            listings.values(),
        )  # fmt: skip
        pairs = gathered.pairs
        block = scored.block(pa.concat_arrays(people["person_id"].chunks))
        may = allowed.holds(first + pairs.person, pairs.item)
        known = block.bought(pairs) if new_only else None
        chosen, needed = {}, np.zeros(len(pairs.item), bool)
        for name, listing in listings.items():
            chosen[name] = listing.choose(gathered, may, known)
            if listing.surface.scored:
                chosen[name] = nearest(scored, chosen[name], listing.surface.new_only)
                needed[chosen[name].rows] = True
        rows = block.features(pairs.of(needed))
        probability = np.full(len(pairs.item), np.nan)
        probability[needed] = scored.scorer.of_features(rows)
        used = np.zeros(len(pairs.item), bool)
        for place, (name, listing) in enumerate(listings.items()):
            mine = chosen[name]
            person = first + mine.pairs.person
            bought, shown = (one.holds(person, mine.pairs.item) for one in lately[name])
            ordered, score = listing.order(
                gathered,
                mine,
                probability[mine.rows] if listing.surface.scored else None,
                bought,
                shown,
            )
            short = listing.short(mine, ordered, people.num_rows)
            if short.any():
                lost = ~may & short[pairs.person]
                listing.starve(starvation.counts(
                    pairs.person[lost], pairs.item[lost], gathered.regions,
                    people["restrictions"].to_pylist(), first,
                ))  # fmt: skip
            part = number * len(listings) + place
            add(night, part, name, gathered, mine, ordered, score, item_ids, own)
            if listing.surface.scored:
                used[mine.rows[ordered.published.pair]] = True
        listed = pairs.of(used)
        night.add("features", number, features.stamped(
            people["person_id"].take(pa.array(listed.person)).combine_chunks(),
            item_ids.take(pa.array(listed.item)), rows[used[needed]], night.as_of,
        ))  # fmt: skip
    return listings


def nearest(scored: Scored, chosen: Chosen, new_only: bool) -> Chosen:
    """The part of what a surface may show that is worth the cost of its features."""
    return chosen.of(scored.nearest(chosen.pairs, chosen.alone, new_only))


def add(
    night: Night, part: int, surface: str, gathered: Gathered, chosen: Chosen, ordered: Ordered,
    score: np.ndarray, item_ids: pa.StringArray, own: pa.Table,
) -> None:  # fmt: skip
    """Stage one block of one surface's lists; ``own``: the personal candidates, whose rows stand
    first in what was gathered."""
    ids = pa.array(gathered.ids, pa.string())

    def places(listed: lists.Listed) -> dict[str, pa.Array]:
        return {
            "surface": pa.repeat(surface, len(listed.pair)),
            "person_id": ids.take(pa.array(chosen.pairs.person[listed.pair])),
            "item_id": item_ids.take(pa.array(chosen.pairs.item[listed.pair])),
            "rank": listed.rank.astype(np.int32),
            "score": score[listed.pair],
        }

    listed = ordered.published
    sources, provenance = lists.provenance(
        gathered.named, chosen.pairs, listed, gathered.scores, own
    )
    night.add("recommendations", part, pa.table({
        **places(listed), **ordered.columns, "sources": sources, "provenance": provenance,
    }))  # fmt: skip
    night.add("model_lists", part, pa.table(places(ordered.model)))


def candidates_of(night: Night, person_ids: pa.ChunkedArray) -> pa.Table:
    """The personal candidates of these people, who stand sorted: files that hold none of them are
    passed over by their statistics."""
    own = (ds.field("person_id") >= person_ids[0]) & (ds.field("person_id") <= person_ids[-1])
    return night.arrow(
        "candidates",
        ["person_id", "item_id", "source", "rank", "score", "seed_item", "seed_time"],
        own,
    )


def gather(
    own: pa.Table, people: pa.Table, shared: pools.Lists, item_ids: pa.StringArray
) -> tuple[Named, np.ndarray]:
    """What was named for these people, in codes: their own candidates, then the pools; and the
    sources' own scores of the same rows."""
    mine = features.coded(own, people["person_id"], item_ids)
    common, scores = shared.of_people(people["region"], people["segment"])
    both = Named(*(
        np.concatenate([getattr(each, column) for each in (mine, common)])
        for column in ("person", "item", "source", "rank")
    ))  # fmt: skip
    return both, np.concatenate([own["score"].to_numpy(), scores])


@dataclass(frozen=True)
class Lately:
    """Pairs that something happened to lately, as sorted keys ``person * n_items + item``."""

    keys: np.ndarray
    n_items: int

    @staticmethod
    def of(pairs: pa.Table, persons: pa.Table, item_ids: pa.StringArray, what: str) -> Lately:
        """From rows of person_id and item_id."""
        person = matrix.known(pairs["person_id"], persons["person_id"], f"person of {what}")
        item = matrix.known(pairs["item_id"], item_ids, f"item of {what}")
        return Lately(np.unique(person * len(item_ids) + item), len(item_ids))

    def holds(self, person: np.ndarray, item: np.ndarray) -> np.ndarray:
        """(n,) bool: whether each pair of codes is one of them."""
        return matrix.among(person * self.n_items + item, self.keys)


# --- of contexts -----------------------------------------------------------------------------
def of_contexts(
    night: Night, params: Params, items: pa.Table, shared: pools.Lists
) -> dict[str, Listing]:
    """Stage the lists that many share: of the surfaces made for contexts, which are returned with
    what was counted, and what stands in on the others where there is no list to give."""
    item_ids = pa.concat_arrays(items["item_id"].chunks)
    contexts = shared.contexts
    kinds, names = (list(column) for column in zip(*contexts, strict=True))
    regions = [name if kind == "region" else None for kind, name in contexts]
    whose = pa.table({
        "region": pa.array(regions, pa.string()),
        "restrictions": pa.array([[]] * len(contexts), pa.list_(pa.string())),
    })  # fmt: skip
    nobody = np.zeros(0, np.int64)
    allowed = Allowed.of(night.arrow("eligibility"), whose, items["position"].to_numpy(), nobody)
    listings = {
        name: Listing(
            night, name, surface if surface.grain == CONTEXT else standing_in(surface), items
        )
        for name, surface in params.surfaces.items()
        if surface.grain == CONTEXT or surface.fallback
    }
    # Who is in a region or segment is everybody too; who looks at a category wants that.
    named, scores = shared.of_contexts([
        (pools.EVERYBODY, context) if context[0] in pools.OF_PERSONS else (context,)
        for context in contexts
    ])  # fmt: skip
    ids = [f"{kind}:{name}" for kind, name in contexts]
    gathered = Gathered.of(ids, regions, named, scores, listings.values())
    may = allowed.holds(gathered.pairs.person, gathered.pairs.item)
    no_seeds = TABLES["candidates"].schema.empty_table()
    for number, (name, listing) in enumerate(listings.items()):
        chosen = listing.choose(gathered, may, None)
        no = np.zeros(len(chosen.rows), bool)
        ordered, score = listing.order(gathered, chosen, None, no, no)
        listed = ordered.published
        context = pa.array(chosen.pairs.person[listed.pair])
        sources, _ = lists.provenance(
            gathered.named, chosen.pairs, listed, gathered.scores, no_seeds
        )
        night.add("context_lists", number, pa.table({
            "surface": pa.repeat(name, len(listed.pair)),
            "context_kind": pa.array(kinds).take(context),
            "context": pa.array(names, pa.string()).take(context),
            "item_id": item_ids.take(pa.array(chosen.pairs.item[listed.pair])),
            "rank": listed.rank.astype(np.int32), "score": score[listed.pair],
            **ordered.columns, "sources": sources,
        }))  # fmt: skip
    return {name: listings[name] for name in params.of_grain(CONTEXT)}


def standing_in(surface: Surface) -> Surface:
    """A surface's lists where there is none to give: twice as deep, since whoever gets one may
    not get all of it, from its fallback chain, under its rules."""
    return replace(
        surface, grain=CONTEXT, blended=RETRIEVAL, sources={surface.fallback[0]: 1.0},
        length=min(2 * surface.length, MOST), filters=ALWAYS, objective="purchases",
        explore_places=0, bought_days=0, shown_days=0, tail_from=0,
    )  # fmt: skip
