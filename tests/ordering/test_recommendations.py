"""Lists: quotas hold after filtering, provenance survives, shortfalls are counted."""

from __future__ import annotations

import pytest

from jobs.ordering import recommendations
from jobs.ordering.recommendations import Params
from jobs.scoring import features
from jobs.tables import SOURCES

NO_QUOTAS = dict.fromkeys(SOURCES, 0.0)
CANDIDATE = (
    "person_id string, item_id string, source string, rank int, score double, seed_item string, "
    "seed_time timestamp"
)


class Shop:
    """Candidates from (person, item, source, rank), scored by equal weights."""

    def __init__(self, session, *rows: tuple):
        self.nominated = session.createDataFrame(
            [(*row, 1.0, None, None) for row in rows], CANDIDATE
        )
        equal = dict.fromkeys(SOURCES, 1.0)
        self.scored = features.wide(self.nominated).withColumn(
            "score", features.linear_score(equal)
        )

    def listed(self, params: Params):
        return recommendations.fill(self.scored, params)

    def places(self, params: Params) -> list[dict]:
        rows = recommendations.ordered(self.listed(params), self.nominated, params)
        return rows.orderBy("person_id", "rank").toArrow().to_pylist()

    def lists(self, params: Params) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for row in self.places(params):
            found.setdefault(row["person_id"], []).append(row["item_id"])
        return found


@pytest.fixture
def shop(session):
    return lambda *rows: Shop(session, *rows)


def test_a_list_is_ordered_by_score_and_ties_by_item(shop):
    rows = shop(("p", "b", "buy_again", 1), ("p", "a", "popular", 1), ("p", "c", "buy_again", 2))
    assert rows.lists(Params(length=2, pool_depth=2, quotas=NO_QUOTAS)) == {"p": ["a", "b"]}


def test_a_quota_is_filled_from_the_best_of_its_source_at_the_end_of_the_list(shop):
    rows = shop(
        *[("p", f"often {i}", "buy_again", i) for i in range(1, 6)],
        ("p", "new 1", "new_arrivals", 40), ("p", "new 2", "new_arrivals", 41),
    )  # fmt: skip
    params = Params(length=4, pool_depth=4, quotas={**NO_QUOTAS, "new_arrivals": 0.25})
    assert rows.lists(params) == {"p": ["often 1", "often 2", "often 3", "new 1"]}


def test_an_unfilled_quota_goes_to_the_rest_and_is_counted(shop, session):
    rows = shop(*[("p", f"often {i}", "buy_again", i) for i in range(1, 6)])
    params = Params(length=4, pool_depth=4, quotas={**NO_QUOTAS, "new_arrivals": 0.25})
    assert len(rows.lists(params)["p"]) == 4
    people = session.createDataFrame([("p",), ("nobody",)], "person_id string")
    found = recommendations.shortfalls(rows.listed(params), people, params).toArrow().to_pylist()
    assert {row["reason"]: (row["persons"], row["slots"]) for row in found} == {
        "quota of new_arrivals not filled": (1, 1),
        "no list": (1, 4),
    }


def test_an_item_named_by_many_sources_stands_once_and_keeps_them_all(shop):
    rows = shop(("p", "a", "popular", 3), ("p", "a", "buy_again", 1), ("p", "b", "popular", 1))
    params = Params(length=2, pool_depth=2, quotas=NO_QUOTAS)
    found = rows.places(params)
    by_item = {row["item_id"]: row for row in found}
    assert by_item["a"]["sources"] == ["buy_again", "popular"]
    assert [one["rank"] for one in by_item["a"]["provenance"]] == [1, 3]


def test_delivery_counts_a_slot_for_every_source_that_named_it(shop):
    rows = shop(("p", "a", "popular", 3), ("p", "a", "buy_again", 1), ("p", "b", "popular", 1))
    params = Params(length=2, pool_depth=2, quotas=NO_QUOTAS)
    delivered = recommendations.delivery(rows.listed(params), params).toArrow().to_pylist()
    found = {row["source"]: row for row in delivered}
    assert set(found) == set(SOURCES)
    assert (found["popular"]["slots"], found["popular"]["delivered"]) == (2, 1.0)
    assert (found["buy_again"]["slots"], found["buy_again"]["delivered"]) == (1, 0.5)
    assert found["editorial"]["slots"] == 0


def test_places_that_shared_lists_fill_for_people_with_a_history_are_counted(shop, session):
    rows = shop(("p", "a", "buy_again", 1), ("p", "b", "popular", 1), ("q", "b", "popular", 1))
    params = Params(length=2, pool_depth=2, quotas=NO_QUOTAS)
    people = session.createDataFrame([("p",), ("q",)], "person_id string")
    found = recommendations.shortfalls(rows.listed(params), people, params).toArrow().to_pylist()
    assert {row["reason"]: (row["persons"], row["slots"]) for row in found} == {
        "filled from pools": (1, 1),
        "list short": (1, 1),
    }


def test_quotas_beyond_the_list_are_refused():
    with pytest.raises(ValueError, match="quotas must not exceed"):
        Params(length=2, pool_depth=2, quotas={"popular": 1.0, "buy_again": 1.0})


def test_equal_features_have_equal_hashes_and_others_do_not(shop):
    from tests.conftest import AS_OF

    rows = shop(("p", "a", "popular", 3), ("q", "b", "popular", 3), ("p", "c", "popular", 4))
    found = {
        r["item_id"]: r["feature_hash"]
        for r in features.stamped(rows.scored, AS_OF).toArrow().to_pylist()
    }
    assert found["a"] == found["b"] != found["c"]
    assert len(found["a"]) == 64
