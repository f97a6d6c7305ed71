"""The assignment: stable, in the shares that were asked for, balanced where it is stratified."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from jobs.diagnosis.experiments.assignment import (
    Assignment,
    assign,
    assign_all,
    balanced,
    place,
    places,
    strata,
)

PEOPLE = [f"account:{n}" for n in range(20_000)]
HALVES = {"old": 0.5, "new": 0.5}
THIRDS = {"a": 0.2, "b": 0.3, "c": 0.5}


def test_a_place_is_the_first_bits_of_the_hash_and_never_one():
    first = int.from_bytes(hashlib.sha256(b"winter\x1faccount:1").digest()[:8], "big")
    assert place("winter", "account:1") == pytest.approx(first / 2**64, abs=1e-15)
    assert ((2**64 - 1) >> 11) / 2**53 < 1


def test_one_person_and_many_get_the_same_arms_again_and_again():
    names = sorted(THIRDS)
    one = [assign("winter", person, THIRDS) for person in PEOPLE[:200]]
    many = [names[code] for code in assign_all("winter", PEOPLE[:200], THIRDS)]
    assert one == many
    assert one == [
        assign("winter", person, dict(reversed(THIRDS.items()))) for person in PEOPLE[:200]
    ]


def test_the_arms_have_their_shares():
    shares = np.bincount(assign_all("winter", PEOPLE, THIRDS)) / len(PEOPLE)
    assert shares == pytest.approx([0.2, 0.3, 0.5], abs=0.012)


def test_places_are_even_and_another_salt_has_nothing_to_do_with_them():
    winter, spring = places("winter", PEOPLE), places("spring", PEOPLE)
    counts, _ = np.histogram(winter, 20, (0, 1))
    assert ((counts - 1_000) ** 2 / 1_000).sum() < 43.8  # chi-square, 19 degrees, p = 0.001
    assert abs(np.corrcoef(winter, spring)[0, 1]) < 0.025


def test_no_stratum_is_off_by_more_than_a_person():
    stratum = np.random.default_rng(0).choice(3, 2_001, p=[0.6, 0.3, 0.1])
    codes = balanced("winter", PEOPLE[:2_001], stratum, THIRDS)
    for one in range(3):
        counts = np.bincount(codes[stratum == one], minlength=3)
        assert np.abs(counts - np.array([0.2, 0.3, 0.5]) * counts.sum()).max() <= 1


def test_nearly_all_keep_the_arm_of_the_plain_hash_when_they_are_balanced():
    codes = balanced("winter", PEOPLE, np.zeros(len(PEOPLE), int), HALVES)
    assert (codes == assign_all("winter", PEOPLE, HALVES)).mean() > 0.98


def test_a_lone_person_of_a_stratum_goes_to_either_arm_by_chance():
    first = [balanced(f"salt {n}", ["account:1"], np.zeros(1, int), HALVES)[0] for n in range(400)]
    assert 0.4 < np.mean(first) < 0.6


def test_strata_are_new_and_returning_of_low_and_high_value():
    returning = np.array([False, True, True, True, False])
    value = np.array([0.0, 1.0, 2.0, 9.0, 99.0])
    assert strata(returning, value).tolist() == [0, 1, 1, 2, 0]
    assert strata(np.zeros(2, bool), np.zeros(2)).tolist() == [0, 0]


def test_the_table_of_the_known_comes_before_the_hash():
    arm = assign("winter", "account:1", HALVES)
    other = "old" if arm == "new" else "new"
    both = Assignment("winter", HALVES, {"account:1": other})
    assert both.arm("account:1") == other
    assert both.arm("account:2") == assign("winter", "account:2", HALVES)
