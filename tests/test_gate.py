"""A gate publishes what its suites pass, and leaves everything as it was where one does not."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from expectations import VIEWS
from expectations.columns import Found
from expectations.rules import between, column
from jobs import batches, findings, gate, io, steps, tables, witnesses
from jobs.errors import Fault, GateRed
from jobs.findings import Finding
from jobs.io import Lake
from jobs.night import Night
from tests.expectations import good

YESTERDAY = good.AS_OF - timedelta(days=1)
GATED = [step for step in steps.EVERY if tables.of_step(step)]


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake with every good table published; tests link it, none changes it."""
    lake = Lake(tmp_path_factory.mktemp("published"))
    rows = good.all_tables()
    for step in GATED:
        night = Night(lake, good.AS_OF, "good", "test", step)
        night.reset()
        stage(night, {table.name: rows[table.name] for table in tables.of_step(step)})
        lake.publish(step, good.AS_OF, "good")
    return lake


@pytest.fixture
def bare(tmp_path: Path, published: Lake) -> Lake:
    """A lake of its own where every step is published, without an engine."""
    lake = Lake(tmp_path / "lake").open()
    for step in GATED:
        home = lake.root / "tables" / step
        home.mkdir(parents=True)
        found = published.published(step, good.AS_OF)
        target = home / io.label(good.AS_OF)
        target.mkdir()
        shutil.copytree(found.folder, target / "good", copy_function=os.link)
        (target / "PUBLISHED").write_text("good\n")
    return lake


def stage(night: Night, rows: dict[str, pa.Table]) -> None:
    """Stage tables as a job would, with its manifest."""
    for name, table in rows.items():
        io.write_arrow(night.staged / name, table)
    io.write_json(
        night.staged / "manifest.json",
        {
            "step": night.step, "as_of": night.as_of.isoformat(), "run_id": night.run_id,
            "tables": {name: {"rows": table.num_rows} for name, table in rows.items()},
        },
    )  # fmt: skip


def again(lake: Lake, step: str, run_id: str = "again", **changed: pa.Table) -> Night:
    """Stage a step's good tables, some of them changed, for a second run of the night."""
    night = Night(lake, good.AS_OF, run_id, "test", step)
    night.reset()
    rows = {
        table.name: io.read_arrow(lake.published(step, good.AS_OF).table(table.name))
        for table in tables.of_step(step)
    }
    stage(night, rows | changed)
    return night


def without(table: pa.Table, column: str, row: int = 0) -> pa.Table:
    """The table with a null in one cell."""
    values = table[column].to_pylist()
    values[row] = None
    place = table.schema.get_field_index(column)
    return table.set_column(
        place, pa.field(column, table.schema.field(column).type), pa.array(
            values, table.schema.field(column).type
        ),
    )  # fmt: skip


def evidence(night: Night) -> dict[str, Any]:
    return io.read_json(night.lake.evidence(night.step, night.as_of, night.run_id))


@pytest.mark.parametrize("step", GATED)
def test_a_green_gate_publishes_and_says_so_in_the_manifest(bare: Lake, step: str) -> None:
    night = again(bare, step)
    gate.judge(night)
    found = bare.published(step, good.AS_OF)
    assert found.attempt == "again"
    assert found.manifest["gate"]["verdict"] == "green"
    assert (bare.root / found.manifest["gate"]["evidence"]).is_file()
    assert not night.staged.exists()


def breakable() -> Iterator[Any]:
    """Every table with the column whose loss must stop the night."""
    for name, table in tables.TABLES.items():
        column = "reason" if name == "events_rejected" else table.schema.names[0]
        yield pytest.param(name, column, id=name)


@pytest.mark.parametrize(("name", "column"), list(breakable()))
def test_a_red_gate_at_any_table_publishes_nothing(bare: Lake, name: str, column: str) -> None:
    step = tables.TABLES[name].step
    rows = io.read_arrow(bare.published(step, good.AS_OF).table(name))
    night = again(bare, step, **{name: without(rows, column)})
    with pytest.raises(GateRed, match=f"{name}: {column} is filled; 1 of"):
        gate.judge(night)
    assert bare.published(step, good.AS_OF).attempt == "good"
    assert evidence(night)["verdict"] == "red"
    assert night.staged.is_dir()


def test_a_red_gate_keeps_evidence_with_the_rows_and_says_what_to_do(bare: Lake) -> None:
    rows = io.read_arrow(bare.published("events", good.AS_OF).table("events"))
    night = again(bare, "events", events=without(rows, "item_id", 7))
    with pytest.raises(GateRed) as red:
        gate.judge(night)
    assert "1 critical expectation failed, nothing was published" in str(red.value)
    assert "1 of 1,000 rows" in str(red.value)
    assert "run the step again" in str(red.value)
    assert "e7" not in str(red.value), "ids of persons and rows stay in the evidence"
    failed = [f for f in evidence(night)["expectations"] if not f["success"]]
    assert [row["event_id"] for row in failed[0]["samples"]] == ["e7"]
    assert failed[0]["severity"] == "critical"
    assert failed[0]["notes"] == "Identities, interactions and the history join on these."


def test_yesterday_stays_published_when_today_is_red(bare: Lake) -> None:
    early = Night(bare, YESTERDAY, "yesterday", "test", "ranker")
    early.reset()
    rows = {t.name: good.all_tables()[t.name] for t in tables.of_step("ranker")}
    stage(early, rows)
    gate.judge(early)
    with pytest.raises(GateRed):
        gate.judge(again(bare, "ranker", blend_weights=rows["blend_weights"].slice(0, 0)))
    assert bare.published("ranker", YESTERDAY).attempt == "yesterday"
    assert bare.published("ranker", good.AS_OF).attempt == "good"


def test_a_warning_publishes_and_is_recorded(bare: Lake, caplog: pytest.LogCaptureFixture) -> None:
    volume = good.table("events_volume", [{
        "day": datetime(2017, 11, 30, tzinfo=UTC).date(), "weekday": 4, "rows": 30,
        "history_days": 20, "history_median": 100.0, "ratio": 0.3,
    }])  # fmt: skip
    night = again(bare, "events", events_volume=volume)
    with caplog.at_level(logging.WARNING, logger="nightjar"):
        gate.judge(night)
    recorded = bare.published("events", good.AS_OF).manifest["gate"]
    assert recorded["verdict"] == "warning"
    assert len(recorded["warnings"]) == 1
    assert "ratio is at least 0.45 and at most 1.93" in recorded["warnings"][0]
    assert "ratio is at least 0.45" in caplog.text


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        ({"rows": 5, "history_days": 7, "history_median": 100.0, "ratio": 0.05}, "warning"),
        ({"rows": 5, "history_days": 8, "history_median": 100.0, "ratio": 0.05}, "red"),
        ({"rows": 900, "history_days": 8, "history_median": 100.0, "ratio": 9.0}, "red"),
        ({"rows": 0, "history_days": 3, "history_median": 100.0, "ratio": 0.0}, "red"),
        ({"rows": 0, "history_days": 20, "history_median": 0.0, "ratio": 1.0}, "green"),
        ({"rows": 100, "history_days": 0, "history_median": 0.0, "ratio": 1.0}, "green"),
    ],
)
def test_volume_is_held_against_the_weekday_once_it_has_a_history(
    bare: Lake, facts: dict[str, Any], verdict: str
) -> None:
    day = {"day": datetime(2017, 11, 30, tzinfo=UTC).date(), "weekday": 4}
    night = again(bare, "events", events_volume=good.table("events_volume", [day | facts]))
    if verdict == "red":
        with pytest.raises(GateRed, match="events_volume"):
            gate.judge(night)
    else:
        gate.judge(night)
    assert evidence(night)["verdict"] == verdict


@pytest.mark.parametrize(
    ("outcome", "share", "verdict"),
    [
        ("duplicate", 0.0005, "green"), ("duplicate", 0.10, "warning"), ("duplicate", 0.11, "red"),
        ("rejected: no_item", 0.05, "warning"), ("rejected: no_item", 0.06, "red"),
        ("rejected: time_in_the_future", 0.04, "warning"),
        ("rejected: time_in_the_future", 0.06, "red"),
        ("rejected: no_key", 0.25, "warning"), ("rejected: no_key", 0.6, "red"),
        ("kept_late", 0.2, "warning"),
    ],
)  # fmt: skip
def test_shares_of_a_delivery_warn_up_to_their_limit_and_stop_beyond(
    bare: Lake, outcome: str, share: float, verdict: str
) -> None:
    counts = good.table("events_counts", [
        {"outcome": "kept", "rows": 900, "share": 1 - share},
        {"outcome": outcome, "rows": 100, "share": share},
    ])  # fmt: skip
    night = again(bare, "events", events_counts=counts)
    if verdict == "red":
        with pytest.raises(GateRed, match="events_counts"):
            gate.judge(night)
    else:
        gate.judge(night)
    assert evidence(night)["verdict"] == verdict


def test_a_shop_below_the_hard_minimum_is_red_and_a_small_one_warns(bare: Lake) -> None:
    whole = io.read_arrow(bare.published("interactions", good.AS_OF).table("interactions"))
    with pytest.raises(GateRed, match="at least 25 different values"):
        gate.judge(again(bare, "interactions", interactions=whole.slice(0, 1_200)))
    gate.judge(again(bare, "interactions", interactions=whole.slice(0, 1_300)))
    assert bare.published("interactions", good.AS_OF).manifest["gate"]["verdict"] == "warning"


def test_an_item_that_lost_its_place_in_the_id_map_stops_the_night(bare: Lake) -> None:
    early = Night(bare, YESTERDAY, "yesterday", "test", "catalogue")
    early.reset()
    rows = {t.name: good.all_tables()[t.name] for t in tables.of_step("catalogue")}
    swapped = rows["items"]["item_id"].to_pylist()
    swapped[0], swapped[1] = swapped[1], swapped[0]
    stage(early, rows | {"items": rows["items"].set_column(0, "item_id", pa.array(swapped))})
    gate.judge(early)
    with pytest.raises(GateRed, match="items_held: held holds; 2 of 50 rows do not"):
        gate.judge(again(bare, "catalogue"))


def test_a_feed_that_ties_wrong_keys_stops_the_night_and_a_small_one_does_not(bare: Lake) -> None:
    counts = good.all_tables()["identity_counts"].to_pylist()
    quarantined = next(row for row in counts if row["outcome"] == "link: too_many_of_type")
    quarantined["rows"] = 2_000
    with pytest.raises(GateRed, match="the sum of quarantined is at most"):
        gate.judge(again(bare, "identities", identity_counts=good.table("identity_counts", counts)))
    for row in counts:
        row["rows"] //= 100
    gate.judge(again(bare, "identities", identity_counts=good.table("identity_counts", counts)))


def test_two_accounts_in_one_person_stop_the_night(bare: Lake) -> None:
    rows = good.all_tables()["identities"].to_pylist()
    rows[1]["person_id"] = rows[0]["person_id"]
    with pytest.raises(GateRed, match="Two accounts in one person"):
        gate.judge(again(bare, "identities", identities=good.table("identities", rows)))


def test_persons_that_are_gone_since_yesterday_are_a_warning(bare: Lake) -> None:
    early = Night(bare, YESTERDAY, "yesterday", "test", "identities")
    early.reset()
    rows = {t.name: good.all_tables()[t.name] for t in tables.of_step("identities")}
    before = rows["persons"].to_pylist()
    for number, row in enumerate(before[:200]):
        row["person_id"] = f"cookie:{number}"
    stage(early, rows | {"persons": good.table("persons", before)})
    bare.publish("identities", YESTERDAY, "yesterday")
    gate.judge(again(bare, "identities"))
    found = bare.published("identities", good.AS_OF).manifest["gate"]
    assert found["verdict"] == "warning"
    assert (
        "persons_kept: kept holds in 90% of the rows or more; 200 of 1,000 rows"
        in found["warnings"][0]
    )


@pytest.mark.parametrize(
    ("item", "kind"), [(-1, "unavailable"), (-2, "forbidden"), (-3, "blocked")]
)
def test_a_listed_item_that_a_filter_excludes_stops_the_night(
    bare: Lake, item: int, kind: str
) -> None:
    persons = io.read_arrow(bare.published("identities", good.AS_OF).table("persons"))
    restricted = [["alcohol"]] + [[]] * (persons.num_rows - 1)
    place = persons.schema.get_field_index("restrictions")
    changed = persons.set_column(place, persons.schema.field(place), pa.array(restricted))
    gate.judge(again(bare, "identities", persons=changed))
    rows = io.read_arrow(bare.published("recommendations", good.AS_OF).table("recommendations"))
    listed = rows["item_id"].to_pylist()
    listed[0] = good.ITEMS[item]
    wrong = rows.set_column(3, rows.schema.field(3), pa.array(listed))
    with pytest.raises(GateRed, match=f"{kind} does not hold; 1 of 3,000 rows"):
        gate.judge(again(bare, "recommendations", recommendations=wrong))


def test_a_wrong_schema_names_every_column_at_once(bare: Lake) -> None:
    rows = good.all_tables()["ranking_evidence"].drop_columns(["people", "ndcg_low"])
    with pytest.raises(GateRed) as red:
        gate.judge(again(bare, "ranker", ranking_evidence=rows))
    missing = "ranking_evidence.people is missing; ranking_evidence.ndcg_low is missing"
    assert missing in str(red.value)


def test_a_truncated_parquet_file_is_red(bare: Lake) -> None:
    night = again(bare, "ranker")
    path = io.parquet_files(night.staged / "blend_weights")[0]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(GateRed, match=r"part-00000\.parquet cannot be read"):
        gate.judge(night)


def test_a_gate_without_a_finished_job_is_a_fault(bare: Lake) -> None:
    night = again(bare, "ranker")
    (night.staged / "manifest.json").unlink()
    with pytest.raises(Fault, match=r"no manifest\.json.*run the step again"):
        gate.judge(night)


def test_a_gate_does_not_judge_what_another_run_staged(bare: Lake) -> None:
    night = again(bare, "ranker", run_id="one")
    night.run_id = "two"
    with pytest.raises(Fault, match="comes from the run one, not from two"):
        gate.judge(night)


def test_a_table_that_no_suite_judges_is_a_fault() -> None:
    with pytest.raises(Fault, match="write expectations/no_such_table"):
        gate.load("no_such_table")


def test_hostile_strings_stay_whole_in_evidence_up_to_a_length(bare: Lake) -> None:
    nasty = "../../x'\"\n<script>☃" + "y" * 5_000
    rows = io.read_arrow(bare.published("events", good.AS_OF).table("events"))
    keys = rows["key"].to_pylist()
    keys[0] = nasty
    place = rows.schema.get_field_index("key")
    rows = rows.set_column(place, rows.schema.field(place), pa.array(keys))
    with pytest.raises(GateRed):
        gate.judge(night := again(bare, "events", events=without(rows, "item_id")))
    failed = next(f for f in evidence(night)["expectations"] if not f["success"])
    assert failed["samples"][0]["key"] == nasty[:199] + "…"


# --- tables of any size ----------------------------------------------------------------------
SUITES = [*tables.TABLES, *VIEWS]


def batch_of(lake: Lake, name: str, staged: Path | None = None) -> batches.Batch:
    """A published table (or view), or what stands in a folder in its place, as its gate sees it."""
    view = VIEWS.get(name)
    base = view.base if view else name

    def folder_of(table: str) -> Path:
        own = staged / table if staged else None
        step = tables.TABLES[table].step
        return own if own and own.is_dir() else lake.published(step, good.AS_OF).table(table)

    derived = getattr(gate.load(name), "COLUMNS", {})
    where = view.where if view else None
    return batches.Batch(folder_of(base), derived, batches.Others(folder_of), where)


def told(found: list[Finding], keys: list[str]) -> list[Any]:
    """Findings without what only says how they were looked for."""
    return [
        (f.words, f.success, f.error) if f.success else
        (f.words, f.success, f.error, f.observed, f.failing, f.rows,
         [[row.get(key) for key in keys] for row in f.samples])
        for f in found
    ]  # fmt: skip


@pytest.mark.parametrize("name", SUITES)
@pytest.mark.parametrize("broken", [False, True])
def test_a_table_judged_in_chunks_is_judged_as_one(
    published: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, broken: bool
) -> None:
    base = VIEWS[name].base if name in VIEWS else name
    rows = io.read_arrow(batch_of(published, name).folder)
    if broken and rows.num_rows:
        column = "reason" if base == "events_rejected" else rows.schema.names[0]
        # A gap, and rows that come twice, far from each other.
        gap = without(rows, column, rows.num_rows // 2)
        rows = pa.concat_tables([gap, rows.slice(0, 30).cast(gap.schema)])
    io.write_arrow(tmp_path / base, rows)
    keys = [key for key in tables.TABLES[base].key if key in rows.schema.names]
    batch = batch_of(published, name, tmp_path)
    suite = gate.load(name).suite(good.AS_OF)
    found = findings.judge(name, batch, suite)
    monkeypatch.setattr(batches, "CHUNK_ROWS", max(1, rows.num_rows // 7))
    assert told(findings.judge(name, batch, suite), keys) == told(found, keys)
    if broken and rows.num_rows and name not in VIEWS:
        assert any(not finding.success for finding in found)


def test_a_rule_that_may_fail_in_some_rows_counts_all_chunks(
    published: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = batch_of(published, "recommendations")
    monkeypatch.setattr(batches, "CHUNK_ROWS", 100)
    mostly = [between("", "rank", 2, None, mostly=share) for share in (0.66, 0.67)]
    firsts = [between("", "rank", 2, None, when=column("rank") < 3)]
    loose, close, half = findings.judge("recommendations", batch, mostly + firsts)
    assert (loose.success, close.success) == (True, False)
    assert (close.failing, close.rows) == (1_000, 3_000)
    assert (half.failing, half.rows, len(half.samples)) == (1_000, 2_000, 20)


def test_rows_that_count_are_counted_without_reading_them(tmp_path: Path) -> None:
    rows = pa.table({"text": ["a", "b", "c", "d"], "held": [True, None, False, True]})
    io.write_arrow(tmp_path / "rows", rows)
    batch = batches.Batch(tmp_path / "rows", {}, batches.Others(lambda table: tmp_path / table))
    assert batches.counted(batch).shape == (4, 1)
    assert batches.counted(replace(batch, where="held")).shape == (2, 1)


def test_a_null_key_repeats_a_null_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "CHUNK_ROWS", 2)
    rows = pa.table({
        "a": ["x", None, "y", None, "", None, "y"], "b": [1, 2, 3, 2, 2, None, 3],
        "held": [True] * 6 + [False],
    })  # fmt: skip
    for number in range(0, 7, 3):
        io.write_arrow(tmp_path / "rows", rows.slice(number, 3), number)
    batch = batches.Batch(tmp_path / "rows", {}, batches.Others(lambda table: tmp_path / table))
    found = batches.repeated(batch, ["a", "b"], ["b"])
    assert found["b"].tolist() == [2, 3, 2, 3]
    assert batches.repeated(replace(batch, where="held"), ["a", "b"], ["b"])["b"].tolist() == [2, 2]


def test_rows_that_hash_alike_by_chance_are_judged_by_their_values(
    published: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = batch_of(published, "candidates")
    suite = gate.load("candidates").suite(good.AS_OF)
    alike = lambda values, **_: np.ones(len(values), np.uint64)  # noqa: E731
    monkeypatch.setattr("pandas.util.hash_array", alike)
    monkeypatch.setattr(batches, "CHUNK_ROWS", 100)
    keys = ["person_id", "item_id", "source"]
    assert len(batches.repeated(batch, keys, keys)) == batch.rows
    assert all(finding.success for finding in findings.judge("candidates", batch, suite))


def test_keys_of_many_columns_are_told_apart(published: Lake, tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(12)]
    values = {name: [f"{name}-{i % 97}" for i in range(97 * 5)] for name in names}
    values["c11"] = [str(i) for i in range(97 * 5 - 2)] + ["7", "7"]
    values["c0"][-1] = values["c0"][-2] = values["c0"][7]
    for name in names:
        values[name][-1] = values[name][7]
    io.write_arrow(tmp_path / "wide", pa.table(values))
    batch = batches.Batch(tmp_path / "wide", {}, batches.Others(lambda table: tmp_path / table))
    found = batches.repeated(batch, names, ["c11", "c0"])
    assert found["c11"].tolist() == ["7", "7"]


def test_what_is_forbidden_to_whom_is_found(published: Lake, tmp_path: Path) -> None:
    people = {"personalised": True, "keys": 1, "household_id": "h"}
    persons = [
        {"person_id": "sober", "region": "north", "restrictions": ["alcohol"], **people},
        {"person_id": "southern", "region": "south", "restrictions": [], **people},
        {"person_id": "nowhere", "region": None, "restrictions": ["gluten"], **people},
        {"person_id": "northern", "region": "north", "restrictions": [], **people},
    ]
    listed = [
        {"surface": "homepage", "person_id": person, "rank": place, "item_id": item, "score": 1.0,
         "sources": ["popular"], "provenance": [], "propensity": 1.0, "placed_by": "model"}
        for person in ("sober", "southern", "nowhere", "northern", "stranger")
        for place, item in enumerate((good.ITEMS[0], good.ITEMS[-2]), start=1)
    ]  # fmt: skip
    io.write_arrow(tmp_path / "persons", good.table("persons", persons))
    io.write_arrow(tmp_path / "recommendations", good.table("recommendations", listed))
    batch = batch_of(published, "recommendations", tmp_path)
    frame = batches.whole(batch, ["person_id", "item_id", "forbidden"])
    forbidden = frame[frame["forbidden"]][["person_id", "item_id"]]
    assert set(forbidden.itertuples(index=False, name=None)) == {
        ("sober", good.ITEMS[-2]), ("southern", good.ITEMS[-2]),
    }  # fmt: skip


def test_a_gate_over_many_chunks_publishes_green_and_stops_red(
    bare: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "CHUNK_ROWS", 3)
    gate.judge(again(bare, "ranker", run_id="first"))
    assert bare.published("ranker", good.AS_OF).attempt == "first"
    weights = good.all_tables()["blend_weights"]
    second = again(bare, "ranker", run_id="second", blend_weights=without(weights, "weight"))
    with pytest.raises(GateRed, match=f"weight is filled; 1 of {weights.num_rows} rows"):
        gate.judge(second)
    assert bare.published("ranker", good.AS_OF).attempt == "first"


def test_a_key_counts_where_a_row_that_counts_has_it(tmp_path):
    rows = {"person_id": ["a", "b", "a", None], "personalised": [False, False, True, True]}
    for part in range(2):  # in two files, whose dictionaries differ
        io.write_arrow(tmp_path / "persons", pa.table(rows).slice(2 * part, 2), part)
    others = batches.Others(lambda name: tmp_path / name)
    asked = pa.table({"person_id": ["b", "a", None, "c"]})
    for where, expected in (
        ((), [True, True, False, False]),
        ((("personalised", True),), [False, True, False, False]),
    ):
        keys = others.keys(Found(("person_id",), "persons", where=where))
        assert keys.hold([asked["person_id"]]).tolist() == expected


# --- what a sound table costs ----------------------------------------------------------------
def test_a_sound_table_is_looked_at_once_and_nothing_is_read_of_what_only_has_to_be_there(
    published: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = batch_of(published, "recommendations")
    read = io.read_chunks
    looks: list[Any] = []

    def noted(folder: Path, columns: list[str], *args: Any, **kwargs: Any) -> Iterator[pa.Table]:
        looks.append(columns)
        return read(folder, columns, *args, **kwargs)

    monkeypatch.setattr(batches, "CHUNK_ROWS", 100)
    monkeypatch.setattr(io, "read_chunks", noted)
    found = findings.judge("recommendations", batch, gate.load("recommendations").suite(good.AS_OF))
    assert all(finding.success for finding in found)
    assert len(looks) == 1
    assert "sources" in looks[0], "their number is asked"
    assert "provenance" in batch.required
    assert "provenance" not in looks[0]


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_null_is_found_though_the_other_files_could_hold_none(
    published: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    rows = io.read_arrow(batch_of(published, "recommendations").folder)
    for number in range(3):
        some = rows.slice(number * 1_000, 1_000)
        kept = without(some, "provenance", 7) if number == part else some
        io.write_arrow(tmp_path / "recommendations", kept, number)
    batch = batch_of(published, "recommendations", tmp_path)
    monkeypatch.setattr(batches, "CHUNK_ROWS", 400)
    found = findings.judge("recommendations", batch, gate.load("recommendations").suite(good.AS_OF))
    failed = [f for f in found if not f.success]
    assert [(f.kwargs["column"], f.failing, f.rows) for f in failed] == [("provenance", 1, 3_000)]
    expected = rows.slice(part * 1_000 + 7, 1).to_pylist()[0]
    assert failed[0].samples[0]["person_id"] == expected["person_id"]
    assert failed[0].samples[0]["provenance"] is None


@pytest.mark.parametrize("name", ["recommendations", "features", "candidates", "ladder", "served"])
@pytest.mark.parametrize("limit", ["values", "hashes"])
def test_what_is_too_much_for_one_look_is_judged_all_the_same(
    published: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, limit: str
) -> None:
    rows = io.read_arrow(batch_of(published, name).folder)
    gap = without(rows, rows.schema.names[0], rows.num_rows // 2)
    io.write_arrow(tmp_path / name, pa.concat_tables([gap, rows.slice(0, 30).cast(gap.schema)]))
    batch, suite = batch_of(published, name, tmp_path), gate.load(name).suite(good.AS_OF)
    monkeypatch.setattr(batches, "CHUNK_ROWS", max(1, rows.num_rows // 7))
    found = [vars(finding) for finding in findings.judge(name, batch, suite)]
    if limit == "values":
        monkeypatch.setattr(witnesses, "MOST_VALUES", 0)
    else:
        monkeypatch.setattr(findings, "MOST_HASHES", 0)
    assert [vars(finding) for finding in findings.judge(name, batch, suite)] == found


def test_texts_are_found_alike_whether_few_or_many_are_looked_for(tmp_path: Path) -> None:
    known = [f"p{n:03}" for n in range(0, 200, 2)]
    io.write_arrow(tmp_path / "persons", pa.table({"person_id": known[::-1]}))
    keys = batches.Others(lambda name: tmp_path / name).keys(Found(("person_id",), "persons"))
    for several in (5, 300):  # of up to 100 known ones
        asked = pa.chunked_array([[*(f"p{n:03}" for n in range(several)), None, "", "zebra"]])
        expected = [value in known for value in asked.to_pylist()]
        assert keys.hold([asked]).tolist() == expected
        assert keys.hold([asked.dictionary_encode()]).tolist() == expected
