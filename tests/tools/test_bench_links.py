"""The benchmark of links: its shape, its arithmetic, and its quick contenders on a small graph."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from jobs import io
from jobs.signals import components, identities, resolution
from tools import bench, bench_links
from tools.bench_contenders import Watch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("links")
    size = bench_links.generate(20_000, made)
    assert size["links"] == 20_000
    assert 0.05 < size["guesses"] / size["links"] < 0.15
    return made


def test_the_numbered_links_are_the_candidates_and_hold_what_caps_are_for(folder):
    keys, candidates = io.read_arrow(folder / "keys"), io.read_arrow(folder / "candidates")
    edges = io.read_arrow(folder / "edges")
    graph = resolution.encode(keys, candidates, identities.Params().caps)
    assert np.array_equal(graph.left, edges["left"].to_numpy())
    assert np.array_equal(graph.right, edges["right"].to_numpy())
    found = components.resolve(graph, identities.Params().caps)
    assert set(found.verdicts.outcome) >= {components.ADMITTED, components.TOO_MANY_OF_TYPE}


def test_the_contenders_on_arrays_find_the_same_partition(folder):
    runs = []
    for name in ("scipy", "array"):
        out = folder / "found" / name
        more = bench_links.CONTENDERS[name](folder, out, Watch(), 60)
        runs.append({"name": name, **more})
    bench_links._compare(folder, runs)
    assert [run["same"] for run in runs] == [True, True]
    assert runs[1]["outcomes"]["admitted"] > 15_000


def test_the_contenders_on_spark_find_the_same_partition(session, tmp_path):
    bench_links.generate(500, tmp_path)
    runs = []
    for name, work in (
        ("scipy", bench_links.scipy), ("array", bench_links.array),
        ("stars", partial(bench_links.star, session)),
        ("propagation", partial(bench_links.propagate, session)),
        ("spark", partial(bench_links.whole, session)),
    ):  # fmt: skip
        out = tmp_path / "found" / name
        runs.append({"name": name, **work(tmp_path, out, Watch(), 600)})
    bench_links._compare(tmp_path, runs)
    assert [run["same"] for run in runs] == [True] * 5
    assert runs[3]["finished"]
    assert runs[3]["rounds"] > runs[2]["rounds"], "a round per link of the longest path"


def test_a_size_is_measured_in_processes_of_their_own_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_links, "COMPONENTS", ("scipy", "stars"))
    monkeypatch.setattr(bench_links, "ENGINES", ("array",))
    runs = bench_links.measure(2_000, tmp_path, 60, bench._sample)
    assert [run["name"] for run in runs] == ["scipy", "stars", "array"]
    assert all(run["same"] and run["memory"] > 10**7 for run in runs)
    assert all(run["run_seconds"] >= 0 and run["links"] == 2_000 for run in runs)
    assert list(tmp_path.iterdir()) == []
    rows = [line for line in bench_links.table([runs]) if line.startswith("| ")]
    assert len(rows) == 2 + len(runs)


def test_the_table_shows_growth_and_what_was_not_finished():
    def run(name: str, links: int, seconds: float, **more) -> dict:
        return {
            "name": name, "links": links, "keys": 9, "guesses": 1, "run_seconds": seconds,
            "run_processor": seconds, "memory": 2**30, "same": True, **more,
        }  # fmt: skip

    told = {"persons": 3, "outcomes": {"admitted": 7}}
    stopped = {"rounds": 4, "finished": False, "changed": 12, "same": None}
    lines = bench_links.table([
        [run("array", 10**6, 2.0, **told), run("propagation", 10**6, 9.0, rounds=30)],
        [run("array", 10**7, 30.0, **told), run("propagation", 10**7, 60.0, **stopped)],
    ])  # fmt: skip
    assert any("| 1.50 | yes |" in line for line in lines)
    assert any("stopped after 4 rounds in 60 s: 12 labels still changed" in line for line in lines)
    assert any("10 M links (1 of them guesses), 9 keys, 3 persons: 7 admitted." in x for x in lines)
