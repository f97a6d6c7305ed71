"""The simple methods on shops of three people, their answers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from jobs.evaluation import baselines
from jobs.evaluation.baselines import Purchases

EVERYBODY = np.array([0, 1, 2])
# Who chose what: 0 has a and b, 1 has a, b and c, 2 has c and d.
CHOSE = sp.csr_matrix(np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1]], np.float32))


def purchases(*rows: tuple[int, int, int, float], people: int = 3, items: int = 4) -> Purchases:
    """Rows of person, item, basket from 0 and age in days."""
    person, item, basket, age = (np.array(column) for column in zip(*rows, strict=True))
    return Purchases(people, items, person, item, basket, age.astype(float))


# Person 0 bought a twice, lately once, and b long ago; person 1 bought c; person 2 nothing.
BOUGHT = purchases((0, 0, 0, 60), (0, 1, 0, 60), (0, 0, 1, 30), (1, 2, 0, 10))


def test_popularity_counts_baskets_and_the_recent_one_only_those_of_the_last_days():
    assert baselines.popularity(BOUGHT).tolist() == [2, 1, 1, 0]
    assert baselines.popularity(BOUGHT, days=30).tolist() == [1, 0, 1, 0]
    assert baselines.same_for_all(np.array([2, 1]))(EVERYBODY).tolist() == [[2, 1]] * 3


def test_personal_frequency_counts_a_persons_baskets_with_the_item():
    assert baselines.frequency(BOUGHT).toarray().tolist() == [
        [2, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]
    ]  # fmt: skip


def test_with_a_half_life_a_basket_counts_half_for_each_of_its_age():
    found = baselines.frequency(BOUGHT, half_life_days=30).toarray()
    assert found[0] == pytest.approx([0.25 + 0.5, 0.25, 0, 0])
    assert found[1] == pytest.approx([0, 0, 2 ** (-1 / 3), 0])


def test_popularity_decides_between_equals_and_fills_what_is_left_but_outranks_nothing():
    popular = np.array([0.0, 5.0, 100.0, 7.0], np.float32)
    own = sp.csr_matrix(np.array([[1, 1, 0, 0]], np.float32))
    scores = baselines.own(own, popular)(np.array([0]))[0]
    assert np.argsort(-scores).tolist() == [1, 0, 2, 3]


def test_item_neighbours_are_alike_by_who_chose_them():
    found = baselines.item_knn(CHOSE, neighbours=4, shrinkage=0)(EVERYBODY)
    # Cosines: a with b 2/2, a with c 1/2; d was chosen once and has no neighbours, nor itself.
    assert found[0] == pytest.approx([2, 2, 1, 0])
    assert found[2] == pytest.approx([0.5, 0.5, 1, 0])


def test_only_the_nearest_items_are_neighbours():
    found = baselines.item_knn(CHOSE, neighbours=1, shrinkage=0)(EVERYBODY)
    assert found[0] == pytest.approx([2, 2, 0, 0]), "c is not among the nearest two of a or of b"


def test_user_neighbours_speak_by_their_cosine_and_nobody_for_themselves():
    found = baselines.user_knn(CHOSE, neighbours=2)(EVERYBODY)
    alike, far = 2 / np.sqrt(6), 1 / np.sqrt(6)
    assert found[0] == pytest.approx([alike, alike, alike, 0])
    assert found[1] == pytest.approx([alike, alike, far, far])
    nearest = baselines.user_knn(CHOSE, neighbours=1)(EVERYBODY)
    assert nearest[1] == pytest.approx([alike, alike, 0, 0])


def test_factors_score_by_their_inner_product():
    people, items = np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([[3.0, 0.0], [1.0, 1.0]])
    assert baselines.inner_products(people, items)(np.array([0, 1])).tolist() == [[3, 3], [0, 1]]


def test_ease_of_a_hand_worked_example():
    # G = [[2, 1], [1, 2]] + I: P = [[3, -1], [-1, 3]] / 8, so B has 1/3 beside its diagonal.
    chose = sp.csr_matrix(np.array([[1, 1], [1, 0], [0, 1]], np.float32))
    assert baselines.ease_weights(chose, 1.0) == pytest.approx(np.array([[0, 1 / 3], [1 / 3, 0]]))
    found = baselines.ease_dual(chose, 1.0)(EVERYBODY)
    assert found == pytest.approx(np.array([[1 / 3, 1 / 3], [0, 1 / 3], [1 / 3, 0]]), abs=1e-6)


@pytest.mark.parametrize("shape", [(8, 30), (30, 8)])
def test_both_forms_of_ease_give_the_same_scores(shape):
    chose = sp.random(*shape, 0.3, format="csr", dtype=np.float32, random_state=3)
    chose.data[:] = 1.0
    rows = np.array([1, 5])
    primal = chose[rows] @ baselines.ease_weights(chose, 2.0)
    assert baselines.ease_dual(chose, 2.0)(rows) == pytest.approx(primal, abs=1e-5)


def test_with_many_people_ease_ranks_the_items_that_most_chose_and_says_how_many(monkeypatch):
    whole, ranked = baselines.ease(CHOSE, 1.0)
    assert ranked == 4
    monkeypatch.setattr(baselines, "EASE_PEOPLE", 2)
    monkeypatch.setattr(baselines, "EASE_ITEMS", 3)
    scorer, ranked = baselines.ease(CHOSE, 1.0)
    assert ranked == 3
    assert not scorer(EVERYBODY)[:, 3].any(), "d was chosen once and is left out"
    monkeypatch.setattr(baselines, "EASE_ITEMS", 4)
    assert baselines.ease(CHOSE, 1.0)[0](EVERYBODY) == pytest.approx(whole(EVERYBODY), abs=1e-6)


def test_blocks_of_items_do_not_change_ease(monkeypatch):
    before = baselines.ease_dual(CHOSE, 1.0)(EVERYBODY)
    monkeypatch.setattr(baselines, "ITEMS_AT_A_TIME", 3)
    assert baselines.ease_dual(CHOSE, 1.0)(EVERYBODY) == pytest.approx(before)
