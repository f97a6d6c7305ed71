"""Lists: quotas hold after filtering, provenance survives, shortfalls are counted."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.ordering import lists
from jobs.ordering.surfaces import Surface
from jobs.scoring import features
from jobs.tables import SOURCES, TIME
from tests.conftest import AS_OF

NO_QUOTAS = dict.fromkeys(SOURCES, 0.0)
EQUAL = dict.fromkeys(SOURCES, 1.0)


class Shop:
    """Candidates from (person, item, source, rank), scored by equal weights."""

    def __init__(self, *rows: tuple[str, str, str, int]):
        people, items, sources, ranks = zip(*rows, strict=True)
        self.people, self.items = sorted(set(people)), sorted(set(items))
        self.named = features.Named(
            np.array([self.people.index(one) for one in people]),
            np.array([self.items.index(one) for one in items]),
            np.array([SOURCES.index(one) for one in sources]),
            np.array(ranks),
        )
        self.pairs = features.wide(self.named)
        self.score = features.linear_score(self.pairs.signals, EQUAL)

    def listed(self, params: Surface, allowed: np.ndarray | None = None) -> lists.Listed:
        allowed = np.ones(len(self.score), bool) if allowed is None else allowed
        return lists.fill(self.pairs, self.score, allowed, params.length, params.slots())

    def lists(self, params: Surface, allowed: np.ndarray | None = None) -> dict[str, list[str]]:
        listed = self.listed(params, allowed)
        found: dict[str, list[str]] = {}
        for pair, rank in zip(listed.pair, listed.rank, strict=True):
            mine = found.setdefault(self.people[self.pairs.person[pair]], [])
            mine.append(self.items[self.pairs.item[pair]])
            assert rank == len(mine)
        return found

    def shortfalls(self, params: Surface, people: int) -> dict[str, tuple[int, int]]:
        listed = self.listed(params)
        return lists.shortfalls(self.pairs, listed, people, params.length, params.slots())


def test_a_list_is_ordered_by_score_and_ties_by_item():
    shop = Shop(("p", "b", "buy_again", 1), ("p", "a", "popular", 1), ("p", "c", "buy_again", 2))
    assert shop.lists(Surface(length=2, sources=NO_QUOTAS)) == {"p": ["a", "b"]}


def test_a_quota_is_filled_from_the_best_of_its_source_at_the_end_of_the_list():
    shop = Shop(
        *[("p", f"often {i}", "buy_again", i) for i in range(1, 6)],
        ("p", "new 1", "new_arrivals", 40), ("p", "new 2", "new_arrivals", 41),
    )  # fmt: skip
    params = Surface(length=4, sources={**NO_QUOTAS, "new_arrivals": 0.25})
    assert shop.lists(params) == {"p": ["often 1", "often 2", "often 3", "new 1"]}


def test_a_quota_whose_best_item_is_excluded_goes_to_the_next_of_its_source():
    shop = Shop(
        *[("p", f"often {i}", "buy_again", i) for i in range(1, 6)],
        ("p", "new 1", "new_arrivals", 40), ("p", "new 2", "new_arrivals", 41),
    )  # fmt: skip
    params = Surface(length=4, sources={**NO_QUOTAS, "new_arrivals": 0.25})
    allowed = np.array([shop.items[item] != "new 1" for item in shop.pairs.item])
    assert shop.lists(params, allowed) == {"p": ["often 1", "often 2", "often 3", "new 2"]}


def test_an_unfilled_quota_goes_to_the_rest_and_is_counted():
    shop = Shop(*[("p", f"often {i}", "buy_again", i) for i in range(1, 6)])
    params = Surface(length=4, sources={**NO_QUOTAS, "new_arrivals": 0.25})
    assert len(shop.lists(params)["p"]) == 4
    assert shop.shortfalls(params, people=2) == {
        "quota of new_arrivals not filled": (1, 1),
        "no list": (1, 4),
    }


def test_places_that_shared_lists_fill_for_people_with_a_history_are_counted():
    shop = Shop(("p", "a", "buy_again", 1), ("p", "b", "popular", 1), ("q", "b", "popular", 1))
    params = Surface(length=2, sources=NO_QUOTAS)
    assert shop.shortfalls(params, people=2) == {
        "filled from pools": (1, 1),
        "list short": (1, 1),
    }


def test_an_item_named_by_many_sources_stands_once_and_keeps_them_all():
    shop = Shop(("p", "a", "buy_again", 2), ("p", "b", "popular", 1), ("p", "a", "popular", 2))
    listed = shop.listed(Surface(length=2, sources=NO_QUOTAS))
    seeds = pa.table({"seed_item": ["z"], "seed_time": pa.array([AS_OF], TIME)})
    sources, entries = lists.provenance(
        shop.named, shop.pairs, listed, np.array([0.5, 3.0, 2.0]), seeds
    )
    by_item = dict(
        zip([shop.items[i] for i in shop.pairs.item[listed.pair]], entries.to_pylist(), strict=True)
    )
    # Of equal rank, so in the order of the sources' names; a pool has no seed.
    assert by_item["a"] == [
        {"source": "buy_again", "rank": 2, "score": 0.5, "seed_item": "z", "seed_time": AS_OF},
        {"source": "popular", "rank": 2, "score": 2.0, "seed_item": None, "seed_time": None},
    ]
    assert sources.to_pylist()[0] == [one["source"] for one in entries.to_pylist()[0]]


@given(st.data())
def test_lists_are_those_that_a_plain_loop_makes(data):
    people, items = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 8))
    triples = st.tuples(st.integers(0, people - 1), st.integers(0, items - 1), st.integers(0, 2))
    chosen = sorted(data.draw(st.sets(triples, min_size=1, max_size=40)))
    rows = [(f"p{p}", f"i{i}", SOURCES[s], data.draw(st.integers(1, 9))) for p, i, s in chosen]
    shop = Shop(*rows)
    allowed = np.array([data.draw(st.booleans()) for _ in shop.score])
    quota = {SOURCES[0]: 1, SOURCES[1]: 1}
    params = Surface(length=4, sources={**NO_QUOTAS, **{name: 0.25 for name in quota}})
    expected = {}
    for person in range(len(shop.people)):
        mine = [
            pair for pair in range(len(shop.score))
            if shop.pairs.person[pair] == person and allowed[pair]
        ]  # fmt: skip
        mine.sort(key=lambda pair: (-shop.score[pair], shop.pairs.item[pair]))
        kept: set[int] = set()
        for source in quota:
            kept |= set([p for p in mine if shop.pairs.signals[p, SOURCES.index(source)] > 0][:1])
        for pair in mine:
            if len(kept) < 4:
                kept.add(pair)
        if kept:
            expected[shop.people[person]] = [
                shop.items[shop.pairs.item[pair]] for pair in mine if pair in kept
            ]
    assert shop.lists(params, allowed) == expected


def test_quotas_beyond_the_list_are_refused():
    with pytest.raises(ValueError, match="quotas must not exceed"):
        Surface(length=2, sources={"popular": 1.0, "buy_again": 1.0})
