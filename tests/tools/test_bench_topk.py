"""The benchmark of exact lists: its contenders agree, and what is wrong in a list is counted."""

from __future__ import annotations

import numpy as np
import pytest

from tools import bench_topk


@pytest.mark.parametrize("kind", bench_topk.KINDS)
def test_every_contender_finds_all_that_is_best(kind):
    runs = bench_topk.measure(1, (kind,), n_people=300, n_items=1_500, depth=20)
    assert {run["name"]: run["recall"] for run in runs} == dict.fromkeys(bench_topk.CONTENDERS, 1.0)
    assert len(bench_topk.table(runs)) == 6 + len(bench_topk.CONTENDERS) + 1


def test_who_is_left_short_by_the_filter_is_asked_again(monkeypatch):
    problem = bench_topk.generate("even", 100, 800, 10)
    monkeypatch.setattr(bench_topk, "BOUGHT", -5)
    assert (bench_topk.flat(problem, 1) == bench_topk.product(problem, 1)).mean() > 0.99


def test_an_item_that_is_denied_is_there_twice_or_is_not_among_the_best_is_wrong():
    problem = bench_topk.generate("even", 50, 800, 10)
    least = bench_topk.least_scores(problem)
    lists = bench_topk.product(problem, 1)
    assert bench_topk.recall(problem, lists, least) == 1.0
    lists[0, 1] = lists[0, 0]
    lists[1, 0] = problem.allowed.blocked[problem.allowed.blocked // 800 == 1][0] - 800
    lists[2, 0] = np.argmin(problem.items @ problem.people[2])
    lists[3, 9] = -1
    assert bench_topk.recall(problem, lists, least) == pytest.approx(1 - 4 / 500)
