"""The sources that nominate from the interaction matrix, from baskets and from content."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from jobs.errors import Fault
from jobs.filtering.allowed import Allowed
from jobs.retrieval import matrix
from jobs.retrieval.sources import (
    bought_together,
    collaborative,
    content_neighbours,
    item_to_item,
)
from jobs.tables import SOURCES, TABLES
from tests.retrieval.conftest import AS_OF_US, crowds


def test_every_source_bears_a_declared_name() -> None:
    for module in (bought_together, collaborative, content_neighbours, item_to_item):
        assert module.NAME in SOURCES


def kind(name: str) -> int:
    """The crowd of a person or an item."""
    return int(name[-3:]) % 4


# --- collaborative ---------------------------------------------------------------------------
def test_collaborative_rows_have_ids_and_no_seed() -> None:
    one = np.eye(2, dtype=np.float32)
    rows = collaborative.top_items(
        pa.array(["account:1", "account:2"]), one, pa.array(["a", "b"]), one,
        Allowed.for_all(2, np.ones(2, bool)), 1,
    )  # fmt: skip
    assert rows.schema.equals(TABLES["candidates"].schema)
    assert rows.select(["person_id", "item_id", "rank", "seed_item"]).to_pylist() == [
        {"person_id": "account:1", "item_id": "a", "rank": 1, "seed_item": None},
        {"person_id": "account:2", "item_id": "b", "rank": 1, "seed_item": None},
    ]


# --- item to item ----------------------------------------------------------------------------
def test_neighbours_are_shrunken_cosines() -> None:
    built = matrix.build(crowds())
    params = item_to_item.Params(neighbours=39, shrinkage=3.0)
    found = item_to_item.neighbours(built.matrix, params).toarray()
    presence = (built.matrix.toarray() > 0).astype(float)
    counts = presence.sum(axis=0) + 3.0
    expected = presence.T @ presence / np.sqrt(np.outer(counts, counts))
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_item_to_item_nominates_new_items_of_the_persons_crowd_with_their_seed() -> None:
    built = matrix.build(crowds())
    params = item_to_item.Params()
    rows = item_to_item.candidates(
        built,
        item_to_item.neighbours(built.matrix, params),
        AS_OF_US,
        np.ones(len(built.item_ids), bool),
        5,
        params,
    ).to_pylist()
    own = {(row["person_id"], row["item_id"]) for row in crowds().to_pylist()}
    assert not own & {(row["person_id"], row["item_id"]) for row in rows}
    assert own >= {(row["person_id"], row["seed_item"]) for row in rows}
    # A few people have chosen all that their crowd has.
    same = [kind(row["person_id"]) == kind(row["item_id"]) for row in rows if row["rank"] == 1]
    assert np.mean(same) > 0.9
    assert max(row["rank"] for row in rows) == 5


def test_a_forbidden_item_makes_room_for_the_next() -> None:
    built = matrix.build(crowds())
    params = item_to_item.Params()
    near = item_to_item.neighbours(built.matrix, params)
    allowed = np.ones(len(built.item_ids), bool)
    before = item_to_item.candidates(built, near, AS_OF_US, allowed, 5, params)
    allowed[matrix.positions(before["item_id"].slice(0, 1), built.item_ids)] = False
    after = item_to_item.candidates(built, near, AS_OF_US, allowed, 5, params)
    assert before["item_id"][0] not in after["item_id"].to_pylist()
    assert after["item_id"].to_pylist()[:4] == before["item_id"].to_pylist()[1:5]


# --- bought together -------------------------------------------------------------------------
def baskets(*lists: str) -> pa.Table:
    """One basket an argument, an item a letter, all of one person."""
    rows = [(str(n), item) for n, items in enumerate(lists) for item in items]
    return pa.table(
        {
            "person_id": ["account:1"] * len(rows),
            "basket": [basket for basket, _ in rows],
            "item_id": [item for _, item in rows],
            "event_type": ["purchase"] * len(rows),
        }
    )


def test_the_likelihood_ratio_is_dunnings_own_example() -> None:
    # "the swiss" in Dunning (1993), table 2: k(AB) = 110, k(A ~B) = 2442, k(~A B) = 111,
    # k(~A ~B) = 29114, -2 log lambda = 270.72.
    ratio = bought_together.log_likelihood_ratio(
        np.array([110]), np.array([110 + 2442]), np.array([110 + 111]), 110 + 2442 + 111 + 29114
    )
    assert ratio[0] == pytest.approx(270.72, abs=0.01)


def test_independent_items_have_no_ratio() -> None:
    assert bought_together.log_likelihood_ratio(
        np.array([25]), np.array([50]), np.array([50]), 100
    )[0] == pytest.approx(0, abs=1e-9)


def test_pairs_are_those_that_share_baskets_beyond_chance() -> None:
    history = baskets(*["ab"] * 20, *["c"] * 20, *["bc", "d", "e"] * 5)
    found = bought_together.pairs(history, bought_together.Params()).to_pylist()
    assert {(row["item_id"], row["other_item_id"]) for row in found} == {("a", "b"), ("b", "a")}
    forward = next(row for row in found if row["item_id"] == "a")
    assert forward["support"] == 20
    assert forward["score"] == pytest.approx((20 - 20**0.5) / 20)


def test_items_that_avoid_each_other_are_no_pair_however_significant() -> None:
    history = baskets(*["a"] * 100, *["b"] * 100, *["ab"] * 6, *["c"] * 10)
    assert bought_together.pairs(history, bought_together.Params()).num_rows == 0


def test_a_basket_counts_once_an_item_and_only_purchases_count() -> None:
    history = baskets(*["aab"] * 10, *["c"] * 30)
    found = bought_together.pairs(history, bought_together.Params())
    assert found["support"].to_pylist() == [10, 10]
    viewed = history.set_column(3, "event_type", pa.array(["view"] * history.num_rows))
    assert bought_together.pairs(viewed, bought_together.Params()).num_rows == 0


def test_two_people_may_use_the_same_name_for_a_basket() -> None:
    one = baskets(*["a"] * 10, *["c"] * 10)
    other = baskets(*["b"] * 10).set_column(0, "person_id", pa.array(["account:2"] * 10))
    both = pa.concat_tables([one, other])
    assert bought_together.pairs(both, bought_together.Params()).num_rows == 0


def test_a_huge_basket_is_capped_to_its_most_frequent_items() -> None:
    params = bought_together.Params(basket_cap=2, min_support=1, min_ratio=0.0)
    history = baskets(*["a"] * 5, *["b"] * 4, "abcdef", *["z"] * 9)
    found = bought_together.pairs(history, params)
    assert sorted(found["item_id"].to_pylist()) == []
    history = baskets(*["z"] * 30, "abcdef", "ab", "ab")
    found = bought_together.pairs(history, params)
    assert sorted(found["item_id"].to_pylist()) == ["a", "b"]
    assert found["support"].to_pylist() == [3, 3]


def test_blocks_of_the_count_change_nothing(monkeypatch) -> None:
    generator = np.random.default_rng(0)
    lists = ["".join(generator.choice(list("abcdefgh"), 3, replace=False)) for _ in range(400)]
    params = bought_together.Params(min_ratio=0.0)
    whole = bought_together.pairs(baskets(*lists), params)
    monkeypatch.setattr(bought_together, "BLOCK", 500)
    assert bought_together.pairs(baskets(*lists), params).equals(whole)


def test_bought_together_names_partners_of_what_the_person_chose() -> None:
    built = matrix.build(crowds())
    together = pa.table(
        {
            "item_id": ["i000", "i000", "gone"],
            "other_item_id": ["i001", "i002", "i003"],
            "score": [0.2, 0.4, 0.9],
            "support": [9, 9, 9],
        }
    )
    allowed = np.ones(len(built.item_ids), bool)
    params = dataclasses.replace(bought_together.Params(), new_only=False)
    rows = bought_together.candidates(built, together, AS_OF_US, allowed, 5, params).to_pylist()
    choosers = {r["person_id"] for r in crowds().to_pylist() if r["item_id"] == "i000"}
    assert {row["person_id"] for row in rows} == choosers
    assert {(row["item_id"], row["rank"]) for row in rows} == {("i002", 1), ("i001", 2)}
    assert {row["seed_item"] for row in rows} == {"i000"}


# --- content neighbours ----------------------------------------------------------------------
def content_of_crowds(extra: int) -> pa.Table:
    """Item i points along axis i % 4, slightly aside; ``extra`` items that nobody chose."""
    ids = [f"i{i:03d}" for i in range(40)] + [f"new{i}" for i in range(extra)]
    vectors = np.eye(4, dtype=np.float32)[np.arange(len(ids)) % 4]
    vectors += np.random.default_rng(0).normal(0, 0.05, vectors.shape).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return pa.table({"item_id": ids, "vector": matrix.vector_column(vectors)})


def cold_items(
    built: matrix.Interactions, content: pa.Table, depth: int, choosers: np.ndarray | None = None
) -> pa.Table:
    params = content_neighbours.Params()
    found = content_neighbours.cold(built, content, AS_OF_US, params, choosers)
    return content_neighbours.candidates(built, found, AS_OF_US, depth, params)


def test_only_cold_items_are_named_and_those_of_the_persons_kind_first() -> None:
    built = matrix.build(crowds())
    rows = cold_items(built, content_of_crowds(8), 2).to_pylist()
    assert {row["item_id"][:3] for row in rows} == {"new"}
    assert {row["person_id"] for row in rows} == set(built.person_ids.to_pylist())
    fits = [int(row["person_id"][-3:]) % 4 == int(row["item_id"][3:]) % 4 for row in rows]
    assert np.mean(fits) > 0.9


def test_cold_is_judged_over_everybody_not_over_the_people_asked_for() -> None:
    built = matrix.build(crowds())
    few = built.of_people(np.array([0, 1]))
    everybody = np.bincount(built.matrix.indices, minlength=len(built.item_ids))
    rows = cold_items(few, content_of_crowds(8), 20, everybody).to_pylist()
    assert {row["item_id"][:3] for row in rows} == {"new"}


def test_an_item_without_a_content_vector_is_a_fault() -> None:
    built = matrix.build(crowds())
    with pytest.raises(Fault, match="1 items with interactions have no content vector"):
        cold_items(built, content_of_crowds(2).slice(1), 5)


def test_a_block_of_people_gets_what_it_gets_among_everybody() -> None:
    built, content, params = (
        matrix.build(crowds()),
        content_of_crowds(8),
        content_neighbours.Params(),
    )
    found = content_neighbours.cold(built, content, AS_OF_US, params)
    whole = content_neighbours.candidates(built, found, AS_OF_US, 5, params)
    blocks = [
        content_neighbours.candidates(
            built.of_people(np.arange(first, min(first + 7, len(built.person_ids)))),
            found, AS_OF_US, 5, params,
        )
        for first in range(0, len(built.person_ids), 7)
    ]  # fmt: skip
    assert pa.concat_tables(blocks).equals(whole)
