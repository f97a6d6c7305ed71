"""What lists reach with each person: the measures of a backtest, a column each.

A list of lists is judged on all that a person bought after the cut, on what they had bought before
(``again``) and on what was new to them (``new``); a person counts where there is something of the
kind. Beside it stands what does not depend on purchases: how popular, how surprising and how varied
the listed items are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.evaluation import metrics
from jobs.evaluation.snapshot import Wanted
from jobs.retrieval import matrix

KINDS = ("all", "again", "new")


@dataclass(frozen=True)
class Column:
    """Names one measure of one list. ``length``: places judged, 0 for all that was named; ``kind``
    of purchases; ``new_only``: whether the list leaves out what the person had bought before."""

    ranking: str
    role: str
    new_only: bool
    metric: str
    kind: str
    length: int


@dataclass(frozen=True)
class Kind:
    """The purchases of one kind: ``key``: (n,) int64 ascending ``person * n_items + item``;
    ``money``: (n,); ``count``: (n_people,) items wanted; ``ideal``: (n_people, longest) the largest
    sums of money, largest first."""

    key: np.ndarray
    money: np.ndarray
    count: np.ndarray
    ideal: np.ndarray

    @staticmethod
    def of(wanted: Wanted, kept: np.ndarray, n_items: int, longest: int) -> Kind:
        person, money = wanted.person[kept], np.maximum(wanted.money[kept], 0.0)
        order = np.lexsort((-money, person))
        place = np.arange(len(person)) - np.searchsorted(person[order], person[order])
        ideal = np.zeros((wanted.n_people, longest))
        near = place < longest
        ideal[person[order][near], place[near]] = money[order][near]
        count = np.bincount(person, minlength=wanted.n_people)
        return Kind(person * n_items + wanted.item[kept], money, count, ideal)


@dataclass(frozen=True)
class Judge:
    """Everything that lists of one cut are judged by.

    ``popularity``: (n_items,) people who had bought each item before the cut; ``category``:
    (n_items,) int64 codes, -1 where it is unknown; ``lengths``: places judged, ascending.
    """

    kinds: Mapping[str, Kind]
    n_people: int
    n_items: int
    lengths: tuple[int, ...]
    popularity: np.ndarray
    buyers: int
    category: np.ndarray

    @staticmethod
    def of(
        wanted: Wanted, n_items: int, lengths: tuple[int, ...], popularity: np.ndarray,
        buyers: int, category: np.ndarray,
    ) -> Judge:  # fmt: skip
        every = np.ones(len(wanted.person), bool)
        chosen = {"all": every, "again": wanted.again, "new": ~wanted.again}
        kinds = {name: Kind.of(wanted, kept, n_items, lengths[-1]) for name, kept in chosen.items()}
        return Judge(
            kinds, wanted.n_people, n_items, lengths, popularity, buyers, category
        )  # fmt: skip

    def judge(
        self, lists: np.ndarray, name: str, role: str, new_only: bool
    ) -> Iterator[tuple[Column, np.ndarray]]:
        """Each measure with its (n_people,) values, NaN for who is not judged by it.

        ``lists``: (n_people, at least the longest length) codes, -1 where a list is short.
        """
        person, place = np.nonzero(lists >= 0)
        item = lists[person, place]
        for kind, wanted in self.kinds.items():
            if new_only and kind != "new":
                continue
            for length in self.lengths:
                for metric, values in self._reached(wanted, person, place, item, length):
                    yield Column(name, role, new_only, metric, kind, length), values
        for length in self.lengths:
            for metric, values in self._variety(person, place, item, length):
                yield Column(name, role, new_only, metric, "listed", length), values

    def _reached(
        self, wanted: Kind, person: np.ndarray, place: np.ndarray, item: np.ndarray, k: int
    ) -> Iterator[tuple[str, np.ndarray]]:
        money = self._money(wanted, person * self.n_items + item)
        hit = np.isfinite(money)
        least = np.maximum(wanted.count, 1)
        people = self.n_people
        found = {
            "ndcg": metrics.ndcg(person, place, hit, least, k),
            "recall": metrics.recall(person, place, hit, least, k),
            "precision": metrics.precision(person, place, hit, people, k),
            "map": metrics.average_precision(person, place, hit, least, k),
            "hit_rate": metrics.hit_rate(person, place, hit, people, k),
            "revenue_ndcg": metrics.gain_ndcg(
                person, place, np.where(hit, money, 0.0), wanted.ideal[:, :k]
            ),
        }
        for metric, values in found.items():
            yield metric, np.where(wanted.count > 0, values, np.nan)

    @staticmethod
    def _money(wanted: Kind, key: np.ndarray) -> np.ndarray:
        """(n,) what was paid for each listed pair, NaN where it was not bought."""
        if not len(wanted.key):
            return np.full(len(key), np.nan)
        at = np.minimum(np.searchsorted(wanted.key, key), len(wanted.key) - 1)
        return np.where(wanted.key[at] == key, wanted.money[at], np.nan)

    def _variety(
        self, person: np.ndarray, place: np.ndarray, item: np.ndarray, k: int
    ) -> Iterator[tuple[str, np.ndarray]]:
        near = place < k
        person, item = person[near], item[near]
        size = np.bincount(person, minlength=self.n_people)
        share = np.maximum(self.popularity[item], 1) / max(self.buyers, 1)
        for metric, of_item in (
            # Average recommendation popularity (Yin et al., 2012): people who had bought the item.
            ("popularity", self.popularity[item]),
            ("popularity_percentile", self._percentile[item]),
            # Mean self-information in bits (Zhou et al., 2010).
            ("novelty", -np.log2(share)),
        ):
            total = np.bincount(person, of_item, minlength=self.n_people)
            yield metric, _share(total, size)
        yield "category_spread", self._spread(person, item, size)

    @cached_property
    def _percentile(self) -> np.ndarray:
        """(n_items,) the share of the items ever bought that fewer people bought, ties halved."""
        sold = np.sort(self.popularity[self.popularity > 0])
        below = np.searchsorted(sold, self.popularity, "left")
        upto = np.searchsorted(sold, self.popularity, "right")
        return (below + upto) / 2 / max(len(sold), 1)

    def _spread(self, person: np.ndarray, item: np.ndarray, size: np.ndarray) -> np.ndarray:
        """(n_people,) the share of a list's pairs of items whose categories differ, 1 minus the
        intra-list similarity of Ziegler et al. (2005); an unknown category is like no other."""
        category = self.category[item]
        known = category >= 0
        width = int(self.category.max(initial=0)) + 1
        group, count = np.unique(person[known] * width + category[known], return_counts=True)
        alike = np.bincount(group // width, count * (count - 1), minlength=self.n_people)
        pairs = size * (size - 1)
        return 1 - _share(alike, pairs)


def named(
    sources: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], wanted: Wanted,
    n_items: int, depths: Sequence[int],
) -> Iterator[tuple[Column, np.ndarray]]:  # fmt: skip
    """The recall of each source alone, and what is lost of all sources' recall without it.

    ``sources``: person, item and rank of what each named. ``depths``: how many of a person's best
    count, 0 for all. Values are (n_people,), NaN for who wanted nothing of the kind.
    """
    key = wanted.person * n_items + wanted.item
    kinds = {"all": np.ones(len(key), bool), "again": wanted.again, "new": ~wanted.again}
    for depth in depths:
        found = []
        for person, item, rank in sources.values():
            order = np.lexsort((item, rank, person))
            place = np.arange(len(order)) - np.searchsorted(person[order], person[order])
            kept = order if not depth else order[place < depth]
            found.append(matrix.among(key, np.sort(person[kept] * n_items + item[kept])))
        by_source = np.array(found).reshape(len(sources), len(key))
        times = by_source.sum(axis=0)
        for kind, chosen in kinds.items():
            count = np.bincount(wanted.person[chosen], minlength=wanted.n_people)
            rows = [("all sources", "named", times > 0)]
            for name, mine in zip(sources, by_source, strict=True):
                rows += [(name, "named", mine), (name, "named_only_by", mine & (times == 1))]
            for name, metric, hit in rows:
                reached = np.bincount(wanted.person[chosen & hit], minlength=wanted.n_people)
                yield Column(name, "source", False, metric, kind, depth), _share(reached, count)


def categories(catalogue: pa.Table) -> np.ndarray:
    """(n_items,) int64 codes of the column ``category``, -1 where it is unknown."""
    codes = pc.dictionary_encode(catalogue["category"].combine_chunks()).indices
    return np.asarray(pc.fill_null(codes, -1).to_numpy()).astype(np.int64)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
