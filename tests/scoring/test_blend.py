"""The blend is tuned on days it may see and judged on people it has not."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from jobs.errors import Fault
from jobs.ordering import blend
from jobs.tables import SOURCES
from tests.conftest import AS_OF


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
        weights, best = blend.tune(one, shrinkage=1.0)
        assert one.ndcg(one.signals @ weights).mean() >= one.ndcg(one.alone(best)).mean()
        assert (weights >= 0).all()
        assert weights.sum() == pytest.approx(1.0)


def test_two_sources_that_know_different_things_beat_each_alone_on_people_not_seen():
    weights, best = blend.tune(judged(400, 1), shrinkage=1.0)
    rows = {r["ranking"]: r for r in blend.evidence(judged(400, 2), weights, best, 7).to_pylist()}
    assert SOURCES[best] == SOURCES[0]
    assert (
        rows["blend"]["ndcg_at_10"]
        > rows[SOURCES[0]]["ndcg_at_10"]
        > rows[SOURCES[1]]["ndcg_at_10"]
    )
    assert rows["blend"]["difference_low"] > 0
    assert rows["blend"]["ndcg_low"] < rows["blend"]["ndcg_at_10"] < rows["blend"]["ndcg_high"]


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
    weights, _ = blend.tune(one, shrinkage=1.0)
    assert weights[noise] < 0.05 * weights.max()


def test_the_cut_leaves_a_quarter_of_a_short_history(session):
    def history(days: int):
        return session.createDataFrame([(AS_OF - timedelta(days=days),)], "event_time timestamp")

    assert blend.cut_before(history(300), AS_OF, 28) == AS_OF - timedelta(days=28)
    assert blend.cut_before(history(40), AS_OF, 28) == AS_OF - timedelta(days=10)


def test_the_sample_is_the_same_whatever_the_order_of_the_rows(session):
    ids = [f"account:{i}" for i in range(50)]
    forward = session.createDataFrame([(i,) for i in ids], "person_id string")
    backward = session.createDataFrame([(i,) for i in ids[::-1]], "person_id string")
    one = blend.sample(forward, forward, seed=1, count=10)["person_id"].to_pylist()
    assert one == blend.sample(backward, backward, seed=1, count=10)["person_id"].to_pylist()
    assert one != blend.sample(forward, forward, seed=2, count=10)["person_id"].to_pylist()


def test_arrays_stand_in_the_order_of_people_and_items():
    nominated = pa.table(
        {
            "person_id": ["b", "a", "b", "b"], "item_id": ["2", "1", "1", "2"],
            "source": ["buy_again", "popular", "buy_again", "popular"], "rank": [1, 1, 5, 13],
        }
    )  # fmt: skip
    bought = pa.table({"person_id": ["b", "b", "b"], "item_id": ["2", "3", "4"]})
    found = blend.as_arrays(nominated, bought, pa.chunked_array([["b", "a"]]))
    assert found.person.tolist() == [0, 0, 1]
    assert found.signals[:, SOURCES.index("buy_again")].tolist() == [0.5, 1.0, 0.0]
    assert found.signals[:, SOURCES.index("popular")].tolist() == [0.0, 0.25, 1.0]
    assert (found.bought.tolist(), found.wanted.tolist()) == ([False, True, False], [3, 0])


def test_a_candidate_of_a_stranger_is_a_fault():
    nominated = pa.table({"person_id": ["c"], "item_id": ["1"], "source": ["popular"], "rank": [1]})
    nothing = nominated.select(["person_id", "item_id"]).slice(1)
    with pytest.raises(Fault, match="person of candidates: 1 ids are not known, the first is 'c'"):
        blend.as_arrays(nominated, nothing, pa.chunked_array([["b"]]))
