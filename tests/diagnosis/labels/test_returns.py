"""Returns at equal age: hand-known links, simulated truth, false alarms and power."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.diagnosis.labels import returns
from jobs.diagnosis.labels.returns import Change, Spells


def test_a_return_is_of_the_last_purchase_before_it() -> None:
    whose = np.array([1, 1, 1, 2, 2])
    returned = np.array([False, True, False, True, False])
    time = np.array([1.0, 2.0, 1.5, 0.5, 3.0])
    assert returns.linked(whose, returned, time).tolist() == [-1, 2, -1, -1, -1]


def test_a_purchase_is_back_when_its_first_return_is() -> None:
    found = returns.days_to_return(3, np.array([0, 0, 2]), np.array([5.0, 3.0, 9.0]))
    assert np.array_equal(found, [3.0, np.nan, 9.0], equal_nan=True)


def test_what_was_watched_adds_up_to_the_days_between() -> None:
    spells = Spells(np.array([0.0, 1.5]), np.array([2.25, 4.0]), np.array([True, False]),
                    np.array([True, True]), np.array([0, 1]))  # fmt: skip
    found = returns.exposure(spells)
    assert found[:5] == pytest.approx([1.0, 1.5, 1.25, 1.0, 0.0])


def test_a_purchase_is_watched_in_each_period_at_the_age_it_has_there() -> None:
    age, back = np.array([20.0, 3.0]), np.array([16.0, np.nan])
    spells = returns.watched(age, back, np.array([0, 1]), split=14.0, oldest=42.0, cohort=False)
    rows = sorted(zip(spells.current.tolist(), spells.start.tolist(), spells.stop.tolist(),
                      spells.back.tolist(), strict=True))  # fmt: skip
    assert rows == [(False, 0.0, 6.0, False), (True, 0.0, 3.0, False), (True, 6.0, 16.0, True)]


def shop(seed: int, times: float = 1.0, days: int = 14, later: float = 0.0) -> Change:
    """Purchases of 100 days, of which 3 % come back after 3 to 20 days, a person's together;
    ``times`` as many of those of the last ``days``, and ``later`` by so many days."""
    rng = np.random.default_rng(seed)
    people = 16_000
    customer = rng.integers(0, people, 80_000)
    age = rng.uniform(0, 100, len(customer))
    mood = rng.gamma(2, 0.5, people)  # some people return far more than others
    base = 0.03 * mood[customer] * np.where(age < days, times, 1.0)
    due = rng.uniform(3, 20, len(customer)) + np.where(age < days, later, 0.0)
    back = np.where((rng.random(len(customer)) < base) & (due < age), due, np.nan)
    spells = returns.watched(age, back, customer, split=14.0, oldest=42.0, cohort=True)
    return returns.compare(spells)


def test_clean_shops_seldom_differ() -> None:
    found = [shop(seed) for seed in range(100)]
    p = np.array([one.p_value for one in found])
    assert (p < 0.05).mean() < 0.12
    assert p.min() > 1e-4


@pytest.mark.parametrize("seed", range(8))
def test_twice_the_returns_are_told_although_most_are_still_to_come(seed: int) -> None:
    found = shop(seed, times=2.0)
    assert found.p_value < 1e-3
    assert found.ratio == pytest.approx(2.0, rel=0.35)
    assert found.after > found.before


@pytest.mark.parametrize("seed", range(8))
def test_later_returns_are_told(seed: int) -> None:
    assert shop(seed, later=10.0).ratio < 0.3


def test_nothing_watched_is_no_change() -> None:
    none = np.zeros(0)
    found = returns.compare(Spells(none, none, none.astype(bool), none.astype(bool), none))
    assert np.isnan(found.ratio)
    assert found.p_value == 1.0
