"""Files of few people: what is read of them, what is written again, and what is shared."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from jobs import io
from jobs.refresh import onward


def table(people: range, each: int = 3) -> pa.Table:
    ids = [f"p{number:03d}" for number in people for _ in range(each)]
    return pa.table({"person_id": ids, "value": list(range(len(ids)))})


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Ten files of ten people."""
    for number, part in enumerate(onward.parts(table(range(100)), people=10)):
        io.write_arrow(tmp_path / "base", part, number)
    return tmp_path / "base"


def test_parts_hold_so_many_people_each_whole_and_together_all_rows() -> None:
    rows = table(range(25))
    found = list(onward.parts(rows, people=10))
    assert [pc.count_distinct(part["person_id"]).as_py() for part in found] == [10, 10, 5]
    assert pa.concat_tables(found).equals(rows)
    for few in (table(range(0)), table(range(1)), table(range(10))):
        assert [part.equals(few) for part in onward.parts(few, people=10)] == [True]


def test_rows_of_some_people_of_several_tables_come_together() -> None:
    ids = pa.array([f"p{n}" for n in range(7)])
    one = pa.table({"person_id": ["p0", "p0", "p3", "p6"], "n": [1, 2, 3, 4]})
    other = pa.table({"person_id": ["p6", "p0", "p1"], "n": [5, 6, 7]})  # in no order
    found = [
        [(row["person_id"], row["n"]) for row in part.to_pylist()]
        for part in onward.by_people([one, other, one.slice(0, 0)], ids, people=2)
    ]
    assert found == [
        [("p0", 1), ("p0", 2), ("p0", 6), ("p1", 7)], [("p3", 3)], [("p6", 4), ("p6", 5)],
    ]  # fmt: skip
    assert list(onward.by_people([], ids)) == []


def test_a_few_people_are_read_from_the_files_that_may_hold_them(base: Path) -> None:
    wanted = pa.array(["a", "p007", "p0075", "p042", "z"])
    found = io.read_rows(base, wanted)
    assert sorted(set(found["person_id"].to_pylist())) == ["p007", "p042"]
    assert found.num_rows == 6
    assert io.read_rows(base, wanted, ["value"]).schema.names == ["value"]
    assert io.read_rows(base, pa.array([], pa.string())).num_rows == 0
    held = [io.groups_of(pq.read_metadata(path), wanted) for path in io.parquet_files(base)]
    assert [number for number, groups in enumerate(held) if groups] == [0, 4]


def test_files_without_whoever_changed_are_shared_and_what_is_added_stands_behind(
    base: Path, tmp_path: Path
) -> None:
    staged = tmp_path / "staged"
    number = onward.without(base, staged, pa.array(["p007", "p042", "p999"]))
    assert number == 10
    left = io.read_arrow(staged)
    assert set(left["person_id"].to_pylist()) == {f"p{n:03d}" for n in range(100)} - {
        "p007",
        "p042",
    }
    shared = [path.samefile(base / path.name) for path in io.parquet_files(staged)]
    assert shared == [number not in (0, 4) for number in range(10)]
    assert io.count_rows(base) == 300


def test_a_table_goes_on_without_rows_of_either_column(tmp_path: Path) -> None:
    for number, (people, items) in enumerate((("ab", "xy"), ("cd", "xz"), ("ef", "zz"))):
        rows = pa.table({"person_id": list(people), "item_id": list(items)})
        io.write_arrow(tmp_path / "base", rows, number)
    base, staged = tmp_path / "base", tmp_path / "staged"
    onward.without(base, staged, pa.array(["b"]), also={"item_id": pa.array(["x"])})
    assert io.read_arrow(staged).to_pylist() == [
        {"person_id": "d", "item_id": "z"},
        {"person_id": "e", "item_id": "z"},
        {"person_id": "f", "item_id": "z"},
    ]
    # The first file is gone, the second written again, and the third the base's own.
    files = {path.name: path.samefile(base / path.name) for path in io.parquet_files(staged)}
    assert files == {"part-00001.parquet": False, "part-00002.parquet": True}


@pytest.mark.parametrize("large", [1, 1 << 30], ids=["one at a time", "several at once"])
def test_rows_go_from_the_groups_that_hold_them_and_all_others_keep_their_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    monkeypatch.setattr(onward, "LARGE", large)
    base, staged = tmp_path / "base", tmp_path / "staged"
    base.mkdir()
    people = [f"p{number // 2:03d}" for number in range(40)]
    rows = pa.table({"person_id": people, "item_id": [f"i{n % 7}" for n in range(40)],
                     "value": range(40)})  # fmt: skip
    # Of six rows a group most hold none of these, and are passed over by their statistics.
    for number in range(2):
        part = rows.slice(20 * number, 20)
        pq.write_table(part, base / f"part-{number:05d}.parquet", row_group_size=6)
    gone = pa.array(["p004", "p005", "p019"])
    assert onward.without(base, staged, gone, also={"item_id": pa.array(["i3"])}) == 2
    left = [row for row in rows.to_pylist()
            if row["person_id"] not in gone.to_pylist() and row["item_id"] != "i3"]  # fmt: skip
    assert io.read_arrow(staged).to_pylist() == left
    again = tmp_path / "again"
    onward.without(base, again, gone)
    assert io.read_arrow(again)["value"].to_pylist() == [*range(8), *range(12, 38)]
    first, taken = onward.parted(base, tmp_path / "parted", gone)
    assert first == 2
    assert io.read_arrow(tmp_path / "parted").equals(io.read_arrow(again))
    assert taken.equals(io.read_rows(base, gone))


def test_rows_in_few_pieces_and_in_many_are_written_alike(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = pa.array([f"p{number:03d}" for number in range(0, 100, 2)])
    found = []
    for pieces in (0, 100):
        monkeypatch.setattr(onward, "PIECES", pieces)
        onward.without(base, tmp_path / str(pieces), gone)
        found.append(io.read_arrow(tmp_path / str(pieces)))
        (first, *_) = io.parquet_files(tmp_path / str(pieces))
        assert pq.read_metadata(first).num_row_groups == 1
        # To whoever reads it the file is as the base's: texts are texts.
        of_base = pq.read_schema(base / first.name)
        assert pq.read_schema(first).equals(of_base, check_metadata=True)
    assert found[0].equals(found[1])
    assert found[0].num_rows == 150


def test_texts_in_lists_and_maps_stay_as_they_are_where_files_are_written_again(
    tmp_path: Path,
) -> None:
    named = pa.struct([("source", pa.string()), ("rank", pa.int32())])
    some = [[{"source": "popular", "rank": 1}, {"source": None, "rank": 2}], [], None]
    rows = pa.table({
        "person_id": [f"p{n:03d}" for n in range(60)],
        "sources": pa.array([["popular", "trending"], None, ["popular", None]] * 20,
                            pa.list_(pa.string())),
        "provenance": pa.array(some * 20, pa.list_(named)),
        "attributes": pa.array([[("size", "l")], [], None] * 20, pa.map_(pa.string(), pa.string())),
    })  # fmt: skip
    io.write_arrow(tmp_path / "base", rows)
    gone = pa.array([f"p{n:03d}" for n in range(0, 60, 7)])
    first, taken = onward.parted(tmp_path / "base", tmp_path / "staged", gone)
    assert first == 1
    whole = io.read_arrow(tmp_path / "base")
    mine = pc.is_in(whole["person_id"], value_set=gone)
    assert taken.equals(whole.filter(mine).combine_chunks())
    left = io.read_arrow(tmp_path / "staged")
    assert left.equals(whole.filter(pc.invert(mine)))
    left.validate(full=True)
    taken.validate(full=True)


def test_what_is_left_out_of_a_whole_file_is_returned(base: Path, tmp_path: Path) -> None:
    gone = pa.array([f"p{number:03d}" for number in range(5, 20)])
    first, taken = onward.parted(base, tmp_path / "staged", gone)
    assert first == 10
    assert taken.equals(io.read_rows(base, gone))
    assert "part-00001.parquet" not in {p.name for p in io.parquet_files(tmp_path / "staged")}
    assert onward.parted(base, tmp_path / "none", pa.array(["z"]))[1].num_rows == 0


def test_a_file_that_held_nobody_else_is_gone(tmp_path: Path) -> None:
    io.write_arrow(tmp_path / "base", table(range(2)), 0)
    io.write_arrow(tmp_path / "base", table(range(2, 4)), 1)
    onward.without(tmp_path / "base", tmp_path / "staged", pa.array(["p000", "p001"]))
    assert [path.name for path in io.parquet_files(tmp_path / "staged")] == ["part-00001.parquet"]


def test_rows_are_found_by_any_column_and_only_groups_that_hold_some_are_read(
    tmp_path: Path,
) -> None:
    rows = pa.table({"key": ["b", None, "a", "d", "c", "b"], "value": range(6)})
    pq.write_table(rows, tmp_path / "rows.parquet", row_group_size=2)
    found = io.rows_of(tmp_path / "rows.parquet", pa.array(["b", "c"]), ["value"], "key")
    assert found.to_pydict() == {"value": [0, 4, 5]}
    none = io.rows_of(tmp_path / "rows.parquet", pa.array(["x"]), None, "key")
    assert none.num_rows == 0
    assert none.schema.names == ["key", "value"]
    assert io.read_rows(tmp_path, pa.array(["d"]), None, "key").to_pylist() == [
        {"key": "d", "value": 3}
    ]


def test_a_table_goes_on_without_rows_of_any_column(tmp_path: Path) -> None:
    for number, keys in enumerate((["a", None], ["b", "c"])):
        io.write_arrow(tmp_path / "base", pa.table({"key": keys, "value": [1, 2]}), number)
    assert onward.without(tmp_path / "base", tmp_path / "staged", pa.array(["c"]), "key") == 2
    assert io.read_arrow(tmp_path / "staged")["key"].to_pylist() == ["a", None, "b"]
    io.write_arrow(tmp_path / "staged", pa.table({"key": ["d"], "value": [7]}), 2)
    lost, won = onward.moved(tmp_path / "base", tmp_path / "staged", "key")
    assert (lost.to_pylist(), won.to_pylist()) == (
        [{"key": "c", "value": 2}], [{"key": "d", "value": 7}],
    )  # fmt: skip
    none = onward.moved(tmp_path / "base", tmp_path / "base", "key")
    assert [rows.num_rows for rows in none] == [0, 0]


def test_what_a_table_has_lost_is_told_where_files_cannot_be_shared(tmp_path: Path) -> None:
    for number, keys in enumerate((["a", "b"], ["c"], ["d", "e"])):
        io.write_arrow(tmp_path / "base", pa.table({"key": keys}), number)
    shutil.copytree(tmp_path / "base", tmp_path / "copied")
    onward.without(tmp_path / "base", tmp_path / "staged", pa.array(["b", "c"]), "key")
    shutil.copytree(tmp_path / "staged", tmp_path / "apart")
    for there, missing in (("copied", []), ("staged", ["b", "c"]), ("apart", ["b", "c"])):
        lost, won = onward.moved(tmp_path / "base", tmp_path / there, "key")
        assert (lost["key"].to_pylist(), won.num_rows) == (missing, 0), there


def test_rows_differ_by_any_value_and_null_is_a_value(tmp_path: Path) -> None:
    then = pa.table({
        "id": ["a", "b", "c", "d", "e", "gone"], "number": [1.0, None, 3.0, None, 5.0, 6.0],
        "text": ["x", "x", None, None, "x", "x"],
    })  # fmt: skip
    now = pa.table({
        "id": ["e", "d", "came", "c", "b", "a"], "number": [5.0, None, 0.0, None, 2.0, 1.0],
        "text": ["y", None, "x", None, "x", "x"],
    })  # fmt: skip
    before, after = onward.differing(then, now, "id")
    assert before["id"].to_pylist() == ["b", "c", "e", "gone"]
    assert after["id"].to_pylist() == ["e", "came", "c", "b"]
    for empty, full in ((then.slice(0, 0), now), (now, then.slice(0, 0))):
        found = onward.differing(empty, full, "id")
        assert [one.num_rows for one in found] == [empty.num_rows, full.num_rows]


def test_rows_differ_by_what_their_lists_and_maps_hold_and_nan_is_a_value() -> None:
    texts, named = pa.list_(pa.string()), pa.map_(pa.string(), pa.string())
    lists = [["a", "b"], ["ab"], [None], [], None, ["1:a"], ["a"]]
    maps = [
        [("a", "b")],
        [("a", None)],
        [("ab", "")],
        [],
        None,
        [("a", "b"), ("c", "d")],
        [("d", "a")],
    ]
    numbers = [1.0, float("nan"), None, 0.0, -1.0, 2.0, 3.0]
    table = pa.table({
        "lists": pa.array(lists, texts), "maps": pa.array(maps, named), "numbers": numbers,
    })  # fmt: skip
    names = table.column_names
    for shift in range(len(lists)):
        order = pa.array(np.roll(np.arange(len(lists)), shift))
        # In pieces, of which some begin within an array.
        other = pa.concat_tables([table.take(order).slice(0, 3), table.take(order).slice(3)])
        for name in names:
            assert onward.same(table, other, [name]).all() == (shift == 0)
            assert onward.same(table, other, [name]).any() == (shift == 0)
        assert onward.same(table, other, names).all() == (shift == 0)


def test_rows_are_among_others_by_all_columns_together() -> None:
    rows = pa.table({
        "type": ["a", "a", "b", "b", None, "a:1", "a"], "key": ["1", "2", "1", "2", "1", "2", None]
    })  # fmt: skip
    chosen = pa.table({"type": ["a", "b", "a", None], "key": ["1", "2", "1:2", "1"]})
    found = onward.among(rows, chosen, ["type", "key"])
    assert found.to_pylist() == [True, False, False, True, False, False, False]
    assert onward.among(rows.slice(0, 0), chosen, ["type", "key"]).to_pylist() == []
    assert onward.among(rows, chosen.slice(0, 0), ["type", "key"]).to_pylist() == [False] * 7
