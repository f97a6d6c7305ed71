"""How people answer a list that is shown to them, whoever made it: by the shop's own policy or us.

A person looks at position k with chance ``k ** -position_bias``, clicks what was looked at with the
item's own attraction for them, and buys what was clicked with its own conversion; each item
independently of the others. So the value of any list is a sum over its places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jobs.sources.simulated.crowd import Crowd
from jobs.sources.simulated.goods import Goods

ATTRACTION = 0.06  # chance of a click on what was looked at, of an average item
LIKED = 4.0  # how many times as attractive an item of a favourite category is
CONVERSION = 0.15  # chance that what was clicked is bought
LIKED_CONVERSION = 2.0
MOST = 0.9  # the greatest chance of either


@dataclass(frozen=True)
class Chances:
    """(n, places) chances of a click on what was looked at, and of a purchase of what was clicked;
    0 where there is no item."""

    attraction: np.ndarray
    conversion: np.ndarray


class Answers:
    """The people of a shop before a list.

    ``quality``: (items,) how attractive each is to everybody, around 1; drawn first from ``rng``,
    which is that of the shop's logging policy.
    """

    def __init__(self, goods: Goods, crowd: Crowd, rng: np.random.Generator | None = None):
        self.goods, self.crowd = goods, crowd
        rng = generator(goods) if rng is None else rng
        self.quality = rng.uniform(0.5, 1.5, goods.shop.items)

    def chances(
        self, day: int, person: np.ndarray, items: np.ndarray, there: np.ndarray
    ) -> Chances:
        """What ``items`` (n, places) mean to each ``person`` (n,) on a day.

        ``there``: (items,) in stock; what is not is looked at, but not bought. An item of -1 is an
        empty place.
        """
        tastes = self.crowd.tastes(person, day)
        likes = (self.goods.category[items][:, :, None] == tastes[:, None, :]).any(axis=2)
        attraction = ATTRACTION * self.quality[items] * np.where(likes, LIKED, 1.0)
        conversion = CONVERSION * self.goods.pull(day)[items]
        conversion = conversion * np.where(likes, LIKED_CONVERSION, 1.0)
        return Chances(
            np.minimum(attraction, MOST) * (items >= 0),
            np.minimum(conversion, MOST) * there[items] * (items >= 0),
        )


def generator(goods: Goods) -> np.random.Generator:
    """The one that the items' quality, then the logging policy are drawn from."""
    return np.random.default_rng([goods.shop.seed, 5])


def looks(places: int, position_bias: float) -> np.ndarray:
    """(places,) the chance that each is looked at."""
    return np.arange(1.0, places + 1) ** -position_bias


def answer(
    luck: tuple[np.ndarray, np.ndarray], look: np.ndarray, attraction: np.ndarray,
    conversion: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """(clicked, bought) in the shape of ``attraction``; ``look``: the chance of each place.

    ``luck``: uniform draws in that shape, of the click and of the purchase; with the same luck a
    list is answered otherwise only where the chances are other ones.
    """
    clicked = luck[0] < look * attraction
    return clicked, clicked & (luck[1] < conversion)
