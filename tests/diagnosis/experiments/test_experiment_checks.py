"""The checks of an assignment: planted faults are found, and clean months raise nothing."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from jobs.diagnosis.definitions import Experiment
from jobs.diagnosis.experiments import experiment_checks as checks
from jobs.diagnosis.experiments.assignment import assign_all
from jobs.diagnosis.experiments.exposure import SEVERAL, UNKNOWN, Exposed, exposed
from jobs.diagnosis.kpis.kpi_cells import ordinal
from tests.diagnosis import visit_log

STARTS = date(2017, 11, 10)
HALVES = Experiment(
    "homepage", "winter", datetime(2017, 11, 10, tzinfo=UTC), "old", {"old": 0.5, "new": 0.5}
)
ARMS = ["old", "new"]


def crowd(seed: int, people: int, salt: str = "winter") -> Exposed:
    """People whom the salt assigns, of whom a third have bought before, lognormal sums."""
    generator = np.random.default_rng(seed)
    names = [f"account:{seed}-{n}" for n in range(people)]
    in_order = assign_all(salt, names, HALVES.arms)  # of the sorted names: new, old
    returning = generator.random(people) < 0.35
    rows = visit_log.visits({
        "visitor": names, "day": STARTS, "experiment": "homepage",
        "arm": np.array(["new", "old"])[in_order].tolist(),
        "period": np.where(generator.random(people) < 0.4, "current", "reference").tolist(),
        "returning": returning.tolist(),
        "before_value": (returning * generator.lognormal(3, 1.3, people)).tolist(),
    })  # fmt: skip
    return exposed(rows, HALVES, [])


def failed(who: Exposed) -> list[str]:
    return [one.name for one in checks.checks(who, HALVES, True) if not one.passed]


def change(who: Exposed, **parts: Any) -> Exposed:
    return dataclasses.replace(who, **parts)


def test_visitors_are_told_by_their_first_visit_since_the_start():
    rows = [
        {"visitor": "ann", "day": STARTS - timedelta(days=1), "arm": "new", "revenue": 99.0},
        {"visitor": "ann", "day": STARTS + timedelta(days=3), "arm": "old", "returning": True,
         "region": "south", "revenue": 2.0, "orders": 1},
        {"visitor": "ann", "day": STARTS, "arm": "old", "before_value": 7.0, "revenue": 1.0,
         "period": "reference"},
        {"visitor": "bob", "day": STARTS, "arm": "several"},
        {"visitor": "cy", "day": STARTS, "arm": "green"},
        {"visitor": "di", "day": STARTS, "arm": "new"},
        {"visitor": "di", "day": STARTS + timedelta(days=1), "arm": "old"},
        {"visitor": "ed", "day": STARTS, "arm": ""},
    ]  # fmt: skip
    who = exposed(visit_log.visits(rows), HALVES, ["region"])
    assert who.arms == ARMS
    assert who.visitor.to_pylist() == ["ann", "bob", "cy", "di", "ed"]
    assert who.arm.tolist() == [0, SEVERAL, UNKNOWN, SEVERAL, UNKNOWN]
    assert who.first_day.tolist() == [ordinal(STARTS)] * 5
    assert (who.before_value[0], who.returning[0], who.recent[0]) == (7.0, False, False)
    assert who.segments["region"].names[who.segments["region"].codes[0]] == "north"
    assert who.total("revenue").tolist() == [3.0, 0, 0, 0, 0]
    assert who.total("bought").tolist() == [1.0, 0, 0, 0, 0]
    assert who.total("revenue", who.day == ordinal(STARTS))[0] == 1.0


@pytest.mark.parametrize("people", [150, 3_000])
def test_thirty_clean_experiments_raise_nothing(people):
    assert [failed(crowd(seed, people)) for seed in range(30)] == [[]] * 30


def test_52_to_48_of_twenty_thousand_is_no_chance():
    who = crowd(0, 20_000)
    who = change(who, arm=np.repeat([0, 1], [10_400, 9_600]), recent=np.ones(20_000, bool))
    found = checks.sample_ratio(who, HALVES)
    assert not found.passed
    assert found.p_value == pytest.approx(1.54e-8, rel=0.01)  # chi-square 32, one degree
    assert found.value == pytest.approx(0.04)
    assert found.sentence == ("old has 10,400 of 20,000 people, where 10,000 belong (p = 1.5e-08).")


def test_a_clear_but_tiny_difference_and_a_large_one_of_few_people_pass():
    who = crowd(0, 1_000_000 // 500)
    many = change(who, arm=np.repeat([0, 1], [505_000, 495_000]))
    assert checks.sample_ratio(many, HALVES).passed
    few = change(who, arm=np.repeat([0, 1], [30, 20]))
    assert checks.sample_ratio(few, HALVES).passed


def test_a_ratio_that_broke_lately_is_found_among_the_many_before():
    who = crowd(1, 20_000)
    late = who.recent & (np.arange(20_000) % 8 == 0) & (who.arm == 0)
    who = change(who, arm=np.where(late, 1, who.arm))
    assert "sample_ratio_lately" in failed(who)


def test_people_in_two_arms_are_found_beyond_those_whose_keys_were_merged():
    who = crowd(2, 5_000)
    few, many = np.arange(5_000) < 40, np.arange(5_000) < 250
    assert failed(change(who, arm=np.where(few, SEVERAL, who.arm))) == []
    assert failed(change(who, arm=np.where(many, SEVERAL, who.arm))) == ["two_arms"]


def test_an_arm_without_people_and_an_arm_that_nobody_defined():
    who = crowd(3, 3_000)
    empty = failed(change(who, arm=np.where(who.arm == 1, UNKNOWN, who.arm)))
    assert empty[:2] == ["empty_arm", "unknown_arm"]
    nobody = change(who, arm=np.full(3_000, UNKNOWN))
    assert {"empty_arm", "unknown_arm"} <= set(failed(nobody))


def test_people_who_are_not_where_the_salt_puts_them():
    who = crowd(4, 4_000)
    moved = np.random.default_rng(0).random(4_000) < 0.1
    found = checks.checks(change(who, arm=np.where(moved, 1 - who.arm, who.arm)), HALVES, True)
    wrong = [one for one in found if not one.passed]
    assert [(one.name, one.warning) for one in wrong] == [("by_the_salt", False)]
    assert wrong[0].value == pytest.approx(0.1, abs=0.02)


def test_a_shop_that_assigns_in_another_way_is_only_warned():
    found = checks.checks(crowd(5, 4_000, salt="another"), HALVES, True)
    symptom = checks.symptom("homepage", found)
    assert symptom.warning
    assert "not assigned by the salt" in symptom.sentence


def test_big_spenders_in_one_arm_are_found():
    who = crowd(6, 6_000)
    middle = np.median(who.before_value[who.before_value > 0])
    moved = (who.before_value > middle) & (who.arm == 0) & (np.arange(6_000) % 2 == 0)
    found = failed(change(who, arm=np.where(moved, 1, who.arm)))
    assert {"before_value", "returning", "by_the_salt"} <= set(found)


def test_one_symptom_an_experiment_says_every_reason_the_gravest_first():
    who = crowd(7, 8_000)
    twice = np.arange(8_000) < 2_000
    moved = (np.random.default_rng(0).random(8_000) < 0.3) & (who.arm == 0)
    arm = np.where(twice, SEVERAL, np.where(moved, 1, who.arm))
    symptom = checks.symptom("homepage", checks.checks(change(who, arm=arm), HALVES, True))
    assert (symptom.kind, symptom.subject, symptom.warning) == (
        "broken_assignment", "homepage", False,
    )  # fmt: skip
    assert symptom.effect == pytest.approx(0.25)
    assert symptom.sentence.startswith(
        "The experiment homepage: 2,000 of 8,000 people are in more than one arm."
    )
    assert "belong (p = " in symptom.sentence
    assert "account:" not in symptom.sentence


def test_an_experiment_that_nobody_is_in_is_warned_of():
    found = checks.checks(exposed(visit_log.visits([]), HALVES, []), HALVES, True)
    symptom = checks.symptom("homepage", found)
    assert symptom.warning
    assert symptom.sentence.startswith("The experiment homepage: Nobody in the log is in it;")
