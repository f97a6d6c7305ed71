"""The simulator: the same settings give the same shop, and the shop is what it says."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jobs.errors import Fault
from jobs.sources import contract, simulated
from tests.sources import shared

SETTINGS = "events=40000,seed=3,people=500,items=300,days=60"


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    simulated.convert(SETTINGS, folder)
    return folder


@pytest.fixture(scope="module")
def events(shop) -> pd.DataFrame:
    return pd.read_parquet(shop / "events")


def test_it_fits_the_contract_with_exactly_the_rows_asked_for(shop):
    facts = {fact.table: fact.rows for fact in contract.check(shop)}
    assert facts["events"] == 40_000
    assert (facts["items"], facts["people"]) == (300, 500)
    assert facts["identity_links"] > 100


def test_equal_settings_give_equal_rows_and_another_seed_others(shop, tmp_path):
    simulated.convert(SETTINGS, tmp_path / "same")
    simulated.convert(SETTINGS.replace("seed=3", "seed=4"), tmp_path / "other")
    digests = [
        [fact.digest for fact in contract.check(folder)]
        for folder in (shop, tmp_path / "same", tmp_path / "other")
    ]
    assert digests[0] == digests[1]
    assert digests[0][0] != digests[2][0]


def test_files_are_written_as_the_days_are_made(tmp_path, monkeypatch):
    monkeypatch.setattr(simulated, "ROWS_PER_FILE", 300)
    simulated.convert("events=2000,people=50,items=60,days=10", tmp_path)
    assert len(list((tmp_path / "events").iterdir())) > 3
    assert contract.check(tmp_path)[0].rows == 2000


def test_events_lie_within_the_days_and_are_received_after_they_happen(events):
    end = datetime(2024, 3, 1, tzinfo=UTC)
    assert events["event_time"].min() >= end - timedelta(days=60)
    assert events["event_time"].max() < end
    assert (events["received_time"] >= events["event_time"]).all()
    late = events["received_time"] - events["event_time"] > timedelta(hours=1)
    assert 0.005 < late.mean() < 0.03


def test_repeats_and_corrections_come_at_their_rates(events):
    repeated = events.duplicated(["event_id", "revision"]).mean()
    corrected = (events["revision"] == 1).mean()
    assert repeated == pytest.approx(0.005, abs=0.002)
    assert corrected == pytest.approx(0.001, abs=0.001)


def test_every_kind_of_event_and_of_key_occurs(events):
    assert set(events["event_type"]) == set(simulated.TYPES)
    assert set(events["key_type"]) == set(simulated.KEY_TYPES)


def test_every_key_has_one_true_person_and_only_accounts_tell_whose_they_are(shop, events):
    truth = pd.DataFrame(shared.rows(shop, "truth/keys"))
    assert not truth.duplicated(["key_type", "key"]).any()
    seen = set(zip(events["key_type"], events["key"], strict=True))
    assert seen == set(zip(truth["key_type"], truth["key"], strict=True))
    hidden = truth[truth["key_type"] != "account"]
    number = hidden["key"].str[1:].astype(float)
    assert abs(np.corrcoef(number.rank(), hidden["person"])[0, 1]) < 0.2


def test_links_of_logins_and_cards_are_true(shop):
    truth = {(r["key_type"], r["key"]): r["person"] for r in shared.rows(shop, "truth/keys")}
    accounts = {f"a{person + 10_000}": person for person in range(500)}
    for link in shared.rows(shop, "identity_links"):
        if link["source"] == "login":
            assert truth[link["key_type_a"], link["key_a"]] == accounts[link["key_b"]]


def test_people_buy_their_own_things_again(shop, events):
    truth = pd.DataFrame(shared.rows(shop, "truth/keys"))
    bought = events[events["event_type"] == "purchase"].drop_duplicates("event_id")
    bought = bought.merge(truth, on=["key_type", "key"])
    again = bought.sort_values("event_time").duplicated(["person", "item_id"]).mean()
    shuffled = bought.assign(person=bought["person"].sample(frac=1, random_state=1).to_numpy())
    chance = shuffled.duplicated(["person", "item_id"]).mean()
    assert again > 1.3 * chance  # among 300 items of Zipf popularity chance alone repeats much


def test_tastes_move_on_their_day(shop, events):
    truth = pd.DataFrame(shared.rows(shop, "truth/people"))
    keys = pd.DataFrame(shared.rows(shop, "truth/keys"))
    seen = events.merge(keys, on=["key_type", "key"])
    items = pd.DataFrame(shared.rows(shop, "items"))[["item_id", "category"]]
    seen = seen.merge(items, on="item_id")
    seen["number"] = seen["category"].str.extract(r"Category (\d+)").astype(int)
    start = pd.Timestamp(datetime(2024, 3, 1, tzinfo=UTC) - timedelta(days=60))
    seen["day"] = (seen["event_time"] - start).dt.days
    moved = truth[(truth["favourite"] == 0) & (truth["category_before"] != truth["category_after"])]
    moved = moved[moved["moved_on_day"] > 5]
    both = seen.merge(moved, on="person")
    new = both["number"] == both["category_after"]
    later = both["day"] >= both["moved_on_day"]
    assert new[later].mean() > 2 * new[~later].mean()


def test_nothing_is_seen_before_it_is_launched(shop, events):
    created = {row["item_id"]: row["created_time"] for row in shared.rows(shop, "items")}
    assert (events["event_time"] >= events["item_id"].map(created)).all()
    launched = [time for time in created.values() if time > events["event_time"].min()]
    assert launched


def test_some_items_are_restricted_and_some_people_refuse(shop):
    flags = Counter(f for row in shared.rows(shop, "items") for f in row["flags"] or [])
    assert flags["alcohol"] > 0
    people = shared.rows(shop, "people")
    assert any(row["consents"] == [] for row in people)
    assert any(row["restrictions"] == ["alcohol"] for row in people)


@pytest.mark.parametrize("argument", ["days=9,end=2020-01-10", "events=1500", None])
def test_settings_are_read(argument):
    shop = simulated.parse(argument)
    assert shop.sized().people >= 20
    if argument and "end" in argument:
        assert shop.start == datetime(2020, 1, 1, tzinfo=UTC)


def test_all_that_is_wrong_with_settings_is_named_at_once():
    with pytest.raises(Fault) as fault:
        simulated.parse("events=many,sede=7,people=100,people=3")
    for part in ("events='many' is no int", "'sede=7' is none of", "people is given twice"):
        assert part in str(fault.value)
    with pytest.raises(Fault, match="events must be at least 1000"):
        simulated.parse("events=5")
    with pytest.raises(Fault, match="end is 'tomorrow'"):
        simulated.parse("end=tomorrow")
