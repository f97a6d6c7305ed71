"""Estimators against answers known by hand, a second implementation, and the simulator's truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.diagnosis.policies import estimators
from jobs.diagnosis.policies.bootstrap import Bootstrap
from jobs.diagnosis.policies.estimators import ESTIMATORS, Evaluation, Log, Target, looks_at
from jobs.diagnosis.policies.policies import codes, greedy, pairs, uniform
from jobs.sources.simulated import convert
from jobs.sources.simulated.requests import CANDIDATES, PLACES, at_places

SEEDS = range(24)
ZERO = np.zeros(1, np.int64)


def single(item, propensity, reward) -> Log:
    """Requests of one place in one context."""
    item = np.asarray(item, np.int64)
    zeros = np.zeros(len(item), np.int64)
    return Log(
        np.arange(len(item)), zeros, zeros, item, np.asarray(propensity, float),
        np.asarray(reward, float), ZERO, int(item.max()) + 1,
    )  # fmt: skip


def always(item: int) -> Target:
    return Target(ZERO, ZERO, np.array([item]), np.ones(1))


# --- by hand ---------------------------------------------------------------------------------
def test_weights_turn_what_was_logged_into_what_the_target_would_bring():
    log = single([0, 0, 0, 1], [0.75, 0.75, 0.75, 0.25], [1, 0, 0, 1])
    found, support = Evaluation(log, 1, folds=2, clip=3.0).of(always(1))
    assert found["ips"].value == pytest.approx(4.0 / 4)
    assert found["snips"].value == pytest.approx(4.0 / 4.0)
    assert found["clipped_ips"].value == pytest.approx(3.0 / 4)
    assert found["position_based"].value == pytest.approx(1.0)
    assert support.effective_sample_size == pytest.approx(1.0)
    assert support.largest_weight == 1.0
    assert support.mean_weight == 1.0
    assert support.overlap == 1.0


def test_the_value_of_a_list_is_the_sum_over_its_places_of_a_request():
    log = Log(
        request=np.array([0, 0, 1]), place=np.array([0, 1, 0]), context=np.zeros(3, np.int64),
        item=np.array([0, 1, 1]), propensity=np.full(3, 0.5), reward=np.array([1.0, 2.0, 4.0]),
        segment=ZERO, items=2,
    )  # fmt: skip
    evaluation = Evaluation(log, 1, folds=2)
    assert evaluation.logged().value == pytest.approx(7 / 2)
    target = uniform(*pairs(log.context, log.item)[:2], log.places)
    found, _ = evaluation.of(target)
    assert found["ips"].value == pytest.approx(7 / 2)
    # At place 0 the mean of 1 and 4 for both requests, at place 1 the 2 for half of them.
    assert found["snips"].value == pytest.approx(2.5 + 2.0 / 2)


def test_a_target_that_was_never_logged_has_no_weight_and_no_overlap():
    log = replace(single([0, 1], [0.5, 0.5], [1, 1]), items=3)
    found, support = Evaluation(log, 1, folds=2).of(always(2))
    assert found["ips"].value == found["snips"].value == 0.0
    assert support.mean_weight == 0.0
    assert support.overlap == 0.0
    assert support.effective_sample_size == 0.0


def test_a_chance_below_the_floor_supports_nothing():
    log = single([0, 1], [0.9995, 0.0005], [0, 1])
    assert Evaluation(log, 1, folds=2).of(always(1))[1].overlap == 0.0
    assert Evaluation(log, 1, folds=2, floor=0.0001).of(always(1))[1].overlap == 1.0


def test_a_log_without_any_reward_is_worth_nothing_and_breaks_nothing():
    log = single([0, 1, 0, 1], [0.5] * 4, [0] * 4)
    found, _ = Evaluation(log, 1, folds=2).of(always(1))
    assert {name: one.value for name, one in found.items()} == dict.fromkeys(ESTIMATORS, 0.0)


def test_looks_do_not_mistake_better_items_for_attention():
    rng = np.random.default_rng(5)
    n, chance = 40_000, np.array([0.9, 0.1])
    first = (rng.random(n) >= chance[0]).astype(np.int64)  # item 0, the better, mostly on top
    item = np.stack([first, 1 - first], axis=1)
    appeal = np.array([0.6, 0.2])
    seen = np.array([1.0, 0.5])
    reward = rng.random((n, 2)) < seen * appeal[item]
    place = np.tile([0, 1], n)
    log = Log(
        np.repeat(np.arange(n), 2), place, np.zeros(2 * n, np.int64), item.ravel(),
        np.where(place == 0, chance[item.ravel()], 1 - chance[item.ravel()]),
        reward.ravel().astype(float), ZERO, 2,
    )  # fmt: skip
    assert looks_at(log, log.reward) == pytest.approx([1.0, 0.5], abs=0.03)
    plain = reward.mean(axis=0)
    assert plain[1] / plain[0] < 0.25


# --- a second implementation -----------------------------------------------------------------
def test_sums_by_cell_agree_with_loops_over_rows():
    log, chance, target = _small(3)
    found, support = Evaluation(log, 1, folds=4, clip=2.0).of(target)
    weights, clipped, plain = [], 0.0, 0.0
    for k, a, mu, r in zip(log.place, log.item, log.propensity, log.reward, strict=True):
        weights.append(chance[k, a] / mu)
        plain += weights[-1] * r
        clipped += min(weights[-1], 2.0) * r
    assert found["ips"].value == pytest.approx(plain / log.requests)
    assert found["clipped_ips"].value == pytest.approx(clipped / log.requests)
    assert support.mean_weight == pytest.approx(np.mean(weights))
    assert support.effective_sample_size == pytest.approx(
        sum(weights) ** 2 / sum(w * w for w in weights) / log.places
    )


def test_doubly_robust_is_the_model_and_its_weighted_error():
    log, chance, target = _small(4)
    evaluation = Evaluation(log, 1, folds=4)
    total = 0.0
    for row, fold in enumerate(evaluation.fold):
        by_place, appeal = estimators._fit(log, evaluation.fold != fold)
        k, a = log.place[row], log.item[row]
        said = sum(chance[k, b] * by_place[k] * appeal[0, b] for b in range(log.items))
        error = log.reward[row] - by_place[k] * appeal[0, a]
        total += said + chance[k, a] / log.propensity[row] * error
    found = evaluation.of(target)[0]["doubly_robust"]
    assert found.value == pytest.approx(total / log.requests)


def _small(seed: int) -> tuple[Log, np.ndarray, Target]:
    """A log of lists with two places of four items, and a target with its table of chances."""
    rng = np.random.default_rng(seed)
    weight = rng.dirichlet(np.ones(4))
    marginal = at_places(weight[None], 2)[0]
    n = 300
    shown = np.argsort(-(np.log(weight) + rng.gumbel(size=(n, 4))), axis=1)[:, :2]
    place, item = np.tile([0, 1], n), shown.ravel()
    log = Log(
        np.repeat(np.arange(n), 2), place, np.zeros(2 * n, np.int64), item, marginal[place, item],
        rng.random(2 * n), ZERO, 4,
    )  # fmt: skip
    chance = at_places(rng.dirichlet(np.ones(4))[None], 2)[0]
    k, a = np.nonzero(chance >= 0)
    return log, chance, Target(np.zeros(len(k), np.int64), k, a, chance[k, a])


# --- intervals -------------------------------------------------------------------------------
def test_groups_of_requests_spread_as_requests_do():
    rng = np.random.default_rng(2)
    values = rng.lognormal(0, 1.0, 20_000)
    found = Bootstrap(np.arange(20_000), 1, 2_000).mean(values)
    assert found.value == pytest.approx(values.mean())
    assert np.std(found.replicates) == pytest.approx(values.std() / np.sqrt(20_000), rel=0.1)
    assert found.low < values.mean() < found.high


def test_rows_of_one_request_are_drawn_together():
    rng = np.random.default_rng(2)
    values = rng.random(500)
    once = Bootstrap(np.arange(500), 1, 1_000).mean(values * 4)
    four = Bootstrap(np.repeat(np.arange(500), 4), 1, 1_000).mean(np.repeat(values, 4))
    assert four.low == pytest.approx(once.low)
    assert four.high == pytest.approx(once.high)


def test_visitors_are_drawn_with_all_their_requests():
    rng = np.random.default_rng(2)
    taste = rng.random(300)
    visitor = np.repeat(np.arange(300), 20)
    values = (rng.random(6_000) < taste[visitor]).astype(float)
    found = Bootstrap(np.arange(6_000), 1, 2_000, visitor)
    assert found.groups == 300
    truth = np.hypot(taste.std(), 0.5 / 20**0.5) / 300**0.5
    assert np.std(found.mean(values).replicates) == pytest.approx(truth, rel=0.15)
    alone = Bootstrap(np.arange(6_000), 1, 2_000).mean(values)
    assert np.std(alone.replicates) < 0.5 * truth


def test_a_visitor_is_in_one_fold_of_the_reward_model():
    log = single([0, 1] * 30, [0.5] * 60, [0, 1] * 30)
    visitor = np.repeat(np.arange(12) * 7, 5)
    fold = Evaluation(replace(log, visitor=visitor), 1, folds=4).fold
    assert all(len(set(fold[visitor == one])) == 1 for one in set(visitor))
    assert np.bincount(fold).tolist() == [15] * 4


def test_the_same_seed_gives_the_same_interval():
    log, _, target = _small(3)
    once, again = (Evaluation(log, 9).of(target)[0]["snips"] for _ in range(2))
    other = Evaluation(log, 10).of(target)[0]["snips"]
    assert (once.low, once.high) == (again.low, again.high) != (other.low, other.high)


# --- the simulator's truth -------------------------------------------------------------------
@dataclass(frozen=True)
class World:
    """What is true of the simulator's requests: (n, CANDIDATES) chances, and (contexts, …)."""

    context: np.ndarray  # (n,)
    appeal: np.ndarray  # (n, CANDIDATES) the chance of a click on what is looked at
    items: np.ndarray  # (contexts, CANDIDATES)
    weight: np.ndarray  # (contexts, CANDIDATES) the logging policy's
    looks: np.ndarray  # (PLACES,)

    def value(self, chance: np.ndarray) -> float:
        """The true value a request of a policy, (contexts, PLACES, CANDIDATES)."""
        by_request = np.einsum("k,nki,ni->n", self.looks, chance[self.context], self.appeal)
        return float(by_request.mean())

    def log(self, seed: int) -> Log:
        """Lists drawn by the logging policy, and clicks, anew."""
        rng = np.random.default_rng([seed, 3])
        n = len(self.context)
        noisy = np.log(self.weight[self.context]) + rng.gumbel(size=self.appeal.shape)
        shown = np.argsort(-noisy, axis=1)[:, :PLACES]
        clicked = rng.random(shown.shape) < self.looks * np.take_along_axis(self.appeal, shown, 1)
        request, place = np.divmod(np.arange(n * PLACES), PLACES)
        context, column = self.context[request], shown.ravel()
        return Log(
            request, place, context, self.items[context, column],
            at_places(self.weight, PLACES)[context, place, column], clicked.ravel().astype(float),
            np.zeros(len(self.items), np.int64), int(self.items.max()) + 1,
        )  # fmt: skip

    def target(self, chance: np.ndarray) -> Target:
        context, place, column = np.nonzero(chance)
        return Target(context, place, self.items[context, column], chance[context, place, column])


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    """A small shop's requests; a context is a week's policy for a segment, told by its items."""
    folder: Path = tmp_path_factory.mktemp("shop")
    convert("events=40000,requests=0.4,days=90", folder)
    columns = ["request_id", "item_id", "attraction", "weight"]
    truth = pq.read_table(folder / "truth" / "requests", columns=columns)
    truth = truth.set_column(1, "item_id", truth["item_id"].cast(pa.string()))
    truth = truth.sort_by([("request_id", "ascending"), ("item_id", "ascending")])
    shape = (-1, CANDIDATES)
    item, _ = codes(truth["item_id"])
    weight = truth["weight"].to_numpy().reshape(shape)
    known, first, context = np.unique(
        np.c_[item.reshape(shape), np.round(weight, 9)], axis=0, return_index=True,
        return_inverse=True,
    )  # fmt: skip
    return World(
        context.ravel(), truth["attraction"].to_numpy().reshape(shape),
        known[:, :CANDIDATES].astype(np.int64), weight[first],
        np.arange(1.0, PLACES + 1) ** -0.5,
    )  # fmt: skip


def policies(world: World) -> dict[str, np.ndarray]:
    """Known policies over the same candidates, by the chance of each at each place."""
    against = 1 / world.weight
    top = np.argsort(-world.weight, axis=1)[:, :PLACES]
    best = (top[:, :, None] == np.arange(CANDIDATES)).astype(float)
    return {
        "uniform": np.full((len(world.items), PLACES, CANDIDATES), 1 / CANDIDATES),
        "against": at_places(against / against.sum(axis=1, keepdims=True), PLACES),
        "always the heaviest": best,
    }


@pytest.fixture(scope="module")
def judged(world) -> dict[str, dict[str, np.ndarray]]:
    """By policy and estimator, (seeds, 3): the error and the interval's ends, over the truth."""
    found: dict[str, dict[str, list]] = {}
    for seed in SEEDS:
        evaluation = Evaluation(world.log(seed), seed, replicates=400)
        for name, chance in policies(world).items():
            truth = world.value(chance)
            for one, estimate in evaluation.of(world.target(chance))[0].items():
                ends = np.array([estimate.value, estimate.low, estimate.high])
                found.setdefault(name, {}).setdefault(one, []).append(ends / truth - 1)
    return {p: {e: np.array(rows) for e, rows in by.items()} for p, by in found.items()}


def test_the_truth_lies_in_the_interval_about_as_often_as_it_should(judged):
    unbiased = [name for name in ESTIMATORS if name != "direct"]
    inside = [
        (judged[policy][name][:, 1] <= 0) & (judged[policy][name][:, 2] >= 0)
        for policy in judged
        for name in unbiased
    ]
    assert 0.90 <= np.mean(inside) <= 0.99
    assert min(one.mean() for one in inside) >= 0.8


def test_no_estimator_is_far_off_and_all_but_the_model_are_right_on_the_mean(judged):
    for policy, by_estimator in judged.items():
        for name, rows in by_estimator.items():
            error = rows[:, 0].mean()
            noise = 3 * rows[:, 0].std() / np.sqrt(len(rows))
            assert abs(error) < (0.06 if name == "direct" else max(noise, 0.015)), (policy, name)


def test_looking_at_all_places_of_an_item_halves_the_error_of_a_fixed_list(judged):
    rows = judged["always the heaviest"]
    assert _error(rows["position_based"]) < 0.7 * _error(rows["ips"])


def test_snips_and_doubly_robust_err_less_than_ips_where_rewards_have_a_common_level(world):
    """Where most rewards are alike, IPS errs by its weights, which the others divide or subtract:
    here a place that is not clicked is the reward."""
    chance = policies(world)["against"]
    truth = world.looks.shape[0] - world.value(chance)
    errors: dict[str, list[float]] = {}
    for seed in SEEDS[:8]:
        log = world.log(seed)
        evaluation = Evaluation(replace(log, reward=1 - log.reward), seed, replicates=100)
        for name, one in evaluation.of(world.target(chance))[0].items():
            errors.setdefault(name, []).append(one.value - truth)
    square = {name: float(np.mean(np.square(found))) for name, found in errors.items()}
    assert square["snips"] < 0.5 * square["ips"]
    assert square["doubly_robust"] < 0.5 * square["ips"]


def test_a_policy_without_support_is_told_by_its_overlap_and_mean_weight(world):
    log = world.log(0)
    rare = log.propensity > np.quantile(log.propensity, 0.5)
    _, request = np.unique(log.request[rare], return_inverse=True)
    part = replace(log, request=request, **{
        name: getattr(log, name)[rare]
        for name in ("place", "context", "item", "propensity", "reward")
    })  # fmt: skip
    chance = policies(world)["against"]
    supported = Evaluation(log, 1).of(world.target(chance))[1]
    alone = Evaluation(part, 1).of(world.target(chance))[1]
    assert supported.overlap > 0.9
    assert supported.mean_weight == pytest.approx(1.0, abs=0.1)
    assert alone.overlap < 0.8
    assert alone.mean_weight < 0.75


def test_greedy_and_uniform_are_policies_over_the_items_of_each_context():
    context, item = np.array([0, 0, 0, 1]), np.array([0, 1, 2, 1])
    target = greedy(context, item, np.array([1.0, 3.0, 1.0, 0.0]), 2)
    assert list(zip(target.context, target.place, target.item, strict=True)) == [
        (0, 0, 1), (0, 1, 0), (1, 0, 1),
    ]  # fmt: skip
    even = uniform(context, item, 2)
    assert np.bincount(even.context * 2 + even.place, even.chance).tolist() == [1.0] * 4


def _error(rows: np.ndarray) -> float:
    return float(np.sqrt(np.mean(rows[:, 0] ** 2)))
