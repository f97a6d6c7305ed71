"""UCI Online Retail: the invoice lines of a UK gift wholesaler, as dirty as they were found.

Reads a folder of CSV files (one a day, gzipped or not). Writes, in the source contract's shape:

- ``events``: one row per invoice line of an item, event_id ``invoice:stock code:quantity:price``.
- ``items``: one row per stock code ever sold, valid from its first sale, under the description
  of that sale (later ones, and the stock-keepers' notes in that column, would look ahead).

What was decided:

- Ids are verbatim: the customer ``17850.0`` stays so, and ``15056BL`` is not ``15056bl``.
- A line of a cancelled invoice (``C…``) is a return: its quantity and its value, the money given
  back, are positive.
- Postage, fees, samples, discounts and manual corrections (:data:`NOT_ITEMS`) are no items; their
  lines are left out, counted.
- Lines with a negative quantity and no price, outside cancelled invoices, are the warehouse's
  write-offs (damaged, lost, counted again): left out, counted.
- Lines without a customer are carried with no key, unreadable numbers as not-a-number and
  unreadable times as null, so that the events step quarantines and counts them with a reason.
- Lines equal in invoice, stock code, quantity and price have one event_id, so that the events
  step drops repeats as what they are. In the published file that is 5,271 lines: the 5,268 exact
  duplicates and three that differ from their twin in the minute or the description alone.
- InvoiceDate is the shop's clock, Europe/London; the hour that autumn repeats is its second one.
- A gift for nothing (price 0 with a customer) stays a purchase of value 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from jobs.sources import csvs, writing

VERSION = "1"
USAGE = "online_retail:FOLDER (of CSV files, one a day or all in one)"
COLUMNS = (
    "InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID",
    "Country",
)  # fmt: skip
ZONE = "Europe/London"
CANCELLED = "C"
DATE_FORMATS = ("%Y-%m-%d %H:%M:%S", "%m/%d/%Y %H:%M")  # these files; the publisher's spreadsheet

# Every stock code of the published data that is no thing on a shelf. Gift vouchers
# (gift_0001_…), party bags (DCGS…) and cushion pads (PADS) are things.
NOT_ITEMS = {
    "AMAZONFEE": "a marketplace's fee",
    "B": "bad debt adjusted",
    "BANK CHARGES": "bank charges",
    "C2": "carriage",
    "CRUK": "a charity's commission",
    "D": "discount",
    "DOT": "postage of the web shop",
    "M": "manual correction",
    "m": "manual correction",
    "POST": "postage",
    "S": "samples",
}


def upstream(argument: str | None) -> list[Path]:
    """The CSV files of the folder."""
    return csvs.find("online_retail", argument, USAGE)


def convert(argument: str | None, folder: Path) -> dict[str, Any]:
    """Write the contract tables; the result counts what was left out and why."""
    lines, broken = csvs.read(upstream(argument), COLUMNS)
    lines = typed(lines)
    not_an_item = lines["StockCode"].isin(list(NOT_ITEMS))
    written_off = (lines["quantity"] < 0) & (lines["price"] == 0) & ~lines["cancelled"]
    kept = lines[~not_an_item & ~written_off]
    return {
        "events": write_events(folder, kept),
        "items": write_items(folder, kept),
        "lines_without_item_left_out": int(not_an_item.sum()),
        "write_offs_left_out": int((written_off & ~not_an_item).sum()),
        "broken_lines_left_out": broken,
    }


def typed(lines: pd.DataFrame) -> pd.DataFrame:
    """Lines of texts with ``quantity`` and ``price`` (NaN where unreadable), ``time`` (UTC, NaT
    where unreadable) and ``cancelled``, in the order of time, then of the files."""
    clock = pd.Series(pd.NaT, index=lines.index, dtype="datetime64[ns]")
    for form in DATE_FORMATS:
        clock = clock.fillna(pd.to_datetime(lines["InvoiceDate"], format=form, errors="coerce"))
    time = clock.dt.tz_localize(
        ZONE, ambiguous=np.zeros(len(clock), dtype=bool), nonexistent="shift_forward"
    ).dt.tz_convert("UTC")
    return lines.assign(
        quantity=pd.to_numeric(lines["Quantity"], errors="coerce").astype(float),
        price=pd.to_numeric(lines["UnitPrice"], errors="coerce").astype(float),
        time=time,
        cancelled=lines["InvoiceNo"].str.startswith(CANCELLED),
    ).sort_values("time", kind="stable")


def write_events(folder: Path, lines: pd.DataFrame) -> int:
    """Typed lines as purchases and returns."""
    sign = np.where(lines["cancelled"], -1.0, 1.0)
    naming = lines[["StockCode", "Quantity", "UnitPrice"]]
    event_id = lines["InvoiceNo"].str.cat(naming, sep=":")
    return writing.write(
        folder, "events",
        event_id=event_id,
        event_time=pa.array(lines["time"]).cast(pa.timestamp("us", tz="UTC")),
        key_type=writing.constant("account", len(lines)),
        key=_or_null(lines["CustomerID"]),
        session_id=lines["InvoiceNo"],
        event_type=pa.array(np.where(lines["cancelled"], "return", "purchase")),
        item_id=_or_null(lines["StockCode"]),
        quantity=pa.array((lines["quantity"] * sign).to_numpy(), from_pandas=False),
        value=pa.array((lines["quantity"] * lines["price"] * sign).round(2).to_numpy(),
                       from_pandas=False),
        channel=writing.constant("web", len(lines)),
        region=_or_null(lines["Country"]),
    )  # fmt: skip


def write_items(folder: Path, lines: pd.DataFrame) -> int:
    """What was sold, each stock code from its first sale on."""
    described = lines["Description"].str.strip() != ""
    sold = lines[
        ~lines["cancelled"] & (lines["quantity"] > 0) & (lines["price"] > 0) & described
        & lines["time"].notna()
    ]  # fmt: skip
    first = sold.drop_duplicates("StockCode").sort_values("StockCode")
    return writing.write(
        folder, "items",
        item_id=first["StockCode"],
        title=first["Description"].str.strip(),
        valid_from=pa.array(first["time"]).cast(pa.timestamp("us", tz="UTC")),
    )  # fmt: skip


def _or_null(texts: pd.Series) -> pa.Array:
    return pa.array(texts.where(texts.str.strip() != "", None), pa.string())
