"""Numbers over people and over cuts, and their intervals."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from jobs.evaluation import summary
from jobs.evaluation.backtest import Judged
from jobs.evaluation.judging import Column

PUBLISHED = Column("homepage", "published", False, "ndcg", "all", 2)
SIMPLE = Column("popularity", "baseline", False, "ndcg", "all", 2)


def judged(
    day: int, people: list[str], values: list[list[float]], *columns: Column,
    lists: dict | None = None, segments: dict | None = None,
) -> Judged:  # fmt: skip
    return Judged(
        datetime(2024, 1, day, tzinfo=UTC), pa.array(people), columns,
        np.array(values, np.float32), segments or {}, lists or {}, 10, 4, {},
    )  # fmt: skip


def row(measured: pa.Table, **wanted: object) -> dict:
    found = [r for r in measured.to_pylist() if all(r[n] == v for n, v in wanted.items())]
    assert len(found) == 1
    return found[0]


def test_a_number_is_the_mean_over_those_judged_and_over_cuts_the_mean_of_the_cuts():
    nan = float("nan")
    cuts = [
        judged(1, ["a", "b", "c"], [[1, 0], [0, 0], [nan, nan]], PUBLISHED, SIMPLE),
        judged(2, ["a", "c"], [[1, 1], [1, 0]], PUBLISHED, SIMPLE),
    ]
    measured = summary.measures(cuts, 200, seed=1)
    first = row(measured, cut="2024-01-01", ranking="homepage")
    assert (first["value"], first["people"], first["difference"]) == (0.5, 2, None)
    whole = row(measured, cut="mean", ranking="popularity")
    assert (whole["value"], whole["people"]) == (0.25, 4)
    assert whole["difference"] == pytest.approx(0.75 - 0.25)
    assert measured.schema == summary.MEASURES.schema


def test_differences_are_paired():
    """Two lists that vary together differ by little, though each alone is uncertain."""
    generator = np.random.default_rng(3)
    one = generator.random(400)
    values = np.c_[one + 0.01, one].tolist()
    people = [f"p{n:03d}" for n in range(400)]
    measured = summary.measures([judged(1, people, values, PUBLISHED, SIMPLE)], 300, seed=1)
    found = row(measured, cut="mean", ranking="popularity")
    assert found["high"] - found["low"] > 0.03
    assert found["difference_low"] == pytest.approx(0.01, abs=1e-4)
    assert found["difference_high"] == pytest.approx(0.01, abs=1e-4)


def test_the_interval_is_that_of_the_plain_bootstrap():
    from jobs.evaluation import metrics

    values = np.random.default_rng(4).random(300)
    people = [f"p{n:03d}" for n in range(300)]
    cut = judged(1, people, values[:, None].tolist(), PUBLISHED)
    found = row(summary.measures([cut], 1_000, seed=1), cut="mean")
    low, high = metrics.interval(values, seed=9)
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=0.004)


def test_coverage_counts_listed_items_and_its_interval_lies_around_it():
    lists = {("homepage", "published", False): np.array([[0, 1], [1, 2], [3, -1]])}
    cut = judged(1, ["a", "b", "c"], [[1], [1], [1]], PUBLISHED, lists=lists)
    measured = summary.measures([cut], 300, seed=1)
    found = row(measured, cut="mean", metric="coverage")
    assert found["value"] == pytest.approx(4 / 10)
    assert found["low"] <= found["value"] <= found["high"]
    assert row(measured, cut="mean", metric="coverage_of_active")["value"] == 1.0


def test_a_segment_is_judged_by_its_people_alone():
    segments = {("region", "north"): np.array([True, False, False])}
    cut = judged(1, ["a", "b", "c"], [[1], [0], [0]], PUBLISHED, segments=segments)
    measured = summary.measures([cut], 100, seed=1)
    found = row(measured, cut="mean", segment="north")
    assert (found["value"], found["people"], found["low"], found["high"]) == (1, 1, 1, 1)


def test_lists_of_new_items_are_held_against_the_surface_made_for_them():
    def column(name: str, role: str) -> Column:
        return Column(name, role, True, "ndcg", "new", 2)

    both = [column("homepage", "published"), column("discover", "published"), column("ALS", "x")]
    cut = judged(1, ["a", "b"], [[0, 1, 0.5]] * 2, *both)
    found = row(summary.measures([cut], 100, seed=1), cut="mean", ranking="ALS")
    assert found["difference"] == pytest.approx(0.5)
    cut = judged(1, ["a", "b"], [[0, 0.5]] * 2, both[0], both[2])
    found = row(summary.measures([cut], 100, seed=1), cut="mean", ranking="ALS")
    assert found["difference"] == pytest.approx(-0.5)


def test_the_headline_has_a_row_for_each_list_but_not_for_sources():
    source = Column("buy_again", "source", False, "ndcg", "all", 2)
    cut = judged(1, ["a", "b"], [[1, 0, 1], [0, 0, 1]], PUBLISHED, SIMPLE, source)
    names, rows = summary.headline(summary.measures([cut], 100, seed=1))
    assert set(rows) == {"homepage", "popularity"}
    assert rows["homepage"][names.index("NDCG@2")].value == 0.5
    assert rows["popularity"][-1].value == 0.5
    assert rows["homepage"][-1].value is None
