"""How tables are written."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import io


def test_all_but_singles_are_coded_by_a_dictionary_in_lists_and_maps_too(tmp_path: Path) -> None:
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
    assert plain == ["single", "vector.list.element", "named.list.element.weight"]
    assert len(columns) == 10
    assert io.read_arrow(tmp_path / "table").equals(rows)
