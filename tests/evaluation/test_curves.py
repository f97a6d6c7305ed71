"""Losses, windows and decay come out as planted, with intervals that mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from jobs.evaluation import curves

AGES = np.array([0, 1, 3, 7, 14, 28], float)


def fading(people: int, tau: float, seed: int, ages: np.ndarray = AGES) -> np.ndarray:
    """People with five favourites each that end at the rate 1 / tau; what is alive at an age is
    hit with some luck, above a floor of their own."""
    random = np.random.default_rng(seed)
    ends = random.exponential(tau, (people, 5, 1))
    alive = (ends > ages).mean(axis=1)
    hits = random.binomial(6, 0.5 * alive) / 6
    return random.normal(0.15, 0.1, (people, 1)) + 0.5 * hits


def curve_of(values: np.ndarray, ages: np.ndarray = AGES, seed: int = 1) -> curves.Curve:
    return curves.curve(ages, values, curves.draws(len(values), 400, seed))


def test_losses_are_paired_and_people_who_are_not_judged_count_for_nothing():
    values = np.array([[0.5, 0.4, 0.3], [np.nan] * 3, [0.9, 0.8, 0.7], [0.1, 0.0, -0.1]])
    found = curve_of(values, np.array([0.0, 1.0, 2.0]))
    assert found.people == 3
    assert found.mean.tolist() == pytest.approx([0.5, 0.4, 0.3])
    assert found.loss.tolist() == pytest.approx([0.0, 0.1, 0.2])
    assert found.low[0] < 0.3 < 0.7 < found.high[0], "people differ"
    assert (found.loss_low[1], found.loss_high[1]) == pytest.approx((0.1, 0.1)), "all lose alike"


@given(
    losses=st.lists(st.floats(-1, 1), min_size=1, max_size=7),
    seed=st.integers(0, 1000),
)
@settings(max_examples=200, deadline=None)
def test_monotone_losses_are_those_of_isotonic_regression(losses: list[float], seed: int):
    weights = np.random.default_rng(seed).uniform(0.1, 10, len(losses))
    expected = np.maximum(isotonic_regression(losses, weights=weights).x, 0)
    found = curves.monotone(np.array([[0.0, *losses]]), weights)[0]
    assert found[1:] == pytest.approx(expected, abs=1e-12)
    assert found[0] == 0


@pytest.mark.parametrize(
    ("losses", "accepted", "days"),
    [
        ([0.0, 0.1, 0.2, 0.2], 0.05, 0.5),
        ([0.0, 0.1, 0.2, 0.2], 0.1, 1.0),
        ([0.0, 0.1, 0.2, 0.2], 0.15, 2.0),
        ([0.0, 0.1, 0.2, 0.2], 0.2, 7.0),
        ([0.0, 0.0, 0.0, 0.1], 0.0, 3.0),
    ],
)
def test_the_window_ends_where_the_loss_passes_what_is_accepted(losses, accepted, days):
    ages = np.array([0.0, 1.0, 3.0, 7.0])
    assert curves.crossing(ages, np.array(losses), accepted) == pytest.approx(days)


@pytest.mark.parametrize(
    ("tau", "people", "ages"),
    [(10.0, 1_500, AGES), (30.0, 600, np.array([0, 3, 7, 14, 28, 56, 84], float))],
)
def test_the_interval_of_the_decay_holds_the_planted_rate_19_times_in_20(tau, people, ages):
    found = [curves.decay(curve_of(fading(people, tau, seed, ages), ages)) for seed in range(40)]
    held = sum(each is not None and each.low <= tau <= each.high for each in found)
    assert held >= 34, "of 40; an honest interval fails this once in 300 times"
    middle = np.median([each.tau for each in found if each is not None])
    assert middle == pytest.approx(tau, rel=0.05)


def test_intervals_shrink_with_people():
    few, many = (curves.decay(curve_of(fading(n, 10.0, 5))) for n in (200, 5_000))
    assert few is not None
    assert many is not None
    assert many.high - many.low < 0.5 * (few.high - few.low)


def test_a_rate_too_slow_for_the_ages_has_no_upper_end():
    found = curves.decay(curve_of(fading(2_000, 300.0, 2)))
    assert found is not None
    assert found.low > 20
    assert found.high == np.inf


def test_a_flat_curve_has_no_rate_and_a_window_of_at_least_the_largest_age():
    random = np.random.default_rng(0)
    values = 0.4 + random.normal(0, 0.05, (2_000, 1)) + random.normal(0, 0.02, (2_000, 6))
    found = curve_of(values)
    assert curves.decay(found) is None
    allowed = curves.window(found, 0.02)
    assert (allowed.days, allowed.verdict) == (28.0, "flat")
    assert curves.cadence(found, allowed).name == "every 4 weeks"


def test_noise_is_called_noise_and_the_safe_end_is_advised():
    random = np.random.default_rng(4)
    values = 0.1 + random.normal(0, 0.2, (60, 6))
    found = curve_of(values)
    allowed = curves.window(found, 0.02)
    assert (allowed.days, allowed.verdict) == (28.0, "unclear")
    assert allowed.low < 7
    assert curves.cadence(found, allowed).days <= max(allowed.low, 1 / 24)


def test_the_window_of_a_fall_lies_where_the_exponential_says():
    tau, accepted = 10.0, 0.1
    found = curve_of(fading(5_000, tau, 8))
    allowed = curves.window(found, accepted)
    # The floor is 0.15 and 0.25 fades.
    true = -tau * np.log(1 - accepted * 0.4 / 0.25)
    assert allowed.verdict == "measured"
    assert allowed.low <= allowed.days <= allowed.high
    assert allowed.days == pytest.approx(true, rel=0.15)


def test_a_cadence_is_the_longest_usual_period_within_the_window_with_its_loss():
    values = np.repeat([[1.0, 0.99, 0.97, 0.93, 0.86, 0.72]], 50, axis=0)
    found = curve_of(values)
    for accepted, name, loss in (
        (0.3, "every 4 weeks", 0.28), (0.2, "every 2 weeks", 0.14), (0.069, "every 3 days", 0.03),
        (0.021, "every 2 days", 0.02), (0.011, "daily", 0.01), (0.005, "every 6 hours", 0.0025),
        (0.001, "hourly", 0.01 / 24),
    ):  # fmt: skip
        advised = curves.cadence(found, curves.window(found, accepted))
        assert (advised.name, advised.loss) == (name, pytest.approx(loss))
        assert advised.low <= advised.loss <= advised.high


def test_the_same_seed_draws_the_same_people():
    assert (curves.draws(50, 100, 1) == curves.draws(50, 100, 1)).all()
    assert (curves.draws(50, 100, 1) != curves.draws(50, 100, 2)).any()
    assert (curves.draws(50, 100, 1).sum(axis=1) == 50).all()
