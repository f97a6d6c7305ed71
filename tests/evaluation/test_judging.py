"""What lists reach with each person, worked by hand on two people and five items."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.evaluation import judging
from jobs.evaluation.judging import Column, Judge
from jobs.evaluation.snapshot import Wanted

ITEMS = 5
# Person 0 buys a again and, new, b and e; person 1 buys d, new; what they paid.
WANTED = Wanted(
    n_people=2, person=np.array([0, 0, 0, 1]), item=np.array([0, 1, 4, 3]),
    money=np.array([2.0, 8.0, 1.0, 0.0]), again=np.array([True, False, False, False]),
)  # fmt: skip
# Person 0 is listed c, a, b; person 1 d alone.
LISTS = np.array([[2, 0, 1], [3, -1, -1]])


@pytest.fixture
def judge() -> Judge:
    return Judge.of(
        WANTED, ITEMS, (2, 3), popularity=np.array([8, 4, 2, 0, 1]), buyers=8,
        category=np.array([0, 0, 1, 1, -1]),
    )  # fmt: skip


@pytest.fixture
def found(judge: Judge) -> dict[tuple[str, str, int], np.ndarray]:
    return {
        (column.metric, column.kind, column.length): values
        for column, values in judge.judge(LISTS, "homepage", "published", new_only=False)
    }


def test_all_purchases_count_whether_listed_or_not(found):
    assert found["recall", "all", 3] == pytest.approx([2 / 3, 1])
    assert found["precision", "all", 3] == pytest.approx([2 / 3, 1 / 3])
    ideal = 1 + 1 / np.log2(3) + 1 / 2
    assert found["ndcg", "all", 3] == pytest.approx([(1 / np.log2(3) + 1 / 2) / ideal, 1])
    assert found["map", "all", 3] == pytest.approx([(1 / 2 + 2 / 3) / 3, 1])
    assert found["hit_rate", "all", 2] == pytest.approx([1, 1])


def test_a_person_counts_where_there_is_something_of_the_kind(found):
    assert found["recall", "again", 2][0] == 1
    assert np.isnan(found["recall", "again", 2][1]), "person 1 bought nothing again"
    assert found["recall", "new", 3] == pytest.approx([1 / 2, 1])
    assert found["recall", "new", 2] == pytest.approx([0, 1])


def test_revenue_gains_what_was_paid_for_the_item(found):
    ideal = 8 + 2 / np.log2(3) + 1 / 2
    assert found["revenue_ndcg", "all", 3][0] == pytest.approx((2 / np.log2(3) + 8 / 2) / ideal)
    assert np.isnan(found["revenue_ndcg", "all", 3][1]), "nothing was paid"


def test_a_list_of_new_items_is_judged_by_new_purchases_alone(judge):
    kinds = {column.kind for column, _ in judge.judge(LISTS, "x", "baseline", new_only=True)}
    assert kinds == {"new", "listed"}


def test_what_is_listed_is_popular_surprising_and_varied(found):
    assert found["popularity", "listed", 3] == pytest.approx([(2 + 8 + 4) / 3, 0])
    # Of four items ever bought: c has one below it and itself half, a three and a half, b two.
    assert found["popularity_percentile", "listed", 3][0] == pytest.approx(
        (1.5 + 3.5 + 2.5) / 4 / 3
    )
    # Shares of the 8 buyers: 2, 8 and 4; an item without any counts as one.
    assert found["novelty", "listed", 3] == pytest.approx([(2 + 0 + 1) / 3, 3])
    # c, a, b are of the categories 1, 0, 0: two of three pairs differ.
    assert found["category_spread", "listed", 3][0] == pytest.approx(2 / 3)
    assert np.isnan(found["category_spread", "listed", 3][1]), "one item has no pairs"


def test_items_of_unknown_category_are_like_no_others():
    one = Judge.of(WANTED, ITEMS, (2,), np.ones(ITEMS), 1, np.full(ITEMS, -1))
    found = {c.metric: v for c, v in one.judge(np.array([[0, 1], [2, 3]]), "x", "x", False)}
    assert found["category_spread"].tolist() == [1, 1]


def test_recall_of_a_source_alone_and_what_is_lost_without_it():
    sources = {
        # Person 0: a best, then b; person 1: nothing.
        "one": (np.array([0, 0]), np.array([1, 0]), np.array([2, 1])),
        # Person 0: c, then a; person 1: d.
        "two": (np.array([0, 0, 1]), np.array([2, 0, 3]), np.array([1, 2, 7])),
    }
    found = dict(judging.named(sources, WANTED, ITEMS, (0, 1)))

    def value(source: str, metric: str, kind: str, depth: int) -> np.ndarray:
        return found[Column(source, "source", False, metric, kind, depth)]

    assert value("one", "named", "all", 0) == pytest.approx([2 / 3, 0])
    assert value("two", "named", "all", 0) == pytest.approx([1 / 3, 1])
    assert value("all sources", "named", "all", 0) == pytest.approx([2 / 3, 1])
    assert value("one", "named_only_by", "all", 0) == pytest.approx([1 / 3, 0]), "a is in both"
    assert value("two", "named_only_by", "all", 0) == pytest.approx([0, 1])
    assert value("one", "named", "new", 1) == pytest.approx([0, 0]), "its best is a, bought again"
    assert value("one", "named", "all", 1) == pytest.approx([1 / 3, 0])
    assert np.isnan(value("two", "named", "again", 0)[1])
    for kind in judging.KINDS:
        for source in sources:
            without = {name: rows for name, rows in sources.items() if name != source}
            rest = dict(judging.named(without, WANTED, ITEMS, (0,)))
            lost = value("all sources", "named", kind, 0) - rest[
                Column("all sources", "source", False, "named", kind, 0)
            ]  # fmt: skip
            assert value(source, "named_only_by", kind, 0) == pytest.approx(lost, nan_ok=True)
