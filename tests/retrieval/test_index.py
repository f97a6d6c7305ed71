import dataclasses
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs import io
from jobs.errors import Fault
from jobs.retrieval import bundles, index, matrix, recall
from jobs.retrieval.sphere import on_sphere
from tests.retrieval.conftest import AS_OF, catalogue

DIM = 6
PARAMS = index.Params(person_queries=20, item_queries=10)
CELLS = dataclasses.replace(PARAMS, exact_below=0)


def vectors_of_crowds(n_items: int, seed: int = 0) -> np.ndarray:
    """Items in clusters, with norms from tiny to large, as ALS makes them."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(12, DIM))
    points = centres[generator.integers(0, 12, n_items)] + generator.normal(0, 0.2, (n_items, DIM))
    return (points * generator.lognormal(-1, 1, (n_items, 1))).astype(np.float32)


def exact_top(queries: np.ndarray, vectors: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :k]


def test_an_exact_index_finds_the_largest_inner_products_and_says_them() -> None:
    vectors, queries = vectors_of_crowds(300), vectors_of_crowds(20, 1)
    positions = np.arange(300) * 3 + 5
    bundle = index.build(positions, vectors, "v", PARAMS, 7)
    found, scores = bundles.search(bundle, queries, "v", 10)
    np.testing.assert_array_equal(found, positions[exact_top(queries, vectors, 10)])
    row = (found - 5) // 3
    np.testing.assert_allclose(
        scores, np.einsum("qd,qkd->qk", queries, vectors[row]), rtol=1e-3, atol=1e-4
    )


def test_a_search_with_vectors_of_another_space_is_refused() -> None:
    bundle = index.build(np.arange(50), vectors_of_crowds(50), "tonight", PARAMS, 7)
    with pytest.raises(Fault, match=r"space yesterday, the index holds tonight"):
        bundles.search(bundle, vectors_of_crowds(1), "yesterday", 5)
    with pytest.raises(Fault, match="dimensions"):
        bundles.search(bundle, np.ones((1, DIM + 1), np.float32), "tonight", 5)


@pytest.mark.parametrize("params", [PARAMS, CELLS])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.02, 0.002, 0.0])
def test_only_what_is_allowed_is_found_however_rare_it_is(params, share) -> None:
    vectors, queries = vectors_of_crowds(3000), vectors_of_crowds(40, 1)
    positions = np.random.default_rng(5).permutation(4000)[:3000]
    allowed = np.random.default_rng(6).random(4000) < share
    allowed[positions[:3]] = share > 0
    bundle = index.build(positions, vectors, "v", params, 7)
    bits = np.packbits(allowed, bitorder="little")
    found, scores = bundles.search(bundle, queries, "v", 10, bits)
    rows = np.flatnonzero(allowed[positions])
    best = positions[rows[exact_top(queries, vectors[rows], 10)]]
    most = min(10, len(rows))
    assert (found[:, most:] == -1).all()
    assert np.isneginf(scores[:, most:]).all()
    assert allowed[found[:, :most]].all()
    hits = [len(set(one) & set(other)) for one, other in zip(found, best, strict=True)]
    assert sum(hits) >= (1.0 if params is PARAMS else 0.9) * best.size


def test_a_bundle_is_the_same_after_the_way_to_disk(tmp_path) -> None:
    vectors, queries = vectors_of_crowds(2000), vectors_of_crowds(20, 1)
    bundle = index.build(np.arange(2000), vectors, "v", CELLS, 7)
    index.save(bundle, tmp_path)
    loaded = index.load(tmp_path)
    assert loaded.facts == bundle.facts
    assert loaded.facts["kind"] == "cells"
    for one, two in zip(
        bundles.search(bundle, queries, "v", 10),
        bundles.search(loaded, queries, "v", 10),
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.sets(st.integers(0, 399), max_size=30), st.sets(st.integers(0, 399))),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
def test_many_refreshes_leave_what_one_build_leaves(nights, cells) -> None:
    every = vectors_of_crowds(400)
    params = dataclasses.replace(CELLS if cells else PARAMS, headroom=20.0)
    held = {position: every[position] for position in range(100)}
    bundle = index.build(np.arange(100), every[:100], "v", params, 7)
    for number, (removed, changed) in enumerate(nights):
        arrived = {p: every[p] * np.float32(0.9**number) for p in changed - removed}
        held = {p: v for p, v in held.items() if p not in removed} | arrived
        bundle = index.update(
            bundle,
            np.array(sorted(removed), dtype=np.int64),
            np.array(list(arrived), dtype=np.int64),
            np.array(list(arrived.values()), np.float32).reshape(-1, DIM),
        )
    if not held:
        assert bundle.facts["count"] == 0
        return
    everything = dataclasses.replace(
        bundle, facts={**bundle.facts, "nprobe": bundle.facts["nlist"]}
    )
    rebuilt = index.build(np.array(list(held)), np.array(list(held.values())), "v", PARAMS, 7)
    queries = vectors_of_crowds(5, 1)
    k = len(held)
    found, scores = bundles.search(everything, queries, "v", k)
    found_again, scores_again = bundles.search(rebuilt, queries, "v", k)
    assert bundle.facts["count"] == k
    np.testing.assert_array_equal(np.sort(found), np.sort(found_again))
    np.testing.assert_allclose(scores, scores_again, rtol=1e-2, atol=2e-2)


def test_a_vector_beyond_the_bound_asks_for_a_new_build() -> None:
    vectors = vectors_of_crowds(50)
    bundle = index.build(np.arange(50), vectors, "v", PARAMS, 7)
    with pytest.raises(Fault, match="build the index again"):
        index.update(bundle, np.zeros(0, np.int64), np.array([50]), vectors[:1] * 1000)


def judged(bundle: index.Bundle, vectors: np.ndarray, strata: dict) -> dict[tuple[str, str], float]:
    people = vectors_of_crowds(100, 1)
    bound = bundle.facts["bound"]
    tune, held = recall.draw_queries(vectors, people, strata, bound, 20, 10, 7)
    assert not set(tune.own[tune.own >= 0]) & set(held.own[held.own >= 0])
    positions = np.arange(len(vectors))
    bundle = index.tuned(bundle, positions, vectors, tune, 0.95)
    measured = index.judged(bundle, positions, vectors, held, strata)
    return {(each.kind, each.stratum): each.recall for each in measured}


def test_recall_of_an_exact_index_is_one_in_every_stratum() -> None:
    vectors = vectors_of_crowds(400)
    strata = {"age": recall.Strata(("new", "older"), (np.arange(400) < 300).astype(int))}
    shares = judged(index.build(np.arange(400), vectors, "v", PARAMS, 7), vectors, strata)
    assert set(shares) == {
        ("overall", "all"), ("overall", "person"), ("overall", "item"), ("age", "older"),
        ("age", "new"),
    }  # fmt: skip
    assert set(shares.values()) == {1.0}


def test_recall_by_age_shows_new_items_that_frozen_cells_lose() -> None:
    generator = np.random.default_rng(3)
    old = vectors_of_crowds(4000)
    fresh = generator.normal(size=(200, DIM)).astype(np.float32)
    fresh *= 3 / np.linalg.norm(fresh, axis=1, keepdims=True)
    params = dataclasses.replace(CELLS, headroom=4.0, cell_factor=8.0)
    frozen = index.build(np.arange(4000), old, "v", params, 7)
    frozen = index.update(frozen, np.zeros(0, np.int64), np.arange(4000, 4200), fresh)
    vectors = np.concatenate([old, fresh])
    strata = {"age": recall.Strata(("new", "older"), (np.arange(4200) < 4000).astype(int))}
    people = vectors_of_crowds(100, 1)
    _, held = recall.draw_queries(vectors, people, strata, frozen.facts["bound"], 20, 10, 7)
    frozen = dataclasses.replace(frozen, facts={**frozen.facts, "nprobe": 12})
    measured = index.judged(frozen, np.arange(4200), vectors, held, strata)
    shares = {each.stratum: each.recall for each in measured}
    assert shares["new"] < shares["older"] - 0.05


@pytest.mark.parametrize("n_items", [3, 40, 260, 20_000])
def test_the_true_neighbours_are_those_of_a_full_sort(n_items) -> None:
    vectors = vectors_of_crowds(n_items)
    bound = 2 * float(np.linalg.norm(vectors, axis=1).max())
    points = on_sphere(vectors, bound)
    items = np.arange(n_items)[:30]
    asked = recall.queries(vectors_of_crowds(30, 1), vectors, items, bound)
    gaps = np.square(points[None] - asked.points[:, None].astype(np.float64)).sum(axis=2)
    gaps[np.arange(30, len(gaps)), items] = np.inf
    expected = np.argsort(gaps, axis=1, kind="stable")[:, : min(recall.K, n_items - 1)]
    truth = recall.exact(points, asked)
    assert (truth[:, expected.shape[1] :] == -1).all()
    np.testing.assert_array_equal(truth[:, : expected.shape[1]], expected)


def test_neighbours_found_or_lost_together_count_as_few() -> None:
    n_queries = 400
    truth = np.tile(np.arange(recall.K), (n_queries, 1))
    own = np.full(n_queries, -1)
    generator = np.random.default_rng(5)
    apart = generator.random(truth.shape) < 0.8
    together = np.repeat(generator.random((n_queries, 1)) < 0.8, recall.K, axis=1)
    counted = [
        recall.measure(truth, hits, own, {})[0].effective
        for hits in (apart, together, np.ones_like(apart))
    ]
    assert counted[0] == pytest.approx(n_queries * recall.K, rel=0.2)
    assert counted[1:] == [n_queries, n_queries]


def test_items_of_equal_vectors_may_stand_for_each_other() -> None:
    vectors = np.repeat(vectors_of_crowds(30), 40, axis=0)
    shares = judged(
        index.build(np.arange(1200), vectors, "v", PARAMS, 7), vectors,
        {"age": recall.Strata(("older",), np.zeros(1200, int))},
    )  # fmt: skip
    assert shares["age", "older"] == 1.0


def named(strata: recall.Strata) -> list[str]:
    return [strata.names[number] for number in strata.of]


def test_an_item_is_new_for_the_days_after_it_was_first_seen() -> None:
    seen = [AS_OF - timedelta(days=days) for days in (1, 28, 29)]
    items = catalogue(["a", "b", "c", "d"], first_seen=[*seen, None])
    assert named(recall.ages(items, AS_OF, 28)) == ["new", "new", "older", "never_seen"]


def test_categories_beyond_the_largest_are_judged_as_one() -> None:
    items = catalogue(["a", "b", "c", "d", "e"], category=["X > 1", "X > 2", "Y", "Z", None])
    assert named(recall.categories(items, 1)) == ["X", "X", "(other)", "(other)", "(other)"]
    assert named(recall.categories(items, 9)) == ["X", "X", "Y", "Z", "(none)"]


def publish_a_space(publish, n_items: int = 60) -> None:
    ids = [f"i{i:03d}" for i in range(n_items)]
    factors = vectors_of_crowds(n_items - 10)
    publish("catalogue", items=catalogue(ids, category=["X"] * n_items))
    publish(
        "content_embeddings",
        content_vectors=pa.table(
            {
                "item_id": ids[::-1],
                "vector": matrix.vector_column(vectors_of_crowds(n_items, 5)),
            }
        ),
    )
    night = publish("embeddings")
    night.write(
        "item_factors", pa.table({"item_id": ids[10:], "vector": matrix.vector_column(factors)})
    )
    people = vectors_of_crowds(30, 2)
    night.write(
        "person_factors",
        pa.table({"person_id": [f"p{i}" for i in range(30)],
                  "vector": matrix.vector_column(people)}),
    )  # fmt: skip
    io.write_json(night.staged / "embedding.json", {"version": "space"})
    night.lake.publish("embeddings", AS_OF, "test-run")


def test_the_step_indexes_every_item_and_says_where_its_vector_came_from(publish) -> None:
    publish_a_space(publish)
    night = publish("index")
    index.run(night, PARAMS)
    rows = io.read_arrow(night.staged / "item_vectors").to_pylist()
    assert [row["position"] for row in rows] == list(range(60))
    assert [row["origin"] for row in rows] == ["content"] * 10 + ["collaborative"] * 50
    bundle = index.load(night.staged / index.BUNDLE)
    assert bundle.facts["embedding_version"] == "space"
    assert bundle.facts["count"] == 60
    rows = io.read_arrow(night.staged / "index_recall").to_pylist()
    assert recall.rows(index.remembered(bundle)).to_pylist() == rows
    assert {row["recall"] for row in rows} == {1.0}


def test_a_factor_without_an_item_is_a_fault(publish) -> None:
    publish_a_space(publish)
    publish("catalogue", items=catalogue([f"i{i:03d}" for i in range(59)]))
    with pytest.raises(Fault, match="1 item factors belong to no item"):
        index.run(publish("index"), PARAMS)
