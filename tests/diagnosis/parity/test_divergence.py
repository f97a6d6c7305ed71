"""The numeric core: hand-known answers, other implementations, simulated dependent rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from jobs.diagnosis.parity import divergence
from jobs.diagnosis.parity.divergence import Estimate

ONE = np.ones


def random(seed: int = 7) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_stability_index_of_two_halves_is_known_by_hand():
    # On two bins: (0.5 - 0.8) ln(0.5 / 0.8) + (0.5 - 0.2) ln(0.5 / 0.2), less the smoothing.
    left, right = np.repeat([0.0, 1.0], [5_000, 5_000]), np.repeat([0.0, 1.0], [8_000, 2_000])
    found = divergence.psi(left, right, ONE(10_000), ONE(10_000))
    assert found == pytest.approx(-0.3 * np.log(0.5 / 0.8) + 0.3 * np.log(0.5 / 0.2), rel=1e-3)


def test_a_normal_shift_has_its_square_as_index():
    left, right = random().normal(size=(2, 50_000))
    assert divergence.psi(left, right + 0.5, ONE(50_000), ONE(50_000)) == pytest.approx(
        0.24, abs=0.02
    )
    assert divergence.psi(left, right, ONE(50_000), ONE(50_000)) < 0.002


def test_an_empty_bin_and_missing_values_leave_the_index_finite():
    left, right = np.arange(100.0), np.r_[np.full(50, np.nan), np.zeros(50)]
    assert np.isfinite(divergence.psi(left, right, ONE(100), ONE(100)))
    assert np.isnan(divergence.psi(left, np.full(100, np.nan), ONE(100), ONE(100)))


def test_unweighted_kolmogorov_smirnov_is_scipys():
    left, right = random().normal(size=800), random(8).normal(0.2, 1.3, size=900)
    statistic, p_value = divergence.ks_test(left, right, ONE(800), ONE(900))
    known = stats.ks_2samp(left, right, method="asymp")
    assert statistic == pytest.approx(known.statistic)
    assert p_value == pytest.approx(known.pvalue, rel=0.3)


def test_a_weight_of_two_is_a_row_twice():
    generator = random()
    values, weight = generator.integers(0, 9, 300).astype(float), generator.integers(1, 4, 300)
    other = generator.integers(1, 10, 200).astype(float)
    label = generator.random(300) < 0.3
    repeated = np.repeat(values, weight)
    ks = divergence.ks(values, other, weight.astype(float), ONE(200))
    assert ks == pytest.approx(stats.ks_2samp(repeated, other).statistic)
    area = divergence.auc(values, label, weight.astype(float)).value
    assert area == pytest.approx(roc_auc_score(np.repeat(label, weight), repeated))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(1, 9)), min_size=2))
def test_the_weighted_area_is_scikit_learns(rows):
    values, label, weight = (np.array(column) for column in zip(*rows, strict=True))
    found = divergence.auc(values.astype(float), label, weight.astype(float)).value
    if label.all() or not label.any():
        assert np.isnan(found)
    else:
        assert found == pytest.approx(roc_auc_score(label, values, sample_weight=weight))


def test_a_missing_value_ranks_below_all_and_can_tell_the_label():
    label = np.array([True, True, False, False])
    assert divergence.auc(np.array([1.0, -5.0, np.nan, np.nan]), label, ONE(4)).value == 1.0
    assert divergence.auc(np.array([np.nan, np.nan, 1.0, 2.0]), label, ONE(4)).value == 0.0


def test_the_error_of_an_area_covers_the_truth_when_rows_depend():
    generator, hits = random(), 0
    truth = stats.norm.cdf(0.5)  # of two normals 1 / sqrt(2) standard deviations of each apart
    for _ in range(200):
        who = np.repeat(np.arange(150), 8)
        person = generator.normal(size=150)[who]
        label = (generator.random(150) < 0.4)[who]
        values = person * 0.8**0.5 + generator.normal(size=1_200) * 0.2**0.5 + label * 0.5 * 2**0.5
        low, high = divergence.auc(values, label, ONE(1_200), who).interval()
        hits += low <= truth <= high
    assert 180 <= hits <= 200


def test_rows_of_one_person_count_as_one_where_they_are_alike():
    who = np.repeat(np.arange(100), 10)
    alike, own = random().normal(size=100)[who], random().normal(size=1_000)
    assert divergence.effective_size(alike, ONE(1_000), who) == pytest.approx(100, rel=0.02)
    assert divergence.effective_size(own, ONE(1_000), who) > 650
    assert divergence.kish(np.array([1.0, 1.0, 2.0])) == pytest.approx(16 / 6)


def test_kolmogorov_smirnov_of_dependent_rows_raises_its_share_of_alarms_and_no_more():
    generator, alarms, naive = random(), 0, 0
    who = np.repeat(np.arange(200), 6)
    for _ in range(300):
        sides = [generator.normal(size=200)[who] + 0.3 * generator.normal(size=1_200)
                 for _ in range(2)]  # fmt: skip
        weights = ONE(1_200), ONE(1_200)
        alarms += divergence.ks_test(*sides, *weights, (who,), (who,))[1] < 0.05
        naive += divergence.ks_test(*sides, *weights)[1] < 0.05
    assert alarms <= 30 < naive


def test_chi_square_is_scipys_and_its_effect_does_not_grow_with_the_rows():
    left, right = np.array([50.0, 30.0, 20.0, 0.0]), np.array([30.0, 30.0, 40.0, 0.0])
    v, p_value = divergence.chi_square(left, right)
    known = stats.chi2_contingency([left[:3], right[:3]])
    assert p_value == pytest.approx(known.pvalue)
    assert v == pytest.approx((known.statistic / 200) ** 0.5)
    assert divergence.chi_square(left, 50 * right)[0] == pytest.approx(v)
    assert np.isnan(divergence.chi_square(np.array([5.0]), np.array([7.0]))[0])


def test_categories_of_dependent_rows_count_as_fewer():
    who = np.repeat(np.arange(60), 5)
    region = random().integers(0, 3, 60)[who]
    counts = divergence.category_counts(region, 4, ONE(300), who)
    assert counts.sum() == pytest.approx(60, rel=0.05)
    assert counts[3] == 0


@pytest.mark.parametrize("factor", [10, 100, 1_000, 24, 60, 1 / 100, 1 / 60])
def test_a_change_of_unit_is_recognised_by_its_factor(factor):
    values = random().lognormal(size=4_000)
    values[:1_000] = 0.0
    found = divergence.scale(values[::2], values[1::2] * factor, ONE(2_000), ONE(2_000))
    assert found.factor == pytest.approx(factor)
    assert found.ratio == pytest.approx(factor, rel=0.1)


def test_a_selection_of_large_values_is_no_unit():
    values = random().lognormal(sigma=2.0, size=20_000)
    top = values[values > 10]
    found = divergence.scale(values, top, ONE(20_000), ONE(len(top)))
    assert found.factor is None
    assert divergence.scale(values, values * 2, ONE(20_000), ONE(20_000)).factor is None


def test_the_most_frequent_value_and_what_is_missing():
    values, weight = np.array([3.0, 3.0, 0.0, np.nan]), np.array([1.0, 1.0, 3.0, 5.0])
    assert divergence.constant(values, weight) == (0.0, 0.3)
    assert divergence.share(~np.isfinite(values), weight) == 0.5
    assert divergence.constant(np.array([np.nan]), ONE(1))[1] == 0.0


def test_a_shift_is_in_pooled_standard_deviations():
    left = np.array([0.0, 2.0])
    assert divergence.shift(left, left + 3, ONE(2), ONE(2)) == pytest.approx(3.0)
    assert divergence.shift(ONE(2), ONE(2), ONE(2), ONE(2)) == 0.0


def test_q_values_are_benjamini_and_hochbergs_and_nan_is_no_test():
    found = divergence.adjusted(np.array([0.01, np.nan, 0.04, 0.03]))
    np.testing.assert_allclose(found, [0.03, np.nan, 0.04, 0.04])


def test_a_difference_of_estimates_has_the_errors_of_both():
    found = Estimate(3.0, 0.3).minus(Estimate(1.0, 0.4))
    assert (found.value, found.error) == (2.0, pytest.approx(0.5))
    assert found.p_value == pytest.approx(6.33e-5, rel=0.01)
    assert Estimate(1.0, 0.0).p_value == 1.0


def test_few_days_are_judged_by_students_t():
    generator, false = random(3), 0
    for _ in range(400):
        day = np.repeat(np.arange(5), 200)
        values = generator.normal(size=5)[day] + generator.normal(size=1_000)
        false += divergence.mean(values, ONE(1_000), day).p_value < 0.01
    assert false <= 10  # of 400, where 4 are expected; by the normal law some 20


def test_the_chance_of_days_is_that_of_their_sums_in_a_t_test():
    values = random(4).normal(0.5, 1.0, size=6)
    found = divergence.mean(np.repeat(values, 50), ONE(300), np.repeat(np.arange(6), 50))
    known = stats.ttest_1samp(values, 0.0)
    assert found.p_value == pytest.approx(known.pvalue)
    low, high = known.confidence_interval()
    assert found.interval() == pytest.approx((low, high))


def test_a_difference_has_the_degrees_of_freedom_of_welch():
    left, right = random(5).normal(size=6), random(6).normal(1.0, 3.0, size=9)
    sides = [divergence.mean(one, ONE(len(one))) for one in (right, left)]
    known = stats.ttest_ind(left, right, equal_var=False)
    assert sides[1].minus(sides[0]).p_value == pytest.approx(known.pvalue)


def test_a_share_of_everything_is_1_however_its_weights_add_up():
    weight = np.random.default_rng(3).uniform(1, 1.3, 47_881)
    assert divergence.constant(np.zeros(len(weight)), weight) == (0.0, 1.0)
    assert divergence.share(np.ones(len(weight), bool), weight) == 1.0
