"""What may stand beside an item, in lists that know no person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from jobs.retrieval import matrix
from jobs.retrieval.neighbours import first_of_each


@dataclass(frozen=True)
class Pairs:
    """Pairs of different items by code, none twice: ``left`` has ``right`` beside it, (n,) each;
    ``score``: (n,) float64, higher is better."""

    left: np.ndarray
    right: np.ndarray
    score: np.ndarray


@dataclass(frozen=True)
class Beside:
    """Which item may stand in the list of which.

    An item that nobody may get is in no list and has none; a flag (alcohol, say) may only appear
    beside items that carry it too, since these lists know no person and thus no restriction; an
    item sold in some regions only may not appear beside one sold in more.

    ``item_ids``: sorted, an item's code is its place; ``kind``: (n_items,) codes of equal (flags,
    regions), -1 for an item that nobody may get; ``may``: (n_kinds, n_kinds) bool, whether an item
    of the second kind may stand in a list of the first; ``asked``: (n_items,) bool, whose lists are
    made, None is all.
    """

    item_ids: pa.StringArray
    kind: np.ndarray
    may: np.ndarray
    asked: np.ndarray | None = None

    @staticmethod
    def of(items: pa.Table) -> Beside:
        """From item_id, flags and regions of every item, sorted by id.

        Flags are compared without case and outer spaces, as restrictions are. Null regions are
        everywhere.
        """
        keys = [
            (
                frozenset(flag.strip().casefold() for flag in flags or ()),
                None if regions is None else frozenset(regions),
            )
            for flags, regions in zip(
                items["flags"].to_pylist(), items["regions"].to_pylist(), strict=True
            )
        ]
        code_of: dict[tuple, int] = {}
        kind = np.array([code_of.setdefault(key, len(code_of)) for key in keys], dtype=np.int64)
        kinds = list(code_of)
        may = [
            [
                theirs[0] <= ours[0]
                and (theirs[1] is None or (ours[1] is not None and ours[1] <= theirs[1]))
                for theirs in kinds
            ]
            for ours in kinds
        ]
        return Beside(
            items["item_id"].combine_chunks(), kind, np.array(may, bool).reshape((len(kinds),) * 2)
        )

    def without(self, item_ids: pa.Array | pa.ChunkedArray) -> Beside:
        """The same where nobody may get these items."""
        kind = self.kind.copy()
        kind[matrix.known(item_ids, self.item_ids, "item that nobody may get")] = -1
        return replace(self, kind=kind)

    def only(self, item_ids: pa.Array) -> Beside:
        """The same where only these items' lists are made."""
        asked = np.zeros(len(self.kind), bool)
        asked[matrix.known(pa.chunked_array([item_ids]), self.item_ids, "item that is due")] = True
        return replace(self, asked=asked)

    @property
    def served(self) -> np.ndarray:
        """(n_items,) bool: the items that somebody may get."""
        return self.kind >= 0

    def classes(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Items of one kind after the other, (n,) codes, and what may stand beside them, (n_items,)
        bool."""
        for code in range(len(self.may)):
            mine = self.kind == code
            ours = np.flatnonzero(mine if self.asked is None else mine & self.asked)
            if len(ours):
                yield ours, self.served & self.may[code][self.kind]

    def allowed(self, pairs: Pairs) -> Pairs:
        """The pairs whose second may stand in a list of the first that is made."""
        kept = self.holds(pairs.left, pairs.right)
        return Pairs(pairs.left[kept], pairs.right[kept], pairs.score[kept])

    def holds(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """(n,) bool: whether the item of each code ``right`` may stand in the list that is made of
        ``left``."""
        one, two = self.kind[left], self.kind[right]
        found = np.asarray((one >= 0) & (two >= 0) & self.may[one, two])
        return found if self.asked is None else found & self.asked[left]

    def lists(self, surface: str, pairs: Pairs, length: int) -> pa.Table:
        """Rows of ``item_lists``: the best ``length`` of each item, ties by item id."""
        kept, rank = first_of_each(pairs.left, pairs.right, pairs.score, length)
        order = kept[np.lexsort((rank, pairs.left[kept]))]
        rank = rank[np.lexsort((rank, pairs.left[kept]))]
        return pa.table({
            "surface": pa.repeat(surface, len(order)),
            "item_id": self.item_ids.take(pa.array(pairs.left[order])),
            "rank": rank.astype(np.int32),
            "listed_item_id": self.item_ids.take(pa.array(pairs.right[order])),
            "score": pairs.score[order],
        })  # fmt: skip
