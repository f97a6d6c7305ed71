"""Who is in an experiment, in which arm, and what they did since it began."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.diagnosis.definitions import Experiment
from jobs.diagnosis.kpis.kpi_cells import Coded, days_of, encoded, ordinal

SEVERAL, UNKNOWN = -1, -2  # a person in two arms; in one that the definition lacks, or in none
LOGGED_SEVERAL = "several"  # how the table visits says it
SUMS = ("requests", "clicks", "orders", "revenue")


@dataclass(frozen=True)
class Exposed:
    """One row a visitor (n,), and one a visit (m,).

    ``arms``: the control first. ``arm``: (n,) places in ``arms``, or SEVERAL or UNKNOWN.
    ``first_day``: (n,) of the first visit in days since 1970; ``recent``: (n,) it was in the
    current period. ``before_value``, ``returning``, ``segments``: (n,) as of the first visit, so
    that nothing of them is the experiment's doing. ``person``: (m,) places in the rows of
    visitors; ``day`` and ``values``: (m,).
    """

    arms: list[str]
    visitor: pa.Array
    arm: np.ndarray
    first_day: np.ndarray
    recent: np.ndarray
    before_value: np.ndarray
    returning: np.ndarray
    segments: dict[str, Coded]
    person: np.ndarray
    day: np.ndarray
    values: dict[str, np.ndarray]

    def total(self, name: str, of: np.ndarray | None = None) -> np.ndarray:
        """(n,) each visitor's sum of a value, over the visits ``of`` (m,) bool if given."""
        values = self.values[name] if of is None else self.values[name] * of
        return np.bincount(self.person, values, minlength=len(self.arm))


def exposed(visits: pa.Table, defined: Experiment, segments: Iterable[str]) -> Exposed:
    """The visitors of an experiment; ``visits``: its rows of that table."""
    day = days_of(visits["day"])
    kept = pa.array(day >= ordinal(defined.starts.date()))
    visits, day = visits.filter(kept), day[day >= ordinal(defined.starts.date())]
    person, visitor = encoded(visits["visitor"])
    order = np.lexsort((day, person))
    _, starts = np.unique(person[order], return_index=True)
    first = order[starts]
    arms = [defined.control, *(name for name in sorted(defined.arms) if name != defined.control)]
    orders = visits["orders"].to_numpy()
    values = {name: visits[name].to_numpy().astype(float) for name in SUMS}
    return Exposed(
        arms, visitor, _arm(visits["arm"], person, len(first), arms), day[first],
        pc.equal(visits["period"], "current").to_numpy()[first],
        visits["before_value"].to_numpy()[first],
        visits["returning"].to_numpy()[first],
        {name: Coded.of(visits[name]).at(first) for name in segments},
        person, day, values | {"visits": np.ones(len(day)), "bought": (orders > 0).astype(float)},
    )  # fmt: skip


def _arm(logged: pa.ChunkedArray, person: np.ndarray, people: int, arms: list[str]) -> np.ndarray:
    known = pc.index_in(logged, value_set=pa.array(arms, pa.string()))
    codes = pc.fill_null(known, UNKNOWN).to_numpy().astype(np.int64)
    several = pc.equal(logged, LOGGED_SEVERAL).to_numpy()
    lowest, highest = np.full(people, len(arms)), np.full(people, UNKNOWN)
    np.minimum.at(lowest, person, codes)
    np.maximum.at(highest, person, codes)
    twice = (lowest != highest) | (np.bincount(person, several, minlength=people) > 0)
    return np.where(twice, SEVERAL, lowest)
