"""Ordering on a block of people: what each rule and stage does, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.ordering import lists
from jobs.ordering.diversity import Diversity
from jobs.ordering.explore import Explore
from jobs.ordering.stages import Demotion, Ordering
from tests.ordering.shop import SURFACE, Shop, catalogue, changed, traits

FALLING = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6, "e": 0.5}
ITEMS = catalogue(
    {"item_id": "a", "category": "FOOD > DELI", "seller": "x", "margin": 0.1},
    {"item_id": "b", "category": "FOOD > DELI", "seller": "y", "margin": 0.4},
    {"item_id": "c", "category": "FOOD > DELI", "seller": "x", "margin": None},
    {"item_id": "d", "category": "DRINKS", "seller": "y", "margin": 0.4},
    {"item_id": "e", "category": "DRINKS", "seller": "y", "margin": 0.4},
    {"item_id": "z", "category": "TOYS", "brand": "toy", "flags": ["adult"]},
)
THREE = Ordering(SURFACE, 3)


def ban(scope: str, **more) -> dict:
    return {"rule_id": f"ban {scope}", "kind": "ban", "scope": scope, **more}


def pin(scope: str, place: int, **more) -> dict:
    return {"rule_id": f"pin {scope}", "kind": "pin", "scope": scope, "strength": place, **more}


def rule(kind: str, scope: str, strength: float, **more) -> dict:
    name = f"{kind} {scope}"
    return {"rule_id": name, "kind": kind, "scope": scope, "strength": strength, **more}


def one(surface: Ordering, *rules: dict, **more) -> tuple[list[str], dict[str, tuple[int, float]]]:
    """The list of one person with five candidates, and what changed it."""
    shop = Shop(ITEMS, [FALLING])
    stages = shop.stages(surface, *rules)
    return shop.lists(stages, **more)[0], changed(stages)


def test_without_rules_and_stages_the_list_is_the_models():
    assert one(THREE) == (["a", "b", "c"], {"all": (0, 0.0)})


def test_a_ban_removes_its_items_and_owns_the_places_that_others_fill():
    listed, causes = one(THREE, ban("item:a"), ban("item:b"))
    assert listed == ["c", "d", "e"]
    assert causes == {"ban item:a": (1, 0.3), "ban item:b": (1, 0.3), "all": (2, 0.6)}


def test_a_place_that_a_ban_leaves_empty_is_a_changed_one():
    listed, causes = one(THREE, ban("category:FOOD"))
    assert listed == ["d", "e"]
    # d and e fill the rooms of a and b; c's stays empty.
    assert causes["all"] == (3, pytest.approx(0.9 + 0.8 + 0.7 - 0.6 - 0.5))


def test_a_ban_of_what_the_model_did_not_list_changes_nothing():
    assert one(THREE, ban("item:e")) == (["a", "b", "c"], {"ban item:e": (0, 0.0), "all": (0, 0.0)})


def test_a_margin_floor_removes_low_margins_and_keeps_unknown_ones():
    listed, causes = one(THREE, rule("margin_floor", "*", 0.3))
    assert listed == ["b", "c", "d"]
    assert causes["margin_floor *"] == (1, 0.3)


def test_a_boost_divides_the_place_and_owns_the_place_that_it_wins():
    # d at 4 competes as at 2, behind b, who stands there by right.
    listed, causes = one(THREE, rule("boost", "item:d", 2.0))
    assert listed == ["a", "b", "d"]
    assert causes["boost item:d"] == (1, 0.1)


def test_a_boost_within_the_list_is_a_changed_place_that_costs_no_score():
    listed, causes = one(THREE, rule("boost", "item:c", 2.0))
    assert listed == ["a", "c", "b"]
    assert causes["boost item:c"] == (1, 0.0)


def test_a_boost_below_1_lowers():
    listed, causes = one(THREE, rule("boost", "item:a", 0.2))
    assert listed == ["b", "c", "d"]
    assert causes["boost item:a"] == (1, 0.3)


def test_what_rules_take_out_raise_and_lower_is_told_by_the_persons_region():
    shop = Shop(ITEMS, [FALLING, FALLING], regions=["north", "south"])
    stages = shop.stages(
        THREE, ban("item:a", region="north"), rule("boost", "item:b", 2.0),
        rule("boost", "item:c", 0.5, region="south"),
    )  # fmt: skip
    block = shop.block(stages)
    told = [
        [(int(block.pairs.person[n]), shop.ids[block.pairs.item[n]]) for n in np.flatnonzero(one)]
        for one in stages.ruled(block.pairs, block.regions)
    ]
    assert told == [[(0, "a")], [(0, "b"), (1, "b")], [(1, "c")]]


def test_boosts_of_one_item_multiply_and_the_first_that_agrees_owns_the_change():
    listed, causes = one(
        THREE, rule("boost", "item:e", 0.9), rule("boost", "category:DRINKS", 10.0)
    )
    assert listed == ["d", "e", "a"]
    assert causes["boost category:DRINKS"][0] == 2
    assert causes["boost item:e"] == (0, 0.0)


def test_a_pin_stands_at_its_place_and_the_others_move_up_and_down():
    listed, causes = one(THREE, pin("item:e", 1))
    assert listed == ["e", "a", "b"]
    assert causes["pin item:e"] == (1, pytest.approx(0.2))


def test_a_pin_where_the_model_had_the_item_changes_nothing():
    assert one(THREE, pin("item:b", 2)) == (["a", "b", "c"], {"pin item:b": (0, 0), "all": (0, 0)})


def test_a_pin_holds_for_whom_no_source_named_the_item():
    listed, causes = one(THREE, pin("item:z", 2))
    assert listed == ["a", "z", "b"]
    assert causes["pin item:z"] == (1, 0.7)


def test_a_pin_does_not_reach_whom_the_item_may_not_be_shown_to():
    assert one(THREE, pin("item:e", 1), not_allowed=((0, "e"),))[0] == ["a", "b", "c"]
    assert one(THREE, pin("item:z", 1), not_allowed=((0, "z"),))[0] == ["a", "b", "c"]


def test_a_pin_beyond_the_end_of_a_short_list_stands_at_its_end():
    shop = Shop(ITEMS, [{"a": 0.9}])
    assert shop.lists(shop.stages(Ordering(SURFACE, 9), pin("item:z", 8))) == [["a", "z"]]


def test_a_cap_limits_the_places_of_its_scope_and_holds_over_pins():
    listed, causes = one(THREE, rule("cap", "category:FOOD", 1))
    assert listed == ["a", "d", "e"]
    assert causes["cap category:FOOD"] == (2, pytest.approx(0.4))
    listed, _ = one(THREE, rule("cap", "category:FOOD", 1), pin("item:c", 3))
    assert listed == ["d", "e", "c"]


def test_rules_hold_in_their_region_alone():
    shop = Shop(ITEMS, [FALLING, FALLING, FALLING], regions=["north", "south", None])
    stages = shop.stages(
        THREE, ban("item:a", region="north"), rule("cap", "category:FOOD", 1, region="south")
    )
    assert shop.lists(stages) == [["b", "c", "d"], ["a", "d", "e"], ["a", "b", "c"]]


def test_rules_of_another_surface_do_nothing():
    shop = Shop(ITEMS, [FALLING])
    stages = shop.stages(THREE, ban("item:a", surface="discover"))
    assert shop.lists(stages) == [["a", "b", "c"]]


def test_a_quota_holds_under_rules():
    shop = Shop(ITEMS, [{**FALLING, "z": 0.01}], named_by={(0, "z"): ("new_arrivals",)})
    surface = Ordering(SURFACE, 3, {"new_arrivals": 1})
    assert shop.lists(shop.stages(surface)) == [["a", "b", "z"]]
    assert shop.lists(shop.stages(surface, ban("item:a"))) == [["b", "c", "z"]]
    assert shop.lists(shop.stages(surface, pin("item:e", 1))) == [["e", "a", "z"]]


def test_what_was_bought_lately_is_demoted_and_counted_beside_the_rules():
    surface = Ordering(SURFACE, 3, bought=Demotion(7, 0.1))
    listed, causes = one(surface, demoted=((0, "b"),))
    assert listed == ["a", "c", "d"]
    assert causes == {"demotion": (1, 0.2), "all": (0, 0.0)}


def test_a_category_has_so_many_places_of_a_list_and_more_where_nothing_else_is_left():
    surface = Ordering(SURFACE, 4, diversity=Diversity(category_cap=1))
    listed, causes = one(surface)
    assert listed == ["a", "d", "b", "c"]
    assert causes == {"diversity": (0, 0.0), "all": (0, 0.0)}
    listed, causes = one(Ordering(SURFACE, 2, diversity=Diversity(category_cap=1)))
    assert (listed, causes["diversity"]) == (["a", "d"], (1, pytest.approx(0.2)))


def test_neighbours_are_of_different_categories_where_they_can_be():
    surface = Ordering(SURFACE, 5, diversity=Diversity(apart=("category",)))
    assert one(surface)[0] == ["a", "d", "b", "e", "c"]
    # The place before a pin looks at the pin.
    assert one(surface, pin("item:b", 2))[0] == ["d", "b", "e", "a", "c"]


def test_neighbours_are_of_different_sellers_where_they_can_be():
    surface = Ordering(SURFACE, 4, diversity=Diversity(apart=("seller",)))
    assert one(surface)[0] == ["a", "b", "c", "d"]
    assert one(surface, ban("item:b"))[0] == ["a", "d", "c", "e"]


def test_marginal_relevance_puts_the_unlike_before_the_like():
    vectors = np.eye(6, 3, dtype=np.float32)[[0, 0, 1, 0, 2, 2]]
    shop = Shop(ITEMS, [FALLING])
    for unlikeness, expected in ((0.0, "abcd"), (0.6, "aceb")):
        surface = Ordering(SURFACE, 4, diversity=Diversity(unlikeness=unlikeness))
        stages = shop.stages(surface, traits=traits(ITEMS, vectors))
        assert shop.lists(stages) == [list(expected)]


def test_every_place_says_by_what_it_is_held():
    shop = Shop(ITEMS, [FALLING])
    surface = Ordering(SURFACE, 4, bought=Demotion(7, 0.1))
    stages = shop.stages(surface, pin("item:z", 2), ban("item:a"))
    ordered = shop.order(stages, demoted=((0, "b"),))
    found = [column.to_pylist() for column in ordered.columns.values()]
    # Under the rules alone b, z, c and d would stand; e fills the room of b, which was lowered.
    assert list(ordered.columns) == ["propensity", "placed_by", "rule_id", "model_rank"]
    assert found == [
        [1.0] * 4,
        ["model", "rule", "model", "demotion"],
        [None, "pin item:z", None, None],
        [3, None, 4, None],
    ]


# --- promises that every set of rules keeps --------------------------------------------------
@st.composite
def nights(draw) -> tuple[Shop, Ordering, list[dict], tuple[tuple[int, str], ...]]:
    """A small shop, a surface, rules that do not contradict, and pairs that may not be shown."""
    count = draw(st.integers(2, 9))
    ids = [f"i{n}" for n in range(count)]
    items = catalogue(*[
        {"item_id": one, "category": draw(st.sampled_from(["A", "A > B", "C"])),
         "seller": draw(st.sampled_from(["x", "y", None])),
         "margin": draw(st.sampled_from([0.1, 0.5, None]))}
        for one in ids
    ])  # fmt: skip
    people = draw(st.integers(1, 3))
    scores = [
        {one: draw(st.sampled_from([0.1, 0.3, 0.5, 0.8])) for one in draw(st.sets(
            st.sampled_from(ids), min_size=1))}
        for _ in range(people)
    ]  # fmt: skip
    named_by = {
        (person, one): draw(st.sampled_from([("buy_again",), ("popular", "new_arrivals")]))
        for person, mine in enumerate(scores)
        for one in mine
    }
    pinned = draw(st.lists(st.sampled_from(ids), unique=True, max_size=2))
    banned = draw(st.sets(st.sampled_from(ids), max_size=2)) - set(pinned)
    region = st.sampled_from([None, "north"])
    rules = [pin(f"item:{one}", place, region=draw(region)) for place, one in enumerate(pinned, 2)]
    rules += [ban(f"item:{one}", region=draw(region)) for one in sorted(banned)]
    if draw(st.booleans()):
        rules.append(rule("cap", "category:A", draw(st.integers(2, 4))))
    if draw(st.booleans()) and not pinned:
        rules.append(rule("margin_floor", "*", 0.3))
    for scope in draw(st.lists(st.sampled_from(["A", "C"]), unique=True)):
        rules.append(rule("boost", f"category:{scope}", draw(st.sampled_from([0.4, 3.0]))))
    length = draw(st.integers(3, 6))
    explore = draw(st.sampled_from([0, 0, 1, 2]))
    surface = Ordering(
        "feed", length, draw(st.sampled_from([{}, {"new_arrivals": 1}])),
        diversity=draw(st.sampled_from([
            Diversity(), Diversity(1), Diversity(apart=("category", "seller")),
        ])),
        explore=Explore(explore, length - explore + 1 if explore else 1),
        bought=Demotion(draw(st.sampled_from([0, 7])), 0.3),
    )  # fmt: skip
    pairs = st.tuples(st.integers(0, people - 1), st.sampled_from(ids))
    not_allowed = tuple(draw(st.sets(pairs, max_size=4)))
    regions = [draw(st.sampled_from([None, "north", "south"])) for _ in range(people)]
    shop = Shop(items, scores, named_by=named_by, regions=regions)
    return shop, surface, rules, not_allowed


@settings(max_examples=300, deadline=None)
@given(nights())
def test_whatever_the_rules_and_stages_their_promises_hold(night):
    shop, surface, rules, not_allowed = night
    stages = shop.stages(surface, *rules)
    block = shop.block(stages, not_allowed=not_allowed, demoted=((0, shop.ids[0]),))
    ordered = stages.order(block)
    published, pairs = ordered.published, block.pairs
    rows = [
        (int(pairs.person[pair]), shop.ids[pairs.item[pair]], int(rank))
        for pair, rank in zip(published.pair, published.rank, strict=True)
    ]
    category = dict(zip(shop.ids, shop.items["category"].to_pylist(), strict=True))
    margin = dict(zip(shop.ids, shop.items["margin"].to_pylist(), strict=True))
    for person, region in enumerate(shop.regions):
        mine = {item: rank for who, item, rank in rows if who == person}
        here = [one for one in rules if one.get("region") in (None, region)]
        removed = {one["scope"][5:] for one in here if one["kind"] == "ban"}
        if any(one["kind"] == "margin_floor" for one in here):
            removed |= {item for item, m in margin.items() if m is not None and m < 0.3}
        caps = [int(one["strength"]) for one in here if one["kind"] == "cap"]
        blocked = {item for who, item in not_allowed if who == person}
        assert not set(mine) & (removed | blocked)
        assert sorted(mine.values()) == list(range(1, len(mine) + 1))
        in_cap = [item for item in mine if category[item].startswith("A")]
        for cap in caps:
            assert len(in_cap) <= cap
        pins = {
            one["scope"][5:]: int(one["strength"]) for one in here
            if one["kind"] == "pin" and one["strength"] <= surface.length
        }  # fmt: skip
        for item, place in pins.items():
            if item not in blocked:
                assert mine[item] == min(place, len(mine)) or mine[item] >= len(mine) - 1
        # A list is as long as its eligible candidates allow.
        eligible = (set(shop.scores[person]) | set(pins)) - removed - blocked
        inside = [item for item in eligible if category[item].startswith("A")]
        room = len(eligible) - max(0, len(inside) - caps[0]) if caps else len(eligible)
        if not (caps and surface.explore):
            assert len(mine) == min(surface.length, room)
    # Every change has a cause, and the causes together lose what the lists lost.
    table = {row["cause"]: row for row in stages.overridden().to_pylist()}
    lost = block.score[ordered.model.pair].sum() - block.score[published.pair].sum()
    parts = [row for name, row in table.items() if name != "all"]
    assert sum(row["value_lost"] for row in parts) == pytest.approx(lost, abs=1e-9)
    by_rules = [row for row in parts if row["kind"] != "stage"]
    assert table["all"]["slots"] == sum(row["slots"] for row in by_rules)
    if "diversity" not in surface.stages():
        assert "diversity" not in table
    if not rules:
        assert table["all"]["slots"] == 0


@settings(max_examples=150, deadline=None)
@given(nights())
def test_stages_change_nothing_of_what_rules_are_said_to_do(night):
    shop, surface, rules, not_allowed = night
    counted = []
    for one in (surface, Ordering("feed", surface.length, surface.slots)):
        stages = shop.stages(one, *rules)
        shop.order(stages, not_allowed=not_allowed, demoted=((0, shop.ids[0]),))
        rows = stages.overridden().to_pylist()
        counted.append([row for row in rows if row["kind"] != "stage"])
    assert counted[0] == counted[1]


@settings(max_examples=200, deadline=None)
@given(nights())
def test_place_by_place_gives_the_lists_that_filling_gives(night):
    shop, surface, rules, not_allowed = night
    plain = Ordering("feed", surface.length, surface.slots)
    bans = [one for one in rules if one["kind"] in ("ban", "margin_floor")]
    stages = shop.stages(plain, *bans)
    block = shop.block(stages, not_allowed=not_allowed)
    effects = [stages.rules.of(region) for region in shop.regions]
    removed = np.array([
        effects[person].removed_by[item] >= 0
        for person, item in zip(block.pairs.person, block.pairs.item, strict=True)
    ], bool)  # fmt: skip
    expected = lists.fill(
        block.pairs, block.score, block.allowed & ~removed, plain.length, plain.slots
    )
    # Through the place-by-place path, whether a rule is in force or not.
    found, propensity, _, _ = stages._ordered(block, plain)
    np.testing.assert_array_equal(found.pair, expected.pair)
    np.testing.assert_array_equal(found.rank, expected.rank)
    assert (propensity == 1.0).all()


@settings(max_examples=100, deadline=None)
@given(nights(), st.sampled_from(["cubed", "logit", "shifted"]))
def test_the_scale_of_the_scores_changes_no_list(night, scale):
    shop, surface, rules, not_allowed = night
    turned = {
        "cubed": lambda s: s**3, "logit": lambda s: float(np.log(s / (1 - s))),
        "shifted": lambda s: s - 100.0,
    }[scale]  # fmt: skip
    before = shop.lists(shop.stages(surface, *rules), not_allowed=not_allowed)
    shop.scores = [{item: turned(s) for item, s in mine.items()} for mine in shop.scores]
    # What only a pin names is scored 0 here, which is no score of the turned scale.
    if any(one["kind"] == "pin" for one in rules) and scale != "cubed":
        return
    assert shop.lists(shop.stages(surface, *rules), not_allowed=not_allowed) == before
