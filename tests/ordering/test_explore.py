"""Explore places: known probabilities, the same draw on a rerun, shares from what was logged."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy import stats

from jobs.ordering import explore
from jobs.ordering.diversity import Diversity
from jobs.ordering.explore import Explore
from jobs.ordering.stages import Ordering
from jobs.tables import SOURCES
from tests.ordering.shop import AS_OF, SURFACE, Shop, catalogue, shares

ITEMS = catalogue(*[
    {"item_id": f"i{n}", "category": "A" if n % 2 else "B"} for n in range(9)
])  # fmt: skip
SCORES = {f"i{n}": 1.0 - n / 10 for n in range(9)}
NAMED = {"i6": ("popular",), "i7": ("popular", "buy_again"), "i8": ("trending",)}
SHARES = {"buy_again": 0.5, "popular": 0.2, "trending": 0.3}
ONE = Ordering("feed", 4, explore=Explore(1, 3))
TWO = Ordering("feed", 4, explore=Explore(2, 2))


def crowd(people: int) -> Shop:
    named_by = {(p, item): sources for p in range(people) for item, sources in NAMED.items()}
    return Shop(ITEMS, [SCORES] * people, named_by=named_by)


def drawn(surface: Ordering, people: int, seed: int = 1, *rules: dict, by: dict | None = None):
    """Per explore place: (n_people,) item numbers and their propensities."""
    shop = crowd(people)
    stages = shop.stages(surface, *rules, shares=shares(by or SHARES), seed=seed)
    block = shop.block(stages)
    ordered = stages.order(block)
    propensity = ordered.columns["propensity"].to_numpy()
    item = block.pairs.item[ordered.published.pair]
    first = surface.explore.first
    return [
        (item[ordered.published.rank == place], propensity[ordered.published.rank == place])
        for place in range(first, first + surface.explore.places)
    ], ordered  # fmt: skip


def test_only_the_explore_place_is_drawn_and_the_rest_is_the_models():
    [(item, propensity)], ordered = drawn(ONE, 50)
    assert set(item.tolist()) <= {3, 4, 5, 6, 7, 8}
    assert (propensity < 1).all()
    others = ordered.published.rank != 3
    assert (ordered.columns["propensity"].to_numpy()[others] == 1.0).all()
    block = crowd(50).block(crowd(50).stages(ONE))
    placed = block.pairs.item[ordered.published.pair[others]]
    np.testing.assert_array_equal(placed.reshape(50, 3), np.tile([0, 1, 2], (50, 1)))
    by = np.array(ordered.columns["placed_by"].to_pylist())
    assert set(by[~others]) == {"explore"}
    assert set(by[others]) == {"model"}


def test_propensities_are_the_shares_over_the_items_of_each_source():
    [(item, propensity)], _ = drawn(ONE, 400)
    # Left over are 3, 4, 5 and 7 of buy_again, 6 and 7 of popular, 8 of trending.
    exact = {3: 0.125, 4: 0.125, 5: 0.125, 6: 0.1, 7: 0.225, 8: 0.3}
    assert sum(exact.values()) == pytest.approx(1.0)
    for number, probability in zip(item, propensity, strict=True):
        assert probability == pytest.approx(exact[int(number)], abs=1e-12)


@pytest.mark.parametrize("surface", [ONE, TWO])
def test_items_come_as_often_as_their_propensity_says(surface):
    people = 20_000
    for item, propensity in drawn(surface, people)[0]:
        numbers, counts = np.unique(item, return_counts=True)
        expected = np.array([propensity[item == number][0] for number in numbers]) * people
        assert expected.sum() == pytest.approx(people)
        # One in ten thousand fair draws of this seed would be further off.
        assert stats.chisquare(counts, expected).pvalue > 1e-4


def test_two_explore_places_never_draw_one_item():
    (first, _), (second, _) = drawn(TWO, 2_000)[0]
    assert not set(first.tolist()) & set(second.tolist())


def test_a_source_with_nothing_to_give_leaves_its_share_to_the_others():
    [(item, propensity)], _ = drawn(ONE, 200, by={"trending": 0.5, "editorial": 0.5})
    assert set(item.tolist()) == {8}
    np.testing.assert_allclose(propensity, 1.0)


def test_the_draw_is_the_persons_own_whoever_else_is_in_the_block():
    shop = crowd(6)
    stages = shop.stages(ONE, shares=shares(SHARES))
    names = ["f", "b", "d", "a", "e", "c"]
    found = {}
    for order in (names, sorted(names)):
        lists = shop.lists(stages, names=order)
        found[tuple(order)] = {name: lists[place] for place, name in enumerate(order)}
    first, second = found.values()
    assert first == second
    assert len({tuple(one) for one in first.values()}) > 1


def test_seed_night_and_surface_each_change_the_draw():
    people = [f"p{n}" for n in range(500)]
    base = explore.chances(people, 2, 1, AS_OF, "feed")
    np.testing.assert_array_equal(base, explore.chances(people, 2, 1, AS_OF, "feed"))
    others = [
        explore.chances(people, 2, 2, AS_OF, "feed"),
        explore.chances(people, 2, 1, AS_OF.replace(day=2), "feed"),
        explore.chances(people, 2, 1, AS_OF, "home"),
    ]
    for other in others:
        assert abs(np.corrcoef(base[:, 0], other[:, 0])[0, 1]) < 0.2
        assert (base != other).all()
    assert ((base >= 0) & (base < 1)).all()
    assert stats.kstest(base.ravel(), "uniform").pvalue > 1e-4


def test_caps_hold_whatever_is_drawn():
    cap = {"rule_id": "c", "kind": "cap", "scope": "category:B", "strength": 2.0}
    (first, _), (second, _) = drawn(TWO, 2_000, 1, cap)[0]
    # 0 stands already, so one of the two draws at most may be of B, and it is the first.
    assert (first % 2 == 0).any()
    assert (second % 2 == 1).all()


MIXED = catalogue(*[
    {"item_id": f"i{n:02d}", "category": "ABCDE"[n % 5], "seller": "ST"[n % 7 > 3]}
    for n in range(25)
])  # fmt: skip


def spread(surface: Ordering, people: int, *rules: dict) -> tuple[np.ndarray, np.ndarray]:
    """(n_people, length) item numbers and their propensities, of a shop with five categories."""
    shop = Shop(MIXED, [{f"i{n:02d}": 1.0 - n / 100 for n in range(25)}] * people)
    stages = shop.stages(surface, *rules, shares=shares({"buy_again": 1.0}))
    block = shop.block(stages)
    ordered = stages.order(block)
    shape = (people, surface.length)
    propensity = ordered.columns["propensity"].to_numpy()
    return block.pairs.item[ordered.published.pair].reshape(shape), propensity.reshape(shape)


@pytest.mark.parametrize("first", [1, 2, 4])
@pytest.mark.parametrize(("cap", "places"), [(1, 2), (2, 2), (2, 3)])
def test_what_is_drawn_counts_in_its_category(cap, places, first):
    explored = Explore(places, min(first, 6 - places))
    surface = Ordering("feed", 5, diversity=Diversity(category_cap=cap), explore=explored)
    items, propensity = spread(surface, 3_000)
    for category in range(5):
        assert ((items % 5 == category).sum(axis=1) <= cap).all()
    for place in range(5):
        chosen, counts = np.unique(items[:, place], return_counts=True)
        exact = np.array([propensity[items[:, place] == one, place][0] for one in chosen])
        assert exact.sum() == pytest.approx(1.0)
        if len(chosen) > 1:
            assert stats.chisquare(counts, exact * 3_000).pvalue > 1e-4


@pytest.mark.parametrize(("places", "first"), [(1, 3), (2, 1), (2, 3), (2, 4), (3, 2)])
def test_what_is_drawn_stands_beside_nothing_like_it(places, first):
    surface = Ordering(
        "feed", 5, diversity=Diversity(apart=("category",)), explore=Explore(places, first)
    )
    category = spread(surface, 2_000)[0] % 5
    assert (category[:, 1:] != category[:, :-1]).all()


def test_spread_gives_way_where_a_place_has_nothing_else_to_draw():
    surface = Ordering("feed", 4, diversity=Diversity(category_cap=1), explore=Explore(2, 3))
    shop = crowd(200)
    stages = shop.stages(surface, shares=shares(SHARES))
    assert {len(one) for one in shop.lists(stages)} == {4}


def test_where_a_pin_holds_an_explore_place_the_others_draw_from_all():
    pin = {"rule_id": "p", "kind": "pin", "scope": "item:i8", "strength": 2.0}
    (pinned, certain), (item, propensity) = drawn(TWO, 2_000, 1, pin)[0]
    assert set(pinned.tolist()) == {8}
    assert (certain == 1.0).all()
    # 0 and 1 stand for certain; 2 to 5 and 7 are of buy_again, 6 and 7 of popular; trending has
    # nothing left.
    assert set(item.tolist()) == {2, 3, 4, 5, 6, 7}
    assert propensity[item == 2][0] == pytest.approx(0.5 / 0.7 / 5)
    assert propensity[item == 7][0] == pytest.approx(0.5 / 0.7 / 5 + 0.2 / 0.7 / 2)


def test_a_homepage_does_not_explore_at_the_first_ten_places():
    with pytest.raises(ValueError, match="must not explore at the places 1 to 10"):
        Ordering(SURFACE, 20, explore=Explore(1, 10))
    Ordering(SURFACE, 20, explore=Explore(1, 11))
    with pytest.raises(ValueError, match="must end in the list"):
        Ordering(SURFACE, 20, explore=Explore(3, 19))


# --- the bandit ------------------------------------------------------------------------------
def generator() -> np.random.Generator:
    return explore.of_night(1, AS_OF, SURFACE)


def test_without_a_log_every_source_has_about_an_equal_share():
    none = np.zeros(len(SOURCES))
    found = explore.shares(none, none, generator(), 0.1)
    assert found.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(found, 1 / len(SOURCES), atol=0.03)


def test_the_share_is_the_chance_of_converting_best():
    impressions, conversions = np.array([50.0, 40.0]), np.array([9.0, 4.0])
    found = explore.shares(impressions, conversions, generator(), 1e-9)
    # Over a grid: the chance that the first posterior lies above the second.
    grid = np.linspace(0, 1, 20_001)[1:-1]
    first, second = stats.beta(10, 42), stats.beta(5, 37)
    exact = (first.pdf(grid) * second.cdf(grid)).sum() / first.pdf(grid).sum()
    assert found[0] == pytest.approx(exact, abs=0.03)


def test_the_better_source_gets_the_more_and_none_less_than_its_part_of_the_floor():
    impressions = np.full(3, 10_000.0)
    found = explore.shares(impressions, np.array([900.0, 100.0, 100.0]), generator(), 0.3)
    np.testing.assert_allclose(found, [0.8, 0.1, 0.1])


def test_outcomes_are_joined_by_request_and_item_and_count_for_each_source():
    shown = pa.table({
        "request_id": ["r1", "r1", "r1", "r2", "r2"], "item_id": ["a", "a", "b", "a", "a"],
        "source": ["popular", "trending", "popular", "popular", "popular"],
    })  # fmt: skip
    answers = pa.table({"request_id": ["r1", "r1", "r1", "r3"], "item_id": ["a", "a", "z", "a"]})
    found = explore.outcomes(shown, answers)
    rows = {row["source"]: row for row in found.to_pylist()}
    assert (rows["popular"]["impressions"], rows["popular"]["conversions"]) == (3, 1)
    assert (rows["trending"]["impressions"], rows["trending"]["conversions"]) == (1, 1)
    drawn = ("trending", "popular", "editorial")
    table = explore.share_table(SURFACE, 0.1, found, drawn, generator()).to_pylist()
    by_source = {row["source"]: row for row in table}
    assert by_source["popular"]["posterior_mean"] == pytest.approx(2 / 5)
    assert by_source["editorial"]["posterior_mean"] == 0.5
    assert sum(row["share"] for row in table) == pytest.approx(1.0)


def test_a_share_follows_the_log_among_the_sources_that_can_be_drawn():
    logged = {"popular": (50_000, 5_000), "trending": (50_000, 500), "new_arrivals": (50_000, 50)}
    counted = pa.table({
        "source": [*logged, "buy_again"],
        "impressions": [shown for shown, _ in logged.values()] + [9],
        "conversions": [bought for _, bought in logged.values()] + [9],
    })  # fmt: skip
    table = explore.share_table("feed", 0.1, counted, tuple(logged), generator()).to_pylist()
    assert [row["source"] for row in table] == list(logged)
    found = {row["source"]: row["share"] for row in table}
    assert found == pytest.approx({"popular": 0.9 + 0.1 / 3, "trending": 0.1 / 3,
                                   "new_arrivals": 0.1 / 3})  # fmt: skip
    assert explore.share_table("feed", 0.1, counted, (), generator()).num_rows == 0


def test_a_share_is_its_sources_wherever_its_row_stands():
    shop = crowd(400)
    whole = shares(SHARES)
    rows = whole.filter(pc.greater(whole["share"], 0)).sort_by([("source", "descending")])
    few, all_of_them = (
        shop.stages(ONE, shares=table).order(shop.block(shop.stages(ONE)))
        for table in (rows, whole)
    )
    assert few.columns["propensity"].equals(all_of_them.columns["propensity"])
    np.testing.assert_array_equal(few.published.pair, all_of_them.published.pair)
