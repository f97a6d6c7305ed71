"""Differences between arms: the truth in simulated experiments, looked at once and daily."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from jobs.diagnosis.experiments import effects
from jobs.diagnosis.experiments.effects import Terms

DAILY = Terms(at_end=False, broken=False, effect=0.05, margin=0.05)
AT_END = dataclasses.replace(DAILY, at_end=True)


def shop(seed: int, people: int = 1_500, days: int = 14, lift: float = 0.0):
    """Visitors who come back with a rate of their own and spend, some of them, lognormal money:
    (people,) arm and money before, (days, people) visits and money of each day."""
    generator = np.random.default_rng(seed)
    arm = generator.integers(0, 2, people)
    taste = generator.lognormal(0, 0.8, people)
    before = taste * generator.lognormal(2, 0.5, people)
    came = generator.random((days, people)) < generator.beta(1, 5, people)
    spent = came * (generator.random((days, people)) < 0.2)
    money = spent * taste * generator.lognormal(2, 0.8, (days, people)) * (1 + lift * arm)
    return arm, before, came.astype(float), money


def after(days: int, arm, before, came, money):
    """The comparison after so many days, of those who have come by then."""
    visits, total = came[:days].sum(0), money[:days].sum(0)
    seen = visits > 0
    return effects.compare(arm[seen], total[seen], visits[seen], 0.05, before[seen])[0]


def test_a_difference_is_the_arms_less_the_controls():
    group, money = np.array([0, 0, 1, 1]), np.array([2.0, 4.0, 9.0, 12.0])
    found, reduction = effects.compare(group, money, np.array([1.0, 1.0, 2.0, 1.0]), 0.05)
    assert found.both.value == pytest.approx([3.0, 7.0])
    assert found.apart.value == pytest.approx([4.0])
    assert found.scale == pytest.approx([0.15])
    assert reduction == 0
    assert not found.enough


def test_cuped_takes_out_the_squared_correlation_and_nothing_of_the_effect():
    generator = np.random.default_rng(0)
    estimates, variances, raw = [], [], []
    for _ in range(300):
        before = generator.normal(10, 2, 800)
        group = generator.integers(0, 2, 800)
        money = 0.6 / 2 * before + generator.normal(0, 0.8, 800) + 0.1 * group  # correlation 0.6
        plain, _ = effects.compare(group, money, np.ones(800), 0.05)
        adjusted, _ = effects.compare(group, money, np.ones(800), 0.05, before)
        raw.append((plain.apart.value[0], plain.apart.variance[0]))
        estimates.append(adjusted.apart.value[0])
        variances.append(adjusted.apart.variance[0])
    assert np.mean(estimates) == pytest.approx(0.1, abs=0.01)
    assert np.mean(variances) / np.mean([v for _, v in raw]) == pytest.approx(1 - 0.36, abs=0.02)
    assert np.var(estimates) / np.var([v for v, _ in raw]) == pytest.approx(1 - 0.36, abs=0.1)


def test_a_covariate_that_is_the_same_for_all_changes_nothing():
    group, money = np.tile([0, 1], 50), np.arange(100.0)
    plain, _ = effects.compare(group, money, np.ones(100), 0.05)
    same, reduction = effects.compare(group, money, np.ones(100), 0.05, np.zeros(100))
    assert same.apart == plain.apart
    assert reduction == 0


def test_where_nothing_differs_the_fixed_interval_errs_once_in_twenty():
    wrong = 0
    for seed in range(400):
        low, high = after(14, *shop(seed)).fixed
        wrong += not low <= 0 <= high
    assert 0.02 < wrong / 400 < 0.08


def test_of_daily_looks_at_nothing_the_always_valid_interval_errs_rarely_and_the_fixed_often():
    fixed, always = 0, 0
    for seed in range(250):
        made = shop(seed, people=800, days=21)
        looks = [after(days, *made) for days in range(2, 22)]
        fixed += any(not one.fixed[0] <= 0 <= one.fixed[1] for one in looks)
        always += any(not one.always[0] <= 0 <= one.always[1] for one in looks)
    assert always / 250 <= 0.05
    assert fixed / 250 > 0.12


def test_a_large_effect_is_found_by_both_and_lies_in_their_intervals():
    found = after(14, *shop(1, people=8_000, lift=0.5))
    truth = 0.5 * found.both.value[0]
    for low, high in (found.fixed, found.always):
        assert 0 < low < truth < high
    assert found.always[0] < found.fixed[0]
    assert effects.of_effect(found, found.p_value(DAILY), DAILY, "better", "worse") == "better"


def test_p_values_and_intervals_say_the_same():
    for seed in range(30):
        found = after(14, *shop(seed, people=3_000, lift=0.1))
        for terms in (DAILY, AT_END):
            low, high = found.valid(terms)
            assert (found.p_value(terms) < 0.05) == (not low <= 0 <= high)


def novel(seed: int, early_lift: float) -> effects.Difference:
    generator = np.random.default_rng(seed)
    group = generator.integers(0, 2, 6_000)
    visits = 1.0 + generator.poisson(2, (2, 6_000))
    money = generator.gamma(1, 5, (2, 6_000)) * visits
    money[0] *= 1 + early_lift * group
    return effects.novelty(group, (money[0], visits[0]), (money[1], visits[1]), 0.05)


def test_an_effect_of_the_first_days_alone_fades_and_a_steady_one_does_not():
    found = novel(0, 0.4)
    assert effects.of_effect(found, found.p_value(AT_END), AT_END, "fades", "grows") == "fades"
    falls = novel(0, -0.4)
    assert effects.of_effect(falls, falls.p_value(AT_END), AT_END, "fades", "grows") == "grows"
    wrong = [novel(seed, 0.0).p_value(AT_END) < 0.05 for seed in range(1, 201)]
    assert np.mean(wrong) < 0.09


def guardrail(shift: float, noise: float, terms: Terms = AT_END, more_is_worse: bool = True) -> str:
    generator = np.random.default_rng(3)
    group = np.tile([0, 1], 500)
    latency = 100 + shift * group + generator.normal(0, noise, 1_000)
    found, _ = effects.compare(group, latency, np.ones(1_000), 0.05)
    return effects.of_guardrail(found, True, terms, more_is_worse)


def test_a_guardrail_holds_is_broken_or_nobody_knows():
    assert guardrail(0, 10) == "not worse"
    assert guardrail(3, 10) == "not worse"  # worse, but within the margin of 5
    assert guardrail(10, 10) == "worse"
    assert guardrail(0, 200) == "insufficient evidence"
    assert guardrail(10, 10, more_is_worse=False) == "not worse"
    assert guardrail(0, 0) == "insufficient evidence"
    assert guardrail(0, 10, dataclasses.replace(AT_END, broken=True)) == "not to be read"


def test_too_few_people_are_insufficient_evidence_and_a_broken_assignment_is_not_read():
    found = after(14, *shop(1, people=150, lift=5.0))
    assert effects.of_effect(found, 1e-9, AT_END, "better", "worse") == "insufficient evidence"
    large = after(14, *shop(1, people=4_000, lift=1.0))
    broken = dataclasses.replace(AT_END, broken=True)
    assert effects.of_effect(large, 1e-9, broken, "better", "worse") == "not to be read"
    assert effects.of_effect(large, 0.2, AT_END, "better", "worse") == "insufficient evidence"


def test_segments_of_nothing_are_seldom_significant_once_corrected():
    generator = np.random.default_rng(4)
    false = [min(effects.corrected(generator.random(20).tolist())) < 0.05 for _ in range(1_000)]
    assert np.mean(false) < 0.07
    assert effects.corrected([]) == []
    assert effects.corrected([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.04, 0.04])


def test_holm_steps_down_from_the_least_and_counts_tests_that_have_not_come():
    """The first four by hand, as in Holm (1979): times 4, 3, 2, 1, and never less than before."""
    assert effects.stepped_down([0.01, 0.04, 0.03, 0.005], 4) == pytest.approx(
        [0.03, 0.06, 0.06, 0.02]
    )
    assert effects.stepped_down([0.01], 3) == pytest.approx([0.03])
    assert effects.stepped_down([0.9, 0.8], 2) == [1.0, 1.0]
    assert effects.stepped_down([0.037], 1) == [0.037]


def test_of_arms_of_nothing_one_in_twenty_experiments_calls_any_better_or_worse():
    generator = np.random.default_rng(5)
    p_values = 2 * stats.norm.sf(np.abs(_against_one_control(generator, 2_000, 4)))
    naive = (p_values < 0.05).any(axis=1).mean()
    held = np.mean([min(effects.stepped_down(row.tolist(), 4)) < 0.05 for row in p_values])
    assert naive > 0.12
    assert held < 0.06


def _against_one_control(generator: np.random.Generator, experiments: int, arms: int) -> np.ndarray:
    """(experiments, arms) z-scores of arms that do nothing against the control that they share."""
    control = generator.normal(size=(experiments, 1))
    return (generator.normal(size=(experiments, arms)) - control) / np.sqrt(2)


def test_intervals_of_several_arms_are_at_the_level_of_the_plan_and_of_one_as_they_were():
    found = after(14, *shop(1, people=4_000, lift=0.1))
    assert found.fixed == tuple(float(end[0]) for end in found.apart.interval())
    of_three = dataclasses.replace(found, arms=3)
    for terms in (DAILY, AT_END):
        (low, high), (lower, higher) = found.valid(terms), of_three.valid(terms)
        assert lower < low < high < higher
    error = np.sqrt(found.apart.variance[0])
    straight = dataclasses.replace(of_three, apart=dataclasses.replace(
        found.apart, third=np.zeros(1)
    ))  # fmt: skip
    # 1 - 0.05 / 6 of the normal distribution lies below 2.394 (Dunn, 1961).
    assert straight.fixed[1] - found.apart.value[0] == pytest.approx(2.394 * error, rel=1e-3)


def test_samples_are_of_one_size_in_both_arms():
    group = np.repeat([0, 1], [700, 300])
    dealt, of = effects.buckets(group, np.random.default_rng(0), 20)
    assert np.bincount(dealt[dealt >= 0]).tolist() == [15] * 40
    assert (of[dealt[dealt >= 0]] == group[dealt >= 0]).all()
    none, _ = effects.buckets(group[:3], np.random.default_rng(0), 20)
    assert (none < 0).all()
