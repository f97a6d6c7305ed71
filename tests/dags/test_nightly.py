"""The DAG as a picture: its ids, its vital edges, and what it must never do."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs import steps

FOLDER = Path(__file__).resolve().parents[2] / "dags"
HEAVY = ("pyspark", "pandas", "numpy", "great_expectations", "implicit", "faiss", "sklearn", "jobs")
DAGS = {"nightly", "hourly_refresh", "diagnose", "retrain"}


@pytest.fixture(scope="module")
def bag():
    from airflow.dag_processing.dagbag import BundleDagBag

    return BundleDagBag(dag_folder=FOLDER, bundle_path=FOLDER, bundle_name="dags-folder")


@pytest.fixture(scope="module")
def dag(bag):
    return bag.dags["nightly"]


def jobs_of(dag) -> dict[str, str]:
    """Step name to task id, for the tasks that have a gate behind them."""
    return {
        task_id.rpartition(".")[2]: task_id
        for task_id in dag.task_ids
        if f"{task_id}_gate" in dag.task_ids
    }


def test_the_dags_are_these_and_they_parse(bag):
    assert set(bag.dags) == DAGS
    assert not bag.import_errors


def test_the_dag_draws_the_steps_of_the_registry_under_their_modules_names(dag):
    assert {f"jobs.{task_id}" for task_id in jobs_of(dag).values()} == set(steps.STEPS.values())
    assert set(jobs_of(dag)) == set(steps.STEPS)


def test_the_tasks_are_each_step_its_gate_and_the_two_ends(dag):
    expected = {"open_night", "close_night"}
    for task_id in jobs_of(dag).values():
        expected |= {task_id, f"{task_id}_gate"}
    assert set(dag.task_ids) == expected


def test_the_registrys_order_is_one_that_the_dag_allows(dag):
    order = list(steps.STEPS)
    for step, task_id in jobs_of(dag).items():
        before = {
            up.rpartition(".")[2].removesuffix("_gate")
            for up in dag.get_task(task_id).upstream_task_ids
        } - {"open_night"}
        late = [name for name in before if order.index(name) > order.index(step)]
        assert not late, f"{step} is listed before {late}, which it reads"


def test_every_job_is_followed_by_its_gate_alone(dag):
    for task_id in jobs_of(dag).values():
        assert dag.get_task(task_id).downstream_task_ids == {f"{task_id}_gate"}


def test_a_job_reads_only_behind_gates(dag):
    for task_id in jobs_of(dag).values():
        upstream = dag.get_task(task_id).upstream_task_ids
        assert upstream
        assert all(up.endswith("_gate") or up == "open_night" for up in upstream)


@pytest.mark.parametrize(
    ("step", "reads"),
    [
        ("events", {"source"}),
        ("catalogue", {"source", "events"}),
        ("sessions", {"source", "events", "identities"}),
        ("interactions", {"sessions", "catalogue"}),
        ("audits", {"identities", "catalogue", "sessions", "interactions"}),
        ("embeddings", {"interactions", "audits"}),
        ("examples", {"audits"}),
        ("index", {"embeddings", "content_embeddings"}),
        (
            "candidates",
            {
                "sessions",
                "interactions",
                "embeddings",
                "content_embeddings",
                "identities",
                "catalogue",
            },
        ),
        ("filters", {"catalogue", "identities", "sessions"}),
        ("examples", {"sessions", "identities", "catalogue", "content_embeddings"}),
        ("ranker", {"examples"}),
        ("recommendations", {"candidates", "filters", "ranker", "identities", "embeddings"}),
        ("recommendations", {"source", "events", "catalogue", "sessions", "content_embeddings"}),
        ("item_lists", {"catalogue", "sessions", "interactions", "filters"}),
        ("release", {"index", "recommendations", "item_lists"}),
    ],
)
def test_a_step_waits_for_the_gates_of_what_it_reads(dag, step, reads):
    upstream = dag.get_task(jobs_of(dag)[step]).upstream_task_ids
    found = {up.rpartition(".")[2].removesuffix("_gate") for up in upstream}
    assert reads <= found


def test_the_release_is_downstream_of_every_gate(dag):
    release = dag.get_task("release.release")
    gates = {f"{task_id}_gate" for step, task_id in jobs_of(dag).items() if step != "release"}
    assert gates <= release.get_flat_relative_ids(upstream=True)


def test_no_gate_is_retried_and_every_job_is(dag):
    for task_id in jobs_of(dag).values():
        assert dag.get_task(f"{task_id}_gate").retries == 0
        job = dag.get_task(task_id)
        assert job.retries >= 1
        assert job.retry_exponential_backoff
        assert job.retry_policy is not None


def test_nothing_runs_behind_a_red_gate_but_the_tear_down(dag):
    for task in dag.tasks:
        if task.is_teardown:
            assert task.task_id == "close_night"
        else:
            assert task.trigger_rule == "all_success", task.task_id


def test_nothing_skips_what_follows(dag):
    for task in dag.tasks:
        names = {kind.__name__ for kind in type(task).__mro__}
        assert not names & {"ShortCircuitOperator", "BranchMixIn", "SkipMixin"}, task.task_id


def test_only_gates_announce_assets_each_its_own(dag):
    announced = {task.task_id: [a.uri for a in task.outlets] for task in dag.tasks if task.outlets}
    assert announced == {
        f"{task_id}_gate": [f"nightjar://lake/{step}"] for step, task_id in jobs_of(dag).items()
    }


def test_the_tear_down_waits_for_every_gate_and_cannot_decide_the_run(dag):
    closed = dag.get_task("close_night")
    assert {f"{task_id}_gate" for task_id in jobs_of(dag).values()} <= closed.upstream_task_ids
    # With it, the tear-down would be the run's only leaf, and a red night would end green.
    assert closed.on_failure_fail_dagrun is False
    assert dag.get_task("open_night").is_setup


def test_the_dag_runs_nightly_one_at_a_time_without_catching_up(dag):
    assert dag.max_active_runs == 1
    assert dag.catchup is False
    assert dag.start_date == datetime(2010, 1, 1, tzinfo=UTC)
    assert dag.timetable.expression == "0 2 * * *"


def test_people_are_told_of_a_red_night_and_that_it_is_over(dag):
    assert dag.on_failure_callback.__name__ == "tell_failure"
    assert dag.on_success_callback.__name__ == "tell_recovery"


def test_every_parameter_is_described_and_the_runbook_is_there(dag):
    assert set(dag.params) == {"as_of", "source", "lake", "params"}
    for name in dag.params:
        schema = dag.params.get_param(name).schema
        assert schema["type"], name
        assert dag.params.get_param(name).description, name
    for word in ("red gate", "backfill", "rollback"):
        assert word in dag.doc_md


def test_parsing_imports_nothing_heavy():
    code = (
        "import sys; from pathlib import Path; "
        "from airflow.dag_processing.dagbag import BundleDagBag; "
        f"folder = Path({str(FOLDER)!r}); "
        "bag = BundleDagBag(dag_folder=folder, bundle_path=folder, bundle_name='b'); "
        f"assert set(bag.dags) == {DAGS!r}, bag.import_errors; "
        f"import json; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=FOLDER.parent
    )
    assert json.loads(shown.stdout.splitlines()[-1]) == []


# --- the run date ----------------------------------------------------------------------------
def run(after: datetime, key: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(run_after=after, partition_key=key)


def test_the_run_date_is_the_parameter_where_it_is_given():
    from dags.nightjar_tasks import run_date

    given = run(datetime(2024, 5, 5, 2, tzinfo=UTC), "2024-05-01")
    assert run_date({"as_of": "2017-12-01"}, given) == "2017-12-01"


def test_the_run_date_is_the_day_after_the_partition_key():
    from dags.nightjar_tasks import run_date

    given = run(datetime(2024, 5, 5, 2, tzinfo=UTC), "2024-02-29")
    assert run_date({"as_of": None}, given) == "2024-03-01"


def test_the_run_date_is_else_the_midnight_before_the_run_is_due():
    from dags.nightjar_tasks import run_date

    assert run_date({}, run(datetime(2024, 5, 5, 23, 59, tzinfo=UTC))) == "2024-05-05"


def test_the_run_date_is_in_utc_whatever_zone_the_run_is_due_in():
    from datetime import timedelta, timezone

    from dags.nightjar_tasks import run_date

    east = datetime(2024, 5, 5, 1, tzinfo=timezone(timedelta(hours=3)))
    assert run_date({}, run(east)) == "2024-05-04"


# --- places ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("stored", "master"),
    [
        ('{"conn_type": "spark", "host": "local[2]"}', "local[2]"),
        ('{"conn_type": "spark", "host": "spark://head:7077"}', "spark://head:7077"),
        ('{"conn_type": "spark", "host": "spark://head", "port": 7078}', "spark://head:7078"),
        ('{"conn_type": "spark", "host": "sc://head:15002"}', "sc://head:15002"),
        ("spark://head:7077", "spark://head:7077"),
    ],
)
def test_the_engine_is_what_the_spark_connection_names(stored, master, monkeypatch):
    from dags.nightjar_tasks import spark_options

    monkeypatch.setenv("AIRFLOW_CONN_NIGHTJAR_SPARK", stored)
    assert spark_options() == [f"--master={master}"]


def test_settings_of_the_spark_connection_reach_the_engine(monkeypatch):
    from dags.nightjar_tasks import spark_options

    stored = {"conn_type": "spark", "host": "local[1]", "extra": {"conf": {"spark.a": "1 2"}}}
    monkeypatch.setenv("AIRFLOW_CONN_NIGHTJAR_SPARK", json.dumps(stored))
    assert spark_options() == ["--master=local[1]", "--conf=spark.a=1 2"]


def test_a_redis_connection_gives_the_release_its_address(monkeypatch):
    from dags.nightjar_tasks import redis_options

    monkeypatch.setenv("AIRFLOW_CONN_NIGHTJAR_REDIS", "redis://:p%40ss@cache:6380/2")
    assert redis_options("release") == ["--redis-url=redis://:p%40ss@cache:6380/2"]
    assert redis_options("events") == []
