"""The people: how active they are, with whom they live, and what they like from when to when.

A person likes some favourite categories and some staple items. Each of these tastes is replaced at
a constant hazard, 1 / ``taste_days`` a day, by another than the one before.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.sources import writing
from jobs.sources.simulated import links, truth
from jobs.sources.simulated.goods import REGION_SHARES, REGIONS, Goods
from jobs.sources.simulated.keys import Keyring, Pace
from jobs.sources.simulated.settings import Shop
from jobs.sources.simulated.spells import renewed

CHANNELS = ("web", "app", "store")
CHANNEL_SHARES = (0.5, 0.25, 0.25)
WEB, APP, STORE = range(len(CHANNELS))
COOKIE_ON_WEB = 0.5  # share of web sessions that begin without an account
DEVICE_IN_APP = 0.3  # share of sessions in the app that do
EVENTS_A_SESSION = 4.4  # about; for expectations only
SEGMENTS = ("family", "single", "senior")
FAVOURITES = 3
STAPLES = 8


class Crowd:
    """Who there is and what they like; ``favourites`` and ``staples`` are spells over the slots
    ``person * FAVOURITES + n`` and ``person * STAPLES + n``."""

    def __init__(self, shop: Shop, goods: Goods):
        self.shop, self.goods = shop, goods
        rng = np.random.default_rng([shop.seed, 6])
        self.weight = rng.gamma(0.7, 1.0, shop.people) + 0.05
        self.activity = np.cumsum(self.weight)
        self.region = rng.choice(len(REGIONS), shop.people, p=REGION_SHARES)
        self.segment = rng.integers(0, len(SEGMENTS), shop.people)
        self.household = links.households(rng, shop.people, shop.households)
        self.favourites = renewed(rng, shop.people * FAVOURITES, shop.taste_days, shop.days)
        self.favourite = _drawn(rng, np.cumsum(goods.category_weight), self.favourites.follows)
        self.staples = renewed(rng, shop.people * STAPLES, shop.taste_days, shop.days)
        old = np.flatnonzero(goods.launch < 0)
        popular = np.cumsum(goods.popularity[old])
        self.staple = old[_drawn(rng, popular, self.staples.follows)]
        self.phase = rng.integers(0, 61, shop.people * STAPLES)
        self.consents = rng.random(shop.people) > 0.03
        self.abstains = rng.random(shop.people) < 0.02
        self.keyring = Keyring(shop, shop.days, self._accounts(), self._pace())

    def _accounts(self) -> pa.Array:
        number = pa.array(np.arange(self.shop.people) + 10_000)
        return pc.binary_join_element_wise("a", number.cast(pa.string()), "")

    def _pace(self) -> Pace:
        sessions = self.shop.events / self.shop.days / EVENTS_A_SESSION
        pace = self.weight / self.activity[-1] * sessions
        return Pace(
            cookie=pace * CHANNEL_SHARES[WEB] * COOKIE_ON_WEB,
            device=pace * CHANNEL_SHARES[APP] * DEVICE_IN_APP,
        )

    def tastes(self, person: np.ndarray, day: int) -> np.ndarray:
        """(n, FAVOURITES) the categories that people like that day."""
        slots = person[:, None] * FAVOURITES + np.arange(FAVOURITES)
        return self.favourite[self.favourites.at(day)[slots]]

    # --- writing ----------------------------------------------------------------------------
    def write(self, folder: Path) -> int:
        """Write ``people``, and the truths ``people`` and ``tastes``."""
        shop = self.shop
        region = pa.DictionaryArray.from_arrays(
            pa.array(self.region.astype(np.int8)), pa.array(REGIONS)
        )
        segment = pa.DictionaryArray.from_arrays(
            pa.array(self.segment.astype(np.int8)), pa.array(SEGMENTS)
        )
        truth.write(folder, "people", pa.table({
            "person": np.arange(shop.people), "account": self.keyring.accounts,
            "household": self.household, "region": region, "segment": segment,
            "activity": self.weight / self.activity[-1],
        }))  # fmt: skip
        self._write_tastes(folder)
        return writing.write(
            folder, "people",
            key_type=writing.constant("account", shop.people),
            key=self.keyring.accounts,
            region=region,
            segment=segment,
            consents=pa.array([None if given else [] for given in self.consents],
                              pa.list_(pa.string())),
            restrictions=pa.array([["alcohol"] if dry else None for dry in self.abstains],
                                  pa.list_(pa.string())),
        )  # fmt: skip

    def _write_tastes(self, folder: Path) -> None:
        categories = pa.array(self.goods.category_names())
        for part, (kind, spells, slots, category, items) in enumerate((
            ("favourite", self.favourites, FAVOURITES, self.favourite, None),
            ("staple", self.staples, STAPLES, self.goods.category[self.staple], self.staple),
        )):  # fmt: skip
            person, slot = np.divmod(spells.slot, slots)
            none = pa.nulls(len(spells), pa.dictionary(pa.int32(), pa.string()))
            truth.write(folder, "tastes", pa.table({
                "person": person.astype(np.int64), "kind": writing.constant(kind, len(spells)),
                "slot": slot,
                "category": pa.DictionaryArray.from_arrays(
                    pa.array(category.astype(np.int32)), categories
                ),
                "item_id": none if items is None else self.goods.item_ids(items),
                "starts": truth.day_time(spells.starts, self.goods.start),
                "ends": truth.day_time(spells.ends, self.goods.start),
            }), part)  # fmt: skip


def _drawn(rng: np.random.Generator, cumulative: np.ndarray, follows: np.ndarray) -> np.ndarray:
    """A number for each spell, by weight; one that ``follows`` another is not the same."""

    def draw(count: int) -> np.ndarray:
        found = np.searchsorted(cumulative, rng.random(count) * cumulative[-1])
        return np.minimum(found, len(cumulative) - 1)

    drawn = draw(len(follows))
    while True:
        same = np.flatnonzero(follows[1:] & (drawn[1:] == drawn[:-1])) + 1
        if not len(same):
            return drawn
        drawn[same] = draw(len(same))
