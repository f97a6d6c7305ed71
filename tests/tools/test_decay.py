"""A day of refreshes beside the night after it: what is asked, judged and told."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import io, spark
from jobs.errors import Busy, Fault
from jobs.io import Lake
from jobs.release.releases import Release
from tools import decay
from tools.lockfile import held

NIGHT = datetime(2024, 2, 10, tzinfo=UTC)
KEYS = pa.table(
    {
        "key_type": ["account", "cookie", "account", "account", "account"],
        "key": ["a", "a2", "b", "c", "new"],
        "person_id": ["account:a", "account:a", "account:b", "account:c", "account:new"],
    }
)


def release(folder: Path, lists: dict[str, str], surface: str = "homepage") -> Release:
    """A release whose lists are these letters in order."""
    rows = [
        {"surface": where, "person_id": person, "rank": rank, "item_id": item}
        for where in (surface, "email_digest")
        for person, items in lists.items()
        for rank, item in enumerate(items if where == surface else "xyz", 1)
    ]
    io.write_arrow(folder / "recommendations", pa.Table.from_pylist(rows))
    io.write_arrow(folder / "identities", KEYS)
    return Release(folder, {})


def done(*rows: tuple[str, str, str, bool]) -> pa.Table:
    names = ("key_type", "key", "item_id", "after")
    return pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


def test_both_releases_are_judged_by_what_the_same_people_bought(tmp_path):
    before = release(tmp_path / "before", {"account:a": "pqr", "account:b": "qrs"})
    after = release(
        tmp_path / "after", {"account:a": "qpr", "account:b": "qrs", "account:new": "p"}
    )
    rows = decay.judged(
        before, after,
        done(
            ("account", "a", "p", True), ("cookie", "a2", "p", True), ("cookie", "a2", "r", True),
            ("account", "b", "s", True), ("account", "new", "p", True),
            ("account", "c", "p", True),  # who has a list in neither
            ("account", "stranger", "p", True), ("cookie", "a2", "q", False),
        ),
    )  # fmt: skip
    found = {(row["name"], row["person"]): row for row in rows.to_pylist()}
    assert set(found) == {
        (name, person) for name in (decay.REFRESHED, decay.REBUILT)
        for person in ("account:a", "account:b", "account:new")
    }  # fmt: skip
    first, second, third = 1 / np.log2(np.arange(2, 5))
    assert found["refreshed", "account:a"]["ndcg"] == pytest.approx(
        (first + third) / (first + second)
    )
    assert found["rebuilt", "account:a"]["ndcg"] == pytest.approx(
        (second + third) / (first + second)
    )
    assert found["refreshed", "account:b"]["ndcg"] == found["rebuilt", "account:b"]["ndcg"] == third
    # Who came after the refresh had no list until the night.
    assert found["refreshed", "account:new"]["ndcg"] == 0.0
    assert found["rebuilt", "account:new"]["ndcg"] == 1.0
    assert found["rebuilt", "account:a"]["recall"] == 1.0
    assert [found["rebuilt", person]["acted"] for person in ("account:a", "account:b")] == [
        True, False,
    ]  # fmt: skip


def events(folder: Path, *hours: float) -> Path:
    """A table of events, so many hours after the night: views before it and purchases since."""
    times = [NIGHT + timedelta(hours=hour) for hour in hours]
    rows = {
        "key_type": ["account"] * len(times), "key": ["a"] * len(times),
        "item_id": ["p"] * len(times),
        "event_type": ["purchase" if time >= NIGHT else "view" for time in times],
    }  # fmt: skip
    texts = pa.schema([(name, pa.large_string()) for name in rows])
    table = pa.table(rows, schema=texts)
    instants = pa.array(times, pa.timestamp("us", tz="UTC"))
    io.write_arrow(folder / "events", table.append_column("event_time", instants))
    return folder / "events"


def test_a_night_is_judged_by_the_week_after_it_and_the_day_before_says_who_was_there(tmp_path):
    shop = events(tmp_path, -30, -24, -1, 0, 24 * 7 - 1, 24 * 7)
    rows = decay.purchases(shop, NIGHT)
    assert rows["after"].to_pylist() == [False, False, True, True]
    assert rows.schema.field("key").type == pa.string()  # as identities have it


def chosen(root: Path, nights: int, **values: str) -> decay.Asked:
    """A run whose first night is the day before ``NIGHT``, over a shop of which no night can be
    made, since it has events alone and not all that belongs to them."""
    if not (root / "shop").exists():
        events(root / "shop", -24 * 9, *(24 * day for day in range(12)))
    given = {"SOURCE": str(root / "shop"), "AS_OF": "2024-02-09", "NIGHTS": str(nights)}
    return decay.asked({**given, "LAKE": str(root / "lake"), **values})


def kept(root: Path, night: datetime, refreshed: list[float], rebuilt: list[float]) -> None:
    parts = [
        pa.table(
            {"name": [name] * 2, "person": ["a", "b"], "acted": [True, False], "ndcg": values,
             "recall": values}
        )
        for name, values in ((decay.REFRESHED, refreshed), (decay.REBUILT, rebuilt))
    ]  # fmt: skip
    folder = root / "lake" / "decay"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.concat_tables(parts), folder / f"{io.label(night)}.parquet")


def test_what_is_judged_is_not_made_again_and_all_of_it_is_told(tmp_path, capsys):
    kept(tmp_path, NIGHT, [0.3, 0.5], [0.4, 0.5])
    kept(tmp_path, NIGHT + timedelta(days=1), [0.5, 0.5], [0.4, 0.5])
    assert decay.run(chosen(tmp_path, 2)) == 0
    told = capsys.readouterr().out
    assert "| all | 0.4500 | 0.4500 | +0.00% (+0.00% to +0.00%) |" in told
    # Nothing is lost over both, and each night for itself is far off.
    assert "NDCG@10 differs by +0.00 points (-63.53 to +63.53)" in told
    assert "NDCG@10 differs by +0.00 % (-141.18 to +141.18)" in told
    assert "NDCG@10 is within half a point in 0 of 2 nights; the furthest is -5.00." in told
    for bound in ("half a point", "half a per cent"):
        assert f"Of all people the loss is not shown to be within {bound}." in told
    folder = tmp_path / "lake" / "decay"
    assert (folder / "decay.svg").read_text().startswith("<svg")
    assert (folder / "report.md").read_text() == told.partition("curves:")[0]


def test_what_is_the_same_every_night_is_within_half_a_point(tmp_path, capsys):
    for night in range(2):
        kept(tmp_path, NIGHT + timedelta(days=night), [0.4, 0.5], [0.4, 0.5])
    assert decay.run(chosen(tmp_path, 2)) == 0
    told = capsys.readouterr().out
    assert "Of all people the loss is within half a point." in told
    assert "Of all people the loss is within half a per cent." in told


def test_half_a_per_cent_of_what_is_found_is_less_than_half_a_point(tmp_path, capsys):
    for night in range(2):
        kept(tmp_path, NIGHT + timedelta(days=night), [0.396, 0.496], [0.4, 0.5])
    assert decay.run(chosen(tmp_path, 2)) == 0
    told = capsys.readouterr().out
    assert "Of all people the loss is within half a point." in told
    assert "Of all people the loss is beyond half a per cent." in told


def test_a_loss_beyond_half_a_point_is_told(tmp_path, capsys):
    kept(tmp_path, NIGHT, [0.38, 0.48], [0.4, 0.5])
    assert decay.run(chosen(tmp_path, 1)) == 0
    told = capsys.readouterr().out
    for bound in ("half a point", "half a per cent"):
        assert f"Of all people the loss is beyond {bound}." in told


def test_what_was_made_of_something_else_is_not_told_as_this(tmp_path):
    kept(tmp_path, NIGHT, [0.4, 0.5], [0.4, 0.5])
    assert decay.run(chosen(tmp_path, 1)) == 0
    with pytest.raises(Fault, match=r"made with another hours \(see .*made.json\)"):
        decay.run(chosen(tmp_path, 1, HOURS="6,12"))
    (tmp_path / "shop" / "events" / "more.parquet").write_bytes(
        next((tmp_path / "shop" / "events").glob("*.parquet")).read_bytes()
    )
    with pytest.raises(Fault, match="made with another state"):
        decay.run(chosen(tmp_path, 1))


def test_two_runs_do_not_share_a_folder(tmp_path):
    folder = tmp_path / "lake" / "decay"
    folder.mkdir(parents=True)
    with (
        held(folder / "in_use", "make decay", RuntimeError),
        pytest.raises(Busy, match=r"make decay \(process \d+\) is at work on this lake"),
    ):
        decay.run(chosen(tmp_path, 1))


def test_nights_that_the_source_does_not_reach_are_refused_before_one_is_made(tmp_path):
    with pytest.raises(Fault, match="decay: the 7 days after the cut 2024-02-16 are not covered"):
        decay.run(chosen(tmp_path, 7))


def test_an_engine_that_ends_under_a_night_ends_the_run_and_is_told(tmp_path, capsys, monkeypatch):
    """A night that waits for its engine for ever; a process stands in for it."""
    waits = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, "
             "signal.SIG_IGN); time.sleep(600)"]  # fmt: skip
    monkeypatch.setattr(decay, "PATIENCE", 1)
    server = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)",
                               "SparkConnectServer"])  # fmt: skip
    engine = spark.Engine("sc://localhost:1", "secret", server.pid, "local[*]")
    monkeypatch.setattr(decay.Engines, "held", lambda self: engine)
    real = subprocess.Popen
    monkeypatch.setattr(decay.subprocess, "Popen", lambda line, **more: real(waits, **more))
    kept = tmp_path / "decay"
    kept.mkdir()
    threading.Timer(1, server.kill).start()
    threading.Timer(1.2, server.wait).start()
    lake = Lake(tmp_path / "lake").open()
    assert not decay.made(lake, NIGHT, "shop", kept, decay.Engines(kept))
    told = capsys.readouterr().err
    assert "has ended" in told


def test_a_run_ends_the_engine_that_a_killed_one_left(tmp_path):
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)",
                             "SparkConnectServer"], start_new_session=True)  # fmt: skip
    engine = spark.Engine("sc://localhost:1", "", left.pid, "local[*]")
    engine.save(tmp_path / "engine.json")
    while not engine.alive():  # until the new process has its own name
        time.sleep(0.01)
    decay.Engines(tmp_path)
    assert not engine.alive()
    assert not (tmp_path / "engine.json").exists()
    left.wait(timeout=30)


def test_one_engine_serves_all_nights_and_a_new_one_follows_one_that_ended(tmp_path, monkeypatch):
    started: list[spark.Engine] = []

    def start(master: str, log: Path) -> spark.Engine:
        engine = spark.Engine(f"sc://localhost:{len(started)}", "", 0, master, str(log))
        started.append(engine)
        return engine

    monkeypatch.setattr(spark, "start", start)
    engines = decay.Engines(tmp_path)
    assert engines.held() == engines.held() == started[0]
    monkeypatch.setattr(spark.Engine, "alive", lambda self: self != started[0])
    assert engines.held() == started[1]
    engines.close()
    assert len(started) == 2
    assert not (tmp_path / "engine.json").exists()


def test_a_night_that_cannot_be_made_stops_with_the_end_of_its_log(tmp_path, capsys):
    assert decay.run(chosen(tmp_path, 1)) == 1
    told = capsys.readouterr().err
    log = tmp_path / "lake" / "decay" / "2024-02-09.log"
    assert f"error: 2024-02-09 stopped; see {log}" in told
    assert "does not fit t" in told
    assert "event_id" in told


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"SOURCE": "retailrocket"}, "AS_OF: '' is not a date"),
        ({"AS_OF": "soon"}, "AS_OF: 'soon' is not a date"),
        ({"HOURS": "0,12"}, "HOURS=0,12"),
        ({"HOURS": "24"}, "HOURS=24"),
        ({"NIGHTS": "none"}, "NIGHTS=none"),
        ({"NIGHTS": "0"}, "NIGHTS=0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(values, says):
    with pytest.raises(Fault, match=says):
        decay.asked(values)


def test_without_settings_it_is_thirty_nights_that_end_before_december():
    found = decay.asked({})
    assert (found.source, found.hours) == ("completejourney", (23,))
    ends = found.night(found.nights) + decay.HORIZON
    assert ends <= datetime(2017, 12, 1, tzinfo=UTC)
