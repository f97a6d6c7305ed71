import numpy as np
import pyarrow as pa
import pytest

from jobs.errors import Fault
from jobs.retrieval import matrix
from jobs.tables import TABLES
from tests.retrieval.conftest import crowds


def test_the_matrix_holds_what_the_rows_say() -> None:
    rows = crowds()
    built = matrix.build(rows)
    dense = built.matrix.toarray()
    people, items = built.person_ids.to_pylist(), built.item_ids.to_pylist()
    for row in rows.slice(0, 50).to_pylist():
        weight = dense[people.index(row["person_id"]), items.index(row["item_id"])]
        assert weight == np.float32(row["weight"])
    assert built.matrix.nnz == rows.num_rows
    assert people == sorted(people)
    assert items == sorted(items)


def test_the_order_of_the_rows_changes_nothing() -> None:
    rows = crowds()
    shuffled = rows.take(np.random.default_rng(3).permutation(rows.num_rows))
    one, two = matrix.build(rows), matrix.build(shuffled)
    assert (one.matrix != two.matrix).nnz == 0
    np.testing.assert_array_equal(one.last_times, two.last_times)
    assert one.item_ids.equals(two.item_ids)


def test_a_pair_that_stands_twice_and_a_weight_that_is_no_number_are_one_fault() -> None:
    rows = pa.concat_tables([crowds(), crowds().slice(0, 2)]).to_pandas()
    rows.loc[5, "weight"] = np.nan
    with pytest.raises(Fault, match=r"1 weights .* 2 pairs stand twice"):
        matrix.build(pa.Table.from_pandas(rows, preserve_index=False))


def test_times_stand_beside_their_pairs_after_sorting() -> None:
    rows = crowds()
    built = matrix.build(rows)
    times = dict(
        zip(
            zip(rows["person_id"].to_pylist(), rows["item_id"].to_pylist(), strict=True),
            rows["last_time"].cast(pa.int64()).to_pylist(),
            strict=True,
        )
    )
    people = np.repeat(np.arange(built.matrix.shape[0]), np.diff(built.matrix.indptr))
    for person, item, time in zip(people, built.matrix.indices, built.last_times, strict=True):
        assert times[built.person_ids[person].as_py(), built.item_ids[item].as_py()] == time


def test_people_can_be_taken_with_their_times() -> None:
    built = matrix.build(crowds())
    few = built.of_people(np.array([2, 5]))
    start, end = built.matrix.indptr[5], built.matrix.indptr[6]
    assert few.person_ids.to_pylist() == [built.person_ids[2].as_py(), built.person_ids[5].as_py()]
    np.testing.assert_array_equal(
        few.last_times[few.matrix.indptr[1] :], built.last_times[start:end]
    )


def test_an_unknown_id_has_no_position_and_hostile_ids_are_plain_ids() -> None:
    ids = ["../x", "a'b\"", "new\nline", "zü"]
    known, codes = matrix.encode(pa.chunked_array([ids[::-1], ids]))
    assert known.to_pylist() == sorted(ids)
    assert [known[int(code)].as_py() for code in codes] == ids[::-1] + ids
    assert matrix.positions(pa.array(["zü", "nobody"]), known).tolist() == [3, -1]


def test_vectors_survive_the_way_to_a_table_and_back() -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    table = pa.table({"vector": matrix.vector_column(vectors)})
    np.testing.assert_array_equal(matrix.vectors_of(table), vectors)
    np.testing.assert_array_equal(matrix.vectors_of(table.slice(2, 2)), vectors[2:4])


def test_vectors_of_different_lengths_are_refused() -> None:
    with pytest.raises(Fault, match="different lengths"):
        matrix.vectors_of(pa.table({"vector": pa.array([[1.0], [1.0, 2.0]])}))


def test_candidate_rows_are_as_the_table_is_declared() -> None:
    one = np.array([0])
    nominated = matrix.Nominated(one, one, one + 1, one * 0.5, one, one)
    rows = matrix.candidate_rows("popular", nominated, pa.array(["account:1"]), pa.array(["i"]))
    assert rows.schema.equals(TABLES["candidates"].schema)
    assert rows["seed_item"].to_pylist() == ["i"]


def test_distinct_keys_are_those_of_numpy() -> None:
    keys = np.random.default_rng(3).integers(0, 50, 400)
    np.testing.assert_array_equal(matrix.distinct(keys), np.unique(keys))
    assert matrix.distinct(np.zeros(0, np.int64)).tolist() == []
