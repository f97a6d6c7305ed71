"""Settings of the simple methods, chosen at an earlier cut that is judged by what came before ours.

The earlier cut lies a horizon before the judged one: methods see what was known by then, and are
judged by the purchases between the two. Nothing after the judged cut is looked at, and the grids
are small, so that a method's best is found and not the best of the window.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import scipy.sparse as sp

from jobs.evaluation import baselines, metrics, next_basket, ranking
from jobs.evaluation.baselines import Purchases, Scorer
from jobs.evaluation.next_basket import Tifu
from jobs.evaluation.snapshot import DAY, Snapshot, Wanted, wanted
from jobs.filtering.allowed import Allowed
from jobs.retrieval import matrix

T = TypeVar("T")
JUDGED_AT = 10
HALF_LIVES = (15.0, 30.0, 60.0, 90.0, 180.0)
# Around what Hu et al. (2020) and Li et al. (2023) found best on grocers' data.
OWN_VECTORS = tuple(
    Tifu(groups, across, within)
    for groups, across, within in itertools.product((7, 15, 30), (0.7, 0.8, 0.9), (0.95, 1.0))
)
NEIGHBOURS, ALPHAS = (50, 100, 300), (0.2, 0.5, 0.7, 0.9)
DEFAULT = Tifu()


@dataclass(frozen=True)
class Earlier:
    """The earlier cut: ``people``: (n,) codes of a sample of those who can be judged there."""

    purchases: Purchases
    people: np.ndarray
    wanted: Wanted
    allowed: Allowed

    def ndcg(self, scorer: Scorer) -> float:
        """The mean NDCG@10 of a method over the sample."""
        nothing = sp.csr_matrix((len(self.people), self.purchases.n_items), dtype=np.float32)
        lists, _ = ranking.rank(scorer, self.people, self.allowed, nothing, JUDGED_AT)
        person, place = np.nonzero(lists >= 0)
        size = self.allowed.masks.shape[1]
        bought = self.wanted.person * size + self.wanted.item
        hit = matrix.among(person * size + lists[person, place], bought)
        count = np.bincount(self.wanted.person, minlength=len(self.people))
        return float(metrics.ndcg(person, place, hit, count, JUDGED_AT).mean())


@dataclass(frozen=True)
class Chosen:
    """The settings, and what they reached at the earlier cut, None where nobody could be judged."""

    half_life_days: float = 90.0
    tifu: Tifu = DEFAULT
    people: int = 0
    half_life_ndcg: float | None = None
    tifu_ndcg: float | None = None


def choose(snapshot: Snapshot, horizon_days: int, max_people: int, seed: int) -> Chosen:
    """Tune on an earlier cut; the defaults where nobody can be judged there."""
    then = earlier(snapshot, horizon_days, max_people, seed)
    if then is None:
        return Chosen()
    popular = baselines.popularity(then.purchases)

    def of_half_life(days: float) -> Scorer:
        return baselines.own(baselines.frequency(then.purchases, days), popular)

    def of_own(params: Tifu) -> Scorer:
        return baselines.own(next_basket.vectors(then.purchases, params), popular)

    def of_tifu(params: Tifu) -> Scorer:
        own = vectors[params.groups, params.group_decay, params.within_decay]
        near = next_basket.scorer(own, params.neighbours, params.alpha)
        return baselines.filled(near, popular)

    half_life, half_life_ndcg = best(HALF_LIVES, of_half_life, then)
    # The own vectors first, without neighbours, then the neighbours of the best: the whole grid
    # takes six times as long.
    params, _ = best(OWN_VECTORS, of_own, then)
    key = (params.groups, params.group_decay, params.within_decay)
    vectors = {key: next_basket.vectors(then.purchases, params)}
    grid = [Tifu(*key, count, alpha) for count in NEIGHBOURS for alpha in ALPHAS]
    tifu, tifu_ndcg = best(grid, of_tifu, then)
    return Chosen(half_life, tifu, len(then.people), half_life_ndcg, tifu_ndcg)


def best(grid: Iterable[T], scorer_of: Callable[[T], Scorer], then: Earlier) -> tuple[T, float]:
    """The setting of the grid that ranks best at the earlier cut, the first of equals."""
    reached = [(each, then.ndcg(scorer_of(each))) for each in grid]
    return max(reached, key=lambda pair: pair[1])


def earlier(snapshot: Snapshot, horizon_days: int, max_people: int, seed: int) -> Earlier | None:
    """The earlier cut of a snapshot, None where nobody can be judged there.

    Everybody may get what anybody may: whom an item was blocked for by then is not known any more.
    """
    instant = snapshot.instant - horizon_days * DAY
    before = snapshot.events.before(instant)
    later = (snapshot.events.time >= instant) & (snapshot.events.basket >= 0)
    bought = np.flatnonzero(later)
    person, item = snapshot.events.person[bought], snapshot.events.item[bought]
    people = np.intersect1d(person, before.person)
    if not len(people):
        return None
    if len(people) > max_people:
        generator = np.random.default_rng(seed)
        people = np.sort(generator.choice(people, max_people, replace=False))
    kept = np.flatnonzero(matrix.among(person, people))
    known = wanted(
        np.searchsorted(people, person[kept]), item[kept], np.ones(len(kept)), people, before
    )
    allowed = Allowed.for_all(len(people), snapshot.allowed.by_anybody())
    return Earlier(before.purchases(instant), people, known, allowed)
