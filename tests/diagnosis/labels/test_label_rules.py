"""Checks of what a label means: hand-known differences, and clean shops that raise nothing."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.diagnosis import clusters
from jobs.diagnosis.labels import label_rules
from jobs.diagnosis.labels.label_rules import Parts


def shop(seed: int, people: int = 2_000, rows: int = 20_000) -> dict[str, np.ndarray]:
    """Purchases of people who shop mostly in one channel, each with its own habits."""
    rng = np.random.default_rng(seed)
    person = rng.integers(0, people, rows)
    home = rng.integers(0, 3, people)
    channel = np.where(rng.random(rows) < 0.8, home[person], rng.integers(0, 3, rows))
    item = rng.integers(0, 200, rows)
    price = 10 ** rng.normal(1, 0.5, 200)
    return {
        "person": person, "channel": channel, "item": item, "current": rng.random(rows) < 0.4,
        "value": price[item] * 10 ** rng.normal(0, 0.05, rows), "group": (person % 100),
        "habit": rng.beta(0.4, 40, people)[person], "chance": rng.random(rows),
    }  # fmt: skip


def parts(made: dict[str, np.ndarray]) -> list[Parts]:
    return [Parts("channel", made["channel"], ["app", "store", "web"])]


@pytest.mark.parametrize("seed", range(60))
def test_clean_shops_fail_no_check(seed: int) -> None:
    made = shop(seed)
    empty = made["chance"] < made["habit"]
    group = clusters.groups(_text(made["person"]))
    checks = label_rules.shares(
        "no value", "of the purchases have no value", empty, made["current"], group, parts(made)
    ) + label_rules.units(made["value"], made["item"], made["current"], parts(made))
    assert [one for one in checks if not one.passed] == []
    assert len(checks) == 7


def test_a_channel_without_values_is_named_and_new() -> None:
    made = shop(1)
    empty = (made["channel"] == 1) & made["current"] & (made["chance"] < 0.3)
    found = label_rules.shares(
        "no value", "of the purchases have no value", empty, made["current"], made["group"],
        parts(made),
    )  # fmt: skip
    failed = [one for one in found if not one.passed]
    assert [one.subject for one in failed] == ["channel store"]
    worst = failed[0]
    assert worst.after == pytest.approx(0.3, abs=0.03)
    assert not worst.always


def test_what_was_always_so_is_a_warning() -> None:
    made = shop(1)
    empty = (made["channel"] == 1) & (made["chance"] < 0.3)
    found = label_rules.shares(
        "no value", "of the purchases have no value", empty, made["current"], made["group"],
        parts(made),
    )  # fmt: skip
    assert all(one.always for one in found if not one.passed)
    assert all(one.warning for one in label_rules.symptoms(found))


@pytest.mark.parametrize("factor", [100.0, 0.01, 10.0, 0.001])
def test_a_channel_in_another_unit_is_named_with_its_factor(factor: float) -> None:
    made = shop(2)
    off = (made["channel"] == 2) & made["current"]
    value = np.where(off, made["value"] * factor, made["value"])
    failed = [
        one for one in label_rules.units(value, made["item"], made["current"], parts(made))
        if not one.passed
    ]  # fmt: skip
    assert [one.subject for one in failed] == ["channel web"]
    assert failed[0].after == pytest.approx(factor, rel=0.1)
    assert "the unit differs" in failed[0].sentence


def test_a_whole_shop_in_another_unit_is_told_against_its_past() -> None:
    made = shop(3)
    value = np.where(made["current"], made["value"] * 100, made["value"])
    failed = [
        one for one in label_rules.units(value, made["item"], made["current"], parts(made))
        if not one.passed
    ]  # fmt: skip
    assert [one.subject for one in failed] == ["all purchases"]


def test_a_channel_that_lost_its_outcomes_is_named() -> None:
    made = shop(4)
    bought = made["chance"] < 0.05
    divided = parts(made)[0]
    assert all(one.passed for one in label_rules.rates(bought, made["current"], divided))
    lost = bought & ~((made["channel"] == 0) & made["current"])
    failed = [one for one in label_rules.rates(lost, made["current"], divided) if not one.passed]
    assert [one.subject for one in failed] == ["channel app"]


def test_two_labellers_who_disagree_are_told() -> None:
    pair = np.r_[np.arange(1_000), np.arange(400)]
    value = np.r_[np.full(1_000, 5.0), np.where(np.arange(400) < 100, 9.0, 5.0)]
    # As many purchases of the weeks before are told once, or twice alike.
    before = np.r_[np.arange(2_000, 3_000), np.arange(2_000, 2_300)]
    doubled, unlike = label_rules.twice(
        np.r_[pair, before], np.r_[value, np.full(1_300, 5.0)], np.arange(2_700) < 1_400,
        np.r_[pair, before] % 100,
    )  # fmt: skip
    assert (doubled.before, doubled.after) == (pytest.approx(0.3), pytest.approx(0.4))
    assert (unlike.before, unlike.after) == (0.0, pytest.approx(0.25))
    assert not doubled.passed
    assert not unlike.passed


@pytest.mark.parametrize("before", [0, 4])
def test_labels_told_twice_are_not_held_against_a_past_of_few_pairs(before: int) -> None:
    pair = np.r_[np.arange(1_000), np.arange(400), np.arange(2_000, 2_000 + before)]
    for one in label_rules.twice(pair, pair * 1.0, np.arange(len(pair)) < 1_400, pair % 100):
        assert one.passed


def test_what_one_customer_does_often_is_no_difference_of_labels() -> None:
    pair = np.r_[np.arange(2_000), np.arange(100)]
    current = pair < 1_000
    whose = np.where(pair < 100, 7, pair % 100)  # the hundred told twice are of one customer
    doubled, _ = label_rules.twice(pair, pair * 1.0, current, whose)
    assert doubled.after == pytest.approx(0.1)
    assert doubled.passed
    spread, _ = label_rules.twice(pair, pair * 1.0, current, pair % 100)
    assert not spread.passed


def test_corrections_are_compared_at_equal_age() -> None:
    age = np.r_[np.full(500, 1.0), np.full(500, 10.0), np.full(1_000, 30.0)]
    current = age < 14
    revision = np.zeros(2_000, int)
    revision[500:550], revision[1_000:1_010] = 1, 1
    group = np.arange(2_000) % 100
    found = label_rules.corrections(revision, np.full(2_000, 3.0), age, current, group, 7.0)
    assert found.after == pytest.approx(0.1)
    assert found.before == pytest.approx(0.01)
    assert not found.passed
    assert "half of them after 3.0 days" in found.sentence


def rewritten(again: np.ndarray, newest: float | np.ndarray) -> label_rules.Check:
    """Of 7,000 purchases told over 70 days, those chosen have another content since ``newest``."""
    told = np.linspace(0.1, 70, 7_000)
    at = np.where(again, newest, told)
    revision = again.astype(int)
    return label_rules.rewritten(revision, told, at, np.arange(7_000) % 100, 14.0, 42.0, 7.0)


def test_labels_that_are_rewritten_weeks_after_are_told() -> None:
    told = np.linspace(0.1, 70, 7_000)
    found = rewritten((told > 14) & (told <= 42), 1.0)
    assert (found.before, found.passed) == (0.0, False)
    assert found.after == 1.0
    assert "more than 7 days after" in found.sentence


def test_a_close_of_books_that_comes_every_month_is_nothing_new() -> None:
    told = np.linspace(0.1, 70, 7_000)
    # Four weeks ago all that was older was rewritten, now what has come since.
    again = told > 10
    found = rewritten(again, np.where(told > 38, 29.0, 1.0))
    assert found.after > 0.5
    assert found.passed


@pytest.mark.parametrize(("current", "reference"), [(14, 28), (7, 28), (14, 7)])
def test_a_close_of_the_calendar_month_is_nothing_new_on_any_day(current, reference) -> None:
    told = np.arange(np.datetime64("2023-11-01T01"), np.datetime64("2024-09-01"))
    # On the 1st at six, three in ten purchases of the month before are told anew.
    again = np.arange(len(told)) % 10 < 3
    newest = np.where(again, told.astype("M8[M]").astype("M8[h]") + 24 * 31, told)
    newest = np.where(again, newest.astype("M8[M]").astype("M8[h]") + 6, newest)
    red = []
    for day in np.arange(np.datetime64("2024-04-01"), np.datetime64("2024-09-01")):
        known = told < day
        came = again & (newest < day)
        hours = (day.astype("M8[h]") - told)[known].astype(float)
        last = (day.astype("M8[h]") - np.where(came, newest, told))[known].astype(float)
        rows = [np.repeat(part, 5) for part in (came[known].astype(int), hours / 24, last / 24)]
        group = np.arange(len(rows[0])) % 100
        found = label_rules.rewritten(*rows, group, current, current + reference, 7.0)
        red += [] if found.passed else [str(day)]
    assert red == []


def test_labels_that_are_corrected_soon_are_not_called_rewritten() -> None:
    told = np.linspace(0.1, 70, 7_000)
    found = rewritten(told > 20, told - 3)
    assert (found.before, found.after, found.passed) == (0.0, 0.0, True)


def _text(codes: np.ndarray):
    import pyarrow as pa

    return pa.array(codes.astype(str))
