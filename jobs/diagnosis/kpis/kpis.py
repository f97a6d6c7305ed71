"""The step ``kpis``: what the business sees, for the whole and for each part of it.

Reads ``served``, ``visits``, ``definitions``, the number of ``items``, and of the ``events`` how
long purchases take to arrive. Writes ``kpis``, one row per group, segment, period and measure;
``baseline_verdicts``, one row per segment: the agreed KPI of the model's visits against that of the
baseline's; and ``kpis_symptoms``, the sudden drops, a baseline that is better, and what cannot be
measured or judged. Of a segment the most frequent values are told, the rest together as ``other``.

Groups are the whole, each surface, each arm of an experiment, and the personal answers beside those
that are a fallback: what would be shown without the system, on the same days and segments, and so
the baseline where the definitions name ``popularity`` or ``fallback``. Where they name
``previous_release``, it is the answers of another release than most of the surface's that day. Who
gets a fallback is not drawn by lot: only an experiment's arms are compared like with like.

A visit is a visitor's day. Visits with answers of both kinds are in neither. Money and rates by
visit are not told by surface, since a visit sees many; nor by category and channel, which are of
places and of what came of them. Agreed segments of that kind are named in the notes and on the
page, and are the step ``slices``' to tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from jobs import io
from jobs.diagnosis import baseline, definitions, symptoms
from jobs.diagnosis.baseline import PREVIOUS_RELEASE
from jobs.diagnosis.experiments.estimates import Estimate, quantile, ratios, share_interval
from jobs.diagnosis.kpis import kpi_drops
from jobs.diagnosis.kpis.kpi_cells import (
    ALL,
    ANSWERS,
    NOT_OF_VISITS,
    RELEASE,
    SEGMENTS,
    Cells,
    Coded,
    Rows,
    Shown,
    ordinal,
    read,
)
from jobs.diagnosis.kpis.kpi_drops import Days
from jobs.diagnosis.symptoms import Symptom
from jobs.night import Night
from jobs.params import check
from jobs.tables import TABLES

OF_REQUESTS = ("requests", "ctr", "coverage", "latency_p95")
OF_VISITS = (
    "visits", "visitors", "conversion", "revenue_per_session", "average_order_value",
    "returning_customers",
)  # fmt: skip
SHARES = ("conversion", "returning_customers", "coverage")
OF_MONEY = ("revenue_per_session", "average_order_value")
# Visits that each side needs, below which no interval of money is to be trusted.
FEW_VISITS = 200
# Orders without any money, from which on it is not told rather than given away.
FEW_ORDERS = 50


@dataclass(frozen=True)
class Params:
    """How sudden a drop is."""

    # The last days that are held against the same weekdays before.
    last_days: int = 3

    def __post_init__(self) -> None:
        check(1 <= self.last_days <= 7, "last_days must be 1 to 7")


def run(night: Night, params: Params) -> None:
    """Stage the KPIs and their sudden drops."""
    agreed = definitions.read(night)
    columns = [name for name in agreed.segments if name in SEGMENTS]
    left_out = [name for name in agreed.segments if name in NOT_OF_VISITS]
    if left_out:
        night.notes["not_by"] = f"{', '.join(left_out)}: a visit has several; see slices"
    by_release = agreed.baseline == PREVIOUS_RELEASE
    items = io.count_rows(night.published("catalogue").table("items"))
    requests, shown, visits = read(night, columns, by_release)
    rows = [*of_requests(requests, shown, items), *of_visits(visits)]
    night.notes["baseline"] = f"{RELEASE}: previous" if by_release else f"{ANSWERS}: fallback"
    night.notes["last_year"] = bool((visits.period == 2).any())
    night.write("kpis", pa.Table.from_pylist(rows, TABLES["kpis"].schema))
    last = night.as_of.date() - timedelta(days=1)
    late = kpi_drops.days_late(_hours_to_arrive(night, requests), params.last_days)
    night.notes["purchases_late_days"] = late
    verdicts = list(against_baseline(visits, agreed.kpi, RELEASE if by_release else ANSWERS))
    night.write(
        "baseline_verdicts", pa.Table.from_pylist(verdicts, TABLES["baseline_verdicts"].schema)
    )
    found = drops(requests, shown, visits, ordinal(last), params.last_days, late)
    found += [*unmeasured(visits, agreed.kpi), *below_baseline(verdicts)]
    night.write("kpis_symptoms", symptoms.table(found))


def of_requests(requests: Rows, shown: Shown, items: int) -> Iterator[dict[str, Any]]:
    """Rows of the measures of requests; ``items``: how many the catalogue has."""
    for kind, segment_kind, cells in _cells(requests):
        number, visits = cells.count(), cells.distinct(requests.visit)
        clicks = ratios(
            requests.visitor, cells.codes, requests.values["clicks"],
            np.ones(len(requests.visit)), cells.number,
        )  # fmt: skip
        low, high = clicks.interval()
        covered = shown.distinct(cells.codes, cells.number) / max(items, 1)
        latency = _latency(cells, requests.values["latency_ms"])
        for cell in np.flatnonzero(number).tolist():
            of = {"group_kind": kind, "segment_kind": segment_kind, **cells.named(cell)}
            of["visits"] = visits[cell]
            yield of | _value("requests", number[cell])
            yield of | _value("ctr", clicks.value[cell], max(low[cell], 0.0), high[cell])
            yield of | _value("coverage", covered[cell])
            if cell in latency:
                yield of | _value("latency_p95", *latency[cell])


def of_visits(visits: Rows) -> Iterator[dict[str, Any]]:
    """Rows of the measures of visits."""
    measures = _measures(visits)
    for kind, segment_kind, cells in _cells(visits):
        number, visitors = cells.count(), cells.distinct(visits.visitor)
        found = {}
        for name, (total, count) in measures.items():
            estimate = ratios(visits.visitor, cells.codes, total, count, cells.number)
            inside = cells.codes >= 0
            trials = np.bincount(cells.codes[inside], count[inside], cells.number)
            bounds = share_interval(estimate, trials) if name in SHARES else estimate.interval()
            found[name] = (estimate.value, *bounds)
        for cell in np.flatnonzero(number).tolist():
            of = {"group_kind": kind, "segment_kind": segment_kind, **cells.named(cell)}
            of["visits"] = number[cell]
            yield of | _value("visits", number[cell])
            yield of | _value("visitors", visitors[cell])
            for name, parts in found.items():
                if np.isfinite(parts[0][cell]):
                    yield of | _value(name, *(part[cell] for part in parts))


def _measures(visits: Rows) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By name, what a visit adds above and below the line of a measure that is a ratio."""
    orders, revenue = visits.values["orders"], visits.values["revenue"]
    bought = (orders > 0).astype(float)
    return {
        "conversion": (bought, np.ones(len(bought))),
        "revenue_per_session": (revenue, np.ones(len(bought))),
        "average_order_value": (revenue * bought, orders),
        "returning_customers": (bought * visits.values["returning"], bought),
    }


def unmeasured(visits: Rows, kpi: str) -> Iterator[Symptom]:
    """Where the agreed KPI is of money and no order says any; a warning where few or none order."""
    now = (visits.groups[ALL].codes == 0) & (visits.period == 0)
    orders, revenue = (float(visits.values[name][now].sum()) for name in ("orders", "revenue"))
    number, said = int(now.sum()), kpi.replace("_", " ")
    if kpi in OF_MONEY and orders >= FEW_ORDERS and not revenue:
        yield Symptom(
            "kpi_unmeasured", kpi, 1.0, 1.0, 1.0, number,
            f"None of {orders:,.0f} orders of {number:,} visits says what it cost, so that nobody "
            f"knows the {said} that was agreed on.",
        )  # fmt: skip
    elif number >= FEW_VISITS and not (revenue if kpi in OF_MONEY else orders):
        came = f"none of the {orders:,.0f} orders says what it cost" if orders else "no order came"
        yield symptoms.unjudged(
            "kpis_unjudged", kpi, int(orders), FEW_ORDERS,
            f"Of {number:,} visits {came}: nothing says what becomes of the {said}.",
        )  # fmt: skip


# --- the baseline ----------------------------------------------------------------------------
def against_baseline(visits: Rows, kpi: str, kind: str) -> Iterator[dict[str, Any]]:
    """Rows of ``baseline_verdicts``: the whole, and each segment that has visits of both sides.

    ``kind``: the groups that are the model's and the baseline's, in that order.
    """
    group, (total, count) = visits.groups[kind], _measures(visits)[kpi]
    for name, segment in {ALL: Coded.whole(len(visits.visit)), **visits.segments}.items():
        inside = (group.codes >= 0) & (segment.codes >= 0) & (visits.period == 0)
        side = np.where(inside, segment.codes * 2 + group.codes, -1)
        sides = 2 * len(segment.names)
        number = np.bincount(side[inside], minlength=sides)
        found = ratios(visits.visitor, side, total, count, sides)
        for code, value in enumerate(segment.names):
            both = (2 * code, 2 * code + 1)
            if name == ALL or min(number[place] for place in both) > 0:
                yield {"segment_kind": name, "segment": value, "measure": kpi} | _against(
                    kpi, group.names, [found.at(place) for place in both],
                    [int(number[place]) for place in both],
                )  # fmt: skip


def _against(
    kpi: str, names: list[str], sides: list[Estimate], visits: list[int]
) -> dict[str, Any]:
    model, base = sides
    gain = model.less(base)
    low, high = (float(end[0]) for end in gain.interval())
    known = min(visits) >= FEW_VISITS and np.isfinite(low + high)
    verdict = baseline.verdict_of(low, high) if known else baseline.INSUFFICIENT
    (of, against), what = names, kpi.replace("_", " ")
    if known:
        said = (
            f"{what} of visits with {of} answers is {model.value[0]:.4g}, and of those with "
            f"{against} ones {base.value[0]:.4g}: {gain.value[0]:+.3g} ({low:+.3g} to "
            f"{high:+.3g}), {verdict}; who gets which is not drawn by lot."
        )
    else:
        said = (
            f"{visits[0]:,} visits with {of} answers and {visits[1]:,} with {against} ones, where "
            f"{FEW_VISITS} of each are needed: nothing says which brings more {what}."
        )
    return {
        "model": _finite(model.value[0]), "baseline": _finite(base.value[0]),
        "gain": _finite(gain.value[0]), "low": _finite(low), "high": _finite(high),
        "visits_model": visits[0], "visits_baseline": visits[1], "verdict": verdict,
        "sentence": said[0].upper() + said[1:],
    }  # fmt: skip


def below_baseline(verdicts: list[dict[str, Any]]) -> Iterator[Symptom]:
    """A warning where the baseline's visits bring more than the model's."""
    for row in verdicts:
        if row["segment_kind"] == ALL and row["verdict"] == baseline.WORSE:
            effect, limit = -row["gain"], row["high"] - row["gain"]
            yield Symptom(
                "below_baseline", row["measure"], effect, limit, effect / max(limit, 1e-12),
                row["visits_model"] + row["visits_baseline"], row["sentence"], warning=True,
            )  # fmt: skip


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _hours_to_arrive(night: Night, requests: Rows) -> np.ndarray:
    """(n,) hours from each purchase of the reference's days until it was first received."""
    days = requests.day[requests.period == 1]
    if not len(days):
        return np.zeros(0)
    ends = (int(days.min()), int(days.max()) + 1)
    moments = [datetime.combine(_date(day), time(), UTC) for day in ends]
    first, end = (pa.scalar(moment, pa.timestamp("us", tz="UTC")) for moment in moments)
    when = ds.field("event_time")
    of_reference = (ds.field("event_type") == "purchase") & (when >= first) & (when < end)
    rows = night.arrow("events", ["event_time", "first_received"], of_reference)
    done, received = (rows[name].cast(pa.int64()).to_numpy() for name in rows.column_names)
    return (received - done) / 3.6e9


def drops(
    requests: Rows, shown: Shown, visits: Rows, last: int, judged: int, late: int
) -> list[Symptom]:
    """The sudden drops of the days to ``last`` (in days since 1970), a warning where there is not
    enough before; ``late``: days that purchases take to be told, by which what is bought is judged
    earlier."""
    reference = requests.day[requests.period == 1]
    if not len(reference) or last - judged < reference.max():
        return [_too_few(0)]
    first, weeks = int(reference.min()), int(reference.max() - reference.min() + 1) // 7
    days = Days(_date(first), _date(last), weeks * 7, judged)
    inside = (requests.day >= first) & (requests.day <= last)
    volume = np.bincount(requests.day[inside] - first, minlength=days.number).astype(float)
    ago = requests.day + 364 - first
    ago = np.bincount(ago[(requests.period == 2) & (ago < days.number)], minlength=days.number)
    daily = float(volume[: days.reference].mean()) if weeks else 0.0
    if daily < kpi_drops.FEWEST:
        return [_too_few(int(daily))]
    kept = kpi_drops.kept_a_year_ago(volume, ago, days)
    found = [kpi_drops.of_series("volume", "Requests", volume, days, kept)]
    if found == [None]:  # fewer answers show fewer items
        by_day = np.where(inside, requests.day - first, -1)
        items = shown.distinct(by_day, days.number).astype(float)
        found.append(kpi_drops.of_series(
            "coverage", "The items that were shown", items, days, warning=True
        ))  # fmt: skip
    found += _bought(visits, replace(days, last=_date(last - late)))
    return [one for one in found if one is not None]


def _too_few(daily: int) -> Symptom:
    return symptoms.unjudged(
        "kpis_unjudged", "sudden drops", daily, kpi_drops.FEWEST,
        f"Nothing says whether requests, or what is bought, fell suddenly: whole weeks of the "
        f"reference have {daily:,} requests a day, and {kpi_drops.FEWEST} are needed.",
    )  # fmt: skip


def _bought(visits: Rows, days: Days) -> Iterator[Symptom | None]:
    """The drops of what is bought; a warning where purchases come so late that no day is left."""
    if days.number - days.judged < days.reference:
        left = max(days.number - days.reference, 0)
        yield symptoms.unjudged(
            "kpis_unjudged", "drops of what is bought", left, days.judged,
            "Nothing says whether purchases fell suddenly: they take so long to arrive that of the "
            f"current period {left} days are left to judge, and {days.judged} are needed.",
        )  # fmt: skip
        return
    first = ordinal(days.first)
    once = visits.groups[ALL].codes == 0
    visitor, day = visits.visitor[once], visits.day[once] - first
    for name, what, form, total in (
        ("conversion", "The share of visits with an order", ".2%", visits.values["orders"] > 0),
        ("revenue_per_session", "Revenue a visit", ",.2f", visits.values["revenue"]),
    ):
        yield kpi_drops.of_ratio(
            name, what, form, visitor, day, total[once].astype(float), np.ones(len(day)), days
        )


def _cells(rows: Rows) -> Iterator[tuple[str, str, Cells]]:
    """Every kind of group by every kind of segment."""
    whole = Coded.whole(len(rows.visit))
    for kind, group in rows.groups.items():
        for name, segment in {ALL: whole, **rows.segments}.items():
            yield kind, name, Cells.of(group, segment, rows.period)


def _latency(cells: Cells, latency: np.ndarray) -> dict[int, tuple[float, float, float]]:
    """The 95th percentile of each cell and its interval; none where none was logged."""
    kept = (cells.codes >= 0) & np.isfinite(latency)
    order = np.argsort(cells.codes[kept], kind="stable")
    values = latency[kept][order]
    here, starts = np.unique(cells.codes[kept][order], return_index=True)
    ends = [*starts[1:], len(values)]
    return {
        int(cell): quantile(values[start:end], 0.95)
        for cell, start, end in zip(here, starts, ends[: len(here)], strict=True)
    }


def _value(
    measure: str, value: float, low: float | None = None, high: float | None = None
) -> dict[str, Any]:
    ends = {
        end: float(bound) if bound is not None and np.isfinite(bound) else None
        for end, bound in (("low", low), ("high", high))
    }
    return {"measure": measure, "value": float(value), **ends}


def _date(day: int) -> Any:
    return np.datetime64(day, "D").item()
