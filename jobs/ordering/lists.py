"""How a list is filled, on arrays: the best of each source that has a quota, then the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from jobs.retrieval.sources import pools
from jobs.scoring.features import Named, Pairs
from jobs.tables import SOURCES, TABLES

BY_NAME = np.argsort(np.argsort(np.array(SOURCES)))  # a source's place in the order of names


@dataclass(frozen=True)
class Listed:
    """The places of lists: ``pair`` (n,) says which of the pairs, ``rank`` (n,) the place from 1;
    ascending by person and rank."""

    pair: np.ndarray
    rank: np.ndarray


def fill(
    pairs: Pairs, score: np.ndarray, allowed: np.ndarray, length: int, slots: Mapping[str, int]
) -> Listed:
    """Each person's list: at most ``length`` of the allowed pairs, by score, ties by item.

    ``score``: (n_pairs,); ``allowed``: (n_pairs,) bool, filtering comes before filling. Of each
    source in ``slots`` the best so many are reserved; the places left go to the best of the rest.
    """
    kept = np.flatnonzero(allowed)
    best_first = kept[np.lexsort((pairs.item[kept], -score[kept], pairs.person[kept]))]
    person = pairs.person[best_first]
    reserved = reserve(person, pairs.signals[best_first] > 0, slots)
    order = np.lexsort((np.arange(len(best_first)), ~reserved, person))
    picked = np.zeros(len(best_first), bool)
    picked[order] = places(person[order]) <= length
    chosen = best_first[picked]
    return Listed(chosen, places(pairs.person[chosen]))


def over_catalogue(
    pairs: Pairs, score: np.ndarray, length: int, first: int, last: int, least: float,
    shown: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """(n_pairs,) scores, 1 over the place, of an order that shows more of the catalogue: from the
    place ``first`` to ``last``, the weakest first, a place goes to an item that is in nobody's list
    of ``length`` places where that is worth at least ``least`` of what leaves.

    ``score``: (n_pairs,), worth; ``shown``: (n_items,) how many lists hold each item so far, which
    is updated. An item goes once, to where least is lost for it; what leaves stands in other lists
    too (aggregate diversity: Adomavicius and Kwon, 2012, here greedily, place by place).
    """
    order = np.lexsort((pairs.item, -score, pairs.person))
    rank = np.empty(len(score), np.int64)
    rank[order] = places(pairs.person[order])
    np.add.at(shown, pairs.item[rank <= length], 1)
    for here in range(last, first - 1, -1):
        leaving = np.flatnonzero(rank == here)
        at = np.full(int(pairs.person.max(initial=-1)) + 1, -1)
        at[pairs.person[leaving]] = leaving
        slot = at[pairs.person]
        coming = np.flatnonzero(
            (shown[pairs.item] == 0) & (slot >= 0) & (score >= least * score[slot])
            & (shown[pairs.item[slot]] > 1)
        )  # fmt: skip
        # Each item to where least is lost for it, and to each person the best of these.
        for column in (pairs.item, pairs.person):
            lost = score[slot[coming]] - score[coming]
            coming = coming[np.lexsort((pairs.item[coming], lost, column[coming]))]
            coming = coming[places(column[coming]) == 1]
        # Of those who would all give up one item, one keeps it.
        left = pairs.item[slot[coming]]
        coming = coming[np.lexsort((score[slot[coming]] - score[coming], left))]
        left = pairs.item[slot[coming]]
        coming = coming[places(left) < shown[left]]
        going = slot[coming]
        np.add.at(shown, pairs.item[going], -1)
        shown[pairs.item[coming]] += 1
        rank[going], rank[coming] = rank[coming], here
    return np.asarray(1.0 / rank)


def shared_out(pairs: Pairs, shares: Mapping[str, float], chain: Sequence[str]) -> np.ndarray:
    """(n_pairs,) scores, 1 over the place, of each person's pairs blended by fixed ``shares`` of
    the sources' own orders; behind them what the sources of ``chain`` name, one after the other.

    Every stretch of a list holds its sources as nearly in proportion as whole places can, as long
    as each has something to give (the divisor method of Sainte-Laguë). An item that several
    sources name is that source's where it would stand first. 0 for what none of them names.
    """
    turn = np.full((len(pairs.item), 2), np.inf)
    owner = np.full(len(pairs.item), -1)
    order = [name for name in chain if not shares.get(name)]
    known = [(name, (0.0, share)) for name, share in shares.items() if share > 0]
    known += [(name, (1.0 + place, 1.0)) for place, name in enumerate(order)]
    for _ in range(2):
        # First whose each item is, then each source's turns over its own items alone.
        settled = owner.copy()
        turn[:] = np.inf
        for code, (name, (group, share)) in enumerate(known):
            signal = pairs.signals[:, SOURCES.index(name)]
            mine = np.flatnonzero((signal > 0) & ((settled < 0) | (settled == code)))
            mine = mine[np.lexsort((pairs.item[mine], -signal[mine], pairs.person[mine]))]
            mine_turn = (places(pairs.person[mine]) - 0.5) / share
            earlier = (turn[mine, 0] > group) | (
                (turn[mine, 0] == group) & (turn[mine, 1] > mine_turn)
            )
            mine, mine_turn = mine[earlier], mine_turn[earlier]
            turn[mine, 0], turn[mine, 1], owner[mine] = group, mine_turn, code
    named = np.flatnonzero(owner >= 0)
    best = named[np.lexsort((
        pairs.item[named], owner[named], turn[named, 1], turn[named, 0], pairs.person[named],
    ))]  # fmt: skip
    score = np.zeros(len(pairs.item))
    score[best] = 1.0 / places(pairs.person[best])
    return score


def reserve(person: np.ndarray, named: np.ndarray, slots: Mapping[str, int]) -> np.ndarray:
    """(n,) bool: the best so many of each source in ``slots``; rows stand by person, best first.

    ``named``: (n, n_sources) bool, which source named the row.
    """
    reserved = np.zeros(len(person), bool)
    for source, count in slots.items():
        mine = named[:, SOURCES.index(source)]
        reserved |= mine & (places(person, mine) <= count)
    return reserved


def places(group: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
    """(n,) how many rows of its group stand up to each row, itself included; groups are runs.

    ``counted``: (n,) bool limits which rows count; None counts all.
    """
    ones = np.ones(len(group), np.int64) if counted is None else counted.astype(np.int64)
    total = np.cumsum(ones)
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]]) if len(group) else group
    before = (total - ones)[starts]
    return total - np.repeat(before, np.diff(np.r_[starts, len(group)]))


def shortfalls(
    pairs: Pairs, listed: Listed, people: int, length: int, slots: Mapping[str, int]
) -> dict[str, tuple[int, int]]:
    """Per reason the people it touched and the slots, of ``people`` with codes from 0.

    Reasons: ``quota of <source> not filled`` (too few eligible candidates), ``list short`` (fewer
    eligible candidates than places), ``no list`` (none at all), ``filled from pools`` (places of
    people with personal candidates that shared lists filled).
    """
    person, named = pairs.person[listed.pair], pairs.signals[listed.pair] > 0
    size = np.bincount(person, minlength=people)
    has = size > 0
    personal = [SOURCES.index(one) for one in SOURCES if one not in pools.SHARED]
    shared = np.bincount(person, ~named[:, personal].any(axis=1), minlength=people).astype(int)
    missing = {"list short": np.where(has, length - size, 0)}
    for source, count in slots.items():
        of_source = np.bincount(person, named[:, SOURCES.index(source)], minlength=people)
        missing[f"quota of {source} not filled"] = np.where(has, count - of_source, 0)
    missing["no list"] = np.where(has, 0, length)
    missing["filled from pools"] = np.where(shared < size, shared, 0)
    return {
        reason: (int((lacking > 0).sum()), int(lacking[lacking > 0].sum()))
        for reason, lacking in missing.items()
        if (lacking > 0).any()
    }


def provenance(
    named: Named, pairs: Pairs, listed: Listed, score: np.ndarray, seeds: pa.Table
) -> tuple[pa.Array, pa.Array]:
    """``sources`` and ``provenance`` of every place: who named it, by rank, ties by name.

    ``score``: (n_named,) what the source itself gave; ``seeds``: seed_item and seed_time of the
    first rows of ``named``; the rows behind them have no seed.
    """
    place = np.full(len(pairs.item) + 1, -1)  # the last is that of rows whose pair was left out
    place[listed.pair] = np.arange(len(listed.pair))
    of_row = place[pairs.pair_of]
    rows = np.flatnonzero(of_row >= 0)
    rows = rows[np.lexsort((BY_NAME[named.source[rows]], named.rank[rows], of_row[rows]))]
    offsets = np.r_[0, np.cumsum(np.bincount(of_row[rows], minlength=len(listed.pair)))]
    seeded = pa.array(rows, mask=rows >= seeds.num_rows)
    source = pa.array(SOURCES).take(pa.array(named.source[rows]))
    kind = TABLES["recommendations"].schema.field("provenance").type.value_type
    entries = pa.StructArray.from_arrays(
        [
            source,
            pa.array(named.rank[rows].astype(np.int32)),
            pa.array(score[rows]),
            *(
                seeds[name].combine_chunks().take(seeded).cast(kind.field(name).type)
                for name in ("seed_item", "seed_time")
            ),
        ],
        fields=list(kind),
    )
    ends = pa.array(offsets.astype(np.int32))
    return pa.ListArray.from_arrays(ends, source), pa.ListArray.from_arrays(ends, entries)
