"""The deep ranker learns from the same examples, keeps as text, and scores without its package."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from jobs.errors import Fault
from jobs.io import Lake
from jobs.scoring import deep, ranker, scorer
from jobs.scoring.deep import Deep
from tests.scoring import learnable
from tests.scoring.test_ranker import SMALL, evidence, trained

NETWORK = deep.Params(bins=4, width=4, hidden=16, rows=512, epochs=6, rate=0.01)


def points(size: int = 4_000, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Four features, the last unknown in half of the rows, and labels that follow the product of
    the first two, and the fourth being known."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(size, 4)).astype(np.float32)
    unknown = generator.random(size) < 0.5
    values[unknown, 3] = np.nan
    odds = 3.0 * values[:, 0] * values[:, 1] + 2.0 * unknown - 1.0
    return values, (generator.random(size) < 1 / (1 + np.exp(-odds))).astype(np.float64)


@pytest.fixture(scope="module")
def member() -> Deep:
    values, label = points()
    return deep.train(values, label, np.ones(len(label)), NETWORK, seed=3)


def test_a_product_of_features_and_what_is_unknown_are_learned(member: Deep) -> None:
    values, label = points(seed=2)
    margin = member.margin(values)
    assert ((margin > 0) == (label > 0)).mean() > 0.75
    by_sign = values[:, 0] * values[:, 1] > 0
    assert margin[by_sign].mean() > margin[~by_sign].mean() + 1
    unknown = np.isnan(values[:, 3])
    assert margin[unknown].mean() > margin[~unknown].mean() + 0.5


def test_a_feature_matters_by_what_is_lost_without_it(member: Deep) -> None:
    values, label = points(seed=2)
    risen = deep.importance([member, member], values, label, seed=1)
    assert (risen[[0, 1, 3]] > 0.05).all()
    assert 0 <= risen[2] < 0.02, "nothing follows the third"
    assert (values == points(seed=2)[0])[np.isfinite(values)].all()


def test_contributions_add_up_to_what_is_more_than_nothing_known(member: Deep) -> None:
    values, _ = points(200, seed=5)
    parts = deep.contributions(member, values)
    nothing = member.margin(np.full((1, 4), np.nan, np.float32))
    np.testing.assert_allclose(parts.sum(axis=1), member.margin(values) - nothing, atol=1e-4)
    # The third tells nothing; a product is shared by its two features.
    size = np.abs(parts).mean(axis=0)
    assert size[2] < 0.5 * size[[0, 1]].min()
    assert (parts == deep.contributions(member, values)).all()


def test_one_seed_gives_the_same_bits_and_another_one_others(member: Deep) -> None:
    values, label = points()
    again, other = (deep.train(values, label, np.ones(len(label)), NETWORK, s) for s in (3, 4))
    assert again.to_json() == member.to_json() != other.to_json()


def test_the_text_gives_the_member_back_and_the_scorer_knows_it(member: Deep) -> None:
    found = scorer.loaded(member.to_json())
    assert isinstance(found, Deep)
    values, _ = points(100)
    np.testing.assert_array_equal(found.margin(values), member.margin(values))


def test_a_row_scores_the_same_whatever_rows_stand_around_it(member: Deep) -> None:
    values, _ = points(200)
    alone = np.concatenate([member.margin(values[n : n + 1]) for n in range(200)])
    np.testing.assert_allclose(alone, member.margin(values), rtol=1e-5, atol=1e-5)


def test_the_forward_pass_is_the_models_sum() -> None:
    """Two features of two bins: their weights, the product of their embeddings, and the network."""
    weights = deep.start(2, 0.5, deep.Params(bins=2, width=2, hidden=2), np.random.default_rng(0))
    edges = np.array([[0, 1, 2], [0, 0, 0]], np.float32)
    rows = deep.inputs(edges, np.array([[0.5, np.nan], [3.0, 0.0]], np.float32))
    assert rows["bin"].tolist() == [[1, 3], [2, 5]]
    np.testing.assert_allclose(rows["place"], [[-0.5, 0.0], [1.0, 0.0]])
    for row in range(2):
        first, second = (
            weights["bin"][rows["bin"][row, f]] + rows["place"][row, f] * weights["place"][f]
            for f in range(2)
        )
        together = np.concatenate([first[1:], second[1:], rows["place"][row]])
        hidden = together
        for name in ("hidden_1", "hidden_2"):
            layer = weights[name]
            hidden = np.maximum(hidden @ layer[:-1] + layer[-1], 0)
        out = hidden @ weights["out"][:-1, 0] + weights["out"][-1, 0]
        expected = first[0] + second[0] + first[1:] @ second[1:] + out
        found = deep.forward(
            weights, {name: column[row : row + 1] for name, column in rows.items()}, np
        )
        assert float(found[0]) == pytest.approx(float(expected), rel=1e-5)


def test_it_is_judged_beside_the_trees_where_it_is_on_and_nowhere_else(lake: Lake) -> None:
    found = trained(lake, learnable.tables(150), ranker.Params(**vars(SMALL) | {"deep": True}))
    rows = evidence(found)
    assert rows["deep"]["ndcg_at_10"] > rows["buy_again"]["ndcg_at_10"]
    assert rows["deep"]["people"] == rows["ranker"]["people"]
    best = max(("deep", "ranker", "blend"), key=lambda name: rows[name]["ndcg_at_10"])
    assert [name for name, row in rows.items() if row["published"]] == [best]


def test_where_it_ranks_best_it_is_what_is_published(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    constant = lambda examples, params, seed: []  # noqa: E731
    monkeypatch.setattr(ranker, "train", constant)
    monkeypatch.setattr(
        scorer, "mean_margin",
        lambda members, rows: members[0].margin(rows) if members else np.zeros(len(rows)),
    )  # fmt: skip
    found = trained(lake, learnable.tables(150), ranker.Params(**vars(SMALL) | {"deep": True}))
    assert [row["published"] for row in found["ranking_evidence"].to_pylist()
            if row["ranking"] == "deep"] == [True]  # fmt: skip
    gains = {row["feature"]: row["gain"] for row in found["feature_importance"].to_pylist()}
    assert gains["due"] + gains["affinity"] > 0.5
    assert sum(gains.values()) == pytest.approx(1.0)
    models = found["ranker_models"]
    assert all(isinstance(scorer.loaded(text), Deep) for text in models["model"].to_pylist())
    scorer.save(tmp_path, models, found["blend_weights"], found["calibration"])
    kept = scorer.Scorer.load(tmp_path)
    assert kept.members[0].to_json() == models["model"][0].as_py()


def test_without_the_package_the_error_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", absent)
    values, label = points(100)
    with pytest.raises(Fault, match=r"ranker\.deep is on .* jax .* `make neural`"):
        deep.train(values, label, np.ones(100), NETWORK, seed=1)
