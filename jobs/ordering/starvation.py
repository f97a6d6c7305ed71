"""Which rules leave people with fewer items than their list has places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.filtering.filters import EVERYONE, UNKNOWN_REGION
from jobs.retrieval import matrix


@dataclass(frozen=True)
class Starvation:
    """What every rule of the night takes away.

    ``items``: (kind, value) of a rule to the ascending codes of items that it excludes; ``pairs``:
    the reason of a block to ascending ``person * n_items + item``.
    """

    n_items: int
    items: Mapping[tuple[str, str], np.ndarray]
    pairs: Mapping[str, np.ndarray]

    @staticmethod
    def of(
        ineligible: pa.Table, blocked: pa.Table, people: pa.ChunkedArray, item_ids: pa.StringArray
    ) -> Starvation:
        """From the tables ``ineligible_items`` and ``blocked_pairs``; codes are places in
        ``people`` and ``item_ids``."""
        item = matrix.known(ineligible["item_id"], item_ids, "item of ineligible_items")
        kinds = zip(ineligible["kind"].to_pylist(), ineligible["value"].to_pylist(), strict=True)
        rules: dict[tuple[str, str], list[int]] = {}
        for rule, code in zip(kinds, item.tolist(), strict=True):
            rules.setdefault(rule, []).append(code)
        person = matrix.known(blocked["person_id"], people, "person of blocked_pairs")
        code = matrix.known(blocked["item_id"], item_ids, "item of blocked_pairs")
        key = person * len(item_ids) + code
        return Starvation(
            len(item_ids),
            {rule: np.unique(codes) for rule, codes in rules.items()},
            {
                reason: np.unique(key[pc.equal(blocked["reason"], reason).to_numpy()])
                for reason in sorted(pc.unique(blocked["reason"]).to_pylist())
            },
        )

    def counts(
        self,
        person: np.ndarray,
        item: np.ndarray,
        regions: Sequence[str | None],
        restrictions: Sequence[Sequence[str]],
        first: int,
    ) -> dict[str, tuple[int, int]]:
        """Per rule the people it took candidates from, and how many of those it took.

        ``person``, ``item``: (n,) candidates that people of short lists may not get; ``regions``,
        ``restrictions``: of the people from code ``first`` on, who have codes from 0 here.
        """
        here: dict[tuple[str, str], list[int]] = {EVERYONE: sorted(set(person.tolist()))}
        for one in here[EVERYONE]:
            here.setdefault(("region", regions[one] or UNKNOWN_REGION), []).append(one)
            for restriction in restrictions[one]:
                here.setdefault(("restriction", restriction), []).append(one)
        taken: dict[str, list[np.ndarray]] = {}
        for rule, people in here.items():
            if rule in self.items:
                lost = np.isin(person, people) & matrix.among(item, self.items[rule])
                name = rule[0] if rule[0] != "restriction" else f"restriction {rule[1]}"
                taken.setdefault(name, []).append(person[lost])
        key = (first + person) * self.n_items + item
        for reason, keys in self.pairs.items():
            taken[reason] = [person[matrix.among(key, keys)]]
        found = {name: np.concatenate(parts) for name, parts in taken.items()}
        return {
            name: (len(np.unique(lost)), len(lost)) for name, lost in found.items() if len(lost)
        }
