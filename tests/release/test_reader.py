"""Readers take the newest valid release, and give shared lists where a person's would be wrong."""

from __future__ import annotations

import logging
import shutil
from datetime import timedelta

import pytest

from jobs.errors import Fault
from jobs.release import release, releases
from jobs.release.reader import Reader
from jobs.release.rollback import rollback
from tests.release import nights


def fresh():
    """A moment at which the first night's release is a few hours old."""
    return nights.AS_OF + timedelta(hours=7)


def ids(answer) -> list[str]:
    return [item.item_id for item in answer.items]


@pytest.fixture(params=["embedded", "redis"])
def reader(request, lake, redis_url) -> Reader:
    nights.whole(lake, redis_url=redis_url)
    if request.param == "redis":
        return Reader.open_redis(redis_url, now=fresh)
    return Reader.open(lake.root, now=fresh)


def test_a_person_gets_the_own_list_in_order_with_sources(reader):
    answer = reader.recommendations(reader.person("account", "p0"))
    assert answer.kind == "personal"
    assert ids(answer) == ["i1", "i2", "i3", "i4", "i5"]
    assert answer.items[0].sources == ("buy_again", "item_to_item")
    assert [item.score for item in answer.items] == sorted(
        (item.score for item in answer.items), reverse=True
    )


def test_every_key_of_a_person_gives_the_same_list(reader):
    assert reader.person("device/id", "d%1") == reader.person("account", "p0")


def test_similar_items_come_in_order_and_strangers_have_none(reader):
    assert [item.item_id for item in reader.similar("i9")] == ["i0", "i1", "i2", "i3", "i4"]
    assert reader.similar("nobody") == ()


def test_a_stranger_gets_pools_that_anybody_may_get(reader):
    answer = reader.recommendations(reader.person("account", "stranger"), length=3)
    assert (answer.kind, answer.reason) == ("pools", "nobody is known by this id")
    assert ids(answer) == ["i27", "i0", "i1"]  # i28 is not sold everywhere


def test_without_consent_the_answer_says_why_it_is_pools(reader):
    answer = reader.recommendations("account:p1")
    assert answer.kind == "pools"
    assert "consent" in answer.reason
    assert answer.items[0].sources == ("popular",)


def test_a_surface_without_a_list_of_the_person_gives_one_of_the_region(reader):
    answer = reader.recommendations("account:p3", surface="discover", length=3)
    assert answer.reason == "the person has no list on discover"
    assert answer.items == ()
    answer = reader.recommendations("account:p3", surface="trending", length=3)
    assert (answer.kind, answer.reason) == ("shared", "the surface's lists are shared")
    assert ids(answer) == ["i28", "i27", "i0"]


def test_a_surface_that_is_not_there_is_named_with_those_that_are(reader):
    with pytest.raises(Fault, match="no surface 'basket'; it has: homepage, discover"):
        reader.recommendations("account:p3", surface="basket")
    with pytest.raises(Fault, match="the lists of cart are items'"):
        reader.recommendations("account:p3", surface="cart")
    with pytest.raises(Fault, match="the lists of homepage are no items'"):
        reader.beside(["i1"], surface="homepage")


def test_what_was_drawn_in_a_shared_list_has_its_propensity(reader):
    answer = reader.recommendations("account:p3", surface="feed", length=5)
    assert [item.propensity for item in answer.items] == [1.0, 1.0, 1.0, 0.5, 1.0]


def test_the_context_of_a_request_comes_before_the_persons_own(reader):
    stranger = reader.recommendations(None, "trending", 2, context={"region": "north"})
    # A stranger's region is not known, whatever page is looked at: i28 is sold in the north alone.
    assert ids(stranger) == ["i27", "i0"]
    assert ids(reader.recommendations("account:p3", "trending", 1, context={"hour": "9"})) == [
        "i28"
    ]


def test_what_just_sold_out_is_left_out_and_shared_lists_fill_its_place(reader):
    answer = reader.recommendations("account:p0", length=5, without=("i1", "i4"))
    assert answer.kind == "personal"
    assert ids(answer) == ["i2", "i3", "i5", "i28", "i27"]


def test_what_the_person_bought_since_the_release_is_left_out_of_every_answer(reader):
    bought = frozenset({"i1", "i2"})
    answer = reader.recommendations("account:p0", length=5, without=bought)
    assert ids(answer) == ["i3", "i4", "i5", "i28", "i27"]
    assert [item.own for item in answer.items] == [True, True, True, False, False]
    assert ids(reader.recommendations("account:p0", "trending", 3, without={"i28"})) == [
        "i27", "i1", "i2",
    ]  # fmt: skip
    assert ids(reader.beside(["i9"], "cart", "account:p0", without=bought)) == ["i3", "i4"]
    beside = reader.beside(["nobody"], "cart", "account:p0", 3, without={"i28", "i27"})
    assert beside.kind == "pools"
    assert ids(beside) == ["i1", "i2", "i3"]  # i0 is blocked for this person


def test_a_list_of_which_nothing_may_be_shown_gives_way_to_a_shared_one(reader):
    all_own = [f"i{n}" for n in range(1, 6)]
    answer = reader.recommendations("account:p0", length=2, without=all_own)
    assert (answer.kind, answer.reason) == ("pools", "nothing of the person's list may be shown")
    assert ids(answer) == ["i28", "i27"]


def test_an_answer_says_who_asked_where_and_which_scores_are_the_models(reader):
    answer = reader.recommendations("account:p0", without={"i1"}, length=5)
    assert (answer.surface, answer.person_id) == ("homepage", "account:p0")
    assert [item.scored for item in answer.items] == [True, True, True, True, False]
    silent = reader.recommendations("account:p1")
    assert {(item.own, item.scored) for item in silent.items} == {(True, False)}
    assert reader.recommendations(None, "trending").person_id is None
    assert not any(item.scored for item in reader.beside(["i9"]).items)


def test_what_stands_beside_a_basket_is_added_up_without_the_basket(reader):
    answer = reader.beside(["i9", "i0"], surface="cart", length=4)
    assert (answer.kind, answer.reason) == ("beside", "added up over the items")
    # i9 lists i0 to i4, i0 lists i1 to i5: i1 is second and first.
    assert ids(answer) == ["i1", "i2", "i3", "i4"]
    assert answer.items[0].score == pytest.approx(1.5)
    # i0 is blocked for this person, and in nobody's basket twice.
    assert ids(reader.beside(["i9", "i9"], "cart", "account:p0", 2)) == ["i1", "i2"]
    assert ids(reader.beside(["i9"], "cart", length=2)) == ["i0", "i1"]


def test_beside_what_nobody_knows_stands_the_surfaces_shared_list(reader):
    answer = reader.beside(["nobody"], surface="cart", person_id="account:p2", length=2)
    assert (answer.kind, answer.reason) == ("pools", "nothing stands beside these on cart")
    assert ids(answer) == ["i0", "i1"]  # no alcohol
    assert reader.beside(["nobody"]).items == ()  # no shared list of similar was made


@pytest.mark.parametrize("store", ["embedded", "redis"])
def test_what_the_business_took_out_fills_no_place_where_it_holds(lake, redis_url, store):
    """p3 lives in the north, p4 in another region; shared lists begin i28, i27, i0."""
    nights.publish(lake, rules_in_force=nights.in_force(
        {"rule_id": "a", "scope": "item:i0", "region": "north"},
        {"rule_id": "b", "scope": "item:i2", "surface": "homepage", "region": "north"},
        {"rule_id": "c", "scope": "item:i1", "surface": "cart", "region": "north"},
        {"rule_id": "d", "kind": "margin_floor", "scope": "*", "strength": 0.2,
         "surface": "trending", "region": "north"},
    ), items=nights.with_margins(i1=0.1))  # fmt: skip
    release.publish(nights.stage(lake, redis_url=redis_url))
    reader = (
        Reader.open(lake.root, fresh)
        if store == "embedded"
        else Reader.open_redis(redis_url, fresh)
    )

    def filled(person: str | None, surface: str) -> list[str]:
        own = {f"i{n}" for n in range(4, 10)}  # of p3's and p4's lists
        return ids(reader.recommendations(person, surface, 4, without=own))

    assert filled("account:p3", "homepage") == ["i28", "i27", "i1", "i3"]
    assert filled("account:p3", "trending") == ["i28", "i27", "i2", "i3"]
    # Elsewhere, and for who nobody knows where, nothing of this holds.
    assert filled("account:p4", "homepage") == ["i27", "i0", "i1", "i2"]
    assert filled(None, "trending") == ["i27", "i0", "i1", "i2"]
    assert ids(reader.beside(["i9"], "cart", "account:p3")) == ["i2", "i3", "i4"]
    assert ids(reader.beside(["i9"], "cart", "account:p4", 3)) == ["i0", "i1", "i2"]


def test_past_the_age_ceiling_everybody_gets_pools(lake):
    nights.whole(lake)
    late = Reader.open(lake.root, now=lambda: nights.AS_OF + timedelta(hours=97))
    answer = late.recommendations("account:p0", length=4)
    assert late.stale
    assert (answer.kind, answer.reason) == (
        "pools", "the release is 97 hours old, its ceiling is 96",
    )  # fmt: skip
    assert ids(answer) == ["i28", "i27", "i1", "i2"]  # i0 is blocked for this person
    assert ids(late.recommendations("account:p2", length=2)) == ["i0", "i1"]  # no alcohol


def test_two_readers_share_one_release(lake):
    nights.whole(lake)
    first, second = Reader.open(lake.root, now=fresh), Reader.open(lake.root, now=fresh)
    assert first.similar("i9") == second.similar("i9")


# --- the newest valid release ----------------------------------------------------------------
@pytest.fixture
def two(lake) -> list[str]:
    return [nights.whole(lake, nights.day(n), f"run-{n}") for n in range(2)]


def damage_manifest(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:300])


def damage_format(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 99'))


def damage_size(folder):
    with open(folder / "kv/data.mdb", "ab") as file:
        file.truncate(4096)


def damage_bytes(folder):
    path = folder / "scorer/scorer.json"
    path.write_text(path.read_text().replace("0", "1"))


def remove_file(folder):
    (folder / "index/items.faiss").unlink()


@pytest.mark.parametrize(
    "damage",
    [damage_manifest, damage_format, damage_size, damage_bytes, remove_file, shutil.rmtree],
)
def test_a_damaged_release_is_passed_over_with_a_warning(lake, two, damage, caplog):
    damage(releases.root(lake) / two[1])
    with caplog.at_level(logging.WARNING, "nightjar"):
        assert Reader.open(lake.root, now=fresh).release_id == two[0]
    assert two[1] in caplog.text


@pytest.mark.parametrize("content", ["", "no such release\n", "../../etc\n", b"\xff\xfe"])
def test_a_pointer_that_names_nothing_gives_the_newest_whole_release(lake, two, content):
    pointer = releases.root(lake) / "CURRENT"
    pointer.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert Reader.open(lake.root, now=fresh).release_id == two[1]


def test_a_pointer_that_is_gone_gives_the_newest_whole_release(lake, two):
    (releases.root(lake) / "CURRENT").unlink()
    assert Reader.open(lake.root, now=fresh).release_id == two[1]


def test_after_a_rollback_a_damaged_release_never_brings_back_the_newer_one(lake, two):
    third = nights.whole(lake, nights.day(2), "run-2")
    rollback(lake, two[1], None, "test")
    damage_manifest(releases.root(lake) / two[1])
    assert Reader.open(lake.root, now=fresh).release_id == two[0]
    assert releases.readable(lake)[-1].id == third


def test_rot_in_a_large_file_is_found_when_asked_for(lake, two, monkeypatch):
    monkeypatch.setattr(releases, "SMALL", 10)
    store = releases.root(lake) / two[1] / "kv/data.mdb"
    content = bytearray(store.read_bytes())
    content[-1] ^= 1
    store.write_bytes(content)
    assert Reader.open(lake.root, now=fresh).release_id == two[1]
    assert Reader.open(lake.root, now=fresh, deep=True).release_id == two[0]


def test_a_lake_without_a_release_says_what_to_do(lake):
    with pytest.raises(Fault, match=r"holds no whole release .* run a night"):
        Reader.open(lake.root)


def test_a_redis_without_a_release_says_what_to_do(redis_url):
    with pytest.raises(Fault, match="has no current release"):
        Reader.open_redis(redis_url)
