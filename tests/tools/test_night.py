"""What ``make run`` makes of its values, and what it says at the end."""

from __future__ import annotations

import io as io_module
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from jobs import io, tables
from jobs.io import Lake
from tools import closing, night
from tools.progress import Task

ROOT = Path(__file__).resolve().parents[2]
AS_OF = datetime(2024, 3, 1, tzinfo=UTC)


def test_without_values_it_is_the_grocers_night():
    assert night.trigger({"SOURCE": "", "AS_OF": "", "LAKE": ""}) == {"as_of": "2017-12-01"}


def test_values_become_the_trigger_forms_params(tmp_path):
    given = {
        "SOURCE": str(tmp_path), "AS_OF": "2024-03-01", "LAKE": "var/x",
        "PARAMS": '{"candidates": {"depth": 5}}',
    }  # fmt: skip
    assert night.trigger(given) == {
        "source": str(tmp_path.resolve()),
        "as_of": "2024-03-01",
        "lake": str(Path("var/x").resolve()),
        "params": {"candidates": {"depth": 5}},
    }


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"AS_OF": "first of May"}, "AS_OF: 'first of May' is not a date; write YYYY-MM-DD"),
        ({"SOURCE": "online_retail:x"}, "AS_OF is not given"),
        ({"PARAMS": "{depth: 5}"}, "PARAMS is not JSON"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(values, sentence):
    with pytest.raises(night.BadInput, match=sentence):
        night.trigger(values)


def test_bad_input_is_one_line_and_exit_code_2(tmp_path):
    shown = subprocess.run(
        [sys.executable, "-m", "tools.night"],
        cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "AS_OF": "31-12-2017", "NIGHTJAR_AIRFLOW_HOME": str(tmp_path)},
    )  # fmt: skip
    assert shown.returncode == 2
    assert shown.stderr.splitlines() == [
        "error: AS_OF: '31-12-2017' is not a date; write YYYY-MM-DD"
    ]


def publish(lake: Lake, step: str, rows: dict[str, list[dict]], **manifest) -> None:
    """Publish a step's tables as its job and its gate would."""
    staged = lake.staged(step, AS_OF)
    for name, values in rows.items():
        io.write_arrow(staged / name, pa.Table.from_pylist(values, tables.TABLES[name].schema))
    counts = {name: {"rows": len(values), "bytes": 1} for name, values in rows.items()}
    io.write_json(
        staged / "manifest.json",
        {"tables": counts, "inputs": {}, "gate": {"verdict": "green"}, **manifest},
    )
    lake.publish(step, AS_OF, "run")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(tmp_path / "lake").open()
    present = {"present": True, "files": 1, "bytes": 1, "digest": "x"}
    publish(
        made,
        "source",
        {
            "source_tables": [
                {"table": "events", "rows": 900, **present},
                {"table": "items", "rows": 50, **present},
            ]
        },
    )
    publish(made, "identities", {"persons": []}, inputs={"events@": {"rows": {"events": 800}}})
    return made


def text_of(show, *arguments) -> str:
    console = Console(record=True, width=100, file=io_module.StringIO())
    show(console, *arguments)
    return console.export_text()


def test_the_closing_table_has_rows_verdict_and_seconds_of_job_and_gate(lake):
    tasks = [
        Task("open_night", 9.0),
        Task("sources.source", 2.0),
        Task("sources.source_gate", 0.5),
        Task("signals.events", 3.0),
        Task("signals.events_gate", 0.5, error="two rows", cause="AirflowFailException"),
    ]
    source, events = closing.lines(lake, AS_OF, tasks)
    assert source == closing.Line("source", None, 950, "green", 2.5)
    assert (events.rows_in, events.verdict, events.seconds) == (900, "red", 3.5)
    shown = text_of(closing.show, lake, AS_OF, tasks, 16.0)
    assert "steps and gates 6 s, engine start, imports and scheduling 10 s (62%)" in shown


def test_a_red_gate_is_told_with_its_words_its_evidence_and_what_still_serves(lake, tmp_path):
    evidence = lake.evidence("events", AS_OF, "run")
    io.write_json(evidence, {})
    io.write_text(lake.root / "releases" / "CURRENT", "20240229-a\n")
    tasks = [
        Task("signals.events_gate", 1.0, "key is null in 7 rows", "AirflowFailException", tmp_path),
        Task("signals.catalogue", 1.0, "'oops'", "KeyError", tmp_path),
    ]
    shown = text_of(closing.show_failure, lake, AS_OF, tasks)
    assert "red gate: signals.events_gate\nkey is null in 7 rows" in shown
    assert str(evidence) in shown.replace("\n", "")
    assert "failed: signals.catalogue\nKeyError: 'oops'" in shown
    assert "20240229-a still serves" in shown


def test_the_runs_own_parameters_are_json_that_the_jobs_can_read():
    from jobs import params

    given = night.trigger({"PARAMS": json.dumps({"events": {"a": 1}})})["params"]
    assert params.from_json(json.dumps(given)) == {"events": {"a": 1}}
