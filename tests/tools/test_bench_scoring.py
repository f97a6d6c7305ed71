"""The benchmark of scoring: what it draws, what it scores, and how it tells growth."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from jobs import io
from jobs.ordering import recommendations
from jobs.signals.past import COLUMNS
from tools import bench_scoring

PEOPLE = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("scoring")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_scoring, "OF_HISTORY", 25)
        patch.setattr(bench_scoring, "OF_CANDIDATES", 10)
        bench_scoring.generate(made, PEOPLE)
    return made


def test_the_drawn_tables_are_in_the_form_of_the_nights_own(folder):
    history = io.read_arrow(folder / "history")
    assert set(COLUMNS) <= set(history.column_names)
    assert history["person_id"].to_pylist() == sorted(history["person_id"].to_pylist())
    assert pc.max(history["event_time"]).as_py() < bench_scoring.AS_OF
    named = io.read_arrow(folder / "candidates")
    distinct = named.select(["person_id", "item_id"]).group_by(["person_id", "item_id"])
    per_person = distinct.aggregate([]).group_by("person_id").aggregate([([], "count_all")])
    assert per_person["count_all"].to_pylist() == [bench_scoring.CANDIDATES] * PEOPLE
    triples = named.group_by(["person_id", "item_id", "source"]).aggregate([])
    assert triples.num_rows == named.num_rows


def test_every_candidate_has_a_score_that_no_block_changes(folder, monkeypatch):
    told = bench_scoring.score(folder, PEOPLE)
    assert told["rows"] == PEOPLE * bench_scoring.CANDIDATES
    assert set(told["stages"]) == set(bench_scoring.STAGES)
    whole = pq.read_table(folder / "scores.parquet")
    assert whole["person_id"].unique().equals(bench_scoring.person_ids(PEOPLE))
    scores = whole["score"].to_numpy()
    assert np.all((scores > 0) & (scores < 1))
    assert told["mean"] == pytest.approx(scores.mean())
    monkeypatch.setattr(recommendations, "BLOCK", 7)
    bench_scoring.score(folder, PEOPLE)
    assert pq.read_table(folder / "scores.parquet").equals(whole)


def test_an_exponent_of_one_grows_as_the_people():
    def run(people: int, seconds: float, memory: int) -> dict:
        stages = dict.fromkeys(bench_scoring.STAGES, seconds / 5)
        return {
            "people": people, "seconds": seconds, "processor": seconds, "stages": stages,
            "memory": memory,
        }  # fmt: skip

    lines = bench_scoring.table([run(50_000, 10.0, 2**30), run(100_000, 20.0, 2**30)])
    assert "| **together** | 10.0 | 20.0 | 1.00 |" in lines
    assert "| peak memory, GiB | 1.0 | 1.0 | 0.00 |" in lines
