"""The simulator: the same settings give the same shop, and the shop is what it says."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jobs.errors import Fault
from jobs.sources import contract, simulated
from jobs.sources.simulated import campaigns, days, keys, visits
from tests.sources import shared

SETTINGS = "events=60000,seed=3,people=800,items=300,days=90,taste_days=40"
END = pd.Timestamp("2024-03-01", tz="UTC")
START = END - pd.Timedelta(days=90)


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    simulated.convert(SETTINGS, folder)
    return folder


@pytest.fixture(scope="module")
def events(shop) -> pd.DataFrame:
    return pd.read_parquet(shop / "events")


@pytest.fixture(scope="module")
def persons(shop, events) -> pd.DataFrame:
    """Distinct events, with the person of each."""
    once = events[events["revision"] == 0].drop_duplicates("event_id")
    return once.merge(truth(shop, "sessions"), on="session_id", how="left")


def truth(shop: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(shop / "truth" / name)


# --- the delivery ----------------------------------------------------------------------------
def test_it_fits_the_contract_with_exactly_the_rows_asked_for(shop):
    facts = {fact.table: fact.rows for fact in contract.check(shop)}
    assert facts["events"] == 60_000
    assert facts["people"] == 800
    assert len(set(shared.column(shop, "items", "item_id"))) == 300
    for table in ("identity_links", "promotions", "recommendation_log"):
        assert facts[table] > 100


@pytest.mark.parametrize("settings", [
    "events=1000,people=20,items=50,days=2", "events=5000,days=400,returns=0.5,people=30",
    "events=3000,people=40,requests=1,logins=1,email_clicks=1,guesses=1,false_links=1,links_late=1",
    "events=3000,people=40,shared=0,recycled=0,unlinks=0,households=0,requests=0,promotions=0,"
    "stockouts=0,taste_days=0,device_days=0,logins=0,email_clicks=0,guesses=0,campaigns=0",
    "events=3000,people=40,campaigns=1,campaign_changes=1",
    "events=3000,people=40,shared=0.5,recycled=0.5,cookie_days=1,device_days=1,taste_days=1",
])  # fmt: skip
def test_extreme_settings_make_shops_too(settings, tmp_path):
    counted = simulated.convert(settings, tmp_path)
    facts = {fact.table: fact.rows for fact in contract.check(tmp_path)}
    assert facts["events"] == counted["events"] == counted["rows"]["events"]


def test_equal_settings_give_equal_rows_and_another_seed_others(shop, tmp_path):
    simulated.convert(SETTINGS, tmp_path / "same")
    simulated.convert(SETTINGS.replace("seed=3", "seed=4"), tmp_path / "other")
    digests = [
        [fact.digest for fact in contract.check(folder)]
        for folder in (shop, tmp_path / "same", tmp_path / "other")
    ]
    assert digests[0] == digests[1]
    assert digests[0][0] != digests[2][0]
    truths = [
        [path.read_bytes() for path in sorted((folder / "truth").rglob("*.*"))]
        for folder in (shop, tmp_path / "same")
    ]
    assert truths[0] == truths[1]


def test_files_are_written_as_the_days_are_made(tmp_path, monkeypatch):
    monkeypatch.setattr(days, "ROWS_PER_FILE", 300)
    simulated.convert("events=2000,people=50,items=60,days=10", tmp_path)
    assert len(list((tmp_path / "events").iterdir())) > 3
    assert contract.check(tmp_path)[0].rows == 2000


def test_events_lie_within_the_days_and_are_received_after_they_happen(events):
    assert events["event_time"].min() >= START
    assert events["event_time"].max() < END
    assert (events["received_time"] >= events["event_time"]).all()
    late = events["received_time"] - events["event_time"] > timedelta(hours=1)
    assert 0.005 < late.mean() < 0.03


def test_repeats_and_corrections_come_at_their_rates(events):
    repeated = events.duplicated(["event_id", "revision"]).mean()
    corrected = (events["revision"] == 1).mean()
    assert repeated == pytest.approx(0.005, abs=0.002)
    assert corrected == pytest.approx(0.001, abs=0.001)


def test_purchases_come_back_at_their_rate_for_what_was_paid(events, persons):
    bought = persons[persons["event_type"] == "purchase"]
    returned = persons[persons["event_type"] == "return"]
    early = bought["event_time"] < END - pd.Timedelta(days=20)
    assert len(returned) / early.sum() == pytest.approx(0.03, abs=0.01)
    back = returned.merge(bought, on=["session_id", "item_id"], suffixes=("", "_paid"))
    assert set(back["event_id"]) == set(returned["event_id"])
    unit = (back["value"] / back["quantity"] - back["value_paid"] / back["quantity_paid"]).abs()
    assert unit.groupby(back["event_id"]).min().max() < 0.011


def test_every_kind_of_event_and_of_key_occurs(events):
    assert set(events["event_type"]) == set(visits.TYPES)
    assert set(events["key_type"]) == set(keys.KEY_TYPES) - {"email_hash"}


# --- campaigns -------------------------------------------------------------------------------
def test_sessions_begin_with_campaigns_at_their_rate_and_the_truth_says_with_which(shop, persons):
    online = persons[(persons["event_type"] != "return") & (persons["channel"] != "store")]
    visits = online.groupby("session_id")[["first_campaign", "later_campaign"]].first()
    visits = visits.astype(object).where(visits.notna(), None)
    told, later = visits["first_campaign"], visits["later_campaign"]
    assert told.notna().mean() == pytest.approx(0.15, abs=0.01)
    assert later.notna().mean() == pytest.approx(0.03 * 0.7, abs=0.005)
    rows = online.dropna(subset="campaign").sort_values("event_time").groupby("session_id")
    assert rows["campaign"].first().to_dict() == told.combine_first(later).dropna().to_dict()
    assert rows["campaign"].last().to_dict() == later.combine_first(told).dropna().to_dict()
    assert (told != later)[told.notna()].all()


def test_campaigns_are_followed_while_they_run_and_never_in_a_store(shop, persons):
    told = truth(shop, "campaigns")
    assert set(told["kind"]) == set(campaigns.KINDS)
    rows = persons[persons["campaign"].notna()].merge(told, on="campaign", suffixes=("_visit", ""))
    assert len(rows) == persons["campaign"].notna().sum() > 1000
    assert (rows["channel"] != "store").all()
    assert (rows["event_type"] != "return").all()
    # Visits of a day may end behind its midnight by their length at most.
    assert (rows["event_time"] >= rows["starts"]).all()
    assert (rows["event_time"] < rows["ends"] + pd.Timedelta(minutes=30)).all()


def test_without_campaigns_every_other_column_is_the_same(shop, events, tmp_path):
    simulated.convert(f"{SETTINGS},campaigns=0,campaign_changes=0", tmp_path)
    without = pd.read_parquet(tmp_path / "events")
    assert without["campaign"].isna().all()
    assert events["campaign"].notna().any()
    pd.testing.assert_frame_equal(without.drop(columns="campaign"), events.drop(columns="campaign"))
    for table in ("identity_links", "recommendation_log"):
        pd.testing.assert_frame_equal(
            pd.read_parquet(tmp_path / table), pd.read_parquet(shop / table)
        )


# --- tastes and seasons ----------------------------------------------------------------------
def test_tastes_have_the_planted_hazard(shop):
    tastes = truth(shop, "tastes")
    begun = tastes["starts"].fillna(START)
    lived = (tastes["ends"].fillna(END) - begun) / pd.Timedelta(days=1)
    ended = tastes["ends"].notna()
    assert lived.sum() / ended.sum() == pytest.approx(40, rel=0.03)
    # Memoryless: of those that hold on a day, the same share holds 20 days later, whatever the day.
    for day in (0, 30, 60):
        then = START + pd.Timedelta(days=day)
        held = (begun <= then) & ~(tastes["ends"] <= then)
        still = held & ~(tastes["ends"] <= then + pd.Timedelta(days=20))
        assert still.sum() / held.sum() == pytest.approx(np.exp(-20 / 40), abs=0.02)


def test_a_persons_tastes_follow_one_another_without_gaps(shop):
    tastes = truth(shop, "tastes")
    spells = tastes.sort_values(["kind", "person", "slot", "starts"], na_position="first")
    before = spells.groupby(["kind", "person", "slot"])["ends"].shift()
    inner = spells["starts"].notna()
    assert (before[inner] == spells["starts"][inner]).all()
    assert inner.sum() > 1000
    changed = spells.groupby(["kind", "person", "slot"])[["category", "item_id"]].shift()
    favourite = inner & (spells["kind"] == "favourite")
    assert (changed["category"][favourite] != spells["category"][favourite]).all()
    staple = inner & (spells["kind"] == "staple")
    assert (changed["item_id"][staple] != spells["item_id"][staple]).all()


def test_people_look_at_what_they_like_that_day(shop, persons):
    items = pd.DataFrame(shared.rows(shop, "items")).drop_duplicates("item_id")
    seen = persons[persons["event_type"] == "view"].merge(
        items[["item_id", "category"]], on="item_id"
    )
    tastes = truth(shop, "tastes")
    tastes = tastes[tastes["kind"] == "favourite"]
    both = seen.merge(tastes, on="person", suffixes=("", "_liked"))
    both = both[both["category"] == both["category_liked"]]
    held = both[
        (both["starts"].isna() | (both["starts"] <= both["event_time"]))
        & (both["ends"].isna() | (both["event_time"] < both["ends"]))
    ]
    now = held["event_id"].nunique() / len(seen)
    ever = both["event_id"].nunique() / len(seen)
    assert now > 0.6
    assert now > 0.8 * ever


def test_people_buy_their_own_things_again(persons):
    bought = persons[persons["event_type"] == "purchase"]
    again = bought.sort_values("event_time").duplicated(["person", "item_id"]).mean()
    shuffled = bought.assign(person=bought["person"].sample(frac=1, random_state=1).to_numpy())
    chance = shuffled.duplicated(["person", "item_id"]).mean()
    assert again > 1.3 * chance  # among 300 items of Zipf popularity chance alone repeats much


def test_categories_have_their_season(tmp_path):
    simulated.convert("events=60000,people=800,items=300,days=360,season=1", tmp_path)
    items = pd.DataFrame(shared.rows(tmp_path, "items")).drop_duplicates("item_id")
    seen = pd.read_parquet(tmp_path / "events").merge(
        items[["item_id", "category"]], on="item_id"
    ).merge(truth(tmp_path, "categories"), on="category")  # fmt: skip
    away = (seen["event_time"].dt.dayofyear - seen["peak_day_of_year"]) / 365.25
    assert np.cos(2 * np.pi * away).mean() > 0.2


# --- the shelf -------------------------------------------------------------------------------
def test_nothing_is_seen_before_it_is_launched(shop, events):
    created = {row["item_id"]: row["created_time"] for row in shared.rows(shop, "items")}
    assert (events["event_time"] >= events["item_id"].map(created)).all()
    launched = [time for time in created.values() if time > events["event_time"].min()]
    assert launched


def test_nobody_buys_what_is_out_of_stock(shop, persons):
    out = truth(shop, "stockouts")
    both = persons[persons["event_type"] == "purchase"].merge(out, on="item_id")
    during = (both["starts"] <= both["event_time"]) & ~(both["ends"] <= both["event_time"])
    assert len(both) > 1000
    assert not during.any()


def test_items_are_out_of_stock_at_their_rate_and_the_catalogue_says_when(shop):
    out = truth(shop, "stockouts")
    days_out = (out["ends"].fillna(END).clip(upper=END) - out["starts"].clip(lower=START)).dt.days
    back = out["ends"].notna()
    assert days_out[back].sum() / (300 * 90) == pytest.approx(0.03, abs=0.012)
    rows = pd.DataFrame(shared.rows(shop, "items"))
    changes = rows[rows["valid_from"].notna()]
    said = set(zip(changes["item_id"], changes["valid_from"], changes["available"], strict=True))
    told = set(zip(out["item_id"], out["starts"], [False] * len(out), strict=True))
    told |= set(zip(out["item_id"][back], out["ends"][back], [True] * back.sum(), strict=True))
    assert said == told
    assert len(changes) == len(said)


def test_promotions_lift_purchases_as_told_and_cut_prices(tmp_path):
    simulated.convert(
        "events=150000,people=1000,items=120,days=60,promotions=0.2,uplift=3,stockouts=0", tmp_path
    )
    told = truth(tmp_path, "promotions")
    events = pd.read_parquet(tmp_path / "events")
    events = events[events["revision"] == 0].drop_duplicates("event_id")
    start = END - pd.Timedelta(days=60)
    day = (events["event_time"] - start).dt.days
    items = pd.DataFrame(shared.rows(tmp_path, "items"))
    items = items[items["valid_from"].isna()].set_index("item_id")
    old = items.index[items["created_time"] < start]
    # Views of long launched items; staples are bought whatever is on promotion.
    views = events[(events["event_type"] == "view") & events["item_id"].isin(old)]
    grid = pd.crosstab(views["item_id"], day).reindex(old, fill_value=0)
    on = pd.DataFrame(False, index=old, columns=grid.columns)
    for row in told[told["item_id"].isin(old)].itertuples():
        span = [(row.starts - start).days, (row.ends - start).days - 1]
        on.loc[row.item_id, (on.columns >= span[0]) & (on.columns <= span[1])] = True
    assert on.to_numpy().mean() == pytest.approx(0.2, abs=0.04)
    # Each item's views a day, on and off promotion, as shares of its category's other items.
    ratio = grid.where(on).mean(axis=1) / grid.where(~on).mean(axis=1)
    weight = grid.sum(axis=1)
    lift = np.exp(np.average(np.log(ratio.clip(lower=0.1).fillna(1)), weights=weight))
    assert 1.7 < lift < 3.2
    cut = told[told["discount"].notna()]
    assert set(cut["kind"]) == {"price"}
    paid = events[events["event_type"] == "purchase"].merge(cut, on="item_id")
    paid = paid[(paid["starts"] <= paid["event_time"]) & (paid["event_time"] < paid["ends"])]
    full = items["price"].reindex(paid["item_id"]).to_numpy() * paid["quantity"]
    assert (paid["value"] - full * (1 - paid["discount"])).abs().max() < 0.011


def test_some_items_are_restricted_and_some_people_refuse(shop):
    flags = Counter(f for row in shared.rows(shop, "items") for f in row["flags"] or [])
    assert flags["alcohol"] > 0
    people = shared.rows(shop, "people")
    assert any(row["consents"] == [] for row in people)
    assert any(row["restrictions"] == ["alcohol"] for row in people)


# --- settings --------------------------------------------------------------------------------
@pytest.mark.parametrize("argument", ["days=9,end=2020-01-10", "events=1500", None])
def test_settings_are_read(argument):
    shop = simulated.parse(argument)
    assert shop.sized().people >= 20
    if argument and "end" in argument:
        assert shop.start == datetime(2020, 1, 1, tzinfo=UTC)


def test_the_truth_holds_the_settings(shop):
    told = json.loads((shop / "truth" / "settings.json").read_text())
    assert (told["taste_days"], told["people"], told["shared"]) == (40, 800, 0.02)


def test_all_that_is_wrong_with_settings_is_named_at_once():
    with pytest.raises(Fault) as fault:
        simulated.parse("events=many,sede=7,people=100,people=3")
    for part in ("events='many' is no int", "'sede=7' is none of", "people is given twice"):
        assert part in str(fault.value)
    for settings, complaint in {
        "events=5": "events must be at least 1000",
        "end=tomorrow": "end is 'tomorrow'",
        "shared=0.7": r"shared must be in \[0, 0.5\]",
        "taste_days=0.5": "taste_days must be 0 or at least 1",
        "uplift=nan": "uplift must be in",
    }.items():
        with pytest.raises(Fault, match=complaint):
            simulated.parse(settings)
