"""The benchmark of nightly fits: what each begins with, and that differences are paired."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp

from jobs.retrieval.embeddings import Params
from jobs.retrieval.matrix import Interactions
from tools import bench_als, paired

PARAMS = Params(factors=4, iterations=8)


def cut(seed: int, people: int = 60, items: int = 40) -> bench_als.Cut:
    """A shop of two tastes, of which a night changes a little; ``seed`` is its number."""
    drawn = np.random.default_rng(5).random((people, items))
    alike = (np.arange(people)[:, None] % 2) == (np.arange(items)[None, :] % 2)
    weights = np.where(alike & (drawn > 0.5), drawn, 0.0)
    changed = np.random.default_rng(seed).random((people, items))
    weights[alike & (changed > 0.97)] = 1.0
    known = sp.csr_matrix(weights.astype(np.float32))
    ids = [pa.array([f"{kind}{n:03d}" for n in range(count)])
           for kind, count in (("p", people), ("i", items))]  # fmt: skip
    bought = sp.csr_matrix(alike & (changed > 0.9))
    acted = np.arange(people) % 3 == 0
    last_times = np.where(changed > 0.97, seed, 0)[weights > 0]
    return bench_als.Cut(Interactions(known, last_times, *ids), bought, acted)


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return list(bench_als.nights([cut(n) for n in range(4)], PARAMS))


def test_every_night_but_the_first_is_fitted_in_every_way(rows):
    assert [(row["night"], row["name"]) for row in rows] == [
        (night, name) for night in (1, 2, 3) for _ in bench_als.SEEDS
        for name in ("cold", "stale", "folded", "nightly", "round")
    ]  # fmt: skip
    found = {name: np.mean([row["ndcg"].mean() for row in rows if row["name"] == name])
             for name in bench_als.NAMES}  # fmt: skip
    # Two tastes are found by whoever looks at all, and no two ways give the same answer.
    assert min(found.values()) > 0.7 * max(found.values()) > 0.1
    assert len({round(float(value), 9) for value in found.values()}) == len(found)
    assert len(bench_als.table(rows)) == 6 + len(bench_als.NAMES) + 8
    assert len(bench_als.summary(rows)) == len(rows)
    assert bench_als.drawing(rows).startswith("<svg")


def test_a_difference_is_a_share_of_the_other_over_the_same_people():
    def row(name: str, night: int, ndcg: list[float]) -> dict:
        return {"night": night, "name": name, "person": pa.array(["a", "b"]),
                "acted": np.array([True, False]), "ndcg": np.array(ndcg)}  # fmt: skip

    rows = [row("nightly", 1, [0.5, 0.2]), row("cold", 1, [0.4, 0.2]),
            row("nightly", 2, [0.2, 0.2]), row("cold", 2, [0.4, 0.2])]  # fmt: skip
    share, low, high = paired.compared(rows, "nightly", "cold")
    assert share == pytest.approx(-0.1 / 1.2)
    assert low <= share <= high == 0.0  # drawn may be b alone, whose lists are alike
    assert paired.compared(rows, "nightly", "cold", acted=False) == (0.0, 0.0, 0.0)
    assert paired.compared(rows, "nightly", "cold", night=1)[0] == pytest.approx(0.1 / 0.6)
