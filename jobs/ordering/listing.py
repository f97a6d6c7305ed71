"""The lists of one surface in the making: what may stand in them, their order, and what was owed.

A :class:`Listing` goes through blocks of people (or of contexts, whose lists are made in the same
way) and counts what every source delivered and what fell short.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.errors import Fault
from jobs.night import Night
from jobs.ordering import explore, lists, logged, rules
from jobs.ordering.diversity import Traits
from jobs.ordering.lists import Listed
from jobs.ordering.stages import Block, Ordered, Stages, pinned_only
from jobs.ordering.surfaces import CONTEXT, VALUE, Surface
from jobs.retrieval import matrix
from jobs.scoring import features
from jobs.scoring.features import Named, Pairs
from jobs.tables import BELOW, SOURCES, TABLES

# The columns of ``items`` that ordering looks at.
COLUMNS = [*rules.ITEM_COLUMNS, "price", "position"]

EDITORIAL = SOURCES.index("editorial")


@dataclass(frozen=True)
class Gathered:
    """What was named for a block of people or contexts.

    ``ids``, ``regions``: (n_people,). ``named``: a row per naming, in codes; behind those of the
    sources, of which there are ``by_sources``, one per item that only some surface's pin names;
    ``scores``: (n_named,), what the source itself gave. ``pairs``: the same, a row per (person,
    item); ``alone``: (n_pairs,) bool, whom nothing but a pin named.
    """

    ids: list[str]
    regions: list[str | None]
    named: Named
    by_sources: int
    scores: np.ndarray
    pairs: Pairs
    alone: np.ndarray

    @staticmethod
    def of(
        ids: list[str], regions: list[str | None], named: Named, scores: np.ndarray,
        listings: Iterable[Listing],
    ) -> Gathered:  # fmt: skip
        """What the sources named, and behind it the pins of these surfaces."""
        by_sources = len(named.item)
        for listing in listings:
            named, scores = listing.stages.with_pins(named, scores, regions)
        pairs = features.wide(named)
        return Gathered(
            ids, regions, named, by_sources, scores, pairs, pinned_only(pairs, by_sources)
        )


@dataclass(frozen=True)
class Chosen:
    """What may stand in the lists of one surface: ``rows``: (n_kept,) which of the gathered pairs;
    ``pairs``: these, as its own sources named them; ``alone``: (n_kept,) bool."""

    rows: np.ndarray
    pairs: Pairs
    alone: np.ndarray

    def of(self, kept: np.ndarray) -> Chosen:
        """The part that ``kept``, (n_kept,) bool, says."""
        return Chosen(self.rows[kept], self.pairs.of(kept), self.alone[kept])


class Listing:
    """One surface; ``catalogue``: the columns of :data:`COLUMNS`, sorted by id, whose rows are the
    items' codes."""

    def __init__(
        self, night: Night, name: str, surface: Surface, catalogue: pa.Table,
        known_rules: Iterable[rules.Rule], curated: np.ndarray,
    ):  # fmt: skip
        """``known_rules``: those in force on any surface; ``curated``: (n_items,) bool, what the
        editors chose for this one or for all."""
        self.name, self.surface, self.n_items = name, surface, catalogue.num_rows
        in_force = rules.Rules(known_rules, self.n_items, name)
        mine = {*surface.sources, *self._chain()}
        # What was curated for other surfaces alone is never drawn on this one.
        drawable = mine if curated.any() else mine - {SOURCES[EDITORIAL]}
        self.stages = stages(night, name, surface, catalogue, in_force, drawable)
        self._shown = np.zeros(self.n_items, np.int64)  # lists that hold each item so far
        self._worth = worth(catalogue) if surface.objective == VALUE else None
        self._mine, self._curated = np.isin(SOURCES, list(mine)), curated
        self._delivered, self._places = Counter[str](), 0
        self._short_people, self._short_slots = Counter[str](), Counter[str]()

    def standing(self, item: np.ndarray) -> None:
        """Count lists that stand already: a code for each place that holds an item."""
        self._shown += np.bincount(item, minlength=self.n_items)

    def _chain(self) -> tuple[str, ...]:
        return self.surface.fallback if self.surface.grain == CONTEXT else ()

    def choose(self, gathered: Gathered, allowed: np.ndarray, known: np.ndarray | None) -> Chosen:
        """What the surface may show of what was gathered.

        ``allowed``, ``known``: (n_pairs,) bool, what the person may get and has bought before.
        """
        pairs = gathered.pairs
        person, item = self.stages.pins(gathered.regions)
        pinned = matrix.among(
            pairs.person * self.n_items + pairs.item, np.sort(person * self.n_items + item)
        )
        # A pin is the editors' choice too, wherever it holds.
        chosen = self._curated[pairs.item] | pinned
        signals = pairs.signals * self._mine
        signals[~chosen, EDITORIAL] = 0.0
        named = (signals > 0).any(axis=1) & ~gathered.alone
        usable = allowed & (named | pinned)
        if self.surface.new_only and known is not None:
            usable &= ~known
        source = gathered.named.source
        own = self._mine[source] & ((source != EDITORIAL) | chosen[pairs.pair_of])
        # A pin's row is an editorial one, whether the surface has that source or not.
        own[gathered.by_sources :] = True
        pair_of = np.where(own, pairs.pair_of, -1)
        mine = Pairs(pairs.person, pairs.item, signals, pair_of).of(usable)
        return Chosen(np.flatnonzero(usable), mine, ~named[usable])

    def order(
        self, gathered: Gathered, chosen: Chosen, probability: np.ndarray | None,
        bought: np.ndarray, shown: np.ndarray, counted: int | None = None,
    ) -> tuple[Ordered, np.ndarray]:  # fmt: skip
        """The lists, and the score of each chosen pair, (n_kept,): its ``probability`` where the
        ranker orders, 1 over its place where shares do. Of the first ``counted`` it is counted
        what was delivered and what fell short; None is all."""
        pairs = chosen.pairs
        if probability is None:
            score = lists.shared_out(pairs, self.surface.shares(), self._chain())
        else:
            score = probability
        value = score if self._worth is None else score * self._worth[pairs.item]
        rating = value
        if self.surface.tail_from:
            length, first = self.surface.length, self.surface.tail_from
            last = length - sum(self.surface.slots().values())  # quotas enter behind it
            least = self.surface.tail_worth
            rating = lists.over_catalogue(pairs, value, length, first, last, least, self._shown)
        ordered = self.stages.order(Block(
            gathered.ids, gathered.regions, gathered.named, pairs, value, rating,
            allowed=np.ones(len(score), bool), pinned_only=chosen.alone,
            bought=bought, shown=shown,
        ))  # fmt: skip
        self._count(pairs, ordered, len(gathered.ids) if counted is None else counted)
        return ordered, score

    def _count(self, pairs: Pairs, ordered: Ordered, people: int) -> None:
        mine = pairs.person[ordered.published.pair] < people
        listed = Listed(ordered.published.pair[mine], ordered.published.rank[mine])
        signals = pairs.signals[listed.pair]
        self._places += len(signals)
        self._delivered.update(dict(zip(SOURCES, (signals > 0).sum(axis=0).tolist(), strict=True)))
        owed = self.surface.owed()
        short = lists.shortfalls(pairs, listed, people, self.surface.length, owed)
        if self.surface.grain == CONTEXT:
            short.pop("filled from pools", None)  # all of them are
        self._short_people.update({reason: lacking[0] for reason, lacking in short.items()})
        self._short_slots.update({reason: lacking[1] for reason, lacking in short.items()})

    def short(self, chosen: Chosen, ordered: Ordered, people: int) -> np.ndarray:
        """(n_people,) bool: whose list has fewer items than places."""
        size = np.bincount(chosen.pairs.person[ordered.published.pair], minlength=people)
        return np.asarray(size < self.surface.length)

    def starve(self, found: Mapping[str, tuple[int, int]]) -> None:
        """Count what each rule took from people whose lists are short."""
        for rule, (people, candidates) in found.items():
            self._short_people[f"starved by {rule}"] += people
            self._short_slots[f"starved by {rule}"] += candidates

    # --- what came of it ---------------------------------------------------------------------
    def overrides(self) -> pa.Table:
        """The rows of ``overrides``."""
        return self.stages.overridden()

    def explore_shares(self) -> pa.Table:
        """The rows of ``explore_shares``."""
        return self.stages.shares

    def delivery(self) -> pa.Table:
        """The rows of ``delivery``: a slot counts for every source that named its item."""
        owed = self.surface.shares()
        rows = [
            {
                "surface": self.name,
                "source": source,
                "intended": owed.get(source, 0.0),
                "delivered": self._delivered[source] / self._places if self._places else 0.0,
                "slots": self._delivered[source],
            }
            for source in SOURCES
        ]
        return pa.Table.from_pylist(rows, TABLES["delivery"].schema)

    def shortfalls(self) -> pa.Table:
        """The rows of ``shortfalls``."""
        rows = [
            {"surface": self.name, "reason": reason, "persons": people,
             "slots": self._short_slots[reason]}
            for reason, people in sorted(self._short_people.items())
        ]  # fmt: skip
        return pa.Table.from_pylist(rows, TABLES["shortfalls"].schema)


# --- what a surface needs beyond scores ------------------------------------------------------
def stages(
    night: Night, name: str, surface: Surface, catalogue: pa.Table, in_force: rules.Rules,
    sources: Collection[str],
) -> Stages:  # fmt: skip
    """The ordering of a surface, read once for all people; ``sources``: those that explore places
    may draw from."""
    ordering = surface.ordering(name)
    content = None
    if surface.unlikeness:
        content = night.arrow("content_vectors").sort_by("item_id")
    generator = explore.of_night(night.seed, night.as_of, name)
    shares = TABLES["explore_shares"].schema.empty_table()
    if ordering.explore:
        counted = logged.explored(night, name, surface)
        drawn = [source for source in named_by(night) if source in sources]
        shares = explore.share_table(name, ordering.explore.floor, counted, drawn, generator)
    spread = (
        traits(catalogue, content, surface.category_level) if ordering.diversity else Traits({})
    )
    return Stages(ordering, in_force, spread, shares, night.seed, night.as_of)


def named_by(night: Night) -> list[str]:
    """The sources that named anything at all this night, in the order of :data:`SOURCES`."""
    counted = night.arrow("candidate_counts", ["source"], pc.field("rows") > 0)
    named = set(counted["source"].to_pylist())
    return [source for source in SOURCES if source in named]


def traits(catalogue: pa.Table, content: pa.Table | None, level: int) -> Traits:
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


def worth(catalogue: pa.Table) -> np.ndarray:
    """(n_items,) float64 money that one piece of each item brings, none below 0: its price times
    its margin. A margin or price that is not known is taken for the median of those that are, and
    where no margin is known at all it is the price."""
    price, margin = (
        catalogue[name].to_numpy(zero_copy_only=False).astype(np.float64)
        for name in ("price", "margin")
    )
    known = [_filled(column) for column in (price, margin)]
    return np.maximum(known[0] * known[1], 0.0)


def _filled(column: np.ndarray) -> np.ndarray:
    known = np.isfinite(column)
    return np.where(known, column, np.median(column[known]) if known.any() else 1.0)
