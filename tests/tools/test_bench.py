"""The benchmark's own arithmetic, and its quick contenders on a matrix of a few people."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from itertools import pairwise

import numpy as np
import psutil
import pytest
import scipy.sparse as sp

from jobs.retrieval import embeddings
from tools import bench, bench_contenders


def measured(events: int, seconds: dict[str, float]) -> bench.Measured:
    return bench.Measured(events, seconds, seconds, dict.fromkeys(seconds, 2 * bench.GIB))


def test_growth_is_the_ratio_of_times_over_the_ratio_of_sizes():
    small = measured(1_000_000, {"source": 99.0, "events": 4.0, "events_gate": 1.0})
    large = measured(3_000_000, {"source": 999.0, "events": 25.0, "events_gate": 5.0})
    lines = bench.night_tables([small, large])
    assert "| events | 5.0 | 30.0 | 2.00 |" in lines
    assert "| **total** | 5 | 30 | 2.00 |" in lines
    assert "| processor seconds | 5 | 30 | 2.00 |" in lines
    assert "| peak memory, GiB | 2.0 | 2.0 |  |" in lines


def test_making_the_data_counts_neither_as_time_nor_as_memory_of_the_night():
    night = measured(1000, {"source": 50.0, "source_gate": 1.0, "events": 2.0})
    night.memory["source"] = 100 * bench.GIB
    assert night.total == 2.0
    assert night.peak == 2 * bench.GIB


def test_memory_that_a_child_shares_until_it_is_another_program_counts_once():
    program = (
        "import os, time; held = bytearray(200_000_000); os.fork(); "
        "os.write(1, b'1\\n'); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert [parent.stdout.readline() for _ in range(2)] == [b"1\n"] * 2
        root = psutil.Process(parent.pid)
        apart = sum(one.memory_info().rss for one in [root, *root.children()])
        assert 200_000_000 < bench.resident(root) < 300_000_000
        # Another program counts, whoever began it.
        both = bench.resident(psutil.Process())
        assert both > psutil.Process().memory_info().rss + bench.resident(root) * 0.9
        assert apart > bench.resident(root)
    finally:
        for one in [*psutil.Process(parent.pid).children(), parent]:
            one.kill()
        parent.communicate()


def test_recall_is_the_mean_share_of_what_each_buyer_bought():
    bought = sp.csr_matrix(np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0]], dtype=np.int8))
    people, items = np.array([0, 0, 1, 1, 2]), np.array([0, 2, 0, -1, 1])
    assert bench_contenders.recall(people, items, bought) == pytest.approx((0.5 + 0.0) / 2)


def test_ratios_compare_runs_of_the_same_round():
    def run(name: str, round_: int, seconds: float) -> dict:
        return {
            "name": name, "round": round_, "train_seconds": seconds, "lists_seconds": 0.0,
            "train_processor": seconds, "lists_processor": 0.0, "recall": 0.2,
            "memory": bench.GIB, "people": 2, "items": 3, "pairs": 4, "judged": 1,
        }  # fmt: skip

    runs = [run("pipeline", 0, 2.0), run("script", 0, 4.0), run("mllib", 0, 40.0)]
    runs += [run("script", 1, 3.0), run("pipeline", 1, 1.0)]
    table = bench.beside_table("a shop", runs)
    cells = [[cell.strip() for cell in line.split("|")] for line in table if line.startswith("| ")]
    assert [row[-2] for row in cells[2:]] == ["1.00", "2.50", "20.00"]


@pytest.mark.parametrize("values", [{"EVENTS": "many"}, {"EVENTS": "10"}, {"PARTS": "night,day"}])
def test_settings_that_make_no_sense_are_refused(values):
    with pytest.raises(SystemExit, match="error: "):
        bench._Settings.read(values)


def test_the_pipeline_and_the_script_find_the_same_lists(tmp_path, monkeypatch):
    # The script's vectors come near to the equations round by round, the pipeline's by steps alone.
    monkeypatch.setattr(embeddings, "Params", partial(embeddings.Params, steps=32))
    drawn = np.random.default_rng(3).random((60, 150))
    weights = sp.csr_matrix(np.where(drawn > 0.9, drawn, 0.0).astype(np.float32))
    sp.save_npz(tmp_path / "weights.npz", weights)
    found = [
        set(zip(*(part.tolist() for part in each(tmp_path)["lists"]), strict=True))
        for each in (bench_contenders.pipeline, bench_contenders.script)
    ]
    assert len(found[0]) == 60 * bench_contenders.DEPTH
    for one, other in pairwise(found):
        assert len(one & other) > 0.98 * len(one)
