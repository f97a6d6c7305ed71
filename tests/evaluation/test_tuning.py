"""Settings are chosen on what was known before the judged cut, and the right one is found."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from jobs.evaluation import tuning
from jobs.evaluation.snapshot import DAY, Events, Snapshot, wanted
from jobs.filtering.allowed import Allowed

CUT = datetime(2024, 1, 1, tzinfo=UTC)
NOW = int(CUT.timestamp() * 1_000_000)
N_ITEMS = 60


def snapshot(person: np.ndarray, item: np.ndarray, age: np.ndarray) -> Snapshot:
    """One where each purchase is a basket, so many days before the cut."""
    n_people = int(person.max()) + 1
    time = NOW - (age * DAY).astype(np.int64)
    events = Events(person, item, np.arange(len(person)), time, time, n_people, N_ITEMS)
    judged = np.arange(n_people)
    after = wanted(judged, np.zeros(n_people, int), np.ones(n_people), judged, events)
    everything = Allowed(
        np.zeros(n_people, int), np.ones((1, N_ITEMS), bool), np.zeros(0, np.int64)
    )
    nothing = pa.table({})
    return Snapshot(
        CUT, pa.array([str(p) for p in judged]), pa.array([str(i) for i in range(N_ITEMS)]),
        N_ITEMS, events, judged, after, nothing, nothing, everything, 0, None,  # type: ignore[arg-type]
    )  # fmt: skip


def drifting(turn: float) -> Snapshot:
    """Each of 30 people bought ten items many times until ``turn`` days before the cut, and since
    then ten others, fewer times; they still buy the latter in the last 28 days."""
    person, item, age = [], [], []
    for each in range(30):
        start = each % 5
        for k in range(10):
            old, new = (start + k) % N_ITEMS, (start + 30 + k) % N_ITEMS
            days = np.r_[turn + 5 + 7.0 * np.arange(8), np.linspace(29, turn, 3), 5 + k]
            item += [old] * 8 + [new] * 4
            age += days.tolist()
            person += [each] * 12
    return snapshot(np.array(person), np.array(item), np.array(age))


def test_where_tastes_turned_lately_a_short_half_life_is_chosen():
    found = tuning.choose(drifting(50), 28, max_people=100, seed=1)
    assert found.half_life_days <= 30
    assert found.people == 30
    assert found.half_life_ndcg is not None
    assert found.half_life_ndcg > 0.99
    assert found.tifu_ndcg is not None
    assert found.tifu_ndcg > 0.9
    assert found.tifu in [
        tuning.Tifu(*key, count, alpha)
        for key in {(t.groups, t.group_decay, t.within_decay) for t in tuning.OWN_VECTORS}
        for count in tuning.NEIGHBOURS
        for alpha in tuning.ALPHAS
    ]


def test_tuning_sees_nothing_of_its_own_horizon_and_samples_alike():
    whole = drifting(50)
    then = tuning.earlier(whole, 28, 100, seed=1)
    assert then is not None
    assert then.purchases.age.min() > 0
    assert len(then.purchases.person) == (whole.events.known < NOW - 28 * DAY).sum()
    few = [tuning.earlier(whole, 28, 7, seed=1) for _ in range(2)]
    assert few[0] is not None
    assert few[1] is not None
    assert len(few[0].people) == 7
    assert (few[0].people == few[1].people).all()


def test_where_nobody_can_be_judged_earlier_the_defaults_stand():
    fresh = snapshot(np.array([0, 1]), np.array([3, 4]), np.array([2.0, 3.0]))
    assert tuning.choose(fresh, 28, 100, seed=1) == tuning.Chosen()
