"""How tables are written."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import io


def test_all_but_floating_numbers_are_coded_by_a_dictionary(tmp_path: Path) -> None:
    named = pa.struct([("source", pa.string()), ("weight", pa.float32())])
    rows = pa.table({
        "person_id": ["a", "a"], "rank": pa.array([1, 2], pa.int32()),
        "single": pa.array([0.5, 0.25], pa.float32()), "double": [0.5, 0.25],
        "vector": pa.array([[1.0, 2.0], [3.0]], pa.list_(pa.float32())),
        "sources": [["popular"], ["popular", "trending"]],
        "named": pa.array([[{"source": "popular", "weight": 1.0}], []], pa.list_(named)),
        "texts": pa.array([{"k": "v"}, {}], pa.map_(pa.string(), pa.string())),
    })  # fmt: skip
    io.write_arrow(tmp_path / "table", rows)
    group = pq.read_metadata(tmp_path / "table" / "part-00000.parquet").row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    plain = [one.path_in_schema for one in columns if "RLE_DICTIONARY" not in one.encodings]
    assert plain == ["single", "double", "vector.list.element", "named.list.element.weight"]
    assert len(columns) == 10
    assert io.read_arrow(tmp_path / "table").equals(rows)


def test_data_files_are_sorted_by_their_folders_and_what_is_hidden_is_none(tmp_path: Path) -> None:
    names = ["b.parquet", "a/z.parquet", "a-b/y.parquet", "_m.parquet", ".b.parquet", "a/note.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in io.parquet_files(tmp_path)]
    assert found == ["a/z.parquet", "a-b/y.parquet", "b.parquet"]
    assert io.parquet_files(tmp_path) == sorted(io.parquet_files(tmp_path))
    assert io.parquet_files(tmp_path / "none") == []


def test_a_column_is_required_where_every_file_requires_it(tmp_path: Path) -> None:
    kinds = {"text": pa.string(), "list": pa.list_(pa.string()), "free": pa.string()}
    schema = pa.schema([pa.field(name, kind, name == "free") for name, kind in kinds.items()])
    rows = pa.table({"text": ["a", "b"], "list": [[], [None]], "free": ["a", None]}, schema)
    io.write_arrow(tmp_path, rows)
    assert io.footers(tmp_path) == (2, {"text", "list"})
    io.write_arrow(tmp_path, rows.cast(schema.set(1, pa.field("list", kinds["list"]))), 1)
    assert io.footers(tmp_path) == (4, {"text"})
    assert io.footers(tmp_path / "none") == (0, frozenset())
