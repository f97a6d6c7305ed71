"""What the log could see at all: outcomes by place shown, and the goods that were ever shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.evaluation.metrics import wilson

PLACES = 50  # of the list; what stands below is counted in the last one
COLUMNS = [
    "item_id", "surface", "position", "shown_position", "clicked", "bought", "mature",
]  # fmt: skip


@dataclass(frozen=True)
class Exposure:
    """Counts over rows of ``served``: (PLACES + 1,) by place shown, 0 unused, and per item.

    ``mature``: rows by place whose outcomes have had their time; ``bought`` counts those alone.
    """

    shown: np.ndarray
    clicked: np.ndarray
    mature: np.ndarray
    bought: np.ndarray
    items: dict[str, int]

    @staticmethod
    def of(batches: Iterable[pa.RecordBatch], telling: Iterable[str]) -> Exposure:
        """From rows of ``served`` of one period, batch by batch.

        ``telling``: the surfaces that say what they showed. What those did not show had no outcome
        to have, and is left out; of the others all was shown, where the answer has it.
        """
        says = pa.array(list(telling), pa.string())
        counts = [np.zeros(PLACES + 1) for _ in range(4)]
        items: list[pa.Table] = []
        for every in batches:
            silent = pc.invert(pc.is_in(every["surface"], value_set=says))
            rows = every.filter(pc.or_(pc.is_valid(every["shown_position"]), silent))
            place = pc.coalesce(rows["shown_position"], rows["position"]).to_numpy()
            place = np.clip(place, 1, PLACES)
            clicked, bought, mature = (
                rows[name].to_numpy(zero_copy_only=False)
                for name in ("clicked", "bought", "mature")
            )
            chosen = (np.ones(len(place), bool), clicked, mature, mature & bought)
            for count, rows_of in zip(counts, chosen, strict=True):
                count += np.bincount(place[rows_of], minlength=PLACES + 1)
            one = pa.table({"item_id": rows["item_id"]})
            items.append(one.group_by("item_id").aggregate([([], "count_all")]))
        shown, clicks, ripe, purchases = counts
        return Exposure(shown, clicks, ripe, purchases, _summed(items))


def telling(batches: Iterable[pa.RecordBatch]) -> set[str]:
    """The surfaces of which the log says at some place what the page showed."""
    found: set[str] = set()
    for rows in batches:
        named = rows["surface"].filter(pc.is_valid(rows["shown_position"]))
        found.update(pc.unique(named).to_pylist())
    return found


def _summed(parts: list[pa.Table]) -> dict[str, int]:
    if not parts:
        return {}
    rows = pa.concat_tables(parts).group_by("item_id").aggregate([("count_all", "sum")])
    return dict(zip(rows["item_id"].to_pylist(), rows["count_all_sum"].to_pylist(), strict=True))


def rows_of(seen: Exposure, catalogue: pa.Array, candidates: pa.Array) -> list[dict[str, Any]]:
    """Rows of ``exposure_bias``; ``catalogue``: ids of what could be shown, ``candidates``: ids of
    what the newest examples named."""
    rows = by_place("clicked", seen.shown, seen.clicked)
    rows += by_place("bought", seen.mature, seen.bought)
    counts = np.array([seen.items.get(one, 0) for one in catalogue.to_pylist()], float)
    total = int(seen.shown.sum())
    if total:
        rows += [
            _row("catalogue_shown", 0, total, float((counts > 0).mean()) if len(counts) else 0.0),
            _row("gini_of_catalogue", 0, total, gini(counts)),
        ]
    named = [one in seen.items for one in candidates.to_pylist()]
    if total and named:
        rows.append(_row("candidates_shown", 0, total, float(np.mean(named))))
    return rows


def by_place(outcome: str, rows: np.ndarray, hits: np.ndarray) -> list[dict[str, Any]]:
    """The rate of an outcome at each place with its Wilson interval, and its ratio to that at the
    first place: log-normal (Katz et al., 1978), as if requests were independent."""
    found = []
    for place in map(int, np.flatnonzero(rows)):
        low, high = wilson(int(hits[place]), int(rows[place]))
        rate = hits[place] / rows[place]
        found.append(_row(f"{outcome}_rate", place, rows[place], rate, low, high))
        if place > 1 and rows[1] and hits[1] and hits[place]:
            ratio = rate / (hits[1] / rows[1])
            spread = 1 / hits[place] - 1 / rows[place] + 1 / hits[1] - 1 / rows[1]
            factor = np.exp(1.96 * np.sqrt(max(spread, 0.0)))
            found.append(_row(f"{outcome}_to_first", place, rows[place], ratio, ratio / factor,
                              ratio * factor))  # fmt: skip
    return found


def gini(counts: np.ndarray) -> float:
    """Gini's coefficient (1912) of counts: 0 where all are alike, near 1 where one has all."""
    total = counts.sum()
    if not total:
        return 0.0
    place = np.arange(1, len(counts) + 1)
    return float((2 * place - len(counts) - 1) @ np.sort(counts) / (len(counts) * total))


def _row(
    measure: str, place: int, rows: float, value: float,
    low: float | None = None, high: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    return {
        "measure": measure, "place": int(place), "rows": int(rows), "value": float(value),
        "low": None if low is None else float(low), "high": None if high is None else float(high),
    }  # fmt: skip
