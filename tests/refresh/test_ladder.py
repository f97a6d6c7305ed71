"""The staleness ladder as arrays: tiers, and who is made anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from jobs.refresh import ladder
from jobs.refresh.ladder import DECISIONS, TIERS, Params

NOW = datetime(2024, 3, 1, tzinfo=UTC)
NEVER = np.datetime64("NaT")


def before(**ago: float) -> np.datetime64:
    return np.datetime64((NOW - timedelta(**ago)).replace(tzinfo=None), "us")


def code(decision: str) -> int:
    return DECISIONS.index(decision)


def decided(tier: str, made: np.datetime64, *, touched: bool = False, **how: bool) -> str:
    code = ladder.decide(
        np.array([TIERS.index(tier)]), np.array([made], "datetime64[us]"), np.array([touched]),
        how.pop("configured", False), NOW, Params(), **how,
    )  # fmt: skip
    return DECISIONS[code[0]]


def test_a_tier_is_by_the_last_activity_and_none_at_all_is_dormant():
    active = [before(days=7), before(days=7, hours=1), before(days=28), before(days=180),
              before(days=181), NEVER]  # fmt: skip
    found = ladder.tiers(np.array(active, "datetime64[us]"), NOW, Params())
    assert [TIERS[code] for code in found] == ["hot", "warm", "warm", "cold", "dormant", "dormant"]


@pytest.mark.parametrize(
    ("tier", "hours"), [("hot", 36), ("warm", 84), ("cold", 182), ("dormant", 182)]
)
def test_a_list_stands_as_long_as_its_tier_allows(tier, hours):
    assert decided(tier, before(hours=hours)) == "kept"
    aged = "pooled" if tier == "dormant" else "aged"
    assert decided(tier, before(hours=hours, seconds=1)) == aged


def test_who_is_touched_has_a_list_of_their_own_however_long_they_were_away():
    assert decided("dormant", before(days=1), touched=True, configured=True) == "touched"
    assert decided("hot", NEVER, touched=True) == "touched"


def test_who_is_touched_every_hour_is_aged_when_the_nightly_lists_are():
    assert decided("hot", before(hours=36), touched=True) == "touched"
    assert decided("hot", before(hours=37), touched=True) == "aged"
    assert decided("dormant", before(days=30), touched=True) == "aged"


def test_lists_are_young_where_all_of_a_person_were_made_and_old_where_some_stand():
    names = ["kept", "touched", "touched", "aged", "pooled"]
    codes, old = np.array([code(name) for name in names]), before(days=1)
    altered = np.array([False, False, True, False, False])
    found = ladder.made(codes, np.full(5, old), altered, False, NOW)
    assert found.tolist() == [old, old, *[before(days=0)] * 3]
    configured = np.array([code(name) for name in ("touched", "configured", "pooled")])
    found = ladder.made(configured, np.full(3, old), np.zeros(3, bool), True, NOW)
    assert found.tolist() == [before(days=0)] * 3


def test_a_changed_configuration_makes_every_list_anew_and_the_dormants_from_pools():
    assert decided("hot", before(hours=1), configured=True) == "configured"
    assert decided("dormant", before(hours=1), configured=True) == "pooled"


def test_items_have_no_pools():
    assert decided("dormant", before(days=9), pooled=False) == "aged"
    assert decided("dormant", before(days=1), configured=True, pooled=False) == "configured"


def test_a_digest_is_of_what_is_said_and_not_of_its_order_or_of_tuples():
    one = ladder.digest({"a": (1, 2), "b": {"x": 0.5, "y": None}})
    assert one == ladder.digest({"b": {"y": None, "x": 0.5}, "a": [1, 2]})
    assert one != ladder.digest({"a": (2, 1), "b": {"x": 0.5, "y": None}})


@pytest.mark.parametrize(
    "wrong", [{"hot_days": 0}, {"warm_days": 7}, {"hot_hours": 90}, {"cold_hours": 10}]
)
def test_limits_that_do_not_rise_are_refused(wrong):
    with pytest.raises(ValueError, match=r"must (rise|not fall)"):
        Params(**wrong)
