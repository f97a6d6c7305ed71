"""How the simulator's people answer a list: by the chances that it says, and by nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.sources import simulated
from jobs.sources.simulated import serving
from jobs.sources.simulated.crowd import Crowd
from jobs.sources.simulated.goods import Goods
from jobs.sources.simulated.requests import Logging
from jobs.sources.simulated.serving import Answers


@pytest.fixture(scope="module")
def people() -> Answers:
    shop = simulated.parse("events=10000,people=50,items=60,days=10,promotions=0").sized()
    goods = Goods(shop)
    return Answers(goods, Crowd(shop, goods))


def test_a_place_is_looked_at_by_the_power_of_its_number():
    assert serving.looks(4, 0.5) == pytest.approx([1, 2**-0.5, 3**-0.5, 0.5])
    assert serving.looks(3, 0.0).tolist() == [1, 1, 1]


def test_what_a_person_likes_is_clicked_four_times_and_bought_twice_as_often(people):
    person = np.array([7])
    items = np.arange(people.goods.shop.items)[None, :]
    found = people.chances(0, person, items, np.ones(people.goods.shop.items, bool))
    liked = np.isin(people.goods.category, people.crowd.tastes(person, 0)[0])
    attraction = found.attraction[0] / people.quality
    assert attraction[liked] == pytest.approx(np.full(liked.sum(), 0.24))
    assert attraction[~liked] == pytest.approx(np.full((~liked).sum(), 0.06))
    assert found.conversion[0] == pytest.approx(np.where(liked, 0.3, 0.15))


def test_what_is_out_of_stock_is_not_bought_and_an_empty_place_not_even_looked_at(people):
    there = np.zeros(people.goods.shop.items, bool)
    found = people.chances(0, np.array([1]), np.array([[5, -1]]), there)
    assert found.conversion.tolist() == [[0, 0]]
    assert found.attraction[0, 0] > 0
    assert found.attraction[0, 1] == 0


def test_means_agree_with_look_times_attraction_times_conversion():
    rng = np.random.default_rng(1)
    shape = (400_000, 3)
    look = serving.looks(3, 0.7)
    attraction, conversion = np.array([0.1, 0.3, 0.2]), np.array([0.5, 0.2, 0.4])
    luck = rng.random(shape), rng.random(shape)
    clicked, bought = serving.answer(
        luck, look, np.broadcast_to(attraction, shape), np.broadcast_to(conversion, shape)
    )
    assert clicked.mean(axis=0) == pytest.approx(look * attraction, rel=0.02)
    assert bought.mean(axis=0) == pytest.approx(look * attraction * conversion, rel=0.03)
    assert not (bought & ~clicked).any()


def test_the_same_people_answer_the_shops_own_lists_and_ours(people):
    assert Logging(people.goods, people.crowd).answers.quality == pytest.approx(people.quality)
