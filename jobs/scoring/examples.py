"""What the ranker learns from: candidates of earlier cuts, and what people then bought.

Reads ``history``, ``items``, ``persons``, ``editorial``, ``identities``, ``content_vectors``.
Writes ``examples`` (a row per candidate of a person at a cut, with
its features as of the cut) and ``example_people`` (a row per person and cut).

At each cut the sources are run again, on what had been received by then and under the persons known
then, by the same functions as in the night; the features are measured by the same functions too.
What was bought in the days after the cut labels them, and nothing else looks past it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs import io, tables
from jobs.ahead import one_ahead
from jobs.evaluation import outcomes, slices
from jobs.night import Night
from jobs.params import check
from jobs.retrieval import candidates, embeddings, matrix
from jobs.retrieval.candidates import Seen
from jobs.scoring import features
from jobs.scoring.features import Ground, Pairs, Vectors
from jobs.signals import homes, interactions, sessions
from jobs.signals.behaviour import Keyed
from jobs.signals.past import Past, Record, bought_pairs, people_of
from jobs.signals.shop import Catalogue

log = logging.getLogger("nightjar")

OF_PERSONS = (
    "person_id", "household_id", "personalised", "region", "segment", "first_seen",
)  # fmt: skip


@dataclass(frozen=True)
class Params:
    """Which days, people and candidates become examples, and what they count."""

    # The days after a cut that say what was bought; four weeks hold a grocer's month.
    horizon_days: int = 28
    # Cuts a horizon apart, the newest one a horizon before the night. Lists are judged at the
    # newest by what was learned at those before it, so that with one cut nothing is trained.
    cuts: int = 3
    # People sampled at each cut.
    max_people: int = 1_500
    # Of the candidates that were not bought, the share that is trained on; the newest cut keeps the
    # rest too, since lists are judged there.
    kept_share: float = 0.3
    # What a cart, and a view or click, counts where a purchase counts 1: a plan that became nothing
    # in four weeks, and curiosity.
    cart_label: float = 0.1
    look_label: float = 0.01
    # A purchase counts 1 + this * ln(1 + money).
    value_weight: float = 0.1
    # Each horizon further back counts this share of the one after it.
    cut_weight: float = 0.9

    def __post_init__(self) -> None:
        check(self.horizon_days > 0, "horizon_days must be positive")
        check(1 <= self.cuts <= 24, "cuts must be 1 to 24")
        check(self.max_people >= 2, "max_people must be at least 2")
        check(0 < self.kept_share <= 1, "kept_share must be in (0, 1]")
        check(0 <= self.cart_label <= 1, "cart_label must be in [0, 1]")
        check(0 <= self.look_label <= 1, "look_label must be in [0, 1]")
        check(self.value_weight >= 0, "value_weight must not be negative")
        check(0 < self.cut_weight <= 1, "cut_weight must be in (0, 1]")


def run(night: Night, params: Params) -> None:
    """Stage ``examples`` and ``example_people``."""
    chosen, horizon = cuts(night.frame("history"), night.as_of, params)
    night.notes["cuts"] = [cut.isoformat() for cut in chosen]
    night.notes["horizon_days"] = horizon.days
    catalogue = Catalogue.of(night.arrow("items", ["item_id", "category"]))
    people = [tables.TABLES["example_people"].schema.empty_table()]
    night.write("examples", tables.TABLES["examples"].schema.empty_table())

    def known_at(cut: datetime) -> Known:
        return gather(night, cut, horizon, catalogue, params)

    for number, known in enumerate(one_ahead(known_at, chosen)):
        asked, cut = known.asked, io.label(known.asked.cut)
        if len(asked.people) == 0:
            log.info("examples cut=%s people=0", cut)
            continue
        measured, living = homes.measured(known.record, known.persons, catalogue)
        past = known.record.of(asked.people)
        found = nominated(night, known, past, measured["i_gap"])
        mates = living.mates(asked.people, len(catalogue.ids))
        ground = Ground.of(past, catalogue, measured, mates, found.vectors)
        rows = examples(asked, found.pairs, ground, number, night.seed, params)
        night.add("examples", number + 1, rows)
        people.append(example_people(asked, ground, known.persons, found.events))
        log.info("examples cut=%s rows=%d", cut, rows.num_rows)
    night.write("example_people", pa.concat_tables(people))


def cuts(history: DataFrame, as_of: datetime, params: Params) -> tuple[list[datetime], timedelta]:
    """The cuts, newest first, and the days after each; a cut has two horizons before it.

    A history shorter than four horizons gives a quarter of itself as the horizon; one of less than
    three days has no cut.
    """
    first = history.agg(F.min("event_time").alias("first")).toArrow()["first"][0].as_py()
    days = (as_of - first).days if first else 0
    horizon = timedelta(days=max(1, min(params.horizon_days, days // 4)))
    possible = [as_of - horizon * number for number in range(1, params.cuts + 1)]
    return [cut for cut in possible if first and cut - first >= 2 * horizon], horizon


# --- what the engine says of a cut ------------------------------------------------------------
@dataclass(frozen=True)
class Known:
    """All that a cut's examples are made of, in files and arrays: from here on nothing asks Spark.

    ``persons``: ``OF_PERSONS`` of those known at the cut; ``behind``: the rows of :func:`weighed`.
    """

    asked: Asked
    record: Record
    persons: pa.Table
    behind: pa.Table


def gather(
    night: Night, cut: datetime, horizon: timedelta, catalogue: Catalogue, params: Params
) -> Known:
    """Ask the engine for what was known at a cut, and what came after it."""
    then = sessions.at(night, cut)
    asked = ask(night, then, cut, horizon, params)
    record = recorded(night, then, cut, catalogue)
    persons = then.known.persons.select(*OF_PERSONS).toArrow()
    return Known(asked, record, persons, weighed(night, record, persons))


# --- who is asked, and what they answered -----------------------------------------------------
@dataclass(frozen=True)
class Asked:
    """People sampled at a cut, and what they did after it.

    ``people``: sorted ids; a row of an answer is a (person, item) and what the person did with it
    most: ``person`` codes, ``item_id``, ``label``, ``bought`` and the money ``spent``.
    """

    cut: datetime
    people: pa.StringArray
    person: np.ndarray
    item_id: pa.ChunkedArray
    bought: np.ndarray
    label: np.ndarray
    spent: np.ndarray


def ask(
    night: Night, then: sessions.Seen, cut: datetime, horizon: timedelta, params: Params
) -> Asked:
    """Sample people who were known at the cut and bought after it, with all they then did."""
    time = F.col("event_time")
    rows = night.frame("history").where((time >= F.lit(cut)) & (time < F.lit(cut + horizon)))
    after = outcomes.of_persons(rows, then.known.identities)
    buyers = after.where(F.col("event_type") == "purchase")
    people = sample(then.history, buyers, night.seed, params.max_people)
    wanted = night.spark.createDataFrame(pa.table({"person_id": people}), "person_id string")
    counts = {
        "purchase": 1.0, "add_to_cart": params.cart_label,
        "view": params.look_label, "click": params.look_label,
    }  # fmt: skip
    label = F.lit(0.0)
    for event_type, count in counts.items():
        label = F.when(F.col("event_type") == event_type, count).otherwise(label)
    bought = F.col("event_type") == "purchase"
    paid = F.when(bought, F.coalesce("value", F.lit(0.0))).otherwise(0.0)
    answers = (
        after.join(F.broadcast(wanted), on="person_id", how="semi")
        .groupBy("person_id", "item_id")
        .agg(
            F.max(label).alias("label"),
            F.max(bought).alias("bought"),
            # Spark adds in any order; rounding makes a rerun equal to the last bit.
            F.round(F.sum(paid), 9).alias("spent"),
        )
        .where(F.col("label") > 0)
        .orderBy("person_id", "item_id")
        .toArrow()
    )
    return Asked(
        cut,
        people,
        matrix.known(answers["person_id"], people, "person of answers"),
        answers["item_id"],
        answers["bought"].to_numpy(),
        answers["label"].to_numpy(),
        answers["spent"].to_numpy(),
    )


def sample(before: DataFrame, after: DataFrame, seed: int, count: int) -> pa.StringArray:
    """Sorted ids of up to ``count`` people with signals before and purchases after the cut.

    Seeded by a hash of the id, so that the same people come whatever the order of the rows.
    """
    known = before.select("person_id").distinct()
    found = (
        after.select("person_id")
        .distinct()
        .join(known, on="person_id", how="semi")
        .orderBy(F.xxhash64("person_id", F.lit(seed)), "person_id")
        .limit(count)
        .toArrow()["person_id"]
        .combine_chunks()
    )
    return found.take(pc.sort_indices(found))


# --- what was named for them ------------------------------------------------------------------
@dataclass(frozen=True)
class Found:
    """The candidates of the people asked, and what they were found with; ``events``: (n_people,)
    behind their interactions."""

    pairs: Pairs
    vectors: Vectors
    events: np.ndarray


def nominated(night: Night, known: Known, past: Past, item_gap: np.ndarray) -> Found:
    """Run the sources as of the cut for the people asked, of whom ``past`` is; the nearest pairs of
    each remain, and the nearest of those that are new to the person."""
    people, record = known.asked.people, known.record
    seen = seen_at(night, known.persons, people, record, item_gap, known.behind)
    rows = candidates.nominate(night, seen, night.params_of("candidates"))
    pairs = features.wide(features.coded(rows, people, record.items))
    params = night.params_of("ranker")
    prior = features.linear_score(pairs.signals, params.prior)
    n_items = len(record.items)
    bought = matrix.among(pairs.person * n_items + pairs.item, bought_pairs(past, n_items))
    near = features.nearest(pairs.person, pairs.item, prior, params.scored)
    of_new = np.where(bought, -np.inf, prior)
    near |= ~bought & features.nearest(pairs.person, pairs.item, of_new, params.scored_new)
    vectors = vectors_of(seen, people, record.items)
    return Found(pairs.of(near), vectors, slices.events_of(known.behind, people))


def weighed(night: Night, record: Record, persons: pa.Table) -> pa.Table:
    """The rows of ``interactions`` as of the record's instant; ``persons``: those known then."""
    params = night.params_of("interactions")
    return interactions.of_everybody(record, people_of(persons), params)


def seen_at(
    night: Night,
    persons: pa.Table,
    people: pa.StringArray,
    record: Record,
    item_gap: np.ndarray,
    behind: pa.Table,
) -> Seen:
    """What the sources may look at as of a cut, for these people.

    ``persons``: ``OF_PERSONS`` of those known at the cut; ``record``: what they had done by then;
    ``behind``: the rows of :func:`weighed`.
    """
    cut = record.as_of
    pairs = matrix.build(behind)
    items = night.arrow("items", candidates.OF_ITEMS)
    times = [items[name].cast(tables.TIME) for name in ("first_seen", "created_time")]
    before = [pc.fill_null(pc.less(time, pa.scalar(cut, tables.TIME)), False) for time in times]
    undated = pc.and_(*(time.is_null() for time in times))
    items = items.filter(pc.or_(undated, pc.or_(*before)))
    content = night.arrow("content_vectors")
    by_then = items["item_id"].combine_chunks()
    return Seen(
        as_of=cut,
        record=record,
        item_gap=item_gap,
        interactions=pairs,
        items=items,
        persons=persons.select(candidates.OF_PERSONS),
        editorial=night.arrow("editorial"),
        content=content.filter(pc.is_in(content["item_id"], value_set=by_then)),
        factors=embeddings.fit(pairs.matrix, night.params_of("embeddings"), night.seed),
        people=people,
    )


def vectors_of(seen: Seen, people: pa.StringArray, items: pa.StringArray) -> Vectors:
    """The vectors as of a cut in the order of ``people`` and ``items``."""
    known, factors = seen.interactions, seen.factors
    return Vectors(
        items=features.in_order(factors.items, known.item_ids, items),
        people=features.in_order(factors.people, known.person_ids, people),
        content=features.placed(seen.content, "item_id", items),
    )


# --- the examples -----------------------------------------------------------------------------
def examples(
    asked: Asked, pairs: Pairs, ground: Ground, number: int, seed: int, params: Params
) -> pa.Table:
    """The rows of ``examples`` of the cut of this number, 0 the newest."""
    items = ground.catalogue.ids
    label, bought, spent = answers_of(pairs, asked, items)
    weight = params.cut_weight**number * np.where(
        bought, 1.0 + params.value_weight * np.log1p(np.maximum(spent, 0.0)), 1.0
    )
    drawn = np.random.default_rng(seed + number).random(len(label)) < params.kept_share
    trained = (label > 0) | drawn
    weight = np.where(label > 0, weight, weight / params.kept_share)
    if number:
        pairs = pairs.of(trained)
        label, bought, weight = label[trained], bought[trained], weight[trained]
        trained = trained[trained]
    person = pa.array(pairs.person)
    return pa.table(
        {
            "person_id": asked.people.take(person),
            "item_id": items.take(pa.array(pairs.item)),
            "as_of": pa.repeat(pa.scalar(asked.cut, tables.TIME), len(person)),
            "trained": trained,
            "bought": bought,
            "label": label,
            "weight": weight,
            **features.columns_of(features.values(ground, pairs)),
        },
        schema=tables.TABLES["examples"].schema,
    )


def example_people(asked: Asked, ground: Ground, persons: pa.Table, events: np.ndarray) -> pa.Table:
    """The rows of ``example_people`` of one cut.

    ``persons``: who was known at it, ``OF_PERSONS``; ``events``: (n_people,) of those asked.
    """
    known = pc.index_in(asked.people, value_set=persons["person_id"].combine_chunks())
    facts = persons.take(known)
    n_people = len(asked.people)
    person, item = asked.person[asked.bought], asked.item_id.filter(pa.array(asked.bought))
    code = matrix.positions(item, ground.catalogue.ids)
    key = person * ground.n_items + code
    new = (code < 0) | ~(ground.pairs.at(key)["baskets"] > 0)
    return pa.table(
        {
            "person_id": asked.people,
            "as_of": pa.repeat(pa.scalar(asked.cut, tables.TIME), n_people),
            "wanted": np.bincount(person, minlength=n_people),
            "wanted_new": np.bincount(person[new], minlength=n_people),
            "region": facts["region"],
            "segment": facts["segment"],
            "first_seen": facts["first_seen"],
            "events": events,
        },
        schema=tables.TABLES["example_people"].schema,
    )


def answers_of(
    pairs: Pairs, asked: Asked, items: pa.StringArray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n_pairs,) label, bought and spent of these pairs; 0 where the person did nothing."""
    item = matrix.positions(asked.item_id, items)
    known = item >= 0
    key = asked.person[known] * len(items) + item[known]
    answers = Keyed(
        np.sort(key),
        {
            name: column[known][np.argsort(key)].astype(float)
            for name, column in (
                ("label", asked.label), ("bought", asked.bought), ("spent", asked.spent),
            )
        },
        dict.fromkeys(("label", "bought", "spent"), 0.0),
    )  # fmt: skip
    found = answers.at(pairs.person * len(items) + pairs.item)
    return found["label"], found["bought"] > 0, found["spent"]


def recorded(night: Night, then: sessions.Seen, cut: datetime, catalogue: Catalogue) -> Record:
    """The history of a cut, in files sorted by person."""
    if then.as_published:
        folder = night.folder("history")
    else:
        folder = night.scratch("history") / "history"
        io.kept(sessions.by_person(then.history), folder)
    return Record(folder, cut, catalogue.ids)
