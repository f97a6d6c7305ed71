"""The lists of every person and context: filter, then fill by quota, then order.

Reads ``candidates``, ``candidate_counts``, ``pools``, ``persons``, ``items``, ``rules_in_force``,
``history``, the vectors, the tables of ``filters`` and ``ranker``, and what the stages that are on
look at (``jobs/ordering/logged.py``). Writes
``recommendations`` (a row per place of a person's list), ``context_lists`` (a row per place of a
list that many share), ``model_lists`` (a row per place of the lists that
the model alone would have published), ``overrides`` (a row per rule and stage: what it changed),
``explore_shares`` (a row per source that is explored), ``features`` (the rows that the lists were
scored from), ``delivery`` (a row per source: quota and delivered share), ``shortfalls`` (a row per
way in which lists were topped up or stayed short) and ``list_work`` (of how many people lists were
made anew, filled or left).

People without consent, or without history, have no personal candidates: their list comes from the
pools of their contexts. A source that cannot fill its quota is topped up from its own deeper
candidates first (filtering comes before filling), then by the best of the rest.

Lists are made for a block of people after the other, so memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs import io
from jobs.filtering.allowed import Allowed
from jobs.io import Published
from jobs.night import Night
from jobs.ordering import filling, lists, logged, planning, relisting, rules
from jobs.ordering.listing import COLUMNS, Chosen, Gathered, Listing
from jobs.ordering.logged import Lately
from jobs.ordering.planning import Plan
from jobs.ordering.rules import Rule
from jobs.ordering.stages import Ordered
from jobs.ordering.starvation import Starvation
from jobs.ordering.surfaces import ALWAYS, CONTEXT, MOST, PERSON, RETRIEVAL, SURFACES, Surface
from jobs.params import check
from jobs.refresh import changes, onward
from jobs.retrieval import matrix
from jobs.retrieval.sources import pools
from jobs.scoring import features
from jobs.scoring.features import Named
from jobs.scoring.scored import Scored
from jobs.signals.past import people_of
from jobs.tables import TABLES

# People whose lists are made at a time: some 700 named rows each, 150 bytes a row at the widest.
BLOCK = 5_000
# People whose rows in the base are held at most: some 20 kB each.
HELD = 40_000
# What is counted of the lists of each surface.
AGAIN = "again.parquet"  # beside the tables of a refresh: whose rows may not be the base's
EVIDENCE = ("overrides", "explore_shares", "delivery", "shortfalls")


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
    shared = pools.Lists(night.arrow("pools"), items["item_id"], params.pool_depth, params.surfaces)
    known = rules.loaded(night.arrow("rules_in_force"), items)
    made = of_persons(night, params, items, shared, known)
    made |= of_contexts(night, params, items, shared, known)
    for table in EVIDENCE:
        night.write(table, pa.concat_tables(getattr(one, table)() for one in made.values()))
    everybody = people_of(night.arrow("persons", ["person_id"]))
    night.write("list_work", work(everybody, everybody, everybody[:0]))


def refresh(night: Night, params: Params) -> None:
    """Stage the base's lists with those of people who are due made anew on surfaces that follow
    what they do, and in all others the places filled that may not stand any more.

    Of whom something else is known than in the base, or whose lists are too old, all lists are made
    anew, and where a surface's configuration changed, everybody's. What the night counted of
    persons' lists stays: a few people's are no measure of a source. Where all are anew, all are
    counted anew.
    """
    base = night.base("recommendations")
    items = night.arrow("items", COLUMNS).sort_by("item_id")
    shared = pools.Lists(night.arrow("pools"), items["item_id"], params.pool_depth, params.surfaces)
    known = rules.loaded(night.arrow("rules_in_force"), items)
    surfaces = params.of_grain(PERSON)
    may = planning.lawful(night, items, known)
    plan = planning.planned(night, base, surfaces, may)
    apart = onward.both(plan.people, changes.gone(night))
    first, before = parted(night, base, apart)
    writer = onward.Writer(night, first)
    for name in relisting.OF_PERSONS:
        writer.add(name, TABLES[name].schema.empty_table())
    # Whoever spreads lists over the catalogue counts what the others show.
    spread = [name for name, one in surfaces.items() if one.tail_from]
    columns, others = (
        ["surface", "item_id"],
        pc.field("surface").isin(pa.array(spread, pa.string())),
    )
    stand = pa.concat_tables([
        io.read_arrow(night.staged / "recommendations", columns, others),
        plan.standing(before["recommendations"], spread).select(columns),
    ], promote_options="default")  # fmt: skip
    scored = [name for name, one in surfaces.items() if one.scored]
    merging = relisting.Merging(
        before, plan.merged, plan.lost, plan.anew, plan.remodelled, scored, writer.add
    )
    listings = make(
        night, surfaces, items, shared, known, merging.add, plan.people, stand=stand, plan=plan,
        merging=merging,
    )  # fmt: skip
    following = {name for name, one in params.surfaces.items() if one.follows}
    anew = changes.reconfigured(night) | following
    shelves = of_contexts(night, params, items, shared, known, anew)
    if plan.everybody:
        shelves = listings | shelves
    for name in EVIDENCE:
        counted = io.read_arrow(base.table(name))
        stays = pc.invert(pc.is_in(counted["surface"], pa.array(list(shelves), pa.string())))
        ours = pc.is_in(counted["surface"], pa.array(list(params.surfaces), pa.string()))
        night.write(
            name,
            counted.filter(pc.and_(stays, ours)),
            *(getattr(one, name)() for one in shelves.values()),
        )
    pq.write_table(pa.table({"person_id": apart}), night.staged / AGAIN)
    everybody = people_of(night.arrow("persons", ["person_id"]))
    night.write("list_work", work(everybody, plan.anew.people, plan.short))
    night.notes["places_lost"] = plan.lost.num_rows


def parted(
    night: Night, base: Published, apart: pa.StringArray
) -> tuple[dict[str, int], dict[str, relisting.Rows]]:
    """Stage the base's tables of persons without these people, whose ids are sorted; returns the
    number of each one's next part, and where the rows of these people are: held, if they are few
    enough, which saves reading them again."""
    first: dict[str, int] = {}
    before: dict[str, relisting.Rows] = {}
    for name in relisting.OF_PERSONS:
        folder, staged = base.table(name), night.staged / name
        if len(apart) <= HELD:
            first[name], before[name] = onward.parted(folder, staged, apart)
        else:
            first[name], before[name] = onward.without(folder, staged, apart), folder
    return first, before


def work(people: pa.StringArray, anew: pa.StringArray, short: pa.StringArray) -> pa.Table:
    """The table ``list_work``; ``anew``: who has a list that is made anew, ``short``: who lost a
    place in one that is not."""
    made = pc.is_in(people, value_set=anew)
    mended = pc.and_not(pc.is_in(people, value_set=short), made)
    counts = [pc.sum(which).as_py() or 0 for which in (mended, made)]
    return pa.table({
        "what": ["persons"], "known": [len(people)], "untouched": [len(people) - sum(counts)],
        "filled": counts[:1], "anew": counts[1:],
    })  # fmt: skip


# --- of persons ------------------------------------------------------------------------------
def of_persons(
    night: Night, params: Params, items: pa.Table, shared: pools.Lists, known: list[Rule]
) -> dict[str, Listing]:
    """Stage the lists of every person; returns the surfaces with what was counted.

    ``known``: the rules in force on any surface."""
    writer = onward.Writer(night)
    listings = make(night, params.of_grain(PERSON), items, shared, known, writer.add)
    writer.close(*relisting.OF_PERSONS)
    return listings


def make(
    night: Night, surfaces: Mapping[str, Surface], items: pa.Table, shared: pools.Lists,
    known: list[Rule], add: relisting.Add, people: pa.StringArray | None = None, *,
    stand: pa.Table | None = None, plan: Plan | None = None,
    merging: relisting.Merging | None = None,
) -> dict[str, Listing]:  # fmt: skip
    """Make the lists of these people, None for everybody, and ``add`` them part by part;
    ``stand``: surface and item_id of places in other people's lists, which stay; ``plan``: which of
    their lists are made, and which as a whole, None is all; ``merging``: what the rest goes on
    from."""
    if people is not None and len(people) == 0:
        return {}
    making = Making(night, surfaces, items, shared, known, add, people, plan, merging)
    if stand is not None:
        for name, one in making.listings.items():
            mine = stand.filter(pc.equal(stand["surface"], name))["item_id"]
            one.standing(matrix.known(mine, items["item_id"], "item of recommendations"))
    for first in range(0, making.persons.num_rows, BLOCK):
        block = making.persons.slice(first, BLOCK)
        making.block(first, block)
        if merging is not None:
            merging.close(people_of(block))
    return making.listings


class Making:
    """The lists of persons on all their surfaces, a block of people after the other."""

    def __init__(
        self, night: Night, surfaces: Mapping[str, Surface], items: pa.Table,
        shared: pools.Lists, known: list[Rule], add: relisting.Add, people: pa.StringArray | None,
        plan: Plan | None, merging: relisting.Merging | None,
    ):  # fmt: skip
        """``items``: the columns of ``listing.COLUMNS``, sorted by id."""
        columns = ["household_id", "personalised", "region", "segment", "restrictions"]
        persons = night.arrow("persons", ["person_id", *columns])
        asked = persons
        if people is not None:
            asked = persons.filter(pc.is_in(persons["person_id"], value_set=people))
        self.persons = asked.sort_by("person_id")
        self.listings = {
            name: Listing(night, name, one, items, known, shared.curated(name))
            for name, one in surfaces.items()
        }
        self._night, self._shared, self._add, self._merging = night, shared, add, merging
        self._knows = any(one.surface.new_only for one in self.listings.values())
        # By surface: whose list there is asked for, and in whose a few places are to be filled.
        everybody = np.ones(self.persons.num_rows, bool)
        self._asked_for = {
            name: self._among(plan.lists[name]) if plan else everybody for name in surfaces
        }
        self._gaps = {
            name: self._few_lost(plan, name, one) if plan else ~everybody
            for name, one in surfaces.items()
        }
        self._item_ids = pa.concat_arrays(items["item_id"].chunks)
        self._scored = Scored.read(night, persons, items)
        self._lately = {
            name: (
                self._pairs(logged.bought(night, one.bought_days), "purchases"),
                self._pairs(logged.shown(night, one.shown_days, name), "recommendation_log"),
            )
            for name, one in surfaces.items()
        }
        blocked = self._asked(night.arrow("blocked_pairs", ["person_id", "item_id", "reason"]))
        self._allowed = Allowed.of(
            night.arrow("eligibility"), self.persons, items["position"].to_numpy(),
            self._pairs(blocked, "blocked_pairs").keys,
        )  # fmt: skip
        ineligible = night.arrow("ineligible_items", ["item_id", "kind", "value"])
        self._starvation = Starvation.of(
            ineligible, blocked, self.persons["person_id"], self._item_ids
        )

    def block(self, first: int, people: pa.Table) -> None:
        """Stage the lists of these people, the first of whom has the code ``first``."""
        here = slice(first, first + people.num_rows)
        asked = {name: whose[here] for name, whose in self._asked_for.items()}
        gaps = {name: whose[here] for name, whose in self._gaps.items()}
        stands = self._standing(people)
        own = candidates_of(self._night, people["person_id"])
        named, scores = gather(own, people, self._shared, self._item_ids)
        ids, regions = people["person_id"].to_pylist(), people["region"].to_pylist()
        gathered = Gathered.of(ids, regions, named, scores, self.listings.values())
        pairs = gathered.pairs
        may = self._allowed.holds(first + pairs.person, pairs.item)
        measured = self._scored.block(people_of(people))
        chosen = {}
        known = measured.bought(pairs) if self._knows else None
        for name, listing in self.listings.items():
            if asked[name].any():
                mine = listing.choose(gathered, may & asked[name][pairs.person], known)
                if listing.surface.scored:
                    mine = self._worth_scoring(name, mine, regions, gaps[name], stands[name], first)
                chosen[name] = mine
        needed, used = (np.zeros(len(pairs.item), bool) for _ in range(2))
        for name, mine in chosen.items():
            needed[mine.rows] |= self.listings[name].surface.scored
        rows = measured.features(pairs.of(needed))
        probability = np.full(len(pairs.item), np.nan)
        probability[needed] = self._scored.scorer.of_features(rows)
        made: dict[str, list[pa.Table]] = {name: [] for name in relisting.OF_PERSONS}
        for name, mine in chosen.items():
            listing = self.listings[name]
            foretold = probability[mine.rows] if listing.surface.scored else None
            ordered, score = self._order(name, gathered, mine, foretold, first)
            short = listing.short(mine, ordered, len(ids)) & asked[name]
            self._count_starved(listing, gathered, short, people, may, first)
            places = self._places(name, gathered, mine, ordered, score, own)
            for table, part in zip(("recommendations", "model_lists"), places, strict=True):
                made[table].append(part)
            used[mine.rows[ordered.published.pair]] |= listing.surface.scored
        listed = pairs.of(used)
        made["features"].append(features.stamped(
            people["person_id"].take(pa.array(listed.person)).combine_chunks(),
            self._item_ids.take(pa.array(listed.item)), rows[used[needed]], self._night.as_of,
        ))  # fmt: skip
        for name, parts in made.items():
            for some in onward.by_people(parts, people_of(people)):
                self._add(name, some)

    def _standing(self, people: pa.Table) -> dict[str, Lately]:
        """By surface, the pairs that stand in the base's published list or in the model's."""
        found = {name: Lately(np.zeros(0, np.int64), len(self._item_ids)) for name in self.listings}
        if self._merging is not None:
            tables = self._merging.open(people_of(people))
            for name in found:
                keys = (
                    self._pairs(rows.filter(pc.field("surface") == name), "the base's lists").keys
                    for rows in tables
                )
                found[name] = replace(found[name], keys=np.union1d(*keys))
        return found

    def _few_lost(self, plan: Plan, name: str, surface: Surface) -> np.ndarray:
        """(n_people,) bool: whose list stands but for a few places. What explores needs all that
        may be drawn."""
        if surface.explore_places:
            return np.zeros(self.persons.num_rows, bool)
        most = np.zeros(self.persons.num_rows, np.int64)
        for lost in (plan.lost, plan.remodelled):
            ids = lost.filter(pc.field("surface") == name)["person_id"]
            person = matrix.positions(ids, self.persons["person_id"])
            most = np.maximum(most, np.bincount(person[person >= 0], minlength=len(most)))
        stands = self._among(plan.lists[name]) & ~self._among(plan.anew.on(name))
        return stands & (most <= filling.FEW * surface.length)

    def _worth_scoring(
        self, name: str, chosen: Chosen, regions: list[str | None], gaps: np.ndarray,
        stands: Lately, first: int,
    ) -> Chosen:  # fmt: skip
        """What is worth its features; ``gaps``: (n_people,) bool, whose list is only to be
        filled."""
        listing, scored = self.listings[name], self._scored
        new_only, mends = listing.surface.new_only, gaps[chosen.pairs.person]
        if not mends.any():
            return chosen.of(scored.nearest(chosen.pairs, chosen.alone, new_only))
        kept, whole, mended = np.zeros(len(mends), bool), chosen.of(~mends), chosen.of(mends)
        kept[~mends] = scored.nearest(whole.pairs, whole.alone, new_only)
        pairs = mended.pairs
        removed, raised, lowered = listing.stages.ruled(pairs, regions)
        person = first + pairs.person
        always = mended.alone | raised | stands.holds(person, pairs.item)
        bought, shown = (lately.holds(person, pairs.item) for lately in self._lately[name])
        kept[mends] = filling.worth_scoring(
            pairs, scored.near(pairs), always, lowered | bought | shown, removed,
            listing.surface.slots(), int(filling.FEW * listing.surface.length),
        )  # fmt: skip
        return chosen.of(kept)

    def _order(
        self, name: str, gathered: Gathered, chosen: Chosen, foretold: np.ndarray | None, first: int
    ) -> tuple[Ordered, np.ndarray]:
        """The lists of a surface, and the score of each chosen pair."""
        person, item = first + chosen.pairs.person, chosen.pairs.item
        bought, shown = (pairs.holds(person, item) for pairs in self._lately[name])
        return self.listings[name].order(gathered, chosen, foretold, bought, shown)

    def _count_starved(
        self, listing: Listing, gathered: Gathered, short: np.ndarray, people: pa.Table,
        may: np.ndarray, first: int,
    ) -> None:  # fmt: skip
        """Count by rule what was taken from people whose lists are ``short``, (n_people,) bool."""
        if short.any():
            pairs = gathered.pairs
            lost = ~may & short[pairs.person]
            listing.starve(self._starvation.counts(
                pairs.person[lost], pairs.item[lost], gathered.regions,
                people["restrictions"].to_pylist(), first,
            ))  # fmt: skip

    def _pairs(self, rows: pa.Table, what: str) -> Lately:
        return Lately.of(self._asked(rows), self.persons, self._item_ids, what)

    def _among(self, ids: pa.StringArray) -> np.ndarray:
        """(n_people,) bool: who is among these."""
        return np.asarray(pc.is_in(self.persons["person_id"], value_set=ids), bool)

    def _asked(self, rows: pa.Table) -> pa.Table:
        """The rows of the people whose lists are made."""
        return rows.filter(pc.is_in(rows["person_id"], value_set=self.persons["person_id"]))

    def _places(
        self, surface: str, gathered: Gathered, chosen: Chosen, ordered: Ordered,
        score: np.ndarray, own: pa.Table,
    ) -> tuple[pa.Table, pa.Table]:  # fmt: skip
        """The rows of ``recommendations`` and ``model_lists`` of one block of one surface's lists;
        ``own``: the personal candidates, whose rows stand first in what was gathered."""
        ids = pa.array(gathered.ids, pa.string())

        def places(listed: lists.Listed) -> dict[str, pa.Array]:
            return {
                "surface": pa.repeat(surface, len(listed.pair)),
                "person_id": ids.take(pa.array(chosen.pairs.person[listed.pair])),
                "item_id": self._item_ids.take(pa.array(chosen.pairs.item[listed.pair])),
                "rank": listed.rank.astype(np.int32),
                "score": score[listed.pair],
            }

        listed = ordered.published
        sources, provenance = lists.provenance(
            gathered.named, chosen.pairs, listed, gathered.scores, own
        )
        published = pa.table({
            **places(listed), **ordered.columns, "sources": sources, "provenance": provenance,
        })  # fmt: skip
        return published, pa.table(places(ordered.model))


def candidates_of(night: Night, person_ids: pa.ChunkedArray) -> pa.Table:
    """The personal candidates of these people, who stand sorted: files that hold none of them are
    passed over by their statistics."""
    columns = ["person_id", "item_id", "source", "rank", "score", "seed_item", "seed_time"]
    return night.of_people("candidates", pa.concat_arrays(person_ids.chunks), columns)


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


# --- of contexts -----------------------------------------------------------------------------
def of_contexts(
    night: Night, params: Params, items: pa.Table, shared: pools.Lists, known: list[Rule],
    anew: Container[str] | None = None,
) -> dict[str, Listing]:  # fmt: skip
    """Stage the lists that many share: of the surfaces made for contexts, which are returned with
    what was counted, and what stands in on the others where there is no list to give.

    ``anew``: the surfaces made for contexts whose lists are made, None is all of them; the others'
    are the base's, without what may not stand any more, and are not returned."""
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
            night,
            name,
            surface if surface.grain == CONTEXT else standing_in(surface),
            items,
            known,
            shared.curated(name),
        )
        for name, surface in params.surfaces.items()
        if surface.grain == CONTEXT or surface.fallback
    }
    # Who is in a region or segment is everybody too; who looks at a category wants that.
    named, scores = shared.of_contexts([
        (pools.EVERYBODY, context, *shared.of_surfaces)
        if context[0] in pools.OF_PERSONS
        else (context,)
        for context in contexts
    ])  # fmt: skip
    ids = [f"{kind}:{name}" for kind, name in contexts]
    gathered = Gathered.of(ids, regions, named, scores, listings.values())
    may = allowed.holds(gathered.pairs.person, gathered.pairs.item)
    # A small category has no more than it has: nobody owes it a full list.
    counted = sum(kind in pools.OF_PERSONS for kind in kinds)
    no_seeds = TABLES["candidates"].schema.empty_table()
    shelves = params.of_grain(CONTEXT)
    kept = {name for name in shelves if anew is not None and name not in anew}
    for number, (name, listing) in enumerate(listings.items()):
        chosen = listing.choose(gathered, may, None)
        no = np.zeros(len(chosen.rows), bool)
        ordered, score = listing.order(gathered, chosen, None, no, no, counted)
        listed = ordered.published
        context = pa.array(chosen.pairs.person[listed.pair])
        sources, _ = lists.provenance(
            gathered.named, chosen.pairs, listed, gathered.scores, no_seeds
        )
        rows = pa.table({
            "surface": pa.repeat(name, len(listed.pair)),
            "context_kind": pa.array(kinds).take(context),
            "context": pa.array(names, pa.string()).take(context),
            "item_id": item_ids.take(pa.array(chosen.pairs.item[listed.pair])),
            "rank": listed.rank.astype(np.int32), "score": score[listed.pair],
            **ordered.columns, "sources": sources,
        })  # fmt: skip
        if name in kept:
            may_stand = relisting.Lawful(
                whose.append_column("person_id", pa.array(ids)), item_ids, allowed, known
            )
            then = night.base("recommendations").table("context_lists")
            rows = relisting.kept_contexts(io.read_arrow(then), rows, name, may_stand)
        night.add("context_lists", number, rows)
    return {name: listings[name] for name in shelves if name not in kept}


def standing_in(surface: Surface) -> Surface:
    """A surface's lists where there is none to give: twice as deep, since whoever gets one may
    not get all of it, from its fallback chain, under its rules."""
    return replace(
        surface, grain=CONTEXT, blended=RETRIEVAL, sources={surface.fallback[0]: 1.0},
        length=min(2 * surface.length, MOST), filters=ALWAYS, objective="purchases",
        explore_places=0, bought_days=0, shown_days=0, tail_from=0,
    )  # fmt: skip
