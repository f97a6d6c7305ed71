"""Online Retail: cancellations, fees, guests, repeats and the shop's clock."""

from __future__ import annotations

import csv
import gzip
import math
import shutil
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.sources import contract, online_retail
from tests.sources import shared

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"


def write(folder: Path, *lines: str) -> None:
    (folder / "2011-06-01.csv").write_text(HEADER + "".join(line + "\n" for line in lines))


def convert(folder: Path, *lines: str) -> tuple[dict, list[dict]]:
    write(folder, *lines)
    counts = online_retail.convert(str(folder), folder / "out")
    return counts, shared.rows(folder / "out", "events")


@pytest.fixture(scope="module")
def december(tmp_path_factory) -> tuple[Path, dict]:
    """The first seventeen real days, dirt included."""
    real = shared.real("online_retail")
    folder = tmp_path_factory.mktemp("online_retail")
    for path in sorted(real.glob("2010-12-*.csv.gz")):
        shutil.copy(path, folder)
    return folder / "out", online_retail.convert(str(folder), folder / "out")


def test_real_lines_are_events_or_counted_with_their_reason(december):
    folder, counts = december
    contract.check(folder)
    left_out = sum(count for reason, count in counts.items() if reason.endswith("_left_out"))
    assert counts["events"] + left_out == 42_481
    assert counts["broken_lines_left_out"] == 0
    assert not set(shared.column(folder, "events", "item_id")) & set(online_retail.NOT_ITEMS)


def test_real_cancellations_are_returns_of_a_positive_quantity_and_value(december):
    folder, _ = december
    returns = [r for r in shared.rows(folder, "events") if r["event_type"] == "return"]
    assert returns
    assert all(row["session_id"].startswith("C") for row in returns)
    assert all(row["quantity"] > 0 and row["value"] >= 0 for row in returns)


def test_real_repeats_share_one_event_id(december):
    folder, _ = december
    ids = Counter(shared.column(folder, "events", "event_id"))
    lines = Counter()
    for path in shared.real("online_retail").glob("2010-12-*.csv.gz"):
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            lines.update(
                tuple(line)
                for line in list(csv.reader(file))[1:]
                if line[1] not in online_retail.NOT_ITEMS
                and (float(line[3]) > 0 or float(line[5]) > 0 or line[0].startswith("C"))
            )
    assert sum(lines.values()) == sum(ids.values())
    assert len(lines) == len(ids)


def test_real_items_have_one_title_from_a_sale_and_start_with_it(december):
    folder, _ = december
    items = {row["item_id"]: row for row in shared.rows(folder, "items")}
    assert len(items) == len(shared.rows(folder, "items"))
    heart = items["85123A"]
    assert heart["title"] == "WHITE HANGING HEART T-LIGHT HOLDER"
    assert heart["valid_from"] == datetime(2010, 12, 1, 8, 26, tzinfo=UTC)
    assert "POST" not in items


def test_the_shops_clock_is_londons(tmp_path):
    _, rows = convert(
        tmp_path,
        "1,22,HEART,1,2011-01-10 09:00:00,2.55,17850.0,United Kingdom",
        "2,22,HEART,1,2011-06-10 09:00:00,2.55,17850.0,United Kingdom",
        "3,22,HEART,1,6/11/2011 9:00,2.55,17850.0,United Kingdom",
    )
    assert [row["event_time"] for row in rows] == [
        datetime(2011, 1, 10, 9, tzinfo=UTC),
        datetime(2011, 6, 10, 8, tzinfo=UTC),
        datetime(2011, 6, 11, 8, tzinfo=UTC),
    ]


def test_a_line_is_carried_with_its_money_its_units_and_its_verbatim_ids(tmp_path):
    _, (row,) = convert(tmp_path, "1,15056bl,PARASOL,6,2011-01-10 09:00:00,2.55,17850.0,EIRE")
    assert (row["key"], row["item_id"], row["session_id"]) == ("17850.0", "15056bl", "1")
    assert (row["quantity"], row["value"], row["region"]) == (6.0, 15.3, "EIRE")


def test_fees_and_write_offs_are_left_out_and_guests_and_dirt_carried(tmp_path):
    counts, rows = convert(
        tmp_path,
        "1,POST,POSTAGE,1,2011-01-10 09:00:00,18,17850.0,France",
        "C2,M,Manual,-1,2011-01-10 09:01:00,5,17850.0,France",
        "A3,B,Adjust bad debt,1,2011-01-10 09:02:00,-11062.06,,United Kingdom",
        "4,22,damages,-30,2011-01-10 09:03:00,0,,United Kingdom",
        "5,22,HEART,2,2011-01-10 09:04:00,2.5,,United Kingdom",
        "6,22,HEART,many,2011-01-10 09:05:00,2.5,9,United Kingdom",
        "7,22,HEART,2,2011-01-10 09:06:00,-2.5,9,United Kingdom",
        "8,22,HEART,2,2011-01-10 09:07:00,0,9,United Kingdom",
        "C9,22,HEART,-2,2011-01-10 09:08:00,2.5,9,United Kingdom",
        "10,22,HEART,2,yesterday,2.5,9,United Kingdom",
    )
    assert counts == {
        "events": 6, "items": 1, "lines_without_item_left_out": 3, "write_offs_left_out": 1,
        "broken_lines_left_out": 0,
    }  # fmt: skip
    guest, many, negative, gift, back, timeless = rows
    assert guest["key"] is None
    assert math.isnan(many["quantity"])
    assert negative["value"] == -5.0
    assert (gift["event_type"], gift["value"]) == ("purchase", 0.0)
    assert (back["event_type"], back["quantity"], back["value"]) == ("return", 2.0, 5.0)
    assert timeless["event_time"] is None


def test_a_title_is_the_first_sales_and_not_a_stock_keepers_note_or_a_later_name(tmp_path):
    convert(
        tmp_path,
        "1,22,found,5,2011-01-09 09:00:00,0,,United Kingdom",
        "2,22,  HEART ,1,2011-01-10 09:00:00,2.5,9,United Kingdom",
        "3,22,HEART NEW,1,2011-02-10 09:00:00,2.5,9,United Kingdom",
    )
    (item,) = shared.rows(tmp_path / "out", "items")
    assert (item["title"], item["valid_from"].day) == ("HEART", 10)


def test_bytes_that_are_not_utf8_are_read_as_windows_1252(tmp_path):
    (tmp_path / "day.csv").write_bytes(
        HEADER.encode() + b"1,22,\xa310 'GIFT' \"x\",1,2011-01-10 09:00:00,2.5,9,United Kingdom\n"
    )
    online_retail.convert(str(tmp_path), tmp_path / "out")
    assert shared.column(tmp_path / "out", "items", "title") == ["£10 'GIFT' \"x\""]
