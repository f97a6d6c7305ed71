"""Sizes and durations of experiments, against the textbooks' numbers and a simulation."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.diagnosis.experiments.power import duration, least_effect, people_needed

HALVES = {"old": 0.5, "new": 0.5}


def test_half_a_standard_deviation_needs_63_people_an_arm():
    assert people_needed(0.5, (1.0, 1.0)) == 63  # Cohen (1988): 64 with Student's correction
    assert people_needed(0.5, (1.0, 1.0), power=0.9) == 85


def test_from_a_tenth_to_an_eighth_needs_as_many_as_the_formula_by_hand():
    # (1.959964 + 0.841621)^2 * (0.1 * 0.9 + 0.12 * 0.88) / 0.02^2 = 3838.1
    assert people_needed(0.02, (0.09, 0.1056)) == 3_839


def test_the_rule_of_sixteen():
    assert people_needed(1.0, (100.0, 100.0)) == pytest.approx(16 * 100, rel=0.02)


def test_the_least_effect_is_the_one_that_the_people_were_counted_for():
    people = people_needed(0.1, (2.0, 2.0))
    assert least_effect(4.0 / people) == pytest.approx(0.1, rel=1e-3)


def test_the_power_is_as_computed():
    people = people_needed(0.2, (1.0, 1.0))
    generator = np.random.default_rng(0)
    arms = generator.normal(size=(2, 3_000, people)).mean(2)
    found = np.abs(arms[0] + 0.2 - arms[1]) > 1.959964 * np.sqrt(2 / people)
    assert found.mean() == pytest.approx(0.8, abs=0.025)


def test_an_experiment_runs_whole_weeks_and_two_at_least():
    quick = duration(0.1, 0.02, 5_000, HALVES, "old")
    assert (quick.days, quick.people) == (14, {"old": 3_839, "new": 3_839})
    assert duration(0.1, 0.02, 450, HALVES, "old").days == 21  # 7,678 / 450 = 17.1 days
    assert duration(0.1, 0.02, 275, HALVES, "old").days == 28


def test_what_takes_longer_than_thirty_days_is_said_to_be_impossible():
    plan = duration(0.1, 0.02, 260, HALVES, "old")  # 29.5 days, 35 in whole weeks
    assert plan.days is None
    assert plan.sentence.startswith("Not possible within 30 days: 7,678 people are needed, 275 new")
    assert duration(0.1, 0.02, 0, HALVES, "old").days is None


def test_unequal_arms_need_more_people():
    even = duration(5.0, 0.5, 1_000, HALVES, "old", variance=100.0)
    uneven = duration(5.0, 0.5, 1_000, {"old": 0.9, "new": 0.1}, "old", variance=100.0)
    assert sum(uneven.people.values()) > 2.5 * sum(even.people.values())
    assert uneven.people["old"] == pytest.approx(9 * uneven.people["new"], rel=1e-2)


def test_more_arms_need_more_people_since_each_is_compared():
    three = duration(5.0, 0.5, 1_000, {"old": 0.4, "a": 0.3, "b": 0.3}, "old", variance=100.0)
    two = duration(5.0, 0.5, 1_000, HALVES, "old", variance=100.0)
    assert three.people["old"] > two.people["old"]


def test_what_cannot_be_a_rate_or_an_effect_is_refused():
    with pytest.raises(ValueError, match="do not lie between"):
        duration(0.9, 0.2, 1_000, HALVES, "old")
    with pytest.raises(ValueError, match="effect of 0"):
        people_needed(0.0, (1.0, 1.0))
