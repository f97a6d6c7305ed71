"""Pairwise precision, recall and F1 of persons, on cases worked by hand and against brute force."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.evaluation import persons_found

TIME = pa.timestamp("us", tz="UTC")
DIRECT, DIRECT_STRICT, CONNECTED, CONNECTED_STRICT = range(4)


def holders(*rows: tuple) -> pa.Table:
    """Rows of (key like ``cookie:c``, person, from day or None, to day or None)."""

    def time(day):
        return (
            None if day is None else pd.Timestamp("2024-01-01", tz="UTC") + pd.Timedelta(days=day)
        )

    return pa.table({
        "key_type": [row[0].split(":")[0] for row in rows],
        "key": [row[0].split(":")[1] for row in rows],
        "person": pa.array([row[1] for row in rows], pa.int64()),
        "starts": pa.array([time(row[2]) for row in rows], TIME),
        "ends": pa.array([time(row[3]) for row in rows], TIME),
    })  # fmt: skip


def links(*rows: str, source: str = "login") -> pa.Table:
    """Rows like ``cookie:c - account:a``, or with ``household`` behind."""
    ends = [row.split(" ") for row in rows]
    return pa.table({
        "key_type_a": pa.array([row[0].split(":")[0] for row in ends], pa.string()),
        "key_a": pa.array([row[0].split(":")[1] for row in ends], pa.string()),
        "key_type_b": pa.array([row[2].split(":")[0] for row in ends], pa.string()),
        "key_b": pa.array([row[2].split(":")[1] for row in ends], pa.string()),
        "source": pa.array([row[3] if len(row) > 3 else source for row in ends], pa.string()),
    })  # fmt: skip


def found(**persons: str) -> pa.Table:
    """``p="cookie:c account:a"``: the keys of each person found."""
    rows = [(key, person) for person, keys in persons.items() for key in keys.split()]
    return pa.table({
        "key_type": pa.array([key.split(":")[0] for key, _ in rows], pa.string()),
        "key": pa.array([key.split(":")[1] for key, _ in rows], pa.string()),
        "person_id": pa.array([person for _, person in rows], pa.string()),
    })  # fmt: skip


def counts(table: pa.Table, row: int) -> tuple[int, int, int, int]:
    told = table.to_pylist()[row]
    return told["joined"], told["true"], told["found"], told["right"]


def test_persons_found_as_they_are_have_precision_and_recall_one():
    told = persons_found.judge(
        found(p="account:a cookie:c", q="account:b cookie:d"),
        holders(("account:a", 1, None, None), ("cookie:c", 1, 0, 30),
                ("account:b", 2, None, None), ("cookie:d", 2, 5, None)),
        links("cookie:c - account:a", "account:b - cookie:d"),
    )  # fmt: skip
    for row in told.to_pylist():
        assert (row["true"], row["found"], row["right"]) == (2, 2, 2)
        assert (row["precision"], row["recall"], row["f1"]) == (1.0, 1.0, 1.0)
    assert [(row["pairs"], row["holders"]) for row in told.to_pylist()] == [
        ("direct", "in_their_time"), ("direct", "strict"),
        ("connected", "in_their_time"), ("connected", "strict"),
    ]  # fmt: skip


def test_a_missed_pair_costs_recall_and_a_wrong_one_precision():
    told = persons_found.judge(
        found(p="account:a cookie:c account:b", q="cookie:d"),
        holders(("account:a", 1, None, None), ("cookie:c", 1, None, None),
                ("account:b", 2, None, None), ("cookie:d", 2, None, None)),
        links("cookie:c - account:a", "cookie:c - account:b", "account:b - cookie:d"),
    )  # fmt: skip
    assert counts(told, DIRECT) == (3, 2, 2, 1)
    assert told["f1"][DIRECT].as_py() == pytest.approx(0.5)
    # Connected: a-c and b-d are true; found are a-c, a-b and c-b.
    assert counts(told, CONNECTED) == (6, 2, 3, 1)


def test_only_pairs_that_a_link_joins_count():
    told = persons_found.judge(
        found(p="account:a cookie:c device:d"),
        holders(("account:a", 1, None, None), ("cookie:c", 1, None, None),
                ("device:d", 1, None, None)),
        links("cookie:c - account:a", "cookie:c - account:a", "account:a - cookie:c",
              "device:d - device:d", "device:d - account:a household"),
    )  # fmt: skip
    for row in range(4):
        assert counts(told, row) == (1, 1, 1, 1)


def test_a_device_of_several_at_once_is_nobodys():
    told = persons_found.judge(
        found(p="account:a device:d", q="account:b"),
        holders(("account:a", 1, None, None), ("account:b", 2, None, None),
                ("device:d", 1, None, None), ("device:d", 2, None, None)),
        links("device:d - account:a", "device:d - account:b"),
    )  # fmt: skip
    assert counts(told, DIRECT) == (2, 0, 1, 0)
    assert told["precision"][DIRECT].as_py() == 0.0
    assert told["recall"][DIRECT].as_py() is None


def test_a_device_shared_for_a_while_is_its_one_holders_in_the_rest():
    told = persons_found.judge(
        found(p="account:a device:d", q="account:b cookie:b"),
        holders(("account:a", 1, None, None), ("account:b", 2, None, None),
                ("cookie:b", 2, 0, 20),
                ("device:d", 1, None, None), ("device:d", 2, 10, 20)),
        links("device:d - account:a", "device:d - account:b", "account:b - cookie:b"),
    )  # fmt: skip
    assert counts(told, DIRECT) == (3, 2, 2, 2)
    assert counts(told, DIRECT_STRICT) == (3, 1, 2, 1)


def test_a_recycled_cookie_is_each_holders_in_its_time():
    told = persons_found.judge(
        found(p="account:a cookie:c", q="account:b"),
        holders(("account:a", 1, None, None), ("account:b", 2, None, None),
                ("cookie:c", 1, 0, 30), ("cookie:c", 2, 30, 60)),
        links("cookie:c - account:a", "cookie:c - account:b"),
    )  # fmt: skip
    assert counts(told, DIRECT) == (2, 2, 1, 1)
    assert counts(told, DIRECT_STRICT) == (2, 0, 1, 0)
    # The accounts are connected by the cookie, and not one person's.
    assert counts(told, CONNECTED) == (3, 2, 1, 1)


def test_keys_that_met_no_moment_are_true_on_a_path_but_not_by_a_link():
    told = persons_found.judge(
        found(p="account:a cookie:c cookie:d"),
        holders(("account:a", 1, None, None), ("cookie:c", 1, 0, 30), ("cookie:d", 1, 30, 60)),
        links("cookie:c - account:a", "cookie:d - account:a", "cookie:c - cookie:d"),
    )  # fmt: skip
    assert counts(told, DIRECT) == (3, 2, 3, 2)
    assert counts(told, CONNECTED) == (3, 3, 3, 3)


def test_pairs_with_a_key_that_the_night_does_not_know_are_counted_apart():
    told = persons_found.judge(
        found(p="account:a cookie:c"),
        holders(("account:a", 1, None, None), ("loyalty_card:l", 1, None, None),
                ("cookie:c", 1, None, None)),
        links("account:a - loyalty_card:l", "account:a - cookie:c"),
    )  # fmt: skip
    for row in range(4):
        assert counts(told, row) == (1, 1, 1, 1)
    assert told["unknown"].to_pylist() == [1, 1, 2, 2]


def test_a_share_of_nothing_is_null():
    told = persons_found.judge(
        found(p="account:a", q="cookie:c"),
        holders(("account:a", 1, None, None), ("cookie:c", 1, None, None)),
        links("account:a - cookie:c"),
    )
    assert told["precision"][DIRECT].as_py() is None
    assert (told["recall"][DIRECT].as_py(), told["f1"][DIRECT].as_py()) == (0.0, 0.0)


def test_keys_of_different_types_with_the_same_value_are_different():
    told = persons_found.judge(
        found(p="account:x", q="cookie:x"),
        holders(("account:x", 1, None, None), ("cookie:x", 1, None, None)),
        links("account:x - cookie:x"),
    )
    assert counts(told, DIRECT) == (1, 1, 0, 0)


def test_nothing_to_judge_is_no_error():
    told = persons_found.judge(found(), holders(), links())
    assert [counts(told, row) for row in range(4)] == [(0, 0, 0, 0)] * 4
    assert told["f1"].null_count == 4


def test_one_key_with_a_hundred_thousand_links_is_counted_not_listed():
    size = 100_000
    keys = [str(number) for number in range(size)]
    told = persons_found.judge(
        pa.table({"key_type": ["d"] * size, "key": keys, "person_id": ["p"] * size}),
        pa.table({
            "key_type": ["d"] * size, "key": keys, "person": np.zeros(size, np.int64),
            "starts": pa.nulls(size, TIME), "ends": pa.nulls(size, TIME),
        }),
        pa.table({
            "key_type_a": ["d"] * (size - 1), "key_a": keys[:1] * (size - 1),
            "key_type_b": ["d"] * (size - 1), "key_b": keys[1:], "source": ["login"] * (size - 1),
        }),
    )  # fmt: skip
    assert counts(told, DIRECT) == (size - 1,) * 4
    assert counts(told, CONNECTED) == (size * (size - 1) // 2,) * 4


SPELLS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 6), st.integers(1, 4)),
    max_size=14,
)


@settings(max_examples=150, deadline=None)
@given(
    spells=SPELLS,
    pairs=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8),
    persons=st.lists(st.sampled_from(["p", "q", "r", ""]), min_size=6, max_size=6),
)
def test_counts_are_those_of_looking_at_every_day_and_every_pair(spells, pairs, persons):
    told = persons_found.judge(
        found(**{
            name: " ".join(f"k:{key}" for key in range(6) if persons[key] == name)
            for name in "pqr"
        }),
        holders(*((f"k:{key}", person, start, start + length)
                  for key, person, start, length in spells)),
        links(*(f"k:{a} - k:{b}" for a, b in pairs)),
    )  # fmt: skip
    on = {(key, day): set() for key in range(6) for day in range(12)}
    ever = {key: set() for key in range(6)}
    for key, person, start, length in spells:
        ever[key].add(person)
        for day in range(start, start + length):
            on[key, day].add(person)
    known = {key for key in range(6) if persons[key]}
    linked = {tuple(sorted(pair)) for pair in pairs if pair[0] != pair[1]}
    reach = {key: {key} for key in range(6)}
    for _ in range(6):
        for a, b in linked:
            reach[a] = reach[b] = reach[a] | reach[b]
            for key in reach[a]:
                reach[key] = reach[a]
    connected = {pair for pair in combinations(range(6), 2) if pair[1] in reach[pair[0]]}

    def holds(key, day, strict):
        nobody = len(on[key, day]) != 1 or (strict and len(ever[key]) > 1)
        return None if nobody else next(iter(on[key, day]))

    for row, (joined, strict, same_day) in enumerate((
        (linked, False, True), (linked, True, True),
        (connected, False, False), (connected, True, False),
    )):  # fmt: skip
        unknown = {pair for pair in joined if not known.issuperset(pair)}
        joined = joined - unknown
        days = [(one, two) for one in range(12) for two in range(12) if one == two or not same_day]
        true = {
            (a, b)
            for a, b in joined
            if any(holds(a, one, strict) == holds(b, two, strict) is not None for one, two in days)
        }
        ours = {(a, b) for a, b in joined if persons[a] == persons[b]}
        assert counts(told, row) == (len(joined), len(true), len(ours), len(true & ours))
        assert told["unknown"][row].as_py() == len(unknown)
