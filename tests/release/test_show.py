"""What is shown of a person is readable, true, and safe for a terminal."""

from __future__ import annotations

import argparse
import shutil

import pytest

from jobs.errors import Fault
from jobs.release import releases, show
from tests.release import nights


@pytest.fixture
def shop(lake, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    nights.whole(lake)
    return lake


def shown(lake, person: str, surface: str = nights.SURFACE) -> show.Shown:
    return show.look_up(lake, person, surface)


def printed(lake, capsys, person: str) -> str:
    show.main(argparse.Namespace(lake=str(lake.root), person=person, surface=nights.SURFACE))
    return capsys.readouterr().out


@pytest.mark.parametrize("text", ["account:p0", "p0", "device/id:d%1"])
def test_a_person_is_found_by_id_by_key_and_by_a_bare_key(shop, text):
    assert shown(shop, text).person["person_id"] == "account:p0"


def test_lately_and_the_list_are_printed_with_titles_and_reasons(shop, capsys):
    text = printed(shop, capsys, "p0")
    assert "Lately (20 events in all)" in text
    assert "2017-11-29 22:00" in text
    assert "Title of i1 (i1)" in text
    assert "bought on 7 days, last on 2017-11-28" in text
    assert "buy_again, item_to_item" in text


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("buy_again", "bought on 7 days, last on 2017-11-29"),
        ("item_to_item", "goes with Title of i0 (i0) of 2017-11-28"),
        ("bought_together", "often bought together with Title of i0 (i0) of 2017-11-28"),
        ("content_neighbours", "like Title of i0 (i0) of 2017-11-28, and still little known"),
        ("popular", "popular in region north"),
        ("trending", "trending with everybody"),
        ("new_arrivals", "new in the shop since 2017-11-22"),
        ("collaborative", "people with a similar history bought it"),
        ("editorial", "chosen by the editors"),
    ],
)
def test_every_source_has_its_words(shop, source, words):
    one = shown(shop, "p0")
    named = one.places[0]["provenance"][0] | {"source": source}
    item = {"new_arrivals": one.places[0]["item_id"]}.get(source, "i0")
    assert show.reason(one, item, named) == words


def test_the_rule_that_put_an_item_at_its_place_is_named_with_its_reason(shop, capsys):
    one = shown(shop, "p0")
    assert show.why(one, one.places[1]).startswith("pinned by the rule spring (spring campaign); ")
    assert "pinned by the rule spring" in " ".join(printed(shop, capsys, "p0").split())
    assert "rule" not in show.why(one, one.places[0])


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ({"placed_by": "explore", "propensity": 0.0312}, "explored, with probability 0.0312"),
        ({"placed_by": "diversity"}, "for variety"),
        ({"placed_by": "demotion"}, "in the room of an item bought or shown lately"),
        ({"placed_by": "rule", "rule_id": "x"}, "in the room of an item taken out by the rule x"),
        ({"placed_by": "model"}, ""),
        ({}, ""),
    ],
)
def test_every_cause_of_a_place_has_its_words(shop, place, words):
    assert show.moved_by(shown(shop, "p0"), place) == words


def test_without_consent_pools_are_shown_with_that_reason(shop, capsys):
    text = printed(shop, capsys, "p1")
    assert "shared pools, since this person does not consent" in text
    assert "nothing is kept of a person who does not consent" in text


def test_an_unknown_person_is_refused_with_examples(shop):
    with pytest.raises(Fault, match=r"nobody is known as 'p99'.*account:"):
        shown(shop, "p99")


def test_without_a_list_of_the_person_the_shared_one_is_shown_with_its_reason(shop, capsys):
    show.main(argparse.Namespace(lake=str(shop.root), person="p0", surface="trending"))
    text = capsys.readouterr().out
    assert "Recommended on trending: the surface's lists are shared" in text
    assert "Title of i27 (i27)" in text
    text = show.recommended(shown(shop, "p0", "digest"), "digest")
    assert "Recommended on digest" in str(text)
    assert "and nothing stands in" in str(text)
    with pytest.raises(Fault, match="no surface 'basket'; it has: homepage"):
        shown(shop, "p0", "basket")


def test_a_hostile_key_is_shown_without_its_control_codes(shop, capsys):
    text = printed(shop, capsys, "account:\x1b[31mred")
    assert "account: [31mred" in text
    assert "\x1b[31m" not in text


def test_without_a_release_it_says_what_to_do(lake):
    with pytest.raises(Fault, match="holds no whole release"):
        shown(lake, "p0")


def test_history_that_is_gone_is_said_so(shop, capsys):
    shutil.rmtree(shop.root / "tables" / "sessions")
    assert "no longer in the lake" in printed(shop, capsys, "p0")


def test_it_shows_the_release_that_serves_after_a_rollback(shop):
    first = releases.current_id(shop)
    nights.whole(shop, nights.day(1), "run-2")
    releases.switch(shop, first)
    assert shown(shop, "p0").release.id == first
