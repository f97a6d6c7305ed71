"""Scores from features, probabilities from scores."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.scoring import blend, features, ranker, scorer
from jobs.scoring.scorer import Calibration, Scorer
from jobs.tables import FEATURES, SOURCES, TABLES
from tests.scoring import learnable

NO_MODELS = TABLES["ranker_models"].schema.empty_table()


def calibration_of(score: np.ndarray, bought: np.ndarray) -> Calibration:
    knots = scorer.calibrate(score, bought)
    return Calibration(knots["score"].to_numpy(), knots["logit"].to_numpy())


def test_probabilities_are_shares_of_what_was_bought():
    generator = np.random.default_rng(1)
    score = generator.normal(size=200_000)
    truth = 1 / (1 + np.exp(-(2 * score - 1)))
    found = calibration_of(score, generator.random(len(score)) < truth)
    inside = np.abs(score) < 1.5
    assert np.abs(found.probability(score) - truth)[inside].max() < 0.03


@given(st.lists(st.tuples(st.floats(-5, 5), st.booleans()), min_size=1, max_size=300))
def test_a_higher_score_is_never_a_lower_probability(rows):
    score = np.array([row[0] for row in rows])
    found = calibration_of(score, np.array([row[1] for row in rows]))
    assert (np.diff(found.score) > 0).all()
    assert (np.diff(found.logit) > 0).all()
    grid = np.linspace(-8, 8, 500)
    assert (np.diff(found.log_odds(grid)) >= 0).all()
    assert found.log_odds(np.array([9.0])) > found.log_odds(np.array([8.0]))
    assert found.log_odds(np.array([-9.0])) < found.log_odds(np.array([-8.0]))


def test_equal_scores_are_one_group_whatever_the_order_of_their_rows():
    score = np.repeat([0.0, 1.0], 100)
    bought = np.arange(200) % 10 < np.where(score > 0, 5, 1)
    order = np.random.default_rng(2).permutation(200)
    found = scorer.calibrate(score, bought)
    assert found.num_rows == 2
    assert found.equals(scorer.calibrate(score[order], bought[order]))


def test_nothing_judged_is_nothing_calibrated():
    knots = scorer.calibrate(np.zeros(0), np.zeros(0))
    assert knots.num_rows == 0
    weights = blend.weight_table({"buy_again": 2.0})
    rows = np.zeros((2, len(FEATURES)), np.float32)
    rows[1, FEATURES.index("buy_again_signal")] = 1.5
    assert Scorer.of(NO_MODELS, weights, knots).of_features(rows).tolist() == [0.0, 3.0]


@pytest.fixture(scope="module")
def trained():
    examples = ranker.Examples.of(learnable.tables(60)["examples"])
    return examples, ranker.train(examples, ranker.Params(trees=5, min_leaf=1), seed=3)


def test_a_saved_scorer_gives_the_scores_of_the_one_that_was_trained(trained, tmp_path):
    examples, members = trained
    models = ranker.model_table(members)
    raw = scorer.mean_margin(members, examples.values)
    knots = scorer.calibrate(raw, examples.bought)
    scorer.save(tmp_path, models, blend.weight_table({}), knots)
    loaded = Scorer.load(tmp_path)
    np.testing.assert_array_equal(loaded.score(examples.values), raw)
    published = Scorer.of(models, blend.weight_table({}), knots)
    np.testing.assert_array_equal(
        loaded.of_features(examples.values), published.of_features(examples.values)
    )
    assert (
        (loaded.of_features(examples.values) > 0) & (loaded.of_features(examples.values) < 1)
    ).all()


def test_a_saved_blend_is_linear(tmp_path):
    weights = blend.weight_table({source: 0.1 for source in SOURCES})
    scorer.save(tmp_path, NO_MODELS, weights, scorer.calibrate(np.zeros(0), np.zeros(0)))
    rows = np.ones((1, len(FEATURES)), np.float32)
    assert Scorer.load(tmp_path).of_features(rows)[0] == pytest.approx(0.1 * len(SOURCES))


def test_the_mean_of_the_members_ranks(trained):
    examples, members = trained
    each = [scorer.mean_margin([member], examples.values) for member in members]
    assert len(each) == 2
    assert not np.array_equal(*each)
    np.testing.assert_allclose(scorer.mean_margin(members, examples.values), np.mean(each, axis=0))
    assert scorer.mean_margin(members, examples.values[:0]).tolist() == []


def test_contributions_of_trees_add_up_to_the_margin_and_name_what_moves_it(trained):
    examples, members = trained
    found = Scorer(members, {}, Calibration(np.zeros(0), np.zeros(0)))
    rows = examples.values[:50]
    parts = found.contributions(rows)
    assert parts.shape == rows.shape
    rest = found.score(rows) - parts.sum(axis=1)
    np.testing.assert_allclose(rest, rest[0], atol=1e-5)
    # What no tree splits on adds nothing; of what moves the score, something does.
    split = {int(name[1:]) for one in members for name in one.get_score()}
    idle = [n for n in range(rows.shape[1]) if n not in split]
    assert np.abs(parts[:, idle]).max() == 0
    assert np.abs(parts).max() > 0
    assert found.contributions(rows[:0]).shape == (0, rows.shape[1])


def test_contributions_of_the_blend_are_weights_times_signals():
    weights = blend.weight_table({"buy_again": 2.0, "popular": 0.5})
    rows = np.full((2, len(FEATURES)), np.nan, np.float32)
    rows[:, [FEATURES.index(name) for name in features.SIGNALS]] = 0.0
    rows[1, FEATURES.index("buy_again_signal")] = 1.5
    rows[1, FEATURES.index("popular_signal")] = 1.0
    found = Scorer.of(NO_MODELS, weights, scorer.calibrate(np.zeros(0), np.zeros(0)))
    parts = found.contributions(rows)
    np.testing.assert_allclose(parts.sum(axis=1), found.score(rows))
    assert parts[1, FEATURES.index("buy_again_signal")] == 3.0
    assert np.count_nonzero(parts) == 2


def test_a_row_scores_alike_alone_and_among_others(trained):
    examples, members = trained
    whole = scorer.mean_margin(members, examples.values[:100])
    alone = [scorer.mean_margin(members, examples.values[n : n + 1])[0] for n in range(100)]
    np.testing.assert_array_equal(whole, alone)


def test_models_are_kept_as_text(trained):
    rows = ranker.model_table(trained[1]).to_pylist()
    assert [row["member"] for row in rows] == [0, 1]
    assert [row["trees"] for row in rows] == [5, 5]
    assert isinstance(pa.array([rows[0]["model"]])[0].as_py(), str)
