"""Lists made from tables of unequal age, and what they reach: the numeric core of staleness.

People and items are positions. A list is given flat, a pair of a person and an item a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.evaluation import metrics
from jobs.tables import SOURCES

KINDS = ("interactions", "candidates", "embeddings")
TIERS = ("all", "hot", "warm", "cold")
HOT, WARM, COLD = 1, 2, 3
NDCG_AT, RECALL_AT = 10, 20
COLLABORATIVE = SOURCES.index("collaborative")


@dataclass(frozen=True)
class Named:
    """What the sources name at one instant.

    ``pair``: (n,) int64 ascending, ``person * n_items + item`` in positions; ``signals``: (n,
    n_sources) float32, as :mod:`jobs.scoring.features` defines them.
    """

    pair: np.ndarray
    signals: np.ndarray

    def score_of(self, pair: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(n,) float64 weighted signals of these pairs; 0 where no source names one."""
        score = np.zeros(len(pair))
        if len(self.pair):
            place = np.searchsorted(self.pair, pair)
            place[place == len(self.pair)] = 0
            found = self.pair[place] == pair
            score[found] = self.signals[place[found]] @ weights
        return score


@dataclass(frozen=True)
class Ids:
    """People and items by position: ``people`` as sampled, ``items`` in the order of their ids."""

    people: pa.StringArray
    items: pa.StringArray

    def pairs(self, rows: pa.Table) -> np.ndarray:
        """(n_rows,) int64 pairs of the columns person_id and item_id; all of them are known."""
        person = pc.index_in(rows["person_id"], value_set=self.people)
        item = pc.index_in(rows["item_id"], value_set=self.items)
        return person.to_numpy().astype(np.int64) * len(self.items) + item.to_numpy()


@dataclass(frozen=True)
class Cut:
    """What is judged after one cut: ``bought``: (n,) int64 ascending pairs; ``tier``: (n_items,)
    int8, one of HOT, WARM, COLD."""

    at: datetime
    bought: np.ndarray
    tier: np.ndarray


def tiers(active: pa.Table, ids: Ids, hot_share: float) -> np.ndarray:
    """(n_items,) int8: HOT for the most sought items that hold ``hot_share`` of the activity
    between them, WARM for the rest of the active ones, COLD for those that nobody sought.

    ``active``: item_id and days; ties go to the lower item id.
    """
    days = np.zeros(len(ids.items), np.int64)
    days[pc.index_in(active["item_id"], value_set=ids.items).to_numpy()] = active["days"].to_numpy()
    order = np.argsort(-days, kind="stable")
    before = np.cumsum(days[order]) - days[order]
    found = np.full(len(days), WARM, np.int8)
    found[order[before < hot_share * days.sum()]] = HOT
    found[days == 0] = COLD
    return found


def aged(kind: str, fresh: Named, old: Named, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) pairs ascending and (n,) scores of the lists when one table is as old as ``old``."""
    if kind == "interactions":
        return old.pair, old.signals @ weights
    if kind == "candidates":
        return old.pair, in_turn(fresh.score_of(old.pair, weights), old.signals @ weights)
    signals = fresh.signals.copy()
    signals[:, COLLABORATIVE] = 0.0
    kept, from_old = signals.any(axis=1), old.signals[:, COLLABORATIVE] > 0
    rest = Named(fresh.pair[kept], signals[kept])
    only = np.zeros((int(from_old.sum()), len(SOURCES)), np.float32)
    only[:, COLLABORATIVE] = old.signals[from_old, COLLABORATIVE]
    vectors = Named(old.pair[from_old], only)
    pair = np.union1d(rest.pair, vectors.pair)
    return pair, rest.score_of(pair, weights) + vectors.score_of(pair, weights)


def in_turn(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """(n,) scores that order by ``first``, where it is equal by ``then``, then by place."""
    order = np.lexsort((-then, -first))
    score = np.empty(len(order))
    score[order] = -np.arange(len(order), dtype=float)
    return score


def judge(
    cuts: Sequence[Cut], named: Mapping[datetime, Named], weights: np.ndarray,
    ages: Sequence[float], ids: Ids,
) -> np.ndarray:  # fmt: skip
    """(n_kinds, 2, n_tiers, n_people, n_ages) NDCG and recall of each person.

    The mean over the cuts after which the person bought something of the tier; NaN where there is
    no such cut. A tier judges the whole list by the purchases of that tier's items alone.
    """
    shape = (len(KINDS), 2, len(TIERS), len(ids.people), len(ages))
    total, times = np.zeros(shape), np.zeros((len(TIERS), len(ids.people)))
    for cut in cuts:
        judged = {}
        wanted = wanted_of(cut, ids)
        times += wanted > 0
        for kind, name in enumerate(KINDS):
            for number, age in enumerate(ages):
                # Nothing has aged at 0, so that all kinds share one list.
                key = (name if age else KINDS[0], age)
                if key not in judged:
                    old = named[cut.at - timedelta(days=age)]
                    pair, score = aged(key[0], named[cut.at], old, weights)
                    judged[key] = reached(cut, pair, score, wanted, ids)
                total[kind, :, :, :, number] += judged[key]
    with np.errstate(invalid="ignore"):
        return total / times[None, None, :, :, None]


def wanted_of(cut: Cut, ids: Ids) -> np.ndarray:
    """(n_tiers, n_people) how many items of the tier each person bought after the cut."""
    person, item = np.divmod(cut.bought, len(ids.items))
    return np.array([
        np.bincount(person[_in_tier(cut.tier[item], tier)], minlength=len(ids.people))
        for tier in range(len(TIERS))
    ])  # fmt: skip


def reached(
    cut: Cut, pair: np.ndarray, score: np.ndarray, wanted: np.ndarray, ids: Ids
) -> np.ndarray:
    """(2, n_tiers, n_people) NDCG and recall after a cut; 0 where nothing was wanted."""
    rank = metrics.ranks(pair // len(ids.items), score)
    top = rank < max(NDCG_AT, RECALL_AT)
    pair, rank = pair[top], rank[top]
    person, item = np.divmod(pair, len(ids.items))
    hit = np.isin(pair, cut.bought)
    found = np.zeros((2, *wanted.shape))
    for tier in range(len(TIERS)):
        relevant = hit & _in_tier(cut.tier[item], tier)
        least = np.maximum(wanted[tier], 1)
        found[0, tier] = metrics.ndcg(person, rank, relevant, least, NDCG_AT)
        found[1, tier] = metrics.recall(person, rank, relevant, least, RECALL_AT)
    return found


def _in_tier(tier: np.ndarray, number: int) -> np.ndarray:
    return np.ones(len(tier), bool) if number == 0 else tier == number
