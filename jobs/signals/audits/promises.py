"""What each release promised beside what came true.

On the night of a release ``ranking_evidence`` says what its ranking reached on the days before it:
a promise. Once the days after it have been received, the lists that were published, and each source
alone, are judged by the same metric on what people then bought, among the same kind of people:
known at the release, buying after it, sampled by the same rule.

Published lists were filtered and filled by quota and the promised ranking was not, so a steady gap
is what the rules cost. A gap that *widens* is the news: under a model that stayed as it was it
comes from the pipeline (late data, split people, features that differ), else from the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import io, limits
from jobs.evaluation import metrics, outcomes, slices
from jobs.evaluation.slices import ALL
from jobs.io import Published
from jobs.ordering.lists import places
from jobs.ordering.surfaces import MAIN
from jobs.release import replaced
from jobs.retrieval.sources import pools
from jobs.scoring import examples
from jobs.scoring.blend import JUDGED_AT
from jobs.tables import SOURCES, TABLES

if TYPE_CHECKING:
    from jobs.night import Night
    from jobs.signals.audits.audits import Params

# Steps of the release's night whose tables are read; without one of them it can't be judged.
STEPS = ("identities", "interactions", "embeddings", "candidates", "ranker", "recommendations")
PUBLISHED = "published"
PROMISED_AS = "promised"  # the ranking of ranking_evidence that was published
PIPELINE, MODEL, BROKEN = "pipeline", "model", "broken"
KEY = ["key_type", "key"]
DAY = 86_400.0
# As many releases before one say what gap is usual.
REFERENCE = 5


@dataclass(frozen=True)
class Promise:
    """What an earlier release said of itself, and the model behind it.

    ``rankings``: name to (NDCG@10, low, high), empty where nothing could be judged; ``slices``: the
    same by (name, kind of people, value). ``horizon_days``: the days of purchases that the promise
    was judged on. ``kind``: what ranks, trees or the blend, and ``features`` what it looks at.
    ``weights``: of the blend, by source. ``moved``: the share of items whose vector moved that
    night, where known.
    """

    released: datetime
    horizon_days: float
    rankings: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    slices: Mapping[tuple[str, str, str], tuple[float, float, float]] = field(default_factory=dict)
    kind: str = ""
    features: frozenset[str] = frozenset()
    weights: Mapping[str, float] = field(default_factory=dict)
    moved: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What people bought after a release, and how well each ranking had listed it.

    ``reached``: ranking to (n_people,) NDCG@10. ``slices``: (kind, value) to (n_people,) bool.
    """

    reached: Mapping[str, np.ndarray]
    slices: Mapping[tuple[str, str], np.ndarray]


def run(night: Night, params: Params) -> pa.Table:
    """The table ``promises``: the predecessor's rows, and those of the releases due tonight."""
    before = night.previous("audits")
    carried = io.read_arrow(before.table("promises")).to_pylist() if before else []
    final = {row["released"] for row in carried if row["final"]}
    shelf = {}
    for release in night.lake.earlier("release", night.as_of):
        if release.manifest.get("refresh"):
            continue  # its ranking is its night's, which promised it
        nights = {step: night.lake.at(step, release.as_of) for step in STEPS}
        if all(nights.values()):
            promise = promise_of(nights, params.horizon_days)  # type: ignore[arg-type]
            shelf[promise.released] = (promise, release.as_of)
    promises = {released: promise for released, (promise, _) in shelf.items()}
    chosen = due([p for p in promises.values() if p.released not in final], night.as_of, params)
    purchases = night.frame("history").where(F.col("event_type") == "purchase")
    fresh = []
    for promise in chosen:
        label = shelf[promise.released][1]
        steps = {step: night.earlier(step, label) for step in STEPS}
        # What was bought before then its lists could not hold any more.
        since = replaced.shown_as_of(night.lake.at("catalogue", label), promise.released)
        mine = purchases.where(F.col("event_time") >= F.lit(since))
        found = outcome(night.spark, steps, promise, mine, night.as_of, night.seed, params)
        fresh += rows_of(promise, found, night.as_of, night.seed, params)
    night.notes["releases_judged"] = [promise.released.isoformat() for promise in chosen]
    again = {promise.released for promise in chosen}
    rows = [row for row in carried if row["released"] not in again] + fresh
    return pa.Table.from_pylist(flagged(rows, promises, again, params), TABLES["promises"].schema)


# --- which releases, and what they promised --------------------------------------------------
def promise_of(nights: Mapping[str, Published], horizon_days: int) -> Promise:
    """What the night of a release published of its blend and its model."""
    tuned = nights["ranker"].manifest
    released = datetime.fromisoformat(tuned["as_of"])
    notes = tuned.get("notes", {})
    cut = notes.get("cut")
    evidence = io.read_arrow(nights["ranker"].table("ranking_evidence")).to_pylist()
    told = {row["ranking"]: PROMISED_AS if row["published"] else row["ranking"] for row in evidence}
    features = io.read_arrow(nights["ranker"].table("feature_importance"))
    weights = io.read_arrow(nights["ranker"].table("blend_weights")).to_pydict()
    measures = io.read_arrow(nights["embeddings"].table("embedding_report")).to_pydict()
    return Promise(
        released=released,
        horizon_days=(
            (released - datetime.fromisoformat(cut)).total_seconds() / DAY if cut else horizon_days
        ),
        rankings={
            told[row["ranking"]]: _reached(row)
            for row in evidence
            if told[row["ranking"]] in (PROMISED_AS, *SOURCES) and row["ndcg_at_10"] > 0
        },
        slices={
            (told[row["ranking"]], row["slice_kind"], row["slice"]): _reached(row)
            for row in slices_of(nights["ranker"])
        },
        kind=next((row["ranking"] for row in evidence if row["published"]), ""),
        features=frozenset(features["feature"].to_pylist()),
        weights=dict(zip(weights["source"], weights["weight"], strict=True)),
        moved=dict(zip(measures["measure"], measures["value"], strict=True)).get("moved_share"),
    )


def slices_of(ranker: Published) -> list[dict[str, Any]]:
    """The rows of ``slice_evidence``; none of a night that did not promise by slice yet."""
    folder = ranker.table("slice_evidence")
    return io.read_arrow(folder).to_pylist() if folder.exists() else []


def _reached(row: Mapping[str, Any]) -> tuple[float, float, float]:
    return row["ndcg_at_10"], row["ndcg_low"], row["ndcg_high"]


def due(promises: Iterable[Promise], as_of: datetime, params: Params) -> list[Promise]:
    """The releases to judge tonight, at most ``max_releases``, oldest first.

    Those whose horizon is over come first, so that every release becomes final; then the newest,
    whose rows change most from night to night.
    """
    ripe = [p for p in promises if elapsed(p, as_of) >= params.maturity_days]
    newest_first = sorted(ripe, key=lambda p: p.released, reverse=True)
    over_first = sorted(newest_first, key=lambda p: not is_final(p, as_of, params))
    return sorted(over_first[: params.max_releases], key=lambda p: p.released)


def elapsed(promise: Promise, as_of: datetime) -> float:
    """Days since the release's run date."""
    return (as_of - promise.released).total_seconds() / DAY


def is_final(promise: Promise, as_of: datetime, params: Params) -> bool:
    """Whether the whole horizon has happened, and what came late has had its time to come."""
    return elapsed(promise, as_of) >= promise.horizon_days + params.settle_days


# --- what people then did --------------------------------------------------------------------
def bought(
    purchases: DataFrame, identities: DataFrame, known: DataFrame, since: datetime, until: datetime
) -> DataFrame:
    """``person_id``, ``item_id`` of what the people known at a release bought in the days after it.

    ``purchases``: rows of tonight's ``history``; ``identities``: as of the release. Who was unknown
    then had no list and is not judged.
    """
    after = (F.col("event_time") >= F.lit(since)) & (F.col("event_time") < F.lit(until))
    return (
        outcomes.of_persons(purchases.where(after), identities)
        .select("person_id", "item_id")
        .join(known.select("person_id"), on="person_id", how="semi")
        .distinct()
    )


def outcome(
    spark: SparkSession,
    nights: Mapping[str, Published],
    promise: Promise,
    purchases: DataFrame,
    as_of: datetime,
    seed: int,
    params: Params,
) -> Outcome:
    """How well the release's lists and each of its sources had listed what people then bought."""

    def then(step: str, table: str) -> DataFrame:
        return io.frame(spark, nights[step].table(table))

    known = then("identities", "persons").where(
        F.col("personalised") & (F.col("first_seen") < F.lit(promise.released))
    )
    until = min(as_of, promise.released + timedelta(days=promise.horizon_days))
    pairs = bought(purchases, then("identities", "identities"), known, promise.released, until)
    # Saves a second join of the purchases: the sample is drawn from the pairs, then they are read.
    pairs = pairs.persist(StorageLevel.MEMORY_AND_DISK)
    try:
        ids = examples.sample(known, pairs, seed, params.max_people)
        wanted = spark.createDataFrame(pa.table({"person_id": ids}))
        truth = pairs.join(wanted, on="person_id", how="semi").toArrow()
    finally:
        pairs.unpersist()
    facts = _in_order(
        known.join(wanted, on="person_id", how="semi")
        .select("person_id", "region", "segment", "first_seen")
        .toArrow(),
        ids,
    )
    own = listed(nights["candidates"], "candidates", ["source", "rank"], ids)
    lists = listed(nights["recommendations"], "recommendations", ["surface", "rank"], ids)
    # Each surface has lists of its own; the promise is of one ranking, and this one shows it.
    names = pc.unique(lists["surface"]).to_pylist()
    surface = MAIN if MAIN in names else min(names, default=MAIN)
    of_pools = pools.for_people(
        io.read_arrow(nights["candidates"].table("pools")), facts, JUDGED_AT, (surface,)
    )
    rankings = {PUBLISHED: lists.filter(pc.equal(lists["surface"], surface))}
    for source in SOURCES:
        named = of_pools if source in pools.SHARED else own
        rankings[source] = named.filter(pc.equal(named["source"], source))
    behind = io.read_arrow(
        nights["interactions"].table("interactions"), ["person_id", "events"],
        ds.field("person_id").isin(ids),
    )  # fmt: skip
    facts = facts.append_column("events", pa.array(slices.events_of(behind, ids)))
    return Outcome(
        reached={name: reached(rows, truth, ids) for name, rows in rankings.items()},
        slices=slices.of_people(facts, promise.released, params),
    )


def listed(night: Published, table: str, columns: list[str], people: pa.StringArray) -> pa.Table:
    """The first places of these people's lists in a table of an earlier night."""
    first = (ds.field("rank") <= JUDGED_AT) & ds.field("person_id").isin(people)
    return io.read_arrow(night.table(table), ["person_id", "item_id", *columns], first)


def reached(rows: pa.Table, truth: pa.Table, people: pa.StringArray) -> np.ndarray:
    """(n_people,) NDCG@10 of one ranking; ``rows``: person_id, item_id, rank (from 1); of equal
    ranks the lower item comes first."""
    rows = rows.sort_by([(name, "ascending") for name in ("person_id", "rank", "item_id")])
    person = pc.index_in(rows["person_id"], value_set=people).to_numpy()
    wanted = np.bincount(
        pc.index_in(truth["person_id"], value_set=people).to_numpy(), minlength=len(people)
    )
    relevant = pc.is_in(_pairs(rows), value_set=_pairs(truth)).to_numpy(zero_copy_only=False)
    return metrics.ndcg(person.astype(np.int64), places(person) - 1, relevant, wanted, JUDGED_AT)


# --- the rows --------------------------------------------------------------------------------
def rows_of(
    promise: Promise, found: Outcome, as_of: datetime, seed: int, params: Params
) -> list[dict[str, Any]]:
    """Rows of the table ``promises`` of one release, without flags.

    A gap is promise less outcome. It is given where the whole horizon has passed, since fewer days
    hold fewer purchases to foresee, and for slices that were promised something.
    """
    rankings = list(found.reached)
    over = elapsed(promise, as_of) >= promise.horizon_days
    rows = []
    for (kind, value), members in found.slices.items():
        values = np.column_stack([found.reached[name][members] for name in rankings])
        means, lows, highs = metrics.intervals(values, seed)
        for place, ranking in enumerate(rankings):
            said = PROMISED_AS if ranking == PUBLISHED else ranking
            whole = kind == ALL
            promised = (
                promise.rankings.get(said) if whole else promise.slices.get((said, kind, value))
            )
            reality = (float(means[place]), float(lows[place]), float(highs[place]))
            gaps = gap(promised, reality) if promised and over and len(values) else (None,) * 3
            rows.append({
                "released": promise.released, "ranking": ranking, "slice_kind": kind,
                "slice": value,
                "horizon_days": min(elapsed(promise, as_of), promise.horizon_days),
                "people": int(members.sum()),
                **_triple("promised", promised or (None,) * 3),
                **_triple("realised", reality),
                **_triple("gap", gaps),
                "final": is_final(promise, as_of, params), "flag": None,
            })  # fmt: skip
    return rows


def gap(
    promised: tuple[float, float, float], realised: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Promise less outcome with its interval, from two independent means with theirs.

    By the square-and-add rule (Zou and Donner, 2008).
    """
    (p, p_low, p_high), (r, r_low, r_high) = promised, realised
    below = float(np.hypot(p - p_low, r_high - r))
    above = float(np.hypot(p_high - p, r - r_low))
    return p - r, p - r - below, p - r + above


def flagged(
    rows: list[dict[str, Any]],
    promises: Mapping[datetime, Promise],
    judged: set[datetime],
    params: Params,
) -> list[dict[str, Any]]:
    """The rows in order, those of the ``judged`` releases with their flag.

    A gap has widened where its interval lies above the median gap of the releases before by more
    than ``widening``. With none before it is held against the promise itself: a release that falls
    short of it, and has no earlier one to tell why, is broken.
    """
    rows = sorted(rows, key=_place)
    earlier: list[dict[str, Any]] = []
    for row in rows:
        whole = (row["ranking"], row["slice_kind"]) == (PUBLISHED, ALL) and row["gap"] is not None
        if not whole:
            continue
        if row["released"] in judged:
            usual = float(np.median([r["gap"] for r in earlier[-REFERENCE:]])) if earlier else 0.0
            if row["gap_low"] > usual + params.widening:
                before = promises.get(earlier[-1]["released"]) if earlier else None
                row["flag"] = cause(promises[row["released"]], before) if earlier else BROKEN
        earlier.append(row)
    return rows


def cause(now: Promise, before: Promise | None) -> str:
    """``pipeline`` where the model is as it was at the release before, else ``model``.

    As it was: it promised about the same, trees or the blend rank as before and look at the same
    features, few items moved that night, and the blend weighs its sources alike. A release whose
    night is gone from the lake can't be compared: ``model``, since nothing clears it.
    """
    if before is None:
        return MODEL
    (p, low, high), (q, q_low, q_high) = now.rankings[PROMISED_AS], before.rankings[PROMISED_AS]
    same_promise = q_low <= p <= q_high or low <= q <= high
    same_kind = (now.kind, now.features) == (before.kind, before.features)
    still = now.moved is None or now.moved <= limits.MOVED_UNUSUAL
    turned = sum(
        abs(now.weights.get(source, 0.0) - before.weights.get(source, 0.0)) for source in SOURCES
    )
    # Half the sum is the weight that moved from one source to another.
    alike = turned / 2 <= limits.WEIGHTS_CLOSE
    return PIPELINE if same_promise and same_kind and still and alike else MODEL


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    """By release; what was published first, everybody before slices."""
    ranking, kind = row["ranking"], row["slice_kind"]
    return row["released"], ranking != PUBLISHED, ranking, kind != ALL, kind, row["slice"]


def _triple(name: str, values: tuple[Any, Any, Any]) -> dict[str, Any]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _pairs(rows: pa.Table) -> pa.Array:
    return pc.binary_join_element_wise(rows["person_id"], rows["item_id"], "\x1f").combine_chunks()


def _in_order(rows: pa.Table, people: pa.StringArray) -> pa.Table:
    """Rows in the order of ``people``, one each."""
    return rows.take(pc.index_in(people, value_set=rows["person_id"].combine_chunks()))
