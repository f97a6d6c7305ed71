"""A simulated shop: behaviour of any size with the truth beside it.

``simulated:events=1000000,seed=7`` (see :class:`Shop` for every setting) writes, in the source
contract's shape, ``events``, ``items``, ``people`` and ``identity_links``; and beside them, which
no job reads, ``truth/keys`` (one row per key: the person behind it) and ``truth/people`` (one row
per person and favourite: the category before and after the day on which the taste moved).

The shop: people visit with very different activity, more in the evening and at the weekend. A
visit is a session under one key (an account, a cookie, a device, a loyalty card). Most steps of it
follow the person's favourite categories, which move once each; within a category items are Zipf
popular, with a bonus while they are new; some steps are whatever everybody buys; some are the
person's staples, bought again when the item's own repurchase gap has gone by. A step is a view or
a click, then perhaps the cart, then perhaps the purchase; some purchases come back. Deliveries
are late, doubled and corrected at known rates.

The same settings give the same rows, whatever the machine: each day has its own generator, seeded
by (seed, day). Days are written as they are made, so memory does not grow with the events.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.errors import Fault
from jobs.params import check
from jobs.sources import writing

VERSION = "1"
USAGE = "simulated:events=1000000,seed=7"

ROWS_PER_FILE = 500_000
REGIONS = ("north", "east", "south", "west", "islands")
REGION_SHARES = (0.35, 0.25, 0.2, 0.15, 0.05)
SEGMENTS = ("family", "single", "senior")
CHANNELS = ("web", "app", "store")
CHANNEL_SHARES = (0.5, 0.25, 0.25)
TYPES = ("view", "click", "add_to_cart", "purchase", "remove_from_cart", "return", "reject")
VIEW, CLICK, CART, PURCHASE, REMOVE, RETURN, REJECT = range(len(TYPES))
KEY_TYPES = ("account", "cookie", "device", "loyalty_card")
ACCOUNT, COOKIE, DEVICE, CARD = range(len(KEY_TYPES))
FAVOURITES = 3
STAPLES = 8
COOKIE_DAYS = 30  # a browser's cookie is replaced as often
MICROSECONDS = 1_000_000
DAY_SECONDS = 86_400
HOUR_WEIGHTS = (1, 1, 1, 1, 1, 2, 4, 6, 8, 9, 10, 11, 12, 11, 10, 10, 11, 13, 15, 16, 15, 11, 6, 3)
WEEKDAY_WEIGHTS = (0.9, 0.9, 0.95, 1.0, 1.15, 1.3, 0.8)


@dataclass(frozen=True)
class Shop:
    """The settings of a simulated shop; 0 means: in proportion to the events."""

    # Rows of the events table, repeated and corrected deliveries among them.
    events: int = 1_000_000
    # Seeds every choice.
    seed: int = 7
    # People; by default 50 events each.
    people: int = 0
    # Items of the catalogue; by default one for four people.
    items: int = 0
    # Days of history before `end`.
    days: int = 180
    # The first day that is not in the data: the run date that sees all of it.
    end: str = "2024-03-01"
    # Share of rows that repeat an event that was delivered before.
    duplicates: float = 0.005
    # Share of rows that correct an event (revision 1, another quantity), days later.
    corrections: float = 0.001
    # Share of events that are received hours to days after they happened.
    late: float = 0.01
    # Share of anonymous web sessions in which the person logs in, which links cookie and account.
    logins: float = 0.15

    def __post_init__(self) -> None:
        check(self.events >= 1000, "events must be at least 1000")
        check(0 <= self.seed < 2**32, "seed must be in [0, 2^32)")
        check(self.people == 0 or self.people >= 20, "people must be at least 20")
        check(self.items == 0 or self.items >= 50, "items must be at least 50")
        check(2 <= self.days <= 3650, "days must be in [2, 3650]")
        for name in ("duplicates", "corrections", "late", "logins"):
            check(0 <= getattr(self, name) <= 0.5, f"{name} must be in [0, 0.5]")
        try:
            date.fromisoformat(self.end)
        except ValueError:
            raise ValueError(f"end is {self.end!r}, not a date like 2024-03-01") from None

    def sized(self) -> Shop:
        """The shop with its people and items counted out."""
        people = self.people or max(20, self.events // 50)
        values = {**asdict(self), "people": people}
        values["items"] = self.items or min(50_000, max(50, people // 4))
        return Shop(**values)

    @property
    def start(self) -> datetime:
        """The first instant of the first day."""
        end = date.fromisoformat(self.end)
        return datetime(end.year, end.month, end.day, tzinfo=UTC) - timedelta(days=self.days)


def upstream(argument: str | None) -> list[Path]:
    """No files; the settings are checked."""
    parse(argument)
    return []


def convert(argument: str | None, folder: Path) -> dict[str, Any]:
    """Write the shop; the result counts the rows of each table."""
    shop = parse(argument).sized()
    world = World(shop)
    return {
        **asdict(shop),
        "rows": {
            "items": world.write_items(folder),
            "people": world.write_people(folder),
            **write_days(folder, world),
        },
    }


def parse(argument: str | None) -> Shop:
    """``events=1000000,seed=7`` as a shop; raises one ``Fault`` for all that is wrong."""
    known: dict[str, type] = {name: type(value) for name, value in asdict(Shop()).items()}
    values: dict[str, Any] = {}
    faults = []
    for pair in (argument or "").split(",") if argument else []:
        name, equals, text = pair.partition("=")
        if not equals or name not in known:
            faults.append(f"{pair!r} is none of {', '.join(f'{each}=…' for each in known)}")
        elif name in values:
            faults.append(f"{name} is given twice")
        else:
            try:
                values[name] = known[name](text)
            except ValueError:
                faults.append(f"{name}={text!r} is no {known[name].__name__}")
    if not faults:
        try:
            return Shop(**values)
        except ValueError as error:
            faults.append(str(error))
    raise Fault(f"source: simulated: {'; '.join(faults)}. Write it like {USAGE}")


class World:
    """What does not change from day to day: items, people, their tastes and staples.

    Items are numbered by category, so that a category is a slice: ``category_start[c]`` to
    ``category_start[c + 1]``.
    """

    def __init__(self, shop: Shop):
        self.shop = shop
        rng = np.random.default_rng([shop.seed, 0])
        self._make_items(rng)
        self._make_people(rng)

    def _make_items(self, rng: np.random.Generator) -> None:
        shop = self.shop
        self.categories = max(5, min(400, shop.items // 25))
        sizes = rng.multinomial(
            shop.items - self.categories, rng.dirichlet(np.full(self.categories, 2.0))
        )
        sizes += 1
        self.category_start = np.concatenate([[0], np.cumsum(sizes)])
        self.category = np.repeat(np.arange(self.categories), sizes)
        place = np.arange(shop.items) - self.category_start[self.category]
        size = sizes[self.category]
        # Zipf within the category, by a place that is not the item's number.
        shuffled = (place * 7919 + self.category * 31) % size
        self.popularity = 1.0 / (1.0 + shuffled) ** 0.9
        self.category_weight = rng.dirichlet(np.full(self.categories, 0.7))
        self.price = np.round(np.exp(rng.normal(1.5, 0.9, shop.items)) + 0.29, 2)
        self.margin = np.round(rng.uniform(0.05, 0.6, shop.items), 3)
        self.gap = rng.integers(4, 61, self.categories)[self.category]
        launched = rng.integers(1, shop.days, shop.items)
        self.launch = np.where(rng.random(shop.items) < 0.2, launched, -1 - launched)
        self.launch[self.category_start[:-1]] = -1 - shop.days  # every category sells something
        self.available = rng.random(shop.items) > 0.02
        self.home_region = np.where(
            rng.random(shop.items) < 0.03, rng.integers(0, len(REGIONS), shop.items), -1
        )
        alcohol = rng.choice(self.categories, max(1, self.categories // 25), replace=False)
        self.marks = {
            "alcohol": np.isin(self.category, alcohol),
            "adult": rng.random(shop.items) < 0.01,
            "recalled": rng.random(shop.items) < 0.002,
        }
        self.brand = rng.integers(0, max(3, shop.items // 40), shop.items)

    def _make_people(self, rng: np.random.Generator) -> None:
        shop = self.shop
        activity = rng.gamma(0.7, 1.0, shop.people) + 0.05
        self.activity = np.cumsum(activity)
        self.region = rng.choice(len(REGIONS), shop.people, p=REGION_SHARES)
        self.segment = rng.integers(0, len(SEGMENTS), shop.people)
        shape = (shop.people, FAVOURITES)
        self.before = rng.choice(self.categories, shape, p=self.category_weight)
        self.after = rng.choice(self.categories, shape, p=self.category_weight)
        self.moved = rng.integers(-shop.days // 2, shop.days, shape)
        old = np.flatnonzero(self.launch < 0)
        shape = (shop.people, STAPLES)
        weight = np.cumsum(self.popularity[old])
        self.staples = old[np.searchsorted(weight, rng.random(shape) * weight[-1])]
        self.phase = rng.integers(0, 61, shape)
        self.has_card = rng.random(shop.people) < 0.6
        self.consents = rng.random(shop.people) > 0.03
        self.abstains = rng.random(shop.people) < 0.02

    def account(self, person: np.ndarray) -> pa.Array:
        return pc.binary_join_element_wise("a", pa.array(person + 10_000).cast(pa.string()), "")

    def key(self, kind: np.ndarray, person: np.ndarray, day: int) -> pa.Array:
        """Keys that do not tell whose they are, but for the account."""
        epoch = np.where(kind == COOKIE, 1 + day // COOKIE_DAYS, 0)
        number = (person * 4096 + epoch * 8 + kind).astype(np.uint64)
        # A bijection of 48-bit numbers: an odd factor modulo a power of two.
        number = (number * np.uint64(0x9E3779B97F4B)) & np.uint64(2**48 - 1)
        hidden = pc.binary_join_element_wise("k", pa.array(number).cast(pa.string()), "")
        return pc.if_else(pa.array(kind == ACCOUNT), self.account(person), hidden)

    def item_ids(self, item: np.ndarray) -> pa.DictionaryArray:
        names = pc.binary_join_element_wise(
            "i", pa.array(np.arange(self.shop.items)).cast(pa.string()), ""
        )
        return pa.DictionaryArray.from_arrays(pa.array(item.astype(np.int32)), names)

    def write_items(self, folder: Path) -> int:
        shop = self.shop
        number = range(shop.items)
        path = [f"Department {c % 9} > Category {c}" for c in range(self.categories)]
        flags = [[name for name, mark in self.marks.items() if mark[i]] for i in number]
        launched = self.launch.astype("timedelta64[D]") + np.datetime64(shop.start.date(), "us")
        return writing.write(
            folder, "items",
            item_id=self.item_ids(np.arange(shop.items)),
            title=[f"{_word(self.brand[i])} {_word(self.category[i] + 1000)} {i}" for i in number],
            category=[path[c] for c in self.category],
            brand=[f"brand-{b}" for b in self.brand],
            seller=[f"seller-{b % 7}" for b in self.brand],
            price=self.price,
            margin=self.margin,
            created_time=_utc(launched.astype("datetime64[us]").astype(np.int64)),
            available=self.available,
            regions=pa.array([None if r < 0 else [REGIONS[r]] for r in self.home_region],
                             pa.list_(pa.string())),
            flags=pa.array(flags, pa.list_(pa.string())),
            attributes=writing.texts({"gap_days": str(gap)} for gap in self.gap),
        )  # fmt: skip

    def write_people(self, folder: Path) -> int:
        shop = self.shop
        person = np.arange(shop.people)
        favourite = np.tile(np.arange(FAVOURITES), shop.people)
        _write_truth(folder, "people", pa.table({
            "person": np.repeat(person, FAVOURITES), "favourite": favourite,
            "category_before": self.before.ravel(), "category_after": self.after.ravel(),
            "moved_on_day": self.moved.ravel(),
        }))  # fmt: skip
        return writing.write(
            folder, "people",
            key_type=writing.constant("account", shop.people),
            key=self.account(person),
            region=_named(REGIONS, self.region),
            segment=_named(SEGMENTS, self.segment),
            consents=pa.array([None if given else [] for given in self.consents],
                              pa.list_(pa.string())),
            restrictions=pa.array([["alcohol"] if dry else None for dry in self.abstains],
                                  pa.list_(pa.string())),
        )  # fmt: skip


@dataclass
class Rows:
    """Events of a day as columns; times are microseconds since 1970, item and person numbers."""

    number: np.ndarray  # the event's own number, its id
    time: np.ndarray
    received: np.ndarray
    person: np.ndarray
    key_kind: np.ndarray
    session: np.ndarray
    kind: np.ndarray
    item: np.ndarray
    quantity: np.ndarray
    channel: np.ndarray
    revision: np.ndarray

    def pick(self, rows: np.ndarray) -> Rows:
        return Rows(**{each.name: getattr(self, each.name)[rows] for each in fields(self)})

    @staticmethod
    def join(parts: list[Rows]) -> Rows:
        return Rows(**{
            each.name: np.concatenate([getattr(part, each.name) for part in parts])
            for each in fields(Rows)
        })  # fmt: skip


def write_days(folder: Path, world: World) -> dict[str, int]:
    """Events, identity links and the truth of the keys, a day after the other."""
    shop = world.shop
    weights = np.array([
        WEEKDAY_WEIGHTS[(shop.start + timedelta(days=day)).weekday()] for day in range(shop.days)
    ])  # fmt: skip
    bounds = np.round(np.cumsum(weights) / weights.sum() * shop.events).astype(np.int64)
    returns: dict[int, list[Rows]] = {}
    waiting: list[dict[str, pa.Array]] = []
    links: list[tuple[np.ndarray, np.ndarray, int]] = []
    keys_seen: dict[int, list[np.ndarray]] = {}
    part, held, made = 0, 0, 0
    for day in range(shop.days):
        rows = make_day(world, day, int(bounds[day]) - made, made, returns)
        made = int(bounds[day])
        waiting.append(_columns(world, rows, day))
        held += len(rows.time)
        links.append((*_logins(world, rows, day), day))
        epoch = np.where(rows.key_kind == COOKIE, day // COOKIE_DAYS, 0)
        used = np.unique((rows.person * 4 + rows.key_kind) * 4096 + epoch)
        keys_seen.setdefault(day // COOKIE_DAYS, []).append(used)
        if held >= ROWS_PER_FILE or day == shop.days - 1:
            _flush(folder, part, waiting)
            part, held, waiting = part + 1, 0, []
    keys = np.unique(np.concatenate([np.unique(np.concatenate(v)) for v in keys_seen.values()]))
    return {
        "events": made,
        "identity_links": _write_links(folder, world, links),
        "keys": _write_keys(folder, world, keys),
    }


def make_day(
    world: World, day: int, count: int, first: int, returns: dict[int, list[Rows]]
) -> Rows:
    """Exactly ``count`` rows of one day, numbered from ``first``; ``returns`` carries what comes
    back on later days."""
    shop = world.shop
    rng = np.random.default_rng([shop.seed, 1, day])
    corrected = rng.binomial(count, shop.corrections)
    repeated = rng.binomial(count, shop.duplicates)
    due = returns.pop(day, [])
    room = count - corrected - repeated
    back = Rows.join(due).pick(np.arange(min(room, sum(len(r.time) for r in due)))) if due else None
    visits = _visits(world, rng, day, room - (len(back.time) if back else 0))
    rows = Rows.join([visits, back]) if back else visits
    rows.number = first + np.arange(len(rows.time))
    lag = rng.exponential(60 * MICROSECONDS, len(rows.time))
    late = rng.random(len(rows.time)) < shop.late
    lag = np.where(late, rng.uniform(1, 72, len(rows.time)) * 3600 * MICROSECONDS, lag)
    rows.received = rows.time + lag.astype(np.int64)
    _schedule_returns(rng, rows, day, shop.days, returns)
    again = rows.pick(rng.integers(0, len(rows.time), repeated))
    again.received = again.received + rng.integers(1, 6 * 3600 * MICROSECONDS, repeated)
    fixed = rows.pick(rng.integers(0, len(rows.time), corrected))
    fixed.revision = fixed.revision + 1
    fixed.quantity = fixed.quantity + 1
    fixed.received = fixed.received + rng.integers(1, 5 * DAY_SECONDS * MICROSECONDS, corrected)
    return Rows.join([rows, again, fixed])


def _visits(world: World, rng: np.random.Generator, day: int, count: int) -> Rows:
    """``count`` events of the day's sessions."""
    shop = world.shop
    sessions = count // 4 + 8
    while True:
        person = np.searchsorted(world.activity, rng.random(sessions) * world.activity[-1])
        channel = rng.choice(len(CHANNELS), sessions, p=CHANNEL_SHARES)
        steps = np.minimum(rng.geometric(0.3, sessions), 12)
        in_session = np.repeat(np.arange(sessions), steps)
        staple, item = _choose(world, rng, day, person[in_session])
        in_store = channel[in_session] == CHANNELS.index("store")
        carted = rng.random(len(item)) < np.where(staple, 0.7, 0.22)
        bought = rng.random(len(item)) < np.where(staple, 0.85, 0.5)
        removed = rng.random(len(item)) < 0.25
        length = np.where(in_store, 1, 1 + carted + (carted & (bought | removed)))
        if length.sum() >= count:
            break
        sessions *= 2
    step = np.repeat(np.arange(len(item)), length)[:count]
    place = (np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length))[:count]
    looked = rng.choice([VIEW, CLICK, REJECT], len(step), p=[0.867, 0.13, 0.003])
    ended = np.where(bought[step], PURCHASE, REMOVE)
    kind = np.select([in_store[step], place == 0, place == 1], [PURCHASE, looked, CART], ended)
    session = in_session[step]
    hour = rng.choice(24, sessions, p=np.array(HOUR_WEIGHTS) / sum(HOUR_WEIGHTS))
    began = np.minimum(hour * 3600 + rng.integers(0, 3600, sessions), DAY_SECONDS - 1800)
    first_step = np.cumsum(steps) - steps
    elapsed = (step - first_step[session]) * 60 + place * 20 + rng.integers(0, 20, len(step))
    start = int(shop.start.timestamp()) + day * DAY_SECONDS
    return Rows(
        number=np.zeros(count, np.int64),
        time=(start + began[session] + elapsed) * MICROSECONDS,
        received=np.zeros(count, np.int64),
        person=person[session],
        key_kind=_key_kinds(world, rng, person, channel)[session],
        session=day * 10_000_000 + session,
        kind=kind,
        item=item[step],
        quantity=np.where(kind == PURCHASE, np.minimum(rng.geometric(0.75, len(step)), 9), 1),
        channel=channel[session],
        revision=np.zeros(count, np.int64),
    )


def _choose(
    world: World, rng: np.random.Generator, day: int, person: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(whether a step is a staple that is due, the item of each step)."""
    count = len(person)
    slot = rng.integers(0, STAPLES, count)
    staple = world.staples[person, slot]
    since = (day + world.phase[person, slot]) % world.gap[staple]
    due = (since < 2) & (rng.random(count) < 0.8)
    favourite = rng.integers(0, FAVOURITES, count)
    moved = day >= world.moved[person, favourite]
    taste = np.where(moved, world.after[person, favourite], world.before[person, favourite])
    crowd = np.searchsorted(np.cumsum(world.category_weight), rng.random(count))
    category = np.where(rng.random(count) < 0.75, taste, np.minimum(crowd, world.categories - 1))
    age = day - world.launch
    novelty = 1.0 + 2.0 * np.exp(-np.maximum(age, 0) / 14.0) * (world.launch > 0)
    weight = np.concatenate([[0.0], np.cumsum(world.popularity * novelty * (age >= 0))])
    low = weight[world.category_start[category]]
    high = weight[world.category_start[category + 1]]
    found = np.searchsorted(weight, low + rng.random(count) * (high - low), side="right") - 1
    # Rounding may reach the next category's first item, which is launched as well.
    return due, np.where(due, staple, np.minimum(found, world.shop.items - 1))


def _key_kinds(
    world: World, rng: np.random.Generator, person: np.ndarray, channel: np.ndarray
) -> np.ndarray:
    """The kind of key under which each session is seen."""
    chance = rng.random(len(person))
    web = np.where(chance < 0.5, ACCOUNT, COOKIE)
    app = np.where(chance < 0.7, ACCOUNT, DEVICE)
    store = np.where(world.has_card[person], CARD, ACCOUNT)
    return np.choose(channel, [web, app, store])


def _schedule_returns(
    rng: np.random.Generator, rows: Rows, day: int, days: int, returns: dict[int, list[Rows]]
) -> None:
    """Three purchases in a hundred come back, three to twenty days later."""
    bought = np.flatnonzero(rows.kind == PURCHASE)
    bought = bought[rng.random(len(bought)) < 0.03]
    delay = rng.integers(3, 21, len(bought))
    for later in np.unique(delay):
        if day + later >= days:
            continue
        back = rows.pick(bought[delay == later])
        back.time = back.time + int(later) * DAY_SECONDS * MICROSECONDS
        back.kind = np.full(len(back.kind), RETURN)
        # Handed in by the account, since a cookie may be gone by then.
        back.key_kind = np.full(len(back.kind), ACCOUNT)
        returns.setdefault(day + int(later), []).append(back)


def _columns(world: World, rows: Rows, day: int) -> dict[str, pa.Array]:
    """The day's rows as columns of the contract, in the order in which they were received."""
    rows = rows.pick(np.argsort(rows.received, kind="stable"))
    paid = (rows.kind == PURCHASE) | (rows.kind == RETURN)
    value = np.round(world.price[rows.item] * rows.quantity, 2)
    number = pa.array(rows.number).cast(pa.string())
    return {
        "event_id": pc.binary_join_element_wise("e", number, ""),
        "revision": pa.array(rows.revision.astype(np.int32)),
        "event_time": _utc(rows.time),
        "received_time": _utc(rows.received),
        "key_type": _named(KEY_TYPES, rows.key_kind).dictionary_decode(),
        "key": world.key(rows.key_kind, rows.person, day),
        "session_id": pc.binary_join_element_wise(
            "s", pa.array(rows.session).cast(pa.string()), ""
        ),
        "event_type": _named(TYPES, rows.kind).dictionary_decode(),
        "item_id": world.item_ids(rows.item).dictionary_decode(),
        "quantity": pa.array(rows.quantity.astype(np.float64)),
        "value": pa.array(value, mask=~paid),
        "channel": _named(CHANNELS, rows.channel).dictionary_decode(),
        "region": _named(REGIONS, world.region[rows.person]).dictionary_decode(),
    }


def _flush(folder: Path, part: int, waiting: list[dict[str, pa.Array]]) -> None:
    columns = {name: pa.chunked_array([day[name] for day in waiting]) for name in waiting[0]}
    writing.write(folder, "events", part, **columns)


def _logins(world: World, rows: Rows, day: int) -> tuple[np.ndarray, np.ndarray]:
    """(persons, times) of the anonymous sessions in which somebody logs in."""
    rng = np.random.default_rng([world.shop.seed, 2, day])
    anonymous = np.isin(rows.key_kind, (COOKIE, DEVICE))
    _, first = np.unique(np.where(anonymous, rows.session, -1), return_index=True)
    first = first[anonymous[first]]
    chosen = first[rng.random(len(first)) < world.shop.logins]
    code = rows.person[chosen] * len(KEY_TYPES) + rows.key_kind[chosen]
    return code, rows.time[chosen]


def _write_links(
    folder: Path, world: World, logins: list[tuple[np.ndarray, np.ndarray, int]]
) -> int:
    """Logins by the day; and from the start, cards registered with an account (exact) and
    neighbours who share a household (which never makes two people one)."""
    shop = world.shop
    rng = np.random.default_rng([shop.seed, 3])
    start = int(shop.start.timestamp()) * MICROSECONDS
    parts = []
    for code, time, day in logins:
        person, kind = np.divmod(code, len(KEY_TYPES))
        parts.append(
            _link(world, kind, person, np.zeros_like(kind), person, "login", 1.0, time, day)
        )
    registered = np.flatnonzero(world.has_card & (rng.random(shop.people) < 0.7))
    kind = np.full(len(registered), CARD)
    parts.append(_link(
        world, kind, registered, np.zeros_like(kind), registered, "registration", 1.0,
        np.full(len(registered), start), 0,
    ))  # fmt: skip
    first = np.flatnonzero(rng.random(shop.people // 2) < 0.1) * 2
    accounts = np.zeros_like(first)
    parts.append(_link(
        world, accounts, first, accounts, first + 1, "household", 0.9,
        np.full(len(first), start), 0,
    ))  # fmt: skip
    joined = pa.concat_tables(parts)
    return writing.write(
        folder, "identity_links", **{name: joined[name] for name in joined.schema.names}
    )


def _link(
    world: World, kind_a: np.ndarray, person_a: np.ndarray, kind_b: np.ndarray,
    person_b: np.ndarray, source: str, confidence: float, time: np.ndarray, day: int,
) -> pa.Table:  # fmt: skip
    return pa.table({
        "key_type_a": _named(KEY_TYPES, kind_a).dictionary_decode(),
        "key_a": world.key(kind_a, person_a, day),
        "key_type_b": _named(KEY_TYPES, kind_b).dictionary_decode(),
        "key_b": world.key(kind_b, person_b, day),
        "source": pa.array([source] * len(time), pa.string()),
        "confidence": np.full(len(time), confidence),
        "observed_time": _utc(time),
    })  # fmt: skip


def _write_keys(folder: Path, world: World, keys: np.ndarray) -> int:
    """The truth: the person behind each key that was seen."""
    code, epoch = np.divmod(keys, 4096)
    person, kind = np.divmod(code, len(KEY_TYPES))
    tables = [
        pa.table({
            "key_type": _named(KEY_TYPES, kind[epoch == each]).dictionary_decode(),
            "key": world.key(kind[epoch == each], person[epoch == each], int(each) * COOKIE_DAYS),
            "person": person[epoch == each],
        })
        for each in np.unique(epoch)
    ]  # fmt: skip
    _write_truth(folder, "keys", pa.concat_tables(tables))
    return len(keys)


def _write_truth(folder: Path, name: str, rows: pa.Table) -> None:
    home = folder / "truth" / name
    home.mkdir(parents=True)
    pq.write_table(rows, home / "part-00000.parquet")


def _utc(microseconds: np.ndarray) -> pa.Array:
    return pa.array(microseconds.astype(np.int64)).cast(pa.timestamp("us", tz="UTC"))


def _named(names: tuple[str, ...], codes: np.ndarray) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int8)), pa.array(names))


def _word(number: int) -> str:
    """A pronounceable name for a number, the same everywhere."""
    consonants, vowels = "bdfgklmnprst", "aeiou"
    word = ""
    number = int(number) * 2_654_435_761 % 216_000
    for _ in range(3):
        number, at = divmod(number, len(consonants) * len(vowels))
        word += consonants[at // len(vowels)] + vowels[at % len(vowels)]
    return word
