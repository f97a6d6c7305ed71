"""The simulator's keys and links: their rates, and that data and truth say the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jobs.sources import simulated

SETTINGS = "events=120000,people=2000,items=400,days=150,seed=5"
KEY = ["key_type", "key"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    simulated.convert(SETTINGS, folder)
    return folder


@pytest.fixture(scope="module")
def holders(shop) -> pd.DataFrame:
    """truth/keys with bounds far away in place of nulls."""
    rows = pd.read_parquet(shop / "truth" / "keys")
    rows["starts"] = rows["starts"].fillna(pd.Timestamp("1970-01-01", tz="UTC"))
    rows["ends"] = rows["ends"].fillna(pd.Timestamp("2100-01-01", tz="UTC"))
    return rows


@pytest.fixture(scope="module")
def links(shop) -> pd.DataFrame:
    return pd.read_parquet(shop / "truth" / "links")


def held(rows: pd.DataFrame, holders: pd.DataFrame, end: str, time: str) -> pd.Series:
    """Whether each row's person holds its key at its time."""
    names = {"key_type": f"key_type{end}", "key": f"key{end}"}
    spells = holders.rename(columns=names)
    numbered = rows.reset_index(names="row")
    both = numbered.merge(spells, on=[*names.values(), "person"])
    inside = (both["starts"] <= both[time]) & (both[time] < both["ends"])
    return pd.Series(rows.index.isin(both["row"][inside]), index=rows.index)


def test_every_event_is_under_a_key_that_its_person_holds_then(shop, holders):
    events = pd.read_parquet(shop / "events")
    events = events.merge(pd.read_parquet(shop / "truth" / "sessions"), on="session_id")
    assert len(events) == 120_000
    assert held(events, holders, "", "event_time").all()


def test_the_truth_has_each_key_of_the_data_and_no_other(shop, holders, links):
    seen = set(pd.read_parquet(shop / "events")[KEY].itertuples(index=False, name=None))
    for end in ("_a", "_b"):
        seen |= set(links[[f"key_type{end}", f"key{end}"]].itertuples(index=False, name=None))
    assert seen == set(holders[KEY].itertuples(index=False, name=None))


def test_only_accounts_tell_whose_they_are(holders):
    hidden = holders[holders["key_type"] != "account"]
    number = hidden["key"].str[1:].astype(float)
    assert abs(np.corrcoef(number.rank(), hidden["person"])[0, 1]) < 0.05


def test_the_accounts_of_the_truth_are_those_of_the_people(shop, holders):
    people = pd.read_parquet(shop / "truth" / "people")
    both = holders[holders["key_type"] == "account"].merge(people, on="person")
    assert (both["key"] == both["account"]).all()


def test_devices_are_shared_at_their_rate_by_two_to_five(holders):
    users = holders[holders["key_type"] == "device"].groupby("key")["person"].nunique()
    assert (users > 1).mean() == pytest.approx(0.02, abs=0.008)
    assert set(users[users > 1]) <= {2, 3, 4, 5}


def test_cookies_pass_to_other_people_at_their_rate_one_browser_at_a_time(holders):
    cookies = holders[holders["key_type"] == "cookie"]
    lives = cookies.drop_duplicates(["key", "starts"]).sort_values(["key", "starts"])
    assert (lives.groupby("key").size() > 1).mean() == pytest.approx(0.05, abs=0.012)
    before = lives.groupby("key")[["ends", "person"]].shift()
    again = before["ends"].notna()
    assert (before["ends"][again] <= lives["starts"][again]).all()
    assert (before["person"][again] != lives["person"][again]).all()


def test_people_have_several_devices_and_cookies_over_time(holders):
    for kind, least in (("device", 0.2), ("cookie", 0.7)):
        mine = holders[holders["key_type"] == kind].groupby("person")["key"].nunique()
        assert (mine > 1).mean() > least
    cookies = holders[holders["key_type"] == "cookie"]
    assert ((cookies["ends"] - cookies["starts"]).dt.days <= 30).all()


def test_links_are_true_but_for_the_planted_share_of_guesses(links, holders):
    guesses = links[links["source"] == "probabilistic"]
    assert (~guesses["true"]).mean() == pytest.approx(0.03, abs=0.012)
    assert links[links["source"] != "probabilistic"]["true"].all()
    once = links[(links["action"] == "link") & (links["source"] != "household")]
    known = once[once["source"] != "registration"]  # which may be older than the data
    first = held(known, holders, "_a", "observed_time")
    second = held(known, holders, "_b", "observed_time")
    # A guess may tie a shared device to a cookie there that only its other user had.
    assert (first & second)[known["true"] & (known["source"] != "probabilistic")].all()
    assert (first & second)[known["true"]].mean() > 0.995
    # A wrong guess names a stranger's key, but for a cookie or device that both hold.
    assert (first & second)[~known["true"]].mean() < 0.2


def test_confidence_tells_right_guesses_from_wrong_ones_mostly(links):
    guesses = links[links["source"] == "probabilistic"]
    right, wrong = guesses[guesses["true"]]["confidence"], guesses[~guesses["true"]]["confidence"]
    assert right.mean() == pytest.approx(0.95, abs=0.01)
    assert wrong.mean() == pytest.approx(0.70, abs=0.03)
    assert guesses["confidence"].between(0, 1).all()
    others = links[links["source"].isin(["login", "email_click", "registration"])]
    assert (others["confidence"] == 1.0).all()


def test_links_come_late_twice_and_are_taken_back_at_their_rates(links):
    lag = links["received_time"] - links["observed_time"]
    assert (lag >= pd.Timedelta(0)).all()
    once = links.drop_duplicates(
        ["key_type_a", "key_a", "key_type_b", "key_b", "source", "observed_time", "action"]
    )
    late = once["received_time"] - once["observed_time"] >= pd.Timedelta(days=1)
    assert late.mean() == pytest.approx(0.10, abs=0.02)
    assert 1 - len(once) / len(links) == pytest.approx(0.005, abs=0.003)
    mutable = once["source"].isin(["login", "email_click", "probabilistic"])
    back = (once["action"] == "unlink").sum() / (mutable & (once["action"] == "link")).sum()
    assert back == pytest.approx(0.002, abs=0.002)


def test_logins_are_seen_in_their_own_session_which_goes_on_under_the_account(shop, links):
    events = pd.read_parquet(shop / "events")
    events = events[(events["revision"] == 0) & (events["event_type"] != "return")]
    events = events.drop_duplicates("event_id")
    spans = events.groupby("session_id").agg(
        began=("event_time", "min"), ended=("event_time", "max"),
    )  # fmt: skip
    logins = links[(links["source"] == "login") & (links["action"] == "link")]
    logins = logins.drop_duplicates(["key_a", "key_b", "observed_time"])
    anonymous = events[events["key_type"].isin(["cookie", "device"])]
    sessions = anonymous.drop_duplicates(["session_id", "key"]).merge(spans, on="session_id")
    both = logins.reset_index(names="login").merge(
        sessions[["key_type", "key", "session_id", "began", "ended"]],
        left_on=["key_type_a", "key_a"], right_on=["key_type", "key"],
    )  # fmt: skip
    within = both[
        (both["began"] <= both["observed_time"]) & (both["observed_time"] <= both["ended"])
    ]
    assert within["login"].nunique() == len(logins)
    after = events.merge(within[["session_id", "observed_time", "key_b"]], on="session_id")
    after = after[after["event_time"] > after["observed_time"]]
    assert (after["key"] == after["key_b"]).mean() > 0.99  # two people may log in on one device
    assert len(logins) / sessions["session_id"].nunique() == pytest.approx(0.15, abs=0.02)


def test_e_mail_hashes_exist_in_links_alone(shop, links):
    ends = set(links["key_type_a"]) | set(links["key_type_b"])
    assert "email_hash" in ends
    assert "email_hash" not in set(pd.read_parquet(shop / "events")["key_type"])
    clicks = links[(links["source"] == "email_click") & (links["action"] == "link")]
    assert set(zip(clicks["key_type_a"], clicks["key_type_b"], strict=True)) == {
        ("cookie", "email_hash")
    }


def test_households_are_known_of_their_share_of_people(shop, links):
    people = pd.read_parquet(shop / "truth" / "people")
    size = people.groupby("household")["person"].transform("size")
    assert (size > 1).mean() == pytest.approx(0.20, abs=0.03)
    number = people.set_index("account")["household"]
    told = links[links["source"] == "household"]
    assert (number[told["key_a"]].to_numpy() == number[told["key_b"]].to_numpy()).all()
    assert len(told) >= (size > 1).sum() / 2


@pytest.mark.parametrize(
    ("name", "other", "kind"), [("shared", "recycled", "device"), ("recycled", "shared", "cookie")]
)
def test_twice_the_rate_plants_twice_as_much(name, other, kind, tmp_path):
    found = []
    for rate in (0.05, 0.10, 0.20):
        folder = tmp_path / str(rate)
        simulated.convert(f"events=60000,people=1200,items=100,{other}=0,{name}={rate}", folder)
        rows = pd.read_parquet(folder / "truth" / "keys")
        rows = rows[rows["key_type"] == kind]
        found.append((rows.groupby("key")["person"].nunique() > 1).mean())
    assert found == pytest.approx([0.05, 0.10, 0.20], rel=0.25)
