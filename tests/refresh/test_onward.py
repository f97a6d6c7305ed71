"""Files of few people: what is read of them, what is written again, and what is shared."""

from __future__ import annotations

from pathlib import Path

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


def test_a_few_people_are_read_from_the_files_that_may_hold_them(base: Path) -> None:
    wanted = pa.array(["a", "p007", "p0075", "p042", "z"])
    found = io.read_people(base, wanted)
    assert sorted(set(found["person_id"].to_pylist())) == ["p007", "p042"]
    assert found.num_rows == 6
    assert io.read_people(base, wanted, ["value"]).schema.names == ["value"]
    assert io.read_people(base, pa.array([], pa.string())).num_rows == 0
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


def test_a_file_that_held_nobody_else_is_gone(tmp_path: Path) -> None:
    io.write_arrow(tmp_path / "base", table(range(2)), 0)
    io.write_arrow(tmp_path / "base", table(range(2, 4)), 1)
    onward.without(tmp_path / "base", tmp_path / "staged", pa.array(["p000", "p001"]))
    assert [path.name for path in io.parquet_files(tmp_path / "staged")] == ["part-00001.parquet"]
