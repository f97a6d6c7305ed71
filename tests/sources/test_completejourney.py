"""Complete Journey: a real slice of the package's own files, and hand-made corners."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from jobs.errors import Fault
from jobs.sources import completejourney, contract
from tests.sources import shared

HOUSEHOLDS = 60
WEEKS = 2
FUEL = 6534178


@pytest.fixture(scope="module")
def upstream() -> dict[str, Path]:
    return {path.stem: path for path in completejourney.upstream(None)}


@pytest.fixture(scope="module")
def slice_folder(upstream, tmp_path_factory) -> Path:
    """The package's files with the first households, and promotions of the first weeks."""
    folder = tmp_path_factory.mktemp("upstream")
    few = pc.field("household_id") <= HOUSEHOLDS
    for name, path in upstream.items():
        whole = pq.ParquetFile(path).schema_arrow.names
        where = few if "household_id" in whole else None
        if name == "promotions":
            where = pc.field("week") <= WEEKS
        pq.write_table(pq.read_table(path, filters=where), folder / path.name)
    return folder


@pytest.fixture(scope="module")
def converted(slice_folder, tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("contract")
    return folder, completejourney.convert(str(slice_folder), folder)


def test_every_line_with_a_positive_quantity_is_a_purchase(slice_folder, converted):
    folder, counts = converted
    lines = pd.read_parquet(slice_folder / "transactions.parquet")
    contract.check(folder)
    assert counts["events"] == (lines["quantity"] > 0).sum()
    assert counts["lines_without_positive_quantity_left_out"] == (lines["quantity"] <= 0).sum() > 0
    ids = shared.column(folder, "events", "event_id")
    assert len(set(ids)) == counts["events"]
    bought = lines[lines["quantity"] > 0]
    assert sum(shared.column(folder, "events", "value")) == pytest.approx(
        bought["sales_value"].sum()
    )
    assert set(shared.column(folder, "events", "key")) == set(bought["household_id"].astype(str))


def test_a_line_is_carried_as_it_stands(slice_folder, converted):
    folder, _ = converted
    lines = pd.read_parquet(slice_folder / "transactions.parquet")
    line = lines[lines["quantity"] > 0].sort_values("transaction_timestamp").iloc[0]
    (event,) = [
        row
        for row in shared.rows(folder, "events")
        if row["event_id"] == f"{line.basket_id}:{line.product_id}"
    ]
    assert event["event_time"] == line.transaction_timestamp.tz_localize("UTC")
    assert event["session_id"] == str(line.basket_id)
    assert (event["event_type"], event["channel"]) == ("purchase", "store")


def test_fuel_is_an_item_and_counted_in_gallons(converted):
    folder, _ = converted
    fuel = [row for row in shared.rows(folder, "events") if row["item_id"] == str(FUEL)]
    assert fuel
    prices = [row["value"] / row["quantity"] for row in fuel if row["quantity"]]
    assert 1.5 < np.median(prices) < 3.5  # dollars a gallon in 2017


def test_prepaid_fuel_says_no_volume():
    got = completejourney.gallons(
        pa.chunked_array([[1, 10_004, 3]]), pa.chunked_array([[True, True, False]])
    )
    assert got.to_pylist() == [None, 10.004, 3.0]


def test_products_have_readable_titles_paths_and_flags(converted):
    folder, counts = converted
    assert counts["items"] == 92_331
    items = {row["item_id"]: row for row in shared.rows(folder, "items")}
    ice = items["25671"]
    assert ice["title"] == "Ice - Crushed/Cubed, 22 lb"
    assert ice["category"] == "GROCERY > FRZN ICE > ICE - CRUSHED/CUBED"
    assert dict(ice["attributes"]) == {"package_size": "22 LB"}
    assert items["26081"]["category"] == "MISCELLANEOUS"
    assert dict(items[str(FUEL)]["attributes"])["unit"] == "gallon"
    flagged = {}
    for item in items.values():
        for flag in item["flags"]:
            flagged.setdefault(flag, set()).add(item["category"].split(" > ")[0])
    assert {"SPIRITS", "GROCERY"} <= flagged["alcohol"]
    assert "DRUG GM" in flagged["tobacco"] & flagged["drug"]
    magazines = [i for i in items.values() if i["category"].startswith("DRUG GM > MAGAZINE")]
    assert not any(item["flags"] for item in magazines)


def test_the_catalogue_knows_no_price_and_so_none_of_the_future(converted):
    folder, _ = converted
    assert set(shared.column(folder, "items", "price")) == {None}


def test_households_keep_their_demographics_and_dated_campaigns(converted):
    folder, _ = converted
    people = {row["key"]: row for row in shared.rows(folder, "people")}
    first = people["1"]
    assert (first["key_type"], first["segment"]) == ("account", "2 Adults No Kids")
    assert dict(first["attributes"])["age"] == "65+"
    campaigns = [a for a in dict(first["attributes"]) if a.startswith("campaign:")]
    assert all(" to 201" in dict(first["attributes"])[name] for name in campaigns)


def test_weeks_begin_when_the_real_weeks_of_the_shop_do(upstream):
    lines = pq.read_table(
        upstream["transactions"], columns=["week", "transaction_timestamp"]
    ).to_pandas()
    seen = lines.groupby("week")["transaction_timestamp"].agg(["min", "max"])
    starts, ends = (
        bounds.to_pandas().dt.tz_localize(None) for bounds in completejourney.week_bounds(53)
    )
    assert (seen["min"].to_numpy() >= starts.to_numpy()).all()
    assert (seen["max"].to_numpy() < ends.to_numpy()).all()


def test_promotions_are_the_real_placements_as_runs_of_weeks(slice_folder, converted):
    folder, _ = converted
    written = pd.read_parquet(folder / "promotions")
    placements = pd.read_parquet(slice_folder / "promotions.parquet")
    shown = placements[placements["display_location"] != "0"]
    shown = shown.drop_duplicates(["product_id", "store_id", "week"])
    display = written[written["kind"] == "display"]
    # Week 1 and week 2 in the same store are one run of two weeks.
    weeks = ((display["ends"] - display["starts"]).dt.days / 7).sum()
    assert weeks == len(shown)
    assert len(display) < len(shown)
    wide = written[(written["kind"] == "mailer") & written["store"].isna()]
    coupons = written[written["kind"] == "coupon"]
    assert len(wide) > 100
    assert (coupons["ends"] > coupons["starts"]).all()


def test_a_mailer_in_half_of_the_stores_is_one_row_for_all():
    # products 5 and 7, stores 1 to 4, weeks 1 to 3; cell = (product * 4 + store) * 3 + week
    cells = np.array([0, 3, 13, 16, 14, 21])
    everywhere = np.zeros(24, dtype=bool)
    grid = completejourney.Placements(
        np.array([5, 7]), np.array([1, 2, 3, 4]), 3, np.concatenate([cells, np.arange(24)]),
        np.concatenate([np.zeros(6, bool), everywhere]),
        np.concatenate([np.ones(6, bool), everywhere]),
    )  # fmt: skip
    (_, _, wide), (_, _, single), (_, _, display) = grid.kinds()
    # Product 5 in week 1 and product 7 in week 2 reached two stores of four.
    assert wide.tolist() == [0, 4]
    assert single.tolist() == [14, 21]
    assert display.tolist() == []


def test_a_run_ends_where_a_week_is_missing_or_a_year_is_over():
    first, length = completejourney.runs(np.array([0, 1, 2, 4, 5, 6]), weeks=5)
    assert first.tolist() == [0, 4, 5]
    assert length.tolist() == [3, 1, 2]


def test_stores_that_share_households_share_an_area():
    # Two towns of nine stores; the households of one never visit the other.
    rng = np.random.default_rng(1)
    household = np.repeat(np.arange(400), 12)
    town = household % 2
    store = 100 * town + rng.integers(0, 9, len(household))
    lines = pa.table({
        "household_id": household, "store_id": store, "week": np.ones(len(household), int),
        "basket_id": np.arange(len(household)),
    })  # fmt: skip
    named = completejourney.areas(lines)
    assert not set(named[named.index < 100]) & set(named[named.index >= 100])
    assert named.nunique() == completejourney.AREAS


def test_a_missing_file_of_the_package_is_named(tmp_path):
    with pytest.raises(Fault, match=r"lacks transactions\.parquet, products\.parquet"):
        completejourney.upstream(str(tmp_path))


def test_the_real_areas_are_few_and_people_stay_in_theirs(upstream):
    columns = ["household_id", "store_id", "basket_id", "week"]
    lines = pq.read_table(upstream["transactions"], columns=columns)
    named = completejourney.areas(lines)
    baskets = lines.to_pandas().drop_duplicates("basket_id")
    visits = baskets.assign(area=baskets["store_id"].map(named))
    visits = visits.groupby(["household_id", "area"]).size()
    own = visits.groupby("household_id").max() / visits.groupby("household_id").sum()
    assert named.nunique() == completejourney.AREAS + 1
    assert own.mean() > 0.85
    assert named.loc[baskets.loc[0, "store_id"]].startswith(("area-", "other"))


def test_times_of_coupons_cover_their_last_day(converted):
    folder, _ = converted
    written = pd.read_parquet(folder / "promotions", filters=[("kind", "==", "coupon")])
    assert datetime(2017, 4, 10, tzinfo=UTC) in set(
        written["ends"]
    )  # campaigns 1 and 2 end on April 9
