"""One row of features for a pair, whatever stands around it, and its hash."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import io
from jobs.errors import Fault
from jobs.ordering import lists
from jobs.scoring import features
from jobs.scoring.features import Ground, Named, Vectors
from jobs.signals import shop
from jobs.signals.homes import Homes
from jobs.signals.shop import Catalogue
from jobs.tables import FEATURES, SOURCES
from tests.conftest import AS_OF
from tests.signals.pasts import past_of

ITEMS = ["bread", "milk", "tea"]
CATALOGUE = Catalogue.of(pa.table({
    "item_id": ITEMS, "category": ["FOOD > BAKERY", "FOOD > DAIRY", None],
}))  # fmt: skip
ROWS = (
    ("p", "milk", "purchase", 30), ("p", "milk", "purchase", 10), ("p", "bread", "purchase", 10),
    ("q", "tea", "purchase", 3), ("q", "milk", "view", 2),
)  # fmt: skip
VECTORS = np.array([[1, 0], [0, 2], [np.nan, np.nan]], np.float32)


def named(*rows: tuple[int, int, str, int]) -> Named:
    """From (person, item, source, rank)."""
    person, item, source, rank = zip(*rows, strict=True)
    return Named(
        np.array(person), np.array(item), np.array([SOURCES.index(s) for s in source]),
        np.array(rank),
    )  # fmt: skip


def ground(*people: str) -> Ground:
    everybody = past_of(*ROWS, items=ITEMS)
    own = past_of(*[row for row in ROWS if row[0] in people], people=list(people), items=ITEMS)
    vectors = Vectors(VECTORS, np.ones((len(people), 2), np.float32), VECTORS)
    alone = Homes.of(pa.table({
        "person_id": list(people), "household_id": list(people),
        "personalised": [True for _ in people],
    }))  # fmt: skip
    mates = alone.mates(alone.people, len(ITEMS))
    return Ground.of(own, CATALOGUE, shop.measure([everybody], CATALOGUE), mates, vectors)


def test_a_table_of_another_version_is_told_by_its_columns(tmp_path):
    rows = features.stamped(pa.array(["p"]), pa.array(["i"]), np.ones((1, len(FEATURES))), AS_OF)
    io.write_arrow(tmp_path / "now", rows)
    io.write_arrow(tmp_path / "then", rows.drop_columns(FEATURES[3]))
    assert features.held(tmp_path / "now")
    assert not features.held(tmp_path / "then")


def test_a_row_holds_every_feature_at_its_place():
    pairs = features.wide(named((0, 1, "buy_again", 1), (0, 2, "popular", 2)))
    table = features.values(ground("p"), pairs)
    assert table.shape == (2, len(FEATURES))
    milk, tea = (dict(zip(FEATURES, row.tolist(), strict=True)) for row in table)
    assert (milk["baskets"], milk["days_since"], milk["mean_gap"]) == (2, 10, 20)
    assert (milk["p_baskets"], milk["i_buyers"], milk["narrow_baskets"]) == (2, 1, 2)
    assert milk["buy_again_signal"] == 1
    assert milk["share_of_narrow"] == 1
    assert milk["share_of_broad"] == 1
    assert milk["affinity"] == 2
    assert (tea["baskets"], tea["i_buyers"], tea["popular_signal"]) == (0, 1, pytest.approx(0.8))
    for name in ("days_since", "affinity", "taste", "narrow_days_since"):
        assert np.isnan(tea[name]), name


def test_a_row_is_the_same_to_the_last_bit_whoever_else_is_in_the_block():
    alone = features.values(ground("q"), features.wide(named((0, 1, "popular", 1))))
    both = features.values(
        ground("p", "q"), features.wide(named((0, 1, "buy_again", 2), (1, 1, "popular", 1)))
    )
    np.testing.assert_array_equal(both[1], alone[0])


@pytest.mark.parametrize("part", [1, 3])
def test_rows_are_the_same_to_the_last_bit_in_whatever_parts_they_are_made(monkeypatch, part):
    everything = [(p, i, s, 1 + p + i) for p in (0, 1) for i in (0, 1, 2) for s in SOURCES[: i + 1]]
    pairs, of = features.wide(named(*everything)), ground("p", "q")
    whole = features.values(of, pairs)
    monkeypatch.setattr(features, "PART", part)
    assert features.values(of, pairs).tobytes() == whole.tobytes()


def test_no_pair_has_no_features():
    nobody = features.wide(Named(*(np.zeros(0, np.int64) for _ in range(4))))
    assert features.values(ground("p"), nobody).shape == (0, len(FEATURES))


def test_the_hash_is_that_of_the_documented_bytes():
    row = np.arange(len(FEATURES), dtype=np.float32)[None, :] / 7
    row[0, 3] = np.nan
    raw = b"".join(
        struct.pack("<I", 0x7FC00000) if np.isnan(value) else struct.pack("<f", value)
        for value in row[0]
    )
    assert features.hashes(row) == [hashlib.sha256(features.VERSION.encode() + raw).hexdigest()]


def test_equal_features_have_equal_hashes_and_others_do_not():
    rows = np.zeros((4, len(FEATURES)), np.float32)
    rows[1] = -0.0
    rows[2, 5] = 1.0
    rows[3, 5] = np.nan
    found = features.hashes(rows)
    assert found[0] == found[1]
    assert len(set(found)) == 3
    odd = np.full((2, len(FEATURES)), np.nan, np.float32)
    odd[1].view(np.uint32)[:] = 0xFFC00001
    assert len(set(features.hashes(odd))) == 1, "one NaN is like another"


def test_the_table_carries_values_version_and_instant():
    rows = np.full((1, len(FEATURES)), np.nan, np.float32)
    rows[0, 0] = 4
    (row,) = features.stamped(pa.array(["p"]), pa.array(["milk"]), rows, AS_OF).to_pylist()
    assert (row["baskets"], row["days_since"]) == (4, None)
    assert row["event_timestamp"] == AS_OF
    assert row["feature_version"] == features.VERSION


def test_the_nearest_of_each_person_are_kept_and_ties_go_to_the_lower_item():
    person, item = np.array([0, 0, 0, 1]), np.array([2, 1, 0, 5])
    kept = features.nearest(person, item, np.array([1.0, 1.0, 0.5, 0.1]), 1)
    assert kept.tolist() == [False, True, False, True]


@given(st.lists(st.booleans(), min_size=6, max_size=6))
def test_pairs_left_out_lose_what_named_them_and_others_keep_it(kept):
    rows = [(p, i, s, 1) for p in (0, 1) for i in (0, 1, 2) for s in ("buy_again", "popular")]
    all_named = named(*rows)
    pairs = features.wide(all_named).of(np.array(kept))
    assert len(pairs.item) == sum(kept)
    for row, pair in enumerate(pairs.pair_of):
        if pair >= 0:
            assert (pairs.person[pair], pairs.item[pair]) == rows[row][:2]
        else:
            assert not kept[rows[row][0] * 3 + rows[row][1]]
    count = len(pairs.item)
    listed = lists.Listed(np.arange(count), np.ones(count, np.int64))
    seeds = pa.table({"seed_item": pa.nulls(0, pa.string()), "seed_time": pa.nulls(0, pa.int64())})
    sources, _ = lists.provenance(all_named, pairs, listed, np.zeros(len(rows)), seeds)
    assert sources.to_pylist() == [["buy_again", "popular"]] * count


def test_a_candidate_of_a_stranger_is_a_fault():
    rows = pa.table({"person_id": ["c"], "item_id": ["1"], "source": ["popular"], "rank": [1]})
    with pytest.raises(Fault, match="person of candidates: 1 ids are not known, the first is 'c'"):
        features.coded(rows, pa.array(["b"]), pa.array(["1"]))


def test_an_id_without_a_vector_has_none():
    rows = pa.table({"item_id": ["b", "a"], "vector": [[1.0, 2.0], [3.0, 4.0]]})
    found = features.placed(rows, "item_id", pa.array(["a", "b", "c"]))
    assert found[:2].tolist() == [[3, 4], [1, 2]]
    assert np.isnan(found[2]).all()
    nothing = features.placed(rows.slice(2), "item_id", pa.array(["a"]), 2)
    assert nothing.shape == (1, 2)
