"""The benchmark's part ``index``: an hourly refresh of the vector index beside building it again.

A drawn catalogue of 500,000 items in 30 categories of very unequal size, each with crowds of its
own; 1.5 % of the items left since the index was built and as many came (3 % of churn), and 1 %
moved. Both contenders start from the same arrays and end with an index of the same items whose
recall is known by stratum; reading and writing files is in neither. They take turns.

- ``refresh``: ``update`` (what differs, and FAISS's remove and add) and ``guard`` (recall by
  stratum against exact search);
- ``rebuild``: ``train`` (cells, all items, and as many cells probed as the target asks for) and
  ``recall`` (of every stratum, which later refreshes are held to).

What a refresh is for, the index part, is ``update`` beside ``train``. The guard is told apart: its
exact search costs the same beside either.
"""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from jobs.retrieval import index, index_refresh
from jobs.retrieval.index_refresh import Items
from jobs.retrieval.recall import Strata
from tools.bench_contenders import Watch

ITEMS, DIMENSIONS, PEOPLE = 500_000, 64, 20_000
CATEGORIES, CROWDS = 30, 2_000
CHURN, MOVED = 0.03, 0.01
SEED = 20171201
VERSION = "bench"
NAMES = {
    "update": "refresh: what differs, removed and added",
    "guard": "refresh: guard",
    "refresh": "**refresh, together**",
    "train": "rebuild: cells trained, filled and tuned",
    "recall": "rebuild: recall of every stratum",
    "rebuild": "**rebuild, together**",
}


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
    large = np.flatnonzero(counts >= index_refresh.Params().large * len(category))
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
    """A row per round: seconds and processor seconds of each part, and what recall came to."""
    building = building or index.Params()
    problem = generate(n_items)
    bundle, _ = index_refresh.rebuilt(
        problem.before, VERSION, problem.strata_before, problem.people, index_refresh.Params(),
        building, SEED,
    )  # fmt: skip
    runs = []
    for round_ in range(rounds):
        watch = Watch()
        contenders = [partial(refresh, bundle), rebuild]
        told: dict[str, Any] = {}
        for contender in contenders if round_ % 2 == 0 else contenders[::-1]:
            told |= contender(problem, building, watch)
        for whole, parts in {
            "refresh": ("update", "guard"),
            "rebuild": ("train", "recall"),
        }.items():
            for unit in ("seconds", "processor"):
                watch.spent[f"{whole}_{unit}"] = sum(watch.spent[f"{p}_{unit}"] for p in parts)
        runs.append({
            "items": n_items, "dimensions": DIMENSIONS, "round": round_, **watch.spent, **told,
            "strata": sum(len(divided.names) for divided in problem.strata.values()),
            "threads": len(os.sched_getaffinity(0)),
        })  # fmt: skip
        print(runs[-1], flush=True)
    return runs


def refresh(
    bundle: index.Bundle, problem: Problem, building: index.Params, watch: Watch
) -> dict[str, Any]:
    """As ``index_refresh.refresh`` does it, its parts timed."""
    params = index_refresh.Params()

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
        index_refresh.Params(), problem.now, problem.strata, problem.people,
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
    """Markdown: medians of each part, and how often its time fits into that of training."""
    first = runs[0]
    lines = [
        "## The index refreshed", "",
        f"{first['items']:,} items of {first['dimensions']} dimensions, {CHURN:.0%} of churn and "
        f"{MOVED:.0%} moved, {first['strata']} strata, {first['threads']} threads; medians of "
        f"{len(runs)} rounds in turn. The guard asked {first['guard_queries']:,} queries, the "
        f"rebuild {first['recall_queries']:,}; the least recall of a stratum was "
        f"{min(run['refresh_recall'] for run in runs):.3f} after the refresh and "
        f"{min(run['rebuild_recall'] for run in runs):.3f} after the rebuild, and "
        f"{'no refresh was' if not any(run['losses'] for run in runs) else 'some were'} refused.",
        "",
        "| part | s | processor, s | training ÷ part | least of the rounds | processor | "
        "whole rebuild ÷ part |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]  # fmt: skip
    for name, title in NAMES.items():
        times, busy, whole = (
            [run[of] / max(run[f"{name}_{of.partition('_')[2]}"], 1e-3) for run in runs]
            for of in ("train_seconds", "train_processor", "rebuild_seconds")
        )
        cells = [title]
        cells += [
            f"{statistics.median(run[f'{name}_{unit}'] for run in runs):.2f}"
            for unit in ("seconds", "processor")
        ]
        cells += [f"{statistics.median(times):.1f}", f"{min(times):.1f}"]
        cells += [f"{statistics.median(busy):.1f}", f"{statistics.median(whole):.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]
