"""One cut of a backtest: published lists, simple methods and sources, judged by what came after.

Takes a :class:`~jobs.evaluation.snapshot.Snapshot` and gives a value per person for every measure.
All rank the same universe, the items that the person may get by the night's own filters; all are
judged for the same people, those who have a history before the cut and bought something after it,
and by all that they bought, eligible or not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from jobs.evaluation import baselines, judging, next_basket, ranking, tuning
from jobs.evaluation.baselines import Scorer
from jobs.evaluation.judging import Column, Judge
from jobs.evaluation.snapshot import DAY, Snapshot
from jobs.evaluation.tuning import Chosen
from jobs.params import check
from jobs.retrieval import matrix

log = logging.getLogger("nightjar")


@dataclass(frozen=True)
class Params:
    """What is judged, and the settings of the methods that are not tuned."""

    # The days after a cut that say what was bought; four weeks hold a grocer's month.
    horizon_days: int = 28
    # Lengths at which lists are judged.
    lengths: tuple[int, ...] = (10, 20)
    # Draws of the bootstrap over people.
    draws: int = 1_000
    # People sampled to tune half-life and TIFU-KNN on: enough to tell settings apart by 1 %.
    tuning_people: int = 400
    # The days that recent popularity counts.
    recent_days: float = 28.0
    # Neighbours of an item and of a person, and what is added to an item's people. On Complete
    # Journey (cut 2017-07-14, NDCG@10 of all purchases) 20 and 100 neighbours of an item reached
    # 0.221 and 0.233; 20, 100 and 300 of a person 0.297, 0.286 and 0.271.
    item_neighbours: int = 100
    user_neighbours: int = 100
    shrinkage: float = 10.0
    # The ridge of EASE; there 20, 100, 500 and 2,000 reached 0.253, 0.263, 0.272 and 0.260.
    regularization: float = 500.0
    seed: int = 20171201

    def __post_init__(self) -> None:
        check(self.horizon_days >= 1, "horizon_days must be at least 1")
        numbers = all(isinstance(k, int) and not isinstance(k, bool) for k in self.lengths)
        check(numbers and len(self.lengths) > 0, "lengths must be whole numbers")
        check(min(self.lengths) >= 1, "lengths must be at least 1")
        check(list(self.lengths) == sorted(set(self.lengths)), "lengths must rise")
        check(self.draws >= 100, "draws must be at least 100")
        check(self.tuning_people >= 1, "tuning_people must be at least 1")
        check(self.recent_days > 0, "recent_days must be positive")
        check(self.item_neighbours >= 1, "item_neighbours must be at least 1")
        check(self.user_neighbours >= 1, "user_neighbours must be at least 1")
        check(self.shrinkage >= 0, "shrinkage must not be negative")
        check(self.regularization > 0, "regularization must be positive")


@dataclass(frozen=True)
class Judged:
    """What one cut found.

    ``people``: ids; ``values``: (n_people, n_columns) float32, NaN for who is not judged by a
    column; ``segments``: per (kind, name) the (n_people,) bool; ``lists``: per list and whether it
    leaves out what is not new, its (n_people, length) codes; ``catalogue``: items that anybody may
    get, and ``active`` those of them bought in the last ``recent_days``.
    """

    cut: datetime
    people: pa.StringArray
    columns: tuple[Column, ...]
    values: np.ndarray
    segments: dict[tuple[str, str], np.ndarray]
    lists: dict[tuple[str, str, bool], np.ndarray]
    catalogue: int
    active: int
    facts: dict[str, Any]


def judge(snapshot: Snapshot, params: Params) -> Judged:
    """Rank, and judge every list and every source of one cut."""
    began = time.monotonic()
    chosen = tuning.choose(snapshot, params.horizon_days, params.tuning_people, params.seed)
    log.info("tuned half_life=%g seconds=%.1f", chosen.half_life_days, time.monotonic() - began)
    longest, n_items = params.lengths[-1], len(snapshot.items)
    lists = dict(_lists(snapshot, params, chosen))
    named = snapshot.named()
    owned = _bought_before(snapshot)
    for name, rows in named.items():
        for new_only in (False, True):
            kept = np.ones(len(rows[0]), bool)
            if new_only:
                kept = ~matrix.among(rows[0] * n_items + rows[1], owned)
            person, item, place = (column[kept] for column in rows)
            lists[name, "source", new_only] = ranking.from_places(
                person, item, place, len(snapshot.judged), longest
            )
    purchases = snapshot.purchases
    pairs = np.unique(purchases.person * n_items + purchases.item)
    judged_by = Judge.of(
        snapshot.wanted, n_items, params.lengths, np.bincount(pairs % n_items, minlength=n_items),
        len(np.unique(purchases.person)), judging.categories(snapshot.catalogue),
    )  # fmt: skip
    found = [
        pair
        for (name, role, new_only), codes in lists.items()
        for pair in judged_by.judge(codes, name, role, new_only)
    ]
    found += judging.named(named, snapshot.wanted, n_items, (0, *params.lengths))
    reach = snapshot.allowed.by_anybody()
    sold = baselines.popularity(purchases, params.recent_days) > 0
    facts = {
        "cut": snapshot.cut.isoformat(),
        "people": len(snapshot.judged),
        "without_history": snapshot.without_history,
        "purchased_pairs": len(snapshot.wanted.person),
        "again": float(snapshot.wanted.again.mean()),
        "tuned": asdict(chosen),
        "seconds": round(time.monotonic() - began, 1),
    }
    log.info("cut=%s people=%d seconds=%s", facts["cut"], facts["people"], facts["seconds"])
    return Judged(
        cut=snapshot.cut,
        people=snapshot.judged_ids,
        columns=tuple(column for column, _ in found),
        values=np.stack([values for _, values in found], axis=1).astype(np.float32),
        segments=segments(snapshot, params.horizon_days),
        lists=lists,
        catalogue=int(reach.sum()),
        active=int((reach[: snapshot.n_live] & sold).sum()),
        facts=facts,
    )


def _lists(
    snapshot: Snapshot, params: Params, chosen: Chosen
) -> Iterator[tuple[tuple[str, str, bool], np.ndarray]]:
    """Every list of lists but the sources', by its name, its role and whether it is new only."""
    longest, n_items = params.lengths[-1], len(snapshot.items)
    owned = _bought_before(snapshot)
    for surface, codes in snapshot.published(longest).items():
        yield (surface, "published", False), codes
        person, place = np.nonzero(codes >= 0)
        known = matrix.among(person * n_items + codes[person, place], owned)
        fresh = np.flatnonzero(~known)
        person, place = person[fresh], place[fresh]
        yield (
            (surface, "published", True),
            ranking.from_places(person, codes[person, place], place, len(codes), longest),
        )
    frequencies = baselines.frequency(snapshot.purchases)[snapshot.judged]
    for name, scorer in scorers(snapshot, params, chosen):
        began = time.monotonic()
        whole, new = ranking.rank(scorer, snapshot.judged, snapshot.allowed, frequencies, longest)
        log.info("ranked=%s seconds=%.1f", name, time.monotonic() - began)
        yield (name, "baseline", False), whole
        yield (name, "baseline", True), new


def scorers(snapshot: Snapshot, params: Params, chosen: Chosen) -> Iterator[tuple[str, Scorer]]:
    """The simple methods, one after the other, so that one's matrices are gone before the next."""
    purchases = snapshot.purchases
    popular = baselines.popularity(purchases)
    yield "popularity", baselines.same_for_all(popular)
    recent = baselines.popularity(purchases, params.recent_days)
    yield "recent popularity", baselines.filled(baselines.same_for_all(recent), popular)
    yield "personal frequency", baselines.own(baselines.frequency(purchases), popular)
    fading = baselines.frequency(purchases, chosen.half_life_days)
    yield "personal frequency, half-life", baselines.own(fading, popular)
    affinity = snapshot.events.affinity()
    knn = baselines.item_knn(affinity, params.item_neighbours, params.shrinkage)
    yield "item-kNN", baselines.filled(knn, popular)
    alike = baselines.user_knn(affinity, params.user_neighbours)
    yield "user-kNN", baselines.filled(alike, popular)
    yield "ALS", baselines.filled(baselines.inner_products(*snapshot.factors()), popular)
    shallow, ranked = baselines.ease(affinity, params.regularization)
    name = "EASE" if ranked == affinity.shape[1] else f"EASE ({ranked:,} items)"
    yield name, baselines.filled(shallow, popular)
    own = next_basket.vectors(purchases, chosen.tifu)
    tifu = next_basket.scorer(own, chosen.tifu.neighbours, chosen.tifu.alpha)
    yield "TIFU-KNN", baselines.filled(tifu, popular)


def segments(snapshot: Snapshot, horizon_days: int) -> dict[tuple[str, str], np.ndarray]:
    """Who of the judged is in which segment, (n_judged,) bool each.

    New: first seen less than a horizon before the cut, the others return. Heavy: more baskets
    before the cut than the median of the judged, the others are light. Region: the person's.
    """
    events, n_people = snapshot.events, len(snapshot.people)
    first = np.full(n_people, np.iinfo(np.int64).max)
    np.minimum.at(first, events.person, events.time)
    new = first[snapshot.judged] >= snapshot.instant - horizon_days * DAY
    baskets = np.zeros(n_people, np.int64)
    np.maximum.at(baskets, snapshot.purchases.person, snapshot.purchases.basket + 1)
    mine = baskets[snapshot.judged]
    heavy = mine > np.median(mine)
    found = {
        ("history", "new"): new, ("history", "returning"): ~new,
        ("baskets", "heavy"): heavy, ("baskets", "light"): ~heavy,
    }  # fmt: skip
    region = np.array([one or "unknown" for one in snapshot.persons["region"].to_pylist()])
    for name in np.unique(region):
        found["region", str(name)] = region == name
    return {name: chosen for name, chosen in found.items() if chosen.any()}


def _bought_before(snapshot: Snapshot) -> np.ndarray:
    """(n,) int64: ``place * n_items + item`` of what the judged had bought before the cut."""
    known: sp.csr_matrix = baselines.frequency(snapshot.purchases)[snapshot.judged]
    person = np.repeat(np.arange(known.shape[0], dtype=np.int64), np.diff(known.indptr))
    return np.sort(person * len(snapshot.items) + known.indices)
