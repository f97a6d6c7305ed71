"""The days of a shop, one after the other: what is delivered, late, doubled and corrected.

Each day has its own generator, seeded by (seed, day), and is written as it is made, so memory does
not grow with the events. What comes back on a later day waits until then.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.sources import writing
from jobs.sources.simulated import links, truth
from jobs.sources.simulated.campaigns import NONE, Campaigns
from jobs.sources.simulated.crowd import CHANNELS, Crowd
from jobs.sources.simulated.goods import REGIONS, Goods
from jobs.sources.simulated.keys import ACCOUNT
from jobs.sources.simulated.requests import CANDIDATES, PLACES, WEEK, given_above
from jobs.sources.simulated.visits import (
    DAY_SECONDS,
    PURCHASE,
    RETURN,
    SECOND,
    TYPES,
    Asked,
    Day,
    Rows,
    Visits,
)

ROWS_PER_FILE = 500_000
WEEKDAY_WEIGHTS = (0.9, 0.9, 0.95, 1.0, 1.15, 1.3, 0.8)
SURFACE = "homepage"


class Parts:
    """A table that grows by the day and is written in files of at least ``ROWS_PER_FILE`` rows."""

    def __init__(self, write: Callable[[pa.Table, int], int]):
        self._write, self._waiting, self._part, self.rows = write, list[pa.Table](), 0, 0

    def add(self, rows: pa.Table) -> None:
        self._waiting.append(rows)
        if sum(each.num_rows for each in self._waiting) >= ROWS_PER_FILE:
            self.close()

    def close(self) -> None:
        """Write what waits."""
        if self._waiting:
            self.rows += self._write(pa.concat_tables(self._waiting), self._part)
            self._part, self._waiting = self._part + 1, []


def write(folder: Path, goods: Goods, crowd: Crowd) -> dict[str, int]:
    """Write ``events``, ``recommendation_log``, ``identity_links`` and their truths."""
    shop, keyring = goods.shop, crowd.keyring

    def contract(name: str) -> Parts:
        return Parts(lambda rows, part: writing.write(
            folder, name, part, **{column: rows[column] for column in rows.schema.names}
        ))  # fmt: skip

    def true(name: str) -> Parts:
        return Parts(lambda rows, part: truth.write(folder, name, rows, part))

    parts = {
        "events": contract("events"), "recommendation_log": contract("recommendation_log"),
        "requests": true("requests"), "sessions": true("sessions"),
    }  # fmt: skip
    weights = np.array([
        WEEKDAY_WEIGHTS[(shop.start + timedelta(days=day)).weekday()] for day in range(shop.days)
    ])  # fmt: skip
    bounds = np.round(np.cumsum(weights) / weights.sum() * shop.events).astype(np.int64)
    visits = Visits(goods, crowd)
    returns: dict[int, list[Rows]] = {}
    seen = [links.of_people(np.random.default_rng([shop.seed, 3]), keyring, crowd.household,
                            goods.start)]  # fmt: skip
    made = 0
    for day in range(shop.days):
        came, rows = make_day(visits, day, int(bounds[day]) - made, made, returns)
        made = int(bounds[day])
        keyring.see(rows.key)
        seen.append(came.links)
        parts["events"].add(event_columns(goods, crowd, visits.campaigns, rows))
        parts["recommendation_log"].add(log_columns(visits, came.asked, day))
        parts["requests"].add(request_columns(visits, came.asked, day))
        parts["sessions"].add(pa.table({
            "session_id": _numbered("s", came.sessions), "person": came.person,
            "first_campaign": visits.campaigns.named(came.followed.first),
            "later_campaign": visits.campaigns.named(came.followed.later),
        }))  # fmt: skip
    for each in parts.values():
        each.close()
    delivered = links.deliver(
        np.random.default_rng([shop.seed, 8]), links.Links.join(seen), shop
    )  # fmt: skip
    return {
        **{name: each.rows for name, each in parts.items()},
        "identity_links": links.write(folder, keyring, delivered),
        "campaigns": visits.campaigns.write(folder),
        "keys": truth.write_keys(folder, keyring, goods.start),
    }


def make_day(
    visits: Visits, day: int, count: int, first: int, returns: dict[int, list[Rows]]
) -> tuple[Day, Rows]:
    """A day's visits and exactly ``count`` rows as delivered, numbered from ``first``; ``returns``
    carries what comes back on later days."""
    shop = visits.shop
    rng = np.random.default_rng([shop.seed, 1, day])
    corrected = rng.binomial(count, shop.corrections)
    repeated = rng.binomial(count, shop.duplicates)
    due = returns.pop(day, [])
    room = count - corrected - repeated
    back = [part.pick(np.arange(min(len(part.time), room // 40))) for part in due]
    came = visits.of_day(rng, day, room - sum(len(part.time) for part in back))
    rows = Rows.join([came.rows, *back])
    rows.number = first + np.arange(len(rows.time))
    lag = rng.exponential(60 * SECOND, len(rows.time))
    late = rng.random(len(rows.time)) < shop.late
    lag = np.where(late, rng.uniform(1, 72, len(rows.time)) * 3600 * SECOND, lag)
    rows.received = rows.time + lag.astype(np.int64)
    _schedule_returns(rng, rows, day, shop.days, shop.returns, returns)
    again = rows.pick(rng.integers(0, len(rows.time), repeated))
    again.received = again.received + rng.integers(1, 6 * 3600 * SECOND, repeated)
    fixed = rows.pick(rng.integers(0, len(rows.time), corrected))
    fixed.revision = fixed.revision + 1
    fixed.quantity = fixed.quantity + 1
    fixed.received = fixed.received + rng.integers(1, 5 * DAY_SECONDS * SECOND, corrected)
    return came, Rows.join([rows, again, fixed])


def _schedule_returns(
    rng: np.random.Generator, rows: Rows, day: int, days: int, share: float,
    returns: dict[int, list[Rows]],
) -> None:  # fmt: skip
    """A share of the purchases comes back, three to twenty days later."""
    bought = np.flatnonzero(rows.kind == PURCHASE)
    bought = bought[rng.random(len(bought)) < share]
    delay = rng.integers(3, 21, len(bought))
    for later in np.unique(delay):
        if day + later >= days:
            continue
        back = rows.pick(bought[delay == later])
        back.time = back.time + int(later) * DAY_SECONDS * SECOND
        back.kind = np.full(len(back.kind), RETURN)
        # Handed in by the account, since a cookie may be gone by then.
        back.key = back.person * 8 + ACCOUNT
        back.request = np.full(len(back.kind), -1)
        back.campaign = np.full(len(back.kind), NONE)
        returns.setdefault(day + int(later), []).append(back)


# --- columns ---------------------------------------------------------------------------------
def event_columns(goods: Goods, crowd: Crowd, campaigns: Campaigns, rows: Rows) -> pa.Table:
    """A day's rows as columns of the contract, in the order in which they were received."""
    rows = rows.pick(np.argsort(rows.received, kind="stable"))
    paid = (rows.kind == PURCHASE) | (rows.kind == RETURN)
    value = np.round(rows.price * rows.quantity, 2)
    key_type, key = crowd.keyring.names(rows.key)
    return pa.table({
        "event_id": _numbered("e", rows.number),
        "revision": pa.array(rows.revision.astype(np.int32)),
        "event_time": truth.utc(rows.time),
        "received_time": truth.utc(rows.received),
        "key_type": key_type,
        "key": key,
        "session_id": _numbered("s", rows.session),
        "event_type": _named(TYPES, rows.kind),
        "item_id": goods.item_ids(rows.item),
        "quantity": pa.array(rows.quantity.astype(np.float64)),
        "value": pa.array(value, mask=~paid),
        "channel": _named(CHANNELS, rows.channel),
        "region": _named(REGIONS, crowd.region[rows.person]),
        "campaign": campaigns.named(rows.campaign),
        "request_id": _numbered("r", rows.request, rows.request < 0),
    })  # fmt: skip


def log_columns(visits: Visits, asked: Asked, day: int) -> pa.Table:
    """A day's ``recommendation_log``: a row per request and place."""
    found = asked.requests
    rng = np.random.default_rng([visits.shop.seed, 9, day])
    count = len(found.session)
    row = np.repeat(np.arange(count), PLACES)
    place = np.tile(np.arange(PLACES), count)
    candidate = found.shown.ravel()
    week = day // WEEK
    key_type, key = visits.crowd.keyring.names(asked.key)
    return pa.table({
        "request_id": _numbered("r", found.session[row]),
        "request_time": truth.utc(asked.time[row]),
        "surface": writing.constant(SURFACE, len(row)),
        "key_type": key_type.take(pa.array(row)),
        "key": key.take(pa.array(row)),
        "position": pa.array((place + 1).astype(np.int32)),
        "item_id": visits.goods.item_ids(found.items[row, candidate]),
        "propensity": pa.array(
            visits.logging.propensity[week, found.segment[row], place, candidate]
        ),
        "release_id": writing.constant(f"logged-week-{week}", len(row)),
        "score": pa.array(visits.logging.score[week, found.segment[row], candidate]),
        "shown_position": pa.array((place + 1).astype(np.int32)),
        "latency_ms": pa.array(np.round(rng.lognormal(3.0, 0.5, count), 1)[row]),
    })  # fmt: skip


def request_columns(visits: Visits, asked: Asked, day: int) -> pa.Table:
    """The truth of a day's requests: a row per request and candidate of the policy."""
    found, logging = asked.requests, visits.logging
    count, week = len(found.session), day // WEEK
    row = np.repeat(np.arange(count), CANDIDATES)
    candidate = np.tile(np.arange(CANDIDATES), count)
    position = np.zeros((count, CANDIDATES), np.int32)
    conditional = np.zeros((count, CANDIDATES))
    np.put_along_axis(position, found.shown, np.arange(1, PLACES + 1, dtype=np.int32), axis=1)
    given = given_above(logging.weight[week, found.segment], found.shown)
    np.put_along_axis(conditional, found.shown, given, axis=1)
    hidden = position.ravel() == 0
    by_place = logging.propensity[week].transpose(0, 2, 1)[found.segment]  # (n, candidate, place)
    looks = np.where(hidden, 0.0, logging.looks[np.maximum(position.ravel(), 1) - 1])
    click = looks * found.attraction.ravel()
    return pa.table({
        "request_id": _numbered("r", found.session[row]),
        "item_id": visits.goods.item_ids(found.items.ravel()),
        "position": pa.array(position.ravel(), mask=hidden),
        "attraction": found.attraction.ravel(),
        "conversion": found.conversion.ravel(),
        "click_probability": pa.array(click, mask=hidden),
        "purchase_probability": pa.array(click * found.conversion.ravel(), mask=hidden),
        "weight": logging.weight[week, found.segment[row], candidate],
        "conditional": pa.array(conditional.ravel(), mask=hidden),
        "propensities": pa.FixedSizeListArray.from_arrays(pa.array(by_place.ravel()), PLACES).cast(
            pa.list_(pa.float64())
        ),
    })  # fmt: skip


def _numbered(letter: str, numbers: np.ndarray, mask: np.ndarray | None = None) -> pa.Array:
    """``e12`` for 12; null where masked."""
    return pc.binary_join_element_wise(letter, pa.array(numbers, mask=mask).cast(pa.string()), "")


def _named(names: tuple[str, ...], codes: np.ndarray) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int8)), pa.array(names))
