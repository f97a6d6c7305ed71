"""``make ghosts`` as a whole, on a shop of a few people, held to plain Python over its tables."""

from __future__ import annotations

import math
from collections import defaultdict
from datetime import timedelta
from pathlib import Path

import pytest

from jobs import io
from jobs.io import Lake
from tests import small_shop
from tools import ghosts

DATE = "2024-03-01"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, engine) -> Path:
    """The lakes and the result of one run, its nights on the shared engine."""
    folder = tmp_path_factory.mktemp("ghosts")
    small_shop.write(folder / "shop", people=150, items=120, days=90, days_after=28, dirt=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE", str(folder / "shop"))
        patch.setenv("AS_OF", DATE)
        patch.setenv("LAKE", str(folder / "lakes"))
        patch.setenv("MASTER", f"{engine.url}/;token={engine.token}")
        assert ghosts.main() == 0
    return folder


def test_split_people_are_more_and_get_more_lists_and_finding_them_mends_a_part(home: Path):
    told = io.read_json(home / "lakes" / "ghosts.json")["nights"]
    whole, apart, merged = (told[name] for name in ("whole", "apart", "merged"))
    assert whole["persons"] < merged["persons"] < apart["persons"]
    assert 1 == whole["lists_per_household"] < merged["lists_per_household"]
    assert merged["lists_per_household"] < apart["lists_per_household"]
    assert whole["households"] == apart["households"] == merged["households"] > 100
    assert apart["ndcg"] < whole["ndcg"]
    for night in told.values():
        assert night["low"] <= night["ndcg"] <= night["high"]


def test_the_pairs_found_are_judged_against_the_truth_of_the_split(home: Path):
    pairs = io.read_json(home / "lakes" / "ghosts.json")["pairs"]
    direct = next(row for row in pairs if (row["pairs"], row["holders"]) == (
        "direct", "in_their_time",
    ))  # fmt: skip
    assert direct["joined"] > 100
    assert direct["precision"] > 0.9
    assert direct["recall"] > 0.9


def test_the_metric_of_the_whole_households_is_that_of_their_lists_on_the_homepage(home: Path):
    lake, as_of = Lake(home / "lakes" / "whole"), io.parse_as_of(DATE)
    person = {
        (row["key_type"], row["key"]): row["person_id"]
        for row in io.read_arrow(
            lake.published("identities", as_of).table("identities")
        ).to_pylist()
    }  # fmt: skip
    listed = defaultdict(dict)
    rows = lake.published("recommendations", as_of).table("recommendations")
    for row in io.read_arrow(rows).to_pylist():
        if row["surface"] == "homepage" and row["rank"] <= 10:
            listed[row["person_id"]][row["rank"]] = row["item_id"]
    bought = defaultdict(set)
    for row in small_shop.read_table(home / "shop", "events").to_pylist():
        inside = as_of <= row["event_time"] < as_of + timedelta(days=28)
        if inside and row["event_type"] == "purchase":
            bought[row["key_type"], row["key"]].add(row["item_id"])
    popular = {
        row["rank"]: row["item_id"]
        for row in io.read_arrow(lake.published("candidates", as_of).table("pools")).to_pylist()
        if (row["source"], row["context_kind"]) == ("popular", "all") and row["rank"] <= 10
    }
    scores, without = [], 0
    for household, items in bought.items():
        without += person.get(household) not in listed
        places = listed.get(person.get(household), popular)
        gained = sum(1 / math.log2(rank + 1) for rank, item in places.items() if item in items)
        best = sum(1 / math.log2(rank + 1) for rank in range(1, min(10, len(items)) + 1))
        scores.append(gained / best)
    told = io.read_json(home / "lakes" / "ghosts.json")["nights"]["whole"]
    assert 0 < without < 10, "who has no list is judged by the popular one"
    assert len(scores) == told["households"]
    assert sum(scores) / len(scores) == pytest.approx(told["ndcg"])
