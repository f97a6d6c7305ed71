"""The KPIs of a shop small enough to count by hand, and the step as a whole."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs import io
from jobs.diagnosis import clusters
from jobs.diagnosis.definitions import SLICES
from jobs.diagnosis.kpis import kpi_cells, kpis
from jobs.diagnosis.kpis.kpi_cells import Cells, Coded
from jobs.evaluation.metrics import wilson
from jobs.io import Lake
from jobs.night import Night
from tests.conftest import AS_OF
from tests.diagnosis import visit_log
from tests.diagnosis.visit_log import AGREED, TODAY, published
from tests.expectations import good


def place(request: str, visitor: str, item: str, **more: Any) -> dict[str, Any]:
    return {"request_id": request, "visitor": visitor, "item_id": item, "latency_ms": 10.0, **more}


def visit(visitor: str, **more: Any) -> dict[str, Any]:
    return {"visitor": visitor, **more}


SERVED = [
    place("a", "ann", "i1", clicked=True),
    place("a", "ann", "i2", position=2, clicked=True, fallback="filled"),
    place("b", "ann", "i1", surface="basket", latency_ms=None, experiment="x", arm="new"),
    place("c", "bob", "i3", fallback="stranger", region="south", latency_ms=30.0),
    place("d", "cy", "i1", release_id="older"),
    place("e", "cy", "i4", fallback="stranger"),
]
VISITS = [
    visit("ann", orders=2, revenue=30.0, returning=True),
    visit("ann", orders=2, revenue=30.0, returning=True, experiment="x", arm="new"),
    visit("bob", region="south", orders=1, revenue=6.0),
    visit("cy"),
]


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake(tmp_path / "lake").open()


def shop(lake: Lake, agreed: dict[str, Any] = AGREED) -> Lake:
    return published(
        lake, agreed, 8, served=visit_log.served(SERVED), visits=visit_log.visits(VISITS)
    )


def run(lake: Lake) -> Night:
    step = Night(lake, AS_OF, "one", "small", "kpis")
    step.reset()
    kpis.run(step, step.params_of("kpis"))
    return step


def read(step: Night) -> dict[tuple[str, ...], dict[str, Any]]:
    rows = io.read_arrow(step.staged / "kpis").to_pylist()
    return {
        (row["group_kind"], row["group"], row["segment"], row["measure"]): row
        for row in rows
        if row["period"] == "current"
    }


def test_texts_are_coded_across_chunks_and_nulls_are_none():
    coded = Coded.of(pa.chunked_array([["b", None], ["a", "b"]]))
    assert [coded.names[code] for code in coded.codes if code >= 0] == ["b", "a", "b"]
    assert coded.codes[1] == -1
    assert Coded.of(pa.chunked_array([], pa.string())).codes.size == 0


def test_a_cell_is_named_as_it_was_made():
    group, segment = Coded(np.array([0, 1, -1]), ["g", "h"]), Coded(np.array([1, 0, 0]), ["s", "t"])
    cells = Cells.of(group, segment, np.array([2, 0, 1]))
    assert cells.codes[2] == -1
    assert cells.named(int(cells.codes[0])) == {"group": "g", "segment": "t", "period": "last_year"}
    assert cells.named(int(cells.codes[1])) == {"group": "h", "segment": "s", "period": "current"}
    assert cells.count().sum() == 2


def test_the_most_frequent_segments_are_told_and_the_rest_as_one():
    many = Coded(np.array([0, 1, 1, 2, 3, 3, 3, -1, 4, 4, 4, 4]), ["a", "b", "c", "d", "other"])
    names = many.frequent(3)
    assert names == ["d", "b", "other"]
    few = many.among(names)
    assert [few.names[code] for code in few.codes[[0, 1, 3, 4, 8]]] == [
        "other", "b", "other", "d", "other",
    ]  # fmt: skip
    assert few.codes[7] == -1
    assert many.frequent(5) == many.names


def test_items_are_counted_once_in_a_cell():
    generator = np.random.default_rng(0)
    shown = kpi_cells.Shown(generator.integers(0, 50, 400), generator.integers(0, 30, 400))
    cell = generator.integers(-1, 9, 50)
    expected = [len(set(shown.item[cell[shown.request] == c])) for c in range(9)]
    assert shown.distinct(cell, 9).tolist() == expected


def test_answers_of_another_release_than_most_of_the_days_are_the_previous():
    release, surface = np.array([0, 0, 1, 1, 1, 0]), np.array([0, 0, 0, 0, 1, 1])
    day = np.array([1, 1, 1, 2, 2, 2])
    found = kpi_cells.newest(release, surface, day).codes
    assert found.tolist()[:4] == [0, 0, 1, 0]
    assert sorted(found[4:]) == [0, 1]


def test_the_kpis_of_a_small_shop_are_those_counted_by_hand(lake):
    found = read(run(shop(lake)))
    whole = {key[3]: row for key, row in found.items() if key[:3] == ("all", "all", "all")}
    values = {name: row["value"] for name, row in whole.items()}
    assert values == pytest.approx({
        "requests": 5, "ctr": 2 / 5, "coverage": 4 / 8, "visits": 3, "visitors": 3,
        "latency_p95": np.quantile([10, 10, 10, 30], 0.95), "conversion": 2 / 3,
        "revenue_per_session": 36 / 3, "average_order_value": 36 / 3,
        "returning_customers": 1 / 2,
    })  # fmt: skip
    assert {row["visits"] for row in whole.values()} == {3}
    low, high = wilson(2, 3)
    assert low < whole["conversion"]["value"] < high
    assert whole["coverage"]["low"] is None


def test_groups_and_segments_stand_beside_the_whole(lake):
    found = read(run(shop(lake)))
    assert found["surface", "basket", "all", "requests"]["value"] == 1
    assert ("surface", "basket", "all", "conversion") not in found
    assert ("surface", "basket", "all", "latency_p95") not in found  # none was logged
    assert found["arm", "x: new", "all", "revenue_per_session"]["value"] == 30
    assert found["arm", "x: new", "all", "requests"]["value"] == 1
    assert found["answers", "fallback", "all", "requests"]["value"] == 2
    assert found["answers", "fallback", "south", "coverage"]["value"] == 1 / 8
    # Ann's answers were personal, one filled up; Bob's a fallback; Cy had both.
    assert found["answers", "personal", "all", "visits"]["value"] == 1
    assert found["answers", "fallback", "all", "revenue_per_session"]["value"] == 6
    assert found["all", "all", "south", "conversion"]["value"] == 1


def test_segments_that_a_visit_has_several_of_are_named(lake):
    agreed = AGREED | {"segments": ["region", "category", "channel", "surface"]}
    step = run(shop(lake, agreed))
    assert step.notes["not_by"].startswith("category, channel, surface: ")
    kinds = {row["segment_kind"] for row in io.read_arrow(step.staged / "kpis").to_pylist()}
    assert kinds == {"all", "region"}


def test_every_segment_that_can_be_agreed_is_told_or_named():
    assert set(SLICES) == {*kpi_cells.SEGMENTS, *kpi_cells.NOT_OF_VISITS}


def test_a_baseline_that_is_the_previous_release_is_a_group(lake):
    step = run(shop(lake, AGREED | {"baseline": "previous_release"}))
    found = read(step)
    assert found["release", "previous", "all", "requests"]["value"] == 1
    assert found["release", "newest", "all", "visits"]["value"] == 2  # Cy's answers were of both
    assert step.notes["baseline"] == "release: previous"


def weeks(seed: int = 0) -> tuple[pa.Table, pa.Table]:
    """Six weeks of 150 requests a day, 60 different items among them."""
    generator = np.random.default_rng(seed)
    number = np.arange(42 * 150)
    day = [TODAY - timedelta(days=41 - int(n // 150)) for n in number]
    period = np.where(number // 150 < 28, "reference", "current").tolist()
    people = [f"p{n}" for n in generator.integers(0, 3_000, len(number))]
    served = visit_log.served({
        "request_id": [f"r{n}" for n in number], "visitor": people, "day": day, "period": period,
        "item_id": [f"i{n}" for n in generator.integers(0, 60, len(number))],
    })  # fmt: skip
    keys = sorted(set(zip(people, day, period, strict=True)))
    bought = generator.random(len(keys)) < 0.3
    visits = visit_log.visits({
        "visitor": [key[0] for key in keys], "day": [key[1] for key in keys],
        "period": [key[2] for key in keys], "orders": bought.astype(int).tolist(),
        "revenue": (bought * 5.0).tolist(),
    })  # fmt: skip
    return served, visits


def symptoms_of(
    lake: Lake, served: pa.Table, visits: pa.Table, **more: pa.Table
) -> list[tuple[str, bool]]:
    published(lake, AGREED, 60, served=served, visits=visits, **more)
    step = run(lake)
    rows = io.read_arrow(step.staged / "kpis_symptoms").to_pylist()
    return sorted((row["subject"], row["warning"]) for row in rows)


def judged_against(
    lake: Lake, of_fallback: float, visits: int = 900, baseline: str = "fallback"
) -> tuple[dict[tuple[str, str], dict[str, Any]], list[dict[str, Any]]]:
    """Visits, every third answered by a fallback, of which so many buy; 0.3 of the others do."""
    generator = np.random.default_rng(4)
    fallback = np.arange(visits) % 3 == 0
    region = np.where(np.arange(visits) % 2 == 0, "north", "south")
    bought = generator.random(visits) < np.where(fallback, of_fallback, 0.3)
    came = {"visitor": [f"v{n}" for n in range(visits)], "region": region.tolist()}
    published(
        lake, AGREED | {"kpi": "conversion", "baseline": baseline}, 8,
        served=visit_log.served({
            **came, "request_id": [f"r{n}" for n in range(visits)], "item_id": ["i1"] * visits,
            "fallback": np.where(fallback, "stranger", None).tolist(),
            "release_id": np.where(fallback, "older", "r").tolist(),
        }),
        visits=visit_log.visits({**came, "orders": bought.astype(int).tolist()}),
    )  # fmt: skip
    step = run(lake)
    rows = io.read_arrow(step.staged / "baseline_verdicts").to_pylist()
    told = io.read_arrow(step.staged / "kpis_symptoms").to_pylist()
    return {(row["segment_kind"], row["segment"]): row for row in rows}, told


def kinds(told: list[dict[str, Any]]) -> list[tuple[str, str, bool]]:
    return [(row["kind"], row["subject"], row["warning"]) for row in told]


@pytest.mark.parametrize("baseline", ["fallback", "popularity", "previous_release"])
def test_a_model_that_beats_what_it_replaced_is_called_better(lake, baseline):
    rows, told = judged_against(lake, 0.1, baseline=baseline)
    whole = rows["all", "all"]
    assert (whole["visits_model"], whole["visits_baseline"]) == (600, 300)
    assert whole["verdict"] == "better"
    assert 0 < whole["low"] < whole["gain"] < whole["high"]
    assert whole["gain"] == pytest.approx(whole["model"] - whole["baseline"])
    assert "is not drawn by lot" in whole["sentence"]
    assert set(rows) == {("all", "all"), ("region", "north"), ("region", "south")}
    assert kinds(told) == [("kpis_unjudged", "sudden drops", True)]


def test_a_baseline_that_brings_more_is_warned_of(lake):
    rows, told = judged_against(lake, 0.5)
    assert rows["all", "all"]["verdict"] == "worse"
    assert ("below_baseline", "conversion", True) in kinds(told)


def test_few_visits_of_the_baseline_say_nothing_of_it(lake):
    rows, told = judged_against(lake, 0.9, visits=150)
    assert {row["verdict"] for row in rows.values()} == {"insufficient evidence"}
    assert "where 200 of each are needed" in rows["all", "all"]["sentence"]
    assert kinds(told) == [("kpis_unjudged", "sudden drops", True)]


def test_six_even_weeks_have_no_drop_and_both_periods(lake):
    assert symptoms_of(lake, *weeks()) == []


def test_too_few_requests_to_see_a_drop_are_told(lake):
    served, visits = weeks()
    third = pa.array(np.arange(len(served)) % 3 == 0)
    assert symptoms_of(lake, served.filter(third), visits) == [("sudden drops", True)]


def of_nothing(visits: pa.Table, name: str) -> pa.Table:
    place = visits.schema.names.index(name)
    none = pa.array(np.zeros(len(visits)), visits.schema.field(name).type)
    return visits.set_column(place, name, none)


def test_orders_of_which_none_says_what_it_cost_measure_no_kpi_of_money(lake):
    served, visits = weeks()
    assert symptoms_of(lake, served, of_nothing(visits, "revenue")) == [
        ("revenue_per_session", False)
    ]
    (told,) = io.read_arrow(lake.staged("kpis", AS_OF) / "kpis_symptoms").to_pylist()
    assert told["kind"] == "kpi_unmeasured"


def test_a_shop_that_nobody_orders_in_is_told(lake):
    served, visits = weeks()
    for name in ("orders", "revenue"):
        visits = of_nothing(visits, name)
    assert symptoms_of(lake, served, visits) == [("revenue_per_session", True)]
    (told,) = io.read_arrow(lake.staged("kpis", AS_OF) / "kpis_symptoms").to_pylist()
    assert told["kind"] == "kpis_unjudged"
    assert "no order came" in told["sentence"]


def test_a_few_orders_without_money_are_told_and_fail_nothing(lake):
    served, visits = weeks()
    orders = visits["orders"].to_numpy() * (np.arange(len(visits)) % 60 == 0)
    place = visits.schema.names.index("orders")
    few = pa.array(orders, visits.schema.field("orders").type)
    visits = of_nothing(visits.set_column(place, "orders", few), "revenue")
    symptoms_of(lake, served, visits)
    rows = io.read_arrow(lake.staged("kpis", AS_OF) / "kpis_symptoms").to_pylist()
    (told,) = (row for row in rows if row["kind"] == "kpis_unjudged")
    assert told["warning"]
    assert "orders says what it cost" in told["sentence"]


def test_requests_that_are_gone_are_a_drop_of_volume_alone(lake):
    served, visits = weeks()
    gone = pc.greater(served["day"], pa.scalar(TODAY - timedelta(days=3)))
    odd = pa.array(np.arange(len(served)) % 4 > 0)
    assert symptoms_of(lake, served.filter(pc.invert(pc.and_(gone, odd))), visits) == [
        ("volume", False)
    ]


def test_the_same_few_items_for_everybody_and_no_orders_are_told_apart(lake):
    served, visits = weeks()
    late = np.array(served["day"].to_pylist()) > TODAY - timedelta(days=3)
    item = np.where(late, "i1", served["item_id"].to_numpy(zero_copy_only=False))
    served = served.set_column(
        served.schema.names.index("item_id"), "item_id", pa.array(item.tolist())
    )
    late = np.array(visits["day"].to_pylist()) > TODAY - timedelta(days=3)
    for name in ("orders", "revenue"):
        values = np.where(late & (np.arange(len(late)) % 4 > 0), 0, visits[name].to_numpy())
        place = visits.schema.names.index(name)
        visits = visits.set_column(place, name, pa.array(values, visits.schema.field(name).type))
    assert symptoms_of(lake, served, visits) == [
        ("conversion", True), ("coverage", True), ("revenue_per_session", True),
    ]  # fmt: skip


def test_purchases_that_are_always_told_two_days_late_are_no_drop(lake):
    served, visits = weeks()
    done = [AS_OF - timedelta(days=age) for age in range(3, 40)]
    late = [moment + timedelta(hours=48) for moment in done]
    events = good.table("events", [
        {"event_id": f"e{n}", "revision": 0, "event_time": moment, "received_time": told,
         "first_received": told, "event_type": "purchase", "key_type": "account", "key": "k",
         "item_id": "i", "quantity": 1.0, "channel": "store", "event_date": moment.date()}
        for n, (moment, told) in enumerate(zip(done, late, strict=True))
    ])  # fmt: skip
    untold = np.array(visits["day"].to_pylist()) > TODAY - timedelta(days=2)
    for name in ("orders", "revenue"):
        values = np.where(untold, 0, visits[name].to_numpy())
        place = visits.schema.names.index(name)
        visits = visits.set_column(place, name, pa.array(values, visits.schema.field(name).type))
    assert symptoms_of(lake, served, visits, events=events) == []
    weeks_late = events.set_column(
        events.schema.names.index("first_received"), events.schema.field("first_received"),
        pa.array([moment + timedelta(days=20) for moment in done],
                 events.schema.field("first_received").type),
    )  # fmt: skip
    (told,) = symptoms_of(lake, served, visits, events=weeks_late)
    assert told == ("drops of what is bought", True)
    (row,) = io.read_arrow(lake.staged("kpis", AS_OF) / "kpis_symptoms").to_pylist()
    assert row["rows"] == 0
    assert "0 days are left to judge, and 3 are needed" in row["sentence"]


def test_a_segment_of_many_values_is_told_by_the_most_frequent(lake):
    rows = [place(f"r{n}", f"v{n}", "i1", region=f"{n % 90:05d}") for n in range(180)]
    rows += [place("more", "v0", "i1", region="00007")]
    came = [visit(f"v{n}", region=f"{n % 90:05d}") for n in range(180)]
    published(
        lake, AGREED, 8, served=visit_log.served(rows), visits=visit_log.visits(came)
    )  # fmt: skip
    found = read(run(lake))
    for measure in ("requests", "visits"):
        told = {key[2]: row["value"] for key, row in found.items()
                if key[0] == "all" and key[2] != "all" and key[3] == measure}  # fmt: skip
        assert len(told) == clusters.MOST + 1
        assert sum(told.values()) == len(rows if measure == "requests" else came)
        assert told["other"] == 120
        assert "00007" in told


def test_a_night_again_leaves_equal_rows(lake):
    shop(lake)
    first = io.read_arrow(run(lake).staged / "kpis")
    assert io.read_arrow(run(lake).staged / "kpis").equals(first)
