"""How much each candidate source's word counts, tuned on days before the night.

Reads ``history``, ``items``, ``persons``, ``editorial``, ``identities`` and ``content_vectors``.
Writes ``blend_weights`` (a row per source) and ``blend_evidence`` (a row per ranking judged).

The sources are run once more as of an earlier cut, with what had been received then, by the same
functions as in the night. Half of the sampled people tune the weights: a logistic regression of
"bought in the days after the cut" on the sources' signals, weights not below 0, then the mixture
with the best single source that ranks best. The other half, whose purchases tuning never saw,
judges the blend beside every source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy.optimize import minimize

from jobs.evaluation import metrics
from jobs.night import Night
from jobs.params import check
from jobs.retrieval import candidates, matrix
from jobs.scoring import features
from jobs.signals import interactions
from jobs.tables import SOURCES, TABLES

MIXTURES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
JUDGED_AT = 10


@dataclass(frozen=True)
class Params:
    """How the blend is tuned."""

    # The days before the night that say what was bought; four weeks hold a grocer's month.
    horizon_days: int = 28
    # People sampled, half to tune and half to judge: enough for an interval of about 2 %.
    max_people: int = 1_500
    # With fewer people than this there is nothing to tune on, and the prior weights stand.
    min_people: int = 40
    # Weights where nothing can be tuned: what a person buys again first, then what was measured
    # to help on Complete Journey at cuts before 2017-12-01.
    prior: Mapping[str, float] = field(
        default_factory=lambda: {
            "buy_again": 1.0, "collaborative": 0.2, "item_to_item": 0.1, "bought_together": 0.05,
            "content_neighbours": 0.02, "trending": 0.05, "popular": 0.1, "new_arrivals": 0.02,
            "editorial": 0.02,
        }
    )  # fmt: skip
    # Strength of the pull of the logistic regression's weights towards 0.
    shrinkage: float = 1.0

    def __post_init__(self) -> None:
        check(self.horizon_days > 0, "horizon_days must be positive")
        check(self.max_people >= 2, "max_people must be at least 2")
        check(self.min_people >= 2, "min_people must be at least 2")
        check(all(w >= 0 for w in self.prior.values()), "prior weights must not be negative")
        check(self.shrinkage >= 0, "shrinkage must not be negative")


@dataclass(frozen=True)
class Judged:
    """Candidates of people whose next purchases are known, flat.

    ``person``: (n,) codes from 0; ``signals``: (n, n_sources) float64; ``bought``: (n,) bool;
    ``wanted``: (n_people,) items bought in the horizon, among the candidates or not.
    """

    person: np.ndarray
    signals: np.ndarray
    bought: np.ndarray
    wanted: np.ndarray

    def of(self, people: np.ndarray) -> Judged:
        """The part of these people; ``people``: (n_people,) bool."""
        rows = people[self.person]
        code = np.cumsum(people) - 1
        return Judged(
            code[self.person[rows]], self.signals[rows], self.bought[rows], self.wanted[people]
        )

    def ndcg(self, score: np.ndarray) -> np.ndarray:
        """(n_people,) NDCG at the judged length of the ranking by ``score`` (n,)."""
        rank, listed = metrics.ranks(self.person, score), np.isfinite(score)
        return metrics.ndcg(self.person, rank, self.bought & listed, self.wanted, JUDGED_AT)

    def alone(self, source: int) -> np.ndarray:
        """(n,) scores that rank what one source named by its own ranks, and nothing else."""
        signal = self.signals[:, source]
        return np.where(signal > 0, signal, -np.inf)

    def recall(self, score: np.ndarray, k: int) -> np.ndarray:
        """(n_people,) recall at ``k`` of the ranking by ``score`` (n,)."""
        rank, listed = metrics.ranks(self.person, score), np.isfinite(score)
        return metrics.recall(self.person, rank, self.bought & listed, self.wanted, k)


def run(night: Night, params: Params) -> None:
    """Stage ``blend_weights`` and ``blend_evidence``."""
    history = night.frame("history")
    cut = cut_before(history, night.as_of, params.horizon_days)
    night.notes["cut"] = cut.isoformat()
    before = history.where((F.col("received_time") < F.lit(cut)) & (F.col("event_time") < cut))
    after = history.where((F.col("event_type") == "purchase") & (F.col("event_time") >= cut))
    people = sample(before, after, night.seed, params.max_people)
    if people.num_rows < params.min_people:
        night.notes["untuned"] = f"{people.num_rows} people, {params.min_people} needed"
        night.write("blend_weights", weight_table(params.prior))
        night.write("blend_evidence", untuned(people.num_rows))
        return
    judged = judge(night, before, after, people, cut)
    first_half = np.arange(people.num_rows) % 2 == 0
    tuned, held = judged.of(first_half), judged.of(~first_half)
    weights, best = tune(tuned, params.shrinkage)
    night.notes["best_single_source"] = SOURCES[best]
    night.write("blend_weights", weight_table(dict(zip(SOURCES, weights.tolist(), strict=True))))
    night.write("blend_evidence", evidence(held, weights, best, night.seed))


def cut_before(history: DataFrame, as_of: datetime, horizon_days: int) -> datetime:
    """The instant that splits what tuning may look at from what it must foresee.

    A history shorter than four horizons gives a quarter of itself as the horizon.
    """
    first = history.agg(F.min("event_time").alias("first")).toArrow()["first"][0].as_py()
    days = (as_of - first).days
    return as_of - timedelta(days=max(1, min(horizon_days, days // 4)))


def sample(before: DataFrame, after: DataFrame, seed: int, count: int) -> pa.Table:
    """``person_id`` of up to ``count`` people with signals before and purchases after the cut.

    Seeded by a hash of the id, so that the same people come whatever the order of the rows.
    """
    known = before.select("person_id").distinct()
    return (
        after.select("person_id")
        .distinct()
        .join(known, on="person_id", how="semi")
        .orderBy(F.xxhash64("person_id", F.lit(seed)), "person_id")
        .limit(count)
        .toArrow()
    )


def judge(
    night: Night, before: DataFrame, after: DataFrame, people: pa.Table, cut: datetime
) -> Judged:
    """Run the sources as of the cut for the people sampled, and mark what they bought after it."""
    wanted_people = night.spark.createDataFrame(people)
    pairs = interactions.interactions(before, cut, night.params_of("interactions")).toArrow()
    known = F.least("first_seen", "created_time")
    items = night.frame("items").where(F.coalesce(known < F.lit(cut), F.lit(True)))
    seen = candidates.Seen(
        as_of=cut,
        history=before,
        interactions=matrix.build(pairs),
        items=items,
        persons=night.frame("persons"),
        editorial=night.frame("editorial"),
        content=content_known(night.arrow("content_vectors"), items.select("item_id").toArrow()),
        factors=None,
        people=people["person_id"].combine_chunks(),
    )
    nominated = candidates.nominate(night, seen, night.params_of("candidates"))
    bought = (
        after.select("person_id", "item_id")
        .distinct()
        .join(wanted_people, on="person_id", how="semi")
        .toArrow()
    )
    return as_arrays(nominated, bought, people["person_id"])


def content_known(content: pa.Table, items: pa.Table) -> pa.Table:
    """The content vectors of these items."""
    return content.filter(pc.is_in(content["item_id"], value_set=items["item_id"].combine_chunks()))


def as_arrays(nominated: pa.Table, bought: pa.Table, people: pa.ChunkedArray) -> Judged:
    """What was named and what was bought as arrays: by person as sampled, then by item id.

    ``nominated``: person_id, item_id, source, rank; ``bought``: person_id, item_id, a pair once.
    """
    item_ids, items = matrix.encode(
        pa.chunked_array([*nominated["item_id"].chunks, *bought["item_id"].chunks], pa.string())
    )
    named, wanted = items[: nominated.num_rows], items[nominated.num_rows :]
    pairs = features.wide(
        features.Named(
            person=matrix.known(nominated["person_id"], people, "person of candidates"),
            item=named,
            source=matrix.known(nominated["source"], pa.array(SOURCES), "source of candidates"),
            rank=nominated["rank"].to_numpy().astype(np.int64),
        )
    )
    buyer = matrix.known(bought["person_id"], people, "person of purchases")
    size = len(item_ids)
    return Judged(
        person=pairs.person,
        signals=pairs.signals,
        bought=np.isin(pairs.person * size + pairs.item, buyer * size + wanted),
        wanted=np.bincount(buyer, minlength=len(people)),
    )


def tune(judged: Judged, shrinkage: float) -> tuple[np.ndarray, int]:
    """(n_sources,) weights and the place of the best single source, both on the tuning half.

    The mixture runs from the best source alone to the regression's weights and beyond, so the
    chosen weights rank the tuning half at least as well as the best source does.
    """
    alone = np.array([judged.ndcg(judged.alone(i)).mean() for i in range(len(SOURCES))])
    best = int(alone.argmax())
    regressed = logistic(judged.signals, judged.bought, shrinkage)
    single = np.zeros(len(SOURCES))
    single[best] = max(regressed[best], 1e-3)
    rest = regressed.copy()
    rest[best] = 0.0
    mixed = [single + share * rest for share in MIXTURES]
    reached = [judged.ndcg(judged.signals @ weights).mean() for weights in mixed]
    chosen = mixed[int(np.argmax(reached))]
    return chosen / chosen.sum(), best


def logistic(signals: np.ndarray, bought: np.ndarray, shrinkage: float) -> np.ndarray:
    """(n_sources,) weights, none below 0, of a logistic regression with a free intercept.

    Maximum likelihood with a ridge of ``shrinkage``, by L-BFGS-B (Byrd et al., 1995).
    """
    design = np.column_stack([signals, np.ones(len(signals))])
    sign = np.where(bought, 1.0, -1.0)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (design @ weights)
        penalty = 0.5 * shrinkage * (weights[:-1] ** 2).sum()
        slope = -sign / (1.0 + np.exp(np.clip(margin, -500, 500)))
        gradient = design.T @ slope
        gradient[:-1] += shrinkage * weights[:-1]
        return float(np.logaddexp(0.0, -margin).sum() + penalty), gradient

    start = np.zeros(design.shape[1])
    bounds = [(0.0, None)] * signals.shape[1] + [(None, None)]
    return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x[:-1]


def evidence(held: Judged, weights: np.ndarray, best: int, seed: int) -> pa.Table:
    """The table ``blend_evidence``: the blend and every source alone, on the judging half.

    ``difference_low`` is the lower end of the interval of the paired difference between the row's
    ranking and the best single source's.
    """
    rankings = {"blend": held.signals @ weights}
    rankings |= {source: held.alone(i) for i, source in enumerate(SOURCES)}
    reference = held.ndcg(held.alone(best))
    rows = []
    for name, score in rankings.items():
        reached = held.ndcg(score)
        low, high = metrics.interval(reached, seed)
        rows.append(
            {
                "ranking": name,
                "people": len(held.wanted),
                "ndcg_at_10": float(reached.mean()),
                "ndcg_low": low,
                "ndcg_high": high,
                "recall_at_20": float(held.recall(score, 20).mean()),
                "difference_low": metrics.interval(reached - reference, seed)[0],
            }
        )
    return pa.Table.from_pylist(rows, TABLES["blend_evidence"].schema)


def weight_table(weights: Mapping[str, float]) -> pa.Table:
    """The table ``blend_weights``; a source without a weight counts 0."""
    return pa.table(
        {
            "source": list(SOURCES),
            "weight": [float(weights.get(source, 0.0)) for source in SOURCES],
        }
    )


def untuned(people: int) -> pa.Table:
    """The evidence of a night that had too few people to tune on: there is none."""
    row = {
        "ranking": "prior", "people": people, "ndcg_at_10": 0.0, "ndcg_low": 0.0,
        "ndcg_high": 0.0, "recall_at_20": 0.0, "difference_low": 0.0,
    }  # fmt: skip
    return pa.Table.from_pylist([row], TABLES["blend_evidence"].schema)
