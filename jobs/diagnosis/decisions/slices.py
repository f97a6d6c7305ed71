"""The step ``slices``: where the loss is, which cases show it, what later releases made of them.

Reads ``served``, ``visits``, ``served_features``, ``definitions``, ``leakage_symptoms``, the
``counterexamples`` of earlier runs, the models of the nights that served and the scorer of the
newest release. Writes ``slice_losses`` (a row per slice by one or two columns), ``counterexamples``
(a row per worst miss, with its features as served and what the strongest add to its score),
``counterexample_checks`` (a row per earlier case, scored again), ``default_drivers`` (a row per
feature: how far the score hangs on its most frequent value) and ``slices_symptoms``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs.diagnosis import clusters, definitions, seen, symptoms
from jobs.diagnosis.decisions import misses
from jobs.diagnosis.decisions.losses import Column, Measure, Rows, found, losses
from jobs.diagnosis.definitions import Definitions
from jobs.diagnosis.log.who import UNKNOWN
from jobs.diagnosis.symptoms import Symptom
from jobs.night import Night
from jobs.params import check
from jobs.tables import TABLES

SERVED = [
    "period", "mature", "visitor", "request_time", "surface", "position", "shown_position", "value",
]  # fmt: skip
VISITS = [
    "visitor", "day", "period", "orders", "revenue", "returning", "region", "segment", "tenure",
    "key_type",
]  # fmt: skip
OF_VISITS = ("region", "segment", "tenure", "key_type", "weekday")
BLOCK = 4  # hours that are one slice of the day
WEEKDAYS = [
    "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday",
]  # fmt: skip


@dataclass(frozen=True)
class Params:
    """What is looked at."""

    # Rows that a slice must have in both periods to be listed.
    fewest: int = 100
    # Runs whose counterexamples the newest release is asked about: a fortnight of days.
    earlier: int = 14

    def __post_init__(self) -> None:
        check(self.fewest >= 20, "fewest must be at least 20")
        check(0 <= self.earlier <= 400, "earlier must be 0 to 400")


def run(night: Night, params: Params) -> None:
    """Stage the losses, the cases, what became of earlier ones, and the losing slices."""
    agreed = definitions.read(night)
    label = "bought" if agreed.label.event == "purchase" else "clicked"
    rows = _served(night, agreed, label)
    visits = _visits(night, agreed) if rows else None
    table = losses(rows, visits, params.fewest) if rows else []
    told = [*found(table), *(empty(rows, agreed.segments, params.fewest) if rows else ())]
    if not rows:
        night.notes["slices"] = "no mature place in both periods: no slice is compared"
        told = [symptoms.unjudged(
            "decisions_unjudged", "slices", 0, params.fewest,
            "Nothing says whether a slice loses: the log has no mature place that was shown in "
            "the current period, or none in the reference.",
        )]  # fmt: skip
    night.write("slice_losses", pa.Table.from_pylist(
        [one.row() for one in table], TABLES["slice_losses"].schema
    ))  # fmt: skip
    told += misses.write(night, label, params.earlier)
    night.write("slices_symptoms", symptoms.table(told))


def empty(rows: Rows, segments: Sequence[str], fewest: int) -> Iterator[Symptom]:
    """Agreed segments of which no place has a value, of ``fewest`` places a period at least: told
    apart by nothing, they are all one."""
    now = int(rows.current.sum())
    if min(now, len(rows.current) - now) < fewest:
        return
    for column in rows.columns:
        if column.name in segments and {*column.names} <= {UNKNOWN, clusters.NONE}:
            yield Symptom(
                "empty_segment", column.name, 1.0, 1.0, 1.0, len(rows.hit),
                f"The metrics file asks for slices by {column.name}, and none of {len(rows.hit):,} "
                f"mature places has one: whatever is told by {column.name} is of everybody.",
            )  # fmt: skip


# --- reading ---------------------------------------------------------------------------------
def _served(night: Night, agreed: Definitions, label: str) -> Rows | None:
    """Mature places of both periods that the page showed; None where a period has none."""
    segments = list(agreed.segments)
    both = ds.field("period").isin(["current", "reference"]) & ds.field("mature")
    columns = dict.fromkeys([*SERVED, label, *segments])
    rows = night.arrow("served", list(columns), both)
    rows = rows.filter(pa.array(seen.shown(rows)))
    current = pc.equal(rows["period"], "current").to_numpy()
    if not current.any() or current.all():
        return None
    hit = rows[label].to_numpy()
    place = pc.coalesce(rows["shown_position"], rows["position"]).to_numpy()
    divided = [Column(name, *clusters.frequent(rows[name])) for name in segments]
    day = pc.cast(rows["request_time"], pa.date32())
    hour = pc.hour(rows["request_time"]).to_numpy() // BLOCK
    names = [f"{n * BLOCK:02d} to {n * BLOCK + BLOCK:02d}" for n in range(24 // BLOCK)]
    divided += [_weekday(day), Column("hour", hour.astype(np.int32), names)]
    value = pc.fill_null(rows["value"], 0.0).to_numpy()
    top = {
        "revenue_per_session": (value, np.ones(len(hit))),
        "average_order_value": (value, hit.astype(float)),
    }.get(agreed.kpi, (hit.astype(float), np.ones(len(hit))))
    # No place says whether who buys from it comes back; outcomes are what it has of that.
    name = "conversion" if agreed.kpi == "returning_customers" else agreed.kpi
    measure = Measure(f"{name}, per place shown", *top)
    return Rows(current, clusters.groups(rows["visitor"]), divided, measure, hit, place)


def _visits(night: Night, agreed: Definitions) -> Rows | None:
    """A visitor's days of both periods, each once, whatever experiments they were in."""
    both = ds.field("period").isin(["current", "reference"])
    rows = night.arrow("visits", VISITS, both)
    visitor, _ = clusters.codes(rows["visitor"])
    day = rows["day"].cast(pa.int32()).to_numpy().astype(np.int64)
    _, first = np.unique(visitor * np.int64(1 << 20) + day, return_index=True)
    rows = rows.take(pa.array(first))
    current = pc.equal(rows["period"], "current").to_numpy()
    if not current.any() or current.all():
        return None
    named = [name for name in agreed.segments if name in OF_VISITS]
    columns = [Column(name, *clusters.frequent(rows[name])) for name in named]
    columns.append(_weekday(rows["day"]))
    orders, revenue = rows["orders"].to_numpy().astype(float), rows["revenue"].to_numpy()
    visits = np.ones(len(orders))
    ordered = (orders > 0).astype(float)
    top = {
        "revenue_per_session": (revenue, visits),
        "average_order_value": (revenue, orders),
        # As the KPI is reported: of those who bought.
        "returning_customers": (ordered * rows["returning"].to_numpy(), ordered),
    }.get(agreed.kpi, (ordered, visits))
    group = clusters.groups(rows["visitor"])
    per = "of visits with an order" if agreed.kpi == "returning_customers" else "per visit"
    measure = Measure(f"{agreed.kpi}, {per}", *top)
    return Rows(current, group, columns, measure, ordered > 0, np.zeros(len(orders), np.int64))


def _weekday(day: pa.ChunkedArray) -> Column:
    return Column("weekday", pc.day_of_week(day).to_numpy().astype(np.int32), WEEKDAYS)
