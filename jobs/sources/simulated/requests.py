"""Lists of recommendations that the shop showed, by a policy with known chances, and their truth.

Each week and for each segment the logging policy has ``CANDIDATES`` items with weights, a softmax
of noisy popularity mixed with the uniform: ``EXPLORE`` of it. A request draws ``PLACES`` of them,
position by position without replacement, each in proportion to its weight among those left
(Plackett and Luce). What is logged as propensity is the chance that the item stands at that
position over all lists that the policy may show; ``conditional`` in the truth is the chance given
the items above it.

How people answer is in ``serving``. So the value of any other policy over the same candidates is a
sum.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import combinations
from typing import Any

import numpy as np

from jobs.sources.simulated.crowd import SEGMENTS, Crowd
from jobs.sources.simulated.goods import Goods
from jobs.sources.simulated.serving import Answers, answer, generator, looks
from jobs.sources.simulated.settings import Shop

CANDIDATES = 10
PLACES = 5
EXPLORE = 0.2
WEEK = 7  # days that a policy lasts


@dataclass
class Requests:
    """Requests of one day, (n,) or (n, CANDIDATES) or (n, PLACES) columns.

    ``shown``: which candidates stand at the places; ``clicked``, ``bought``: by place.
    """

    session: np.ndarray
    segment: np.ndarray
    items: np.ndarray  # (n, CANDIDATES)
    attraction: np.ndarray  # (n, CANDIDATES)
    conversion: np.ndarray  # (n, CANDIDATES)
    shown: np.ndarray  # (n, PLACES)
    clicked: np.ndarray  # (n, PLACES)
    bought: np.ndarray  # (n, PLACES)

    def pick(self, rows: np.ndarray) -> Requests:
        return Requests(**{each.name: getattr(self, each.name)[rows] for each in fields(self)})


class Logging:
    """The logging policy of a shop: by week and segment, its candidates and their chances.

    ``items``, ``score``, ``weight``: (weeks, SEGMENTS, CANDIDATES); weights add up to 1.
    ``propensity``: (weeks, SEGMENTS, PLACES, CANDIDATES), the chance of each item at each place.
    """

    def __init__(self, goods: Goods, crowd: Crowd):
        self.goods, self.crowd = goods, crowd
        rng = generator(goods)
        self.answers = Answers(goods, crowd, rng)
        self.looks = looks(PLACES, goods.shop.position_bias)
        weeks = range(-(-goods.shop.days // WEEK))
        wanted = np.log(goods.popularity * goods.category_weight[goods.category] + 1e-12)
        self.items = np.stack([self._candidates(rng, wanted, week * WEEK) for week in weeks])
        self.score = 0.3 * wanted[self.items] + rng.normal(0, 0.5, self.items.shape)
        weight = np.exp(self.score - self.score.max(axis=-1, keepdims=True))
        weight /= weight.sum(axis=-1, keepdims=True)
        self.weight = (1 - EXPLORE) * weight + EXPLORE / CANDIDATES
        flat = at_places(self.weight.reshape(-1, CANDIDATES), PLACES)
        self.propensity = flat.reshape(*self.weight.shape[:2], PLACES, CANDIDATES)

    def _candidates(self, rng: np.random.Generator, wanted: np.ndarray, day: int) -> np.ndarray:
        """(SEGMENTS, CANDIDATES) items that are in stock on a day, the popular ones more often."""
        noisy = wanted + rng.gumbel(size=(len(SEGMENTS), len(wanted)))
        noisy = np.where(self.goods.in_stock(day), noisy, -np.inf)
        return np.argpartition(-noisy, CANDIDATES, axis=1)[:, :CANDIDATES]

    def show(
        self, rng: np.random.Generator, day: int, session: np.ndarray, person: np.ndarray,
        there: np.ndarray,
    ) -> Requests:  # fmt: skip
        """A list for each session, and what its person did; ``there``: (items,) in stock."""
        segment = self.crowd.segment[person]
        items = self.items[day // WEEK, segment]
        chances = self.answers.chances(day, person, items, there)
        # Gumbel's trick: the largest of log weight + noise are draws without replacement in order.
        noisy = np.log(self.weight[day // WEEK, segment]) + rng.gumbel(size=items.shape)
        shown = np.argsort(-noisy, axis=1)[:, :PLACES]
        rows = np.arange(len(session))[:, None]
        attraction, conversion = chances.attraction, chances.conversion
        luck = rng.random(shown.shape), rng.random(shown.shape)
        clicked, bought = answer(
            luck, self.looks, attraction[rows, shown], conversion[rows, shown]
        )  # fmt: skip
        return Requests(
            session, segment, items, attraction, conversion, shown, clicked, bought
        )  # fmt: skip


def at_places(weight: np.ndarray, places: int) -> np.ndarray:
    """(contexts, places, items): the chance of each item at each place under the weights.

    ``weight``: (contexts, items), rows that add up to 1. Over all sets of items that may stand
    above a place: exact, for a few items.
    """
    contexts, count = weight.shape
    chance = np.zeros((contexts, places, count))
    above: dict[tuple[int, ...], np.ndarray] = {(): np.ones(contexts)}
    for place in range(places):
        for taken in combinations(range(count), place):
            left = [i for i in range(count) if i not in taken]
            share = weight[:, left] / weight[:, left].sum(axis=1, keepdims=True)
            share = share * above[taken][:, None]
            chance[:, place, left] += share
            for column, item in enumerate(left):
                longer = tuple(sorted((*taken, item)))
                above[longer] = above.get(longer, np.zeros(contexts)) + share[:, column]
    return chance


def given_above(weight: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """(n, places): the chance of each shown item given those above it.

    ``weight``: (n, candidates); ``shown``: (n, places), which of them stand there.
    """
    picked = np.take_along_axis(weight, shown, axis=1)
    return picked / (1.0 - (np.cumsum(picked, axis=1) - picked))


def described(shop: Shop) -> dict[str, Any]:
    """The policy's and the people's fixed numbers, for the truth."""
    return {
        "candidates": CANDIDATES, "places": PLACES, "explore": EXPLORE, "policy_days": WEEK,
        "look_probability": looks(PLACES, shop.position_bias).tolist(),
    }  # fmt: skip
