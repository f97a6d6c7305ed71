"""A candidate's lists beside those that serve: how alike they are, who gains and who loses.

Lists are given flat and coded: row i says that person ``person[i]`` has item ``item[i]`` at place
``rank[i]``, from 1. Codes of both releases are the same, and only people with a list in both count.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from jobs.evaluation import metrics

PERSISTENCE = 0.9  # of rank-biased overlap: nine of ten readers go on to the next place


@dataclass(frozen=True)
class Lists:
    """(n,) int64 codes of person and item and places from 1, sorted by person and place."""

    person: np.ndarray
    item: np.ndarray
    rank: np.ndarray

    @staticmethod
    def of(person: np.ndarray, item: np.ndarray, rank: np.ndarray, depth: int) -> Lists:
        """The first ``depth`` places of rows in any order."""
        kept = rank <= depth
        order = np.lexsort((rank[kept], person[kept]))
        return Lists(person[kept][order], item[kept][order], rank[kept][order])

    def among(self, people: np.ndarray) -> Lists:
        """The lists of these people, sorted codes, who get the codes 0, 1, … of their order."""
        place = np.searchsorted(people, self.person)
        kept = (place < len(people)) & (people[np.minimum(place, len(people) - 1)] == self.person)
        return Lists(place[kept], self.item[kept], self.rank[kept])


def both(live: Lists, candidate: Lists) -> tuple[np.ndarray, Lists, Lists]:
    """(people,) codes of who has a list in both, and these lists, coded by their order."""
    people = np.intersect1d(live.person, candidate.person)
    return people, live.among(people), candidate.among(people)


def overlap(live: Lists, candidate: Lists, people: int, depth: int) -> np.ndarray:
    """(people,) the share of the first ``depth`` places whose items both lists have."""
    kept = _common(live, candidate)
    shared = np.bincount(candidate.person[kept >= 0], minlength=people)
    sizes = [np.bincount(one.person, minlength=people) for one in (live, candidate)]
    return shared / np.maximum(np.minimum(np.maximum(*sizes), depth), 1)


def rank_biased_overlap(
    live: Lists, candidate: Lists, people: int, depth: int, persistence: float = PERSISTENCE
) -> np.ndarray:
    """(people,) rank-biased overlap to ``depth``, scaled to 1 for equal lists (Webber, Moffat and
    Zobel, 2010, there without the rest beyond the depth)."""
    place = _common(live, candidate)
    # An item is common from the deeper of its two places on.
    since = np.maximum(candidate.rank, np.where(place >= 0, live.rank[place], 0))[place >= 0]
    agreed = np.zeros((people, depth + 1))
    np.add.at(agreed, (candidate.person[place >= 0], since), 1.0)
    share = np.cumsum(agreed, axis=1)[:, 1:] / np.arange(1, depth + 1)
    weight = persistence ** np.arange(depth)
    return share @ weight / weight.sum()


def rank_correlation(live: Lists, candidate: Lists, people: int, depth: int) -> np.ndarray:
    """(people,) Kendall's tau of the places of the items that both lists have, NaN for people with
    fewer than two of them."""
    place = _common(live, candidate)
    # (people, depth): at each place of the candidate its item's place in the other list, or 0.
    there = np.zeros((people, depth), np.int64)
    known = place >= 0
    there[candidate.person[known], candidate.rank[known] - 1] = live.rank[place[known]]
    agree, pairs = np.zeros(people), np.zeros(people)
    for first, second in combinations(range(depth), 2):
        has = (there[:, first] > 0) & (there[:, second] > 0)
        pairs += has
        agree += np.where(has, np.sign(there[:, second] - there[:, first]), 0)
    return np.divide(agree, pairs, out=np.full(people, np.nan), where=pairs > 0)


def _common(live: Lists, candidate: Lists) -> np.ndarray:
    """(n_candidate,) the row of ``live`` with the same person and item, else -1."""
    width = int(max(live.item.max(initial=0), candidate.item.max(initial=0))) + 1
    known = live.person * width + live.item
    order = np.argsort(known, kind="stable")
    asked = candidate.person * width + candidate.item
    at = np.minimum(np.searchsorted(known[order], asked), max(len(known) - 1, 0))
    if not len(known):
        return np.full(len(asked), -1)
    return np.where(known[order][at] == asked, order[at], -1)


def gained(
    live: Lists, candidate: Lists, bought: tuple[np.ndarray, np.ndarray], people: int, depth: int
) -> np.ndarray:
    """(people,) the candidate's NDCG less that of what serves, by what was bought after both;
    ``bought``: (m,) codes of person and item, a pair once. NaN for people who bought nothing."""
    person, item = bought
    wanted = np.bincount(person, minlength=people)
    has = wanted > 0
    found = np.full(people, np.nan)
    values = [_ndcg(one, person, item, wanted, people, depth)[has] for one in (live, candidate)]
    found[has] = values[1] - values[0]
    return found


def _ndcg(
    lists: Lists, person: np.ndarray, item: np.ndarray, wanted: np.ndarray, people: int, depth: int
) -> np.ndarray:
    width = int(max(lists.item.max(initial=0), item.max(initial=0))) + 1
    hit = np.isin(lists.person * width + lists.item, person * width + item)
    at_least_one = np.maximum(wanted, 1)
    return metrics.ndcg(lists.person, lists.rank - 1, hit, at_least_one, depth)
