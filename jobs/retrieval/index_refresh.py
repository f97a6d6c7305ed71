"""The index part of a refresh: the index follows the items, and is built again where it must be.

No step of a night but what an hourly refresh calls with arrays: what the index holds (the table
``item_vectors`` of the release it comes from), what it must hold, and the strata that recall is
guarded by. New items are added, changed ones move, delisted ones leave; the cells stay as they were
trained. That is what the guard is for: cells that new items do not fit lose them without a sign in
the overall recall. Why it is so, and what it costs: docs/decisions/index-refresh.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
from scipy import stats

from jobs import limits
from jobs.errors import Fault, NightNeeded
from jobs.retrieval import index, recall
from jobs.retrieval.bundles import Bundle
from jobs.retrieval.guarding import Guard
from jobs.retrieval.recall import Measured, Queries, Strata
from jobs.retrieval.sphere import on_sphere

STEP = 8192  # rows compared at a time, which a processor's cache holds


@dataclass(frozen=True)
class Items:
    """``positions``: (n_items,) int64, no two alike; ``vectors``: (n_items, dim) float32, row i
    belongs to ``positions[i]``."""

    positions: np.ndarray
    vectors: np.ndarray


@dataclass(frozen=True)
class Change:
    """``added``, ``moved``: rows of what the index must hold; ``removed``: (n,) int64 positions."""

    added: np.ndarray
    moved: np.ndarray
    removed: np.ndarray


@dataclass(frozen=True)
class Refreshed:
    """``reasons``: in words, why it was built again, empty where it was not; ``recall``: the table
    ``index_recall`` of the bundle."""

    bundle: Bundle
    rebuilt: bool
    reasons: tuple[str, ...]
    added: int
    moved: int
    removed: int
    recall: pa.Table


def refresh(
    bundle: Bundle,
    before: Items,
    now: Items,
    version: str,
    strata: dict[str, Strata],
    people: np.ndarray,
    params: Guard,
    building: index.Params,
    seed: int,
) -> Refreshed:
    """The bundle that holds exactly ``now``, changed where that is good enough and else rebuilt.

    ``before``: what the bundle holds; ``version``: the embedding space of ``now`` and of
    ``people``, (n_people, dim) float32; ``strata``: by kind, of the rows of ``now`` (see
    :func:`strata_of`). Raises ``NightNeeded`` where the bundle is of another space, ``Fault`` where
    it does not hold ``before``.
    """
    _check(bundle, before, now, version)
    change = difference(before, now)
    reasons = too_much(bundle, before, now, change, params)
    if not reasons:
        changed = updated(bundle, now, change)
        expected = Expected.of(bundle, building.target_recall)
        measured = guard(changed, now, strata, people, expected, params, seed)
        reasons = losses(measured, expected, params)
    if reasons:
        changed, measured = rebuilt(now, version, strata, people, params, building, seed)
    return Refreshed(
        changed, bool(reasons), tuple(reasons), len(change.added), len(change.moved),
        len(change.removed), recall.rows(measured),
    )  # fmt: skip


def _check(bundle: Bundle, before: Items, now: Items, version: str) -> None:
    facts = bundle.facts
    if version != facts["embedding_version"]:
        raise NightNeeded(
            f"index: the vectors are of the embedding space {version}, the index holds "
            f"{facts['embedding_version']}; refresh the index of a night with this space"
        )
    if len(before.positions) != facts["count"]:
        raise Fault(
            f"index: it holds {facts['count']:,} items and the table item_vectors has "
            f"{len(before.positions):,}; take both from one release"
        )
    if not len(now.positions):
        raise Fault("index: nothing is left to index; look at the items of this refresh")


# --- what changes ----------------------------------------------------------------------------
def difference(before: Items, now: Items) -> Change:
    """What came, what left, and whose vector is another, be it by a bit.

    Raises ``Fault`` where a position stands twice.
    """
    # Positions are dense, so a table of rows by position is small and needs no sorting.
    size = 1 + max(int(items.positions.max(initial=-1)) for items in (before, now))
    old_row, new_row = np.full(size, -1), np.full(size, -1)
    old_row[before.positions] = np.arange(len(before.positions))
    new_row[now.positions] = np.arange(len(now.positions))
    twice = sum(
        len(items.positions) - int((row_of >= 0).sum())
        for items, row_of in ((before, old_row), (now, new_row))
    )
    if twice:
        raise Fault(f"index: {twice} positions stand twice in item_vectors; make the table again")
    held = old_row[now.positions]
    rows = np.flatnonzero(held >= 0)
    old_rows = held[rows]
    old, new = _bits(before.vectors), _bits(now.vectors)
    differs = np.zeros(len(rows), bool)
    for first in range(0, len(rows), STEP):
        part = slice(first, first + STEP)
        differs[part] = (old[old_rows[part]] != new[rows[part]]).any(axis=1)
    left = before.positions[new_row[before.positions] < 0]
    return Change(np.flatnonzero(held < 0), rows[differs], left)


def _bits(vectors: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(vectors, dtype=np.float32).view(np.uint32)


def too_much(bundle: Bundle, before: Items, now: Items, change: Change, params: Guard) -> list[str]:
    """Why the index cannot take the change, in words; empty where it can."""
    reasons = []
    came, left, held = len(change.added), len(change.removed), len(before.positions)
    if came + left > params.churn * held:
        reasons.append(
            f"{came:,} items came and {left:,} left, over {params.churn:.0%} of the {held:,} held"
        )
    vectors = now.vectors[np.concatenate([change.added, change.moved])]
    longest = float(np.linalg.norm(vectors, axis=1).max(initial=0.0))
    if longest > bundle.facts["bound"]:
        reasons.append(
            f"a vector of length {longest:.4g} does not fit under the bound "
            f"{bundle.facts['bound']:.4g}"
        )
    return reasons


def updated(bundle: Bundle, now: Items, change: Change) -> Bundle:
    """The bundle after the change; raises ``Fault`` where it did not hold what the table says."""
    rows = np.concatenate([change.added, change.moved])
    changed = index.update(bundle, change.removed, now.positions[rows], now.vectors[rows])
    if changed.facts["count"] != len(now.positions):
        raise Fault(
            f"index: it holds {changed.facts['count']:,} items after a change that should leave "
            f"{len(now.positions):,}; it did not hold what item_vectors says: take both from one "
            "release"
        )
    return changed


def rebuilt(
    now: Items,
    version: str,
    strata: dict[str, Strata],
    people: np.ndarray,
    params: Guard,
    building: index.Params,
    seed: int,
) -> tuple[Bundle, list[Measured]]:
    """A new bundle and its recall, which it remembers for later refreshes to be held to."""
    bundle, tune = trained(now, version, strata, people, building, seed)
    measured = first_recall(bundle, tune, now, strata, people, params, seed)
    return index.remembering(bundle, measured), measured


def trained(
    now: Items,
    version: str,
    strata: dict[str, Strata],
    people: np.ndarray,
    building: index.Params,
    seed: int,
) -> tuple[Bundle, Queries]:
    """New cells, as many of them probed as the target asks for, and the queries that said so."""
    bundle = index.build(now.positions, now.vectors, version, building, seed)
    # Every other person tunes; the rest judge.
    tune, _ = recall.draw_queries(
        now.vectors, people[1::2], strata, bundle.facts["bound"], building.person_queries,
        building.item_queries, seed,
    )  # fmt: skip
    target = building.target_recall
    return index.tuned(bundle, now.positions, now.vectors, tune, target), tune


def first_recall(
    bundle: Bundle,
    tune: Queries,
    now: Items,
    strata: dict[str, Strata],
    people: np.ndarray,
    params: Guard,
    seed: int,
) -> list[Measured]:
    """Recall of new cells in one look, by nobody who tuned them."""
    generator = np.random.default_rng(seed)
    asks = recall.draw_items(generator, strata, params.item_queries).values()
    rows = np.setdiff1d(np.concatenate([held for _, held in asks]), tune.own)
    who = generator.permutation(people[::2])[: params.person_queries]
    held = recall.queries(who, now.vectors, rows, bundle.facts["bound"])
    return index.judged(bundle, now.positions, now.vectors, held, strata)


# --- the guard -------------------------------------------------------------------------------
def strata_of(
    items: pa.Table, before: np.ndarray, as_of: datetime, params: Guard
) -> dict[str, Strata]:
    """What recall is guarded by: age (``new`` or ``older``) and each large category.

    ``items``: a row per indexed item with ``position``, ``category``, ``created_time`` and
    ``first_seen``; ``before``: positions that the index held. What it did not hold is new, whatever
    is known of it. A category that is large among the new items is one of its own: its first night
    is when cells that do not fit it are found.
    """
    # A time that is not known is NaT here, which fmin passes over and nothing is later than.
    created, seen = (items[name].to_numpy() for name in ("created_time", "first_seen"))
    edge = np.datetime64(
        (as_of - timedelta(days=params.new_days)).astimezone(UTC).replace(tzinfo=None)
    )
    recent = np.fmin(created, seen) >= edge
    new = recent | ~np.isin(items["position"].to_numpy(), before)
    tops = recall.top_levels(items)
    counts, news = (
        np.bincount(tops.of[mask], minlength=len(tops.names)) for mask in (slice(None), new)
    )
    large = (counts >= params.large * len(new)) | (
        news >= max(limits.RECALL_QUERIES, params.large * new.sum())
    )
    return {
        "age": Strata(("new", "older"), np.where(new, 0, 1)),
        "category": recall.only(tops, np.flatnonzero(large)),
    }


def guard(
    bundle: Bundle,
    now: Items,
    strata: dict[str, Strata],
    people: np.ndarray,
    expected: Expected,
    params: Guard,
    seed: int,
) -> list[Measured]:
    """Recall of the bundle against exact search, in as many looks as it takes to leave no doubt."""
    generator = np.random.default_rng(seed)
    drawn = recall.draw_items(generator, strata, params.looks * params.item_queries)
    who = people[generator.permutation(len(people))[: params.looks * params.person_queries]]
    points = on_sphere(now.vectors, bundle.facts["bound"])
    answers: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    own = np.zeros(0, np.int64)
    for look in range(params.looks):
        of_items = slice(look * params.item_queries, (look + 1) * params.item_queries)
        of_people = slice(look * params.person_queries, (look + 1) * params.person_queries)
        rows = np.setdiff1d(np.concatenate([held[of_items] for _, held in drawn.values()]), own)
        held = recall.queries(who[of_people], now.vectors, rows, bundle.facts["bound"])
        truth = recall.exact(points, held)
        hits = index.hits_of(bundle, now.positions, points, held, truth)
        answers.append((truth, hits, held.own))
        truth, hits, own = (np.concatenate(each) for each in zip(*answers, strict=True))
        measured = recall.measure(truth, hits, own, strata)
        doubt = any(
            each.kind in strata and each.recall < expected.recall(each) - params.fall / 2
            for each in measured
        )
        if not doubt or losses(measured, expected, params):
            break
    return measured


@dataclass(frozen=True)
class Expected:
    """What a stratum is held to: its own recall when the cells were trained, and where it was none
    of which anything could be said, the target that they were tuned to.

    Not the recall of the refresh before: a little less every hour would pass for ever.
    """

    built: dict[tuple[str, str], Measured]
    target: float

    @staticmethod
    def of(bundle: Bundle, target: float) -> Expected:
        found = {(each.kind, each.stratum): each for each in index.remembered(bundle)}
        enough = {of: it for of, it in found.items() if it.queries >= limits.RECALL_QUERIES}
        return Expected(enough, target)

    def recall(self, each: Measured) -> float:
        built = self.built.get((each.kind, each.stratum))
        return built.recall if built else self.target

    def chance(self, each: Measured) -> float:
        """The probability of so low a recall, or lower, had nothing changed.

        Of two measured shares by Fisher's exact test, beside the target by the binomial; both on
        effective numbers.
        """
        found = round(each.recall * each.effective)
        built = self.built.get((each.kind, each.stratum))
        if built is None:
            return float(stats.binom.cdf(found, each.effective, self.target))
        both = found + round(built.recall * built.effective)
        asked = each.effective + built.effective
        return float(stats.hypergeom.cdf(found, asked, both, each.effective))


def losses(measured: list[Measured], expected: Expected, params: Guard) -> list[str]:
    """What new cells would find again, in words: strata that fell too far, and what fell under the
    gate's own limits.

    A stratum of fewer queries than the gate asks for says nothing. What chance would explain, or
    was no better when the cells were trained, new cells would not mend: it is left to the gate.
    """
    reasons = []
    for each in measured:
        was = expected.recall(each)
        if each.kind == "overall":
            least = limits.RECALL
        elif each.queries < limits.RECALL_QUERIES:
            continue
        else:
            least = max(was - params.fall, limits.RECALL_STRATUM if each.kind == "age" else 0.0)
        if each.recall < least and expected.chance(each) < params.chance:
            reasons.append(
                f"recall of {each.kind} {each.stratum} is {each.recall:.3f} on {each.queries} "
                f"queries, expected {was:.3f}"
            )
    return reasons
