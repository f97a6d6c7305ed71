"""The hourly DAG as a picture, and what it must never do."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs import lock
from jobs.io import Lake
from jobs.refresh import route

FOLDER = Path(__file__).resolve().parents[2] / "dags"


@pytest.fixture(scope="module")
def dag():
    from airflow.dag_processing.dagbag import BundleDagBag

    bag = BundleDagBag(dag_folder=FOLDER, bundle_path=FOLDER, bundle_name="dags-folder")
    return bag.dags["hourly_refresh"]


@pytest.fixture(scope="module")
def stages(dag):
    """What the file that the bag has read says, task for task."""
    return sys.modules[dag.get_task("signals").python_callable.__module__].STAGES


def test_the_stages_are_the_route_in_its_order(stages):
    drawn = [step for steps in stages.values() for step in steps]
    assert drawn == [step for step, how in route.ROUTE.items() if how != route.CARRIED]


def test_the_stages_follow_one_another_between_the_two_ends(dag, stages):
    line = ["open_refresh", *stages]
    for before, after in pairwise(line):
        assert after in dag.get_task(before).downstream_task_ids
    assert set(dag.task_ids) == {*line, "close_refresh", "night_needed", "rebuild"}


def test_a_night_is_triggered_only_where_something_failed_and_does_not_decide_the_run(dag):
    needed, rebuild = dag.get_task("night_needed"), dag.get_task("rebuild")
    assert needed.upstream_task_ids == {"retrieval"}
    assert needed.trigger_rule == "one_failed"
    assert rebuild.upstream_task_ids == {"night_needed"}
    assert rebuild.trigger_dag_id == "nightly"
    assert rebuild.skip_when_already_exists
    # The run is as its leaves are, and the release is one of them.
    assert not {"night_needed", "rebuild"} & dag.get_task("release").downstream_task_ids


def test_the_tear_down_waits_for_every_stage_and_cannot_decide_the_run(dag, stages):
    closed = dag.get_task("close_refresh")
    assert closed.is_teardown
    assert set(stages) <= closed.upstream_task_ids
    assert closed.on_failure_fail_dagrun is False
    assert dag.get_task("open_refresh").is_setup


def test_only_the_release_announces_an_asset(dag):
    announced = {task.task_id: [a.uri for a in task.outlets] for task in dag.tasks if task.outlets}
    assert announced == {"release": ["nightjar://lake/release"]}


def test_the_dag_runs_hourly_one_at_a_time_without_catching_up(dag):
    assert (dag.max_active_runs, dag.catchup) == (1, False)
    assert dag.timetable.expression == "5 * * * *"


def test_people_are_told_of_a_red_refresh_and_that_it_is_over(dag):
    assert dag.on_failure_callback.__name__ == "tell_failure"
    assert dag.on_success_callback.__name__ == "tell_recovery"


def test_every_parameter_is_described_and_the_runbook_is_there(dag):
    assert set(dag.params) == {"as_of", "source", "lake", "params"}
    for name in dag.params:
        assert dag.params.get_param(name).description, name
    for word in ("red gate", "base", "waits", "intervals"):
        assert word in dag.doc_md


def test_a_refresh_that_finds_the_night_at_work_is_skipped_and_touches_nothing(
    dag, tmp_path, monkeypatch
):
    from airflow.sdk.exceptions import AirflowSkipException

    lake = Lake(tmp_path / "lake").open()
    lock.acquire(lake, "the-night")
    opened = dag.get_task("open_refresh").python_callable
    module = sys.modules[opened.__module__]
    line = [f"--lake={lake.root}", "--as-of=2024-05-05T01:00", "--run-id=the-hour"]
    monkeypatch.setattr(module, "command_line", lambda *verb: [*verb, *line])
    monkeypatch.setattr(module, "spark_options", list)
    with pytest.raises(AirflowSkipException, match="in use by the run the-night"):
        opened()
    assert lock.holder_of(lake)["owner"] == "the-night"
    assert not route.file(lake).exists()


def test_the_run_date_is_the_last_full_hour():
    from dags.nightjar_tasks import run_date

    due = SimpleNamespace(run_after=datetime(2024, 5, 5, 2, 5, tzinfo=UTC), partition_key=None)
    assert run_date({}, due, hourly=True) == "2024-05-05T02:00:00+00:00"
    assert run_date({"as_of": "2024-05-05T01:30:00Z"}, due, hourly=True) == "2024-05-05T01:30:00Z"
