"""Faults that make the numbers themselves wrong: late, split, returned, assigned amiss."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tools import world_days
from tools.planting.tables import (
    TIME,
    Planted,
    Tables,
    answered_anew,
    keys_of,
    luck,
    own_events,
    texts,
)

STRANGER = "nobody is known by this id"  # why the reader gives pools
# What an answer decides of a row of the log.
GIVEN = (
    "item_id", "propensity", "release_id", "score", "features", "feature_version", "feature_hash",
    "override_reason", "fallback", "shown_position",
)  # fmt: skip


def late_feed(tables: Tables, fault: Planted) -> Tables:
    """All events of a channel (``web``) are received 48 hours x severity later."""
    channel, hours = fault.option("channel", "web"), 48.0 * fault.severity
    asked = tables.requests
    hit = (asked.since(fault) & (asked.facts["channel"] == channel))[asked.of(tables.truth)]
    later = tables.truth["later_hours"].to_numpy() + np.where(hit, hours, 0.0)
    own = pc.and_(
        pc.equal(tables.shop["channel"], channel),
        pc.greater_equal(tables.shop["event_time"], pa.scalar(fault.begins, TIME)),
    )
    lag = pa.scalar(timedelta(hours=hours), pa.duration("us"))
    received = tables.shop["received_time"]
    return tables.with_columns("truth", later_hours=later).with_columns(
        "shop", received_time=pc.if_else(own, pc.add(received, lag), received)
    )


def split_persons(tables: Tables, fault: Planted) -> Tables:
    """A share of the keys, the severity, comes under new keys that nothing links to the old ones,
    in requests and events alike; they are served what strangers are."""
    asked = tables.requests
    inside = asked.since(fault)
    chosen = inside & (luck(asked.key, tables.seed, fault) < fault.severity)
    keys = np.unique(asked.key[chosen])
    tables = _served_as_strangers(tables, chosen)
    for name, time in (("log", "request_time"), ("truth", "request_time"), ("shop", "event_time")):
        rows = getattr(tables, name)
        key, both = texts(rows["key"]), keys_of(rows)
        late = pc.greater_equal(rows[time], pa.scalar(fault.begins, TIME))
        hit = np.isin(both, keys) & late.to_numpy()
        key = np.where(hit, np.char.add("x", key), key)
        tables = tables.with_columns(name, key=key.tolist())
    return tables


def _served_as_strangers(tables: Tables, chosen: np.ndarray) -> Tables:
    """The log and the truth with the lists of these requests replaced by those that strangers got
    from the same release, where any asked it."""
    asked, log = tables.requests, tables.log
    request = asked.of(log)
    stranger = pc.equal(log["fallback"], STRANGER).fill_null(False).to_numpy()
    release = texts(log["release_id"])
    source = np.arange(log.num_rows)
    for one in np.unique(release):
        of_release = release == one
        first = np.flatnonzero(of_release & stranger)
        if not len(first):
            continue
        model = np.flatnonzero(of_release & (request == request[first[0]]))
        place = {int(log["position"][int(row)].as_py()): int(row) for row in model}
        hit = np.flatnonzero(of_release & chosen[request])
        position = log["position"].to_numpy()[hit]
        source[hit] = [place.get(int(at), -1) for at in position]
    kept = source >= 0
    rows, given = log.filter(pa.array(kept)), log.take(pa.array(source[kept]))
    changed = source[kept] != np.arange(log.num_rows)[kept]
    for name in GIVEN:
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, rows.schema.field(at), given[name])
    moved = replace(tables, log=rows)
    return answered_anew(moved, pa.array(rows["request_id"]).filter(pa.array(changed)))


def label_delay(tables: Tables, fault: Planted) -> Tables:
    """Purchases that answer requests are received 6 days x severity later."""
    asked = tables.requests
    hit = asked.since(fault)[asked.of(tables.truth)]
    later = tables.truth["purchase_later_hours"].to_numpy()
    return tables.with_columns(
        "truth", purchase_later_hours=later + np.where(hit, 144.0 * fault.severity, 0.0)
    )


def return_policy(tables: Tables, fault: Planted) -> Tables:
    """Of purchases 40 % x severity more come back, the usual delay shortened by half x severity;
    of what was bought without a list too."""
    asked = tables.requests
    hit = asked.since(fault)[asked.of(tables.truth)]
    share, quicker = 0.4 * fault.severity, 1.0 - 0.5 * fault.severity
    days = tables.truth["return_days"].to_numpy()
    made = tables.with_columns(
        "truth",
        returned=tables.truth["returned"].to_numpy() + np.where(hit, share, 0.0),
        return_days=np.where(hit, np.maximum(1, np.round(days * quicker)), days).astype(np.int64),
    )
    own = own_events(tables, fault, "purchase")
    rng = np.random.default_rng([tables.seed, 1])
    back = np.flatnonzero(own & (rng.random(len(own)) < share))
    after = np.maximum(1, np.round(rng.integers(*world_days.RETURN_DAYS, len(back)) * quicker))
    rows = tables.shop.take(pa.array(back))
    lag = pa.array((after * world_days.DAY).astype(np.int64)).cast(pa.duration("us"))
    rows = (
        replace(tables, shop=rows)
        .with_columns(
            "shop",
            event_id=np.char.add("b", texts(rows["event_id"])).tolist(),
            event_type=np.full(len(back), "return").tolist(),
            event_time=pc.add(rows["event_time"], lag),
            received_time=pc.add(rows["received_time"], lag),
        )
        .shop
    )
    end = tables.people.goods.shop.start + timedelta(days=tables.people.goods.shop.days)
    rows = rows.filter(pc.less(rows["event_time"], pa.scalar(end, TIME)))
    return replace(made, shop=pa.concat_tables([tables.shop, rows]))


def broken_assignment(tables: Tables, fault: Planted) -> Tables:
    """``how: ratio`` (the default) moves visitors of the last arm to the first, half of them x
    severity; ``both`` gives a share of visitors, the severity, an arm by request; ``heavy`` moves
    the most active fifth x severity of the people into the last arm, and as many others from there
    into the first."""
    asked, log = tables.requests, tables.log
    how = fault.option("how", "ratio")
    arms = sorted(name for name in pc.unique(log["arm"]).to_pylist() if name)
    was = log["arm"].to_numpy(zero_copy_only=False)
    arm = was.astype(object)
    request = asked.of(log)
    inside = asked.since(fault)[request] & (arm != None)  # noqa: E711 (by element)
    by_person = luck(asked.person.astype(str), tables.seed, fault)[request]
    if how == "ratio":
        arm[inside & (arm == arms[-1]) & (by_person < 0.5 * fault.severity)] = arms[0]
    elif how == "both":
        by_request = luck(asked.ids, tables.seed, fault)[request]
        hit = inside & (by_person < fault.severity)
        arm[hit] = np.array(arms, object)[(by_request[hit] * len(arms)).astype(int)]
    else:
        weight = tables.people.crowd.weight
        heavy = (weight > np.quantile(weight, 0.8))[asked.person][request]
        arm[inside & heavy & (by_person < fault.severity)] = arms[-1]
        # A tenth of the people came from the other arm; of the rest, four tenths are in this one.
        light = inside & ~heavy & (was == arms[-1])
        arm[light & (by_person < fault.severity / 4)] = arms[0]
    return tables.with_columns("log", arm=arm.tolist())
