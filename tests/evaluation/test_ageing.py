"""Lists of unequal age hold what each table would have held, and are judged by hand-known rules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from jobs.evaluation import ageing
from jobs.evaluation.ageing import COLD, HOT, WARM, Cut, Ids, Named
from jobs.tables import SOURCES

T = datetime(2024, 3, 1, tzinfo=UTC)
IDS = Ids(pa.array(["p0", "p1"]), pa.array(["a", "b", "c", "d"]))
WEIGHTS = np.zeros(len(SOURCES))
BUY, FACTORS = SOURCES.index("buy_again"), SOURCES.index("collaborative")
WEIGHTS[BUY], WEIGHTS[FACTORS] = 0.7, 0.3


def named(*rows: tuple[str, str, float, float]) -> Named:
    """Rows of person, item and the signals of buy_again and collaborative."""
    signals = np.zeros((len(rows), len(SOURCES)), np.float32)
    signals[:, BUY] = [row[2] for row in rows]
    signals[:, FACTORS] = [row[3] for row in rows]
    people, items = (pa.array([row[n] for row in rows], pa.string()) for n in (0, 1))
    table = pa.table({"person_id": people, "item_id": items})
    pair = IDS.pairs(table)
    order = np.argsort(pair)
    return Named(pair[order], signals[order])


def listed(kind: str, fresh: Named, old: Named, person: int = 0) -> list[str]:
    """A person's items, best first."""
    pair, score = ageing.aged(kind, fresh, old, WEIGHTS)
    mine = pair // 4 == person
    order = np.argsort(-score[mine], kind="stable")
    return [IDS.items[int(item)].as_py() for item in (pair[mine] % 4)[order]]


FRESH = named(("p0", "a", 1.0, 0.0), ("p0", "b", 0.5, 0.0), ("p0", "c", 0.0, 1.0))
OLD = named(("p0", "b", 1.0, 0.0), ("p0", "a", 0.4, 0.0), ("p0", "d", 0.3, 0.8))


def test_aged_interactions_give_the_old_list():
    assert listed("interactions", FRESH, OLD) == ["b", "d", "a"]


def test_aged_candidates_are_the_old_pairs_in_the_fresh_order_and_the_unnamed_last():
    assert listed("candidates", FRESH, OLD) == ["a", "b", "d"]


def test_among_pairs_that_nobody_names_any_more_the_old_score_decides():
    old = named(("p0", "c", 0.2, 0.0), ("p0", "d", 0.9, 0.0), ("p0", "b", 0.1, 0.0))
    assert listed("candidates", named(("p0", "b", 0.1, 0.0)), old) == ["b", "d", "c"]
    assert listed("candidates", named(), old) == ["d", "c", "b"]


def test_aged_embeddings_change_the_word_of_the_vectors_alone():
    pair, score = ageing.aged("embeddings", FRESH, OLD, WEIGHTS)
    by_item = dict(zip((pair % 4).tolist(), score.tolist(), strict=True))
    assert by_item == pytest.approx({0: 0.7, 1: 0.35, 3: 0.24}), "c was named by the vectors alone"


@pytest.mark.parametrize("kind", ageing.KINDS)
def test_nothing_has_aged_where_the_tables_are_of_the_same_night(kind: str):
    assert listed(kind, FRESH, FRESH) == ["a", "b", "c"]


def test_equal_scores_keep_the_order_of_the_items():
    score = ageing.in_turn(np.array([1.0, 2.0, 1.0, 2.0]), np.array([5.0, 0.0, 5.0, 1.0]))
    assert np.argsort(-score, kind="stable").tolist() == [3, 1, 0, 2]


def test_tiers_follow_the_activity():
    active = pa.table({"item_id": ["d", "b", "a"], "days": [5, 3, 3]})
    assert ageing.tiers(active, IDS, 0.4).tolist() == [WARM, WARM, COLD, HOT]
    assert ageing.tiers(active, IDS, 0.5).tolist() == [HOT, WARM, COLD, HOT], "5 of 11 are too few"


def test_a_person_is_judged_by_what_they_bought_in_the_tier_over_the_cuts_that_say_something():
    later, earlier = T, T - timedelta(days=7)
    tier = np.array([HOT, WARM, WARM, COLD], np.int8)
    cuts = [
        Cut(later, IDS.pairs(pa.table({"person_id": ["p0", "p0"], "item_id": ["a", "d"]})), tier),
        Cut(earlier, IDS.pairs(pa.table({"person_id": ["p0"], "item_id": ["c"]})), tier),
    ]
    lists = {at: FRESH for at in (later, earlier, later - timedelta(days=1))}
    lists[earlier - timedelta(days=1)] = OLD
    values = ageing.judge(cuts, lists, WEIGHTS, (0, 1), IDS)
    assert values.shape == (3, 2, 4, 2, 2)
    third = 1 / np.log2(4)
    two = 1 + 1 / np.log2(3)
    assert values[0, 0, 0, 0].tolist() == pytest.approx([(1 / two + third) / 2, 1 / two / 2])
    assert values[0, 1, 0, 0].tolist() == pytest.approx([(0.5 + 1) / 2, 0.5 / 2])
    assert values[0, 0, HOT, 0].tolist() == [1, 1], "only the later cut had a hot purchase"
    assert values[0, 0, COLD, 0].tolist() == [0, 0], "d was bought and not listed"
    assert np.isnan(values[:, :, :, 1]).all(), "p1 bought nothing"
    assert (values[:, :, :, 0, 0] == values[:1, :, :, 0, 0]).all(), "age 0 is one list"
