"""Candidates: that a source which is on and names nothing is seen to."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from expectations import candidate_counts
from jobs import findings, io
from jobs.io import Lake
from jobs.night import Night
from jobs.refresh.route import Refresh
from jobs.retrieval import candidates
from jobs.retrieval.sources import two_tower
from jobs.tables import TABLES
from tests.retrieval.conftest import AS_OF


def shelf(folder: Path, name: str, source: str) -> Path:
    """A folder with one row of one source in the table ``name``."""
    table = TABLES[name]
    row = {"source": source, "rank": 1, "item_id": "i1", "score": 1.0}
    own = (
        {"person_id": "p1", "seed_item": None, "seed_time": None}
        if name == "candidates"
        else {"context_kind": "all", "context": ""}
    )
    io.write_arrow(folder / name, pa.Table.from_pylist([row | own], table.schema))
    return folder / name


def test_a_refresh_of_a_night_without_towers_says_that_a_night_trains_them(tmp_path: Path) -> None:
    night = Night(
        Lake(tmp_path / "lake").open(), AS_OF, "one", "test", "candidates",
        refresh=Refresh("2017-11-30", "2017-11-30"),
    )  # fmt: skip
    night.reset()
    candidates.write_towers(night, None, candidates.Params(two_tower=True))
    assert night.notes["no_two_tower"] == "the base has no weights; a night trains them"


@pytest.mark.parametrize("asked", [False, True])
def test_two_towers_that_are_on_and_name_nothing_are_warned_of(tmp_path: Path, asked: bool) -> None:
    night = Night(Lake(tmp_path / "lake").open(), AS_OF, "one", "test", "candidates")
    night.reset()
    params = candidates.Params(two_tower=asked)
    candidates.write_towers(night, None, params)
    for name in candidates.TOWERS:
        assert io.read_arrow(night.staged / name).num_rows == 0
    assert ("no_two_tower" in night.notes) == asked

    named = shelf(tmp_path, "candidates", "collaborative"), shelf(tmp_path, "pools", "popular")
    rows = candidates.counts(*named, candidates.asked(params))
    counted = dict(zip(rows["source"].to_pylist(), rows["rows"].to_pylist(), strict=True))
    assert counted.pop("collaborative") == counted.pop("popular") == 1
    assert set(counted.values()) == {0}
    assert (two_tower.NAME in counted) == asked

    place = rows.schema.get_field_index("rows")
    every = rows.set_column(place, "rows", pa.array([9] * rows.num_rows, pa.int64()))
    failed = [
        [
            (one.severity, one.failing)
            for one in findings.evaluate(
                "candidate_counts", table.to_pandas(), candidate_counts.suite(AS_OF)
            )
            if not one.success
        ]
        for table in (rows, every)
    ]
    silent = {*candidate_counts.ALWAYS} & {*counted}
    assert failed == [[("warning", len(silent))], []]
    assert (two_tower.NAME in silent) == asked
