"""What a person's past says of a person, of a pair, and of a person and a category.

Every measure is as of one instant. Those of purchases count person-baskets: an item bought twice in
one basket was wanted once, and what went back does not count. Those of interest and of the latest
session count events. Where there is nothing to measure a value
is NaN, where nothing was counted it is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jobs.retrieval import matrix
from jobs.signals.measures import (
    BASKET_HALF_LIVES,
    CATEGORY_HALF_LIVES,
    HALF_LIVES,
    SPANS,
)
from jobs.signals.past import CART, LOOKS, PURCHASE, Past, kept_purchases, runs


@dataclass(frozen=True)
class Lines:
    """Kept purchases of a block of people, one row per person, item and basket; (n,) each.

    Ascending by person, item, then time. ``turn``: the basket's place among the person's, 0 the
    latest.
    """

    n_people: int
    person: np.ndarray
    item: np.ndarray
    age: np.ndarray
    turn: np.ndarray
    quantity: np.ndarray
    value: np.ndarray

    @staticmethod
    def of(past: Past) -> Lines:
        """The lines of a past."""
        bought = kept_purchases(past)
        order = np.lexsort((-bought.age, bought.basket, bought.item, bought.person))
        rows = [column[order] for column in (bought.person, bought.item, bought.basket, bought.age)]
        starts, group = runs(*rows[:3])
        person, item, basket, age = (column[starts] for column in rows)
        quantity = np.bincount(group, bought.quantity[order], len(starts))
        value = np.bincount(group, bought.value[order], len(starts))
        in_time = np.lexsort((basket, -age, item, person))
        person, item, basket, age = (c[in_time] for c in (person, item, basket, age))
        turn = turns(person, basket, age)
        return Lines(past.n_people, person, item, age, turn, quantity[in_time], value[in_time])


def turns(person: np.ndarray, basket: np.ndarray, age: np.ndarray) -> np.ndarray:
    """(n,) int64: each line's basket by its place among its person's baskets, 0 the latest."""
    if len(person) == 0:
        return np.zeros(0, np.int64)
    codes, first, which = np.unique(basket, return_index=True, return_inverse=True)
    latest = np.full(len(codes), np.inf)
    np.minimum.at(latest, which, age)
    order = np.lexsort((codes, latest, person[first]))
    starts, group = runs(person[first][order])
    place = np.empty(len(codes), np.int64)
    place[order] = np.arange(len(codes)) - starts[group]
    return place[which]


@dataclass(frozen=True)
class Keyed:
    """Measures by a sorted key: ``values[name][i]`` is of ``key[i]``; others take ``absent``."""

    key: np.ndarray
    values: Mapping[str, np.ndarray]
    absent: Mapping[str, float]

    def at(self, keys: np.ndarray) -> dict[str, np.ndarray]:
        """Every measure of these keys, (n_keys,) each."""
        if len(self.key) == 0:
            return {name: np.full(len(keys), self.absent[name]) for name in self.values}
        place = np.minimum(np.searchsorted(self.key, keys), len(self.key) - 1)
        there = self.key[place] == keys
        return {
            name: np.where(there, column[place], self.absent[name])
            for name, column in self.values.items()
        }


def pairs(lines: Lines, n_items: int) -> Keyed:
    """Measures of every (person, item) that was bought; the key is ``person * n_items + item``."""
    starts, group = runs(lines.person, lines.item)
    count = np.bincount(group, minlength=len(starts))
    last = starts + count - 1
    age, turn = lines.age, lines.turn
    found: dict[str, np.ndarray] = {"baskets": count.astype(float)}
    for days in HALF_LIVES:
        found[f"decayed_{days}"] = np.bincount(group, np.exp2(-age / days), len(starts))
    for baskets in BASKET_HALF_LIVES:
        decayed = np.exp2(-turn / baskets)
        found[f"decayed_baskets_{baskets}"] = np.bincount(group, decayed, len(starts))
    for days in SPANS:
        found[f"baskets_{days}"] = np.bincount(group, age < days, len(starts))
    since, first = age[last], age[starts]
    found |= {
        "days_since": since,
        "days_since_first": first,
        "baskets_since": turn[last].astype(float),
        "baskets_since_first": turn[starts].astype(float),
    }
    again = count > 1
    mean_gap = np.where(again, (first - since) / np.maximum(count - 1, 1), np.nan)
    gap = np.zeros(len(age))
    gap[1:] = age[:-1] - age[1:]
    gap[starts] = 0.0
    square = np.bincount(group, gap**2, len(starts)) / np.maximum(count - 1, 1)
    found |= {
        "mean_gap": mean_gap,
        "last_gap": np.where(again, gap[last], np.nan),
        "gap_deviation": np.sqrt(np.maximum(square - mean_gap**2, 0.0)),
        # A gap of an hour is one errand in two baskets, not a rhythm.
        "due": since / np.maximum(mean_gap, 0.5),
        "basket_share": count / (found["baskets_since_first"] + 1),
        "quantity": np.bincount(group, lines.quantity, len(starts)) / count,
        "value": np.bincount(group, lines.value, len(starts)) / count,
    }
    person, item = lines.person[starts], lines.item[starts]
    order = np.lexsort((item, -found["decayed_60"], person))
    firsts, of_person = runs(person[order])
    place = np.empty(len(starts))
    place[order] = np.arange(len(starts)) - firsts[of_person] + 1
    found["place"] = place
    counted = {"baskets", *(name for name in found if name.startswith(("decayed", "baskets_")))}
    counted -= {"baskets_since", "baskets_since_first"}
    absent = {name: 0.0 if name in counted else np.nan for name in found}
    return Keyed(person * n_items + item, found, absent)


def interest(past: Past, n_items: int) -> Keyed:
    """Looks (views and clicks) and carts of every (person, item) that had any.

    ``session_interest``: how many of them were in the person's latest session.
    """
    shown = np.isin(past.kind, (*LOOKS, CART))
    person, item, age, kind, now = (
        column[shown] for column in (past.person, past.item, past.age, past.kind, past.latest)
    )
    starts, group = runs(person, item)
    decayed = np.exp2(-age / 14)
    latest = np.full(len(starts), np.inf)
    np.minimum.at(latest, group, age)
    found = {
        "looks_decayed_14": np.bincount(group, decayed * (kind != CART), len(starts)),
        "carts_decayed_14": np.bincount(group, decayed * (kind == CART), len(starts)),
        "days_since_interest": latest,
        "session_interest": np.bincount(group, now, len(starts)),
    }
    absent = {name: np.nan if name == "days_since_interest" else 0.0 for name in found}
    return Keyed(person[starts] * n_items + item[starts], found, absent)


def wanted(past: Past) -> Past:
    """The events that say that something is wanted: looks, carts and purchases."""
    return past.of(np.isin(past.kind, (*LOOKS, CART, PURCHASE)))


def sessions(past: Past, n_items: int) -> dict[str, np.ndarray]:
    """Measures of every person's latest session, (n_people,) each; of who did nothing there is no
    age, and nothing counted.

    ``s_days_since``: the age of its last event; ``s_wanted``: the looks, carts and purchases in it,
    a row each; ``s_items``: of how many different items.
    """
    session = past.of(past.latest)
    since = np.full(past.n_people, np.inf)
    np.minimum.at(since, session.person, session.age)
    since[np.isinf(since)] = np.nan
    now = wanted(session)
    items = matrix.distinct(now.person * n_items + now.item) // n_items
    return {
        "s_days_since": since,
        "s_wanted": np.bincount(now.person, minlength=past.n_people).astype(float),
        "s_items": np.bincount(items, minlength=past.n_people).astype(float),
    }


def leanings(past: Past, category: np.ndarray, prefix: str) -> Keyed:
    """What every (person, category) was looked at; the key is ``person * n + category``.

    ``interest_14``: looks and carts, each halved every 14 days; ``session``: the share of the
    looks, carts and purchases of the person's latest session, those of items without a category
    among them. ``category``: (n_items,) codes, -1 for none.
    """
    shown = wanted(past)
    width = int(category.max(initial=0)) + 1
    code = category[shown.item]
    of_session = np.bincount(shown.person, shown.latest, past.n_people)
    shown, code = shown.of(code >= 0), code[code >= 0]
    # Purchases of a session before the latest say nothing here.
    told = shown.latest | (shown.kind != PURCHASE)
    shown, code = shown.of(told), code[told]
    keys, group = np.unique(shown.person * width + code, return_inverse=True)
    short = shown.kind != PURCHASE
    found = {
        "interest_14": np.bincount(group[short], np.exp2(-shown.age[short] / 14), len(keys)),
        "session": np.bincount(group, shown.latest, len(keys))
        / np.maximum(of_session[keys // width], 1),
    }
    named = {f"{prefix}_{name}": column for name, column in found.items()}
    return Keyed(keys, named, dict.fromkeys(named, 0.0))


def persons(lines: Lines, n_items: int) -> dict[str, np.ndarray]:
    """Measures of every person of the block, (n_people,) each; NaN for who bought nothing."""
    n = lines.n_people
    per_basket = matrix.distinct(lines.person * (lines.turn.max(initial=0) + 1) + lines.turn)
    owner = per_basket // (lines.turn.max(initial=0) + 1)
    baskets = np.bincount(owner, minlength=n).astype(float)
    since, first = np.full(n, np.inf), np.full(n, -np.inf)
    np.minimum.at(since, lines.person, lines.age)
    np.maximum.at(first, lines.person, lines.age)
    since[baskets == 0] = first[baskets == 0] = np.nan
    items, count = np.unique(lines.person * n_items + lines.item, return_counts=True)
    distinct = np.bincount(items // n_items, minlength=n)
    repeated = np.bincount(items // n_items, count > 1, minlength=n)
    rows = np.bincount(lines.person, minlength=n)
    none = np.where(baskets > 0, 1.0, np.nan)
    priced = np.isfinite(lines.value)
    money = np.bincount(lines.person[priced], lines.value[priced], n)
    pieces = np.bincount(lines.person[priced], lines.quantity[priced], n)
    found = {
        "p_baskets": baskets,
        "p_days_since": since,
        "p_gap": (first - since) / np.maximum(baskets - 1, 1) * none,
        "p_lines": rows / np.maximum(baskets, 1) * none,
        "p_items": distinct.astype(float),
        "p_repeated": repeated / np.maximum(distinct, 1) * none,
        "p_lines_28": np.bincount(lines.person, lines.age < 28, n),
        "p_paid": np.where(pieces > 0, money / np.maximum(pieces, 1e-9), np.nan),
    }
    width = lines.turn.max(initial=0) + 1
    basket_key = lines.person * width + lines.turn
    for days in SPANS[1:]:
        recent = matrix.distinct(basket_key[lines.age < days]) // width
        found[f"p_baskets_{days}"] = np.bincount(recent, minlength=n).astype(float)
    return found


def categories(lines: Lines, category: np.ndarray, prefix: str) -> Keyed:
    """Measures of every (person, category) bought from; the key is ``person * n + category``.

    ``category``: (n_items,) codes, -1 where an item has none.
    """
    width = int(category.max(initial=0)) + 1
    code = category[lines.item]
    kept = code >= 0
    key = lines.person[kept] * width + code[kept]
    order = np.lexsort((-lines.age[kept], key))
    key, age, turn = key[order], lines.age[kept][order], lines.turn[kept][order]
    starts, group = runs(key)
    found: dict[str, np.ndarray] = {}
    for days in CATEGORY_HALF_LIVES:
        found[f"decayed_{days}"] = np.bincount(group, np.exp2(-age / days), len(starts))
    ends = np.r_[starts[1:], len(key)][: len(starts)] - 1
    since, first = age[ends], age[starts]
    span = int(turn.max(initial=0)) + 1
    baskets = np.bincount(matrix.distinct(group * span + turn) // span, minlength=len(starts))
    gap = np.where(baskets > 1, (first - since) / np.maximum(baskets - 1, 1), np.nan)
    found |= {
        "days_since": since,
        "baskets": baskets.astype(float),
        "due": since / np.maximum(gap, 0.5),
    }
    absent = {"days_since": np.nan, "due": np.nan}
    named = {f"{prefix}_{name}": column for name, column in found.items()}
    return Keyed(key[starts], named, {f"{prefix}_{name}": absent.get(name, 0.0) for name in found})
