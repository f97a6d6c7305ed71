"""Who is made anew in a refresh, on which surfaces, and why."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs import io
from jobs.errors import Fault
from jobs.ordering.surfaces import SURFACES
from jobs.refresh import route
from jobs.refresh.ladder import DORMANT
from tests.refresh.conftest import AS_OF, PARAMS, Shop, hour, lists, moved, rows, touched

# Of a shop in which everybody comes weekly: who was not here for four days is dormant.
TIERS = {"changes": {"hot_days": 1, "warm_days": 2, "dormant_days": 4, "hot_hours": 1,
                     "warm_hours": 5, "cold_hours": 5}}  # fmt: skip


def decisions(shop: Shop, as_of: object, what: str = "person") -> dict[str, tuple[str, str]]:
    """Tier and decision by id."""
    found = shop.table("ladder", as_of).filter(pc.field("what") == what).to_pylist()
    return {row["id"]: (row["tier"], row["decision"]) for row in found}


def test_everybody_stands_on_a_tier_and_what_is_saved_is_told(refreshed: Shop) -> None:
    people = decisions(refreshed, hour(6))
    assert set(people) == set(refreshed.table("persons", hour(6))["person_id"].to_pylist())
    assert {p for p, (_, why) in people.items() if why == "touched"} == touched(refreshed, hour(6))
    assert {why for _, why in people.values()} == {"touched", "kept"}
    counted = refreshed.table("ladder_counts", hour(6)).filter(pc.field("what") == "person")
    assert sum(counted["count"].to_pylist()) == len(people)
    saved = {row["what"]: row["saved"] for row in
             refreshed.table("change_counts", hour(6)).to_pylist()}  # fmt: skip
    kept = sum(why == "kept" for _, why in people.values())
    assert saved["persons"] == kept / len(people) > 0.5


def test_a_nightly_list_stands_where_an_hourly_one_is_made_anew(refreshed: Shop) -> None:
    before, after = (lists(refreshed.table("recommendations", at)) for at in (AS_OF, hour(6)))
    blocked = set(rows(refreshed.table("blocked_pairs", hour(6)), "person_id", "item_id"))
    facts = {p for p, why in rows(refreshed.table("touched_people", hour(6))) if why != "events"}
    people = touched(refreshed, hour(6)) - facts
    stood = 0
    for person in people:
        items = before["digest", person]
        stays = [item for item in items if (person, item) not in blocked]
        assert after["digest", person][: len(stays)] == stays
        assert len(after["digest", person]) == len(items)
        stood += stays == items
    assert stood > 0
    assert any(before["homepage", p] != after["homepage", p] for p in people)


def test_a_pair_has_one_score_and_one_row_of_features_on_all_surfaces(refreshed: Shop) -> None:
    places = refreshed.table("recommendations", hour(6))
    scores: dict[tuple[str, str], set[float]] = {}
    for surface, person, item, score in rows(places, "surface", "person_id", "item_id", "score"):
        assert SURFACES[surface].scored
        scores.setdefault((person, item), set()).add(score)
    assert all(len(found) == 1 for found in scores.values())
    known = rows(refreshed.table("features", hour(6)), "person_id", "item_id")
    assert len(known) == len(set(known))
    assert set(known) == set(scores)


def test_lists_beside_items_stand_but_for_what_changed(refreshed: Shop) -> None:
    def beside(as_of: object) -> dict[tuple[str, str], list[str]]:
        found: dict[tuple[str, str], list[str]] = {}
        columns = ("surface", "item_id", "rank", "listed_item_id")
        for surface, item, _, listed in rows(refreshed.table("item_lists", as_of), *columns):
            found.setdefault((surface, item), []).append(listed)
        return found

    before, after = beside(AS_OF), beside(hour(6))
    anew = {i for i, (_, why) in decisions(refreshed, hour(6), "item").items() if why != "kept"}
    same = [key for key in before if key[1] not in anew]
    assert len(same) > 50
    assert all(set(after.get(key, [])) <= set(before[key]) for key in same)


@pytest.fixture(scope="module")
def ladder(published: Shop, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The night, an hour whose tiers are tight, and an hour with longer homepages."""
    shop = moved(published, tmp_path_factory.mktemp("ladder"))
    shop.refresh(hour(2), params={**PARAMS, **TIERS})
    surfaces = {"homepage": {"length": 22}}
    shop.refresh(hour(3), params={**PARAMS, **TIERS, "recommendations": {"surfaces": surfaces}})
    return shop


def test_a_list_that_is_too_old_for_its_tier_is_made_anew_and_is_young_again(ladder: Shop) -> None:
    people = decisions(ladder, hour(2))
    aged = {p for p, (tier, why) in people.items() if why == "aged"}
    assert aged == {p for p, (tier, why) in people.items() if tier == "hot" and why != "touched"}
    assert aged
    made = dict(rows(ladder.table("ladder", hour(2)).filter(pc.field("what") == "person"),
                     "id", "made"))  # fmt: skip
    assert all(made[person] == hour(2) for person in aged)
    kept = {p for p, (_, why) in people.items() if why == "kept"}
    assert kept
    assert all(made[person] == AS_OF for person in kept)
    # Nothing is forgotten of whom nothing new is known: the vector is the night's.
    factors = [dict(rows(ladder.table("person_factors", at))) for at in (AS_OF, hour(2))]
    assert all(factors[0][p] == factors[1][p] for p in aged & factors[0].keys())


def test_another_configuration_makes_all_lists_of_persons_anew(ladder: Shop) -> None:
    changed = {row["surface"]: row["changed"]
               for row in ladder.table("surface_digests", hour(3)).to_pylist()}  # fmt: skip
    assert {name for name, other in changed.items() if other} == {"homepage"}
    people = decisions(ladder, hour(3))
    assert {why for _, why in people.values()} <= {"touched", "configured", "pooled"}
    found = lists(ladder.table("recommendations", hour(3)))
    assert {len(items) for (surface, _), items in found.items() if surface == "homepage"} == {22}
    counted = ladder.table("change_counts", hour(3)).to_pylist()
    assert [row["saved"] for row in counted if row["what"] == "persons"] == [0.0]


def test_the_dormant_get_the_pools_of_their_contexts(ladder: Shop) -> None:
    people = decisions(ladder, hour(3))
    pooled = {p for p, (_, why) in people.items() if why == "pooled"}
    assert pooled
    assert {people[p][0] for p in pooled} == {DORMANT}
    named = set(ladder.table("candidates", hour(3))["person_id"].to_pylist())
    assert not pooled & named
    assert named
    places = ladder.table("recommendations", hour(3))
    mine = places.filter(pc.is_in(places["person_id"], value_set=pa.array(sorted(pooled))))
    sources = {source for named_by in mine["sources"].to_pylist() for source in named_by}
    assert sources <= {"popular", "trending", "new_arrivals", "editorial"}
    # Who is kept has candidates as before.
    assert decisions(ladder, hour(2)).keys() == people.keys()


def test_what_shapes_the_model_is_a_nights_to_change_and_guard_limits_are_not(shop: Shop) -> None:
    source = str(shop.source)
    learnt = {**PARAMS, "interactions": {"fresh_days": 3.0}}
    with pytest.raises(Fault, match="the parameters of interactions are others"):
        route.open_refresh(shop.lake, hour(1), "run", source, learnt)
    guarded = {**PARAMS, "index": {"guard": {"churn": 0.5}}}
    assert route.open_refresh(shop.lake, hour(1), "run", source, guarded).base == io.label(AS_OF)
