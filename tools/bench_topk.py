"""The benchmark's part ``topk``: the exact best items that each person may get, beside others.

Filters as a shop has them: a few groups of people (region and restriction), each of which may not
get 5 to 30 % of the items, and for each person some fifty items that they bought. The vectors are,
seeded, of two kinds: ``fitted`` by the pipeline's own ALS to a drawn shop, whose items are bought
by few people or by many and by those of their taste; and ``even``, Gaussian ones without any
structure, where no bound can spare a multiplication.

- ``product``: ``jobs.retrieval.exact.best``, which filters before it cuts;
- ``flat``: a flat FAISS index that fetches more than is asked for, filtered afterwards; who is left
  short is asked again for twice as much, so that nothing is lost;
- ``groups``: a flat FAISS index of the items of each group, fetching more for the blocked pairs;
- ``implicit``: the library's own ``recommend`` with its filters, a call per group.

All have the same threads and take turns. Every list is held to a full sort: an item is right where
the person may get it and its score is among the best, ties and the last bits of a float aside.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from jobs.filtering.allowed import Allowed
from jobs.retrieval import embeddings, exact
from tools.bench_contenders import Watch

PEOPLE, ITEMS, DIMENSIONS, DEPTH = 20_000, 27_000, 64, 100
GROUPS = 12
EXCLUDED = (0.05, 0.30)  # of the items, from the most open group to the least
BOUGHT = 50
# Bought is what agrees most with a person among so many items met by chance.
MET = 1_000
TASTES = 16
SEED = 20171201
KINDS = ("fitted", "even")
NAMES = {
    "product": "the pipeline's search",
    "flat": "FAISS flat, filtered afterwards",
    "groups": "FAISS flat, an index per group",
    "implicit": "implicit's recommend",
}
# Two libraries add 64 products in different orders: the share of a length that may differ.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Problem:
    """``people``: (n_people, dim) float32; ``items``: (n_items, dim) float32; who may get what; and
    how many items are asked for."""

    people: np.ndarray
    items: np.ndarray
    allowed: Allowed
    depth: int

    @property
    def bought(self) -> sp.csr_matrix:
        """(n_people, n_items) float32 with a 1 for each blocked pair."""
        shape = len(self.people), len(self.items)
        pairs = np.divmod(self.allowed.blocked, shape[1])
        return sp.csr_matrix((np.ones(len(pairs[0]), np.float32), pairs), shape=shape)

    def groups(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Per group the positions of its people, and the items that they may get."""
        return [
            (np.flatnonzero(self.allowed.group == number), np.flatnonzero(mask))
            for number, mask in enumerate(self.allowed.masks)
        ]


def generate(
    kind: str, n_people: int = PEOPLE, n_items: int = ITEMS, depth: int = DEPTH
) -> Problem:
    """A problem of this kind, the same for the same arguments."""
    generator = np.random.default_rng([SEED, KINDS.index(kind)])
    size = TASTES if kind == "fitted" else DIMENSIONS
    people, items = (
        generator.standard_normal((n, size), dtype=np.float32) for n in (n_people, n_items)
    )
    # The item of rank r is met in proportion to 1 / r, or all alike.
    met = 1 / generator.permutation(np.arange(1, n_items + 1)) ** float(kind == "fitted")
    bought = _bought(people, items, met / met.sum(), generator)
    if kind == "fitted":
        shape = n_people, n_items
        pairs = np.divmod(bought, n_items)
        weights = sp.csr_matrix((np.ones(len(bought), np.float32), pairs), shape=shape)
        fit = embeddings.fit(weights, embeddings.Params(), SEED)
        people, items = fit.people, fit.items
    shares = np.linspace(*EXCLUDED, GROUPS)
    masks = np.array([generator.random(n_items) >= share for share in shares])
    group = generator.integers(0, GROUPS, n_people)
    return Problem(people, items, Allowed(group, masks, bought), depth)


def _bought(
    people: np.ndarray, items: np.ndarray, met: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """(n_pairs,) ascending ``person * n_items + item``: ``BOUGHT`` items of each person."""
    until = np.cumsum(met)
    keys = []
    for person, vector in enumerate(people):
        drawn = np.unique(np.searchsorted(until, generator.random(MET) * until[-1]))
        agreed = items[drawn] @ vector + generator.standard_normal(len(drawn)) * np.linalg.norm(
            vector
        )
        keys.append(person * len(items) + drawn[np.argsort(-agreed)[:BOUGHT]])
    return np.unique(np.concatenate(keys))


# --- the contenders: (n_people, depth) items, best first, -1 where a list is short -------------
def product(problem: Problem, threads: int) -> np.ndarray:
    """The pipeline's own search."""
    found = exact.best(problem.people, problem.items, problem.allowed, problem.depth)
    lists = np.full((len(problem.people), problem.depth), -1)
    lists[found.person, found.rank - 1] = found.item
    return lists


def flat(problem: Problem, threads: int) -> np.ndarray:
    """Fetch what the least open group needs at the least, filter, and ask again where that was too
    little."""
    import faiss

    index = faiss.IndexFlatIP(problem.items.shape[1])
    index.add(problem.items)
    open_share = problem.allowed.masks.mean(axis=1).min()
    fetch = int((problem.depth + BOUGHT) / open_share)
    lists = np.full((len(problem.people), problem.depth), -1)
    short = np.arange(len(problem.people))
    while len(short):
        fetch = min(fetch, len(problem.items))
        found = index.search(problem.people[short], fetch)[1]
        lists[short], enough = _filtered(problem, short, found, None)
        if fetch == len(problem.items):
            break
        short, fetch = short[~enough], fetch * 2
    return lists


def groups(problem: Problem, threads: int) -> np.ndarray:
    """Only the blocked pairs are left to be filtered: ``BOUGHT`` more are always enough."""
    import faiss

    lists = np.full((len(problem.people), problem.depth), -1)
    for people, kept in problem.groups():
        index = faiss.IndexFlatIP(problem.items.shape[1])
        index.add(problem.items[kept])
        fetch = min(problem.depth + BOUGHT, len(kept))
        found = index.search(problem.people[people], fetch)[1]
        lists[people] = _filtered(problem, people, found, kept)[0]
    return lists


def _filtered(
    problem: Problem, people: np.ndarray, found: np.ndarray, kept: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The first ``depth`` of each row that the person may get, and whether there were as many.

    ``found``: (n_rows, n_fetched) items, or their places among ``kept``. A table of what each of a
    thousand people may not get is quicker than a search for every pair.
    """
    depth, bought = problem.depth, problem.bought
    lists, enough = np.full((len(people), depth), -1), np.zeros(len(people), bool)
    for first in range(0, len(people), 1000):
        rows = people[first : first + 1000]
        items = found[first : first + 1000]
        items = items if kept is None else kept[items]
        open_to = problem.allowed.masks[problem.allowed.group[rows]]
        mine = bought[rows]
        open_to[np.repeat(np.arange(len(rows)), np.diff(mine.indptr)), mine.indices] = False
        left = np.take_along_axis(open_to, items, axis=1)
        place = np.cumsum(left, axis=1)
        row, column = np.nonzero(left & (place <= depth))
        lists[first + row, place[row, column] - 1] = items[row, column]
        enough[first : first + 1000] = place[:, -1] >= depth
    return lists, enough


def implicit(problem: Problem, threads: int) -> np.ndarray:
    """With one BLAS thread for each of its own, as it asks for."""
    from implicit.als import AlternatingLeastSquares

    with threadpool_limits(1, user_api="blas"):
        model = AlternatingLeastSquares(factors=problem.items.shape[1], num_threads=threads)
        model.user_factors, model.item_factors = problem.people, problem.items
        bought = problem.bought
        lists = np.full((len(problem.people), problem.depth), -1)
        for (people, _), mask in zip(problem.groups(), problem.allowed.masks, strict=True):
            lists[people] = model.recommend(
                people, bought[people], N=problem.depth, filter_already_liked_items=True,
                filter_items=np.flatnonzero(~mask),
            )[0]  # fmt: skip
    return lists


CONTENDERS: dict[str, Callable[[Problem, int], np.ndarray]] = {
    "product": product, "flat": flat, "groups": groups, "implicit": implicit,
}  # fmt: skip


# --- the measurement ---------------------------------------------------------------------------
def measure(rounds: int, kinds: tuple[str, ...] = KINDS, **sizes: int) -> list[dict[str, Any]]:
    """A row per kind of vectors, round and contender: seconds, processor seconds and recall. The
    order turns round from one round to the next."""
    import faiss

    threads = len(os.sched_getaffinity(0))
    runs = []
    for kind in kinds:
        problem = generate(kind, **sizes)
        least = least_scores(problem)
        for round_ in range(rounds):
            order = list(CONTENDERS)[:: 1 if round_ % 2 == 0 else -1]
            for name in order:
                faiss.omp_set_num_threads(threads)
                watch = Watch()
                with threadpool_limits(threads):
                    lists = watch("lists", partial(CONTENDERS[name], problem, threads))
                runs.append({
                    "kind": kind, "round": round_, "name": name, "threads": threads, **watch.spent,
                    "people": len(problem.people), "items": len(problem.items),
                    "depth": problem.depth, "recall": recall(problem, lists, least),
                })  # fmt: skip
                print(runs[-1], flush=True)
    return runs


def least_scores(problem: Problem) -> np.ndarray:
    """(n_people,) the score of each person's last place, by a full sort of all they may get, less
    what the order of a sum may make of it."""
    least = []
    for first in range(0, len(problem.people), 500):
        scores = problem.people[first : first + 500] @ problem.items.T
        problem.allowed.mask(scores, first)
        least.append(np.sort(scores, axis=1)[:, -problem.depth])
    longest = np.linalg.norm(problem.items, axis=1).max()
    return np.concatenate(least) - TOLERANCE * longest * np.linalg.norm(problem.people, axis=1)


def recall(problem: Problem, lists: np.ndarray, least: np.ndarray) -> float:
    """The mean share of a list that is right: allowed, not there twice, and among the best."""
    right = 0
    ordered = np.sort(lists, axis=1)
    twice = int(((np.diff(ordered, axis=1) == 0) & (ordered[:, 1:] >= 0)).sum())
    for person, row in enumerate(lists):
        item = row[row >= 0]
        score = problem.items[item] @ problem.people[person]
        held = problem.allowed.holds(np.full(len(item), person), item)
        right += int((held & (score >= least[person])).sum())
    return (right - twice) / lists.size


def table(runs: list[dict[str, Any]]) -> list[str]:
    """Markdown: per kind and contender medians, and of ratios to the product in the same round."""
    first = runs[0]
    rounds = 1 + max(run["round"] for run in runs)
    lines = [
        "## Exact lists, filtered", "",
        f"The best {first['depth']} of {first['items']:,} items of {DIMENSIONS} dimensions that "
        f"each of {first['people']:,} people may get; {first['threads']} threads each, medians of "
        f"{rounds} rounds in turn.", "",
        "| vectors | contender | s | processor, s | recall | time ÷ pipeline | least | "
        "processor ÷ pipeline |",
        "| --- | --- | --: | --: | --: | --: | --: | --: |",
    ]  # fmt: skip
    for kind in dict.fromkeys(run["kind"] for run in runs):
        of_kind = [run for run in runs if run["kind"] == kind]
        for name in CONTENDERS:
            mine = [run for run in of_kind if run["name"] == name]
            times, busy = (
                _ratios(of_kind, mine, what) for what in ("lists_seconds", "lists_processor")
            )
            cells = [kind, NAMES[name]]
            cells += [
                f"{statistics.median(run[what] for run in mine):.2f}"
                for what in ("lists_seconds", "lists_processor")
            ]
            cells += [f"{min(run['recall'] for run in mine):.6f}"]
            cells += [f"{statistics.median(times):.2f}", f"{min(times):.2f}"]
            cells += [f"{statistics.median(busy):.2f}"]
            lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def _ratios(runs: list[dict[str, Any]], mine: list[dict[str, Any]], what: str) -> list[float]:
    """What each run took over what the product took in the same round."""
    ours = {run["round"]: run[what] for run in runs if run["name"] == "product"}
    return [run[what] / ours[run["round"]] for run in mine]
