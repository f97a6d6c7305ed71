"""Sudden drops: a lost half is found, a season and the noise of thirty days are not."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from jobs.diagnosis.kpis import kpi_drops
from jobs.diagnosis.kpis.kpi_drops import Days

# Four weeks of reference, two of the current period, the last three days of which are judged.
DAYS = Days(date(2024, 1, 1), date(2024, 2, 11), 28, 3)
WEEKLY = np.array([1.0, 1.0, 1.1, 1.1, 1.3, 1.6, 1.4])


def series(seed: int, size: float = 2_000.0, noise: float = 0.08) -> np.ndarray:
    generator = np.random.default_rng(seed)
    days = np.arange(DAYS.number)
    level = size * WEEKLY[days % 7] * (1 + noise * generator.normal(size=len(days)))
    return generator.poisson(level.clip(min=0)).astype(float)


def test_the_judged_days_stand_beside_the_same_weekdays():
    before, judged = DAYS.masks()
    assert np.flatnonzero(judged).tolist() == [39, 40, 41]
    assert np.flatnonzero(before).tolist() == [4, 5, 6, 11, 12, 13, 18, 19, 20, 25, 26, 27]


def test_half_of_the_requests_lost_is_named_with_its_numbers():
    lost = np.tile(100.0 * WEEKLY, 6)
    lost[-3:] *= 0.5
    found = kpi_drops.of_series("volume", "Requests", lost, DAYS)
    assert (found.kind, found.subject, found.warning) == ("sudden_drop", "volume", False)
    assert found.effect == pytest.approx(0.5)
    assert found.sentence == (
        "Requests fell by 50% from 2024-02-09 to 2024-02-11: 72 a day, where 143 came on the same "
        "weekdays of the weeks before."
    )


@pytest.mark.parametrize(("kept", "at_least"), [(0.0, 20), (0.5, 20), (0.6, 14)])
def test_losses_are_found_in_noise(kept, at_least):
    found = []
    for seed in range(20):
        noisy = series(seed, noise=0.05)
        noisy[-3:] *= kept
        found.append(kpi_drops.of_series("volume", "Requests", noisy, DAYS))
    assert sum(one is not None for one in found) >= at_least


def test_a_season_from_a_fifth_above_to_a_fifth_below_raises_nothing():
    for seed in range(30):
        swing = series(seed) * np.linspace(1.2, 0.8, DAYS.number)
        swing[-3:] *= 0.97
        assert kpi_drops.of_series("volume", "Requests", swing, DAYS) is None


def test_thirty_clean_days_raise_nothing_even_in_a_small_shop():
    for seed in range(30):
        assert kpi_drops.of_series("volume", "Requests", series(seed, 110, 0.15), DAYS) is None


def holiday(days: int, size: float) -> np.ndarray:
    """A year ago: the current period's days alone, the last of which were a holiday."""
    then = 80 * WEEKLY[np.arange(DAYS.number) % 7]
    then[: DAYS.reference] = 0
    then[-days:] *= size
    return then


@pytest.mark.parametrize(("days", "size", "warning"), [
    (3, 0.5, True), (8, 0.5, True), (3, 0.45, True), (3, 0.9, False), (3, 1.0, False),
])  # fmt: skip
def test_days_that_fell_as_much_a_year_ago_are_a_season(days: int, size: float, warning: bool):
    lost = np.tile(100.0 * WEEKLY, 6)
    lost[-3:] *= 0.5
    kept = kpi_drops.kept_a_year_ago(lost, holiday(days, size), DAYS)
    assert kept == pytest.approx(size)
    found = kpi_drops.of_series("volume", "Requests", lost, DAYS, kept)
    assert found.warning == warning
    assert ("a year ago" in found.sentence) == warning


def test_half_of_a_holiday_lost_is_no_season():
    lost = np.tile(100.0 * WEEKLY, 6)
    lost[-3:] *= 0.25
    kept = kpi_drops.kept_a_year_ago(lost, holiday(3, 0.5), DAYS)
    assert not kpi_drops.of_series("volume", "Requests", lost, DAYS, kept).warning


def test_a_log_that_does_not_reach_a_year_back_knows_no_season():
    even = np.tile(100.0 * WEEKLY, 6)
    assert kpi_drops.kept_a_year_ago(even, np.zeros(DAYS.number), DAYS) == 1.0
    gap = holiday(3, 0.5)
    gap[-1] = 0  # a day that the log of a year ago lacks
    assert kpi_drops.kept_a_year_ago(even, gap, DAYS) == 1.0


@pytest.mark.parametrize(("hours", "judged", "days"), [
    (0.1, 3, 0), (6.0, 3, 0), (6.0, 1, 1), (48.0, 3, 2), (60.0, 3, 3),
])  # fmt: skip
def test_days_pass_until_purchases_are_told(hours: float, judged: int, days: int):
    assert kpi_drops.days_late(np.full(50, hours), judged) == days
    assert kpi_drops.days_late(np.zeros(0), judged) == 0


def visits(seed: int, rate: float, last_rate: float, spend: float = 1.0):
    """People who come on several days, buy at a rate, and spend lognormal money."""
    generator = np.random.default_rng(seed)
    day = np.repeat(np.arange(DAYS.number), 300)
    person = generator.integers(0, 2_000, len(day))
    chance = np.where(day >= DAYS.number - 3, last_rate, rate)
    bought = generator.random(len(day)) < chance
    money = bought * generator.lognormal(3, 1.2, len(day)) * spend
    return person, day, bought.astype(float), money


def conversion(seed: int, rate: float, last_rate: float):
    person, day, bought, _ = visits(seed, rate, last_rate)
    return kpi_drops.of_ratio(
        "conversion", "Conversion", ".1%", person, day, bought, np.ones(len(day)), DAYS
    )


def test_a_fall_of_conversion_by_half_is_a_warning():
    found = conversion(0, 0.2, 0.08)
    assert found.warning
    assert found.effect > kpi_drops.LIMIT
    assert found.sentence.startswith("Conversion fell by ")
    assert "the other findings say why" in found.sentence


def test_a_fall_of_conversion_within_the_season_is_none():
    assert [conversion(seed, 0.2, 0.16) for seed in range(30)] == [None] * 30


def test_skewed_money_on_thirty_clean_days_raises_nothing():
    for seed in range(30):
        person, day, _, money = visits(seed, 0.03, 0.03)
        assert kpi_drops.of_ratio(
            "revenue_per_session", "Revenue", ".2f", person, day, money, np.ones(len(day)), DAYS
        ) is None  # fmt: skip


def test_where_nobody_came_there_is_nothing_to_compare():
    none = np.zeros(0)
    assert kpi_drops.of_ratio(
        "conversion", "Conversion", ".1%", none.astype(int), none.astype(int), none, none, DAYS
    ) is None  # fmt: skip
    assert kpi_drops.of_series("volume", "Requests", np.zeros(DAYS.number), DAYS) is None
