"""What a gap in a list is filled from gives the list that everything would give."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.ordering import filling
from jobs.scoring.features import Pairs
from jobs.tables import SOURCES

ITEMS = 250
NEW = SOURCES.index("new_arrivals")


class World:
    """Two people with pairs of the same items, the first the nearest; new arrivals are the last."""

    def __init__(self) -> None:
        self.person, self.item = np.repeat([0, 1], ITEMS), np.tile(np.arange(ITEMS), 2)
        signals = np.zeros((2 * ITEMS, len(SOURCES)))
        signals[:, SOURCES.index("buy_again")] = 1 / (1 + self.item)
        late = self.item >= ITEMS - 10
        signals[late, SOURCES.index("buy_again")] = 0.0
        signals[late, NEW] = 1 / (1 + self.item[late] - (ITEMS - 10))
        self.pairs = Pairs(self.person, self.item, signals, np.arange(2 * ITEMS))
        self.near = -self.item.astype(float)

    def of(self, *items: int, person: int = 0) -> np.ndarray:
        return (self.person == person) & np.isin(self.item, items)

    def kept(
        self, always: np.ndarray | None = None, lowered: np.ndarray | None = None,
        removed: np.ndarray | None = None, slots: dict[str, int] | None = None,
    ) -> tuple[list[int], list[int]]:  # fmt: skip
        """The items that are looked at for each of the two."""
        none = np.zeros(2 * ITEMS, bool)
        found = filling.worth_scoring(
            self.pairs, self.near,
            *(none if one is None else one for one in (always, lowered, removed)), slots or {},
        )  # fmt: skip
        return tuple(self.item[found & (self.person == one)].tolist() for one in (0, 1))


@pytest.fixture
def world() -> World:
    return World()


def test_what_stands_is_looked_at_and_as_many_of_the_nearest_besides(world: World) -> None:
    first, second = world.kept(always=world.of(3, 200, 201))
    assert first == [*range(61), 200, 201], "3 stands, and takes nobody's place"
    assert second == list(range(60))


def test_what_a_rule_takes_out_takes_no_room_from_what_may_come_in(world: World) -> None:
    # Of the nearest a ban takes 80, of which 18 stand in the list.
    banned = world.of(*range(80))
    first, _ = world.kept(always=world.of(*range(20)), removed=banned)
    assert [item for item in first if item >= 80] == list(range(80, 140))
    # The model knows no rules: its own list is filled from what was taken out, too.
    assert [item for item in first if item < 80] == list(range(80))


def test_a_list_that_may_have_lost_more_is_filled_from_more(world: World) -> None:
    none = np.zeros(2 * ITEMS, bool)
    found = filling.worth_scoring(world.pairs, world.near, none, none, none, {}, most=100)
    assert world.item[found & (world.person == 1)].tolist() == list(range(100))


def test_what_is_demoted_takes_no_room_either(world: World) -> None:
    first, _ = world.kept(lowered=world.of(*range(100)))
    assert first == [*range(60), *range(100, 160)]


def test_a_source_that_is_owed_places_has_its_best_that_do_not_stand(world: World) -> None:
    assert not [item for item in world.kept()[0] if item >= ITEMS - 10]
    first, second = world.kept(
        always=world.of(240, 241), slots={"new_arrivals": 2}, removed=world.of(242)
    )
    # 242 for the model's list.
    assert [item for item in first if item >= ITEMS - 10] == [240, 241, 242, 243, 244]
    assert [item for item in second if item >= ITEMS - 10] == [240, 241]


def test_a_list_is_filled_as_from_everything_whatever_rules_and_quotas_say() -> None:
    """Drawn lists, bans and scores near the prior: the places that come in are those of all."""
    for seed in range(40):
        random, world = np.random.default_rng(seed), World()
        score = world.near + random.normal(0, 4, 2 * ITEMS)
        removed = random.random(2 * ITEMS) < random.choice([0.0, 0.3, 0.7])
        stands = world.near > np.sort(world.near)[-30]
        looked = world.kept(always=stands, removed=removed, slots={"new_arrivals": 1})
        for person, items in enumerate(looked):
            mine = (world.person == person) & ~stands & ~removed
            best = np.flatnonzero(mine)[np.argsort(-score[mine])][:5]
            new = mine & (world.item >= ITEMS - 10)
            assert set(world.item[best]) <= set(items)
            assert set(world.item[new][:1]) <= set(items)
