"""A small grocer in the source contract's shape, seeded, with a little honest dirt.

``write(folder)`` fills a folder with events, items, people, identity_links and editorial: some
hundred people who buy their staples at their own gaps, browse their favourite categories, and
shop in a web channel (sometimes under a cookie, before they log in) and in stores. The dirt is
counted in what it returns, so that a test can hold a job to the true numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

AS_OF = datetime(2024, 3, 1, tzinfo=UTC)
REGIONS = ("north", "south", "east")
CATEGORIES = {
    "GROCERY > DAIRY": ("milk", "yoghurt", "butter", "cheese"),
    "GROCERY > BAKERY": ("bread", "rolls", "bagels", "cake"),
    "GROCERY > PASTA": ("spaghetti", "penne", "lasagne", "pesto"),
    "GROCERY > SNACKS": ("crisps", "nuts", "crackers", "chocolate"),
    "PRODUCE > FRUIT": ("apples", "bananas", "pears", "oranges"),
    "PRODUCE > VEGETABLES": ("carrots", "onions", "potatoes", "kale"),
    "DRINKS > SOFT": ("cola", "lemonade", "juice", "water"),
    "DRINKS > WINE": ("red wine", "white wine", "rose", "sherry"),
    "HOUSEHOLD > CLEANING": ("soap", "detergent", "sponges", "bleach"),
    "HOUSEHOLD > PAPER": ("tissues", "napkins", "towels", "bags"),
}
ALCOHOL = "DRINKS > WINE"
NEW_ITEM_DAYS = 10  # how long before AS_OF the newest tenth of the items was created
TIME = pa.timestamp("us", tz="UTC")
EVENTS = pa.schema([
    ("event_id", pa.string()), ("revision", pa.int32()), ("event_time", TIME),
    ("received_time", TIME), ("key_type", pa.string()), ("key", pa.string()),
    ("session_id", pa.string()), ("event_type", pa.string()), ("item_id", pa.string()),
    ("quantity", pa.float64()), ("value", pa.float64()), ("channel", pa.string()),
    ("region", pa.string()), ("request_id", pa.string()),
])  # fmt: skip
ITEMS = pa.schema([
    ("item_id", pa.string()), ("title", pa.string()), ("category", pa.string()),
    ("brand", pa.string()), ("seller", pa.string()), ("price", pa.float64()),
    ("margin", pa.float64()), ("created_time", TIME), ("available", pa.bool_()),
    ("regions", pa.list_(pa.string())), ("flags", pa.list_(pa.string())),
    ("attributes", pa.map_(pa.string(), pa.string())),
])  # fmt: skip
PEOPLE = pa.schema([
    ("key_type", pa.string()), ("key", pa.string()), ("region", pa.string()),
    ("segment", pa.string()), ("consents", pa.list_(pa.string())),
    ("restrictions", pa.list_(pa.string())),
])  # fmt: skip
LINKS = pa.schema([
    ("key_type_a", pa.string()), ("key_a", pa.string()), ("key_type_b", pa.string()),
    ("key_b", pa.string()), ("source", pa.string()), ("confidence", pa.float64()),
    ("observed_time", TIME),
])  # fmt: skip
EDITORIAL = pa.schema([
    ("list_id", pa.string()), ("position", pa.int32()), ("item_id", pa.string()),
])  # fmt: skip


@dataclass(frozen=True)
class Shop:
    """What was written: ``good`` distinct events were received before ``as_of`` and are possible.

    ``duplicates`` are equal repeats; ``impossible`` rows should be quarantined; ``revised`` events
    have a second revision received in time; ``late`` events happened before ``as_of`` and were
    received after it; ``after`` events happened after it.
    """

    folder: Path
    as_of: datetime
    good: int
    duplicates: int
    impossible: int
    revised: int
    late: int
    after: int


def write(
    folder: Path,
    people: int = 300,
    items: int = 240,
    days: int = 100,
    days_after: int = 3,
    seed: int = 7,
    as_of: datetime = AS_OF,
    dirt: bool = True,
) -> Shop:
    """Fill ``folder`` with a shop of ``people`` over ``days`` before and ``days_after`` after.

    About 90 events a person at the defaults. ``dirt=False`` leaves out duplicates, impossible
    rows, revisions and late rows.
    """
    random = np.random.default_rng(seed)
    catalogue = _catalogue(random, items, as_of)
    shoppers = _people(random, people)
    clean = _events(random, catalogue, shoppers, days, days_after, as_of)
    before = [row for row in clean if row["event_time"] < as_of]
    rows, counts = _soil(random, clean, before, as_of) if dirt else (clean, dict.fromkeys(_DIRT, 0))
    order = random.permutation(len(rows))
    write_table(folder, "events", pa.Table.from_pylist([rows[i] for i in order], EVENTS))
    write_table(folder, "items", pa.Table.from_pylist(catalogue, ITEMS))
    write_table(folder, "people", pa.Table.from_pylist(shoppers, PEOPLE))
    write_table(folder, "identity_links", pa.Table.from_pylist(_links(shoppers, as_of), LINKS))
    write_table(folder, "editorial", pa.Table.from_pylist(_editorial(catalogue), EDITORIAL))
    return Shop(
        folder=folder,
        as_of=as_of,
        good=len(before) - counts["late"],
        after=len(clean) - len(before),
        **counts,
    )


_DIRT = ("duplicates", "impossible", "revised", "late")


def write_table(folder: Path, name: str, table: pa.Table) -> Path:
    """Write one contract table as a folder with one Parquet file, in place of what was there."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / name / "part-0.parquet")
    return folder / name


def read_table(folder: Path, name: str) -> pa.Table:
    """A contract table that :func:`write` wrote, for a test that wants to spoil it."""
    return pq.read_table(folder / name / "part-0.parquet")


def _catalogue(random: np.random.Generator, items: int, as_of: datetime) -> list[dict[str, Any]]:
    categories = list(CATEGORIES)
    made = []
    for number in range(items):
        category = categories[number % len(categories)]
        words = CATEGORIES[category]
        word = words[(number // len(categories)) % len(words)]
        brand = f"brand{number % 12:02d}"
        is_new = number >= items * 9 // 10
        age = NEW_ITEM_DAYS * random.random() if is_new else 200 + 300 * random.random()
        made.append({
            "item_id": f"i{number:04d}",
            "title": f"{brand} {word} {100 * (1 + number % 9)} g",
            "category": f"{category} > {word.upper()}",
            "brand": brand,
            "seller": None if number % 5 else "market",
            "price": round(float(random.lognormal(1.0, 0.6)), 2),
            "margin": round(float(random.uniform(0.05, 0.5)), 3),
            "created_time": as_of - timedelta(days=age),
            "available": number % 29 != 5,
            "regions": ["north", "south"] if number % 17 == 3 else None,
            "flags": ["alcohol"] if category == ALCOHOL else [],
            "attributes": [("package", f"{100 * (1 + number % 9)} g")],
        })  # fmt: skip
    return made


def _people(random: np.random.Generator, people: int) -> list[dict[str, Any]]:
    return [
        {
            "key_type": "account",
            "key": str(1000 + number),
            "region": REGIONS[int(random.integers(len(REGIONS)))],
            "segment": ("family", "single", "senior")[int(random.integers(3))],
            "consents": ["analytics"] if number % 25 == 4 else None,
            "restrictions": ["alcohol"] if number % 10 == 7 else None,
        }
        for number in range(people)
    ]


def _has_cookie(shopper: dict[str, Any]) -> bool:
    return int(shopper["key"]) % 4 == 0


def _links(shoppers: list[dict[str, Any]], as_of: datetime) -> list[dict[str, Any]]:
    return [
        {
            "key_type_a": "cookie", "key_a": f"c-{shopper['key']}",
            "key_type_b": "account", "key_b": shopper["key"],
            "source": "login", "confidence": 1.0, "observed_time": as_of - timedelta(days=90),
        }
        for shopper in shoppers
        if _has_cookie(shopper)
    ]  # fmt: skip


def _editorial(catalogue: list[dict[str, Any]]) -> list[dict[str, Any]]:
    chosen = [item["item_id"] for item in catalogue if item["available"]][2:90:9]
    return [
        {"list_id": "spring", "position": place, "item_id": item}
        for place, item in enumerate(chosen, start=1)
    ]


def _events(
    random: np.random.Generator,
    catalogue: list[dict[str, Any]],
    shoppers: list[dict[str, Any]],
    days: int,
    days_after: int,
    as_of: datetime,
) -> list[dict[str, Any]]:
    """Visits every 3 to 7 days; a basket mixes due staples, favourites and popular items."""
    end = as_of + timedelta(days=days_after)
    popularity = 1.0 / (1.0 + random.permutation(len(catalogue)))
    by_category: dict[str, list[int]] = {}
    for index, item in enumerate(catalogue):
        by_category.setdefault(item["category"].rsplit(" > ", 1)[0], []).append(index)
    categories = list(by_category)
    rows: list[dict[str, Any]] = []
    for shopper in shoppers:
        favourites = [categories[i] for i in random.choice(len(categories), 3, replace=False)]
        liked = np.array([index for category in favourites for index in by_category[category]])
        taste = popularity[liked] / popularity[liked].sum()
        staples = random.choice(liked, 5, replace=False, p=taste)
        gaps = random.uniform(5, 25, 5)
        last = [as_of - timedelta(days=days + 20 * random.random()) for _ in staples]
        pace = random.uniform(3, 7)
        moment = as_of - timedelta(days=days) + timedelta(days=pace * random.random())
        while moment < end:
            bought = []
            for k, staple in enumerate(staples):
                if (moment - last[k]).total_seconds() > gaps[k] * 86400:
                    bought.append(int(staple))
                    last[k] = moment
            bought += [int(i) for i in random.choice(liked, random.integers(0, 3), p=taste)]
            if random.random() < 0.4:
                bought.append(int(random.choice(len(catalogue), p=popularity / popularity.sum())))
            seen = [int(i) for i in random.choice(liked, random.integers(0, 2), p=taste)]
            rows += _visit(random, catalogue, shopper, moment, bought, seen, len(rows))
            moment += timedelta(days=pace * random.uniform(0.5, 1.5))
    return [row for row in rows if row["event_time"] < end]


def _visit(
    random: np.random.Generator,
    catalogue: list[dict[str, Any]],
    shopper: dict[str, Any],
    moment: datetime,
    bought: list[int],
    seen: list[int],
    first: int,
) -> list[dict[str, Any]]:
    online = random.random() < 0.5
    anonymous = online and _has_cookie(shopper) and random.random() < 0.3
    lines: list[tuple[int, str]] = [(index, "view") for index in seen] if online else []
    for index in dict.fromkeys(bought):
        if catalogue[index]["created_time"] > moment:
            continue
        if online:
            lines.append((index, "add_to_cart"))
        lines.append((index, "purchase"))
        if random.random() < 0.01:
            lines.append((index, "return"))
    if online and random.random() < 0.01 and seen:
        lines.append((seen[0], "reject"))
    rows = []
    for place, (index, kind) in enumerate(lines):
        item = catalogue[index]
        quantity = float(random.integers(1, 4)) if kind in ("purchase", "return") else None
        at = (moment + timedelta(seconds=20 * place)).replace(microsecond=0)
        rows.append({
            "event_id": f"e{first + place:06d}",
            "revision": None,
            "event_time": at,
            "received_time": at + timedelta(seconds=5),
            "key_type": "cookie" if anonymous else "account",
            "key": f"c-{shopper['key']}" if anonymous else shopper["key"],
            "session_id": f"s{first:06d}",
            "event_type": kind,
            "item_id": item["item_id"],
            "quantity": quantity,
            "value": round(quantity * item["price"], 2) if quantity else None,
            "channel": "web" if online else "store",
            "region": shopper["region"],
            "request_id": None,
        })  # fmt: skip
    return rows


def _soil(
    random: np.random.Generator,
    clean: list[dict[str, Any]],
    before: list[dict[str, Any]],
    as_of: datetime,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Add 2 % equal repeats, 0.5 % impossible rows, 0.5 % revisions, and 20 late rows."""
    share = len(before) // 200
    chosen = random.choice(len(before), 6 * share, replace=False)
    repeats = [dict(before[i]) for i in chosen[: 4 * share]]
    revised = [{**before[i], "revision": 1} for i in chosen[4 * share : 5 * share]]
    spoils: list[dict[str, Any]] = [
        {"item_id": None},
        {"key": None},
        {"value": -3.5, "event_type": "purchase"},
        {"event_type": "teleport"},
        {"event_time": as_of + timedelta(days=40)},
    ]
    impossible = [
        {**before[i], **spoils[n % len(spoils)], "event_id": f"bad{n:05d}"}
        for n, i in enumerate(chosen[5 * share :])
    ]
    late_ids = {
        row["event_id"]
        for row in sorted(before, key=lambda row: (row["event_time"], row["event_id"]))[-20:]
    } - {row["event_id"] for row in repeats + revised}
    late = [
        {**row, "received_time": as_of + timedelta(hours=6)} if row["event_id"] in late_ids else row
        for row in clean
    ]
    counts = {
        "duplicates": len(repeats),
        "impossible": len(impossible),
        "revised": len(revised),
        "late": len(late_ids),
    }
    return late + repeats + revised + impossible, counts
