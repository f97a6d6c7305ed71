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
from jobs.filtering import filters
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
from jobs.scoring.features import Ground, Named, Pairs, Vectors
from jobs.scoring.scorer import Scorer
from jobs.signals import shop
from jobs.signals.past import Record
from jobs.signals.shop import Catalogue
from jobs.tables import EVENT_TYPES, SOURCES, TABLES

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
    items = Items.read(night)
    blocked = Blocked.of(night.arrow("blocked_pairs", ["person_id", "item_id"]), persons, items)
    bought = Blocked.of(logged.bought(night, params.bought_days), persons, items)
    shown = Blocked.of(logged.shown(night, params.shown_days, params.surface), persons, items)
    stages = prepare(night, params)
    shared = pools.Lists(night.arrow("pools"), items.ids, params.pool_depth)
    scored = Scored.read(night, persons["person_id"], items.ids)
    delivered, places = Counter[str](), 0
    short_people, short_slots = Counter[str](), Counter[str]()
    for number, first in enumerate(range(0, persons.num_rows, BLOCK)):
        people = persons.slice(first, BLOCK)
        own = candidates_of(night, people["person_id"])
        named, scores = gather(own, people, shared, items)
        by_sources, regions = len(named.item), people["region"].to_pylist()
        named, scores = stages.with_pins(named, scores, regions)
        pairs = features.wide(named)
        alone = pinned_only(pairs, by_sources)
        allowed = items.allowed(people, pairs) & ~blocked.holds(first + pairs.person, pairs.item)
        kept = scored.nearest(pairs, allowed, alone)
        pairs, alone = pairs.of(kept), alone[kept]
        rows = scored.features(people["person_id"], pairs)
        score = scored.scorer.of_features(rows)
        person = first + pairs.person
        ordered = stages.order(Block(
            people["person_id"].to_pylist(), regions, named, pairs, score,
            allowed=np.ones(len(score), bool), pinned_only=alone,
            bought=bought.holds(person, pairs.item), shown=shown.holds(person, pairs.item),
        ))  # fmt: skip
        listed = ordered.published
        signals = pairs.signals[listed.pair]
        ids = ids_of(listed, people, pairs, items)
        sources, provenance = lists.provenance(named, pairs, listed, scores, own)
        night.add("recommendations", number, pa.table({
            "surface": pa.repeat(params.surface, len(signals)), **ids,
            "rank": listed.rank.astype(np.int32), "score": score[listed.pair], **ordered.columns,
            "sources": sources, "provenance": provenance,
        }))  # fmt: skip
        night.add("model_lists", number, pa.table({
            "surface": pa.repeat(params.surface, len(ordered.model.pair)),
            **ids_of(ordered.model, people, pairs, items),
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


def prepare(night: Night, params: Params) -> Stages:
    """What the ordering of a surface needs beyond scores, read once for all people."""
    surface = params.ordering()
    catalogue = night.arrow("items", rules.ITEM_COLUMNS).sort_by("item_id")
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
    parts = pc.split_pattern(catalogue["category"], rules.BELOW)
    narrow = pc.binary_join(pc.list_slice(parts, 0, level), rules.BELOW)
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


def ids_of(listed: Listed, people: pa.Table, pairs: features.Pairs, items: Items) -> dict:
    """person_id and item_id of the places of lists."""
    return {
        "person_id": people["person_id"].take(pa.array(pairs.person[listed.pair])),
        "item_id": items.ids.take(pa.array(pairs.item[listed.pair])),
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
    own: pa.Table, people: pa.Table, shared: pools.Lists, items: Items
) -> tuple[Named, np.ndarray]:
    """What was named for these people, in codes: their own candidates, then the pools; and the
    sources' own scores of the same rows."""
    mine = features.coded(own, people["person_id"], items.ids)
    common, scores = shared.of_people(people["region"], people["segment"])
    both = Named(*(
        np.concatenate([getattr(each, column) for each in (mine, common)])
        for column in ("person", "item", "source", "rank")
    ))  # fmt: skip
    return both, np.concatenate([own["score"].to_numpy(), scores])


@dataclass(frozen=True)
class Scored:
    """What candidates are scored by, as of the night."""

    night: Night
    record: Record
    catalogue: Catalogue
    measured: Mapping[str, np.ndarray]
    items: np.ndarray
    content: np.ndarray
    scorer: Scorer
    prior: Mapping[str, float]
    count: int

    @staticmethod
    def read(night: Night, people: pa.ChunkedArray, item_ids: pa.StringArray) -> Scored:
        """``people``: the sorted ids of everybody; ``item_ids``: of all items."""
        history = night.published("sessions").table("history")
        record = Record(history, night.as_of, item_ids)
        catalogue = Catalogue.of(night.arrow("items", ["item_id", "category"]))
        params = night.params_of("ranker")
        return Scored(
            night,
            record,
            catalogue,
            shop.measure(record.blocks(pa.concat_arrays(people.chunks)), catalogue),
            features.placed(night.arrow("item_factors"), "item_id", item_ids),
            features.placed(night.arrow("content_vectors"), "item_id", item_ids),
            Scorer.of(
                night.arrow("ranker_models"),
                night.arrow("blend_weights"),
                night.arrow("calibration"),
            ),
            params.prior,
            params.scored,
        )

    def nearest(self, pairs: Pairs, allowed: np.ndarray, always: np.ndarray) -> np.ndarray:
        """(n_pairs,) bool: the allowed pairs that are worth the cost of their features, the best
        of each person by the prior weights; ``always``: (n_pairs,) bool, kept where allowed."""
        near = features.linear_score(pairs.signals, self.prior)
        near = np.where(allowed, np.where(always, np.inf, near), -np.inf)
        return features.nearest(pairs.person, pairs.item, near, self.count) & allowed

    def features(self, person_ids: pa.ChunkedArray, pairs: Pairs) -> np.ndarray:
        """(n_pairs, n_features) float32 features of a block's pairs."""
        people = pa.concat_arrays(person_ids.chunks)
        own = (ds.field("person_id") >= people[0]) & (ds.field("person_id") <= people[-1])
        factors = self.night.arrow("person_factors", where=own)
        vectors = Vectors(
            self.items,
            features.placed(factors, "person_id", people, self.items.shape[1]),
            self.content,
        )
        ground = Ground.of(self.record.of(people), self.catalogue, self.measured, vectors)
        return features.values(ground, pairs)


class Items:
    """The catalogue in codes: an item's code is its place among the sorted ids, so that ties by
    code are ties by id."""

    def __init__(self, items: pa.Table, eligibility: pa.Table):
        items = items.sort_by("item_id")
        self.ids = pa.concat_arrays(items["item_id"].chunks)
        self._position = items["position"].to_numpy()
        self._eligibility = eligibility
        self._masks: dict[tuple[str | None, tuple[str, ...]], np.ndarray] = {}

    @staticmethod
    def read(night: Night) -> Items:
        return Items(night.arrow("items", ["item_id", "position"]), night.arrow("eligibility"))

    def allowed(self, people: pa.Table, pairs: features.Pairs) -> np.ndarray:
        """(n_pairs,) bool: whether the person may get the item, by region and restrictions."""
        rules = [
            (region, tuple(sorted(restrictions)))
            for region, restrictions in zip(
                people["region"].to_pylist(), people["restrictions"].to_pylist(), strict=True
            )
        ]
        distinct = {rule: code for code, rule in enumerate(dict.fromkeys(rules))}
        masks = np.stack([self._mask(*rule) for rule in distinct])
        code = np.array([distinct[rule] for rule in rules])
        return masks[code[pairs.person], pairs.item]

    def _mask(self, region: str | None, restrictions: tuple[str, ...]) -> np.ndarray:
        """(n_items,) bool in the order of the codes."""
        found = self._masks.get((region, restrictions))
        if found is None:
            found = filters.allowed_mask(self._eligibility, region, restrictions)[self._position]
            self._masks[region, restrictions] = found
        return found


@dataclass(frozen=True)
class Blocked:
    """Pairs that a person should not see, as sorted keys ``person * n_items + item``."""

    keys: np.ndarray
    n_items: int

    @staticmethod
    def of(pairs: pa.Table, persons: pa.Table, items: Items) -> Blocked:
        person = matrix.known(pairs["person_id"], persons["person_id"], "person of blocked_pairs")
        item = matrix.known(pairs["item_id"], items.ids, "item of blocked_pairs")
        return Blocked(np.unique(person * len(items.ids) + item), len(items.ids))

    def holds(self, person: np.ndarray, item: np.ndarray) -> np.ndarray:
        """(n,) bool: whether each pair of codes is blocked."""
        return np.isin(person * self.n_items + item, self.keys)


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
