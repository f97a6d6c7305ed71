"""``plan``: what an experiment could find, and how long it would take, by what visitors did lately.

Reads the table ``visits`` of the newest diagnosis of the lake: an experiment of 14, 21 or 28 days
is laid on its last days, its visitors and their spread of money, orders and clicks taken as they
were. Visitors who come back count once and visits of one go together, as in the step
``experiments``; money is adjusted by what visitors had spent before (CUPED).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from rich.console import Console
from rich.table import Table

from jobs import io
from jobs.diagnosis.experiments import effects
from jobs.diagnosis.experiments.estimates import linearised
from jobs.diagnosis.experiments.experiments import CAPPED, CONVERSION, CTR, PRIMARY
from jobs.diagnosis.experiments.power import LONGEST, SHORTEST, WEEK, least_effect
from jobs.diagnosis.kpis.kpi_cells import encoded
from jobs.errors import Fault
from jobs.io import Lake

DURATIONS = range(SHORTEST, LONGEST + 1, WEEK)
# The value that is summed and what it is counted over.
MEASURES = {
    PRIMARY: ("revenue", "visits"), CONVERSION: ("bought", "visits"), CTR: ("clicks", "requests"),
}  # fmt: skip
COLUMNS = [
    "visitor", "day", "experiment", "requests", "clicks", "orders", "revenue", "before_value",
]  # fmt: skip


@dataclass(frozen=True)
class Power:
    """What an experiment of so many days finds four times in five, as a share of the control's:
    ``least``; of a measure with this ``mean``, on so many ``visitors`` in all arms."""

    days: int
    measure: str
    mean: float
    visitors: int
    least: float


def powers(visits: pa.Table, arms: int) -> Iterator[Power]:
    """For every duration that the table reaches, and every measure.

    ``visits``: COLUMNS of rows without a year ago; ``arms``: of one size, the control among them.
    The control is compared with each other arm, at 5 % over them all (Bonferroni).
    """
    last, begun = (pick(visits["day"]).as_py() for pick in (pc.max, pc.min))
    for days in DURATIONS:
        since = last - timedelta(days=days - 1)
        if since < begun:
            return
        rows = _once(visits.filter(pc.greater_equal(visits["day"], pa.scalar(since))))
        person, known = encoded(rows["visitor"])
        if len(known) < arms * effects.FEWEST:
            continue
        sums = {
            name: np.bincount(person, values, minlength=len(known))
            for name, values in _values(rows).items()
        }
        _, first_visit = np.unique(person, return_index=True)  # rows are by day
        before = rows["before_value"].to_numpy()[first_visit]
        before = np.minimum(before, np.quantile(before, CAPPED))
        for measure, (total, count) in MEASURES.items():
            found = _found(sums[total], sums[count], before if measure == PRIMARY else None)
            if found is not None:
                mean, variance = found
                # Of the difference of two arms that hold 1/arms of the visitors each.
                apart = least_effect(2 * arms * variance, effects.ALPHA / (arms - 1))
                yield Power(days, measure, mean, len(known), apart / mean)


def _once(visits: pa.Table) -> pa.Table:
    """A row per visitor and day. One who is in two experiments has a row for each, with its own
    requests and clicks, which are summed; money and orders are the day's in each, and what was
    spent before is that of the row without an experiment, where there is one."""
    visits = visits.sort_by([(name, "ascending") for name in ("day", "visitor", "experiment")])
    _, day = np.unique(visits["day"].cast(pa.int32()).to_numpy(), return_inverse=True)
    person, known = encoded(visits["visitor"])
    _, first, of = np.unique(day * len(known) + person, return_index=True, return_inverse=True)
    once = visits.take(pa.array(first))
    for name in ("requests", "clicks"):
        whole = np.bincount(of, visits[name].to_numpy(), minlength=len(first))
        once = once.set_column(once.schema.get_field_index(name), name, pa.array(whole))
    return once


def _values(rows: pa.Table) -> dict[str, np.ndarray]:
    """(n,) by visit."""
    orders = rows["orders"].to_numpy()
    named = {
        name: rows[name].to_numpy().astype(float) for name in ("requests", "clicks", "revenue")
    }
    return named | {"visits": np.ones(len(orders)), "bought": (orders > 0).astype(float)}


def _found(
    total: np.ndarray, count: np.ndarray, before: np.ndarray | None
) -> tuple[float, float] | None:
    """A ratio over all visitors and its variance; None where there is too little to tell one."""
    group = np.zeros(len(total), np.int64)
    whole, adds = linearised(group, total, count, 1)
    if before is not None and np.isfinite(whole.value).all():
        whole, _ = effects.adjusted(group, whole, adds, before)
    mean, variance = float(whole.value[0]), float(whole.variance[0])
    return (mean, variance) if np.isfinite(variance) and mean > 0 and variance > 0 else None


def advised(found: list[Power], effect: float) -> str:
    """In words, the shortest duration in which this effect on money a visit is found."""
    of_money = [one for one in found if one.measure == PRIMARY]
    enough = next((one for one in of_money if one.least <= effect), None)
    if enough is not None:
        return (
            f"An effect of {effect:.1%} on money a visit is found in {enough.days} days, four "
            f"times in five."
        )
    most = of_money[-1]
    times = (most.least / effect) ** 2
    return (
        f"An effect of {effect:.1%} on money a visit is not found in {most.days} days: that takes "
        f"{times:.1f} times their visitors. Look for a larger effect, show it to more people, or "
        "decide by conversion, which is nearer to the list."
    )


def read(lake: Lake) -> tuple[pa.Table, str]:
    """The visits of the lake's newest diagnosis, and its run date."""
    published = lake.newest("served")
    if published is None:
        raise Fault(
            f"plan: the lake {lake.root} has no diagnosis, which says who visits; run "
            "`make diagnose` first"
        )
    lately = ds.field("period") != "last_year"
    return io.read_arrow(published.table("visits"), COLUMNS, lately), published.as_of


def _missing(visits: pa.Table, arms: int) -> str:
    """What the visits lack, in words, where no plan could be made of them."""
    last, begun = (pick(visits["day"]).as_py() for pick in (pc.max, pc.min))
    days = (last - begun).days + 1 if visits.num_rows else 0
    if days < SHORTEST:
        return (
            f"reaches over {days} days of visits; an experiment takes at least {SHORTEST}, so wait "
            "until the log is as long"
        )
    return (
        f"has fewer than {arms * effects.FEWEST} visitors, {effects.FEWEST} an arm, or none who "
        f"bought; that is too few for an experiment of {arms} arms"
    )


def main(chosen: argparse.Namespace) -> None:
    """Print what there is to find."""
    if not 0 < chosen.effect < 1:
        raise Fault("plan: EFFECT must be a share above 0 and below 1: EFFECT=0.05 for 5 %")
    if not 2 <= chosen.arms <= 20:
        raise Fault("plan: ARMS must be 2 to 20, the control among them")
    visits, as_of = read(Lake(chosen.lake))
    found = list(powers(visits, chosen.arms)) if visits.num_rows else []
    if not any(one.measure == PRIMARY for one in found):
        raise Fault(f"plan: the diagnosis of {as_of} {_missing(visits, chosen.arms)}")
    table = Table(title=f"An experiment of {chosen.arms} equal arms, by the visits up to {as_of}")
    for name in ("days", "visitors", "measure", "now", "least effect found"):
        table.add_column(name, justify="left" if name == "measure" else "right")
    for one in found:
        table.add_row(
            str(one.days), f"{one.visitors:,}", one.measure.replace("_", " "), f"{one.mean:.4g}",
            f"{one.least:.1%}",
        )  # fmt: skip
    console = Console()
    console.print(table)
    console.print(advised(found, chosen.effect))
