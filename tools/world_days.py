"""A day on which a release of ours is served: who asks, what they get, how they answer.

All pure, but for reading a release. What is drawn for a place (``LUCK``) stays with it, so that
another list, or a planted fault, changes the answers only where it changes the chances.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.release.reader import Answer, Reader
from jobs.release.recorder import Request
from jobs.sources import contract
from jobs.sources.simulated import serving
from jobs.sources.simulated.crowd import CHANNELS, STORE
from jobs.sources.simulated.settings import Shop

SURFACE = "homepage"
TIME = pa.timestamp("us", tz="UTC")
SECOND = 1_000_000  # in microseconds
HOUR, DAY = 3600 * SECOND, 86_400 * SECOND
LATE_HOURS = (1, 72)  # how much later a late event is received, as in the shop's own days
RETURN_DAYS = (3, 21)  # as the shop's own: from, and before
FIRST = 10_000  # the number of the first account
LATENCY = (3.0, 0.5)  # of the logarithm of milliseconds: a median of 20
# Drawn once for each place of each answer, whatever becomes of it.
LUCK = ("click_luck", "purchase_luck", "return_luck", "late_luck")
LATER = ("later_hours", "purchase_later_hours")
ASKER = (
    "request_id", "request_time", "key_type", "key", "session_id", "person", "channel", "region",
)  # fmt: skip


def askers(events: pa.Table, sessions: pa.Table) -> pa.Table:
    """The columns ``ASKER`` of all online sessions, which ask once, just before their first event.

    ``events``: those of the shop itself; ``sessions``: session_id and person, the truth.
    """
    own = pc.and_(
        pc.not_equal(events["channel"], CHANNELS[STORE]),
        pc.and_(pc.not_equal(events["event_type"], "return"), pc.equal(events["revision"], 0)),
    )
    rows = events.filter(own).sort_by([("event_time", "ascending"), ("event_id", "ascending")])
    whole = rows.group_by("session_id", use_threads=False).aggregate([
        (name, "first") for name in ("event_time", "key_type", "key", "channel", "region")
    ])  # fmt: skip
    whole = whole.join(sessions, "session_id").sort_by("session_id")
    number = pc.utf8_slice_codeunits(whole["session_id"], 1)
    before = pa.scalar(timedelta(seconds=10), pa.duration("us"))
    return pa.table({
        "request_id": pc.binary_join_element_wise("r", number, ""),
        "request_time": pc.subtract(whole["event_time_first"], before).cast(TIME),
        "key_type": whole["key_type_first"], "key": whole["key_first"],
        "session_id": whole["session_id"], "person": whole["person"],
        "channel": whole["channel_first"], "region": whole["region_first"],
    })  # fmt: skip


def of_day(asked: pa.Table, day: date) -> pa.Table:
    """Who asks on a day, in the order of their requests."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    when = asked["request_time"]
    first, end = (pa.scalar(moment, TIME) for moment in (start, start + timedelta(days=1)))
    rows = asked.filter(pc.and_(pc.greater_equal(when, first), pc.less(when, end)))
    return rows.sort_by([("request_time", "ascending"), ("request_id", "ascending")])


def answered(
    reader: Reader, asked: pa.Table, length: int, page: int, rng: np.random.Generator,
    experiment: str | None, arm_of: Callable[[int], str],
) -> list[tuple[Answer, Request]]:  # fmt: skip
    """What the release gives each asker, and what the log is to say of the request.

    The page shows the first ``page`` places of ``length``. ``arm_of``: the arm of a person.
    """
    latency = np.round(rng.lognormal(*LATENCY, asked.num_rows), 1)
    shown = [*range(1, page + 1)]
    found = []
    for row, milliseconds in zip(asked.to_pylist(), latency.tolist(), strict=True):
        person = reader.person(row["key_type"], row["key"])
        answer = reader.recommendations(person, SURFACE, length)
        arm = arm_of(row["person"]) if experiment else None
        request = Request(
            row["request_id"], row["request_time"], row["key_type"], row["key"], milliseconds,
            shown, experiment, arm,
        )  # fmt: skip
        found.append((answer, request))
    return found


# --- the truth of a day ----------------------------------------------------------------------
def truth_of(
    log: pa.Table, asked: pa.Table, people: serving.Answers, day: int, rng: np.random.Generator
) -> pa.Table:
    """A row per place of the log that the page showed, in its order: the asker's columns, position,
    shown_position, item_id, score, price, the chances ``look``, ``attraction``, ``conversion`` and
    ``returned`` (of a purchase), how many hours ``LATER`` than usual events are received, and what
    was drawn: ``LUCK``, quantity, the ``seconds`` to an answer, its ``lag`` in seconds, by how many
    ``late_hours`` it comes if it is late, and the ``return_days``.

    ``log``: rows of ``recommendation_log``; ``day``: its number in the shop.
    """
    seen = log.filter(pc.is_valid(log["shown_position"]))
    at = pc.index_in(seen["request_id"], asked["request_id"].combine_chunks())
    item = np.char.lstrip(seen["item_id"].to_numpy().astype(str), "i").astype(np.int64)
    chances = people.chances(
        day, asked["person"].to_numpy()[at.to_numpy()], item[:, None], people.goods.in_stock(day)
    )
    place = seen["shown_position"].to_numpy()
    look = serving.looks(max(place, default=1), people.goods.shop.position_bias)[place - 1]
    rows = asked.take(at)
    columns = {name: rows[name] for name in ASKER} | {
        name: seen[name] for name in ("position", "shown_position", "item_id", "score")
    }  # fmt: skip
    return pa.table({
        **columns, "price": people.goods.prices(day)[item], "look": look,
        "attraction": chances.attraction[:, 0], "conversion": chances.conversion[:, 0],
        "returned": np.full(len(item), people.goods.shop.returns),
        **{name: np.zeros(len(item)) for name in LATER}, **drawn(rng, len(item)),
    })  # fmt: skip


def drawn(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """What chance decides of ``count`` places, whether or not it comes to it."""
    return {
        **{name: rng.random(count) for name in LUCK},
        "quantity": np.minimum(rng.geometric(0.75, count), 9).astype(np.float64),
        # Most buy within minutes, some come back for it in hours.
        "seconds": np.clip(rng.lognormal(6.0, 1.3, count), 30, 40 * 3600).astype(np.int64),
        "lag": rng.exponential(60.0, count),
        "late_hours": rng.uniform(*LATE_HOURS, count),
        "return_days": rng.integers(*RETURN_DAYS, count),
    }


# --- the answers as events -------------------------------------------------------------------
def outcomes(truth: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """(clicked, bought) of each row."""
    value = {name: truth[name].to_numpy() for name in ("look", "attraction", "conversion")}
    luck = truth["click_luck"].to_numpy(), truth["purchase_luck"].to_numpy()
    return serving.answer(luck, **value)


def events_of(truth: pa.Table, shop: Shop) -> pa.Table:
    """The answers as rows of the contract's ``events``: a click, and of a purchase the click, the
    cart, the purchase and perhaps its return by the account, which names no request."""
    clicked, bought = outcomes(truth)
    back = bought & (truth["return_luck"].to_numpy() < truth["returned"].to_numpy())
    days = truth["return_days"].to_numpy()
    seconds = truth["seconds"].to_numpy()
    parts = [
        _rows(truth, "click", clicked, np.minimum(10 + seconds // 10, 600), shop),
        _rows(truth, "add_to_cart", bought, np.minimum(20 + seconds // 2, seconds - 1), shop),
        _rows(truth, "purchase", bought, seconds, shop),
        _rows(truth, "return", back, seconds + days * 86_400, shop),
    ]
    rows = pa.concat_tables(parts)
    end = pa.scalar(shop.start + timedelta(days=shop.days), TIME)
    rows = rows.filter(pc.less(rows["event_time"], end))
    return rows.sort_by([("received_time", "ascending"), ("event_id", "ascending")])


def _rows(
    truth: pa.Table, kind: str, chosen: np.ndarray, seconds: np.ndarray, shop: Shop
) -> pa.Table:
    """Events of one kind for the chosen rows, so many seconds after their requests."""
    rows = truth.filter(pa.array(chosen))
    asked = rows["request_time"].cast(pa.int64()).to_numpy()
    time = asked + seconds[chosen] * SECOND
    # One event in many is late; which kind of it, by a turn of the same draw.
    late = (rows["late_luck"].to_numpy() + KINDS.index(kind) / len(KINDS)) % 1 < shop.late
    lag = np.where(late, rows["late_hours"].to_numpy() * 3600, rows["lag"].to_numpy())
    lag = lag + rows["later_hours"].to_numpy() * 3600
    if kind == "purchase":
        lag = lag + rows["purchase_later_hours"].to_numpy() * 3600
    paid = kind in ("purchase", "return")
    quantity = rows["quantity"].to_numpy() if paid else np.ones(len(time))
    value = np.round(quantity * rows["price"].to_numpy(), 2)
    place = rows["position"].cast(pa.string())
    account = pc.binary_join_element_wise("a", pc.add(rows["person"], FIRST).cast(pa.string()), "")
    columns: Mapping[str, Any] = {
        "event_id": pc.binary_join_element_wise(kind[0], rows["request_id"], place, "-"),
        "revision": pa.array(np.zeros(len(time), np.int32)),
        "event_time": _utc(time), "received_time": _utc(time + (lag * SECOND).astype(np.int64)),
        "key_type": _constant("account", len(time)) if kind == "return" else rows["key_type"],
        "key": account if kind == "return" else rows["key"],
        "session_id": rows["session_id"], "event_type": _constant(kind, len(time)),
        "item_id": rows["item_id"], "quantity": quantity,
        "value": pa.array(value, mask=np.full(len(time), not paid)),
        "channel": rows["channel"], "region": rows["region"],
        "campaign": pa.nulls(len(time), pa.string()),
        "request_id": pa.nulls(len(time), pa.string()) if kind == "return" else rows["request_id"],
    }  # fmt: skip
    schema = contract.schema("events")
    return pa.table({name: columns[name] for name in schema.names}).cast(schema)


def account_of(person: int) -> str:
    """The key type and key of a person's account."""
    return f"account:a{FIRST + person}"


KINDS = ("click", "add_to_cart", "purchase", "return")


def _constant(text: str, count: int) -> pa.Array:
    return pa.array([text], pa.string()).take(pa.array(np.zeros(count, np.int64)))


def _utc(microseconds: np.ndarray) -> pa.Array:
    return pa.array(microseconds).cast(TIME)


def people_in(served: Collection[tuple[Answer, Request]]) -> set[str]:
    """The persons whom a release's own lists were given to."""
    return {answer.person_id for answer, _ in served if answer.person_id is not None}
