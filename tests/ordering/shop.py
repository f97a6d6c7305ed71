"""Candidates and a catalogue in codes, small enough to see what ordering makes of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.ordering import rules
from jobs.ordering.diversity import Traits
from jobs.ordering.stages import Block, Ordered, Ordering, Stages, pinned_only
from jobs.scoring import features
from jobs.sources import contract
from jobs.tables import SOURCES, TABLES

AS_OF = datetime(2017, 12, 1, tzinfo=UTC)
SURFACE = "homepage"


def catalogue(*rows: dict[str, Any]) -> pa.Table:
    """Items with the columns that rules look at; what is left out is not known."""
    schema = TABLES["items"].schema
    kept = pa.schema([schema.field(name) for name in rules.ITEM_COLUMNS])
    return pa.Table.from_pylist([{"flags": [], **row} for row in rows], kept)


def stated(*rows: dict[str, Any]) -> pa.Table:
    """The contract table ``rules``; a rule without a reason gets one."""
    return pa.Table.from_pylist(
        [{"reason": "why", **row} for row in rows], contract.schema("rules")
    )


class Shop:
    """People and their candidates: ``scores[person]`` is a dictionary of item to score.

    Items are those of ``items``, which stand in the order of their ids. Every candidate is named
    by ``buy_again``, but for those of ``named_by``: (person, item) to the names of sources.
    """

    def __init__(
        self, items: pa.Table, scores: list[dict[str, float]], *,
        named_by: dict[tuple[int, str], tuple[str, ...]] | None = None,
        regions: list[str | None] | None = None,
    ):  # fmt: skip
        self.items, self.ids = items, items["item_id"].to_pylist()
        assert self.ids == sorted(self.ids)
        self.scores, self.regions = scores, regions or [None] * len(scores)
        rows = [
            (person, self.ids.index(item), SOURCES.index(source))
            for person, mine in enumerate(scores)
            for item in mine
            for source in (named_by or {}).get((person, item), ("buy_again",))
        ]
        person, item, source = np.array(rows, np.int64).reshape(-1, 3).T
        self.named = features.Named(person, item, source, np.ones(len(rows), np.int64))

    def stages(self, surface: Ordering, *stated_rules: dict[str, Any], **more: Any) -> Stages:
        """The ordering under these rules; ``traits`` and ``shares`` where a test needs them."""
        table = rules.in_force(stated(*stated_rules), self.items, AS_OF, [surface.name])
        return Stages(
            surface,
            rules.Rules(rules.loaded(table, self.items), self.items.num_rows, surface.name),
            more.get("traits", traits(self.items)),
            more.get("shares", shares(dict.fromkeys(SOURCES, 1 / len(SOURCES)))),
            more.get("seed", 1),
            AS_OF,
        )

    def block(
        self, stages: Stages, *, not_allowed: tuple[tuple[int, str], ...] = (),
        demoted: tuple[tuple[int, str], ...] = (), names: list[str] | None = None,
    ) -> Block:  # fmt: skip
        """The block as the step makes it."""
        named, _ = stages.with_pins(self.named, np.zeros(len(self.named.item)), self.regions)
        pairs = features.wide(named)
        score = np.array([
            self.scores[person].get(self.ids[item], 0.0)
            for person, item in zip(pairs.person, pairs.item, strict=True)
        ])  # fmt: skip
        pair = list(zip(pairs.person.tolist(), (self.ids[i] for i in pairs.item), strict=True))
        marked = np.array([one in demoted for one in pair], bool)
        return Block(
            names or [f"p{person}" for person in range(len(self.scores))], self.regions, named,
            pairs, score, score, np.array([one not in not_allowed for one in pair], bool),
            pinned_only(pairs, len(self.named.item)), marked, marked,
        )  # fmt: skip

    def order(self, stages: Stages, **more: Any) -> Ordered:
        return stages.order(self.block(stages, **more))

    def lists(self, stages: Stages, **more: Any) -> list[list[str]]:
        """Each person's published list."""
        block = self.block(stages, **more)
        ordered = stages.order(block)
        found: list[list[str]] = [[] for _ in self.scores]
        for pair, rank in zip(ordered.published.pair, ordered.published.rank, strict=True):
            mine = found[block.pairs.person[pair]]
            mine.append(self.ids[block.pairs.item[pair]])
            assert rank == len(mine)
        return found


def traits(items: pa.Table, vectors: np.ndarray | None = None) -> Traits:
    """Category and seller by item, and vectors where given."""
    codes = {
        name: pc.fill_null(items[name].combine_chunks().dictionary_encode().indices, -1).to_numpy()
        for name in ("category", "seller")
    }
    return Traits(codes, vectors)


def shares(by_source: dict[str, float]) -> pa.Table:
    """The table ``explore_shares`` with these shares."""
    rows = [
        {"surface": SURFACE, "source": source, "impressions": 0, "conversions": 0,
         "posterior_mean": 0.5, "share": by_source.get(source, 0.0)}
        for source in SOURCES
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, TABLES["explore_shares"].schema)


def changed(stages: Stages) -> dict[str, tuple[int, float]]:
    """Slots and value lost of each cause of the table ``overrides``."""
    return {
        row["cause"]: (row["slots"], round(row["value_lost"], 9))
        for row in stages.overridden().to_pylist()
    }
