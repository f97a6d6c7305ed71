"""Who is told of what, and that nobody is told twice: real notifiers, servers on loopback."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs import incidents, io
from jobs.diagnosis import verdicts
from jobs.io import Lake
from tests.dags import made, receivers

FOLDER = Path(__file__).resolve().parents[2] / "dags"
LABEL = "2024-03-01"
SECRET = "T0/B0/not-for-logs"


@pytest.fixture(scope="module")
def dags():
    from airflow.dag_processing.dagbag import BundleDagBag

    return BundleDagBag(dag_folder=FOLDER, bundle_path=FOLDER, bundle_name="dags-folder").dags


@pytest.fixture
def alerts(dags):
    """The module as the DAGs have imported it."""
    return sys.modules["nightjar_alerts"]


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake(tmp_path / "lake").open()


@pytest.fixture
def hook(monkeypatch):
    with receivers.webhook() as server:
        monkeypatch.setenv("AIRFLOW_CONN_NIGHTJAR_WEBHOOK", server.connection(password=SECRET))
        yield server


@pytest.fixture
def letters(monkeypatch):
    with receivers.mailbox() as server:
        to = ["shop@shop.example", "data@shop.example"]
        monkeypatch.setenv("AIRFLOW_CONN_NIGHTJAR_SMTP", server.connection(to=to))
        yield server


@pytest.fixture
def context(dags, lake, monkeypatch):
    """Makes what a callback of a DAG is given."""
    monkeypatch.setenv("AIRFLOW_VAR_NIGHTJAR_DOCS_URL", "https://docs.shop.example/")

    def make(dag: str = "diagnose", run_id: str = "one") -> dict[str, Any]:
        run = SimpleNamespace(run_id=run_id, run_after=datetime(2024, 3, 1, tzinfo=UTC))
        page = f"http://airflow/dags/{dag}/runs/{run_id}"
        failed = SimpleNamespace(task_id="served", log_url=f"{page}/tasks/served?try_number=1")
        return {
            "dag": dags[dag], "dag_run": run, "run_id": run_id, "ti": failed, "reason": "failed",
            "params": {"lake": str(lake.root), "as_of": LABEL},
        }  # fmt: skip

    return make


# --- what is told ----------------------------------------------------------------------------
def test_a_red_gate_is_told_in_its_own_words_to_both_channels(context, lake, hook, letters):
    made.red_gate(lake, LABEL, "definitions", "one", "has a kpi {{ 7 * 7 }}")
    io.write_text(verdicts.page(lake, LABEL), "")
    now = context()
    now["dag"].on_failure_callback(now)
    path, headers, body = hook.got[0]
    assert path == f"/{SECRET}"
    assert headers["Content-Type"] == "application/json"
    assert body["dag"] == "diagnose"
    assert body["run"] == "one"
    assert body["verdict"] == ""
    assert body["page"] == f"https://docs.shop.example/diagnosis-{LABEL}.html"
    assert body["text"].startswith("diagnose: The gate of definitions is red")
    to, mail = letters.got[0]
    assert to == ["shop@shop.example", "data@shop.example"]
    assert mail["From"] == "nightjar@shop.example"
    assert mail["Subject"].startswith("[nightjar] diagnose: The gate of definitions is red")
    read = mail.get_body(("html",)).get_content()
    assert body["page"] in read
    # What the data say is no template.
    assert "{{ 7 * 7 }}" in read
    assert "{{ 7 * 7 }}" in body["text"]


def test_a_no_go_is_told_with_what_to_mend_and_the_served_page(context, lake, hook):
    made.publish_verdict(lake, LABEL, made.symptom("unit_change", "price", step="replay"))
    io.write_text(verdicts.page(lake, LABEL), "")
    now = context()
    now["dag"].on_failure_callback(now)
    (_, _, body), = hook.got  # fmt: skip
    assert body["verdict"] == "replay"
    assert "fix the system" in body["text"]
    assert "price is off by half." in body["text"]
    assert body["page"] == f"https://docs.shop.example/diagnosis-{LABEL}.html"


def test_without_a_gate_the_failed_task_is_told_with_its_log(context, hook):
    now = context("nightly")
    now["dag"].on_failure_callback(now)
    assert hook.got[0][2]["page"] == "http://airflow/dags/nightly/runs/one"
    assert hook.texts == [
        "nightly: The task served failed, and what follows it did not run. Its log says why: "
        "http://airflow/dags/nightly/runs/one/tasks/served?try_number=1"
    ]


def test_another_runs_evidence_is_not_this_runs(context, lake, hook):
    made.red_gate(lake, LABEL, "events", "yesterday", "has rows")
    made.publish_verdict(lake, LABEL, made.symptom("unit_change", "price"), run_id="yesterday")
    now = context()
    now["dag"].on_failure_callback(now)
    assert "The task served failed" in hook.texts[0]


def test_drops_are_told_beside_the_first_symptom_and_not_twice(context, lake, alerts, hook):
    drop = made.symptom("sudden_drop", "conversion", warning=True)
    volume = made.symptom("sudden_drop", "requests")
    made.publish_verdict(lake, LABEL, drop, volume)
    found = incidents.of_diagnosis(lake, LABEL, "one")
    assert [one.key for one in found] == ["sudden_drop:requests", "sudden_drop:conversion"]
    made.publish_verdict(lake, LABEL, drop)
    found = incidents.of_diagnosis(lake, LABEL, "one")
    assert [(one.key, one.verdict) for one in found] == [("sudden_drop:conversion", "go")]
    alerts.tell(context(), found, over=True)
    assert "conversion is off by half." in hook.texts[0]


def test_a_fault_that_stands_hides_no_new_one_of_another_gate(context, lake, alerts, hook):
    stands = made.symptom("late_feed", "app")
    made.publish_verdict(lake, LABEL, stands)
    alerts.tell(context(), incidents.of_diagnosis(lake, LABEL, "one"), over=True)
    made.publish_verdict(lake, LABEL, stands, made.symptom("bypassed", "homepage"))
    found = incidents.of_diagnosis(lake, LABEL, "one")
    assert [one.key for one in found] == ["late_feed:app", "bypassed:homepage"]
    alerts.tell(context(), found, over=True)
    assert ["homepage is off" in text for text in hook.texts] == [False, True]


def test_a_diagnosis_that_stopped_red_after_the_verdict_is_unfinished(lake):
    made.publish_verdict(lake, "2024-03-01", made.symptom("unit_change", "price"))
    made.red_gate(lake, "2024-02-29", "served", "old", "has rows")
    made.red_gate(lake, "2024-03-01", "served", "first", "has rows")
    reached = lake.evidence("verdict", io.parse_as_of("2024-03-01"), "one")
    io.write_json(reached, {"step": "verdict", "verdict": "green"})
    verdict = verdicts.of(lake, "2024-03-01")
    assert incidents.unfinished(lake, verdict) == []
    made.red_gate(lake, "2024-03-02", "served", "one", "has rows")
    assert incidents.unfinished(lake, verdict) == [("2024-03-02", "served")]
    # The same date, diagnosed again.
    made.red_gate(lake, "2024-03-01", "definitions", "again", "has a kpi")
    assert incidents.unfinished(lake, verdict)[0] == ("2024-03-01", "definitions")


# --- once per incident -----------------------------------------------------------------------
def test_the_same_incident_is_told_once_and_another_at_once(context, lake, hook):
    for run_id, step in (("one", "events"), ("two", "events"), ("three", "catalogue")):
        made.red_gate(lake, LABEL, step, run_id, "has rows")
        now = context("nightly", run_id)
        now["dag"].on_failure_callback(now)
    assert ["The gate of events" in text for text in hook.texts] == [True, False]


def test_it_is_told_again_once_it_was_green_between(context, lake, hook):
    made.red_gate(lake, LABEL, "events", "one", "has rows")
    red, green = context("nightly", "one"), context("nightly", "two")
    red["dag"].on_failure_callback(red)
    green["dag"].on_success_callback(green)
    red["dag"].on_failure_callback(red)
    assert len(hook.got) == 1  # a green run that published nothing, a skipped one, says nothing
    staged = lake.staged("release", io.parse_as_of(LABEL))
    io.write_json(staged / "manifest.json", {"run_id": "two"})
    lake.publish("release", io.parse_as_of(LABEL), "two")
    green["dag"].on_success_callback(green)
    red["dag"].on_failure_callback(red)
    assert len(hook.got) == 2


def test_a_judged_diagnosis_forgets_what_is_over(context, lake, alerts, hook):
    made.publish_verdict(lake, LABEL, made.symptom("sudden_drop", "conversion", warning=True))
    found = incidents.of_diagnosis(lake, LABEL, "one")
    alerts.tell(context(), found, over=True)
    alerts.tell(context(), found, over=True)
    assert len(hook.got) == 1
    alerts.tell(context(), [], over=True)
    alerts.tell(context(), found, over=True)
    assert len(hook.got) == 2


def test_it_is_told_again_a_week_later(lake):
    now = datetime(2024, 3, 1, 6, 30, tzinfo=UTC)
    known = {"gate:events": {"nightjar_webhook": now.isoformat()}}
    for hours, news in ((1, False), (24, False), (166, False), (168, True)):
        later = now + timedelta(hours=hours)
        assert incidents.is_news(known, "gate:events", "nightjar_webhook", later) is news
    assert incidents.is_news(known, "gate:events", "nightjar_smtp", now)


# --- what goes wrong -------------------------------------------------------------------------
def test_what_a_channel_does_not_take_is_tried_again_and_the_other_told_once(
    context, lake, hook, letters, caplog
):
    made.red_gate(lake, LABEL, "events", "one", "has rows")
    now = context("nightly")
    hook.status = 500
    now["dag"].on_failure_callback(now)
    hook.status = 200
    now["dag"].on_failure_callback(now)
    now["dag"].on_failure_callback(now)
    assert (len(hook.got), len(letters.got)) == (2, 1)
    assert "undelivered" in caplog.text
    assert SECRET not in caplog.text
    assert SECRET not in incidents.file(lake, "nightly").read_text()


def test_a_mail_connection_without_recipients_is_named(
    context, lake, monkeypatch, hook, letters, caplog
):
    monkeypatch.setenv("AIRFLOW_CONN_NIGHTJAR_SMTP", letters.connection())
    made.red_gate(lake, LABEL, "events", "one", "has rows")
    now = context("nightly")
    now["dag"].on_failure_callback(now)
    assert len(hook.got) == 1
    assert "names no recipients" in caplog.text


def test_a_memory_that_was_cut_short_is_no_reason_to_be_silent(context, lake, hook):
    path = incidents.file(lake, "nightly")
    path.parent.mkdir()
    path.write_text("{")
    now = context("nightly")
    now["dag"].on_failure_callback(now)
    assert len(hook.got) == 1
    assert "task:served" in json.loads(path.read_text())


@pytest.mark.parametrize(
    ("stored", "address"),
    [
        ({"host": "https://hooks.example/services/", "password": "T/B/x"},
         "https://hooks.example/services/T/B/x"),
        ({"host": "alerts.example", "port": 8443}, "https://alerts.example:8443"),
        ({"host": "alerts.example", "schema": "http"}, "http://alerts.example"),
    ],
)  # fmt: skip
def test_a_connection_says_where_the_webhook_is(alerts, stored, address):
    from airflow.sdk import Connection

    assert (
        alerts._address(Connection(conn_id="nightjar_webhook", conn_type="http", **stored))
        == address
    )


def test_a_webhook_that_is_no_web_address_is_refused(alerts):
    from airflow.sdk import Connection

    with pytest.raises(ValueError, match="must be an http or https address"):
        alerts._address(
            Connection(conn_id="nightjar_webhook", conn_type="http", host="file:///etc/passwd")
        )
