"""The step ``off_policy``: what other policies would have brought, from the chances in the log.

Reads ``served`` and ``definitions``. Writes ``policy_values`` (a row per surface, policy and
estimator), ``model_gains`` (a row per surface: what the model's order brings beyond popularity's,
of the same candidates), ``policy_rows`` (a row per surface and outcome: which logged rows could be
judged) and ``off_policy_symptoms``.

Judged are the mature rows of the current period. A context is what was released to a segment on a
surface; its items are those that the log shows in it. The policies: ``logged``, what was shown;
``uniform``, any item of the context; ``popularity``, the usual baseline, its items by purchases in
the reference period; ``model``, its items by their mean score. The last two always show the same
list. A value is a mean a request: of money where the KPI is revenue per session, else of the
label's event.

The log has the chance of an item at its place, not that of its list, so lists are judged place by
place (see ``estimators``). Ten million rows are summed into 1,000 random groups of visitors, whose
requests are alike, and the bootstrap draws these: it costs the same for any log.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from scipy.stats import norm

from jobs.diagnosis import baseline, definitions, symptoms
from jobs.diagnosis.definitions import Definitions
from jobs.diagnosis.experiments.effects import INSUFFICIENT
from jobs.diagnosis.policies import policies
from jobs.diagnosis.policies.bootstrap import Bootstrap, Estimate, percentile
from jobs.diagnosis.policies.estimators import (
    ESTIMATORS,
    TAIL,
    Evaluation,
    Log,
    Support,
    Target,
    kish,
    looks_at,
)
from jobs.diagnosis.policies.policies import DEEP, JUDGED, OUTCOMES, codes, greedy, pairs, uniform
from jobs.diagnosis.symptoms import Symptom
from jobs.night import Night
from jobs.params import check
from jobs.tables import TABLES

LOGGED, MEAN = "logged", "mean"
UNIFORM, POPULARITY, MODEL = POLICIES = ("uniform", "popularity", "model")
EVIDENCE = "evidence"
VERDICTS = (EVIDENCE, INSUFFICIENT)
MONEY, PURCHASES, CLICKS = REWARDS = ("money", "purchases", "clicks")

# The mean weight is 1 where chances are right; by so much it is off from noise at the least
# sample that is evidence in one of a thousand.
MEAN_WEIGHT_OFF = 0.25
# A list that is beaten by chance by a tenth, in one night of ten thousand by luck.
BEATEN, BEATEN_P = 0.1, 1e-4


@dataclass(frozen=True)
class Params:
    """How other policies are judged, and when the log says too little of them."""

    # Replicates of the bootstrap.
    replicates: int = 1_000
    # Groups of visitors that the reward model is fitted without, one at a time.
    folds: int = 10
    # The places of a list that are judged; a value is of these.
    places: int = 20
    # The largest weight of a row in the clipped estimator.
    clip: float = 10.0
    # A logged chance below this supports nothing.
    floor: float = 0.001
    # Evidence needs a log that is worth so many requests of the target itself.
    requests: float = 200.0
    # Evidence needs a log that is worth so many of its rewards: intervals of fewer are too narrow.
    rewards: float = 20.0
    # Evidence needs this share of what the target would show to have been shown.
    overlap: float = 0.8
    # Evidence needs this share of the rows of the places that are judged: others may differ.
    judged: float = 0.5

    def __post_init__(self) -> None:
        check(100 <= self.replicates <= 10_000, "replicates must be in [100, 10000]")
        check(2 <= self.folds <= 50, "folds must be in [2, 50]")
        check(1 <= self.places <= 1_000, "places must be in [1, 1000]")
        check(self.clip >= 1, "clip must be at least 1")
        check(0 <= self.floor < 1, "floor must be in [0, 1)")
        check(self.requests >= 1 and self.rewards >= 1, "requests and rewards must be at least 1")
        check(0 < self.overlap <= 1, "overlap must be in (0, 1]")
        check(0 < self.judged <= 1, "judged must be in (0, 1]")


COLUMNS = [
    "request_id", "visitor", "position", "shown_position", "item_id", "propensity", "score",
    "surface", "segment", "release_id", "clicked", "bought", "value",
]  # fmt: skip


def run(night: Night, params: Params) -> None:
    """Stage the values, what they rest on, and what is wrong."""
    agreed = definitions.read(night)
    mature = ds.field("mature")
    rows = night.arrow("served", COLUMNS, mature & (ds.field("period") == "current"))
    before = mature & (ds.field("period") == "reference") & ds.field("bought")
    purchases = night.arrow("served", ["item_id"], before)["item_id"]
    values, gains, counts, found = [], [], [], []
    for surface in sorted(pc.unique(rows["surface"]).to_pylist()):
        part = rows.filter(pc.equal(rows["surface"], surface))
        judged = Surface(surface, part, purchases, agreed, params, night.seed)
        values += judged.values()
        gains.append(judged.gain)
        counts += judged.counts()
        found += judged.symptoms()
    night.write("policy_values", pa.Table.from_pylist(values, TABLES["policy_values"].schema))
    night.write("model_gains", pa.Table.from_pylist(gains, TABLES["model_gains"].schema))
    night.write("policy_rows", pa.Table.from_pylist(counts, TABLES["policy_rows"].schema))
    night.write("off_policy_symptoms", symptoms.table(found))


class Surface:
    """The mature rows of a surface's current lists, and what they say of each policy."""

    def __init__(
        self, name: str, rows: pa.Table, purchases: pa.ChunkedArray, agreed: Definitions,
        params: Params, seed: int,
    ):  # fmt: skip
        self.name, self.params = name, params
        self.reward, self.baseline = reward_of(agreed), agreed.baseline
        column = {MONEY: "value", PURCHASES: "bought", CLICKS: "clicked"}[self.reward]
        reward, request = rows[column].cast(pa.float64()).to_numpy(), codes(rows["request_id"])[0]
        self.outcome = policies.outcomes(rows, request, params.places)
        whose = np.zeros(int(request.max(initial=-1)) + 1, np.int64)
        whose[request] = codes(rows["visitor"])[0]
        whole = self.outcome != OUTCOMES.index(DEEP)
        left, shown = np.unique(request[whole], return_inverse=True)
        every = Bootstrap(shown, seed, params.replicates, whose[left])
        self.logged = every.mean(reward[whole])
        self.plain = _support_of_logged(every.requests, reward[whole])
        self.every, self.everything = every.requests, int(whole.sum())
        kept = np.flatnonzero(self.outcome == OUTCOMES.index(JUDGED))
        self.rows = rows.take(pa.array(kept))
        self.estimates: dict[str, tuple[dict[str, Estimate], Support]] = {}
        self.shown: Estimate | None = None
        self.requests = 0
        if len(kept):
            left, request = np.unique(request[kept], return_inverse=True)
            log, clicks, items = self._log(request, whose[left], reward[kept])
            self.requests = log.requests
            evaluation = Evaluation(
                log, seed, replicates=params.replicates, folds=params.folds, clip=params.clip,
                floor=params.floor, looks=looks_at(log, clicks),
            )  # fmt: skip
            self.shown = evaluation.logged()
            for policy, target in self._targets(log, items, purchases):
                self.estimates[policy] = evaluation.of(target)

    def _log(
        self, request: np.ndarray, visitor: np.ndarray, reward: np.ndarray
    ) -> tuple[Log, np.ndarray, pa.Array]:
        """The judged rows, their clicks, which tell more of who looks where than purchases, and
        the items in the order of their codes."""
        rows = self.rows
        item, items = codes(rows["item_id"])
        context, contexts = codes(policies.context_of(rows))
        segment, _ = codes(rows["segment"])
        of_context = np.zeros(len(contexts), np.int64)
        of_context[context] = segment
        log = Log(
            request=request,
            place=rows["position"].to_numpy().astype(np.int64) - 1,
            context=context, item=item, propensity=rows["propensity"].to_numpy(), reward=reward,
            segment=of_context, items=len(items), visitor=visitor,
        )  # fmt: skip
        return log, rows["clicked"].cast(pa.float64()).to_numpy(), items

    def _targets(
        self, log: Log, items: pa.Array, purchases: pa.ChunkedArray
    ) -> Iterator[tuple[str, Target]]:
        context, item, row = pairs(log.context, log.item)
        yield UNIFORM, uniform(context, item, log.places)
        known = pc.index_in(purchases, value_set=items).drop_null().to_numpy()
        if len(known):
            bought = np.bincount(known, minlength=len(items))
            yield POPULARITY, greedy(context, item, bought[item], log.places)
        score = self.rows["score"].to_numpy()
        has = np.isfinite(score)
        if has.any():
            count = np.bincount(row[has], minlength=len(item))
            total = np.bincount(row[has], score[has], minlength=len(item))
            mean = np.full(len(item), -np.inf)
            np.divide(total, count, out=mean, where=count > 0)
            yield MODEL, greedy(context, item, mean, log.places)

    # --- rows of the tables ------------------------------------------------------------------
    def counts(self) -> list[dict[str, Any]]:
        rows = np.bincount(self.outcome, minlength=len(OUTCOMES)).tolist()
        return [
            {"surface": self.name, "outcome": outcome, "rows": count,
             "share": count / len(self.outcome)}
            for outcome, count in zip(OUTCOMES, rows, strict=True)
        ]  # fmt: skip

    def values(self) -> list[dict[str, Any]]:
        base = {"surface": self.name, "reward": self.reward}
        least = self.params.requests
        reason = None if self.every >= least else f"{self.every:,} requests, below {least:g}"
        found = [base | _row(
            LOGGED, MEAN, self.logged, self.logged, self.plain, self.every, self.everything,
            reason,
        )]  # fmt: skip
        for policy in POLICIES:
            estimates, support = self.estimates.get(policy, ({}, None))
            reason = self.lacking(policy)
            for name in ESTIMATORS:
                why = reason
                if estimates and name == "direct":
                    why = why or _contradicted(estimates)
                found.append(base | _row(
                    policy, name, estimates.get(name), self.shown, support, self.requests,
                    self.rows.num_rows, why,
                ))  # fmt: skip
        return found

    def lacking(self, policy: str) -> str | None:
        """Why the log is no evidence of a policy; None where it is."""
        share, limits = self.rows.num_rows / max(self.everything, 1), self.params
        if share < limits.judged:
            left = np.bincount(self.outcome, minlength=len(OUTCOMES))
            left[[OUTCOMES.index(DEEP), OUTCOMES.index(JUDGED)]] = 0
            worst = OUTCOMES[int(left.argmax())].removeprefix("left out: ")
            return f"{1 - share:.0%} of the rows cannot be judged, most: {worst}"
        if policy not in self.estimates:
            lacks = "scores" if policy == MODEL else "purchases of these items in the reference"
            return f"there are no {lacks}"
        return doubt(self.estimates[policy][1], self.reward, limits)

    @cached_property
    def gain(self) -> dict[str, Any]:
        """A row of ``model_gains``: both orders always show the same list, so that neither pays for
        exploring; the doubly robust estimates of both, drawn alike."""
        row: dict[str, Any] = {"surface": self.name, "reward": self.reward}
        reason = self.lacking(MODEL) or self.lacking(POPULARITY)
        if reason:
            return row | {
                "verdict": INSUFFICIENT,
                "sentence": f"On {self.name} nothing says whether the model's order beats that by "
                f"popularity: {reason}.",
            }  # fmt: skip
        model, popular = (self.estimates[one][0]["doubly_robust"] for one in (MODEL, POPULARITY))
        gain = percentile(model.value - popular.value, model.replicates - popular.replicates)
        verdict = baseline.verdict_of(gain.low, gain.high)
        return row | {
            "model": model.value, "popularity": popular.value, "gain": gain.value,
            "low": gain.low, "high": gain.high, "verdict": verdict,
            "sentence": f"On {self.name} the model's order would bring {model.value:.4g} "
            f"{self.reward} a request and that by popularity {popular.value:.4g}: "
            f"{gain.value:+.3g} ({gain.low:+.3g} to {gain.high:+.3g}), {verdict}.",
        }  # fmt: skip

    def symptoms(self) -> list[Symptom]:
        """Lists that are clearly worse than items drawn by lot from the same candidates; and as a
        warning, an order that is worse than popularity's where that is the baseline.

        What the other policies would bring is told in the table alone: exploring costs something
        on purpose, and a loss against them is a choice to be made, not a fault.
        """
        return [*self._worse_than_chance(), *self._below_baseline()]

    def _below_baseline(self) -> Iterator[Symptom]:
        row = self.gain
        if self.baseline == baseline.POPULARITY and row["verdict"] == baseline.WORSE:
            effect, limit = -row["gain"], row["high"] - row["gain"]
            yield Symptom(
                "below_baseline", f"surface {self.name}", effect, limit,
                effect / max(limit, 1e-12), self.requests, row["sentence"], warning=True,
            )  # fmt: skip

    def _worse_than_chance(self) -> list[Symptom]:
        if self.shown is None or self.lacking(UNIFORM):
            return []
        lot = self.estimates[UNIFORM][0]["doubly_robust"]
        gain = lot.value - self.shown.value
        spread = float(np.std(lot.replicates - self.shown.replicates))
        chance = float(norm.sf(gain / spread)) if spread > 0 else 1.0
        share = gain / lot.value if lot.value > 0 else 0.0
        if share <= BEATEN or chance >= BEATEN_P:
            return []
        return [Symptom(
            "losing_slice", f"surface {self.name}", share, BEATEN, share / BEATEN, self.requests,
            f"The lists on {self.name} bring {self.shown.value:.4g} {self.reward} a request; the "
            f"same items in an order drawn by lot would bring {lot.value:.4g} ({lot.low:.4g} to "
            f"{lot.high:.4g}), so the scores order them worse than chance.",
            p_value=chance,
        )]  # fmt: skip


def reward_of(agreed: Definitions) -> str:
    """What a policy is worth by."""
    if agreed.kpi == "revenue_per_session":
        return MONEY
    return CLICKS if agreed.label.event == "click" else PURCHASES


def doubt(support: Support, reward: str, limits: Params) -> str | None:
    """Why a log with this support is no evidence of a policy; None where it is."""
    if support.overlap < limits.overlap:
        return f"{1 - support.overlap:.0%} of what it would show was not shown"
    if support.effective_sample_size < limits.requests:
        size = support.effective_sample_size
        return f"the log is worth {size:,.0f} of its requests, below {limits.requests:g}"
    if abs(support.mean_weight - 1) > MEAN_WEIGHT_OFF:
        return f"the mean weight is {support.mean_weight:.2f}, not 1: propensities are wrong"
    if support.effective_rewards < limits.rewards:
        size = support.effective_rewards
        return f"the log is worth {size:,.0f} {reward} of it, below {limits.rewards:g}"
    return None


def _support_of_logged(requests: int, reward: np.ndarray) -> Support:
    """All weights are 1."""
    rows = max(len(reward), 1)
    return Support(
        effective_sample_size=float(requests), effective_rewards=kish(reward),
        largest_weight=1 / rows, weight_tail=max(1, round(TAIL * rows)) / rows, overlap=1.0,
        mean_weight=1.0,
    )  # fmt: skip


def _contradicted(estimates: dict[str, Estimate]) -> str | None:
    """The direct method's interval knows nothing of what its model has wrong; the doubly robust
    one sees that."""
    direct, robust = estimates["direct"].value, estimates["doubly_robust"]
    if robust.low <= direct <= robust.high:
        return None
    return f"the reward model alone says {direct:.4g}, outside the doubly robust interval"


def _row(
    policy: str, estimator: str, estimate: Estimate | None, logged: Estimate | None,
    support: Support | None, requests: int, rows: int, reason: str | None,
) -> dict[str, Any]:  # fmt: skip
    return {
        "policy": policy, "estimator": estimator, "requests": requests, "rows": rows,
        "value": estimate.value if estimate else None,
        "low": estimate.low if estimate else None, "high": estimate.high if estimate else None,
        "logged_value": logged.value if logged else None,
        "effective_sample_size": support.effective_sample_size if support else 0.0,
        "effective_rewards": support.effective_rewards if support else 0.0,
        "largest_weight": support.largest_weight if support else 1.0,
        "weight_tail": support.weight_tail if support else 1.0,
        "overlap": support.overlap if support else 0.0,
        "mean_weight": support.mean_weight if support else 0.0,
        "verdict": INSUFFICIENT if reason else EVIDENCE, "reason": reason,
    }  # fmt: skip
