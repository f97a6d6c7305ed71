"""Contributions that add up, and slices that fall beside the rest: truth, false alarms, power."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.diagnosis import clusters
from jobs.diagnosis.decisions import decomposition
from jobs.diagnosis.decisions.decomposition import Sums


def test_a_slice_that_halves_is_a_change_of_rate_and_one_that_grows_of_mix() -> None:
    parts = decomposition.contributions(
        np.array([5.0, 10.0]), np.array([100.0, 100.0]), np.array([10.0, 10.0]),
        np.array([100.0, 100.0]),
    )  # fmt: skip
    assert parts.mix == pytest.approx([0.0, 0.0])
    assert parts.rate == pytest.approx([-0.025, 0.0])
    parts = decomposition.contributions(
        np.array([15.0, 10.0]), np.array([150.0, 50.0]), np.array([10.0, 20.0]),
        np.array([100.0, 100.0]),
    )  # fmt: skip
    assert parts.rate == pytest.approx([0.0, 0.0])
    assert parts.mix.sum() == pytest.approx(25 / 200 - 30 / 200)


@pytest.mark.parametrize("seed", range(5))
def test_contributions_add_up_to_the_change(seed: int) -> None:
    rng = np.random.default_rng(seed)
    top, bottom = rng.random(6), rng.random(6) * 9
    top_before, bottom_before = rng.random(6), rng.random(6) * 9
    bottom[0] = top[0] = bottom_before[1] = top_before[1] = 0.0
    parts = decomposition.contributions(top, bottom, top_before, bottom_before)
    change = top.sum() / bottom.sum() - top_before.sum() / bottom_before.sum()
    assert parts.contribution.sum() == pytest.approx(change)


def slices(seed: int, times: dict[int, float], whole: float = 1.0, rows: int = 60_000) -> Sums:
    """Slices whose rates wander by 5 %, visited by people with moods; ``times``: the rates of
    some, ``whole``: of all."""
    rng = np.random.default_rng(seed)
    cells, people = 12, 3_000
    cell, who = rng.integers(0, cells, rows), rng.integers(0, people, rows)
    current = rng.random(rows) < 0.3
    wander = np.exp(rng.normal(0, 0.05, cells))
    rate = np.array([times.get(n, 1.0) for n in range(cells)]) * wander * whole
    mood = rng.gamma(3, 1 / 3, people)[who]
    hit = rng.random(rows) < 0.06 * mood * np.where(current, rate[cell], 1.0)
    group = who % clusters.GROUPS
    now, then = np.where(current, cell, -1), np.where(current, -1, cell)
    return Sums(*(
        clusters.by_group(of, group, weight, cells)
        for of in (now, then) for weight in (hit.astype(float), np.full(rows, 0.06))
    ))  # fmt: skip


def lost(sums: Sums, level: float = 1e-3) -> list[int]:
    found = decomposition.beside_the_rest(sums)
    q = clusters.discovery(clusters.p_values(-found.z, sides=1))
    return np.flatnonzero(found.tested & (q < level) & (found.ratio < 0.75)).tolist()


def test_clean_periods_have_no_losing_slice() -> None:
    assert [lost(slices(seed, {})) for seed in range(120)] == [[]] * 120


def test_a_uniform_fall_is_no_losing_slice() -> None:
    assert [lost(slices(seed, {}, whole=0.5)) for seed in range(40)] == [[]] * 40


@pytest.mark.parametrize("seed", range(10))
def test_a_slice_that_halves_is_found(seed: int) -> None:
    assert lost(slices(seed, {3: 0.5}, rows=200_000)) == [3]


def test_the_random_groups_see_what_rows_of_a_person_share() -> None:
    rng = np.random.default_rng(0)
    means, errors = [], []
    for _ in range(200):
        who = np.repeat(np.arange(400), 20)
        values = (rng.random(400) < 0.3)[who].astype(float)  # all rows of a person are alike
        group = clusters.by_group(np.zeros(len(who), int), who % 100, values, 1)
        rows = clusters.by_group(np.zeros(len(who), int), who % 100, None, 1)
        mean, error = clusters.jackknife(lambda a, b: a / b, group, rows)
        means.append(mean[0])
        errors.append(error[0])
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.15)
    assert np.mean(errors) == pytest.approx(np.sqrt(0.3 * 0.7 / 400), rel=0.1)


def test_adjusted_p_values_are_those_of_the_textbook() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.005])
    assert clusters.holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert clusters.discovery(p) == pytest.approx([0.02, 0.04, 0.04, 0.02])
