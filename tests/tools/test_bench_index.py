"""The benchmark of the index: both contenders end with the same items, and ratios are per round."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.retrieval import index
from tools import bench_index


def test_neither_the_refresh_nor_the_rebuild_loses_a_stratum():
    runs = bench_index.measure(1, 4_000, index.Params(exact_below=0))
    assert [run["threads"] for run in runs] == sorted({1, runs[-1]["threads"]})
    for run in runs:
        assert run["losses"] == []
        assert min(run["refresh_recall"], run["rebuild_recall"]) > 0.9


def test_churn_is_the_items_that_came_and_left():
    problem = bench_index.generate(2_000)
    before, now = (set(items.positions) for items in (problem.before, problem.now))
    assert len(before - now) == len(now - before) == 30
    rows = np.flatnonzero(problem.now.positions < 2_000)
    same = problem.now.vectors[rows] == problem.before.vectors[problem.now.positions[rows]]
    assert (~same.all(axis=1)).sum() == 10
    assert len(problem.strata["age"].of) == len(problem.now.positions) == 2_000


def test_a_part_is_compared_with_its_counterpart_of_the_same_round():
    def run(round_: int, update: float, train: float) -> dict:
        parts = {"update": update, "guard": 1.0, "refresh": 1.0 + update,
                 "train": train, "recall": 2.0, "rebuild": 2.0 + train}  # fmt: skip
        return {
            "items": 10, "strata": 3, "threads": 1, "round": round_, "guard_queries": 4,
            "recall_queries": 5, "refresh_recall": 0.95, "rebuild_recall": 0.96, "losses": [],
            **{f"{name}_{unit}": spent for name, spent in parts.items()
               for unit in ("seconds", "processor")},
        }  # fmt: skip

    lines = bench_index.table([run(0, 1.0, 60.0), run(1, 2.0, 80.0)])
    assert "| 1 | the index | 1.50 | 70.00 | 50.0 | 40.0 | 1.50 | 70.00 | 50.0 |" in lines
    assert "0.950 refreshed, 0.960 rebuilt; the guard tripped 0 times" in " ".join(lines)


def test_problems_are_the_same_every_time():
    one, two = bench_index.generate(500), bench_index.generate(500)
    np.testing.assert_array_equal(one.now.vectors, two.now.vectors)
    assert one.people.shape == (bench_index.PEOPLE, bench_index.DIMENSIONS)
    assert pytest.approx(1.0) == np.mean(one.strata["age"].of[:490])
