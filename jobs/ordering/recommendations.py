"""The list of every person: filter, then fill by quota, then order.

Reads ``candidates``, ``pools``, ``persons``, ``items``, ``history``, the vectors and the tables of
``filters`` and ``ranker``. Writes ``recommendations`` (a row per place of a list), ``features``
(the rows that the lists were scored from), ``delivery`` (a row per source: quota and delivered
share) and ``shortfalls`` (a row per way in which lists were topped up or stayed short).

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
import pyarrow.dataset as ds

from jobs.filtering import filters
from jobs.night import Night
from jobs.ordering import lists
from jobs.params import check
from jobs.retrieval import matrix
from jobs.retrieval.sources import pools
from jobs.scoring import features
from jobs.scoring.features import Ground, Named, Pairs, Vectors
from jobs.scoring.scorer import Scorer
from jobs.signals import shop
from jobs.signals.past import Record
from jobs.signals.shop import Catalogue
from jobs.tables import SOURCES, TABLES

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

    def __post_init__(self) -> None:
        check(bool(self.surface), "surface must have a name")
        check(1 <= self.length <= 500, "length must be 1 to 500")
        check(all(0 <= share <= 1 for share in self.quotas.values()), "quotas must be in [0, 1]")
        check(sum(self.slots().values()) <= self.length, "quotas must not exceed the whole list")
        check(self.pool_depth >= self.length, "pool_depth must be at least length")

    def slots(self) -> dict[str, int]:
        """The places that each source with a quota is owed; at least one where it has a share."""
        return {
            source: max(1, round(share * self.length))
            for source, share in self.quotas.items()
            if share > 0
        }


def run(night: Night, params: Params) -> None:
    """Stage the four tables."""
    persons = night.arrow("persons", ["person_id", "region", "segment", "restrictions"])
    persons = persons.sort_by("person_id")
    items = Items.read(night)
    blocked = Blocked.of(night.arrow("blocked_pairs", ["person_id", "item_id"]), persons, items)
    shared = pools.Lists(night.arrow("pools"), items.ids, params.pool_depth)
    scored = Scored.read(night, persons["person_id"], items.ids)
    delivered, places = Counter[str](), 0
    short_people, short_slots = Counter[str](), Counter[str]()
    for number, first in enumerate(range(0, persons.num_rows, BLOCK)):
        people = persons.slice(first, BLOCK)
        own = candidates_of(night, people["person_id"])
        named, scores = gather(own, people, shared, items)
        pairs = features.wide(named)
        allowed = items.allowed(people, pairs) & ~blocked.holds(first + pairs.person, pairs.item)
        pairs, rows, score = scored.of(people["person_id"], pairs.of(allowed))
        allowed = np.ones(len(score), bool)
        listed = lists.fill(pairs, score, allowed, params.length, params.slots())
        signals = pairs.signals[listed.pair]
        ids = {
            "person_id": people["person_id"].take(pa.array(pairs.person[listed.pair])),
            "item_id": items.ids.take(pa.array(pairs.item[listed.pair])),
        }
        sources, provenance = lists.provenance(named, pairs, listed, scores, own)
        night.add("recommendations", number, pa.table({
            "surface": pa.repeat(params.surface, len(signals)), **ids,
            "rank": listed.rank.astype(np.int32), "score": score[listed.pair],
            "sources": sources, "provenance": provenance,
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
    night.write("shortfalls", shortfall_table(short_people, short_slots, params.surface))
    night.write("delivery", delivery(delivered, places, params))


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

    def of(self, person_ids: pa.ChunkedArray, pairs: Pairs) -> tuple[Pairs, np.ndarray, np.ndarray]:
        """The nearest of a block's pairs, their features, and their scores.

        A score is the probability of a purchase in the ranker's horizon, where it is calibrated.
        """
        near = features.linear_score(pairs.signals, self.prior)
        pairs = features.nearest(pairs, near, self.count)
        people = pa.concat_arrays(person_ids.chunks)
        own = (ds.field("person_id") >= people[0]) & (ds.field("person_id") <= people[-1])
        factors = self.night.arrow("person_factors", where=own)
        vectors = Vectors(
            self.items, features.placed(factors, "person_id", people, self.items.shape[1]),
            self.content,
        )  # fmt: skip
        ground = Ground.of(self.record.of(people), self.catalogue, self.measured, vectors)
        rows = features.values(ground, pairs)
        return pairs, rows, self.scorer.probability(self.scorer.score(rows))


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
