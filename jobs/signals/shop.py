"""What everybody's past says of an item and of its category.

Counted block by block of people, in one pass over the history as of the instant.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.retrieval import matrix
from jobs.signals.behaviour import Lines
from jobs.signals.measures import SHOP_HALF_LIVES
from jobs.signals.past import LOOKS, Past, runs
from jobs.tables import BELOW

# An item counts as if so many more people had bought it, of whom this share came back.
PRIOR_PEOPLE, PRIOR_REPEAT, PRIOR_REBUY = 5.0, 0.2, 0.1
MONTH, FORTNIGHT = 28, 14  # days

_SUMS = (
    "buyers", "repeaters", "gaps", "spans", "old", "rebought", "new", "value", "quantity",
    "value_lately", "quantity_lately", "looks", *(f"sold_{days}" for days in SHOP_HALF_LIVES),
)  # fmt: skip


@dataclass(frozen=True)
class Catalogue:
    """What is known of items without looking at anybody: codes are places in ``ids``, sorted.

    ``narrow``, ``broad``: (n_items,) codes of the whole category path and of its first two steps,
    -1 without one.
    """

    ids: pa.StringArray
    narrow: np.ndarray
    broad: np.ndarray

    @staticmethod
    def of(items: pa.Table) -> Catalogue:
        """From rows with item_id and category."""
        items = items.sort_by("item_id")
        path = items["category"].combine_chunks()
        steps = pc.split_pattern(path, BELOW)
        first = pc.binary_join(pc.list_slice(steps, 0, 2), BELOW)
        return Catalogue(
            pa.concat_arrays(items["item_id"].chunks),
            _codes(path),
            _codes(first),
        )


def _codes(column: pa.Array) -> np.ndarray:
    """(n,) int64 codes of texts in their order, -1 for null."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    known = column.is_valid().to_numpy(zero_copy_only=False)
    found = np.full(len(column), -1, np.int64)
    _, found[known] = matrix.encode(column.drop_null())
    return found


def measure(pasts: Iterable[Past], catalogue: Catalogue) -> dict[str, np.ndarray]:
    """The measures ``ITEM`` of every item, (n_items,) float64 each.

    ``pasts``: each person stands in one of them with all that it did.
    """
    n = len(catalogue.ids)
    sums = {name: np.zeros(n) for name in _SUMS}
    oldest = np.full(n, np.nan)
    for past in pasts:
        _add(sums, oldest, past, n)
    never = np.where(sums["buyers"] > 0, 1.0, np.nan)
    paid = sums["value"] / np.maximum(sums["quantity"], 1e-9)
    lately = sums["value_lately"] / np.maximum(sums["quantity_lately"], 1e-9)
    narrow = catalogue.narrow
    return {
        "i_buyers": sums["buyers"],
        "i_repeated": _share(sums["repeaters"], sums["buyers"], PRIOR_REPEAT),
        **{f"i_sold_{days}": sums[f"sold_{days}"] for days in SHOP_HALF_LIVES},
        "i_trend": _trend(sums["sold_7"], sums["sold_84"]),
        "i_gap": _gap(sums),
        "i_rebought": _share(sums["rebought"], sums["old"], PRIOR_REBUY),
        "i_new_buyers": sums["new"],
        "i_paid": np.where(paid > 0, paid, np.nan) * never,
        "i_discount": np.where((lately > 0) & (paid > 0), lately / np.maximum(paid, 1e-9), np.nan),
        "i_looks": sums["looks"],
        "i_age": oldest,
        "c_rebought": _share(
            _of_group(sums["rebought"], narrow), _of_group(sums["old"], narrow), PRIOR_REBUY
        ),
        "c_trend": _trend(_of_group(sums["sold_7"], narrow), _of_group(sums["sold_84"], narrow)),
    }


def gaps(pasts: Iterable[Past], catalogue: Catalogue) -> np.ndarray:
    """The measure ``i_gap`` alone; of the pasts only what ``past.BOUGHT`` says is looked at."""
    n = len(catalogue.ids)
    sums = {name: np.zeros(n) for name in ("gaps", "spans")}
    for past in pasts:
        item, count, since, first = _pairs(Lines.of(past))
        sums["gaps"] += np.bincount(item, count - 1, n)
        sums["spans"] += np.bincount(item, first - since, n)
    return _gap(sums)


def _gap(sums: dict[str, np.ndarray]) -> np.ndarray:
    return np.where(sums["gaps"] > 0, sums["spans"] / np.maximum(sums["gaps"], 1), np.nan)


def _pairs(lines: Lines) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each person and item: the item, how often it was bought, and the ages of the last and the
    first time; (n_pairs,) each."""
    starts, group = runs(lines.person, lines.item)
    count = np.bincount(group, minlength=len(starts))
    return lines.item[starts], count, lines.age[starts + count - 1], lines.age[starts]


def _add(sums: dict[str, np.ndarray], oldest: np.ndarray, past: Past, n: int) -> None:
    """Count a block of people in."""
    lines = Lines.of(past)
    item, count, since, first = _pairs(lines)
    again = count > 1
    looked = np.isin(past.kind, LOOKS)
    added = {
        "buyers": np.bincount(item, minlength=n),
        "repeaters": np.bincount(item[again], minlength=n),
        "gaps": np.bincount(item, count - 1, n),
        "spans": np.bincount(item, first - since, n),
        "old": np.bincount(item[first >= MONTH], minlength=n),
        "rebought": np.bincount(item[(first >= MONTH) & (since < MONTH)], minlength=n),
        "new": np.bincount(item[first < MONTH], minlength=n),
        "looks": np.bincount(past.item[looked], np.exp2(-past.age[looked] / MONTH), n),
        **{
            f"sold_{days}": np.bincount(lines.item, np.exp2(-lines.age / days), n)
            for days in SHOP_HALF_LIVES
        },
    }
    priced = np.isfinite(lines.value)
    for name, rows in (("", priced), ("_lately", priced & (lines.age < FORTNIGHT))):
        added[f"value{name}"] = np.bincount(lines.item[rows], lines.value[rows], n)
        added[f"quantity{name}"] = np.bincount(lines.item[rows], lines.quantity[rows], n)
    for name, column in added.items():
        sums[name] += column
    np.fmax.at(oldest, item, first)


def _share(part: np.ndarray, whole: np.ndarray, prior: float) -> np.ndarray:
    """A share drawn towards the prior where few were counted."""
    return (part + prior * PRIOR_PEOPLE) / (whole + PRIOR_PEOPLE)


def _trend(recent: np.ndarray, long: np.ndarray) -> np.ndarray:
    """Sales a day of the last week over those of the last quarter; NaN where nothing was sold."""
    pace = long / SHOP_HALF_LIVES[-1]
    return np.where(long > 0, recent / SHOP_HALF_LIVES[0] / np.maximum(pace, 1e-9), np.nan)


def _of_group(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(n_items,) the sum over each item's group; an item without a group stands for itself."""
    total = np.bincount(group + 1, values)[group + 1]
    return np.where(group >= 0, total, values)
