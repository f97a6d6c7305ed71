"""Rules: what a scope means, which are in force, and what is refused in one message."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from jobs.errors import Fault
from jobs.ordering import rules
from tests.ordering.shop import AS_OF, catalogue, stated

ITEMS = catalogue(
    {"item_id": "1", "category": "FOOD > DELI > HAM", "brand": "ACME", "margin": 0.1},
    {"item_id": "2", "category": "FOOD > DELI", "seller": "ACME", "flags": ["Alcohol "]},
    {"item_id": "3", "category": "FOODSTUFF", "brand": "2", "margin": 0.6},
    {"item_id": "item:4", "category": None, "flags": ["adult", "alcohol"]},
)
BAN = {"rule_id": "r", "kind": "ban"}


def judged(*rows: dict, surfaces: tuple[str, ...] = ("homepage",)) -> list[dict]:
    return rules.in_force(stated(*rows), ITEMS, AS_OF, surfaces).to_pylist()


def named(scope: str) -> list[str]:
    goods = rules.Goods(ITEMS)
    kind, name = goods.readings(scope)[0]
    return [ITEMS["item_id"][code].as_py() for code in goods.named(kind, name)]


@pytest.mark.parametrize(
    ("scope", "items"),
    [
        ("item:1", ["1"]), ("1", ["1"]), ("item:item:4", ["item:4"]),
        ("category:FOOD", ["1", "2"]), ("FOOD > DELI", ["1", "2"]), ("category: FOODSTUFF", ["3"]),
        ("brand:ACME", ["1"]), ("seller:ACME", ["2"]), ("flag:ALCOHOL", ["2", "item:4"]),
        ("adult", ["item:4"]), ("*", ["1", "2", "3", "item:4"]), ("brand:none", []),
    ],
)  # fmt: skip
def test_a_scope_names_its_kind_or_is_looked_up_as_each(scope, items):
    assert named(scope) == items


def test_a_bare_name_that_two_kinds_know_is_refused_with_both():
    with pytest.raises(Fault, match=r"'ACME' may be brand:ACME or seller:ACME; write one of these"):
        judged({**BAN, "scope": "ACME"})
    with pytest.raises(Fault, match=r"'2' may be item:2 or brand:2"):
        judged({**BAN, "scope": "2"})


@pytest.mark.parametrize(
    ("times", "outcome"),
    [
        ({}, "in force"), ({"starts": AS_OF}, "in force"),
        ({"starts": AS_OF + timedelta(seconds=1)}, "not yet"), ({"ends": AS_OF}, "expired"),
        # Ends while the night runs: the run date counts, not the clock.
        ({"ends": AS_OF + timedelta(minutes=5)}, "in force"),
    ],
)  # fmt: skip
def test_a_rule_is_in_force_by_the_run_date(times, outcome):
    assert judged({**BAN, "scope": "item:1", **times})[0]["outcome"] == outcome


@pytest.mark.parametrize(
    ("rule", "outcome"),
    [
        ({"scope": "item:9"}, "unknown item"), ({"scope": "9"}, "unknown scope"),
        ({"scope": "9", "kind": "pin", "strength": 1.0}, "unknown item"),
        ({"scope": "brand:9"}, "unknown scope"),
        ({"scope": "item:1", "surface": "nowhere"}, "unknown surface"),
    ],
)  # fmt: skip
def test_what_a_rule_names_and_nobody_knows_is_an_outcome(rule, outcome):
    row = judged({**BAN, **rule})[0]
    assert (row["outcome"], row["items"]) == (outcome, int(outcome == "unknown surface"))


def test_a_margin_floor_counts_what_is_below_it_and_what_it_cannot_judge():
    row = judged({**BAN, "kind": "margin_floor", "scope": "*", "strength": 0.5})[0]
    assert (row["items"], row["unjudged"]) == (1, 2)


def test_every_ill_formed_rule_is_named_in_one_message():
    with pytest.raises(Fault) as caught:
        judged(
            {"rule_id": "a", "kind": "hide", "scope": "1"},
            {"rule_id": "b", "kind": "boost", "scope": "1"},
            {"rule_id": "c", "kind": "boost", "scope": "1", "strength": 0.0},
            {"rule_id": "d", "kind": "cap", "scope": "1", "strength": 0.0},
            {"rule_id": "e", "kind": "pin", "scope": "1", "strength": 1.5},
            {"rule_id": "f", "kind": "margin_floor", "scope": "1", "strength": 30.0},
            {"rule_id": "g", "kind": "ban", "scope": None},
            {"rule_id": "h", "kind": "ban", "scope": "1", "starts": AS_OF, "ends": AS_OF},
            {"rule_id": "i", "kind": "ban", "scope": "1"},
            {"rule_id": "i", "kind": "ban", "scope": "2"},
            {"rule_id": "j", "kind": "ban", "scope": "*"},
            {"rule_id": "k", "kind": "cap", "scope": "1", "strength": float("nan")},
        )
    for sentence in (
        "a: unknown kind 'hide'; it is one of ban", "b: a boost needs a strength",
        "c: the strength 0 of a boost is not above 0",
        "d: the strength 0 of a cap is not a whole number", "e: the strength 1.5 of a pin",
        "f: the strength 30 of a margin_floor is not a share", "g: scope missing",
        "h: it ends before it starts", "i: 2 rules have this rule_id",
        "j: only a margin_floor takes the scope *", "k: a cap needs a strength",
    ):  # fmt: skip
        assert sentence in str(caught.value)


def test_a_pin_of_a_category_is_refused():
    with pytest.raises(Fault, match="a pin takes one item, and 'category:FOOD' is a category"):
        judged({"rule_id": "p", "kind": "pin", "scope": "category:FOOD", "strength": 1.0})


def pin(name: str, item: str, place: float = 1.0, **more) -> dict:
    return {"rule_id": name, "kind": "pin", "scope": f"item:{item}", "strength": place, **more}


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([pin("p", "1"), {**BAN, "scope": "item:1"}],
         "the pin p and the ban r are about one item on every surface, in every region"),
        ([pin("p", "1", surface="homepage"), {**BAN, "scope": "category:FOOD", "region": "north"}],
         "the pin p and the ban r are about one item on the surface homepage, in the region north"),
        ([pin("p", "1"), {**BAN, "kind": "margin_floor", "scope": "*", "strength": 0.3}],
         "the pin p and the margin_floor r are about one item"),
        ([pin("p", "1"), pin("q", "2")], "the pins p and q put two items at one place"),
        ([pin("p", "1"), pin("q", "1", 2.0)], "the pins p and q put one item at two places"),
        ([pin("p", "1"), pin("q", "2", 2.0),
          {**BAN, "kind": "cap", "scope": "category:FOOD", "strength": 1.0}],
         "the cap r has 1 places and the pins p, q need more"),
    ],
)  # fmt: skip
def test_rules_that_contradict_are_one_error_that_names_both(rows, sentence):
    with pytest.raises(Fault, match="1 contradict: ") as caught:
        judged(*rows)
    assert sentence in str(caught.value)
    assert "Change the rules, or end one of them" in str(caught.value)


@pytest.mark.parametrize(
    "apart",
    [
        {"region": "north"}, {"surface": "discover"}, {"ends": AS_OF},
        {"starts": AS_OF + timedelta(days=1)},
    ],
)  # fmt: skip
def test_rules_that_never_meet_do_not_contradict(apart):
    other = {"region": "south"} if "region" in apart else {}
    if "surface" in apart:
        other = {"surface": "homepage"}
    rows = judged(
        pin("p", "1", **apart), {**BAN, "scope": "item:1", **other},
        surfaces=("homepage", "discover"),
    )  # fmt: skip
    assert len(rows) == 2


def test_the_effect_in_a_region_is_of_the_rules_of_all_regions_and_its_own():
    table = rules.in_force(
        stated(
            {**BAN, "scope": "item:1", "region": "north"},
            {**BAN, "rule_id": "s", "scope": "category:FOOD"},
            {"rule_id": "t", "kind": "boost", "scope": "item:3", "strength": 2.0},
            {"rule_id": "u", "kind": "boost", "scope": "flag:adult",
             "strength": 0.5},
        ),
        ITEMS, AS_OF, ["homepage"],
    )  # fmt: skip
    found = rules.Rules(rules.loaded(table, ITEMS), ITEMS.num_rows, "homepage")
    assert [rule.rule_id for rule in found.all] == ["r", "s", "t", "u"]
    np.testing.assert_array_equal(found.of("north").removed_by, [0, 1, -1, -1])
    np.testing.assert_array_equal(found.of("south").removed_by, [1, 1, -1, -1])
    np.testing.assert_array_equal(found.of(None).boost, [1, 1, 2, 0.5])
    np.testing.assert_array_equal(found.of(None).boosted_by, [-1, -1, 2, 3])
    assert not rules.Rules(rules.loaded(table, ITEMS), ITEMS.num_rows, "homepage").of("south").pins


def test_without_rules_there_is_nothing():
    assert rules.in_force(stated(), ITEMS, AS_OF, ["homepage"]).num_rows == 0
    none = rules.loaded(rules.in_force(stated(), ITEMS, AS_OF, ["x"]), ITEMS)
    assert not rules.Rules(none, ITEMS.num_rows, "x")
