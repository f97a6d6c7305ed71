"""The step on a small shop: every surface's lists, from candidates and pools to the tables."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs import io
from jobs.filtering import filters
from jobs.ordering import recommendations
from jobs.retrieval import matrix
from jobs.sources import contract
from jobs.tables import SOURCES, TABLES
from tests.retrieval.conftest import AS_OF, catalogue, publish

__all__ = ["publish"]  # the fixture
ITEMS = [f"i{n:02d}" for n in range(20)]
PEOPLE = {"anna": "north", "bert": "south", "carl": None}
# What reads the past on Spark stays out, but where a test asks for it.
WEIGHTS = {"buy_again": 1.0, "collaborative": 0.9, "trending": 0.5, "popular": 0.4}
QUIET = {"digest": None, "feed": None}


def of(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, TABLES[name].schema)


def event(person: str, item: str, days: float) -> dict[str, Any]:
    when = AS_OF - timedelta(days=days)
    return {
        "event_id": f"{person} {item} {days}", "person_id": person, "item_id": item,
        "event_type": "purchase", "event_time": when, "received_time": when, "session": "s",
        "basket": f"{days}", "quantity": 1.0, "value": 2.0, "event_date": when.date(),
        "resolved_by": "key", "key_type": "account", "key": person,
    }  # fmt: skip


@pytest.fixture
def shop(publish) -> Callable[..., dict[str, list[dict[str, Any]]]]:
    """Runs the step on a shop of three people and returns its tables.

    Anna and Bert bought i00 to i02 and are named these again, i05 to i09 by other people's taste;
    the pools are i10 (most popular) to i19; i19 is sold in the north alone, Bert drinks no i12.
    """

    def make(
        surfaces: dict[str, Any], *rules: dict[str, Any], spark: Any = None,
        curated: dict[tuple[str, str], list[str]] | None = None, **columns: list,
    ) -> dict:  # fmt: skip
        regions = [["north"] if item == "i19" else None for item in ITEMS]
        flags = [["alcohol"] if item == "i12" else [] for item in ITEMS]
        items = catalogue(ITEMS, regions=regions, flags=flags, **columns)
        persons = of("persons", [
            {"person_id": person, "household_id": person, "region": region, "personalised": True,
             "restrictions": ["alcohol"] if person == "bert" else [], "keys": 1}
            for person, region in PEOPLE.items()
        ])  # fmt: skip
        whole = {"reason": "why", "outcome": "in force", "items": 1, "unjudged": 0,
                 "scope_kind": "item"}  # fmt: skip
        in_force = of("rules_in_force", [{**whole, **rule} for rule in rules])
        publish("catalogue", items=items, rules_in_force=in_force)
        publish("identities", persons=persons)
        rows = [event(p, item, 3.5 + n) for p in ("anna", "bert") for n, item in
                enumerate(ITEMS[:3])]  # fmt: skip
        publish("sessions", history=of("history", rows))
        vectors = np.eye(20, 4, dtype=np.float32) + 0.1
        publish("embeddings",
                item_factors=pa.table({"item_id": ITEMS, "vector": matrix.vector_column(vectors)}),
                person_factors=pa.table({"person_id": ["anna", "bert"],
                                         "vector": matrix.vector_column(vectors[:2])}))  # fmt: skip
        publish("content_embeddings", content_vectors=pa.table(
            {"item_id": ITEMS, "vector": matrix.vector_column(vectors)}))  # fmt: skip
        chosen = sum(len(named) for named in (curated or {}).values())
        counts = {
            "buy_again": 6,
            "collaborative": 18,
            "popular": 32,
            "trending": 32,
            "editorial": chosen,
        }
        publish("candidates",
                candidate_counts=of("candidate_counts", [
                    {"source": source, "persons": 0, "rows": rows, "items": 0}
                    for source, rows in counts.items()
                ]),
                candidates=of("candidates", [
                    {"person_id": person, "item_id": item, "source": source, "rank": rank,
                     "score": 1.0 / rank}
                    for person in ("anna", "bert")
                    for source, named in (("buy_again", ITEMS[:3]), ("collaborative", ITEMS[1:10]))
                    for rank, item in enumerate(named, start=1)
                ]),
                pools=of("pools", [
                    {"source": source, "context_kind": kind, "context": context, "rank": rank,
                     "item_id": item, "score": 1.0 / rank}
                    for source, named in (("popular", ITEMS[10:]), ("trending", ITEMS[:9:-1]))
                    for kind, context, deep in (
                        ("all", "", 10), ("region", "north", 10), ("category", "TEA", 2),
                        ("region", "south", 10),
                    )
                    for rank, item in enumerate(named[:deep], start=1)
                ] + [
                    {"source": "editorial", "context_kind": kind, "context": context, "rank": rank,
                     "item_id": item, "score": 1.0 / rank}
                    for (kind, context), named in (curated or {}).items()
                    for rank, item in enumerate(named, start=1)
                ]))  # fmt: skip
        judged = filters.judge_items(items, ["", "north", "south"], ["alcohol"], filters.Params())
        publish("filters", eligibility=filters.eligibility(items, judged),
                ineligible_items=filters.ineligible_items(items, judged),
                blocked_pairs=of("blocked_pairs", [
                    {"person_id": "anna", "item_id": "i05", "reason": "rejected", "since": AS_OF}
                ]))  # fmt: skip
        publish("ranker", ranker_models=of("ranker_models", []), calibration=of("calibration", []),
                blend_weights=of("blend_weights", [
                    {"source": source, "weight": WEIGHTS.get(source, 0.0)} for source in SOURCES
                ]))  # fmt: skip
        night = publish("recommendations")
        if spark is not None:
            night.spark = spark
            folder, staged = night.lake.root / "shop", night.lake.staged("source", AS_OF)
            io.write_arrow(folder / "events", contract.schema("events").empty_table())
            io.write_json(staged / "source.json", {"folder": str(folder)})
            night.lake.publish("source", AS_OF, "test-run")
        night.overrides = {"recommendations": {"surfaces": {**QUIET, **surfaces}}}
        recommendations.run(night, night.params_of("recommendations"))
        return {
            table.name: io.read_arrow(night.staged / table.name).to_pylist()
            for table in TABLES.values()
            if table.step == "recommendations"
        }

    return make


def listed(found: dict, surface: str, person: str) -> list[str]:
    rows = [r for r in found["recommendations"] if (r["surface"], r["person_id"]) ==
            (surface, person)]  # fmt: skip
    return [row["item_id"] for row in sorted(rows, key=lambda row: row["rank"])]


def shared(found: dict, surface: str, context: str) -> list[str]:
    rows = [r for r in found["context_lists"] if (r["surface"], r["context"]) == (surface, context)]
    return [row["item_id"] for row in sorted(rows, key=lambda row: row["rank"])]


def test_every_surface_has_its_lists_and_their_account(shop):
    found = shop({})
    assert {row["surface"] for row in found["recommendations"]} == {"homepage", "discover"}
    surfaces = {"homepage", "discover", "trending", "similar", "cart"}
    assert {row["surface"] for row in found["context_lists"]} == surfaces
    counted = {"homepage", "discover", "trending"}
    assert {row["surface"] for row in found["delivery"]} == counted
    assert {row["surface"] for row in found["overrides"]} == counted
    (work,) = found["list_work"]
    assert work["anew"] == work["known"] == len(PEOPLE)
    # A row of features a listed pair, whichever surfaces list it, of the score that it has there.
    keys = [(row["person_id"], row["item_id"]) for row in found["features"]]
    assert len(keys) == len(set(keys))
    assert set(keys) == {(row["person_id"], row["item_id"]) for row in found["recommendations"]}
    scores: dict[tuple[str, str], set[float]] = {}
    for row in found["recommendations"]:
        scores.setdefault((row["person_id"], row["item_id"]), set()).add(row["score"])
    assert {len(found) for found in scores.values()} == {1}


def test_discover_leaves_out_what_the_person_ever_bought(shop):
    found = shop({})
    assert listed(found, "homepage", "anna")[:3] == ["i01", "i02", "i00"]
    assert not {"i00", "i01", "i02"} & set(listed(found, "discover", "anna"))
    # What trends first stands before what taste names third.
    assert listed(found, "discover", "anna")[:3] == ["i19", "i03", "i10"]
    assert not any("buy_again" in row["sources"] for row in found["recommendations"]
                   if row["surface"] == "discover")  # fmt: skip
    # Whom nobody knows anything of gets the pools, of which nothing is known to be known.
    assert set(listed(found, "discover", "carl")) == set(ITEMS[10:19])


def test_no_list_holds_what_is_not_for_the_person_or_the_place(shop):
    found = shop({})
    for surface in ("homepage", "discover"):
        assert "i05" not in listed(found, surface, "anna")
        assert "i12" not in listed(found, surface, "bert")
        assert "i19" not in listed(found, surface, "bert") + listed(found, surface, "carl")
        assert "i19" in listed(found, surface, "anna")
    assert "i19" in shared(found, "trending", "north")
    assert "i19" not in shared(found, "trending", "south") + shared(found, "trending", "")


def test_people_with_fewer_items_than_places_are_counted_by_the_rule_that_took_them(shop):
    found = shop({"homepage": {"length": 30}, "discover": None})
    short = {
        row["reason"]: (row["persons"], row["slots"])
        for row in found["shortfalls"]
        if row["surface"] == "homepage" and row["reason"].startswith("starved")
    }
    # i19 is sold in the north alone; i12 is alcohol; Anna turned i05 down.
    assert short == {
        "starved by region": (2, 2), "starved by restriction alcohol": (1, 1),
        "starved by rejected": (1, 1),
    }  # fmt: skip
    full = shop({"homepage": {"length": 5}, "discover": None})
    assert not [row for row in full["shortfalls"] if row["reason"].startswith("starved")]


def test_where_nobody_may_get_anything_no_list_is_made_and_the_reason_is_counted(shop):
    found = shop({}, available=[False] * 20)
    assert found["recommendations"] == []
    assert found["context_lists"] == []
    short = {
        row["reason"]: (row["persons"], row["slots"])
        for row in found["shortfalls"]
        if row["surface"] == "homepage"
    }
    assert short["no list"] == (3, 60)
    assert short["starved by availability"][0] == 3


def test_shared_lists_hold_their_shares_after_filtering(shop):
    surface = {"length": 6, "sources": {"popular": 0.5, "trending": 0.5}, "blended": "retrieval"}
    found = shop({"trending": surface})
    # In the south trending has lost its first, i19, and fills its share with the next.
    assert shared(found, "trending", "south") == ["i10", "i18", "i11", "i17", "i12", "i16"]
    assert shared(found, "trending", "north") == ["i10", "i19", "i11", "i18", "i12", "i17"]
    # A small category has its own items alone, and owes nobody more.
    assert shared(found, "trending", "TEA") == ["i10", "i18", "i11"]
    delivered = {row["source"]: row for row in found["delivery"] if row["surface"] == "trending"}
    assert delivered["popular"]["intended"] == 0.5
    assert delivered["popular"]["delivered"] >= 0.5
    assert delivered["trending"]["delivered"] >= 0.5
    assert not [row for row in found["shortfalls"] if row["surface"] == "trending"]


def test_a_persons_list_may_be_blended_by_shares_and_needs_no_score(shop):
    surface = {"length": 4, "sources": {"collaborative": 0.5, "popular": 0.5},
               "blended": "retrieval"}  # fmt: skip
    found = shop({"mixed": surface, "homepage": {"length": 2}, "discover": None})
    assert listed(found, "mixed", "bert") == ["i01", "i10", "i02", "i11"]
    rows = [row for row in found["recommendations"] if row["surface"] == "mixed"]
    assert {row["score"] for row in rows} == {1.0, 1 / 2, 1 / 3, 1 / 4}
    of_homepage = {(r["person_id"], r["item_id"]) for r in found["recommendations"]
                   if r["surface"] == "homepage"}  # fmt: skip
    assert {(row["person_id"], row["item_id"]) for row in found["features"]} == of_homepage
    # Carl has no taste of his own: its share falls to the pool, and is counted.
    assert listed(found, "mixed", "carl") == ["i10", "i11", "i12", "i13"]
    short = {row["reason"]: row["slots"] for row in found["shortfalls"] if
             row["surface"] == "mixed"}  # fmt: skip
    assert short["quota of collaborative not filled"] == 2


def test_rules_hold_on_their_surface_in_lists_of_persons_and_in_shared_ones(shop):
    found = shop(
        {},
        {"rule_id": "a", "kind": "ban", "scope": "item:i10", "surface": "discover"},
        {"rule_id": "b", "kind": "pin", "scope": "item:i15", "surface": "trending", "strength": 1},
        {"rule_id": "c", "kind": "pin", "scope": "item:i01", "surface": "discover", "strength": 1},
    )
    assert "i10" in listed(found, "homepage", "anna")
    assert "i10" not in listed(found, "discover", "anna") + shared(found, "discover", "north")
    assert "i10" in shared(found, "homepage", "north")
    for context in ("", "north", "south"):
        assert shared(found, "trending", context)[0] == "i15"
        assert shared(found, "homepage", context)[0] == "i10"
    # What is left out as known is not for the person: no pin brings it back, but to who has not it.
    assert "i01" not in listed(found, "discover", "anna")
    assert listed(found, "discover", "carl")[0] == "i01"
    assert "i01" not in listed(found, "homepage", "carl")
    causes = {(row["surface"], row["cause"]): row["slots"] for row in found["overrides"]}
    assert causes["trending", "b"] == 4
    # In Carl's short list the pin's item stands in the room of the banned one.
    assert (causes["discover", "a"], causes["discover", "c"]) == (2, 1)
    assert ("homepage", "a") not in causes


def test_what_was_curated_for_a_surface_stands_there_alone(shop):
    editors = {"sources": {"editorial": 1.0}, "blended": "retrieval", "length": 5,
               "fallback": ["editorial"]}  # fmt: skip
    curated = {("surface", "shelf"): ["i03", "i04"], ("surface", "window"): ["i06"],
               ("all", ""): ["i07"], ("surface", "nowhere"): ["i08"]}  # fmt: skip
    pin = {"rule_id": "a", "kind": "pin", "scope": "item:i06", "surface": "shelf", "strength": 3}
    found = shop({"shelf": editors, "window": editors}, pin, curated=curated)
    assert listed(found, "shelf", "carl") == ["i03", "i07", "i06", "i04"]
    assert listed(found, "window", "carl") == ["i06", "i07"]
    # Of the homepage too, whose sources are all there are, and of the lists that stand in.
    own = {"i03", "i04", "i06", "i07", "i08"}
    for surface, shown in (("homepage", {"i07"}), ("trending", {"i07"}),
                           ("shelf", {"i03", "i04", "i06", "i07"})):  # fmt: skip
        assert own & set(shared(found, surface, "")) == shown
    assert own & set(listed(found, "homepage", "carl")) == {"i07"}
    assert {row["context"] for row in found["context_lists"]} == {"", "north", "south", "TEA"}
    pinned = next(row for row in found["recommendations"] if row["person_id"] == "carl"
                  and (row["surface"], row["item_id"]) == ("shelf", "i06"))  # fmt: skip
    assert pinned["sources"] == ["editorial"]


def test_a_surface_for_value_puts_what_brings_more_first(shop):
    prices = [1.0] * 20
    prices[2] = 50.0
    margins = [0.1] * 20
    margins[1] = None
    found = shop(
        {"till": {"length": 3, "objective": "value"}, "homepage": {"length": 3}},
        price=prices, margin=margins,
    )  # fmt: skip
    assert listed(found, "homepage", "anna") == ["i01", "i02", "i00"]
    assert listed(found, "till", "anna") == ["i02", "i01", "i00"]
    scores = {
        (row["surface"], row["item_id"]): row["score"]
        for row in found["recommendations"]
        if row["person_id"] == "anna"
    }
    # The published score stays what the model foretells.
    assert scores["till", "i02"] == scores["homepage", "i02"]


def test_a_feed_explores_with_propensities_and_begins_with_what_is_popular(shop, session):
    feed = {
        "grain": "context", "blended": "ordering", "length": 6, "explore_places": 2,
        "explore_first": 5, "sources": {"popular": 0.75, "trending": 0.25},
    }  # fmt: skip
    found = shop({"feed": feed}, spark=session)
    rows = sorted(
        (r for r in found["context_lists"] if (r["surface"], r["context"]) == ("feed", "north")),
        key=lambda row: row["rank"],
    )
    assert [row["item_id"] for row in rows[:4]] == ["i10", "i11", "i19", "i12"]
    assert [row["placed_by"] for row in rows] == ["model"] * 4 + ["explore"] * 2
    assert all(0 < row["propensity"] < 1 for row in rows[4:])
    drawn = [(row["surface"], row["source"]) for row in found["explore_shares"]]
    assert drawn == [("feed", "trending"), ("feed", "popular")]
    assert sum(row["share"] for row in found["explore_shares"]) == pytest.approx(1.0)
    owed = {row["source"]: row["intended"] for row in found["delivery"] if row["surface"] == "feed"}
    assert (owed["popular"], owed["trending"]) == (0.75 * 4 / 6, 0.25 * 4 / 6)
    again = shop({"feed": feed}, spark=session)
    assert again["context_lists"] == found["context_lists"]


def test_only_what_may_be_drawn_on_a_surface_has_a_share_of_its_explore_places(shop, session):
    feed = {
        "grain": "context", "blended": "ordering", "length": 6, "explore_places": 2,
        "explore_first": 5, "sources": {"popular": 1.0}, "fallback": ["popular", "editorial"],
    }  # fmt: skip
    for context, drawn in (
        (("surface", "discover"), ["popular"]),
        (("surface", "feed"), ["editorial", "popular"]),
        (("all", ""), ["editorial", "popular"]),
    ):
        found = shop({"feed": feed}, spark=session, curated={context: ["i03", "i04"]})
        assert sorted(row["source"] for row in found["explore_shares"]) == drawn
