"""The DAG under Airflow itself: ``make run``'s runner, then scheduler, REST trigger and backfill.

One small shop, one Airflow home: two nights by ``make run``'s own program, then the services of
``make ui`` on the same home, which show those nights, refuse bad triggers, stop at a red gate,
and fill the same two nights again into another lake with the same rows.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from jobs import io, steps, tables
from jobs.io import Lake
from tests import small_shop
from tests.dags import service
from tests.dags.service import ENDED, ROOT, SECONDS, Airflow

pytestmark = pytest.mark.airflow
DATES = ("2024-02-29", "2024-03-01")
HOURLY = "hourly_refresh"
# Of the nights and of the refreshes that go on from them, which the learner needs two cuts for.
PARAMS = {"examples": {"cuts": 2, "max_people": 60}}


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shop") / "shop"
    return small_shop.write(folder, people=100, items=120, days=60).folder


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory, shop) -> Path:
    """The same shop with a third of its events without an item: more than any gate lets pass."""
    folder = tmp_path_factory.mktemp("spoiled") / "shop"
    shutil.copytree(shop, folder)
    rows = small_shop.read_table(folder, "events").to_pylist()
    for row in rows[::3]:
        row["item_id"] = None
    small_shop.write_table(folder, "events", pa.Table.from_pylist(rows, small_shop.EVENTS))
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """What the child processes see: a fresh Airflow home, nothing of this process's own."""
    return service.environment(
        tmp_path_factory.mktemp("airflow"), AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME="0.2"
    )


def night(environment: dict[str, str], **values: str) -> subprocess.CompletedProcess[str]:
    """One ``make run`` without make."""
    return subprocess.run(
        [sys.executable, "-m", "tools.night"],
        cwd=ROOT, env={**environment, "PARAMS": json.dumps(PARAMS), **values},
        capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip


@dataclass
class Single:
    """A lake with the two nights, each run by itself; what each printed and the tables it left."""

    lake: Path
    shown: list[str]
    tables: dict[str, dict[str, pa.Table]]


@pytest.fixture(scope="module")
def single(environment, shop, tmp_path_factory) -> Single:
    lake = tmp_path_factory.mktemp("single") / "lake"
    shown = []
    for date in DATES:
        done = night(environment, SOURCE=str(shop), AS_OF=date, LAKE=str(lake))
        assert done.returncode == 0, done.stdout + done.stderr
        shown.append(done.stdout)
    return Single(lake, shown, {date: published(lake, date) for date in DATES})


@pytest.fixture(scope="module")
def airflow(environment, single) -> Iterator[Airflow]:
    """Airflow's services over the home in which the two nights ran."""
    with service.running(environment) as made:
        yield made


def published(lake: Path, date: str) -> dict[str, pa.Table]:
    """Every table of a night, its rows in an order of their own."""
    return {
        name: published_table(lake, date, name)
        for name, table in tables.TABLES.items()
        if table.step in steps.STEPS
    }


def published_table(lake: Path, date: str, name: str) -> pa.Table:
    """A table of a night as it is declared (Spark says otherwise what may be null, by how it made
    the rows), in the order of its key, or where it has none of all columns."""
    table = tables.TABLES[name]
    as_of = datetime.fromisoformat(date).replace(tzinfo=UTC)
    found = io.read_arrow(Lake(lake).published(table.step, as_of).table(name))
    found = found.select(table.schema.names).cast(table.schema)
    return found.sort_by([(name, "ascending") for name in table.key or found.schema.names])


def test_a_night_by_make_run_ends_with_its_table_and_a_release(single):
    lake, shown = single.lake, single.shown
    for step in steps.STEPS:
        assert re.search(rf"│ {step} +│", shown[-1]), step
    for words in ("people served", "NDCG@10", "index recall", "release", "make show PERSON="):
        assert words in shown[-1]
    assert (lake / "releases" / "CURRENT").read_text().strip() in shown[-1]


def test_a_night_leaves_no_engine_no_lock_and_no_process(single):
    lake = single.lake
    assert not (lake / ".night" / "lock.json").exists()
    assert not (lake / ".night" / "engine.json").exists()
    mine = [p for p in psutil.process_iter(["cmdline"]) if str(lake) in str(p.info["cmdline"])]
    assert not mine


def test_a_stopped_night_is_closed_and_nothing_of_it_stays(environment, shop, tmp_path):
    lake = tmp_path / "lake"
    values = {"SOURCE": str(shop), "AS_OF": DATES[0], "LAKE": str(lake)}
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.night"],
        cwd=ROOT, env={**environment, **values, "NIGHTJAR_AIRFLOW_HOME": str(tmp_path / "home")},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    for line in process.stdout:
        if "sources.source_gate" in line:
            break
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=120)[0]
    assert process.returncode == 130, told
    assert "nothing was published" in told
    assert not (lake / ".night" / "lock.json").exists()
    assert not (lake / ".night" / "engine.json").exists()
    mine = [p for p in psutil.process_iter(["cmdline"]) if str(lake) in str(p.info["cmdline"])]
    assert not mine
    with sqlite3.connect(tmp_path / "home" / "airflow.db") as database:
        assert database.execute("select state from dag_run").fetchall() == [("failed",)]


def test_airflow_listens_on_loopback_alone(airflow):
    family = [psutil.Process(airflow.process.pid)]
    family += family[0].children(recursive=True)
    heard = {
        connection.laddr.ip
        for process in family
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert heard <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert heard


def test_the_ui_shows_the_nights_of_make_run_with_their_logs(airflow):
    _, answer = airflow.ask("/api/v2/dags/nightly/dagRuns")
    nights = [run for run in answer["dag_runs"] if run["conf"].get("as_of") in DATES]
    assert [run["state"] for run in nights[:2]] == ["success", "success"]
    run_id = urllib.parse.quote(nights[0]["dag_run_id"])
    _, log = airflow.ask(
        f"/api/v2/dags/nightly/dagRuns/{run_id}/taskInstances/signals.events/logs/1"
    )
    assert "table=events" in json.dumps(log["content"])


def test_refreshes_go_on_from_the_night_by_hand_and_by_the_scheduler(
    airflow, environment, single, shop, tmp_path
):
    lake = tmp_path / "lake"
    shutil.copytree(single.lake, lake, copy_function=os.link)
    first = f"{DATES[1]}T01:00:00Z"
    status, run = airflow.trigger(
        HOURLY, as_of=first, source=str(shop), lake=str(lake), params=PARAMS
    )
    assert status == 200
    states = airflow.wait(run["dag_run_id"], HOURLY)
    assert {states.pop("night_needed"), states.pop("rebuild")} == {"skipped"}
    assert set(states.values()) == {"success"}, states
    done = subprocess.run(
        [sys.executable, "-m", "tools.refresh"], cwd=ROOT, capture_output=True, text=True,
        env={
            **environment, "LAKE": str(lake), "PARAMS": json.dumps(PARAMS),
            "NIGHTJAR_AIRFLOW_HOME": str(tmp_path / "home"),
        },
        timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("changes", "carried", "persons", "touched", "received in 2 hours"):
        assert words in done.stdout
    current = (lake / "releases" / "CURRENT").read_text().strip()
    assert current.startswith("20240301T020000Z")
    assert current in done.stdout
    manifest = io.read_json(lake / "releases" / current / "manifest.json")
    assert (manifest["night"], manifest["base"]) == (DATES[1], f"{DATES[1]}T010000")
    assert not (lake / ".night" / "lock.json").exists()
    assert not (lake / ".night" / "refresh.json").exists()


def test_a_refresh_that_only_a_night_can_mend_triggers_one_a_date(airflow, single, shop, tmp_path):
    lake = tmp_path / "lake"
    shutil.copytree(single.lake, lake, copy_function=os.link)
    conf = {
        "as_of": f"{DATES[1]}T01:00:00Z", "source": str(shop), "lake": str(lake),
        "params": {**PARAMS, "embeddings": {"factors": 24}},
    }  # fmt: skip
    assert airflow.ask("/api/v2/dags/nightly", {"is_paused": True}, method="PATCH")[0] == 200
    try:
        refused = airflow.wait(airflow.trigger("hourly_refresh", **conf)[1]["dag_run_id"], HOURLY)
        # A paused DAG runs nothing, which the task says instead of waiting.
        assert (refused["open_refresh"], refused["rebuild"], refused[""]) == ("failed",) * 3
    finally:
        assert airflow.ask("/api/v2/dags/nightly", {"is_paused": False}, method="PATCH")[0] == 200
    serving = (lake / "releases" / "CURRENT").read_text()
    rebuilt = [
        airflow.until(airflow.trigger(HOURLY, **conf)[1]["dag_run_id"], HOURLY, _over)["rebuild"]
        for _ in range(2)
    ]
    assert rebuilt == ["success", "skipped"]
    run = f"/api/v2/dags/nightly/dagRuns/rebuild__{DATES[1]}"
    status, made = airflow.ask(run)
    assert status == 200
    assert "the parameters of embeddings are others" in made["conf"].pop("rebuild")
    assert made["conf"] == {**conf, "as_of": DATES[1]}
    assert airflow.ask(run, {"state": "failed"}, method="PATCH")[0] == 200  # seen enough of it
    over = (*ENDED, "skipped")  # where it had begun nothing yet
    ended = airflow.until(f"rebuild__{DATES[1]}", "nightly", lambda now: now["close_night"] in over)
    assert ended["close_night"] in over
    assert (lake / "releases" / "CURRENT").read_text() == serving


def _over(states: dict[str, str]) -> bool:
    return states[""] in ENDED


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"as_of": "the first"}, "is not a 'date'"),
        ({"lake": ""}, "non-empty"),
        ({"params": {"candidates": 5}}, "is not of type 'object'"),
    ],
)
def test_a_bad_parameter_is_refused_when_a_night_is_triggered(airflow, conf, words):
    status, answer = airflow.trigger(**conf)
    assert status == 400
    assert words in answer["detail"]


def test_an_unknown_override_fails_the_first_task_and_takes_nothing(airflow, shop, tmp_path):
    status, run = airflow.trigger(
        as_of=DATES[1], source=str(shop), lake=str(tmp_path / "lake"),
        params={"candidates": {"no_such": 1}},
    )  # fmt: skip
    assert status == 200
    states = airflow.wait(run["dag_run_id"])
    assert states[""] == "failed"
    assert states["open_night"] == "failed"
    assert states["signals.events"] == "upstream_failed"
    assert not (tmp_path / "lake" / ".night" / "lock.json").exists()


def test_a_red_gate_stops_what_follows_and_the_run_ends_red(airflow, single, spoiled):
    lake = single.lake
    serving = (lake / "releases" / "CURRENT").read_text()
    status, run = airflow.trigger(as_of=DATES[1], source=str(spoiled), lake=str(lake))
    assert status == 200
    states = airflow.wait(run["dag_run_id"])
    assert states[""] == "failed"
    assert states["signals.events"] == "success"
    assert states["signals.events_gate"] == "failed"
    reached = {"open_night", "sources.source", "sources.source_gate", "signals.events"}
    after = set(states) - reached - {"", "signals.events_gate", "close_night"}
    assert {states[task] for task in after} == {"upstream_failed"}
    assert states["close_night"] == "success"
    assert (lake / "releases" / "CURRENT").read_text() == serving
    counts = published_table(lake, DATES[1], "events_counts")
    assert counts.equals(single.tables[DATES[1]]["events_counts"])
    assert not (lake / ".night" / "lock.json").exists()


def test_a_backfill_leaves_the_rows_of_single_nights(airflow, environment, single, shop, tmp_path):
    lake = tmp_path / "backfilled"
    code = (
        "import sys; from tools import airflow_home; airflow_home.set_environment(); "
        "from airflow.__main__ import main; sys.argv[0] = 'airflow'; main()"
    )
    done = subprocess.run(
        [
            sys.executable, "-c", code, "backfill", "create", "--dag-id", "nightly",
            "--from-date", DATES[0], "--to-date", f"{DATES[1]}T23:59:59", "--max-active-runs", "1",
            "--dag-run-conf",
            json.dumps({"source": str(shop), "lake": str(lake), "params": PARAMS}),
        ],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for date in DATES:
        states = airflow.wait(f"backfill__{date}T02:00:00+00:00")
        assert states[""] == "success", {k: v for k, v in states.items() if v != "success"}
    for date in DATES:
        ours, theirs = published(lake, date), single.tables[date]
        different = [name for name in ours if not ours[name].equals(theirs[name])]
        assert not different


def test_an_asset_event_is_announced_for_every_green_gate(airflow):
    _, answer = airflow.ask("/api/v2/assets/events?limit=200")
    announced = {(event["uri"], event["extra"].get("as_of")) for event in answer["asset_events"]}
    for step in steps.STEPS:
        assert (f"nightjar://lake/{step}", DATES[0]) in announced


def test_a_taken_port_is_passed_over():
    from tools import ui

    with socket.socket() as taken:
        taken.bind((ui.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        before, ui.PORT = ui.PORT, port
        try:
            assert ui.free_port() != port
        finally:
            ui.PORT = before
