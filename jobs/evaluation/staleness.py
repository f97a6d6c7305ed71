"""What lists lose as what they are made from grows old: the staleness curve.

Reads ``history``, ``items``, ``persons``, ``editorial`` and ``content_vectors`` of one run date.
Writes ``staleness/<source>/<as_of>/`` in the lake, whole or not at all: ``curve/`` (one row per
table that ages, age and tier of items) and ``staleness.json`` (the drift window and how often to
refresh each table).

The model stands still (parameters, and weights of the blend tuned on days before any that are
judged); at each cut its lists are judged on the purchases of the days after, while one table is
as old as it would be had it last been refreshed ``age`` days before the cut:

- interactions: every source runs on what had been received ``age`` days before the cut;
- embeddings: the vectors are from then, and all other sources from the cut;
- candidates: the pairs are those nominated then, scored and ordered by the sources at the cut. A
  pair that no source names any more stands behind those still named, by its old score.

All three need the sources once per cut and age, and lists of age 0 are the same for all.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs import io
from jobs.errors import Fault
from jobs.evaluation import advice, ageing, curves
from jobs.evaluation.ageing import Cut, Ids, Named
from jobs.night import Night
from jobs.params import check
from jobs.retrieval import candidates
from jobs.scoring import blend, examples, features
from jobs.signals import sessions, shop
from jobs.signals.past import people_of
from jobs.signals.shop import Catalogue
from jobs.tables import SOURCES

log = logging.getLogger("nightjar")

# The steps whose tables are read, where the night has them.
NEEDS = (
    "source", "events", "catalogue", "identities", "sessions", "interactions",
    "content_embeddings",
)  # fmt: skip


@dataclass(frozen=True)
class Params:
    """What ages, how far, and how it is judged."""

    # Days that a table has aged; 0 is a table of the same night.
    ages: tuple[float, ...] = (0, 1, 3, 7, 14, 28)
    # The days after a cut that say what was bought: short, or their own drift blurs the curve.
    horizon_days: int = 7
    # Cuts, a horizon apart, the last one a horizon before the night. Each repeats the measurement
    # on other purchases; three share some of their ages, and cost twice as much as one.
    cuts: int = 3
    # People sampled among those whom every age can serve and who bought in a judged window.
    max_people: int = 2_500
    # With fewer people, in all or in a tier, there is no curve, only anecdotes.
    min_people: int = 40
    # Days of history under the oldest table, or age would be confused with a short memory.
    history_days: int = 28
    # An item's tier is what was known when the oldest table was made: by its person-days of
    # interest in so many days before, the most sought items that together hold this share are
    # hot, the rest warm, items without any cold. Tiers as of the cut would take their knowledge
    # from the days that the aged tables have missed.
    tier_days: int = 28
    hot_share: float = 0.5
    # The share of the fresh NDCG that may be lost before a table counts as too old.
    accepted_loss: float = 0.02
    # Draws of the bootstrap.
    draws: int = 1_000

    def __post_init__(self) -> None:
        numbers = all(isinstance(a, int | float) and not isinstance(a, bool) for a in self.ages)
        check(numbers, "ages must be numbers of days")
        rising = all(a < b for a, b in itertools.pairwise(self.ages))
        check(rising and self.ages[:1] in ((0,), (0.0,)), "ages must rise from 0")
        check(len(self.ages) >= 3, "ages must be at least 3: two of them make no curve")
        check(self.horizon_days > 0, "horizon_days must be positive")
        check(self.cuts >= 1, "cuts must be at least 1")
        check(self.max_people >= self.min_people, "max_people must be at least min_people")
        check(self.min_people >= 10, "min_people must be at least 10")
        check(self.history_days >= 1, "history_days must be at least 1")
        check(self.tier_days >= 1, "tier_days must be at least 1")
        check(0 < self.hot_share < 1, "hot_share must be between 0 and 1")
        check(0 < self.accepted_loss < 1, "accepted_loss must be between 0 and 1")
        check(self.draws >= 100, "draws must be at least 100")

    def instants(self, cuts: Sequence[datetime]) -> list[datetime]:
        """Every instant at which the sources run, oldest first."""
        return sorted({cut - timedelta(days=age) for cut in cuts for age in self.ages})


def run(night: Night, params: Params) -> Path:
    """Measure, and put the result in its place in the lake; returns it."""
    history = night.frame("history")
    horizon = timedelta(days=params.horizon_days)
    cuts = [night.as_of - horizon * number for number in range(params.cuts, 0, -1)]
    check_days(history, night.as_of, cuts, params)
    instants = params.instants(cuts)
    then = sessions.at(night, instants[0]).history
    people = sample(history, then, cuts, instants[0], night.as_of, night.seed, params)
    items = night.arrow("items", ["item_id"])["item_id"].combine_chunks()
    ids = Ids(people, items.take(pc.sort_indices(items)))
    named = {at: nominate(night, ids, at) for at in instants}
    weights, weighed = held_weights(night, history, ids, named, instants[0], cuts[0])
    oldest = timedelta(days=max(params.ages))
    judged = [
        Cut(
            at=at,
            bought=bought_pairs(purchases(history, at, at + horizon), ids),
            tier=ageing.tiers(
                activity(history, at - oldest, params.tier_days), ids, params.hot_share
            ),
        )
        for at in cuts
    ]
    values = ageing.judge(judged, named, weights, params.ages, ids)
    waiting = no_list_yet(history, cuts, horizon, params.ages)
    drawn = curves.draws(len(people), params.draws, night.seed)
    found = advice.estimated(values, np.array(params.ages, float), drawn, params.min_people)
    facts = {
        "source": night.source,
        "as_of": night.as_of.isoformat(),
        **advice.conclusions(found, params.accepted_loss),
        "people": len(people),
        "cuts": [at.isoformat() for at in cuts],
        "weights": dict(zip(SOURCES, weights.tolist(), strict=True)),
        "weights_from": weighed,
        "params": dataclasses.asdict(params),
        "seed": night.seed,
        "inputs": night.inputs,
    }
    return keep(night, facts, advice.rows_of(found, params.ages, waiting))


# --- the days and the people -----------------------------------------------------------------
def received(history: DataFrame, at: datetime) -> DataFrame:
    """The part of ``history`` that had happened and been received before an instant."""
    instant = F.lit(at)
    return history.where((F.col("received_time") < instant) & (F.col("event_time") < instant))


def purchases(history: DataFrame, start: datetime, end: datetime) -> DataFrame:
    """The purchases from ``start`` until before ``end``."""
    when = (F.col("event_time") >= F.lit(start)) & (F.col("event_time") < F.lit(end))
    return history.where((F.col("event_type") == "purchase") & when)


def check_days(
    history: DataFrame, as_of: datetime, cuts: Sequence[datetime], params: Params
) -> None:
    """Raise ``Fault`` where the history is too short for the ages or the judged days are empty."""
    bought = F.when(F.col("event_type") == "purchase", F.col("event_time"))
    span = history.agg(
        F.min("event_time").alias("first"), F.max(bought).alias("last_bought")
    ).toArrow()
    first, last_bought = span["first"][0].as_py(), span["last_bought"][0].as_py()
    if last_bought is None:
        raise Fault(
            "staleness: the source has no purchases before the run date, and nothing else says "
            "whether a list was right"
        )
    reach = (as_of - cuts[0]) + timedelta(days=max(params.ages) + params.history_days)
    if as_of - first < reach:
        usable = (first + reach).date() + timedelta(days=1)
        raise Fault(
            f"staleness: AS_OF {as_of:%Y-%m-%d} is too early; the history begins on "
            f"{first:%Y-%m-%d}, and {params.cuts} cuts of {params.horizon_days} judged days, ages "
            f"up to {max(params.ages):g} days and {params.history_days} days under the oldest need "
            f"{reach.days} days: the first usable date is {usable}, or ask for less "
            '(PARAMS=\'{"staleness": {"cuts": 1, "ages": [0, 1, 3, 7]}}\')'
        )
    if last_bought < cuts[-1]:
        raise Fault(
            f"staleness: nobody bought anything from {cuts[-1]:%Y-%m-%d} until {as_of:%Y-%m-%d}; "
            f"the last purchase is of {last_bought:%Y-%m-%d}, so give an AS_OF up to "
            f"{last_bought.date() + timedelta(days=1)}"
        )


def sample(
    history: DataFrame, before: DataFrame, cuts: Sequence[datetime], oldest: datetime,
    as_of: datetime, seed: int, params: Params,
) -> pa.StringArray:  # fmt: skip
    """Up to ``max_people`` people whom every age can serve and who bought in a judged window.

    ``before``: ``history`` as of ``oldest``, the oldest instant, under the persons known then: who
    goes by another id since has no list of that age under it. The same people at every age:
    newcomers would make the lists of older tables seem worse than they are for those who get one.
    Raises ``Fault`` where there are too few.
    """
    after = purchases(history, cuts[0], as_of)
    found = examples.sample(before, after, seed, params.max_people)
    if len(found) < params.min_people:
        raise Fault(
            f"staleness: {len(found)} people had signals before {oldest:%Y-%m-%d} and bought "
            f"from {cuts[0]:%Y-%m-%d} until {as_of:%Y-%m-%d}, at least {params.min_people} are "
            "needed; give a source with more people who come back, or judge more days "
            '(PARAMS=\'{"staleness": {"horizon_days": 14}}\')'
        )
    return found


def no_list_yet(
    history: DataFrame, cuts: Sequence[datetime], horizon: timedelta, ages: Sequence[float]
) -> np.ndarray:
    """(n_ages,) the share of those who bought after a cut and had no signal ``age`` days before
    it, the mean over the cuts: a table of that age has no list for them."""
    known = history.groupBy("person_id").agg(
        F.min(F.greatest("received_time", "event_time")).alias("known")
    )
    shares = []
    for at in cuts:
        buyers = purchases(history, at, at + horizon).select("person_id").distinct()
        waits = [
            F.avg(F.when(F.col("known") < F.lit(at - timedelta(days=age)), 0.0).otherwise(1.0))
            for age in ages
        ]
        columns = [wait.alias(f"age_{number}") for number, wait in enumerate(waits)]
        row = buyers.join(known, on="person_id", how="inner").agg(*columns).toArrow()
        shares.append([column[0].as_py() for column in row.columns])
    return np.nanmean(np.array(shares, float), axis=0)


# --- what was bought, and which items are sought ----------------------------------------------
def bought_pairs(rows: DataFrame, ids: Ids) -> np.ndarray:
    """(n,) int64 ascending: the pairs of these purchases, of the people sampled."""
    found = rows.select("person_id", "item_id").distinct().toArrow()
    found = found.filter(pc.is_in(found["person_id"], value_set=ids.people))
    return np.sort(ids.pairs(found))


def activity(history: DataFrame, at: datetime, days: int) -> pa.Table:
    """Per item the person-days of interest in the days before an instant; others have none."""
    interest = ~F.col("event_type").isin("return", "reject", "remove_from_cart")
    recent = F.col("event_time") >= F.lit(at - timedelta(days=days))
    visits = (
        received(history, at).where(interest & recent).select("item_id", "person_id", "event_date")
    )
    return visits.distinct().groupBy("item_id").agg(F.count(F.lit(1)).alias("days")).toArrow()


# --- the lists -------------------------------------------------------------------------------
def nominate(night: Night, ids: Ids, at: datetime) -> Named:
    """What the sources name as of an instant, by the same functions as in the night."""
    then = sessions.at(night, at)
    catalogue = Catalogue.of(night.arrow("items", ["item_id", "category"]))
    record = examples.recorded(night, then, at, catalogue)
    persons = then.known.persons.select(*candidates.OF_PERSONS).toArrow()
    measured = shop.measure(record.blocks(people_of(persons)), catalogue)
    behind = examples.weighed(night, record, persons)
    seen = examples.seen_at(night, persons, ids.people, record, measured["i_gap"], behind)
    nominated = candidates.nominate(night, seen, night.params_of("candidates"))
    pairs = features.wide(features.coded(nominated, ids.people, ids.items))
    log.info("lists as_of=%s pairs=%d", io.label(at), len(pairs.item))
    pair = pairs.person * len(ids.items) + pairs.item
    return Named(pair, pairs.signals.astype(np.float32))


def held_weights(
    night: Night, history: DataFrame, ids: Ids, named: Mapping[datetime, Named],
    oldest: datetime, first_cut: datetime,
) -> tuple[np.ndarray, str]:  # fmt: skip
    """(n_sources,) weights of the blend for all lists, and where they come from.

    Tuned as in the night, on the lists of the oldest instant and what was bought after it and
    before the first cut; the prior where too few people bought then.
    """
    params = night.params_of("ranker")
    horizon = timedelta(days=night.params_of("examples").horizon_days)
    end = min(first_cut, oldest + horizon)
    bought = bought_pairs(purchases(history, oldest, end), ids)
    wanted = np.bincount(bought // len(ids.items), minlength=len(ids.people))
    if (wanted > 0).sum() < params.min_people:
        return blend.of_sources(params.prior), "prior"
    lists = named[oldest]
    tuning = blend.Judged(
        person=lists.pair // len(ids.items),
        signals=lists.signals.astype(np.float64),
        bought=np.isin(lists.pair, bought),
        wanted=wanted,
    )
    weights, _ = blend.tune(tuning.of(wanted > 0), params.shrinkage, params.prior)
    return weights, f"purchases from {oldest:%Y-%m-%d} until {end:%Y-%m-%d}"


# --- where it lies ---------------------------------------------------------------------------
def keep(night: Night, facts: Mapping[str, Any], rows: pa.Table) -> Path:
    """Put the result in its place, in place of an earlier one; never a part of it."""
    io.write_arrow(night.staged / advice.CURVE.name, rows)
    io.write_json(night.staged / "staleness.json", facts)
    target = night.lake.staleness(night.source, night.as_of)
    io.replace_folder(night.staged, target)
    return target
