"""Delays under truncation: hand-known answers, simulated truth, false alarms and power."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.diagnosis.labels import delays
from jobs.diagnosis.labels.delays import Cells


def seen(age: np.ndarray, late: np.ndarray) -> Cells:
    """What has arrived: an event whose delay is longer than its age is not there."""
    here = late < age
    return Cells(delays.binned(age[here]), delays.binned(late[here]), np.ones(here.sum()))


def test_all_at_once_is_a_median_within_the_first_bin() -> None:
    cells = seen(np.full(10, 100.0), np.zeros(10))
    share = delays.distribution(cells, cells.oldest)
    assert share[0] == 1.0
    assert 0 <= delays.quantile(share, 0.5) <= 0.25


def test_without_truncation_it_is_the_plain_distribution() -> None:
    late = np.array([0.0, 0.0, 5.5, 30.5])
    cells = seen(np.full(4, 200.0), late)
    share = delays.distribution(cells, cells.oldest)
    for hours, expected in ((0.1, 0.5), (4.5, 0.5), (5.9, 0.75), (29.0, 0.75), (31.0, 1.0)):
        assert share[delays.binned(np.array([hours]))[0]] == pytest.approx(expected)


def test_no_event_has_no_distribution() -> None:
    empty = np.zeros(0, int)
    share = delays.distribution(Cells(empty, empty, empty), 5)
    assert np.isnan(share).all()
    assert np.isnan(delays.quantile(share, 0.5))


def test_delays_that_are_cut_off_by_the_run_date_are_not_thought_short() -> None:
    rng = np.random.default_rng(1)
    age = rng.uniform(0, 14 * 24, 200_000)
    late = rng.exponential(48, len(age))
    cells = seen(age, late)
    found = delays.distribution(cells, cells.oldest)
    whole = 1 - np.exp(-14 * 24 / 48)
    for level in (0.5, 0.9, 0.99):
        truth = -48 * np.log(1 - level * whole)
        assert delays.quantile(found, level) == pytest.approx(truth, rel=0.05)
    arrived = late[late < age]
    assert np.quantile(arrived, 0.9) < 0.95 * -48 * np.log(1 - 0.9 * whole)


def daily_noise(rng: np.random.Generator, age: np.ndarray, by: float = 0.0) -> np.ndarray:
    """Most events at once; each day has its own share of late ones."""
    share = rng.beta(2, 60, 60)[(age // 24).astype(int)]
    return np.where(rng.random(len(age)) < share, rng.exponential(20, len(age)), 0.02) + by


@pytest.mark.parametrize("seed", range(40))
def test_a_clean_feed_does_not_move(seed: int) -> None:
    rng = np.random.default_rng(seed)
    now, then = rng.uniform(0, 336, 4_000), rng.uniform(336, 1008, 8_000)
    found = delays.shift(
        seen(now, daily_noise(rng, now)), seen(then, daily_noise(rng, then)), limit=2.0
    )
    assert found.hours < 2 or found.p_value > 1e-4


@pytest.mark.parametrize("seed", range(10))
def test_a_day_more_is_told_in_hours_although_the_last_day_is_not_there_yet(seed: int) -> None:
    rng = np.random.default_rng(seed)
    now, then = rng.uniform(0, 336, 400), rng.uniform(336, 1008, 800)
    found = delays.shift(
        seen(now, daily_noise(rng, now, by=24.0)), seen(then, daily_noise(rng, then)), limit=2.0
    )
    assert found.hours == pytest.approx(24, abs=4)
    assert found.p_value < 1e-12
    assert found.more > 0.8
