"""The goods: items by category, what they cost, when they are to be had, on promotion, in season.

Items are numbered by category, so that a category is a slice: ``category_start[c]`` to
``category_start[c + 1]``. Its first item is always to be had: every category sells something.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.sources import writing
from jobs.sources.simulated import truth
from jobs.sources.simulated.settings import Shop
from jobs.sources.simulated.spells import AFTER, Spans, coming_and_going

REGIONS = ("north", "east", "south", "west", "islands")
REGION_SHARES = (0.35, 0.25, 0.2, 0.15, 0.05)
KINDS = ("display", "mailer", "price")  # of promotions
PROMOTION_DAYS = (7, 14)
STOCKOUT_DAYS = tuple(range(1, 10))
DISCONTINUED = 0.02  # share of items that leave the range on some day
YEAR = 365.25


class Goods:
    """The catalogue and its calendar."""

    def __init__(self, shop: Shop):
        self.shop = shop
        self.start = int(shop.start.timestamp()) * 1_000_000
        rng = np.random.default_rng([shop.seed, 0])
        self._make_items(rng)
        self._make_calendar(rng)

    def _make_items(self, rng: np.random.Generator) -> None:
        shop = self.shop
        self.categories = max(5, min(400, shop.items // 25))
        sizes = rng.multinomial(
            shop.items - self.categories, rng.dirichlet(np.full(self.categories, 2.0))
        )
        sizes += 1
        self.category_start = np.concatenate([[0], np.cumsum(sizes)])
        self.category = np.repeat(np.arange(self.categories), sizes)
        place = np.arange(shop.items) - self.category_start[self.category]
        size = sizes[self.category]
        # Zipf within the category, by a place that is not the item's number.
        shuffled = (place * 7919 + self.category * 31) % size
        self.popularity = 1.0 / (1.0 + shuffled) ** 0.9
        self.category_weight = rng.dirichlet(np.full(self.categories, 0.7))
        self.peak = rng.uniform(0, YEAR, self.categories)  # day of the year of most demand
        self.price = np.round(np.exp(rng.normal(1.5, 0.9, shop.items)) + 0.29, 2)
        self.margin = np.round(rng.uniform(0.05, 0.6, shop.items), 3)
        self.gap = rng.integers(4, 61, self.categories)[self.category]
        launched = rng.integers(1, shop.days, shop.items)
        self.launch = np.where(rng.random(shop.items) < 0.2, launched, -1 - launched)
        self.launch[self.category_start[:-1]] = -1 - shop.days
        self.home_region = np.where(
            rng.random(shop.items) < 0.03, rng.integers(0, len(REGIONS), shop.items), -1
        )
        alcohol = rng.choice(self.categories, max(1, self.categories // 25), replace=False)
        self.marks = {
            "alcohol": np.isin(self.category, alcohol),
            "adult": rng.random(shop.items) < 0.01,
            "recalled": rng.random(shop.items) < 0.002,
        }
        self.brand = rng.integers(0, max(3, shop.items // 40), shop.items)
        number = pa.array(np.arange(shop.items)).cast(pa.string())
        self.ids = pc.binary_join_element_wise("i", number, "")

    def _make_calendar(self, rng: np.random.Generator) -> None:
        shop = self.shop
        self.promoted = coming_and_going(
            rng, shop.items, shop.promotions, PROMOTION_DAYS, shop.days
        )
        runs = len(self.promoted.which)
        self.promotion_kind = rng.integers(0, len(KINDS), runs)
        cut = np.round(rng.uniform(0.1, 0.3, runs), 2)
        self.discount = np.where(self.promotion_kind == KINDS.index("price"), cut, 0.0)
        first = np.zeros(shop.items, bool)
        first[self.category_start[:-1]] = True
        gone = np.where(
            rng.random(shop.items) < DISCONTINUED, rng.integers(1, shop.days, shop.items), AFTER
        )
        gone[first] = AFTER
        gone = np.maximum(gone, self.launch + 7)  # not before it was there for a week
        out = coming_and_going(rng, shop.items, shop.stockouts, STOCKOUT_DAYS, shop.days)
        known = ~first[out.which] & (out.starts > self.launch[out.which])
        out = out.pick(np.flatnonzero(known & (out.ends < gone[out.which])))
        left = np.flatnonzero(gone < shop.days)
        self.out = Spans(
            np.concatenate([out.which, left]),
            np.concatenate([out.starts, gone[left]]),
            np.concatenate([out.ends, np.full(len(left), AFTER)]),
        )

    # --- a day ------------------------------------------------------------------------------
    def in_stock(self, day: int) -> np.ndarray:
        """(items,) bool: launched, and neither out of stock nor out of the range."""
        there = self.launch <= day
        there[self.out.which[self.out.on(day)]] = False
        return there

    def season(self, day: int) -> np.ndarray:
        """(categories,) the demand of each over its mean of the year."""
        first = np.datetime64(self.shop.start.date(), "D")
        today = first + day
        of_year = (today - today.astype("datetime64[Y]")).astype(int)
        return np.exp(self.shop.season * np.cos(2 * np.pi * (of_year - self.peak) / YEAR))

    def pull(self, day: int) -> np.ndarray:
        """(items,) how many times as often each is chosen today as without a promotion."""
        pull = np.ones(self.shop.items)
        pull[self.promoted.which[self.promoted.on(day)]] = self.shop.uplift
        return pull

    def prices(self, day: int) -> np.ndarray:
        """(items,) today's, after the promotions' discounts."""
        today = self.promoted.on(day)
        prices = self.price.copy()
        prices[self.promoted.which[today]] *= 1 - self.discount[today]
        return prices

    def demand(self, day: int, there: np.ndarray) -> np.ndarray:
        """(items,) weight of each within its category; new ones have a bonus for some weeks."""
        age = day - self.launch
        novelty = 1.0 + 2.0 * np.exp(-np.maximum(age, 0) / 14.0) * (self.launch > 0)
        return self.popularity * novelty * self.pull(day) * there

    # --- writing ----------------------------------------------------------------------------
    def item_ids(self, item: np.ndarray) -> pa.DictionaryArray:
        return pa.DictionaryArray.from_arrays(pa.array(item.astype(np.int32)), self.ids)

    def category_names(self) -> list[str]:
        return [f"Department {c % 9} > Category {c}" for c in range(self.categories)]

    def write(self, folder: Path) -> dict[str, int]:
        """Write ``items`` (a row per item, and one per end and return of its stock),
        ``promotions``, and their truths."""
        return {"items": self._write_items(folder), "promotions": self._write_promotions(folder)}

    def _write_items(self, folder: Path) -> int:
        shop = self.shop
        number = range(shop.items)
        path = self.category_names()
        flags = [[name for name, mark in self.marks.items() if mark[i]] for i in number]
        regions = [None if r < 0 else [REGIONS[r]] for r in self.home_region]
        plain = {
            "title": pa.array([
                f"{_word(self.brand[i])} {_word(self.category[i] + 1000)} {i}" for i in number
            ]),
            "category": pa.array([path[c] for c in self.category]),
            "brand": pa.array([f"brand-{b}" for b in self.brand]),
            "seller": pa.array([f"seller-{b % 7}" for b in self.brand]),
            "price": pa.array(self.price),
            "margin": pa.array(self.margin),
            "created_time": truth.day_time(self.launch, self.start),
            "regions": pa.array(regions, pa.list_(pa.string())),
            "flags": pa.array(flags, pa.list_(pa.string())),
            "attributes": writing.texts({"gap_days": str(gap)} for gap in self.gap),
        }  # fmt: skip
        back = np.flatnonzero(self.out.ends < AFTER)
        item = np.concatenate([np.arange(shop.items), self.out.which, self.out.which[back]])
        available = np.ones(len(item), bool)
        available[shop.items : shop.items + len(self.out.which)] = False
        since = np.concatenate([
            np.full(shop.items, AFTER), self.out.starts, self.out.ends[back]
        ])  # fmt: skip
        order = np.argsort(item, kind="stable")
        rows = pa.array(item[order])
        truth.write(folder, "stockouts", pa.table({
            "item_id": self.item_ids(self.out.which),
            "starts": truth.day_time(self.out.starts, self.start),
            "ends": truth.day_time(self.out.ends, self.start),
        }))  # fmt: skip
        truth.write(folder, "categories", pa.table({
            "category": path, "weight": self.category_weight, "peak_day_of_year": self.peak,
        }))  # fmt: skip
        return writing.write(
            folder, "items",
            item_id=self.item_ids(item[order]),
            available=available[order],
            valid_from=truth.day_time(since[order], self.start),
            **{name: values.take(rows) for name, values in plain.items()},
        )  # fmt: skip

    def _write_promotions(self, folder: Path) -> int:
        run = self.promoted
        columns = {
            "item_id": self.item_ids(run.which),
            "kind": pa.DictionaryArray.from_arrays(
                pa.array(self.promotion_kind.astype(np.int8)), pa.array(KINDS)
            ),
            "starts": truth.day_time(run.starts, self.start),
            "ends": truth.day_time(run.ends, self.start),
            "discount": pa.array(self.discount, mask=self.discount == 0),
        }
        uplift = pa.array(np.full(len(run.which), self.shop.uplift))
        truth.write(folder, "promotions", pa.table({**columns, "uplift": uplift}))
        return writing.write(folder, "promotions", **columns)


def _word(number: int) -> str:
    """A pronounceable name for a number, the same everywhere."""
    consonants, vowels = "bdfgklmnprst", "aeiou"
    word = ""
    number = int(number) * 2_654_435_761 % 216_000
    for _ in range(3):
        number, at = divmod(number, len(consonants) * len(vowels))
        word += consonants[at // len(vowels)] + vowels[at % len(vowels)]
    return word
