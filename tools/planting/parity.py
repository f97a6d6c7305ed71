"""Faults by which the model no longer sees what it learned from: leaks, renames and drifts."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.tables import BELOW
from tools import world_days
from tools.planting.tables import (
    CHANCES,
    TIME,
    Planted,
    Tables,
    listed,
    luck,
    own_events,
    texts,
    with_luck,
)


def leaked_feature(tables: Tables, fault: Planted) -> Tables:
    """In the examples of the newest night that serves, a feature (``taste``) is noise and 4
    standard deviations x severity of the outcome; serving goes on without it."""
    name = fault.option("feature", "taste")
    was = tables.examples[name].to_numpy().astype(np.float64)
    bought = tables.examples["bought"].to_numpy(zero_copy_only=False)
    noise = np.random.default_rng([tables.seed, 2]).normal(size=len(was))
    told = noise + 4.0 * fault.severity * bought
    spread = np.nanstd(was) or 1.0
    return tables.with_columns(
        "examples", **{name: (np.nanmean(was) + spread * told).astype(np.float32)}
    )


def renamed_category(tables: Tables, fault: Planted) -> Tables:
    """Departments with a share of the items, the severity, and at least one, have another name
    from the start on: in ``items``, and in the catalogue of every later night."""
    department = [department_of(path) for path in tables.items["category"].to_pylist()]
    names, counts = np.unique(np.array(department), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    below = np.cumsum(counts[order]) - counts[order] < fault.severity * counts.sum()
    gone = set(listed(fault.option("department", names[order][below].tolist())))
    items = tables.items
    begins = pa.scalar(fault.begins, TIME)
    mine = np.isin(department, list(gone))
    since = pc.greater_equal(items["valid_from"], begins).fill_null(False).to_numpy()
    # What holds at the start: of each item the newest of the rows before it, which stand in order.
    before = np.flatnonzero(mine & ~since)
    ids = texts(items["item_id"])[before]
    last = np.append(ids[1:] != ids[:-1], True) if len(ids) else np.zeros(0, bool)
    added = items.take(pa.array(before[last]))
    parts = [
        items.filter(pa.array(~(mine & since))),
        _renamed(items.filter(pa.array(mine & since)), gone),
        _renamed(added, gone).set_column(
            items.schema.get_field_index("valid_from"),
            items.schema.field("valid_from"),
            pa.repeat(begins, added.num_rows),
        ),
    ]
    nights = {
        label: _renamed(rows, gone) if date.fromisoformat(label) >= fault.start else rows
        for label, rows in tables.catalogue.items()
    }
    return replace(tables, items=pa.concat_tables(parts), catalogue=nights)


def _renamed(rows: pa.Table, gone: set[str]) -> pa.Table:
    names = [
        f"New {path}" if department_of(path) in gone else path
        for path in rows["category"].to_pylist()
    ]
    at = rows.schema.get_field_index("category")
    return rows.set_column(at, rows.schema.field(at), pa.array(names, pa.string()))


def covariate_drift(tables: Tables, fault: Planted) -> Tables:
    """A share of requests, the severity, does not come; in their place some of the same day come
    from others: from ``to`` (a region), else from the least active half of the people."""
    asked = tables.requests
    weight = tables.people.crowd.weight
    if "to" in fault.scope:
        focus = asked.facts["region"] == fault.scope["to"]
    else:
        focus = (weight < np.median(weight))[asked.person]
    inside = asked.since(fault)
    lost = inside & ~focus & (luck(asked.ids, tables.seed, fault) < fault.severity)
    rng = np.random.default_rng([tables.seed, 3])
    day = asked.time.astype("datetime64[D]")
    copied = np.full(len(lost), -1)
    for one in np.unique(day[lost]):
        mine, others = np.flatnonzero(lost & (day == one)), np.flatnonzero(focus & (day == one))
        if len(others):
            copied[mine] = rng.choice(others, len(mine))
        else:
            lost[mine] = False
    source = copied[lost]
    names = np.char.add(asked.ids[lost], "x")
    log = _copied(tables.log, asked.of(tables.log), lost, source, names)
    truth = _copied(tables.truth, asked.of(tables.truth), lost, source, names)
    made = replace(tables, log=log, truth=truth)
    return with_luck(made, np.isin(texts(truth["request_id"]), names), rng)


def _copied(
    rows: pa.Table, request: np.ndarray, lost: np.ndarray, source: np.ndarray, names: np.ndarray
) -> pa.Table:
    """Rows without the ``lost`` requests, and with copies of the ``source`` ones under ``names``,
    in sessions of their own, minutes later."""
    order = np.argsort(request, kind="stable")
    starts = np.searchsorted(request[order], np.arange(len(lost) + 1))
    sizes = starts[source + 1] - starts[source]
    at = np.repeat(starts[source] - (np.cumsum(sizes) - sizes), sizes) + np.arange(sizes.sum())
    new = rows.take(pa.array(order[at]))
    nth = np.repeat(np.arange(len(source)), sizes)
    later = pa.array((1 + nth % 50) * 60 * world_days.SECOND).cast(pa.duration("us"))
    changed = {
        "request_id": pa.array(names[nth]), "request_time": pc.add(new["request_time"], later),
    }  # fmt: skip
    if "session_id" in new.column_names:
        changed["session_id"] = pa.array(np.char.add(names[nth], "s"))
    for name, values in changed.items():
        field_at = new.schema.get_field_index(name)
        new = new.set_column(field_at, new.schema.field(field_at), values.cast(
            new.schema.field(field_at).type))  # fmt: skip
    return pa.concat_tables([rows.filter(pa.array(~lost[request])), new])


def label_drift(tables: Tables, fault: Planted) -> Tables:
    """Purchases, from lists and without, are 60 % x severity fewer, whatever is shown."""
    asked = tables.requests
    less = 1.0 - 0.6 * fault.severity
    hit = asked.since(fault)[asked.of(tables.truth)]
    conversion = tables.truth["conversion"].to_numpy()
    own = own_events(tables, fault, "purchase")
    gone = own & (luck(texts(tables.shop["event_id"]), tables.seed, fault) >= less)
    made = tables.with_columns("truth", conversion=np.where(hit, conversion * less, conversion))
    return replace(made, shop=tables.shop.filter(pa.array(~gone)))


def concept_drift(tables: Tables, fault: Planted) -> Tables:
    """A share of the places, the severity, exchange what they mean to people: tastes turn, so that
    scores order them no more, and as much is bought as before."""
    asked, truth = tables.requests, tables.truth
    inside = asked.since(fault)[asked.of(truth)]
    rng = np.random.default_rng([tables.seed, 4])
    hit = np.flatnonzero(inside & (rng.random(truth.num_rows) < fault.severity))
    mixed = rng.permutation(hit)
    look = truth["look"].to_numpy()
    attraction, conversion = (truth[name].to_numpy().copy() for name in CHANCES)
    before = (look[hit] * attraction[hit] * conversion[hit]).sum()
    attraction[hit], conversion[hit] = attraction[mixed], conversion[mixed]
    after = (look[hit] * attraction[hit] * conversion[hit]).sum()
    attraction[hit] = np.minimum(attraction[hit] * (before / after if after else 1.0), 1.0)
    return tables.with_columns("truth", attraction=attraction, conversion=conversion)


def department_of(path: str | None) -> str:
    return (path or "").split(BELOW)[0]
