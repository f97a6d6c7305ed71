"""The ranker: what a person will buy, learned from earlier cuts and judged on other people.

Reads ``examples`` and ``example_people``. Writes ``ranker_models``, ``blend_weights``,
``ranking_evidence`` (a row per ranking judged) and ``slice_evidence`` (the same by kinds of
people), ``calibration``, ``reliability`` and ``feature_importance``.

Gradient-boosted trees (XGBoost, Chen and Guestrin, 2016) on log loss. What is trained on the cuts
before the newest one is judged at the newest, beside the blend and every source alone, as the night
itself will be judged by the days to come. Whichever of ranker and blend ranks better is published,
with the probabilities that its judged scores had: a ranker's members trained again on all cuts, and
of the blend the very weights that were judged, since others' sums are of another scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs import limits
from jobs.evaluation import metrics, slices
from jobs.night import Night
from jobs.params import check
from jobs.retrieval import matrix
from jobs.scoring import blend, deep, features, scorer
from jobs.scoring.blend import Judged
from jobs.scoring.deep import Deep
from jobs.scoring.scorer import Calibration
from jobs.tables import FEATURES, SOURCES, TABLES

if TYPE_CHECKING:
    from xgboost import Booster

RANKER, DEEP, BLEND = "ranker", "deep", "blend"
Training = Callable[["Examples", "Params", int], "Sequence[Booster | Deep]"]
BINS = 10
BUCKETS = 64  # of a feature's values


@dataclass(frozen=True)
class Params:
    """How the ranker and the blend are trained."""

    # Candidates of a person that are worth the cost of their features, the nearest by the prior.
    scored: int = 250
    # The same of what is new to the person, for lists of nothing else.
    scored_new: int = 150
    # With fewer people asked at the newest cut no ranker is trained and the blend ranks; with
    # fewer than ``min_people`` the blend is not tuned either, and the prior weights stand.
    min_ranker_people: int = 200
    min_people: int = 40
    # Members whose mean ranks, trees of a member, and how far each tree corrects those before it.
    members: int = 2
    trees: int = 150
    learning_rate: float = 0.1
    # Splits from the root to a leaf, and the least weight of examples in a leaf: behaviour is
    # noisy, and a leaf of a handful of purchases is a coincidence.
    max_depth: int = 5
    min_leaf: float = 30.0
    # Shares of the rows and of the features that a tree and a split look at.
    row_share: float = 0.7
    feature_share: float = 0.4
    # Weights where nothing can be tuned: what a person buys again first, then what they left open
    # (on RetailRocket 0.25, 0.5 and 1 reached 0.072, 0.081 and 0.082), then what was measured to
    # help on Complete Journey at cuts before 2017-12-01.
    prior: Mapping[str, float] = field(
        default_factory=lambda: {
            "buy_again": 1.0, "considered": 0.5, "collaborative": 0.2, "item_to_item": 0.1,
            "bought_together": 0.05, "content_neighbours": 0.02, "trending": 0.05, "popular": 0.1,
            "new_arrivals": 0.02, "editorial": 0.02, "two_tower": 0.05,
        }
    )  # fmt: skip
    # Whether a deep ranker is trained and judged too; needs the package jax (`make neural`).
    deep: bool = False
    # Strength of the pull of the blend's weights towards 0.
    shrinkage: float = 1.0

    def __post_init__(self) -> None:
        check(1 <= self.scored <= 10_000, "scored must be 1 to 10,000")
        check(1 <= self.scored_new <= 10_000, "scored_new must be 1 to 10,000")
        check(self.min_people >= 2, "min_people must be at least 2")
        check(self.min_ranker_people >= self.min_people, "min_ranker_people must be at least "
              "min_people")  # fmt: skip
        check(1 <= self.members <= 10, "members must be 1 to 10")
        check(1 <= self.trees <= 10_000, "trees must be 1 to 10,000")
        check(0 < self.learning_rate <= 1, "learning_rate must be in (0, 1]")
        check(1 <= self.max_depth <= 16, "max_depth must be 1 to 16")
        check(self.min_leaf >= 0, "min_leaf must not be negative")
        check(0 < self.row_share <= 1, "row_share must be in (0, 1]")
        check(0 < self.feature_share <= 1, "feature_share must be in (0, 1]")
        check(all(w >= 0 for w in self.prior.values()), "prior weights must not be negative")
        check(self.shrinkage >= 0, "shrinkage must not be negative")


@dataclass(frozen=True)
class Examples:
    """The rows of ``examples`` as arrays, (n,) each but ``values``, (n, n_features) float32."""

    values: np.ndarray
    trained: np.ndarray
    bought: np.ndarray
    label: np.ndarray
    weight: np.ndarray

    @staticmethod
    def of(rows: pa.Table) -> Examples:
        return Examples(
            features.read(rows),
            rows["trained"].to_numpy(),
            rows["bought"].to_numpy(),
            rows["label"].to_numpy(),
            rows["weight"].to_numpy(),
        )

    def rows(self, kept: np.ndarray) -> Examples:
        """The examples that ``kept``, (n,) bool, says."""
        return Examples(
            self.values[kept], self.trained[kept], self.bought[kept], self.label[kept],
            self.weight[kept],
        )  # fmt: skip

    @property
    def signals(self) -> np.ndarray:
        """(n, n_sources) float64."""
        return self.values[:, -len(SOURCES) :].astype(np.float64)


def run(night: Night, params: Params) -> None:
    """Stage the seven tables."""
    people = night.arrow("example_people")
    cuts = sorted(set(people["as_of"].to_pylist()), reverse=True)
    asked = people.filter(pc.equal(people["as_of"], pc.max(people["as_of"])))
    night.notes["people"] = asked.num_rows
    # What a promise is held to: the days after a release are judged as those after this cut.
    if cuts:
        night.notes["cut"] = cuts[0].isoformat()
    if asked.num_rows < params.min_people or len(cuts) < 2:
        night.notes["untuned"] = (
            f"{asked.num_rows} people at {len(cuts)} cuts, {params.min_people} at 2 needed"
        )
        none = TABLES["slice_evidence"].schema.empty_table()
        judged = Evidence(untuned(asked.num_rows), none)
        stage(night, [], importance([]), dict(params.prior), judged, None)
        return
    rows = night.arrow("examples").sort_by(
        [("as_of", "descending"), ("person_id", "ascending"), ("item_id", "ascending")]
    )
    newest, second = (pc.equal(rows["as_of"], cut).to_numpy() for cut in cuts[:2])
    examples = Examples.of(rows)
    held = lists_of(rows.filter(pa.array(newest)), asked, examples.rows(newest))
    before = lists_of(
        rows.filter(pa.array(second)),
        people.filter(pc.equal(people["as_of"], cuts[1])),
        examples.rows(second),
    )
    weights, best = blend.tune(before.all, params.shrinkage, params.prior)
    night.notes["best_single_source"] = SOURCES[best]
    rankings = {BLEND: held.all.signals @ weights}
    trainings: dict[str, Training] = {RANKER: train} | ({DEEP: train_deep} if params.deep else {})
    trials: dict[str, Sequence[Booster | Deep]] = {}
    if asked.num_rows >= params.min_ranker_people:
        for name, how in trainings.items():
            trials[name] = how(examples.rows(examples.trained & ~newest), params, night.seed)
            rankings[name] = scorer.mean_margin(trials[name], examples.values[newest])
    else:
        night.notes["no_ranker"] = f"{asked.num_rows} people, {params.min_ranker_people} needed"
    reached = {name: held.all.ndcg(score).mean() for name, score in rankings.items()}
    # Of equals the ranker; a network must rank better than trees.
    chosen = max(reached, key=lambda name: (reached[name], name == RANKER))
    training = trainings.get(chosen)
    rankings |= {source: held.all.alone(i) for i, source in enumerate(SOURCES)}
    published = weights
    if chosen != BLEND:
        # They only say which candidates are worth features: nothing here was judged by them.
        published, _ = blend.tune(held.all, params.shrinkage, params.prior)
    members = training(examples.rows(examples.trained), params, night.seed) if training else []
    networks = [member for member in trials.get(chosen, ()) if isinstance(member, Deep)]
    stage(
        night,
        members,
        of_network(networks, examples.rows(newest), night.seed)
        if networks
        else importance(members),
        dict(zip(SOURCES, published.tolist(), strict=True)),
        Evidence(
            evidence(held, rankings, chosen, SOURCES[best], night.seed),
            by_slice(
                held.all,
                rankings,
                slices.of_people(asked, cuts[0], night.params_of("audits")),
                night.seed,
            ),
        ),
        Judgement(rankings[chosen], held.all.bought, held.all.person % 2),
    )


@dataclass(frozen=True)
class Held:
    """Lists of the newest cut: of all items, and of those new to the person."""

    all: Judged
    new: Judged
    is_new: np.ndarray


def lists_of(rows: pa.Table, asked: pa.Table, examples: Examples) -> Held:
    """The candidates of the people of ``asked``; ``rows`` stand as ``examples`` do."""
    person = matrix.known(rows["person_id"], asked["person_id"], "person of examples")
    everything = Judged(person, examples.signals, examples.bought, asked["wanted"].to_numpy())
    is_new = ~(examples.values[:, FEATURES.index("baskets")] > 0)
    new = Judged(person, examples.signals, examples.bought & is_new, asked["wanted_new"].to_numpy())
    return Held(everything, new, is_new)


def train(examples: Examples, params: Params, seed: int) -> list[Booster]:
    """The members, alike but for their seeds: the mean of two varies less than one.

    Features that say the same of every example, as those of looks in a shop that logs none, are
    never drawn, so that ``feature_share`` is of those that tell something.
    """
    import xgboost

    telling = varying(examples.values)
    settings: dict[str, Any] = {
        "objective": "binary:logistic",
        "eta": params.learning_rate,
        "max_depth": params.max_depth,
        "min_child_weight": params.min_leaf,
        "subsample": params.row_share,
        "colsample_bynode": drawn_share(telling, params.feature_share),
        "tree_method": "hist",
        "max_bin": BUCKETS,
    }
    rows = xgboost.QuantileDMatrix(
        examples.values,
        examples.label,
        weight=examples.weight,
        feature_weights=telling.astype(np.float32) if telling.any() else None,
        max_bin=BUCKETS,
    )
    return [
        xgboost.train(settings | {"seed": seed + number}, rows, params.trees)
        for number in range(params.members)
    ]


def varying(values: np.ndarray) -> np.ndarray:
    """(n_features,) bool: whether the column has two values, an unknown one counting as one."""
    first = values[:1]
    return ((values != first) & ~(np.isnan(values) & np.isnan(first))).any(axis=0)


def drawn_share(telling: np.ndarray, share: float) -> float:
    """The share of all features that is this share of those that tell something, one at least.

    XGBoost cuts the number of features off, so half a one more is asked for.
    """
    drawn = max(1, int(share * telling.sum() + 1e-9))
    return min(1.0, (drawn + 0.5) / len(telling))


def train_deep(examples: Examples, params: Params, seed: int) -> list[Deep]:
    """The members of the deep ranker, as many, alike but for their seeds."""
    return [
        deep.train(examples.values, examples.label, examples.weight, deep.Params(), seed + number)
        for number in range(params.members)
    ]


# --- what it is worth --------------------------------------------------------------------------
@dataclass(frozen=True)
class Evidence:
    """The tables ``ranking_evidence`` and ``slice_evidence``."""

    whole: pa.Table
    slices: pa.Table


@dataclass(frozen=True)
class Judgement:
    """Scores of the published ranking on days it was not trained on, and what came; (n,).

    ``half``: 0 or 1, of which half of the people the row is.
    """

    score: np.ndarray
    bought: np.ndarray
    half: np.ndarray


def evidence(
    held: Held, rankings: Mapping[str, np.ndarray], chosen: str, best: str, seed: int
) -> pa.Table:
    """The table ``ranking_evidence``.

    ``difference_low`` is the lower end of the interval of the paired difference between the row's
    ranking and the best single source's. ``new_ndcg_at_10`` is of the list of what is new to the
    person, over those who bought something new.
    """
    reference = held.all.ndcg(rankings[best])
    buyers = held.new.wanted > 0
    rows = []
    for name, score in rankings.items():
        reached = held.all.ndcg(score)
        low, high = metrics.interval(reached, seed)
        new = held.new.of(buyers)
        of_new = np.where(held.is_new, score, -np.inf)[buyers[held.new.person]]
        rows.append(
            {
                "ranking": name,
                "published": name == chosen,
                "people": len(held.all.wanted),
                "ndcg_at_10": float(reached.mean()),
                "ndcg_low": low,
                "ndcg_high": high,
                "recall_at_20": float(held.all.recall(score, 20).mean()),
                "new_ndcg_at_10": float(new.ndcg(of_new).mean()) if buyers.any() else 0.0,
                "difference_low": metrics.interval(reached - reference, seed)[0],
            }
        )
    return pa.Table.from_pylist(rows, TABLES["ranking_evidence"].schema)


def by_slice(
    held: Judged, rankings: Mapping[str, np.ndarray],
    kinds: Mapping[tuple[str, str], np.ndarray], seed: int,
) -> pa.Table:  # fmt: skip
    """The table ``slice_evidence``; ``kinds``: of :func:`slices.of_people`, of the same people."""
    reached = np.column_stack([held.ndcg(score) for score in rankings.values()])
    rows = []
    for (kind, value), members in kinds.items():
        if kind == slices.ALL:
            continue
        found = zip(rankings, *metrics.intervals(reached[members], seed), strict=True)
        rows += [
            {
                "ranking": name, "slice_kind": kind, "slice": value, "people": int(members.sum()),
                "ndcg_at_10": float(mean), "ndcg_low": float(low), "ndcg_high": float(high),
            }
            for name, mean, low, high in found
        ]  # fmt: skip
    return pa.Table.from_pylist(rows, TABLES["slice_evidence"].schema)


def untuned(people: int) -> pa.Table:
    """The evidence of a night that had too few people to tune on: there is none."""
    row = {name: 0.0 for name in TABLES["ranking_evidence"].schema.names}
    return pa.Table.from_pylist(
        [row | {"ranking": "prior", "published": True, "people": people}],
        TABLES["ranking_evidence"].schema,
    )


def reliability(judgement: Judgement) -> pa.Table:
    """The table ``reliability``: each half's probabilities by a calibration on the other."""
    predicted = np.zeros(len(judgement.score))
    for half in (0, 1):
        own = judgement.half == half
        fitted = ~own if (~own).any() else own
        knots = scorer.calibrate(judgement.score[fitted], judgement.bought[fitted])
        calibration = Calibration(knots["score"].to_numpy(), knots["logit"].to_numpy())
        predicted[own] = calibration.probability(judgement.score[own])
    order = np.argsort(predicted, kind="stable")
    rows = []
    for number, part in enumerate(np.array_split(order, BINS)):
        if len(part) == 0:
            continue
        bought = int(judgement.bought[part].sum())
        low, high = metrics.wilson(bought, len(part))
        foretold = float(predicted[part].sum())
        rows.append(
            {
                "bin": number + 1,
                "rows": len(part),
                "predicted": float(predicted[part].mean()),
                "bought": float(judgement.bought[part].mean()),
                "bought_low": low,
                "bought_high": high,
                "off": bought / foretold - 1 if foretold >= limits.CALIBRATION_PURCHASES else 0.0,
            }
        )
    return pa.Table.from_pylist(rows, TABLES["reliability"].schema)


def importance(members: Sequence[Booster | Deep]) -> pa.Table:
    """The table ``feature_importance`` of trees; a feature that no tree splits on has 0."""
    gain = dict.fromkeys(FEATURES, 0.0)
    for member in members:
        if isinstance(member, Deep):
            continue
        for name, total in member.get_score(importance_type="total_gain").items():
            gain[FEATURES[int(name.removeprefix("f"))]] += float(total)  # type: ignore[arg-type]
    return shares(gain)


def of_network(members: Sequence[Deep], held: Examples, seed: int) -> pa.Table:
    """The table ``feature_importance`` of a network, which splits on nothing: by what its loss
    rises on ``held``, examples that these members did not learn from, see
    :func:`deep.importance`."""
    risen = deep.importance(members, held.values, held.bought, seed)
    return shares(dict(zip(FEATURES, risen.tolist(), strict=True)))


def shares(gain: Mapping[str, float]) -> pa.Table:
    """The table ``feature_importance`` from what each feature brings."""
    whole = sum(gain.values()) or 1.0
    return pa.Table.from_pylist(
        [{"feature": name, "gain": value / whole} for name, value in gain.items()],
        TABLES["feature_importance"].schema,
    )


def model_table(members: Sequence[Booster | Deep]) -> pa.Table:
    """The table ``ranker_models``."""
    rows = [
        {"member": number, "trees": 1, "model": member.to_json()}
        if isinstance(member, Deep)
        else {
            "member": number,
            "trees": member.num_boosted_rounds(),
            "model": member.save_raw("json").decode(),
        }
        for number, member in enumerate(members)
    ]
    return pa.Table.from_pylist(rows, TABLES["ranker_models"].schema)


def stage(
    night: Night,
    members: Sequence[Booster | Deep],
    looked_at: pa.Table,
    weights: Mapping[str, float],
    judged: Evidence,
    judgement: Judgement | None,
) -> None:
    """Write the seven tables."""
    night.write("ranker_models", model_table(members))
    night.write("blend_weights", blend.weight_table(weights))
    night.write("ranking_evidence", judged.whole)
    night.write("slice_evidence", judged.slices)
    nothing = np.zeros(0)
    night.write(
        "calibration",
        scorer.calibrate(nothing, nothing)
        if judgement is None
        else scorer.calibrate(judgement.score, judgement.bought),
    )
    night.write(
        "reliability",
        TABLES["reliability"].schema.empty_table() if judgement is None else reliability(judgement),
    )
    night.write("feature_importance", looked_at)
