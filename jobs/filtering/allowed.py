"""What each person may get, as arrays: the tables of ``filters`` for whoever ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from jobs.filtering import filters
from jobs.retrieval import matrix


@dataclass(frozen=True)
class Allowed:
    """What each of ``n`` people may get.

    ``group``: (n,) int64, the row of ``masks`` that holds for the person; ``masks``: (n_groups,
    n_items) bool; ``blocked``: (n_pairs,) int64 ascending, ``person * n_items + item`` of pairs
    that the person may not get all the same.
    """

    group: np.ndarray
    masks: np.ndarray
    blocked: np.ndarray

    @staticmethod
    def of(
        eligibility: pa.Table, people: pa.Table, position: np.ndarray, blocked: np.ndarray
    ) -> Allowed:
        """From the table ``eligibility``, the region and restrictions of people, and the position
        of each item, (n_items,), -1 for one that the catalogue does not know: nobody gets it."""
        rules = [
            (region, tuple(sorted(restrictions)))
            for region, restrictions in zip(
                people["region"].to_pylist(), people["restrictions"].to_pylist(), strict=True
            )
        ]
        distinct = {rule: code for code, rule in enumerate(dict.fromkeys(rules))}
        masks = [
            filters.allowed_mask(eligibility, *rule)[position] & (position >= 0)
            for rule in distinct
        ]
        return Allowed(
            np.array([distinct[rule] for rule in rules], np.int64),
            np.array(masks, bool).reshape(len(distinct), len(position)),
            blocked,
        )

    @staticmethod
    def for_all(n_people: int, mask: np.ndarray) -> Allowed:
        """The same (n_items,) bool for everybody, and no pair blocked."""
        return Allowed(np.zeros(n_people, np.int64), mask[None, :], np.zeros(0, np.int64))

    def by_anybody(self) -> np.ndarray:
        """(n_items,) bool: the items that somebody may get."""
        return np.asarray(self.masks.any(axis=0))

    def holds(self, person: np.ndarray, item: np.ndarray) -> np.ndarray:
        """(n_pairs,) bool: whether the person at this place may get the item."""
        open_to_all = self.masks[self.group[person], item]
        return open_to_all & ~matrix.among(person * self.masks.shape[1] + item, self.blocked)

    def mask(self, scores: np.ndarray, first: int) -> None:
        """Take what they may not get out of (n_rows, n_columns) ``scores`` of the people from
        ``first`` on; a column is the item of its code."""
        n_rows, n_columns = scores.shape
        group = self.group[first : first + n_rows]
        for one in np.unique(group):
            denied = np.flatnonzero(~self.masks[one, :n_columns])
            if len(denied):
                scores[np.ix_(group == one, denied)] = -np.inf
        n_items = self.masks.shape[1]
        ends = np.searchsorted(self.blocked, [first * n_items, (first + n_rows) * n_items])
        person, item = np.divmod(self.blocked[slice(*ends)], n_items)
        inside = item < n_columns
        scores[person[inside] - first, item[inside]] = -np.inf
