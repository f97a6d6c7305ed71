"""The simulator's recommendation requests: chances that are what they say, outcomes that follow."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jobs.sources import simulated
from jobs.sources.simulated import requests

SETTINGS = (
    "events=300000,people=3000,items=200,days=28,requests=0.6,position_bias=0.7,stockouts=0.1"
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    simulated.convert(SETTINGS, folder)
    return folder


@pytest.fixture(scope="module")
def log(shop) -> pd.DataFrame:
    return pd.read_parquet(shop / "recommendation_log")


@pytest.fixture(scope="module")
def truth(shop) -> pd.DataFrame:
    return pd.read_parquet(shop / "truth" / "requests")


@pytest.fixture(scope="module")
def shown(shop, log, truth) -> pd.DataFrame:
    """What was shown, its true chances, and whether it was clicked and bought."""
    events = pd.read_parquet(shop / "events").drop_duplicates("event_id")
    rows = log.merge(truth, on=["request_id", "item_id"], suffixes=("", "_true"))
    for kind in ("click", "purchase"):
        did = events[events["event_type"] == kind].dropna(subset=["request_id"])
        pairs = set(zip(did["request_id"], did["item_id"], strict=True))
        rows[kind] = [
            pair in pairs for pair in zip(rows["request_id"], rows["item_id"], strict=True)
        ]
    return rows


def test_a_share_of_online_sessions_begins_with_a_request_of_whole_lists(shop, log):
    events = pd.read_parquet(shop / "events")
    online = events[events["channel"] != "store"]["session_id"].nunique()
    assert log["request_id"].nunique() / online == pytest.approx(0.6, abs=0.02)
    lists = log.groupby("request_id")["position"].agg(list)
    assert all(sorted(places) == [1, 2, 3, 4, 5] for places in lists)
    assert not log.duplicated(["request_id", "item_id"]).any()


def test_the_log_names_the_key_and_the_time_at_which_the_session_began(shop, log):
    events = pd.read_parquet(shop / "events")
    events = events[(events["revision"] == 0) & (events["event_type"] != "return")]
    first = events.sort_values("event_time").drop_duplicates("session_id")
    asked = log.drop_duplicates("request_id")
    both = asked.assign(session_id="s" + asked["request_id"].str[1:]).merge(
        first, on="session_id", suffixes=("", "_event")
    )
    assert len(both) == len(asked)
    assert (both["request_time"] < both["event_time"]).all()
    assert (both["key"] == both["key_event"]).all()


def test_chances_at_places_of_a_small_policy_are_those_of_all_its_lists():
    weight = np.array([[0.5, 0.2, 0.2, 0.1], [0.1, 0.1, 0.2, 0.6]])
    found = requests.at_places(weight, 3)
    for context in range(2):
        expected = np.zeros((3, 4))
        for order in permutations(range(4), 3):
            left, chance = 1.0, 1.0
            for item in order:
                chance *= weight[context, item] / left
                left -= weight[context, item]
            for place, item in enumerate(order):
                expected[place, item] += chance
        assert found[context] == pytest.approx(expected)


def test_propensities_are_chances_that_add_up_over_the_candidates(truth):
    tables = np.stack(truth["propensities"].to_numpy()).reshape(-1, 10, 5)
    assert (tables > 0.01).all()  # every candidate may stand at every place
    assert tables.sum(axis=1) == pytest.approx(np.ones((len(tables), 5)))
    weights = truth["weight"].to_numpy().reshape(-1, 10)
    assert weights.sum(axis=1) == pytest.approx(np.ones(len(weights)))
    assert tables[:, :, 0] == pytest.approx(weights)


def test_the_logged_propensity_is_the_truths_at_that_place(shown):
    assert (shown["position"] == shown["position_true"]).all()
    table = np.stack(shown["propensities"].to_numpy())
    at = table[np.arange(len(table)), shown["position"] - 1]
    assert shown["propensity"].to_numpy() == pytest.approx(at)


def test_what_was_shown_has_the_frequencies_that_the_log_claims(log, truth):
    """Over all requests, each item at each place as often as its chances add up to, within what
    sampling allows: the sum of squared z-scores of many cells."""
    places = np.stack(truth["propensities"].to_numpy())
    chance = pd.DataFrame(places, columns=range(1, 6)).assign(item=truth["item_id"].to_numpy())
    expected = chance.groupby("item").sum()
    spread = chance.set_index("item").pipe(lambda p: p * (1 - p)).groupby("item").sum()
    found = pd.crosstab(log["item_id"], log["position"]).reindex(expected.index, fill_value=0)
    z = (found - expected).to_numpy() / np.sqrt(spread.to_numpy())
    assert np.sqrt((z**2).mean()) == pytest.approx(1.0, abs=0.2)
    assert np.abs(z).max() < 5


def test_the_chance_given_the_items_above_is_the_weight_among_those_left(truth):
    for _, rows in list(truth.groupby("request_id"))[:50]:
        rows = rows.dropna(subset=["position"]).sort_values("position")
        above = rows["weight"].cumsum() - rows["weight"]
        expected = rows["weight"] / (1 - above)
        assert rows["conditional"].to_numpy() == pytest.approx(expected.to_numpy())


def test_clicks_and_purchases_come_with_their_true_chances_at_every_place(shown):
    for kind in ("click", "purchase"):
        chance = shown[f"{kind}_probability"]
        spread = np.sqrt((chance * (1 - chance)).groupby(shown["position"]).sum())
        difference = (shown[kind] - chance).groupby(shown["position"]).sum()
        assert (difference.abs() < 4 * spread).all()
    looks = shown["click_probability"] / shown["attraction"]
    assert looks.to_numpy() == pytest.approx(shown["position"].to_numpy() ** -0.7)


def test_the_value_of_another_policy_follows_from_the_log_and_is_the_truths(shown, truth):
    """Items by their attraction, best first: its true value is a sum over the truth; weighting the
    logged clicks by place gives it within its own error."""
    tables = truth.assign(rank=truth.groupby("request_id")["attraction"].rank(
        ascending=False, method="first"))  # fmt: skip
    best = tables[tables["rank"] <= 5]
    requests_ = tables["request_id"].nunique()
    value = (best["attraction"] * best["rank"] ** -0.7).sum() / requests_
    rows = shown.merge(best[["request_id", "item_id", "rank"]], on=["request_id", "item_id"])
    rows = rows[rows["rank"] == rows["position"]]
    weighted = rows["click"] / rows["propensity"]
    error = np.sqrt((weighted**2).sum()) / requests_
    assert weighted.sum() / requests_ == pytest.approx(value, abs=4 * error)
    assert value > shown["click"].sum() / requests_


def test_nobody_buys_from_a_list_what_is_out_of_stock(shop, shown):
    out = pd.read_parquet(shop / "truth" / "stockouts")
    both = shown.merge(out, on="item_id")
    during = (both["starts"] <= both["request_time"]) & ~(both["ends"] <= both["request_time"])
    assert during.sum() > 100
    assert (both["conversion"][during] == 0).all()
    assert not both["purchase"][during].any()


def test_only_answers_carry_a_request(shop, log):
    events = pd.read_parquet(shop / "events")
    answers = events.dropna(subset=["request_id"])
    assert set(answers["event_type"]) <= {"click", "add_to_cart", "purchase", "remove_from_cart"}
    known = set(zip(log["request_id"], log["item_id"], strict=True))
    assert set(zip(answers["request_id"], answers["item_id"], strict=True)) <= known
    assert (answers["session_id"].str[1:] == answers["request_id"].str[1:]).all()
