"""A unit, a default and a lost join do not look alike."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.diagnosis.replay import comparing
from jobs.diagnosis.replay.comparing import DEFAULT, LOST, OTHER, UNIT, compare

ROWS = 2_000


def published() -> np.ndarray:
    return np.random.default_rng(3).lognormal(1.0, 0.6, (ROWS, 1)).astype(np.float32)


def some(share: float) -> np.ndarray:
    return np.random.default_rng(4).random(ROWS) < share


def one(served: np.ndarray, was: np.ndarray) -> comparing.Compared:
    return compare(("f",), served, was)[0]


def test_equal_values_and_common_gaps_differ_in_nothing() -> None:
    was = published()
    was[::7] = np.nan
    found = one(was.copy(), was)
    assert (found.share, found.way) == (0.0, None)


def test_the_last_digit_of_a_float_is_no_difference() -> None:
    was = published()
    assert one(np.nextafter(was, np.float32(np.inf)), was).share == 0.0


@pytest.mark.parametrize("unit", [100.0, 1_000.0, 1 / 100, 24.0, 1 / 60])
@pytest.mark.parametrize("share", [0.03, 0.5, 1.0])
def test_a_unit_is_recognised_at_any_share(unit: float, share: float) -> None:
    was = published()
    served = was.copy()
    served[some(share)] *= unit
    found = one(served, was)
    assert found.way == UNIT
    assert found.ratio == pytest.approx(unit)
    assert found.differs == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("value", [0.0, -1.0, 99.0])
def test_a_default_is_recognised(value: float) -> None:
    was = published()
    served = was.copy()
    served[some(0.2)] = value
    found = one(served, was)
    assert (found.way, found.constant) == (DEFAULT, value)


def test_a_lost_value_is_recognised() -> None:
    was = published()
    served = was.copy()
    served[some(0.2)] = np.nan
    found = one(served, was)
    assert found.way == LOST
    assert found.missing == pytest.approx(0.2, abs=0.02)


def test_other_values_have_no_one_way() -> None:
    was = published()
    served = was + np.random.default_rng(5).normal(0, 1, was.shape).astype(np.float32)
    assert one(served, was).way == OTHER


def test_a_value_that_was_never_published_is_a_difference_too() -> None:
    was = published()
    was[::2] = np.nan
    served = was.copy()
    served[::2] = 0.0
    found = one(served, was)
    assert (found.known, found.share) == (ROWS, pytest.approx(0.5))


def test_a_constant_feature_times_a_hundred_is_a_unit() -> None:
    was = np.full((ROWS, 1), 2.0, np.float32)
    assert one(was * 100, was).way == UNIT


def test_nothing_to_compare_is_told_as_nothing() -> None:
    found = one(np.zeros((0, 1), np.float32), np.zeros((0, 1), np.float32))
    assert (found.known, found.share, found.way) == (0, 0.0, None)
