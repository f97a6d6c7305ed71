"""Retraining waits for a person where the verdict does not vouch for what is learned from."""

from __future__ import annotations

import sys
import urllib.parse
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs import io
from jobs.io import Lake
from tests.dags import made, receivers, service
from tests.dags.service import Airflow

FOLDER = Path(__file__).resolve().parents[2] / "dags"
LABEL = "2024-03-01"
REASON = "The feed is mended since noon."


@pytest.fixture(scope="module")
def dag():
    from airflow.dag_processing.dagbag import BundleDagBag

    bag = BundleDagBag(dag_folder=FOLDER, bundle_path=FOLDER, bundle_name="dags-folder")
    return bag.dags["retrain"]


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake(tmp_path / "lake").open()


# --- the picture -----------------------------------------------------------------------------
def test_the_tasks_and_edges_are_these(dag):
    assert {task.task_id: task.upstream_task_ids for task in dag.tasks} == {
        "verdict": set(),
        "approved": {"verdict"},
        "recorded": {"verdict", "approved"},
        "night": {"recorded"},
    }


def test_no_night_is_triggered_behind_what_was_not_approved(dag):
    approved, recorded, night = (
        dag.get_task(name) for name in ("approved", "recorded", "night")
    )  # fmt: skip
    assert approved.fail_on_reject
    assert approved.response_timeout == timedelta(hours=4)
    assert approved.defaults is None  # a timeout fails, and takes no answer for granted
    # Runs when the approval was skipped, and not when it failed.
    assert recorded.trigger_rule == "none_failed_min_one_success"
    assert night.trigger_rule == "all_success"
    assert {task.retries for task in dag.tasks} == {0}


def test_the_reason_is_asked_for(dag):
    reason = dag.get_task("approved").params.get_param("reason")
    assert "string" in reason.schema["type"]
    assert reason.schema["minLength"] == 10
    assert reason.description


def test_nobody_retrains_by_the_clock(dag):
    assert type(dag.timetable).__name__ == "NullTimetable"
    assert (dag.max_active_runs, dag.catchup) == (1, False)


def test_every_parameter_is_described_and_the_runbook_is_there(dag):
    assert set(dag.params) == {"as_of", "max_age_days", "source", "lake", "params"}
    for name in dag.params:
        assert dag.params.get_param(name).description, name
    for words in ("approve", "Required Actions", "approvals/", "What is trained"):
        assert words in dag.doc_md


# --- whether to ask --------------------------------------------------------------------------
@pytest.fixture
def ask(dag, lake, monkeypatch):
    """Calls the first task: which task follows, and the doubts."""

    def call(as_of: str = LABEL, max_age_days: float = 3) -> tuple[str, list[str]]:
        kept: dict[str, Any] = {}
        context = {
            "params": {"lake": str(lake.root), "as_of": as_of, "max_age_days": max_age_days},
            "dag_run": SimpleNamespace(run_id="r", run_after=datetime(2024, 3, 1, tzinfo=UTC)),
            "ti": SimpleNamespace(xcom_push=kept.__setitem__),
        }
        task = dag.get_task("verdict").python_callable
        monkeypatch.setattr(sys.modules[task.__module__], "get_current_context", lambda: context)
        return task(), kept["found"]["doubts"]

    return call


def test_a_fresh_verdict_with_replay_and_parity_go_asks_nobody(lake, ask):
    made.publish_verdict(lake, LABEL, made.symptom("late_feed", "web"))  # another gate's
    assert ask() == ("recorded", [])


@pytest.mark.parametrize("kind", ["unit_change", "concept_drift"])
def test_a_red_replay_or_parity_asks(lake, ask, kind):
    made.publish_verdict(lake, LABEL, made.symptom(kind, "price"))
    step, doubts = ask()
    assert step == "approved"
    assert "price is off by half." in doubts[0]


def test_no_verdict_asks(ask):
    step, doubts = ask()
    assert step == "approved"
    assert "No verdict is published" in doubts[0]


def test_an_old_verdict_asks_and_the_newest_counts(lake, ask):
    made.publish_verdict(lake, "2024-02-26", made.symptom("unit_change", "price"))
    made.publish_verdict(lake, "2024-02-27")
    assert ask("2024-03-01") == ("recorded", [])
    step, doubts = ask("2024-03-02")
    assert step == "approved"
    assert "2024-02-27, 4 days" in doubts[0]
    assert ask("2024-03-02", max_age_days=5) == ("recorded", [])


# --- for real --------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def hook() -> Iterator[receivers.Hook]:
    with receivers.webhook() as server:
        yield server


@pytest.fixture(scope="module")
def airflow(tmp_path_factory, hook) -> Iterator[Airflow]:
    environment = service.environment(
        tmp_path_factory.mktemp("airflow"),
        AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME="0.2",
        AIRFLOW_CONN_NIGHTJAR_WEBHOOK=hook.connection(),
    )
    with service.running(environment, hang_up=True) as made_one:
        yield made_one


class Retraining:
    """A run of ``retrain`` whose night ends at its first task: nothing is computed here."""

    def __init__(self, airflow: Airflow, lake: Lake) -> None:
        self.airflow = airflow
        status, run = airflow.trigger(
            "retrain", as_of=LABEL, source="nowhere", lake=str(lake.root),
            params={"candidates": {"no_such": 1}},
        )  # fmt: skip
        assert status == 200, run
        self.run_id = run["dag_run_id"]

    @property
    def details(self) -> str:
        run = urllib.parse.quote(self.run_id)
        return f"/api/v2/dags/retrain/dagRuns/{run}/taskInstances/approved/-1/hitlDetails"

    def answer(self, option: str, **given: str) -> None:
        self.airflow.until(self.run_id, "retrain", lambda now: now["approved"] == "awaiting_input")
        self.airflow.loop()
        status, told = self.airflow.ask(
            self.details, {"chosen_options": [option], "params_input": given}, method="PATCH"
        )
        assert status == 200, told

    def end(self) -> dict[str, str]:
        return self.airflow.wait(self.run_id, "retrain")

    def nights(self) -> list[dict[str, Any]]:
        """The nights that it triggered."""
        _, found = self.airflow.ask("/api/v2/dags/nightly/dagRuns?limit=50")
        return [
            run
            for run in found["dag_runs"]
            if (run["conf"] or {}).get("retrain", {}).get("run") == self.run_id
        ]


@pytest.mark.airflow
def test_a_go_triggers_the_night_and_asks_nobody(airflow, lake):
    made.publish_verdict(lake, LABEL)
    retraining = Retraining(airflow, lake)
    states = retraining.end()
    assert states == {
        "": "success", "verdict": "success", "approved": "skipped", "recorded": "success",
        "night": "success",
    }  # fmt: skip
    (night,) = retraining.nights()
    assert night["conf"]["as_of"] == LABEL
    assert night["conf"]["source"] == "nowhere"
    assert night["conf"]["retrain"]["verdict"]["name"] == "go"
    assert night["conf"]["retrain"]["approval"] is None
    assert not (lake.root / "approvals").exists()


@pytest.mark.airflow
def test_an_approval_is_recorded_with_who_when_why_and_the_verdict(airflow, lake, hook):
    made.publish_verdict(lake, LABEL, made.symptom("concept_drift", "price"))
    retraining = Retraining(airflow, lake)
    retraining.answer("Approve", reason=REASON)
    states = retraining.end()
    assert set(states.values()) == {"success"}, states
    _, asked = airflow.ask(retraining.details)
    assert "price is off by half." in asked["body"]
    kept = io.read_json(lake.root / "approvals" / f"{retraining.run_id}.json")
    assert kept["approval"]["by"] == "admin"
    assert kept["approval"]["reason"] == REASON
    assert datetime.fromisoformat(kept["approval"]["at"]).tzinfo is not None
    assert kept["verdict"]["go"]["parity"] is False
    (night,) = retraining.nights()
    assert night["conf"]["retrain"] == kept
    # The DAG processor calls back when that night, which is refused, has failed.
    airflow.wait(night["dag_run_id"])
    airflow.until(night["dag_run_id"], "nightly", lambda _: bool(hook.got))
    assert hook.got[0][2]["dag"] == "nightly"
    assert "open_night failed" in hook.texts[0]


@pytest.mark.airflow
def test_a_rejection_fails_the_run_and_triggers_nothing(airflow, lake):
    retraining = Retraining(airflow, lake)
    retraining.answer("Reject", reason=REASON)
    states = retraining.end()
    assert states == {
        "": "failed", "verdict": "success", "approved": "failed",
        "recorded": "upstream_failed", "night": "upstream_failed",
    }  # fmt: skip
    assert retraining.nights() == []
    assert not (lake.root / "approvals").exists()


@pytest.mark.airflow
@pytest.mark.parametrize("given", [{}, {"reason": "ok"}])
def test_an_approval_without_a_reason_triggers_nothing(airflow, lake, given):
    retraining = Retraining(airflow, lake)
    retraining.answer("Approve", **given)
    states = retraining.end()
    assert states[""] == "failed"
    assert states["night"] == "upstream_failed"
    assert retraining.nights() == []
