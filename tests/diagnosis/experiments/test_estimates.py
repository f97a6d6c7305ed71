"""Intervals of means and ratios: against hand-known numbers, and against simulated truth."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.diagnosis.experiments import estimates
from jobs.diagnosis.experiments.estimates import Estimate
from jobs.evaluation import metrics

ONE = np.zeros(1)


def mean_of(values: np.ndarray) -> Estimate:
    return estimates.ratios(
        np.arange(len(values)), np.zeros(len(values), int), values, np.ones(len(values)), 1
    )


def test_a_mean_has_its_textbook_error():
    found = mean_of(np.array([1.0, 2.0, 3.0, 4.0]))
    assert found.value == pytest.approx([2.5])
    assert found.variance == pytest.approx([(5 / 3) / 4])
    assert found.skewness == pytest.approx([0.0])
    low, high = found.interval()
    assert high - low == pytest.approx([2 * 1.96 * np.sqrt(5 / 12)], rel=1e-4)


def test_visits_of_one_person_count_as_one_person():
    person = np.array([0, 0, 1, 1, 2])
    money = np.array([1.0, 3.0, 0.0, 2.0, 5.0])
    found = estimates.ratios(person, np.zeros(5, int), money, np.ones(5), 1)
    ratio, visits = 11 / 5, np.array([2, 2, 1])
    adds = (np.array([4, 2, 5]) - ratio * visits) / (5 / 3)
    assert found.value == pytest.approx([ratio])
    assert found.people.tolist() == [3]
    assert found.variance == pytest.approx([(adds**2).sum() / 2 / 3])


def test_the_delta_method_is_as_wide_as_a_bootstrap_over_people():
    generator = np.random.default_rng(1)
    visits = 1 + generator.poisson(2, 400)
    money = generator.gamma(1.0, 5.0, 400) * visits
    found = estimates.ratios(np.arange(400), np.zeros(400, int), money, visits.astype(float), 1)
    drawn = generator.integers(0, 400, (4_000, 400))
    again = money[drawn].sum(1) / visits[drawn].sum(1)
    assert np.sqrt(found.variance[0]) == pytest.approx(again.std(), rel=0.05)


def test_groups_without_people_or_visits_have_no_number():
    found = estimates.ratios(ONE.astype(int), ONE.astype(int), ONE + 5, ONE + 1, 2)
    assert found.value[0] == 5
    assert np.isnan([found.value[1], found.variance[0], found.variance[1]]).all()
    assert np.isnan(found.interval()).all()


@pytest.mark.parametrize(
    ("sigma", "people", "buyers", "at_least"),
    [(1.0, 300, 0.2, 0.925), (1.2, 1_000, 0.2, 0.92), (1.5, 1_000, 0.2, 0.9)],
)
def test_the_interval_of_lognormal_money_covers_better_than_students(
    sigma, people, buyers, at_least
):
    """A buyer's money has skewness 6, 11 and 33. In 1,000 worlds 94, 94 and 92 % were covered, by
    Student's interval 91, 92 and 88 %; 10,000 people of whom a twentieth buy: 94 and 92 %."""
    generator = np.random.default_rng(2)
    truth = buyers * np.exp(sigma**2 / 2)
    inside, students = 0, 0
    for _ in range(600):
        money = generator.lognormal(0, sigma, people) * (generator.random(people) < buyers)
        found = mean_of(money)
        low, high = found.interval()
        inside += low[0] <= truth <= high[0]
        students += abs(found.value[0] - truth) <= 1.96 * np.sqrt(found.variance[0])
    assert inside / 600 > at_least
    assert inside > students


def test_the_difference_of_two_unequal_skewed_arms_covers():
    generator = np.random.default_rng(3)
    inside = 0
    for _ in range(600):
        small, large = generator.lognormal(0, 1.2, 400), generator.lognormal(0, 1.2, 3_600)
        low, high = mean_of(small).less(mean_of(large)).interval()
        inside += low[0] <= 0 <= high[0]
    assert 0.92 < inside / 600 < 0.98


def test_the_cubic_and_its_inverse_agree_and_the_p_value_with_the_interval():
    skewness = np.array([-0.8, -1e-12, 0.0, 0.3, 2.0])
    for t in (-3.0, 0.0, 1.96):
        there = estimates._curl(estimates._uncurl(t, skewness), skewness)
        assert there == pytest.approx(np.full(5, t), abs=1e-6)
    found = Estimate(np.array([1.0]), np.array([0.2]), np.array([0.01]), np.array([9.0]))
    z = np.abs(found.z_score())
    assert np.abs(found.interval(z)).min() == pytest.approx(0, abs=1e-9)


def test_a_share_of_people_with_one_trial_each_has_wilsons_interval():
    bought = np.repeat([1.0, 0.0], [30, 970])
    found = estimates.share_interval(mean_of(bought), np.array([1_000]))
    assert np.ravel(found) == pytest.approx(metrics.wilson(30, 1_000), rel=1e-2)


def test_a_share_that_never_varies_still_has_an_interval():
    low, high = estimates.share_interval(mean_of(np.zeros(50)), np.array([50]))
    assert (low[0], high[0]) == pytest.approx(metrics.wilson(0, 50), abs=1e-4)


def test_visits_of_the_same_people_widen_a_share():
    person = np.repeat(np.arange(100), 10)
    bought = np.repeat(np.arange(100) < 20, 10).astype(float)
    share = estimates.ratios(person, np.zeros(1_000, int), bought, np.ones(1_000), 1)
    found = estimates.share_interval(share, np.array([1_000]))
    assert np.ravel(found) == pytest.approx(metrics.wilson(20, 100), rel=2e-2)


def test_a_quantile_lies_in_its_interval_and_the_interval_covers():
    generator = np.random.default_rng(4)
    truth, inside = -np.log(0.05), 0
    for _ in range(400):
        value, low, high = estimates.quantile(generator.exponential(1, 500), 0.95)
        assert low <= value <= high
        inside += low <= truth <= high
    assert inside / 400 > 0.92


def test_the_always_valid_value_is_the_mixtures_and_its_p_value_matches():
    one = np.ones(1)
    assert estimates.always_z(one, one) == pytest.approx([np.sqrt(2 * np.log(2 / 0.05**2))])
    variance, scale = np.array([0.3]), np.array([0.7])
    z = estimates.always_z(variance, scale, 0.01)
    assert estimates.always_p(z, variance, scale) == pytest.approx([0.01])
    assert estimates.always_p(ONE, variance, scale) == pytest.approx([1.0])


def test_of_many_looks_at_nothing_few_are_ever_beyond_the_always_valid_value():
    """Brownian motion looked at 200 times from information 1 to 200, in 2,000 worlds."""
    steps = np.random.default_rng(5).normal(size=(2_000, 200)).cumsum(1)
    information = np.arange(1.0, 201.0)
    z = np.abs(steps) / np.sqrt(information)
    limit = estimates.always_z(1 / information, np.full(200, 0.3))
    assert (z > limit).any(1).mean() < 0.05
    assert (z > 1.96).any(1).mean() > 0.3
