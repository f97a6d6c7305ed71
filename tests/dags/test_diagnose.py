"""The diagnosis as a picture, what it makes of what is there, and one run to a red gate."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs import __main__ as main
from jobs import io, steps
from jobs.errors import Busy, Fault, GateRed
from jobs.io import Lake
from tests import small_shop
from tests.dags import made, receivers, service
from tools import bench_diagnosis

FOLDER = Path(__file__).resolve().parents[2] / "dags"
LINE = ["open_diagnosis", "signals.source", "signals.events", "signals.catalogue",
        "definitions", "served"]  # fmt: skip
ENDS = ["verdict", "page", "judged"]
LABEL = "2024-03-01"


@pytest.fixture(scope="module")
def dag():
    from airflow.dag_processing.dagbag import BundleDagBag

    bag = BundleDagBag(dag_folder=FOLDER, bundle_path=FOLDER, bundle_name="dags-folder")
    return bag.dags["diagnose"]


@pytest.fixture(scope="module")
def file(dag):
    """The DAG's file as the bag has read it."""
    return sys.modules[dag.get_task("judged").python_callable.__module__]


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake(tmp_path / "lake").open()


def test_the_steps_are_the_registrys_in_an_order_that_the_dag_allows(dag, file):
    drawn = [*file.LOG, *file.FINDERS, "verdict"]
    assert drawn == list(steps.DIAGNOSIS)
    assert file.SIGNALS == steps.BEFORE_DIAGNOSIS


def test_the_tasks_are_these(dag, file):
    assert set(dag.task_ids) == {*LINE, *file.FINDERS, *ENDS, "close_diagnosis"}


def test_definitions_and_log_come_first_and_the_verdict_behind_every_finder(dag, file):
    for before, after in pairwise(LINE):
        assert dag.get_task(after).upstream_task_ids == {before}
    for finder in file.FINDERS:
        besides = {"leakage"} if finder == "slices" else set()
        assert dag.get_task(finder).upstream_task_ids == {"served"} | besides
    assert dag.get_task("verdict").upstream_task_ids == set(file.FINDERS)
    assert dag.get_task("judged").upstream_task_ids == {"verdict", "page"}


def test_the_benchmark_has_counterexamples_by_the_steps_that_the_dag_runs_before_them(dag):
    before = dag.get_task("slices").get_flat_relative_ids(upstream=True) - {"open_diagnosis"}
    steps_before = {task.rpartition(".")[2] for task in before}
    assert {*bench_diagnosis.TO_COUNTEREXAMPLES} == {*steps_before, "slices"}


def test_nothing_runs_behind_a_red_gate_but_its_page_and_the_tear_down(dag):
    closed = dag.get_task("close_diagnosis")
    assert closed.is_teardown
    assert dag.get_task("open_diagnosis").is_setup
    assert closed.on_failure_fail_dagrun is False
    assert closed.upstream_task_ids == set(dag.task_ids) - {"page", "judged", "close_diagnosis"}
    page = dag.get_task("page")
    assert page.trigger_rule == "all_done"
    assert page.upstream_task_ids == closed.upstream_task_ids - {"open_diagnosis"}
    for task in dag.tasks:
        if task not in (closed, page):
            assert task.trigger_rule == "all_success", task.task_id


def test_no_verdict_is_retried(dag):
    assert dag.get_task("judged").retries == 0


def test_a_red_gate_is_not_retried_although_its_job_is(dag, file, monkeypatch):
    from airflow.sdk.exceptions import AirflowFailException

    def red(line):
        raise GateRed("events: 1 critical expectation failed")

    monkeypatch.setattr(main, "command", red)
    assert dag.get_task("served").retries == 2
    with pytest.raises(AirflowFailException, match="critical expectation"):
        file.call(["gate", "served"])


def test_a_lake_at_work_is_waited_for(dag, file, monkeypatch):
    def busy(line):
        raise Busy("lake: in use by the run nightly")

    monkeypatch.setattr(main, "command", busy)
    with pytest.raises(Busy):
        file.call(["open-night"])
    opened = dag.get_task("open_diagnosis")
    assert opened.retry_delay.total_seconds() == 600
    assert opened.retries * opened.retry_delay.total_seconds() == 3 * 3600
    assert not opened.retry_exponential_backoff
    # Neither a bug, which no rule of the policy lets try again, nor cut to another pause.
    assert not any(rule.matches(Busy("")) for rule in opened.retry_policy.rules)
    assert opened.max_retry_delay is None


def test_only_the_verdict_announces_an_asset(dag):
    announced = {task.task_id: [a.uri for a in task.outlets] for task in dag.tasks if task.outlets}
    assert announced == {"verdict": ["nightjar://lake/verdict"]}


def test_the_dag_runs_daily_behind_the_night_and_few_steps_at_a_time(dag):
    assert dag.timetable.expression == "30 6 * * *"
    assert (dag.max_active_runs, dag.catchup, dag.max_active_tasks) == (1, False, 2)
    assert dag.start_date == datetime(2010, 1, 1, tzinfo=UTC)


def test_people_are_told_of_a_failure(dag):
    assert dag.on_failure_callback.__name__ == "tell_failure"


def test_every_parameter_is_described_and_the_runbook_is_there(dag):
    assert set(dag.params) == {"as_of", "metrics", "source", "lake", "params"}
    for name in dag.params:
        assert dag.params.get_param(name).description, name
    for words in ("no-go", "red gate", "metrics file", "waits", "clear the task"):
        assert words in dag.doc_md or words == "red gate"


def test_the_metrics_file_is_a_parameter_of_definitions():
    from dags.nightjar_tasks import overrides_of

    assert overrides_of({"params": {"served": {"sampled": 9}}, "metrics": "m.yaml"}) == {
        "served": {"sampled": 9}, "definitions": {"file": "m.yaml"},
    }  # fmt: skip
    assert overrides_of({"params": {}}) == {}


# --- what is there already -------------------------------------------------------------------
def publish_step(lake: Lake, step: str, source: str) -> None:
    as_of = io.parse_as_of(LABEL)
    io.write_json(lake.staged(step, as_of) / "manifest.json", {"source": source})
    lake.publish(step, as_of, "night")


def chosen(lake: Lake, step: str) -> argparse.Namespace:
    return main._parser().parse_args(
        ["ensure", step, f"--lake={lake.root}", f"--as-of={LABEL}", "--source=shop"]
    )


def test_what_a_night_published_is_not_done_again(lake, monkeypatch):
    done = []
    monkeypatch.setattr(main, "run_step", lambda given: done.append(("run", given.step)))
    monkeypatch.setattr(main, "gate_step", lambda given: done.append(("gate", given.step)))
    publish_step(lake, "source", "shop")
    main.ensure_step(chosen(lake, "source"))
    assert done == []
    main.ensure_step(chosen(lake, "events"))
    assert done == [("run", "events"), ("gate", "events")]


def test_a_night_of_another_source_is_refused(lake):
    publish_step(lake, "source", "another shop")
    with pytest.raises(Fault, match="another LAKE"):
        main.ensure_step(chosen(lake, "events"))


# --- the verdict -----------------------------------------------------------------------------
@pytest.fixture
def context(dag, file, lake, monkeypatch):
    """The tasks of a run called as Airflow would call them."""
    made_up = {
        "dag": dag, "run_id": "one", "params": {"lake": str(lake.root), "as_of": LABEL},
        "dag_run": SimpleNamespace(run_id="one", run_after=datetime(2024, 3, 1, tzinfo=UTC)),
    }  # fmt: skip
    monkeypatch.setattr(file, "get_current_context", lambda: made_up)
    return made_up


@pytest.fixture
def judge(dag, context):
    return dag.get_task("judged").python_callable


def test_a_red_gate_has_a_page_and_a_run_that_judged_nothing_has_none(dag, lake, context):
    from airflow.sdk.exceptions import AirflowSkipException

    build = dag.get_task("page").python_callable
    made.red_gate(lake, LABEL, "definitions", "another", "has a kpi")
    with pytest.raises(AirflowSkipException):
        build()
    made.red_gate(lake, LABEL, "definitions", "one", "has a kpi")
    build()
    page = lake.root / "docs" / f"diagnosis-{LABEL}.html"
    assert "stopped at definitions" in page.read_text()


def test_a_no_go_fails_with_its_evidence_what_to_mend_what_to_do_and_the_page(
    lake, judge, monkeypatch
):
    from airflow.sdk.exceptions import AirflowFailException

    monkeypatch.setenv("AIRFLOW_VAR_NIGHTJAR_DOCS_URL", "https://docs.shop.example/")
    made.publish_verdict(lake, LABEL, made.symptom("unit_change", "price", step="replay"))
    io.write_text(lake.root / "docs" / f"diagnosis-{LABEL}.html", "")
    with pytest.raises(AirflowFailException) as told:
        judge()
    for words in ("the gate replay", "price is off by half.", "fix the system", "one definition of",
                  f"https://docs.shop.example/diagnosis-{LABEL}.html"):  # fmt: skip
        assert words in str(told.value)


def test_a_go_says_where_its_page_is(lake, judge, monkeypatch, caplog):
    monkeypatch.setenv("AIRFLOW_VAR_NIGHTJAR_DOCS_URL", "https://docs.shop.example")
    made.publish_verdict(lake, LABEL)
    io.write_text(lake.root / "docs" / f"diagnosis-{LABEL}.html", "")
    with caplog.at_level("INFO", "nightjar"):
        judge()
    assert f"All five gates are go. The page: https://docs.shop.example/diagnosis-{LABEL}.html" in (
        caplog.text
    )


def test_a_go_is_green_and_a_drop_is_told_all_the_same(lake, judge, monkeypatch):
    made.publish_verdict(lake, LABEL, made.symptom("sudden_drop", "conversion", warning=True))
    with receivers.webhook() as hook:
        monkeypatch.setenv("AIRFLOW_CONN_NIGHTJAR_WEBHOOK", hook.connection())
        judge()
        judge()
    assert [body["verdict"] for _, _, body in hook.got] == ["go"]
    assert "conversion is off by half." in hook.texts[0]


# --- make diagnose ---------------------------------------------------------------------------
def release(lake: Lake, night: str, source: str, number: int) -> None:
    as_of = io.parse_as_of(night)
    name = f"{as_of:%Y%m%dT%H%M%SZ}-{number:010x}"
    io.write_json(
        lake.root / "releases" / name / "manifest.json",
        {"format": 2, "id": name, "as_of": as_of.isoformat(), "night": night, "files": {},
         "tables": {}, "source": source, "created": night, "kind": "night"},
    )  # fmt: skip
    io.write_text(lake.root / "releases" / "CURRENT", name + "\n")


def test_without_values_it_is_the_newest_night_of_the_lake(lake):
    from tools import diagnose

    release(lake, "2024-03-01", "shop", 1)
    release(lake, "2024-02-29", "shop", 2)  # serves, after a rollback
    assert diagnose.trigger({"LAKE": str(lake.root)}) == {
        "lake": str(lake.root), "as_of": "2024-03-01", "source": "shop",
    }  # fmt: skip


def test_values_are_taken_as_given(lake, tmp_path):
    from tools import diagnose

    metrics = tmp_path / "m.yaml"
    metrics.touch()
    given = {"LAKE": str(lake.root), "AS_OF": "2024-02-01", "SOURCE": "simulated",
             "METRICS": str(metrics), "PARAMS": '{"served": {"sampled": 5000}}'}  # fmt: skip
    assert diagnose.trigger(given) == {
        "lake": str(lake.root), "as_of": "2024-02-01", "source": "simulated",
        "metrics": str(metrics), "params": {"served": {"sampled": 5000}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"AS_OF": "yesterday"}, "is not a date"),
        ({"METRICS": "/nowhere.yaml"}, "no file /nowhere.yaml"),
        ({}, "holds no release"),
    ],
)
def test_bad_values_are_named(lake, given, words):
    from tools import diagnose, night

    with pytest.raises((night.BadInput, Fault), match=words):
        diagnose.trigger({"LAKE": str(lake.root), "SOURCE": "simulated", **given})


def test_a_lake_in_use_is_told_at_once(lake):
    from jobs import lock
    from tools import diagnose

    lock.acquire(lake, "a night")
    with pytest.raises(Busy, match="a night"):
        diagnose._free(lake)
    lock.release(lake, "a night")
    diagnose._free(lake)
    assert lock.holder_of(lake) is None


def test_the_verdict_is_shown_with_its_gates_findings_page_and_next_command(lake):
    from io import StringIO

    from rich.console import Console

    from jobs.diagnosis import verdicts
    from tools import diagnose

    made.publish_verdict(
        lake, LABEL, made.symptom("unit_change", "price [EUR]", step="replay"),
        made.symptom("sudden_drop", "conversion", warning=True),
    )  # fmt: skip
    verdict = verdicts.of(lake, LABEL)
    verdict.page.parent.mkdir()
    verdict.page.touch()
    shown = StringIO()
    diagnose.show(Console(file=shown, width=150), verdict)
    for words in ("measurement", "no-go", "price [EUR] is off by half.", "fix the system",
                  "1. a feature is served in another unit", "warning, conversion",
                  str(verdict.page), "make lineage TABLE=replay_symptoms"):  # fmt: skip
        assert words in shown.getvalue()


# --- for real --------------------------------------------------------------------------------
@pytest.mark.airflow
def test_a_run_without_definitions_ends_red_told_once_and_closed(tmp_path):
    shop = small_shop.write(tmp_path / "shop", people=40, items=40, days=30).folder
    lake = Lake(tmp_path / "lake")
    with receivers.webhook() as hook, receivers.mailbox() as letters:
        environment = service.environment(
            tmp_path / "home",
            LAKE=str(lake.root), SOURCE=str(shop), AS_OF=LABEL,
            AIRFLOW_CONN_NIGHTJAR_WEBHOOK=hook.connection(password="secret-path"),
            AIRFLOW_CONN_NIGHTJAR_SMTP=letters.connection(to="shop@shop.example"),
        )  # fmt: skip
        runs = [
            subprocess.run(
                [sys.executable, "-m", "tools.diagnose"], cwd=service.ROOT, env=environment,
                capture_output=True, text=True, timeout=service.SECONDS,
            )
            for _ in range(2)
        ]  # fmt: skip
    for done in runs:
        assert done.returncode == 1, done.stdout + done.stderr
        assert "red gate" in done.stdout or "definitions" in done.stdout
        assert "metrics.yaml" in done.stdout
        assert "there is no verdict" in done.stdout
        assert " served " not in done.stdout
        assert str(lake.root / "docs" / f"diagnosis-{LABEL}.html") in done.stdout
    assert (
        "No-go: the run stopped at definitions"
        in (lake.root / "docs" / f"diagnosis-{LABEL}.html").read_text()
    )
    assert not (lake.root / ".night" / "lock.json").exists()
    assert not (lake.root / ".night" / "engine.json").exists()
    # What the first run published of the signals serves the second.
    attempts = {step: lake.at(step, LABEL).manifest["run_id"] for step in steps.BEFORE_DIAGNOSIS}
    assert len(set(attempts.values())) == 1
    assert len(list((lake.root / "evidence" / LABEL / "definitions").iterdir())) == 2
    assert len(list((lake.root / "evidence" / LABEL / "events").iterdir())) == 1
    ((_, _, body),) = hook.got
    assert body["dag"] == "diagnose"
    assert "The gate of definitions is red" in body["text"]
    assert body["page"] == (lake.root / "docs" / f"diagnosis-{LABEL}.html").as_uri()
    ((to, mail),) = letters.got
    assert to == ["shop@shop.example"]
    assert "The gate of definitions is red" in mail["Subject"]
    logs = [path.read_text(errors="replace") for path in (tmp_path / "home").rglob("*.log")]
    assert not any("secret-path" in text for text in logs)
    assert list(json.loads((lake.root / "alerts" / "diagnose.json").read_text())) == [
        "gate:definitions"
    ]
