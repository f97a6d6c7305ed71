"""Who is made anew in a refresh, on which surfaces, and why."""

from __future__ import annotations

import dataclasses
import shutil
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs import io
from jobs.errors import Fault
from jobs.night import Night
from jobs.ordering import item_lists, recommendations
from jobs.ordering.beside import Beside
from jobs.ordering.surfaces import CONTEXT, ITEM, PERSON, SURFACES
from jobs.refresh import changes, route
from jobs.refresh.ladder import DORMANT
from jobs.retrieval import candidates
from tests.refresh.conftest import AS_OF, PARAMS, Shop, hour, lists, moved, rows, touched

# Of a shop in which everybody comes weekly: who was not here for four days is dormant.
TIERS = {"changes": {"hot_days": 1, "warm_days": 2, "dormant_days": 4, "hot_hours": 1,
                     "warm_hours": 5, "cold_hours": 5}}  # fmt: skip


def decisions(shop: Shop, as_of: object, what: str = "person") -> dict[str, tuple[str, str]]:
    """Tier and decision by id."""
    found = shop.table("ladder", as_of).filter(pc.field("what") == what).to_pylist()
    return {row["id"]: (row["tier"], row["decision"]) for row in found}


def test_everybody_stands_on_a_tier_and_how_many_are_due_is_told(refreshed: Shop) -> None:
    people = decisions(refreshed, hour(6))
    assert set(people) == set(refreshed.table("persons", hour(6))["person_id"].to_pylist())
    assert {p for p, (_, why) in people.items() if why == "touched"} == touched(refreshed, hour(6))
    assert {why for _, why in people.values()} == {"touched", "kept"}
    counted = refreshed.table("ladder_counts", hour(6)).filter(pc.field("what") == "person")
    assert sum(counted["count"].to_pylist()) == len(people)
    due = dict(rows(refreshed.table("change_counts", hour(6)), "what", "due"))
    assert due["persons"] == sum(why != "kept" for _, why in people.values()) < len(people) / 2


def test_who_is_untouched_filled_or_made_anew_is_told_by_the_lists_themselves(
    refreshed: Shop, published: Shop
) -> None:
    (all_,) = published.table("list_work", AS_OF).to_pylist()
    everybody = published.table("persons", AS_OF).num_rows
    assert all_ == {"what": "persons", "known": everybody, "untouched": 0, "filled": 0,
                    "anew": everybody}  # fmt: skip
    (told,) = refreshed.table("list_work", hour(6)).to_pylist()
    assert told["known"] == told["untouched"] + told["filled"] + told["anew"]
    before, after = (lists(refreshed.table("recommendations", at)) for at in (AS_OF, hour(6)))
    moved = {who for (surface, who) in before if before[surface, who] != after[surface, who]}
    due = {p for p, (_, why) in decisions(refreshed, hour(6)).items() if why != "kept"}
    assert told["anew"] >= len(due)
    # Some lists that are made anew come out as they were.
    assert len(moved) <= told["filled"] + told["anew"] < told["known"]
    assert len(moved - due) <= told["filled"] + told["anew"] - len(due)


def test_people_are_counted_once_by_the_most_that_was_done() -> None:
    people = pa.array(list("abcdef"))
    found = recommendations.work(people, pa.array(["a", "b"]), pa.array(["b", "c", "gone"]))
    assert found.to_pylist() == [
        {"what": "persons", "known": 6, "untouched": 3, "filled": 1, "anew": 2}
    ]


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
        ordered = refreshed.table("item_lists", as_of).sort_by("rank")
        for surface, item, listed in zip(
            *(ordered[name].to_pylist() for name in ("surface", "item_id", "listed_item_id")),
            strict=True,
        ):
            found.setdefault((surface, item), []).append(listed)
        return found

    before, after = beside(AS_OF), beside(hour(6))
    anew = {i for i, (_, why) in decisions(refreshed, hour(6), "item").items() if why != "kept"}
    same = [key for key in before if key[1] not in anew]
    assert len(same) > 50
    items = refreshed.table("items", hour(6)).sort_by("item_id")
    nobody = refreshed.table("ineligible_items", hour(6)).filter(pc.field("kind") == "availability")
    here = Beside.of(items).without(nobody["item_id"])
    place = {item: code for code, item in enumerate(here.item_ids.to_pylist())}

    def may(item: str, listed: list[str]) -> list[str]:
        left, right = np.full(len(listed), place[item]), np.array([place[one] for one in listed])
        return [one for one, stays in zip(listed, here.holds(left, right), strict=True) if stays]

    stands = {key: may(key[1], before[key]) for key in same}
    assert {key: after[key] for key in same if stands[key]} == {
        key: listed for key, listed in stands.items() if listed
    }


def test_an_item_that_may_be_served_and_has_no_list_gets_one(
    refreshed: Shop, tmp_path: Path
) -> None:
    shop = moved(refreshed, tmp_path)
    kept = {i for i, (_, why) in decisions(shop, hour(6), "item").items() if why == "kept"}
    folder = shop.lake.published("item_lists", AS_OF).table("item_lists")
    then = io.read_arrow(folder)
    similar = then.filter(pc.field("surface") == "similar")
    item = min(kept & set(similar["item_id"].to_pylist()))
    shutil.rmtree(folder)
    # As where a rule banned it in the night.
    io.write_arrow(folder, then.filter(pc.field("item_id") != item))
    night = shop.context("item_lists", hour(6))
    night.refresh = changed_by(shop, hour(6))
    night.reset()
    item_lists.refresh(night, night.params_of("item_lists"))
    found = io.read_arrow(night.staged / "item_lists").filter(pc.field("surface") == "similar")
    assert item in found["item_id"].to_pylist()
    assert set(similar["item_id"].to_pylist()) & kept <= set(found["item_id"].to_pylist())


def test_a_nightly_list_of_what_is_new_to_a_person_is_made_anew_for_who_did_something(
    refreshed: Shop, tmp_path: Path
) -> None:
    shop = moved(refreshed, tmp_path)
    night = shop.context("recommendations", hour(6))
    night.refresh = changed_by(shop, hour(6))
    night.overrides |= {"recommendations": {"surfaces": {"discover": {"cadence": "nightly"}}}}
    night.reset()
    recommendations.refresh(night, night.params_of("recommendations"))
    now = lists(io.read_arrow(night.staged / "recommendations"))
    before, hourly = (lists(shop.table("recommendations", at)) for at in (AS_OF, hour(6)))
    mine = [("discover", person) for person in sorted(touched(shop, hour(6)))]
    assert [now[key] for key in mine] == [hourly[key] for key in mine]
    assert [now[key] for key in mine] != [before.get(key) for key in mine]


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
    assert aged == {p for p, (tier, _) in people.items() if tier == "hot"}
    assert aged - touched(ladder, hour(2))
    assert aged & touched(ladder, hour(2))
    made = dict(rows(ladder.table("ladder", hour(2)).filter(pc.field("what") == "person"),
                     "id", "made"))  # fmt: skip
    assert all(made[person] == hour(2) for person in aged)
    kept = {p for p, (_, why) in people.items() if why == "kept"}
    assert kept
    assert all(made[person] == AS_OF for person in kept)
    # Nothing is forgotten of whom nothing new is known: the vector is the night's.
    factors = [dict(rows(ladder.table("person_factors", at))) for at in (AS_OF, hour(2))]
    still = (aged - touched(ladder, hour(2))) & factors[0].keys()
    assert all(factors[0][p] == factors[1][p] for p in still)
    # All of their lists are of this hour, those of the nightly digest too.
    features = ladder.table("features", hour(2))
    theirs = features.filter(pc.is_in(features["person_id"], value_set=pa.array(sorted(aged))))
    assert set(theirs["event_timestamp"].to_pylist()) == {hour(2)}
    # An hour later they are as old as the tier allows, and are kept.
    again = next_hour(ladder)
    changes.refresh(again, again.params_of("changes"))
    staged = io.read_arrow(again.staged / "ladder").filter(pc.field("what") == "person")
    after = {person: (why, when) for person, why, when in rows(staged, "id", "decision", "made")}
    quiet = aged - touched(ladder, hour(3))
    assert quiet
    assert {after[person] for person in quiet} == {("kept", hour(2))}


def next_hour(ladder: Shop) -> Night:
    """What the step ``changes`` of the third hour sees where the surfaces stay as they are."""
    night = ladder.context("changes", hour(3))
    night.overrides |= TIERS
    night.refresh = changed_by(ladder, hour(3))
    night.reset()
    return night


def changed_by(shop: Shop, as_of: datetime) -> route.Refresh:
    """The refresh that published this hour."""
    return route.Refresh(**shop.lake.published("changes", as_of).manifest["refresh"])


def test_another_configuration_makes_all_lists_of_persons_anew(ladder: Shop) -> None:
    changed = {row["surface"]: row["changed"]
               for row in ladder.table("surface_digests", hour(3)).to_pylist()}  # fmt: skip
    assert {name for name, other in changed.items() if other} == {"homepage"}
    people = decisions(ladder, hour(3))
    assert {why for _, why in people.values()} <= {"touched", "configured", "pooled"}
    found = lists(ladder.table("recommendations", hour(3)))
    assert {len(items) for (surface, _), items in found.items() if surface == "homepage"} == {22}
    counted = ladder.table("change_counts", hour(3)).to_pylist()
    assert [row["due"] == row["known"] for row in counted if row["what"] == "persons"] == [True]


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


def test_who_is_kept_has_candidates_as_before(ladder: Shop) -> None:
    kept = pa.array([p for p, (_, why) in decisions(ladder, hour(2)).items() if why == "kept"])
    then, now = (
        rows(named.filter(pc.is_in(named["person_id"], value_set=kept)))
        for named in (ladder.table("candidates", at) for at in (AS_OF, hour(2)))
    )
    assert len(then) > 0
    assert now == then


def test_not_everybody_gets_pools_where_nobody_would_have_candidates(
    ladder: Shop, tmp_path: Path
) -> None:
    shop = moved(ladder, tmp_path)
    folder = shop.lake.published("changes", hour(3)).table("ladder")
    decided = io.read_arrow(folder)
    shutil.rmtree(folder)
    io.write_arrow(folder, decided.set_column(
        decided.schema.get_field_index("decision"), "decision",
        pa.repeat("pooled", decided.num_rows),
    ))  # fmt: skip
    night = shop.context("candidates", hour(3))
    night.refresh = changed_by(shop, hour(3))
    night.reset()
    candidates.refresh(night, candidates.Params())
    named = io.read_arrow(night.staged / "candidates")["person_id"].to_pylist()
    assert set(shop.table("candidates", hour(2))["person_id"].to_pylist()) <= set(named)


def test_a_surface_that_is_for_others_than_before_makes_all_of_its_old_grain_anew() -> None:
    def changed(now: changes.Digests, then: changes.Digests) -> dict[str, bool]:
        found = changes.compared(now, then).to_pylist()
        return {row["surface"]: row["changed"] for row in found}

    then = {"home": (PERSON, "hourly", "a"), "hot": (PERSON, "hourly", "b"),
            "like": (ITEM, "nightly", "c"), "feed": (CONTEXT, "hourly", "d")}  # fmt: skip
    assert changed(then, then) == dict.fromkeys(then, False)
    moved_on = {**then, "hot": (CONTEXT, "hourly", "e")}
    assert changed(moved_on, then) == {"home": True, "hot": True, "like": False, "feed": False}
    fewer = {name: one for name, one in then.items() if name != "hot"}
    assert changed(fewer, then) == {"home": True, "like": False, "feed": False}


def test_who_lives_with_somebody_who_left_or_refused_is_altered(
    refreshed: Shop, tmp_path: Path
) -> None:
    night = refreshed.context("changes", hour(6))
    night.refresh = changed_by(refreshed, hour(6))
    published = night.published("identities")
    persons = io.read_arrow(published.table("persons")).sort_by("person_id")
    ids, agree = persons["person_id"].to_pylist(), persons["personalised"].to_pylist()
    first, second, third = [name for name, agrees in zip(ids, agree, strict=True) if agrees][:3]

    def altered(homes: dict[str, str], refused: str = "") -> set[str]:
        """Who is touched by facts, had these people lived so, and one of them refused, before."""
        then = persons.drop_columns(["household_id", "personalised"])
        then = then.append_column("household_id", pa.array([homes.get(name, name) for name in ids]))
        words = [agrees and name != refused for name, agrees in zip(ids, agree, strict=True)]
        then = then.append_column("personalised", pa.array(words)).select(persons.schema.names)
        home = tmp_path / str(len(list(tmp_path.iterdir())))
        io.write_arrow(home / "persons", then)
        base = dataclasses.replace(published, folder=home)
        found = changes.touched_people(night, night.published("sessions"), base).to_pylist()
        return {row["person_id"] for row in found if row["reason"] == changes.FACTS}

    assert altered({}) == set()
    assert altered({first: first, second: first}) == {first, second}, "they lived together"
    three = dict.fromkeys((first, second, third), second)
    assert altered(three) == {first, second, third}
    assert altered(three, refused=third) == {first, second, third}, "third agrees now"
    assert altered({first: third}) == {first, third}


def test_what_excludes_items_configures_lists_of_every_grain(refreshed: Shop) -> None:
    night = refreshed.context("changes", hour(6))
    night.refresh = changed_by(refreshed, hour(6))
    night.overrides |= {"filters": {"excluded_flags": ["alcohol"]}}
    found = changes.surface_digests(night)
    assert set(found["grain"].to_pylist()) == {PERSON, CONTEXT, ITEM}
    assert set(found["changed"].to_pylist()) == {True}


def test_what_shapes_the_model_is_a_nights_to_change_and_guard_limits_are_not(shop: Shop) -> None:
    source = str(shop.source)
    learnt = {**PARAMS, "interactions": {"fresh_days": 3.0}}
    with pytest.raises(Fault, match="the parameters of interactions are others"):
        route.open_refresh(shop.lake, hour(1), "run", source, learnt)
    guarded = {**PARAMS, "index": {"guard": {"churn": 0.5}}}
    assert route.open_refresh(shop.lake, hour(1), "run", source, guarded).base == io.label(AS_OF)
