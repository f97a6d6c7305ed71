"""The list of every person: filter, then fill by quota, then order.

Reads ``candidates``, ``pools``, ``persons``, ``items``, ``rules_in_force``, ``history``, the
vectors, the tables of ``filters`` and ``ranker``, and what the stages that are on look at
(``jobs/ordering/logged.py``). Writes
``recommendations`` (a row per place of a list), ``model_lists`` (a row per place of the lists that
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

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs.errors import Fault
from jobs.filtering.allowed import Allowed
from jobs.night import Night
from jobs.ordering import explore, lists, logged, rules
from jobs.ordering.diversity import Diversity, Traits
from jobs.ordering.explore import Explore
from jobs.ordering.lists import Listed
from jobs.ordering.stages import Block, Demotion, Stages, Surface, pinned_only
from jobs.params import check
from jobs.retrieval import matrix
from jobs.retrieval.sources import pools
from jobs.scoring import features
from jobs.scoring.features import Named, Pairs
from jobs.scoring.scored import Scored
from jobs.signals.past import people_of
from jobs.tables import BELOW, EVENT_TYPES, SOURCES, TABLES

# People whose lists are made at a time: some 700 named rows each, 150 bytes a row at the widest.
BLOCK = 5_000


@dataclass(frozen=True)
class Params:
    """What a list looks like."""

    # The name under which serving asks for these lists.
    surface: str = "homepage"
    # Places of a list.
    length: int = 20
    # Least shares of a list for sources whose items a pure ranking would starve: what is new to
    # the person, and what is new in the shop. They enter at the end of the list, where the order by
    # score puts them.
    quotas: Mapping[str, float] = field(
        default_factory=lambda: {
            **dict.fromkeys(SOURCES, 0.0), "item_to_item": 0.05, "new_arrivals": 0.05,
        }
    )  # fmt: skip
    # How deep a person's pools are read; several times the length, so that filters leave enough.
    pool_depth: int = 60
    # Diversity, off: at most so many places of a list for one category, 0 is no limit; what two
    # neighbours of a list may not share (category, seller); and how much being unlike the items
    # above counts against standing high, 0 to 1.
    category_cap: int = 0
    apart: tuple[str, ...] = ()
    unlikeness: float = 0.0
    # Parts of a category's path, from the broadest, that say what one category is.
    category_level: int = 2
    # Explore places of a list, off; the first of them; the share that every source keeps.
    explore_places: int = 0
    explore_first: int = 11
    explore_floor: float = 0.1
    # Days of the log that say what exploring brought; eight weeks hold two of a grocer's months.
    explore_days: int = 56
    # Events that answer an explored item, by the request that showed it.
    explore_rewards: tuple[str, ...] = ("purchase",)
    # What was bought, or shown, so many days before the night competes with this factor of its
    # strength (0.5 doubles its place); 0 days is off.
    bought_days: int = 0
    bought_factor: float = 0.5
    shown_days: int = 0
    shown_factor: float = 0.5

    def __post_init__(self) -> None:
        check(bool(self.surface), "surface must have a name")
        check(1 <= self.length <= 500, "length must be 1 to 500")
        check(all(0 <= share <= 1 for share in self.quotas.values()), "quotas must be in [0, 1]")
        check(sum(self.slots().values()) <= self.length, "quotas must not exceed the whole list")
        check(self.pool_depth >= self.length, "pool_depth must be at least length")
        check(self.category_level >= 1, "category_level must be at least 1")
        check(self.explore_days >= 1, "explore_days must be at least 1")
        check(
            set(self.explore_rewards) <= set(EVENT_TYPES),
            f"explore_rewards may hold {', '.join(EVENT_TYPES)}",
        )
        self.ordering()

    def slots(self) -> dict[str, int]:
        """The places that each source with a quota is owed; at least one where it has a share."""
        return {
            source: max(1, round(share * self.length))
            for source, share in self.quotas.items()
            if share > 0
        }

    def ordering(self) -> Surface:
        """How the lists are ordered; raises ``ValueError`` for what does not fit together."""
        return Surface(
            self.surface,
            self.length,
            self.slots(),
            Diversity(self.category_cap, self.apart, self.unlikeness),
            Explore(self.explore_places, self.explore_first, self.explore_floor),
            Demotion(self.bought_days, self.bought_factor),
            Demotion(self.shown_days, self.shown_factor),
        )


def run(night: Night, params: Params) -> None:
    """Stage the tables."""
    persons = night.arrow("persons", ["person_id", "region", "segment", "restrictions"])
    persons = persons.sort_by("person_id")
    # An item's code is its place among the sorted ids, so that ties by code are ties by id.
    items = night.arrow("items", [*rules.ITEM_COLUMNS, "position"]).sort_by("item_id")
    item_ids = pa.concat_arrays(items["item_id"].chunks)
    blocked, bought, shown = (
        Lately.of(pairs, persons, item_ids, what)
        for what, pairs in (
            ("blocked_pairs", night.arrow("blocked_pairs", ["person_id", "item_id"])),
            ("purchases", logged.bought(night, params.bought_days)),
            ("recommendation_log", logged.shown(night, params.shown_days, params.surface)),
        )
    )
    allowed = Allowed.of(
        night.arrow("eligibility"), persons, items["position"].to_numpy(), blocked.keys
    )
    stages = prepare(night, params, items)
    shared = pools.Lists(night.arrow("pools"), item_ids, params.pool_depth)
    scored = Scored.read(night, people_of(persons), items)
    delivered, places = Counter[str](), 0
    short_people, short_slots = Counter[str](), Counter[str]()
    for number, first in enumerate(range(0, persons.num_rows, BLOCK)):
        people = persons.slice(first, BLOCK)
        own = candidates_of(night, people["person_id"])
        named, scores = gather(own, people, shared, item_ids)
        by_sources, regions = len(named.item), people["region"].to_pylist()
        named, scores = stages.with_pins(named, scores, regions)
        pairs = features.wide(named)
        alone = pinned_only(pairs, by_sources)
        kept = scored.nearest(pairs, allowed.holds(first + pairs.person, pairs.item), alone)
        pairs, alone = pairs.of(kept), alone[kept]
        rows = scored.features(pa.concat_arrays(people["person_id"].chunks), pairs)
        score = scored.scorer.of_features(rows)
        person = first + pairs.person
        ordered = stages.order(Block(
            people["person_id"].to_pylist(), regions, named, pairs, score,
            allowed=np.ones(len(score), bool), pinned_only=alone,
            bought=bought.holds(person, pairs.item), shown=shown.holds(person, pairs.item),
        ))  # fmt: skip
        listed = ordered.published
        signals = pairs.signals[listed.pair]
        ids = ids_of(listed, people, pairs, item_ids)
        sources, provenance = lists.provenance(named, pairs, listed, scores, own)
        night.add("recommendations", number, pa.table({
            "surface": pa.repeat(params.surface, len(signals)), **ids,
            "rank": listed.rank.astype(np.int32), "score": score[listed.pair], **ordered.columns,
            "sources": sources, "provenance": provenance,
        }))  # fmt: skip
        night.add("model_lists", number, pa.table({
            "surface": pa.repeat(params.surface, len(ordered.model.pair)),
            **ids_of(ordered.model, people, pairs, item_ids),
            "rank": ordered.model.rank.astype(np.int32), "score": score[ordered.model.pair],
        }))  # fmt: skip
        night.add(
            "features",
            number,
            features.stamped(ids["person_id"], ids["item_id"], rows[listed.pair], night.as_of),
        )
        places += len(signals)
        delivered.update(dict(zip(SOURCES, (signals > 0).sum(axis=0).tolist(), strict=True)))
        short = lists.shortfalls(pairs, listed, people.num_rows, params.length, params.slots())
        short_people.update({reason: lacking[0] for reason, lacking in short.items()})
        short_slots.update({reason: lacking[1] for reason, lacking in short.items()})
    night.write("overrides", stages.overridden())
    night.write("explore_shares", stages.shares)
    night.write("shortfalls", shortfall_table(short_people, short_slots, params.surface))
    night.write("delivery", delivery(delivered, places, params))


def prepare(night: Night, params: Params, catalogue: pa.Table) -> Stages:
    """What the ordering of a surface needs beyond scores, read once for all people; ``catalogue``:
    ``rules.ITEM_COLUMNS`` of the items, sorted by id."""
    surface = params.ordering()
    in_force = rules.Rules(night.arrow("rules_in_force"), catalogue, surface.name)
    content = None
    if surface.diversity.unlikeness:
        content = night.arrow("content_vectors").sort_by("item_id")
    generator = explore.of_night(night.seed, night.as_of, surface.name)
    shares = TABLES["explore_shares"].schema.empty_table()
    if surface.explore:
        counted = logged.explored(night, params.explore_days, surface.name, params.explore_rewards)
        shares = explore.share_table(surface.name, surface.explore.floor, counted, generator)
    traits = traits_of(catalogue, content, params.category_level)
    return Stages(surface, in_force, traits, shares, night.seed, night.as_of)


def traits_of(catalogue: pa.Table, content: pa.Table | None, level: int) -> Traits:
    """What diversity looks at, by the place of an item among the sorted ids.

    ``content``: item_id and vector of every item, sorted by id.
    """
    parts = pc.split_pattern(catalogue["category"], BELOW)
    narrow = pc.binary_join(pc.list_slice(parts, 0, level), BELOW)
    codes = {
        name: pc.fill_null(values.combine_chunks().dictionary_encode().indices, -1).to_numpy()
        for name, values in (("category", narrow), ("seller", catalogue["seller"]))
    }
    if content is None:
        return Traits(codes)
    if not content["item_id"].equals(catalogue["item_id"]):
        raise Fault(
            "recommendations: content_vectors are not of the night's catalogue; run the step "
            "content_embeddings again"
        )
    vectors = matrix.vectors_of(content)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return Traits(codes, np.divide(vectors, length, out=vectors, where=length > 0))


def ids_of(listed: Listed, people: pa.Table, pairs: Pairs, item_ids: pa.StringArray) -> dict:
    """person_id and item_id of the places of lists."""
    return {
        "person_id": people["person_id"].take(pa.array(pairs.person[listed.pair])),
        "item_id": item_ids.take(pa.array(pairs.item[listed.pair])),
    }


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


def shortfall_table(people: Counter[str], slots: Counter[str], surface: str) -> pa.Table:
    """The table ``shortfalls`` from the people and slots of each reason."""
    reasons = sorted(people)
    return pa.table({
        "surface": pa.repeat(surface, len(reasons)),
        "reason": pa.array(reasons, pa.string()),
        "persons": pa.array([people[each] for each in reasons], pa.int64()),
        "slots": pa.array([slots[each] for each in reasons], pa.int64()),
    })  # fmt: skip


def delivery(slots: Mapping[str, int], places: int, params: Params) -> pa.Table:
    """The table ``delivery``: a slot counts for every source that named its item."""
    quotas = params.slots()
    rows = [
        {
            "surface": params.surface,
            "source": source,
            "intended": quotas.get(source, 0) / params.length,
            "delivered": slots[source] / places if places else 0.0,
            "slots": slots[source],
        }
        for source in SOURCES
    ]
    return pa.Table.from_pylist(rows, TABLES["delivery"].schema)
