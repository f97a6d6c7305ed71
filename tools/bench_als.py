"""The part ``als`` of the benchmark: night after night from the factors before, beside cold fits.

The signals of one night of Complete Journey are cut at 31 consecutive midnights. The first is
fitted cold; at each of the 30 that follow, the nights of a chain go on from their own night before
(``embeddings.refit``), and beside them stand a cold fit, and what a refresh of the last hour of the
day would serve: the items of the night before, with people's vectors folded in from all that they
did by now (``Solver.fold_in``), or left as they were. Lists are the exact best, judged on the
purchases of the seven days after, which end before 2017-12-01.
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import scipy.sparse as sp
from pyspark.sql import functions as F

from jobs import io, tables
from jobs.__main__ import command
from jobs.evaluation import metrics
from jobs.filtering.allowed import Allowed
from jobs.io import Lake
from jobs.night import Night
from jobs.pages import plots
from jobs.retrieval import als, embeddings, exact, matrix
from jobs.retrieval.als import Factors
from jobs.retrieval.embeddings import Params, Predecessor
from jobs.retrieval.matrix import Interactions
from jobs.scoring import examples, features
from jobs.signals import sessions
from jobs.signals.shop import Catalogue
from tools import by_hand
from tools.paired import by_night, compared, told

SOURCE, AS_OF, RUN_ID = "completejourney", "2017-12-01", "bench"
STEPS = ("source", "events", "catalogue", "identities", "sessions", "interactions")
FIRST, NIGHTS = "2017-10-24", 30
DAY, HORIZON = timedelta(days=1), timedelta(days=7)
NDCG_AT, RECALL_AT = 10, 20
# A fit is one draw: the same nights from as many beginnings.
SEEDS = (20171201, 1, 2)
COLD, NIGHTLY, ROUND = "cold", "nightly", "round"
FOLDED, STALE = "folded", "stale"
NAMES = {
    COLD: "cold, 8 rounds",
    NIGHTLY: "from the night before, everybody and what changed (the night's)",
    ROUND: "from the night before, 1 round",
    FOLDED: "items of the night before, people folded in", STALE: "all of the night before",
}  # fmt: skip


@dataclass(frozen=True)
class Cut:
    """What is known at a midnight, and what it is judged by.

    ``bought``: (n_people, n_items) bool, purchases of the horizon after; ``acted``: (n_people,)
    bool, who did something on the day before.
    """

    known: Interactions
    bought: sp.csr_matrix
    acted: np.ndarray


# --- the cuts ----------------------------------------------------------------------------------
def measure(home: Path) -> list[dict[str, Any]]:
    """A row for each night, beginning and contender."""
    lake = home / "als"
    shutil.rmtree(lake, ignore_errors=True)
    try:
        where = by_hand.arguments(str(lake), AS_OF, SOURCE, RUN_ID)

        def work() -> None:
            for step in STEPS:
                command(["run", step, *where])
                command(["gate", step, *where])
            write_cuts(Lake(lake), home / "cuts")

        code = by_hand.opened(where, work)
        if code:
            raise SystemExit("error: the night that the cuts are of was not made; see above")
    finally:
        shutil.rmtree(lake, ignore_errors=True)
    return list(nights(cuts(home / "cuts"), Params()))


def write_cuts(lake: Lake, folder: Path) -> None:
    """The table ``interactions`` of each midnight, and the events that judge them."""
    night = Night(lake, io.parse_as_of(AS_OF), RUN_ID, SOURCE, "examples")
    shutil.rmtree(folder, ignore_errors=True)
    first = io.parse_as_of(FIRST)
    night.spark  # noqa: B018 columns are built for the engine that is there
    since = F.col("event_time") >= F.lit(first - DAY)
    bought = F.col("event_type") == "purchase"
    events = night.frame("history").where(since)
    io.kept(events.select("person_id", "item_id", "event_time", bought.alias("bought")),
            folder / "events")  # fmt: skip
    catalogue = Catalogue.of(night.arrow("items", ["item_id", "category"]))
    for number in range(NIGHTS + 1):
        cut = first + DAY * number
        then = sessions.at(night, cut)
        record = examples.recorded(night, then, cut, catalogue)
        persons = then.known.persons.select("person_id").toArrow()
        io.write_arrow(folder / io.label(cut), examples.weighed(night, record, persons))


def cuts(folder: Path) -> Iterator[Cut]:
    """What :func:`write_cuts` wrote."""
    events = io.read_arrow(folder / "events")
    for number in range(NIGHTS + 1):
        cut = io.parse_as_of(FIRST) + DAY * number
        rows = io.read_arrow(folder / io.label(cut), ["person_id", "item_id", "weight",
                                                      "last_time"])  # fmt: skip
        known = matrix.build(rows)
        began, now, ended = (
            pa.scalar(each, tables.TIME) for each in (cut - DAY, cut, cut + HORIZON)
        )
        time_ = ds.field("event_time")
        after = events.filter((time_ >= now) & (time_ < ended) & ds.field("bought"))
        before = events.filter((time_ >= began) & (time_ < now))
        person = matrix.positions(after["person_id"], known.person_ids)
        item = matrix.positions(after["item_id"], known.item_ids)
        both = (person >= 0) & (item >= 0)
        found = (np.ones(int(both.sum()), bool), (person[both], item[both]))
        bought = sp.csr_matrix(found, shape=known.matrix.shape)
        acted = pc.is_in(known.person_ids, value_set=pc.unique(before["person_id"]))
        yield Cut(known, bought, acted.to_numpy(zero_copy_only=False))


# --- the nights --------------------------------------------------------------------------------
def nights(each: Iterable[Cut], params: Params) -> Iterator[dict[str, Any]]:
    """A row a night, from the second on, beginning and contender: ``night`` from 1, ``name``,
    processor ``seconds`` of the fit, and of the judged people their ``person`` ids, ``acted``,
    ``ndcg`` and ``recall``."""
    chains: dict[str, Callable[[Cut, Cut, Predecessor, int], Factors]] = {
        NIGHTLY: partial(_nightly, params),
        ROUND: partial(_round, params),
    }
    each = iter(each)
    first = next(each)
    held = {
        (seed, name): _space(first, embeddings.fit(first.known.matrix, params, seed))
        for seed in SEEDS
        for name in chains
    }
    mean = als.mean_weight(first.known.matrix)
    for night, (last, cut) in enumerate(
        itertools.pairwise(itertools.chain([first], each)), start=1
    ):
        for seed in SEEDS:
            known, before = cut.known, held[seed, NIGHTLY]
            made = {
                COLD: _timed(partial(embeddings.fit, known.matrix, params, seed)),
                STALE: (_placed(before, known), 0.0),
                FOLDED: _timed(partial(_folded, known, before, params, mean)),
            }
            for name, fit in chains.items():
                made[name] = _timed(partial(fit, last, cut, held[seed, name], seed))
                held[seed, name] = _space(cut, made[name][0])
            for name, (factors, seconds) in made.items():
                yield {"night": night, "name": name, "seconds": seconds, **judged(cut, factors)}
        mean = als.mean_weight(cut.known.matrix)


def _space(cut: Cut, factors: Factors) -> Predecessor:
    return Predecessor("", "", None, cut.known.person_ids, cut.known.item_ids, factors)


def _nightly(params: Params, last: Cut, cut: Cut, before: Predecessor, seed: int) -> Factors:
    changed = embeddings.changed_items(cut.known, last.known)
    return embeddings.refit(cut.known, params, seed, before, changed)[0]


def _round(params: Params, last: Cut, cut: Cut, before: Predecessor, seed: int) -> Factors:
    """One round of everybody and everything."""
    return params.solver.fit(cut.known.matrix, _placed(before, cut.known).items, 1)


def _placed(before: Predecessor, known: Interactions) -> Factors:
    """The vectors of the night before in the order of now; zeros for who and what is new."""
    return Factors(*(
        np.nan_to_num(features.in_order(vectors, own, ids))
        for vectors, own, ids in (
            (before.factors.people, before.person_ids, known.person_ids),
            (before.factors.items, before.item_ids, known.item_ids),
        )
    ))  # fmt: skip


def _folded(known: Interactions, before: Predecessor, params: Params, mean: float) -> Factors:
    items = _placed(before, known).items
    people = params.solver.fold_in(known.matrix, items, mean)
    return Factors(people, items)


def _timed(work: Callable[[], Factors]) -> tuple[Factors, float]:
    """What the work gives, and the processor seconds of all threads."""
    began = time.process_time()
    found = work()
    return found, time.process_time() - began


def judged(cut: Cut, factors: Factors) -> dict[str, Any]:
    """Of everybody who bought something known in the days after: NDCG@10 and recall@20."""
    buyers = np.flatnonzero(np.diff(cut.bought.indptr) > 0)
    allowed = Allowed.for_all(len(buyers), np.ones(len(factors.items), bool))
    best = exact.best(factors.people[buyers], factors.items, allowed, max(NDCG_AT, RECALL_AT))
    hit = np.asarray(cut.bought[buyers[best.person], best.item]).ravel() > 0
    wanted = np.diff(cut.bought.indptr)[buyers]
    rank = best.rank - 1
    return {
        "person": cut.known.person_ids.take(pa.array(buyers)), "acted": cut.acted[buyers],
        "ndcg": metrics.ndcg(best.person, rank, hit, wanted, NDCG_AT),
        "recall": metrics.recall(best.person, rank, hit, wanted, RECALL_AT),
    }  # fmt: skip


# --- comparing ---------------------------------------------------------------------------------
def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same without people: a row a night, beginning and contender, with means."""
    return [
        {name: row[name] for name in ("night", "name", "seconds")}
        | {"judged": len(row["ndcg"])}
        | {name: float(row[name].mean()) for name in ("ndcg", "recall")}
        for row in rows
    ]


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown: what each way costs and finds, beside the cold fit, and what a day's refreshes
    lose."""
    lines = [
        "## Last night's factors as a start", "",
        f"{max(row['night'] for row in rows)} nights of Complete Journey from {len(SEEDS)} "
        "beginnings. Differences are shares, "
        "paired over people, with 95 % intervals.", "",
        "| fit | processor s | ÷ cold | NDCG@10 | recall@20 | NDCG@10 to cold | recall to cold |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]  # fmt: skip
    of = {name: [row for row in rows if row["name"] == name] for name in NAMES}
    cold = median(row["seconds"] for row in of[COLD])
    for name, mine in of.items():
        seconds = median(row["seconds"] for row in mine)
        spent = f"{seconds:.2f} | {seconds / cold:.3f}" if seconds else "0 | 0"
        means = [np.mean(np.concatenate([row[of_] for row in mine])) for of_ in ("ndcg", "recall")]
        beside = [told(compared(rows, name, COLD, of_)) for of_ in ("ndcg", "recall")]
        beside = ["", ""] if name == COLD else beside
        lines.append(
            f"| {NAMES[name]} | {spent} | {means[0]:.4f} | {means[1]:.4f} | {' | '.join(beside)} |"
        )
    lines += [
        "", "A day after its night, NDCG@10 beside the night that follows:", "",
        "| vectors | all | who did something that day | others |", "| --- | --: | --: | --: |",
    ]  # fmt: skip
    for name in (FOLDED, STALE):
        beside = [told(compared(rows, name, NIGHTLY, acted=who)) for who in (None, True, False)]
        lines.append(f"| {NAMES[name]} | {' | '.join(beside)} |")
    return [*lines, ""]


def drawing(rows: list[dict[str, Any]]) -> str:
    """SVG: NDCG@10 of each night beside its cold fit, in percent of it."""
    ways = {NIGHTLY: "the night's", ROUND: "1 round", FOLDED: "folded in"}
    series = {title: by_night(rows, name, COLD) for name, title in ways.items()}
    return plots.curves("nights since the cold fit", "NDCG@10 to a cold fit, %", **series)
