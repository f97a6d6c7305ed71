"""The benchmark's part ``index``: an hourly refresh of the vector index beside building it again.

A drawn catalogue of 500,000 items in 30 categories of very unequal size, each with crowds of its
own; 1.5 % of the items left since the index was built and as many came (3 % of churn), and 0.5 %
moved. Both contenders start from the same arrays and end with an index of the same items whose
recall is known by stratum; reading and writing files is in neither. They take turns.

- a refresh: ``update`` (what differs, and FAISS's remove and add), then ``guard`` (recall by
  stratum against exact search);
- a rebuild: ``train`` (cells, all items in them, and as many probed as the target asks for), then
  ``recall`` (of every stratum, which later refreshes are held to).

The index itself is ``update`` beside ``train``; exact search, which either needs to say what it is
worth, is told apart. On one thread and on all: where the processors are shared, a second thread
mostly waits.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from jobs.retrieval import index, index_refresh
from jobs.retrieval.guarding import Guard
from jobs.retrieval.index_refresh import Items
from jobs.retrieval.recall import Strata
from tools.bench_contenders import Watch

ITEMS, DIMENSIONS, PEOPLE = 500_000, 64, 20_000
CATEGORIES, CROWDS = 30, 2_000
CHURN, MOVED = 0.03, 0.005  # churn as the guard counts it: what came and what left
SEED = 20171201
VERSION = "bench"
# What is compared: a title, a part of the refresh, and its counterpart of the rebuild.
PAIRS = (
    ("the index", "update", "train"),
    ("recall by stratum", "guard", "recall"),
    ("together", "refresh", "rebuild"),
)


@dataclass(frozen=True)
class Problem:
    """What the index holds, what it must hold, the strata of the latter, and people who ask:
    (n_people, dim) float32."""

    before: Items
    now: Items
    strata_before: dict[str, Strata]
    strata: dict[str, Strata]
    people: np.ndarray


def generate(n_items: int = ITEMS) -> Problem:
    """The same for the same number of items."""
    generator = np.random.default_rng(SEED)
    centres = generator.standard_normal((CROWDS, DIMENSIONS), dtype=np.float32)
    # Crowd by crowd to categories whose sizes fall as 1 / rank.
    shares = 1 / np.arange(1, CATEGORIES + 1)
    category_of = generator.choice(CATEGORIES, CROWDS, p=shares / shares.sum())

    def drawn(n: int) -> tuple[np.ndarray, np.ndarray]:
        """(n, dim) vectors of lengths from short to long, as ALS makes them, and their crowds."""
        crowd = generator.integers(0, CROWDS, n)
        noise = generator.standard_normal((n, DIMENSIONS), dtype=np.float32)
        lengths = generator.lognormal(-1, 0.5, (n, 1)).astype(np.float32)
        return (centres[crowd] + noise / 2) * lengths, crowd

    n_came = int(n_items * CHURN / 2)
    vectors, crowd = drawn(n_items)
    came, came_crowd = drawn(n_came)
    order = generator.permutation(n_items)
    stays = np.sort(order[n_came:])
    moved = order[n_came : n_came + int(n_items * MOVED)]
    before = Items(np.arange(n_items), vectors)
    now_vectors = vectors.copy()
    now_vectors[moved] = drawn(len(moved))[0]
    now = Items(
        np.concatenate([stays, n_items + np.arange(n_came)]),
        np.concatenate([now_vectors[stays], came]),
    )
    new = np.arange(len(now.positions)) >= len(stays)
    return Problem(
        before, now, _strata(np.zeros(n_items, bool), category_of[crowd]),
        _strata(new, category_of[np.concatenate([crowd[stays], came_crowd])]), drawn(PEOPLE)[0],
    )  # fmt: skip


def _strata(new: np.ndarray, category: np.ndarray) -> dict[str, Strata]:
    """Age, and the categories that are large."""
    counts = np.bincount(category, minlength=CATEGORIES)
    large = np.flatnonzero(counts >= Guard().large * len(category))
    names = ("(other)", *(f"category {number:02d}" for number in large))
    number_of = np.zeros(CATEGORIES, np.int64)
    number_of[large] = 1 + np.arange(len(large))
    return {
        "age": Strata(("new", "older"), np.where(new, 0, 1)),
        "category": Strata(names, number_of[category]),
    }


# --- the measurement ---------------------------------------------------------------------------
def measure(
    rounds: int, n_items: int = ITEMS, building: index.Params | None = None
) -> list[dict[str, Any]]:
    """A row per number of threads and round: seconds and processor seconds of each part, and what
    recall came to. The order turns round from one round to the next."""
    import faiss

    building = building or index.Params()
    problem = generate(n_items)
    bundle, _ = index_refresh.rebuilt(
        problem.before, VERSION, problem.strata_before, problem.people, Guard(),
        building, SEED,
    )  # fmt: skip
    every = len(os.sched_getaffinity(0))
    runs = []
    for threads in sorted({1, every}):
        for round_ in range(rounds):
            faiss.omp_set_num_threads(threads)
            with threadpool_limits(threads):
                run = one_round(problem, bundle, building, first=round_ % 2)
            runs.append({
                "items": n_items, "threads": threads, "round": round_, **run,
                "strata": sum(len(divided.names) for divided in problem.strata.values()),
            })  # fmt: skip
            print(runs[-1], flush=True)
    faiss.omp_set_num_threads(every)
    return runs


def one_round(
    problem: Problem, bundle: index.Bundle, building: index.Params, first: int
) -> dict[str, Any]:
    """Both contenders, the rebuild first where ``first`` is 1."""
    watch = Watch()
    contenders: list[Callable[..., dict[str, Any]]] = [partial(refresh, bundle), rebuild]
    told: dict[str, Any] = {}
    for contender in contenders[first:] + contenders[:first]:
        told |= contender(problem, building, watch)
    for whole, parts in {"refresh": ("update", "guard"), "rebuild": ("train", "recall")}.items():
        for unit in ("seconds", "processor"):
            watch.spent[f"{whole}_{unit}"] = sum(watch.spent[f"{p}_{unit}"] for p in parts)
    return {**watch.spent, **told}


def refresh(
    bundle: index.Bundle, problem: Problem, building: index.Params, watch: Watch
) -> dict[str, Any]:
    """As ``index_refresh.refresh`` does it, its parts timed."""
    params = Guard()

    def update() -> index.Bundle:
        change = index_refresh.difference(problem.before, problem.now)
        assert not index_refresh.too_much(bundle, problem.before, problem.now, change, params)
        return index_refresh.updated(bundle, problem.now, change)

    changed = watch("update", update)
    expected = index_refresh.Expected.of(bundle, building.target_recall)
    measured = watch("guard", partial(
        index_refresh.guard, changed, problem.now, problem.strata, problem.people, expected,
        params, SEED,
    ))  # fmt: skip
    return {
        "guard_queries": measured[0].queries,
        "losses": index_refresh.losses(measured, expected, params),
        "refresh_recall": _least(measured),
    }


def rebuild(problem: Problem, building: index.Params, watch: Watch) -> dict[str, Any]:
    """As ``index_refresh.rebuilt`` does it, its parts timed."""
    params, now, strata, people = (
        Guard(), problem.now, problem.strata, problem.people,
    )  # fmt: skip
    bundle, tune = watch(
        "train", partial(index_refresh.trained, now, VERSION, strata, people, building, SEED)
    )
    measured = watch("recall", partial(
        index_refresh.first_recall, bundle, tune, now, strata, people, params, SEED
    ))  # fmt: skip
    return {"recall_queries": measured[0].queries, "rebuild_recall": _least(measured)}


def _least(measured: list[index_refresh.Measured]) -> float:
    return min(each.recall for each in measured)


def table(runs: list[dict[str, Any]]) -> list[str]:
    """Markdown: medians of each part of the refresh and its counterpart, and of their ratios."""
    first = runs[0]
    refused = sum(bool(run["losses"]) for run in runs)
    lines = [
        "## The index refreshed", "",
        f"{first['items']:,} items of {DIMENSIONS} dimensions, {CHURN:.0%} of churn and "
        f"{MOVED:.1%} moved, {first['strata']} strata; medians of {1 + runs[-1]['round']} rounds "
        f"in turn. The guard asked {first['guard_queries']:,} queries, the rebuild "
        f"{first['recall_queries']:,}. Least recall of a stratum: "
        f"{min(run['refresh_recall'] for run in runs):.3f} refreshed, "
        f"{min(run['rebuild_recall'] for run in runs):.3f} rebuilt; the guard tripped "
        f"{refused} times.", "",
        "| threads | | refresh, s | rebuild, s | rebuild ÷ refresh | least of the rounds | "
        "refresh, processor s | rebuild, processor s | ratio |",
        "| --: | --- | --: | --: | --: | --: | --: | --: | --: |",
    ]  # fmt: skip
    for threads in dict.fromkeys(run["threads"] for run in runs):
        mine = [run for run in runs if run["threads"] == threads]
        for title, part, counterpart in PAIRS:
            cells = [str(threads), title]
            for unit in ("seconds", "processor"):
                spent = [run[f"{part}_{unit}"] for run in mine]
                beside = [run[f"{counterpart}_{unit}"] for run in mine]
                ratios = [b / max(a, 1e-3) for a, b in zip(spent, beside, strict=True)]
                cells += [f"{statistics.median(each):.2f}" for each in (spent, beside)]
                cells += [f"{statistics.median(ratios):.1f}"]
                cells += [f"{min(ratios):.1f}"] * (unit == "seconds")
            lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]
