"""Buy again, what was considered, and the pools."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from jobs import io, tables
from jobs.retrieval import matrix
from jobs.retrieval.sources import buy_again, considered, editorial, interest, pools, trending
from jobs.signals import past
from jobs.tables import SOURCES
from tests.conftest import AS_OF


@pytest.fixture
def recorded(tmp_path):
    """The history of these items from (person, item, type, days ago[, hour, channel])."""

    def make(item_ids: pa.Array, *rows: tuple) -> past.Record:
        filled = []
        for number, (person, item, kind, days, *where) in enumerate(
            sorted(rows, key=lambda row: row[0])
        ):
            hour, channel = where or (12, None)
            moment = AS_OF - timedelta(days=days) + timedelta(hours=hour)
            filled.append(
                {
                    "event_id": str(number), "person_id": person, "item_id": item,
                    "event_type": kind, "event_time": moment, "received_time": moment,
                    "session": f"{person}|{days}", "basket": f"{person}|{days}", "quantity": 1.0,
                    "value": 1.0, "region": None, "channel": channel, "event_date": moment.date(),
                    "resolved_by": "key", "key_type": "account", "key": person,
                }
            )  # fmt: skip
        io.write_arrow(
            tmp_path / "history", pa.Table.from_pylist(filled, tables.TABLES["history"].schema)
        )
        return past.Record(tmp_path / "history", AS_OF, item_ids)

    return make


def past_of(*rows: tuple) -> tuple[past.Past, pa.StringArray, pa.StringArray]:
    """The past, and the ids of its people and items, from (person, item, type, days ago)."""
    table = pa.table({
        "person_id": [row[0] for row in rows],
        "item_id": [row[1] for row in rows],
        "event_type": [row[2] for row in rows],
        "event_time": [AS_OF - timedelta(days=row[3]) + timedelta(hours=12) for row in rows],
        "basket": [f"{row[0]}|{row[3]}" for row in rows],
        "quantity": np.ones(len(rows)),
        "value": np.ones(len(rows)),
    })  # fmt: skip
    person_ids, person = matrix.encode(table["person_id"])
    item_ids, item = matrix.encode(table["item_id"])
    return past.arranged(table, person, item, len(person_ids), AS_OF), person_ids, item_ids


def bought_again(*rows: tuple, depth: int = 10) -> list[dict]:
    """What is named to the first person, from (person, item, type, days ago)."""
    made, person_ids, item_ids = past_of(*rows)
    gaps = np.full(len(item_ids), np.nan)
    found = buy_again.candidates(
        made, gaps, person_ids, item_ids, AS_OF, depth, buy_again.Params()
    ).to_pylist()
    return [row for row in found if row["person_id"] == rows[0][0]]


def left_open(*rows: tuple, depth: int = 10) -> list[dict]:
    """What the first person considered, from (person, item, type, days ago)."""
    params = considered.Params()
    found = considered.candidates(*past_of(*rows), AS_OF, depth, params).to_pylist()
    return [row for row in found if row["person_id"] == rows[0][0]]


def ranked(rows: list[dict]) -> list[str]:
    return [row["item_id"] for row in sorted(rows, key=lambda row: row["rank"])]


def test_what_is_bought_often_and_lately_comes_first():
    found = bought_again(
        *[("p", "weekly", "purchase", days) for days in (3, 10, 17, 24)],
        ("p", "once lately", "purchase", 2),
        *[("p", "long ago", "purchase", days) for days in (300, 307, 314, 321)],
        ("q", "other", "purchase", 1),
    )
    assert ranked(found) == ["weekly", "once lately", "long ago"]
    assert found[0]["seed_time"] == AS_OF - timedelta(days=3) + timedelta(hours=12)
    assert {row["seed_item"] for row in found} == {"weekly", "once lately", "long ago"}


def test_the_score_is_the_decayed_days_less_what_is_overdue():
    (row,) = bought_again(("p", "a", "purchase", 90), ("p", "a", "purchase", 180))
    # Bought 90 and 180 days ago; a gap of 90 days against two of the default 30: (90 + 60) / 3.
    assert row["score"] == pytest.approx((2**-1 + 2**-2) * np.exp(-(90 / 50 - 1) / 4))


def test_two_purchases_on_one_day_count_once():
    found = bought_again(
        ("p", "a", "purchase", 3), ("p", "a", "purchase", 3), ("p", "b", "purchase", 3)
    )
    assert found[0]["score"] == found[1]["score"]


def test_what_went_back_is_not_bought_again_until_it_is_bought_anew():
    found = bought_again(
        ("p", "returned", "purchase", 9), ("p", "returned", "return", 8),
        ("p", "anew", "purchase", 9), ("p", "anew", "return", 8), ("p", "anew", "purchase", 2),
    )  # fmt: skip
    assert ranked(found) == ["anew"]


def test_a_list_goes_no_deeper_than_asked():
    found = bought_again(*[("p", f"i{n}", "purchase", n) for n in range(1, 9)], depth=3)
    assert ranked(found) == ["i1", "i2", "i3"]


# --- considered ------------------------------------------------------------------------------
def test_a_cart_left_standing_comes_before_looks_and_late_looks_before_early_ones():
    found = left_open(
        ("p", "looked at lately", "view", 2), ("p", "carted", "add_to_cart", 9),
        ("p", "looked at long ago", "click", 40), ("q", "of another", "view", 1),
    )  # fmt: skip
    assert ranked(found) == ["carted", "looked at lately", "looked at long ago"]
    assert [row["seed_item"] for row in found] == [row["item_id"] for row in found]
    newest = {row["item_id"]: row["seed_time"] for row in found}
    assert newest["carted"] == AS_OF - timedelta(days=9) + timedelta(hours=12)


def test_the_score_is_the_decayed_looks_and_a_cart_counts_as_five():
    (row,) = left_open(("p", "a", "view", 14.5), ("p", "a", "add_to_cart", 28.5))
    assert row["score"] == pytest.approx(2**-1 + 5 * 2**-2)
    assert row["source"] == considered.NAME


def test_what_was_ever_bought_is_no_longer_considered():
    found = left_open(
        ("p", "bought", "view", 9), ("p", "bought", "purchase", 8), ("p", "bought", "view", 1),
        ("p", "sent back", "purchase", 8), ("p", "sent back", "return", 7),
        ("p", "sent back", "view", 3), ("p", "open", "view", 30),
    )  # fmt: skip
    assert ranked(found) == ["open"]


def test_a_cart_that_was_emptied_again_counts_nothing_and_its_looks_do():
    found = left_open(
        ("p", "emptied", "add_to_cart", 5), ("p", "emptied", "remove_from_cart", 4),
        ("p", "emptied and looked at", "add_to_cart", 5), ("p", "looked at twice", "view", 5),
        ("p", "emptied and looked at", "remove_from_cart", 4), ("p", "looked at twice", "view", 5),
        ("p", "emptied and looked at", "view", 5), ("p", "put back", "add_to_cart", 9),
        ("p", "put back", "remove_from_cart", 8), ("p", "put back", "add_to_cart", 7),
    )  # fmt: skip
    assert ranked(found) == ["put back", "looked at twice", "emptied and looked at"]


def test_who_only_buys_considered_nothing():
    assert left_open(("p", "a", "purchase", 3), ("p", "b", "reject", 2)) == []


def test_what_was_considered_goes_no_deeper_than_asked_and_ties_go_to_the_lower_item():
    found = left_open(*[("p", f"i{n}", "view", 2) for n in (3, 1, 2)], depth=2)
    assert ranked(found) == ["i1", "i2"]


# --- pools -----------------------------------------------------------------------------------
REGIONS = [*["north"] * 3, *["south"] * 3]
PERSONS = pa.table({
    "person_id": ["n0", "n1", "n2", "s0", "s1", "s2"],
    "region": REGIONS,
    "segment": pa.array([None] * 6, pa.string()),
})  # fmt: skip
FIRST_SEEN = {"gone": 3, "hot": 100, "new": 3, "old": 200}  # days ago
ITEMS = pa.table({
    "item_id": list(FIRST_SEEN),
    "category": [None, "FOOD", "TOYS", "FOOD > TEA > GREEN"],
    "created_time": pa.array([None] * 4, tables.TIME),
    "first_seen": [AS_OF - timedelta(days=days) for days in FIRST_SEEN.values()],
    "available": [name != "gone" for name in FIRST_SEEN],
})  # fmt: skip
CURATED = pa.table({
    "list_id": ["spring", "spring", "top"], "position": [2, 1, 1], "item_id": ["old", "new", "old"],
    "surface": pa.nulls(3, pa.string()),
})  # fmt: skip


@pytest.fixture
def shared_lists(recorded):
    """The table ``pools`` of persons of two regions and items with one arrival."""

    def make(*rows: tuple, people: int = 2, requests: bool = False) -> pa.Table:
        record = recorded(ITEMS["item_id"].combine_chunks(), *rows)
        params = pools.Params(min_context_people=people)
        return pools.pools(record, ITEMS, PERSONS, CURATED, 10, params, requests)

    return make


def by_pool(shared: pa.Table) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for row in sorted(shared.to_pylist(), key=lambda row: row["rank"]):
        found.setdefault((row["source"], row["context"]), []).append(row["item_id"])
    return found


def test_pools_speak_for_their_context_and_the_new_and_hot_are_told_apart(shared_lists):
    shared = shared_lists(
        *[(f"n{i}", "old", "purchase", days) for i in range(3) for days in (1, 8, 15, 22, 29)],
        *[(f"s{i}", "hot", "purchase", days) for i in range(3) for days in (1, 2, 3)],
        ("s0", "new", "purchase", 1),
    )
    found = by_pool(shared)
    assert found["popular", ""][:2] == ["old", "hot"]
    assert found["popular", "north"] == ["old"]
    assert found["popular", "south"] == ["hot", "new"]
    assert found["trending", ""][0] == "hot"
    assert found["new_arrivals", ""] == ["new"]
    assert found["editorial", ""] == ["new", "old"]
    assert shared.schema == tables.TABLES["pools"].schema


def test_what_trends_is_counted_by_the_hour_against_what_the_weeks_before_let_expect(shared_lists):
    shared = shared_lists(
        ("n0", "hot", "purchase", 1, 21, None), ("n1", "hot", "purchase", 2, 21, None),
        ("n0", "new", "purchase", 3), ("n1", "new", "purchase", 4),
        *[("s0", "old", "purchase", days) for days in range(1, 64)],
    )  # fmt: skip
    scores = {
        row["item_id"]: row["score"]
        for row in shared.to_pylist()
        if row["source"] == "trending" and row["context_kind"] == "all"
    }
    # What sells every day as before has no row.
    assert scores == {
        "hot": pytest.approx(2 ** (-3 / 48) + 2 ** (-27 / 48)),
        "new": pytest.approx(2 ** (-60 / 48) + 2 ** (-84 / 48)),
    }


@pytest.mark.parametrize("run_at", [0, 8, 20])
def test_steady_sales_trend_at_no_hour_and_a_surge_is_measured_in_deviations(recorded, run_at):
    now = AS_OF + timedelta(hours=run_at)
    sold = [
        (f"{person}{n}", item, "purchase", days, hour, None)
        for item, person, times, hour in (("old", "n", 30, 2), ("hot", "s", 10, 14))
        for days in range(-1, 64)
        for n in range(times * (3 if item == "hot" and days == 1 else 1))
        if timedelta(days=days) - timedelta(hours=hour) + timedelta(hours=run_at) > timedelta(0)
    ]
    record = replace(recorded(ITEMS["item_id"].combine_chunks(), *sold), as_of=now)
    people = pa.table({
        "person_id": sorted({row[0] for row in sold}), "region": pa.nulls(60, pa.string()),
        "segment": pa.nulls(60, pa.string()),
    })  # fmt: skip
    params = pools.Params(min_context_people=2)
    category = ITEMS["category"]
    counted = interest.interest(record, people, category, params, requests=True)
    score = trending.scores(counted, params)
    names = ITEMS["item_id"].to_pylist()
    found = {
        (*counted.contexts[context], names[item]): value
        for context, item, value in zip(counted.context, counted.item, score, strict=True)
    }
    assert found["all", "", "old"] == found["hour", "00-06", "old"] == 0
    last = 2 ** (-((10 + run_at) % 24) / 48)
    ago = 2 ** (-((10 + run_at) // 24) / 2)  # the days since the surge
    variance = 10 * last**2 * sum(2.0**-k for k in range(7)) + 1
    assert found["all", "", "hot"] == pytest.approx(20 * last * ago / variance**0.5)
    assert found["hour", "12-18", "hot"] == found["all", "", "hot"]


def test_curated_lists_come_one_after_the_other_and_those_of_a_surface_apart():
    rows = [
        ("b", None, 1, "x"), ("a", None, 2, "y"), ("a", None, 1, "z"), ("b", None, 2, "z"),
        ("c", "feed", 2, "x"), ("c", "feed", 1, "w"), ("d", "home", 1, "y"),
    ]  # fmt: skip
    schema = tables.TABLES["editorial"].schema
    names = ("list_id", "surface", "position", "item_id")
    curated = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema)
    found: dict[tuple[str, str], list[str]] = {}
    for row in editorial.pool(curated, 10).to_pylist():
        found.setdefault((row["context_kind"], row["context"]), []).append(row["item_id"])
        assert row["rank"] == len(found[row["context_kind"], row["context"]])
    assert found == {
        ("all", ""): ["z", "y", "x"], ("surface", "feed"): ["w", "x"], ("surface", "home"): ["y"],
    }  # fmt: skip
    assert editorial.pool(curated, 1).num_rows == 3
    assert editorial.pool(curated.slice(0, 0), 10).num_rows == 0


def test_a_person_day_counts_once_and_half_as_much_after_the_half_life(shared_lists):
    shared = shared_lists(
        ("n0", "old", "purchase", 29, 1, None), ("n0", "old", "purchase", 29, 2, None),
        ("n0", "old", "view", 29, 3, None), ("n1", "old", "view", 1), ("n2", "old", "return", 1),
        ("n2", "hot", "purchase", 86), ("n2", "hot", "view", 84),
    )  # fmt: skip
    scores = {
        row["item_id"]: row["score"]
        for row in shared.to_pylist()
        if row["source"] == "popular" and row["context_kind"] == "all"
    }
    # What was bought 28 days before the last one counts a half; after 84 days nothing does.
    assert scores == {
        "old": pytest.approx(0.5 + 0.05),
        "hot": pytest.approx(0.05 * 0.5 ** (83 / 28)),
    }


def test_an_arrival_that_nobody_chose_stands_behind_those_that_sold_and_for_everybody(
    shared_lists,
):
    shared = shared_lists(("n0", "old", "purchase", 3))
    arrivals = [row for row in shared.to_pylist() if row["source"] == "new_arrivals"]
    (only,) = arrivals
    assert (only["item_id"], only["context_kind"]) == ("new", "all")
    assert only["score"] == pytest.approx(1e-3 * (1 - 3 / 28))


def test_people_are_counted_alike_in_whatever_blocks_they_are_read(shared_lists, monkeypatch):
    rows = [
        *[(f"n{i}", "old", "purchase", days, 3, "phone") for i in range(3) for days in (1, 8, 40)],
        *[(f"s{i}", "hot", "view", days, 20, "desk") for i in range(3) for days in (1, 2)],
    ]
    whole = shared_lists(*rows, people=3, requests=True)
    monkeypatch.setattr(interest, "BLOCK", 1)
    monkeypatch.setattr(interest, "MERGED_AT", 1)
    key = [(name, "ascending") for name in ("source", "context_kind", "context", "rank")]
    again = shared_lists(*rows, people=3, requests=True)
    assert again.sort_by(key).equals(whole.sort_by(key))
    assert {"phone", "desk", "FOOD"} <= set(whole["context"].to_pylist())


def test_a_context_of_few_people_has_no_pool(shared_lists):
    found = by_pool(shared_lists(("n0", "old", "purchase", 3), people=4))
    assert {context for _, context in found} == {""}


def test_nobody_with_an_interest_leaves_arrivals_and_curated_lists(shared_lists):
    found = by_pool(shared_lists(("n0", "old", "return", 3), requests=True))
    assert found == {("new_arrivals", ""): ["new"], ("editorial", ""): ["new", "old"]}


def test_a_request_of_somebody_unknown_has_pools_of_what_it_says_of_itself(shared_lists):
    shared = shared_lists(
        *[(f"n{i}", "old", "purchase", 2, 3, "phone") for i in range(3)],
        *[(f"n{i}", "old", "purchase", 2, 4, "phone") for i in range(3)],
        *[(f"s{i}", "hot", "purchase", 2, 20, "desk") for i in range(2)],
        *[(f"s{i}", "new", "view", 2, 20, "desk") for i in range(3)],
        ("n0", "gone", "purchase", 2, 9, "phone"),
        requests=True,
    )
    popular = {
        (row["context_kind"], row["context"], row["rank"]): (row["item_id"], row["score"])
        for row in shared.to_pylist()
        if row["source"] == "popular" and row["context_kind"] not in pools.OF_PERSONS
    }
    # Three person-days a context, however often somebody came in the quarter; one is too few.
    day = pytest.approx(3 * 0.5 ** (1 / 28))
    assert popular["category", "FOOD > TEA", 1] == ("old", day)
    assert popular["category", "FOOD", 1] == ("old", day)
    assert popular["category", "FOOD", 2][0] == "hot"
    assert popular["category", "TOYS", 1][0] == "new"
    assert popular["channel", "phone", 1] == ("old", day)
    assert [popular["channel", "desk", rank][0] for rank in (1, 2)] == ["hot", "new"]
    assert popular["hour", "00-06", 1] == ("old", day)
    assert {context for _, context, _ in popular} == {
        "FOOD", "FOOD > TEA", "TOYS", "phone", "desk", "00-06", "18-24",
    }  # fmt: skip
    # No person's list reads them.
    item_ids, _ = matrix.encode(shared["item_id"])
    named, _ = pools.Lists(shared, item_ids, 10, ()).of_people(
        pa.chunked_array([["north"]]), pa.chunked_array([pa.array([None], pa.string())])
    )
    mine = named.item[named.source == SOURCES.index("popular")]
    assert sorted(item_ids.take(pa.array(mine)).to_pylist()) == ["gone", "hot", "new", "old"]


def test_people_get_the_best_rank_over_their_contexts(shared_lists):
    rows = shared_lists(
        *[(f"n{i}", "old", "purchase", 3) for i in range(3)],
        *[("s0", "hot", "purchase", days) for days in (1, 2, 3, 4)],
    )
    item_ids, _ = matrix.encode(rows["item_id"])
    lists = pools.Lists(rows, item_ids, 10, ())
    people = ("north", "south", None)
    named, scores = lists.of_people(pa.chunked_array([people]), pa.chunked_array([[None] * 3]))
    popular = named.source == SOURCES.index("popular")
    best = {
        people[person]: item_ids[item].as_py()
        for person, item in zip(
            named.person[popular & (named.rank == 1)], named.item[popular & (named.rank == 1)],
            strict=True,
        )
    }  # fmt: skip
    # In the north "old" leads its own pool and "hot" everybody's: the lower id wins the tie.
    assert best == {"north": "hot", "south": "hot", None: "hot"}
    for person in range(3):
        mine = popular & (named.person == person)
        assert named.rank[mine].tolist() == list(range(1, mine.sum() + 1))
        assert len(set(named.item[mine].tolist())) == mine.sum()
    assert np.isfinite(scores).all()


def test_a_pool_is_read_to_its_depth_and_empty_pools_name_nothing():
    rows = pa.table(
        {
            "source": ["popular"] * 3, "context_kind": ["all"] * 3, "context": [""] * 3,
            "rank": [1, 2, 3], "item_id": ["b", "a", "c"], "score": [3.0, 2.0, 1.0],
        }
    )  # fmt: skip
    nobody = pa.chunked_array([["x", None]], pa.string())
    ids = pa.array(["a", "b", "c"])
    named, scores = pools.Lists(rows, ids, 2, ()).of_people(nobody, nobody)
    assert named.person.tolist() == [0, 0, 1, 1]
    assert named.item.tolist() == [1, 0, 1, 0]
    assert scores.tolist() == [3.0, 2.0, 3.0, 2.0]
    named, _ = pools.Lists(rows.slice(3), ids, 2, ()).of_people(nobody, nobody)
    assert len(named.person) == 0


def test_what_is_curated_for_a_surface_moves_no_other_list():
    def of(kind: str, context: str, items: list[str]) -> list[dict]:
        return [
            {"source": "editorial", "context_kind": kind, "context": context, "rank": rank,
             "item_id": item, "score": 1.0 / rank} for rank, item in enumerate(items, start=1)
        ]  # fmt: skip

    everybodys, mine = [f"a{n}" for n in range(4)], ["d0", "d1", "a3", "d2"]
    shared = pa.Table.from_pylist(
        [*of("all", "", everybodys), *of("surface", "discover", mine),
         *of("surface", "digest", ["g0", "g1", "g2"]), *of("surface", "dicsover", ["x0", "x1"])],
        tables.TABLES["pools"].schema,
    )  # fmt: skip
    people = pa.table({
        "person_id": ["p"], "region": pa.array([None], pa.string()),
        "segment": pa.array([None], pa.string()),
    })  # fmt: skip
    found = pools.for_people(shared, people, 4, ["discover", "digest"])
    assert set(found["source"].to_pylist()) == {"editorial"}
    assert dict(zip(found["item_id"].to_pylist(), found["rank"].to_pylist(), strict=True)) == {
        "a0": 1, "a1": 2, "a2": 3, "a3": 3, "d0": 1, "d1": 2, "d2": 4, "g0": 1, "g1": 2, "g2": 3,
    }  # fmt: skip
    ids, _ = matrix.encode(shared["item_id"])
    lists = pools.Lists(shared, ids, 4, ["discover"])
    assert lists.of_surfaces == (("surface", "discover"),)
    chosen = ids.filter(pa.array(lists.curated("discover"))).to_pylist()
    assert chosen == ["a0", "a1", "a2", "a3", "d0", "d1", "d2"]
    # To the depth each, however many there are.
    assert pools.for_people(shared, people, 2, ["discover", "digest"]).num_rows == 6
