import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.retrieval import matrix, nearest, neighbours
from tests.retrieval.conftest import AS_OF_US, DAY, crowds


def by_hand(
    seeds: neighbours.Seeds, near: np.ndarray, allowed: np.ndarray, depth: int, own: np.ndarray
) -> list[tuple]:
    """The same nominations, one pair at a time."""
    weights = seeds.weights.toarray()
    times = sp.csr_matrix(
        (seeds.last_times, seeds.weights.indices, seeds.weights.indptr), shape=weights.shape
    ).toarray()
    rows = []
    for person, row in enumerate(weights):
        scored = []
        for item in np.flatnonzero(allowed & ~own[person]):
            added = row.astype(np.float32) * near[:, item]
            if added.max() > 0:
                scored.append((-float(added.astype(np.float64).sum()), item, int(added.argmax())))
        for rank, (score, item, seed) in enumerate(sorted(scored)[:depth], 1):
            rows.append((person, item, rank, round(-score, 5), seed, times[person, seed]))
    return rows


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([7, 60, 10**6]))
def test_nominations_are_those_of_a_count_by_hand_whatever_the_blocks(
    seed: int, block: int
) -> None:
    generator = np.random.default_rng(seed)
    own = sp.random(9, 14, 0.3, "csr", np.float32, rng=generator)
    own.sort_indices()
    # Coarse strengths, so that ties happen.
    near = sp.random(14, 14, 0.3, "csr", np.float32, rng=generator)
    near.data = np.ceil(near.data * 3) / 4
    seeds = neighbours.Seeds(own, generator.integers(1, 100, own.nnz))
    allowed = generator.random(14) < 0.8
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "BLOCK", block)
        found = neighbours.nominate(seeds, near, allowed, 4, own)
    rows = list(
        zip(
            found.person.tolist(), found.item.tolist(), found.rank.tolist(),
            found.score.round(5).tolist(), found.seed.tolist(), found.seed_time.tolist(),
            strict=True,
        )
    )  # fmt: skip
    assert [row[:3] for row in rows] == [
        row[:3] for row in by_hand(seeds, near.toarray(), allowed, 4, own.toarray() > 0)
    ]
    assert [row[4:] for row in rows] == [
        row[4:] for row in by_hand(seeds, near.toarray(), allowed, 4, own.toarray() > 0)
    ]


def test_nobody_with_seeds_and_no_neighbours_is_an_empty_answer() -> None:
    seeds = neighbours.Seeds(sp.csr_matrix((3, 5), dtype=np.float32), np.zeros(0, np.int64))
    found = neighbours.nominate(seeds, sp.eye(5, format="csr"), np.ones(5, bool), 3, None)
    assert len(found.person) == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_the_first_of_each_group_are_those_of_a_full_sort(seed: int, depth: int) -> None:
    generator = np.random.default_rng(seed)
    group = np.sort(generator.integers(0, 5, 40))
    item = generator.permutation(40)
    score = generator.integers(-2, 3, 40) / 2  # few values, so that ties lie at every border
    score[generator.random(40) < 0.1] = -np.inf
    rows, ranks = neighbours.first_of_each(group, item, score, depth)
    expected = [
        (row, rank)
        for one in np.unique(group)
        for rank, row in enumerate(
            sorted(np.flatnonzero(group == one), key=lambda row: (-score[row], item[row]))[:depth],
            1,
        )
    ]
    assert list(zip(rows, ranks, strict=True)) == expected


def test_the_first_of_no_group_are_none() -> None:
    nothing = np.zeros(0, np.int64)
    rows, ranks = neighbours.first_of_each(nothing, nothing, np.zeros(0), 3)
    assert (len(rows), len(ranks)) == (0, 0)


def test_the_strongest_seeds_are_lately_chosen_ones() -> None:
    built = matrix.build(crowds())
    seeds = neighbours.strongest(built, 3, AS_OF_US, half_life_days=10)
    assert np.diff(seeds.weights.indptr).max() == 3
    weights = built.matrix[0].data
    age = (AS_OF_US - built.last_times[: len(weights)]) / DAY
    expected = np.sort(np.sqrt(weights) * 0.5 ** (age / 10))[-3:]
    np.testing.assert_allclose(np.sort(seeds.weights[0].data), expected, rtol=1e-5)


def unit_vectors(n: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_nearest_is_exact_where_that_is_quick() -> None:
    vectors, queries = unit_vectors(500, 0), unit_vectors(20, 1)
    rows, scores = nearest.nearest(queries, vectors, 5, seed=7)
    expected = np.argsort(-(queries @ vectors.T), axis=1)[:, :5]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ vectors.T, rows, 1), atol=1e-6)


def test_nearest_through_cells_finds_most_and_repeats_itself() -> None:
    centres = unit_vectors(30, 2)
    points = np.repeat(centres, 100, axis=0) + 0.1 * unit_vectors(3000, 3)
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    exact, _ = nearest.nearest(points[:300], points, 10, seed=7)
    one, _ = nearest.nearest(points[:300], points, 10, seed=7, exact_work=0)
    two, _ = nearest.nearest(points[:300], points, 10, seed=7, exact_work=0)
    np.testing.assert_array_equal(one, two)
    assert np.mean([len(set(a) & set(b)) for a, b in zip(one, exact, strict=True)]) > 9


def test_fewer_vectors_than_asked_for_leave_places_empty() -> None:
    rows, _ = nearest.nearest(unit_vectors(2, 0), unit_vectors(3, 1), 5, seed=7)
    assert (np.sort(rows, axis=1)[:, :2] == -1).all()
    rows, _ = nearest.nearest(unit_vectors(2, 0), unit_vectors(0, 1), 5, seed=7)
    assert (rows == -1).all()
