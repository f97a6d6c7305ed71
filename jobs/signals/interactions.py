"""How much intent to buy an item a person's events show.

Reads ``history``, ``persons`` and ``items``. Writes ``interactions`` (a row per person and item
with positive net intent).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs import io
from jobs.errors import Fault
from jobs.night import Night
from jobs.params import check
from jobs.signals.past import (
    BLOCK,
    Record,
    ages,
    kinds,
    microseconds,
    of_night,
    people_of,
    runs,
)
from jobs.tables import EVENT_TYPES, TABLES, TIME

COLUMNS = ["person_id", "item_id", "event_type", "event_time", "value"]


@dataclass(frozen=True)
class Params:
    """How an event counts towards intent."""

    # A purchase is the goal; a cart is a plan that half of the time becomes one; views and clicks
    # are cheap and many, so a dozen of them stay below one purchase. What goes back subtracts.
    type_weights: Mapping[str, float] = field(
        default_factory=lambda: {
            "purchase": 1.0, "add_to_cart": 0.4, "click": 0.04, "view": 0.03,
            "remove_from_cart": -0.4, "return": -1.0, "reject": -1.0,
        }
    )  # fmt: skip
    # The last days at full weight: what a person did this week tells most about the next one.
    fresh_days: float = 7.0
    # Old behaviour keeps this share, so that the last week counts 4 times old behaviour.
    old_share: float = 0.25
    # Between the two the weight falls smoothly, by 1/e in this many days.
    fade_days: float = 30.0
    # A dear purchase says more than a cheap one, but by its logarithm: 1 + this * ln(1 + value).
    value_weight: float = 0.1

    def __post_init__(self) -> None:
        check(self.fresh_days > 0, "fresh_days must be positive")
        check(0 < self.old_share <= 1, "old_share must be in (0, 1]")
        check(self.fade_days > 0, "fade_days must be positive")
        check(self.value_weight >= 0, "value_weight must not be negative")
        unknown = set(self.type_weights) - set(EVENT_TYPES)
        check(not unknown, f"type_weights names unknown event types: {sorted(unknown)}")


def run(night: Night, params: Params) -> None:
    """Stage ``interactions``, block of people after block."""
    record, people = of_night(night), people_of(night.arrow("persons", ["person_id"]))
    for number, first in enumerate(range(0, max(len(people), 1), BLOCK)):
        night.add("interactions", number, interactions(record, people.slice(first, BLOCK), params))
    if not io.count_rows(night.staged / "interactions"):
        raise Fault(
            f"interactions: no person with consent has a signal of intent before {night.as_of}; "
            "check the consents in people and the event types in events"
        )


def interactions(record: Record, people: pa.StringArray, params: Params) -> pa.Table:
    """The table ``interactions`` of these people, sorted ids, from what they did.

    The weight of a pair is the sum over its events of type x recency x value; pairs whose sum is
    not positive (returned, rejected) are left out.
    """
    rows, person, item = record.read(people, COLUMNS)
    kind, time = kinds(rows), microseconds(rows["event_time"])
    value = pc.fill_null(rows["value"].cast(pa.float64()), 0.0).to_numpy()
    counts = np.zeros(len(EVENT_TYPES))
    counts[[EVENT_TYPES.index("purchase"), EVENT_TYPES.index("return")]] = 1.0, -1.0
    weight = weights(kind, ages(time, record.as_of), value, params)
    order = np.lexsort((time, item, person))
    starts, group = runs(person[order], item[order])
    total = np.bincount(group, weight[order], len(starts))
    # A sum's last bits depend on its order; rounded, a rerun is equal to the last one.
    total = np.round(total, 9)
    first, last = order[starts], order[np.append(starts[1:], len(order))[: len(starts)] - 1]
    found = pa.table({
        "person_id": people.take(pa.array(person[first])),
        "item_id": record.items.take(pa.array(item[first])),
        "weight": total,
        "purchases": np.bincount(group, counts[kind][order], len(starts)),
        "events": np.bincount(group, minlength=len(starts)),
        "first_time": pa.array(time[first]).cast(TIME),
        "last_time": pa.array(time[last]).cast(TIME),
    }, schema=TABLES["interactions"].schema)  # fmt: skip
    return found.filter(pa.array(total > 0))


def of_everybody(record: Record, people: pa.StringArray, params: Params) -> pa.Table:
    """The rows of :func:`interactions` of all these people, sorted ids."""
    blocks = range(0, len(people), BLOCK)
    found = [interactions(record, people.slice(first, BLOCK), params) for first in blocks]
    return pa.concat_tables([TABLES["interactions"].schema.empty_table(), *found])


def weights(kind: np.ndarray, days: np.ndarray, value: np.ndarray, params: Params) -> np.ndarray:
    """(n,) what events count towards intent. ``kind``: places in ``EVENT_TYPES``; ``days``: their
    ages; ``value``: money, 0 where it is unknown."""
    of_type = np.array([params.type_weights.get(name, 0.0) for name in EVENT_TYPES])
    return of_type[kind] * recency(days, params) * (1 + params.value_weight * np.log1p(value))


def recency(days: np.ndarray, params: Params) -> np.ndarray:
    """(n,) of ages in days: 1 for the fresh days, then a smooth fall to the share that old
    behaviour keeps."""
    past = np.maximum(days - params.fresh_days, 0.0)
    return params.old_share + (1 - params.old_share) * np.exp(-past / params.fade_days)
