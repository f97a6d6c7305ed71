"""Which rows are judged, when the log is no evidence, and the step as a whole."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs import gate, io, tables
from jobs.diagnosis.definitions import build
from jobs.diagnosis.policies import off_policy, policies
from jobs.diagnosis.policies.off_policy import EVIDENCE, INSUFFICIENT, Params, Surface
from jobs.io import Lake
from jobs.night import Night
from jobs.sources.simulated.requests import at_places
from tests.expectations.good import AS_OF

AGREED: dict[str, Any] = {
    "kpi": "conversion",
    "model_metric": {"name": "ndcg", "at": 10},
    "label": {
        "event": "click", "attribution": "request", "within_hours": 72, "maturity_days": 7,
        "returns": "subtract",
    },
    "decision": {"threshold": None, "capacity": 20, "value_of_hit": 1.0, "cost_of_show": 0.02},
    "segments": ["region"], "baseline": "popularity", "guardrails": ["latency_ms"],
    "experiments": [],
}  # fmt: skip
ITEMS = 6
PLACES = 3
LOOKS = np.array([1.0, 0.6, 0.4])
# Of the items of a segment by code; the second segment has others.
APPEAL = np.array([0.5, 0.4, 0.3, 0.2, 0.1, 0.05])
WEIGHT = np.array([0.1, 0.1, 0.15, 0.15, 0.2, 0.3])
FALLING = np.array([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])


def served(requests: int = 1_500, *, weight=WEIGHT, score=FALLING, seed=1) -> pa.Table:
    """Lists that were drawn by the weights for two segments, on one surface, with clicks."""
    rng = np.random.default_rng(seed)
    shown = np.argsort(-(np.log(weight) + rng.gumbel(size=(requests, ITEMS))), axis=1)[:, :PLACES]
    clicked = rng.random(shown.shape) < LOOKS * APPEAL[shown]
    request, place = np.divmod(np.arange(requests * PLACES), PLACES)
    item, segment = shown.ravel(), request % 2
    return pa.table({
        "request_id": [f"r{n}" for n in request], "visitor": [f"v{n}" for n in request],
        "position": pa.array(place + 1, pa.int32()),
        "shown_position": pa.array(place + 1, pa.int32()),
        "item_id": [f"i{s}-{n}" for s, n in zip(segment, item, strict=True)],
        "propensity": at_places(weight[None], PLACES)[0][place, item], "score": score[item],
        "surface": ["homepage"] * len(item), "segment": [f"s{n}" for n in segment],
        "release_id": ["week"] * len(item), "clicked": clicked.ravel(), "bought": clicked.ravel(),
        "value": clicked.ravel() * 2.0,
    })  # fmt: skip


def judge(rows: pa.Table, bought: list[str] | None = None, **params: Any) -> Surface:
    purchases = pa.chunked_array([pa.array(bought or ["i0-0", "i1-0"], pa.string())])
    chosen = Params(replicates=200, **params)
    return Surface("homepage", rows, purchases, build(AGREED), chosen, 7)


def put(rows: pa.Table, name: str, values: Any) -> pa.Table:
    place = rows.column_names.index(name)
    return rows.set_column(place, name, pa.array(values, rows.schema.field(name).type))


def value(found: Surface, policy: str, estimator: str = "doubly_robust") -> dict[str, Any]:
    named = {(row["policy"], row["estimator"]): row for row in found.values()}
    return named[policy, estimator]


def counted(found: Surface) -> dict[str, int]:
    return {row["outcome"]: row["rows"] for row in found.counts() if row["rows"]}


# --- which rows ------------------------------------------------------------------------------
def test_rows_without_a_chance_are_counted_and_left_out():
    rows = served(400)
    chance = rows["propensity"].to_pylist()
    chance[0], chance[1], chance[2], chance[3], chance[4] = None, 0.0, float("nan"), 1.5, 1.0
    found = judge(put(rows, "propensity", chance))
    assert counted(found) == {
        policies.NO_CHANCE: 4, policies.CERTAIN: 1, policies.JUDGED: 1_200 - 5,
    }  # fmt: skip
    assert value(found, "uniform")["rows"] == 1_195
    assert value(found, "logged", "mean")["rows"] == 1_200


def test_a_list_that_the_page_moved_is_left_out_whole():
    rows = served(400)
    shown = rows["position"].to_pylist()
    shown[0], shown[1] = shown[1], shown[0]
    shown[9] = None  # not told, which is not moved
    assert counted(judge(put(rows, "shown_position", shown))) == {
        policies.MOVED: 3, policies.JUDGED: 1_197,
    }  # fmt: skip


def test_places_below_those_that_are_judged_are_left_out():
    found = judge(served(400), places=1)
    assert counted(found) == {policies.DEEP: 800, policies.JUDGED: 400}
    assert value(found, "uniform")["verdict"] == EVIDENCE


def test_a_context_of_people_with_other_candidates_is_left_out():
    rows = served(1_000)
    mixed = judge(put(rows, "segment", ["unknown"] * rows.num_rows))
    assert counted(mixed) == {policies.MIXED: 3_000}
    assert value(mixed, "uniform")["verdict"] == INSUFFICIENT
    assert value(mixed, "uniform")["reason"] == (
        "100% of the rows cannot be judged, most: its context mixes lists of different candidates"
    )


def test_a_context_with_fewer_rows_than_items_at_places_is_left_out():
    rows = pa.concat_tables([served(1_000), put(served(4), "release_id", ["rare"] * 12)])
    renamed = [f"r{n // 3}" for n in range(rows.num_rows)]
    assert counted(judge(put(rows, "request_id", renamed)))[policies.THIN] == 12


# --- values ----------------------------------------------------------------------------------
def test_a_fixed_list_and_the_lot_are_valued_as_they_would_be_worth():
    found = judge(served(3_000))
    best, lot = LOOKS @ APPEAL[:PLACES], LOOKS.sum() * APPEAL.mean()
    for policy, truth in (("model", best), ("uniform", lot)):
        for name in off_policy.ESTIMATORS:
            row = value(found, policy, name)
            assert row["low"] <= truth <= row["high"], (policy, name)
            assert row["value"] == pytest.approx(truth, rel=0.25), (policy, name)
            assert name == "direct" or row["verdict"] == EVIDENCE
            assert row["logged_value"] == pytest.approx(value(found, "logged", "mean")["value"])


def test_intervals_are_wider_where_requests_are_of_few_visitors():
    rows = served(3_000)
    # Who clicks does so in many requests.
    clicked = np.repeat(rows["clicked"].to_numpy().reshape(-1, 3).any(axis=1), 3)
    request = np.argsort(~clicked[::3], kind="stable")
    visitor = np.empty(3_000, int)
    visitor[request] = np.arange(3_000) // 30
    one, few = judge(rows), judge(put(rows, "visitor", [f"v{n}" for n in np.repeat(visitor, 3)]))
    for policy, name in (("logged", "mean"), ("uniform", "ips"), ("uniform", "direct"),
                         ("uniform", "snips"), ("uniform", "doubly_robust")):  # fmt: skip
        apart, together = value(one, policy, name), value(few, policy, name)
        width = together["high"] - together["low"]
        assert width > 1.5 * (apart["high"] - apart["low"]), (policy, name)


def test_popularity_orders_the_items_of_each_context_by_earlier_purchases():
    found = judge(served(3_000), [f"i{s}-{n}" for s in (0, 1) for n in (5, 5, 5, 4, 4, 3)])
    row = value(found, "popularity")
    assert row["low"] <= LOOKS @ APPEAL[[5, 4, 3]] <= row["high"]


def test_the_reward_is_money_where_the_kpi_is_revenue():
    rows, surface = served(500), judge(served(500))
    money = build({**AGREED, "kpi": "revenue_per_session"})
    paid = Surface("homepage", rows, pa.chunked_array([["i0-0"]]), money, Params(), 7)
    assert (paid.reward, surface.reward) == ("money", "clicks")
    twice = value(surface, "uniform", "ips")["value"] * 2
    assert value(paid, "uniform", "ips")["value"] == pytest.approx(twice)


def test_a_reward_model_that_the_log_contradicts_is_no_evidence():
    rows = judge(served(3_000))
    row = value(rows, "model", "direct")
    robust = value(rows, "model")
    assert not robust["low"] <= row["value"] <= robust["high"]
    assert (robust["verdict"], row["verdict"]) == (EVIDENCE, INSUFFICIENT)
    assert row["reason"].endswith("outside the doubly robust interval")


# --- verdicts --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("chance", "reason"),
    [(1.0, "100% of the rows cannot be judged, most: propensity 1, nothing else could have stood "
           "there"),
     (None, "100% of the rows cannot be judged, most: without a propensity above 0 and up to 1")],
)  # fmt: skip
def test_a_log_without_chances_is_no_evidence(chance, reason):
    found = judge(put(served(400), "propensity", [chance] * 1_200))
    row = value(found, "uniform", "ips")
    assert (row["value"], row["verdict"], row["reason"]) == (None, INSUFFICIENT, reason)
    logged = value(found, "logged", "mean")
    assert logged["verdict"] == EVIDENCE
    assert logged["effective_rewards"] == pytest.approx(logged["value"] * 400)


def test_chances_that_are_not_those_of_the_log_are_no_evidence():
    rows = served(1_000)
    row = value(judge(put(rows, "propensity", rows["propensity"].to_numpy() / 2)), "uniform")
    assert row["verdict"] == INSUFFICIENT
    assert row["reason"].startswith("the mean weight is 2.0")


def test_a_policy_that_was_hardly_shown_is_no_evidence():
    seldom = np.array([0.002, 0.002, 0.002, 0.3, 0.3, 0.394])
    row = value(judge(served(2_000, weight=seldom)), "model")
    assert row["verdict"] == INSUFFICIENT
    assert row["effective_sample_size"] < 200


def test_few_rewards_are_no_evidence():
    rows = served(2_000)
    few = np.arange(rows.num_rows) % 500 == 0
    row = value(judge(put(rows, "clicked", few)), "uniform")
    assert row["verdict"] == INSUFFICIENT
    assert "clicks of it, below 20" in row["reason"]


def test_a_policy_that_the_log_cannot_name_is_no_evidence():
    rows = served(500)
    found = judge(put(rows, "score", [None] * rows.num_rows), ["a stranger"])
    assert value(found, "model")["reason"] == "there are no scores"
    assert value(found, "popularity")["reason"].startswith("there are no purchases")


# --- symptoms --------------------------------------------------------------------------------
def test_lists_worse_than_drawn_by_lot_are_a_symptom():
    (symptom,) = judge(served(4_000)).symptoms()
    assert (symptom.kind, symptom.subject) == ("losing_slice", "surface homepage")
    assert symptom.effect > 0.1
    assert "worse than chance" in symptom.sentence


def test_lists_that_are_better_than_chance_or_not_clearly_worse_are_none():
    assert judge(served(4_000, weight=WEIGHT[::-1])).symptoms() == []
    assert judge(served(4_000, weight=np.full(ITEMS, 1 / ITEMS))).symptoms() == []
    assert judge(served(60)).symptoms() == []


POPULAR = [f"i{s}-{n}" for s in (0, 1) for n in (0, 0, 0, 1, 1, 2)]  # as they appeal


def test_the_models_order_is_held_against_popularitys_on_the_same_candidates():
    even = np.full(ITEMS, 1 / ITEMS)
    worse = [
        judge(served(2_000, weight=even, score=FALLING[::-1], seed=seed), POPULAR)
        for seed in range(1, 41)
    ]
    rows = [one.gain for one in worse]
    truth = LOOKS @ APPEAL[[5, 4, 3]] - LOOKS @ APPEAL[[0, 1, 2]]
    assert all(row["high"] < 0 for row in rows)
    # Of forty intervals of 95 % four or more miss once in seven times; these draws are seeded.
    assert sum(row["low"] <= truth <= row["high"] for row in rows) > 36
    row = rows[0]
    assert row["gain"] == pytest.approx(row["model"] - row["popularity"])
    assert row["verdict"] == "worse"
    assert [one.kind for one in worse[0].symptoms() if one.warning] == ["below_baseline"]
    better = judge(served(3_000, weight=WEIGHT[::-1]), POPULAR[::-1])
    alike = better.gain  # both show the items that appeal most
    assert (alike["verdict"], alike["gain"]) == ("no difference shown", 0.0)
    assert [one.kind for one in better.symptoms() if one.warning] == []


def test_a_surface_that_is_no_evidence_of_either_order_says_why():
    row = judge(put(served(500), "propensity", [None] * 1_500)).gain
    assert row["verdict"] == INSUFFICIENT
    assert "gain" not in row
    assert "cannot be judged" in row["sentence"]


# --- the step --------------------------------------------------------------------------------
@pytest.fixture
def lake(tmp_path) -> Lake:
    """A lake with an agreement and two surfaces, one of which showed without chances."""
    made = Lake(tmp_path / "lake").open()
    agreed = [{"name": k, "value": json.dumps(v), "fault": None} for k, v in AGREED.items()]
    names = tables.TABLES["served"].schema
    parts = []
    for period, mature, surface in (
        ("current", True, "homepage"), ("current", True, "basket"), ("current", False, "homepage"),
        ("reference", True, "homepage"),
    ):  # fmt: skip
        rows = served(1_000, seed=len(parts))
        size = rows.num_rows
        rows = put(rows, "surface", [surface] * size)
        rows = put(rows, "request_id", [f"{len(parts)}{r}" for r in rows["request_id"].to_pylist()])
        if surface == "basket":
            rows = put(rows, "propensity", [None] * size)
        rows = rows.append_column("period", pa.array([period] * size))
        parts.append(rows.append_column("mature", pa.array([mature] * size)))
    rows = pa.concat_tables(parts)
    others = {
        field.name: pa.nulls(rows.num_rows, field.type)
        for field in names if field.name not in rows.column_names
    }  # fmt: skip
    for name, column in others.items():
        rows = rows.append_column(name, column)
    found = {
        "definitions": pa.Table.from_pylist(agreed, tables.TABLES["definitions"].schema),
        "served": rows.select(names.names),
    }
    for step in ("definitions", "served"):
        for table in tables.of_step(step):
            empty = pa.Table.from_pylist([], table.schema)
            io.write_arrow(made.staged(step, AS_OF) / table.name, found.get(table.name, empty))
        made.publish(step, AS_OF, "one")
    return made


def staged(lake: Lake) -> dict[str, list[dict[str, Any]]]:
    night = Night(lake, AS_OF, "one", "small", "off_policy")
    night.reset()
    off_policy.run(night, Params(replicates=200))
    night.close(Params(), "test")
    gate.judge(night)
    published = lake.published("off_policy", AS_OF)
    return {t.name: io.read_arrow(published.table(t.name)).to_pylist()
            for t in tables.of_step("off_policy")}  # fmt: skip


def test_each_surface_has_its_values_and_what_they_rest_on(lake):
    found = staged(lake)
    values = {(r["surface"], r["policy"], r["estimator"]): r for r in found["policy_values"]}
    assert len(values) == 2 * (1 + 3 * len(off_policy.ESTIMATORS))
    assert values["homepage", "logged", "mean"]["requests"] == 1_000
    assert values["homepage", "uniform", "snips"]["verdict"] == EVIDENCE
    assert values["basket", "uniform", "snips"]["verdict"] == INSUFFICIENT
    gains = {row["surface"]: row for row in found["model_gains"]}
    assert set(gains) == {"homepage", "basket"}
    # What the model prefers was seldom drawn in this log, and nothing at all in the other.
    assert {row["verdict"] for row in gains.values()} == {INSUFFICIENT}
    assert "below 200" in gains["homepage"]["sentence"]
    rows = {(r["surface"], r["outcome"]): r for r in found["policy_rows"]}
    assert rows["homepage", policies.JUDGED]["share"] == 1.0
    assert rows["basket", policies.NO_CHANCE]["rows"] == 3_000


def test_a_night_again_leaves_equal_rows(lake):
    assert staged(lake) == staged(lake)
