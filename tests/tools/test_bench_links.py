"""The benchmark of links: its shape, its arithmetic, and its quick contenders on a small graph."""

from __future__ import annotations

import numpy as np
import pytest

from jobs import io
from jobs.signals import components, identities, resolution
from tools import bench_links
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
