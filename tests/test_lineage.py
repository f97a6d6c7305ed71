"""A table's way back names every input, version, code and changed parameter down to the source."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from jobs import io, lineage
from jobs.errors import Fault
from jobs.io import Lake
from jobs.signals import interactions
from tests.expectations import good


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake with three steps in a row, of two nights."""
    made = Lake(tmp_path / "lake").open()
    for as_of in ("2017-11-30", "2017-12-01"):
        publish(made, as_of, "source", {}, source_tables=2)
        publish(made, as_of, "events", {"source": {}}, events=1000)
        publish(made, as_of, "interactions", {"events": {"events": 1000}}, interactions=50)
    return made


def publish(
    lake: Lake, as_of: str, step: str, inputs: dict[str, dict[str, int]], **rows: int
) -> None:
    params: dict[str, Any] = {}
    if step == "interactions":
        params = dataclasses.asdict(interactions.Params()) | {"fresh_days": 3.0}
    folder = lake.staged(step, moment := io.parse_as_of(as_of))
    manifest = {
        "step": step, "source": "completejourney", "code_version": "abc1234", "seed": 7,
        "params": params, "gate": {"verdict": "green"},
        "tables": {name: {"rows": count} for name, count in rows.items()},
        "inputs": {
            f"{name}@{as_of}": {"step": name, "as_of": as_of, "attempt": "one", "rows": read}
            for name, read in inputs.items()
        },
    }  # fmt: skip
    io.write_json(folder / "manifest.json", manifest)
    if step == "source":
        io.write_json(folder / "source.json", {"folder": "/data/cj", "digest": "beef"})
    lake.publish(step, moment, "one")


def lines(lake: Lake, table: str, as_of: str | None = None) -> str:
    return "\n".join(lineage.way_back(lake, lineage.find(lake, table, as_of), table))


def test_the_way_back_reaches_the_source(lake: Lake) -> None:
    assert lines(lake, "interactions") == "\n".join([
        f"interactions as of 2017-12-01, in {lake.root}/tables/interactions/2017-12-01/one",
        "interactions @ 2017-12-01  run one  gate green",
        "    rows: interactions 50",
        "    code abc1234  seed 7",
        "    params: fresh_days=3.0 (default 7.0)",
        "  events @ 2017-12-01  run one  gate green",
        "      rows: events 1,000",
        "      code abc1234  seed 7",
        "      params: all defaults",
        "    source @ 2017-12-01  run one  gate green",
        "        rows: source_tables 2",
        "        code abc1234  seed 7",
        "        params: all defaults",
        "        source: completejourney",
        "        folder: /data/cj  digest beef",
        "      rows read here: events 1,000",
    ])  # fmt: skip


def test_an_earlier_night_is_found_by_its_date(lake: Lake) -> None:
    assert lines(lake, "interactions", "2017-11-30").startswith("interactions as of 2017-11-30")


def test_an_input_that_was_replaced_or_is_gone_says_so(lake: Lake) -> None:
    moment = io.parse_as_of("2017-12-01")
    staged = lake.staged("events", moment)
    io.write_json(staged / "manifest.json", {"inputs": {}, "source": "completejourney"})
    lake.publish("events", moment, "two")
    assert "read in the run one, which was replaced since" in lines(lake, "interactions")
    (lake.root / "tables" / "events" / "2017-12-01" / "PUBLISHED").unlink()
    assert "events @ 2017-12-01  run one  (no longer in the lake)" in lines(lake, "interactions")


def test_a_file_that_a_step_read_is_named_with_its_digest(lake: Lake) -> None:
    moment = io.parse_as_of("2017-12-01")
    files = {"staleness/shop/2017-11-01/staleness.json": "0123456789abcdef"}
    manifest = {"source": "completejourney", "notes": {"files": files}}
    io.write_json(lake.staged("events", moment) / "manifest.json", manifest)
    lake.publish("events", moment, "two")
    shown = lines(lake, "events")
    assert "file: staleness/shop/2017-11-01/staleness.json  sha256 0123456789ab" in shown


def test_an_unknown_table_is_a_fault_that_names_the_nearest(lake: Lake) -> None:
    with pytest.raises(Fault, match="no table 'interaction'; did you mean interactions"):
        lineage.find(lake, "interaction", None)


def test_a_table_that_no_night_has_published_is_a_fault(lake: Lake) -> None:
    with pytest.raises(Fault, match="nothing of the step ranker is published"):
        lineage.find(lake, "blend_weights", None)


def test_the_command_prints_it(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = argparse.Namespace(lake=str(lake.root), table="interactions", as_of=None)
    lineage.main(chosen)
    assert capsys.readouterr().out.startswith(f"interactions as of {good.AS_OF:%Y-%m-%d}")
