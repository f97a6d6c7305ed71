"""Surfaces: what a configuration may say, and how parameters change it."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import params
from jobs.errors import Fault
from jobs.ordering import lists
from jobs.ordering.recommendations import Params, standing_in
from jobs.ordering.surfaces import (
    ALWAYS,
    CONTEXT,
    GRAINS,
    ITEM,
    KNOWN,
    PERSON,
    SURFACES,
    Surface,
)
from jobs.retrieval.sources.pools import SHARED
from jobs.scoring import features
from jobs.tables import SOURCES


def wrong(**surfaces: object) -> str:
    """What is said of these surfaces."""
    return "; ".join(params.faults("recommendations", Params, {"surfaces": surfaces}))


def test_the_surfaces_are_the_known_uses_each_of_its_grain():
    assert {name: surface.grain for name, surface in SURFACES.items()} == {
        "homepage": PERSON, "discover": PERSON, "digest": PERSON,
        "trending": CONTEXT, "feed": CONTEXT, "similar": ITEM, "cart": ITEM,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sources": {"buy_agian": 1.0}}, "sources of the grain person may hold buy_again, .* not "
         "buy_agian"),
        ({"sources": {"popular": 0.7, "trending": 0.7}}, "quotas must not exceed the whole list"),
        ({"sources": {"popular": 1.5}}, "quotas must be in"),
        ({"sources": {}}, "sources must name one"),
        ({"sources": {"popular": 0.7}, "blended": "retrieval"}, "add up to 1, not 0.7"),
        ({"grain": "context", "blended": "retrieval", "sources": {"buy_again": 1.0}},
         "sources of the grain context may hold .* not buy_again"),
        ({"grain": "context", "sources": {"popular": 1.0}}, "no person to score it for"),
        ({"grain": "context", "blended": "retrieval", "sources": {"popular": 1.0},
          "filters": ["eligibility", "blocked", "known"]}, "knows nobody's past"),
        ({"grain": "item", "sources": {"popular": 1.0}},
         "sources of the grain item may hold .* not popular"),
        ({"grain": "item", "sources": {"bought_together": 0.0, "item_to_item": 0.0}},
         "what is alike .*, or what is bought_together"),
        ({"grain": "item", "sources": {"item_to_item": 0.0}}, "what is alike .*, or what is"),
        ({"grain": "item", "sources": {"bought_together": 0.2}}, "has no quotas"),
        ({"grain": "item", "sources": {"bought_together": 0.0}, "objective": "value",
          "category_cap": 1}, "objective, category_cap: an item's list is not ordered by that"),
        ({"grain": "context", "blended": "retrieval", "sources": {"popular": 1.0},
          "shown_days": 3}, "knows nobody's past"),
        ({"grain": "item", "sources": {"bought_together": 0.0}, "blended": "retrieval"},
         "ordered by how alike"),
        ({"grain": "household"}, "grain .* not household"),
        ({"objective": "clicks"}, "objective .* not clicks"),
        ({"objective": "value", "blended": "retrieval", "sources": {"popular": 1.0}},
         "needs the ranker"),
        ({"filters": ["eligibility"]}, "filters must hold eligibility and blocked"),
        ({"fallback": ["buy_again"]}, "fallback .* not buy_again"),
        ({"blended": "ordering"}, "needs explore_places"),
        ({"tail_from": -1}, "tail_from must not be negative"),
        ({"grain": "item", "sources": {"bought_together": 0.0}, "tail_from": 3}, "not ordered by"),
        ({"blended": "retrieval", "sources": {"popular": 1.0}, "tail_from": 3}, "ranker orders"),
        ({"explore_places": 5, "explore_first": 18}, "must end in the list"),
        ({"length": 61}, "pool_depth must be at least the length of checkout, 61"),
        ({"online": ["everything"]}, "online .* not everything"),
        ({"cadence": "weekly"}, "cadence .* not weekly"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_said_before_the_night(changes, sentence):
    assert re.search(sentence, wrong(checkout=changes))
    assert wrong(checkout={}) == ""


def test_a_mistyped_parameter_of_a_surface_is_named_with_those_there_are():
    assert "recommendations.surfaces.homepage has no parameter 'lenght'" in wrong(
        homepage={"lenght": 9}
    )
    assert "recommendations.surfaces.homepage.length is 'ten'" in wrong(homepage={"length": "ten"})
    assert "surfaces is 3; expected parameters by name (homepage, " in "; ".join(
        params.faults("recommendations", Params, {"surfaces": 3})
    )
    assert "sources is {'popular': 'much'}" in wrong(homepage={"sources": {"popular": "much"}})
    explored = wrong(homepage={"explore_places": 1, "explore_first": 2})
    assert "a homepage must not explore" in explored


def test_surfaces_are_changed_added_and_taken_away():
    built = params.build(Params, {"surfaces": {
        "homepage": {"length": 12}, "digest": None, "checkout": {"sources": {"popular": 0.0}},
    }})  # fmt: skip
    assert built.surfaces["homepage"].length == 12
    assert built.surfaces["homepage"].sources == SURFACES["homepage"].sources
    assert built.surfaces["checkout"] == Surface(sources={"popular": 0.0})
    assert list(built.surfaces) == [
        "homepage", "discover", "trending", "feed", "similar", "cart", "checkout",
    ]  # fmt: skip
    nobody = {name: None for name, one in SURFACES.items() if one.grain == PERSON}
    assert "with a person's lists at least" in wrong(**nobody)


def test_a_list_follows_what_people_do_by_the_hour_or_where_it_leaves_out_what_they_bought():
    assert {name for name, one in SURFACES.items() if one.follows} == {
        "homepage", "discover", "trending", "feed",
    }  # fmt: skip
    sources = {"popular": 0.0}
    assert Surface(sources=sources, filters=(*ALWAYS, KNOWN)).follows
    assert not Surface(sources=sources).follows


def test_a_night_is_refused_with_the_surface_that_is_wrong():
    from jobs.__main__ import check_overrides

    with pytest.raises(Fault, match="digest: length must be 1 to 500"):
        check_overrides({"recommendations": {"surfaces": {"digest": {"length": 0}}}})


@pytest.mark.parametrize("name", SURFACES)
def test_what_stands_in_is_a_shared_list_of_twice_the_length(name):
    surface = SURFACES[name]
    found = standing_in(surface)
    assert found.grain == CONTEXT
    assert found.length == 2 * surface.length
    assert list(found.sources) == [surface.fallback[0]]
    assert not found.scored
    assert found.grain in GRAINS


def overall(
    scores: list[dict[str, float]], first: int, least: float, shown: dict[str, int] | None = None,
    length: int = 3, last: int = 3,
) -> list[str]:  # fmt: skip
    """Lists of three, a word each, of people's items with these scores."""
    rows = [(p, item, mine[item]) for p, mine in enumerate(scores) for item in sorted(mine)]
    items = sorted({item for _, item, _ in rows})
    person = np.array([row[0] for row in rows])
    code = np.array([items.index(row[1]) for row in rows])
    pairs = features.Pairs(person, code, np.ones((len(rows), 1)), np.arange(len(rows)))
    held = np.array([(shown or {}).get(item, 0) for item in items])
    score = np.array([row[2] for row in rows])
    rating = lists.over_catalogue(pairs, score, length, first, last, least, held)
    ranked = np.lexsort((-rating, person))
    found = ["".join(items[code[at]] for at in ranked[person[ranked] == one])[:length]
             for one in range(len(scores))]  # fmt: skip
    # The count is of the lists as they are now.
    for number, item in enumerate(items):
        count = (shown or {}).get(item, 0) + sum(item in one for one in found)
        assert held[number] == count
    return found


def test_the_end_of_a_list_goes_to_what_is_in_nobodys():
    # Everybody has a, b and c; d is worth most to the second, who gives up c for it.
    people = [{"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.3}, {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.5}]
    assert overall(people, 3, 0.5) == ["abc", "abd"]
    assert overall(people, 3, 0.8) == ["abc", "abc"]
    # It stands in another list already, of people before these.
    assert overall(people, 3, 0.5, {"d": 1}) == ["abc", "abc"]
    # What leaves is still in a list, or it does not leave.
    assert overall(people[:1], 3, 0.1) == ["abc"]
    assert overall(people[:1], 3, 0.1, {"c": 1}) == ["abd"]


def test_what_stands_behind_the_places_that_change_is_in_a_list_too():
    people = [{"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6}] * 2
    assert overall(people, 3, 0.1, length=4) == ["abcd", "abcd"]
    # The last place is a quota's, and stays what it is.
    people = [{**mine, "e": 0.5} for mine in people]
    assert overall(people, 3, 0.1, length=4) == ["abed", "abcd"]


def test_an_item_that_several_want_goes_where_least_is_lost_and_the_head_stays():
    people = [
        {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6, "e": 0.1},
        {"a": 0.9, "b": 0.8, "c": 0.4, "d": 0.39, "e": 0.1},
        {"a": 0.9, "b": 0.8, "c": 0.3, "e": 0.2},
    ]
    # d costs the first 0.1 and the second 0.01; e costs the third 0.1 and everybody else more.
    assert overall(people, 3, 0.0) == ["abc", "abd", "abe"]
    assert overall(people, 4, 0.0) == ["abc", "abc", "abc"]


@given(st.data())
def test_lists_over_the_catalogue_hold_no_fewer_items_and_keep_their_heads(data):
    names = "abcdefgh"
    worth = st.integers(1, 50).map(lambda value: value / 50)
    people = data.draw(
        st.lists(st.dictionaries(st.sampled_from(names), worth, min_size=4), min_size=1, max_size=6)
    )
    least = data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    before, after = overall(people, 4, least), overall(people, 2, least)
    assert len(set("".join(after))) >= len(set("".join(before)))
    for one, other, mine in zip(before, after, people, strict=True):
        assert one[0] == other[0]
        gone, come = sorted(set(one) - set(other)), sorted(set(other) - set(one))
        assert len(gone) == len(come)
        assert len(set(other)) == 3
        assert all(mine[item] >= least * min(mine[left] for left in gone) for item in come)


# --- blended by fixed shares -------------------------------------------------------------------
def blended(
    named: dict[str, list[str]], shares: dict[str, float], chain: tuple[str, ...] = ()
) -> list[str]:
    """The list of one person from the orders of sources."""
    items = sorted({item for ranked in named.values() for item in ranked})
    rows = [
        (items.index(item), SOURCES.index(source), rank)
        for source, ranked in named.items()
        for rank, item in enumerate(ranked, start=1)
    ]
    item, source, rank = np.array(rows, np.int64).reshape(-1, 3).T
    pairs = features.wide(features.Named(np.zeros(len(item), np.int64), item, source, rank))
    score = lists.shared_out(pairs, shares, chain)
    order = np.argsort(-score, kind="stable")
    return [items[pairs.item[place]] for place in order if score[place] > 0]


def test_shares_hold_in_every_stretch_of_a_list():
    named = {
        "popular": [f"p{n}" for n in range(9)], "trending": [f"t{n}" for n in range(9)],
        "new_arrivals": ["n0"],
    }  # fmt: skip
    found = blended(named, {"popular": 0.5, "trending": 0.25, "new_arrivals": 0.25})
    assert found[:4] == ["p0", "t0", "n0", "p1"]
    # What a source cannot fill goes to the others, in their proportion.
    assert [item[0] for item in found[4:10]] == ["p", "t", "p", "p", "t", "p"]
    assert sorted(found) == sorted(item for ranked in named.values() for item in ranked)


def test_an_item_of_several_sources_stands_once_where_it_comes_first():
    named = {"popular": ["a", "b", "c"], "trending": ["b", "d"]}
    assert blended(named, {"popular": 0.5, "trending": 0.5}) == ["a", "b", "c", "d"]


def test_the_chain_fills_behind_the_shares_one_source_after_the_other():
    named = {"popular": ["a"], "trending": ["t", "a"], "editorial": ["e", "t"], "buy_again": ["x"]}
    assert blended(named, {"popular": 1.0}, ("trending", "editorial")) == ["a", "t", "e"]


@given(st.data())
def test_any_start_of_a_list_gives_each_source_its_share_to_within_a_place(data):
    shares = data.draw(st.lists(st.integers(1, 9), min_size=2, max_size=4))
    names = SHARED[: len(shares)]
    named = {name: [f"{name} {n:02d}" for n in range(40)] for name in names}
    found = blended(
        named, {name: share / sum(shares) for name, share in zip(names, shares, strict=True)}
    )
    for length in range(1, 30):
        for name, share in zip(names, shares, strict=True):
            count = sum(item.startswith(name) for item in found[:length])
            assert abs(count - length * share / sum(shares)) <= len(shares) - 1
