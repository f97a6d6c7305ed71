"""Texts and rows as integers: equal where these are, and nowhere else."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.signals import codes

# Texts that a careless separator, or one that is taken for a length, would run together.
TEXT = st.none() | st.sampled_from(["", "a", "a:", ":a", "1:a", "1", "é"]) | st.text(max_size=2)
ROWS = st.lists(st.tuples(TEXT, TEXT, TEXT), max_size=8)


def table(rows: list[tuple], coded: bool) -> pa.Table:
    """Rows in two chunks, as two files give them, their first column by a dictionary each."""
    half = len(rows) // 2
    kind = pa.dictionary(pa.int32(), pa.string()) if coded else pa.string()
    kinds = {"x": kind, "y": pa.string(), "z": pa.string()}
    return pa.concat_tables(
        pa.table({
            name: pa.array([row[place] for row in part], pa.string()).cast(kinds[name])
            for place, name in enumerate(kinds)
        })
        for part in (rows[:half], rows[half:])
    )  # fmt: skip


@given(ROWS, ROWS, st.booleans(), st.sampled_from([1, 2**62]))
def test_codes_agree_where_the_rows_do_and_null_agrees_with_nothing(one, other, coded, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codes, "MOST", most)
        found = codes.of_rows(["x", "y", "z"], table(one, coded), table(other, coded))
    assert [len(codes) for codes in found] == [len(one), len(other)]
    coded_rows = list(zip(one + other, pa.concat_arrays(found).to_pylist(), strict=True))
    assert all((code is None) == (None in row) for row, code in coded_rows)
    sound = [both for both in coded_rows if None not in both[0]]
    assert len(set(sound)) == len({row for row, _ in sound}) == len({code for _, code in sound})


@given(st.lists(TEXT), st.lists(TEXT))
def test_texts_of_two_columns_stand_in_one_list_each_once(one, other):
    columns = [pa.chunked_array([values[:2], values[2:]], pa.string()) for values in (one, other)]
    distinct, places = codes.of_texts(*columns)
    texts = [*distinct.to_pylist(), None]  # null is -1
    assert [[texts[place] for place in found] for found in places] == [one, other]
    assert len(set(texts)) == len(texts)


def test_a_value_is_placed_where_it_stands_and_null_nowhere():
    asked, known = pa.array([5, None, 7, 9]), pa.array([9, None, 5])
    assert codes.places(asked, known).to_pylist() == [2, None, None, 0]
