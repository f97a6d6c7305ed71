"""The blend is at least as good as its best source on what it was tuned on."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.scoring import blend
from jobs.tables import SOURCES

# What another shop's people did, and these do not.
ELSEWHERE = {"popular": 1.0}


def judged(people: int, seed: int, strong: int = 0, helper: int = 1) -> blend.Judged:
    """People with 30 candidates each; ``strong`` ranks what they buy well, ``helper`` a little."""
    generator = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), 30)
    taste = generator.normal(size=len(person))
    bought = taste > 1.0
    signals = np.zeros((len(person), len(SOURCES)))
    for source, noise in ((strong, 0.8), (helper, 1.5)):
        score = taste + generator.normal(scale=noise, size=len(person))
        order = np.lexsort((-score, person)).reshape(people, 30)
        rank = np.empty(len(person))
        rank[order] = np.arange(1, 31)
        signals[:, source] = 4 / (3 + rank)
    wanted = np.bincount(person, bought, minlength=people).astype(int)
    keep = wanted > 0
    return blend.Judged(person, signals, bought, wanted).of(keep)


def test_the_blend_ranks_at_least_as_well_as_the_best_source_on_what_it_was_tuned_on():
    for seed in range(5):
        one = judged(60, seed)
        weights, best = blend.tune(one, 1.0, ELSEWHERE)
        assert one.ndcg(one.signals @ weights).mean() >= one.ndcg(one.alone(best)).mean()
        assert (weights >= 0).all()
        assert weights.sum() == pytest.approx(1.0)


def test_two_sources_that_know_different_things_beat_each_alone_on_people_not_seen():
    weights, best = blend.tune(judged(400, 1), 1.0, ELSEWHERE)
    others = judged(400, 2)
    reached = [others.ndcg(others.alone(source)).mean() for source in (0, 1)]
    assert best == 0
    assert others.ndcg(others.signals @ weights).mean() > reached[0] > reached[1]


def test_a_source_that_named_nothing_ranks_nothing():
    one = judged(20, 3)
    silent = SOURCES.index("editorial")
    assert one.ndcg(one.alone(silent)).sum() == 0
    assert one.recall(one.alone(silent), 20).sum() == 0


def test_noise_gets_no_weight():
    one = judged(300, 4)
    generator = np.random.default_rng(0)
    noise = SOURCES.index("trending")
    one.signals[:, noise] = 4 / (3 + generator.integers(1, 31, len(one.person)))
    weights, _ = blend.tune(one, 1.0, ELSEWHERE)
    assert weights[noise] < 0.05 * weights.max()


def test_the_prior_stands_where_what_was_tuned_is_not_ahead_by_more_than_chance():
    few = judged(30, 5)
    prior = {"buy_again": 2.0, "considered": 0.5}
    kept, best = blend.tune(few, 1.0, prior)
    assert kept.tolist() == pytest.approx([0.8, 0.2] + [0.0] * (len(SOURCES) - 2))
    assert best == 0
    wrong = {"buy_again": 0.1, "considered": 1.0}
    weights, _ = blend.tune(judged(300, 5), 1.0, wrong)
    assert weights[0] > weights[1]


def test_noise_alone_never_takes_the_prior_s_place():
    one = judged(40, 6)
    generator = np.random.default_rng(1)
    for source in range(len(SOURCES)):
        one.signals[:, source] = 4 / (3 + generator.integers(1, 31, len(one.person)))
    prior = {"buy_again": 1.0, "considered": 0.5, "popular": 0.1}
    weights, _ = blend.tune(one, 1.0, prior)
    assert weights.tolist() == pytest.approx((blend.of_sources(prior) / 1.6).tolist())


def test_without_prior_weights_the_tuned_ones_stand():
    weights, best = blend.tune(judged(30, 5), 1.0, {})
    assert weights.sum() == pytest.approx(1.0)
    assert weights[best] > 0
