"""The exact search: held to a full sort, whatever the blocks, the lengths and the filters are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from jobs.filtering.allowed import Allowed
from jobs.retrieval import exact
from jobs.retrieval.matrix import Nominated

Row = tuple[int, int, int, float]


def rows(found: Nominated) -> list[Row]:
    columns = (found.person, found.item, found.rank, found.score)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def sorted_fully(people: np.ndarray, items: np.ndarray, allowed: Allowed, depth: int) -> list[Row]:
    """By the definition: all that a person may get, by falling score, then by position."""
    found: list[Row] = []
    scores = people @ items.T
    for person, mine in enumerate(scores):
        may = allowed.holds(np.full(len(items), person), np.arange(len(items)))
        order = sorted(np.flatnonzero(may).tolist(), key=lambda item, s=mine: (-s[item], item))
        found += [(person, i, rank, float(mine[i])) for rank, i in enumerate(order[:depth], 1)]
    return found


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 512]), st.sampled_from([1, 5, 16, 4096]),
    st.sampled_from([1, 4, 90]),
)  # fmt: skip
def test_the_best_that_each_may_get_are_those_of_a_full_sort(
    seed: int, n_people: int, n_items: int, depth: int
) -> None:
    generator = np.random.default_rng(seed)
    # Small whole numbers make many ties, and zeros of either sign; lengths differ widely.
    people = generator.integers(-2, 3, (9, 3)).astype(np.float32)
    items = generator.integers(-2, 3, (60, 3)).astype(np.float32)
    items *= np.exp2(generator.integers(-3, 4, (60, 1)))
    masks = generator.random((3, 60)) < generator.random((3, 1))
    blocked = np.flatnonzero(generator.random(9 * 60) < 0.3)
    allowed = Allowed(generator.integers(0, 3, 9), masks, blocked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "PEOPLE", n_people)
        patch.setattr(exact, "ITEMS", n_items)
        found = exact.best(people, items, allowed, depth)
    assert rows(found) == sorted_fully(people, items, allowed, depth)


def test_neither_threads_nor_neighbours_change_a_bit() -> None:
    generator = np.random.default_rng(5)
    people, items = (generator.standard_normal((n, 64), np.float32) for n in (700, 5_000))
    items *= generator.lognormal(0, 1, (5_000, 1)).astype(np.float32)
    blocked = np.sort(generator.choice(700 * 5_000, 7_000, replace=False))
    masks = generator.random((2, 5_000)) < 0.8
    allowed = Allowed(np.arange(700) % 2, masks, blocked)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            found.append(rows(exact.best(people, items, allowed, 20)))
    assert found[0] == found[1]
    alone = exact.best(people[:300], items, Allowed(np.arange(300) % 2, masks, blocked), 20)
    assert rows(alone) == [row for row in found[0] if row[0] < 300]


def test_items_too_short_to_be_listed_are_not_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(7)
    people, items = (generator.standard_normal((n, 8), np.float32) for n in (50, 4_000))
    items[1_000:] *= 0.01
    multiplied = []
    monkeypatch.setattr(exact, "ITEMS", 500)
    monkeypatch.setattr(exact, "_floor", lambda scores, depth, was=exact._floor: (
        multiplied.append(scores.shape), was(scores, depth)
    )[1])  # fmt: skip
    whole = np.matmul
    monkeypatch.setattr(np, "matmul", lambda left, right, out: (
        multiplied.append(right.shape), whole(left, right, out=out)
    )[1])  # fmt: skip
    allowed = Allowed.for_all(50, np.ones(4_000, bool))
    assert set(exact.best(people, items, allowed, 10).item.tolist()) <= set(range(1_000))
    assert multiplied.count((8, 500)) <= 2


def test_a_person_with_fewer_items_left_gets_fewer_and_one_with_none_gets_none() -> None:
    vectors = np.eye(3, dtype=np.float32)
    masks = np.array([[True, False, True], [False, False, False]])
    allowed = Allowed(np.array([0, 1, 0]), masks, np.array([2 * 3 + 2]))
    found = exact.best(vectors, vectors, allowed, 5)
    assert rows(found) == [(0, 0, 1, 1.0), (0, 2, 2, 0.0), (2, 0, 1, 0.0)]


@pytest.mark.parametrize(("n_people", "n_items", "depth"), [(0, 3, 2), (2, 0, 2), (2, 3, 0)])
def test_nobody_nothing_and_no_places_are_an_empty_answer(n_people, n_items, depth) -> None:
    people, items = (np.ones((n, 4), np.float32) for n in (n_people, n_items))
    allowed = Allowed.for_all(n_people, np.ones(n_items, bool))
    assert rows(exact.best(people, items, allowed, depth)) == []


def test_keys_order_scores_of_both_signs_and_give_them_back() -> None:
    scores = np.array([-2.5, -0.0, 0.0, 1e-45, 3.0, 3.0, -np.inf, np.inf], np.float32)
    items = np.arange(8)[::-1].copy()
    keys = exact._keys(scores, items)
    assert np.array_equal(exact._score(keys), scores)
    assert np.array_equal(exact._item(keys), items)
    expected = sorted(range(8), key=lambda row: (-scores[row], items[row]))
    assert np.argsort(keys).tolist() == expected
