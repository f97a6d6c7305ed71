"""The rate of drift planted in the simulated shop is found from what people bought, by age.

Without a night: a list is what the person did most, looked at with a half-life, and then what is
popular. So this holds the tastes of the simulator and the estimate of decay to one another, with
staples, seasons, promotions, stock-outs and new items in between.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jobs.evaluation import curves, metrics
from jobs.sources import simulated

AGES = np.array([0.0, 3, 7, 14, 28, 56, 84])
END = pd.Timestamp("2024-03-01", tz="UTC")
CUT = END - timedelta(days=14)
HALF_LIFE_DAYS = 30.0
WEIGHT = {"view": 1.0, "click": 1.0, "add_to_cart": 2.0, "purchase": 3.0}
PLACES = 10


def ndcg_by_age(folder: Path) -> np.ndarray:
    """(n_people, n_ages) NDCG@10 of what people bought from the cut on, by lists made an age before
    it; people who were seen before the oldest."""
    events = pd.read_parquet(
        folder / "events", columns=["event_id", "event_time", "session_id", "event_type", "item_id"]
    ).drop_duplicates("event_id")
    events = events.merge(pd.read_parquet(folder / "truth" / "sessions"), on="session_id")
    item = events["item_id"].astype(str).str[1:].astype(int)
    rows = pd.DataFrame({
        "person": events["person"], "item": item, "time": events["event_time"],
        "weight": events["event_type"].astype(str).map(WEIGHT).fillna(0.0),
        "bought": events["event_type"] == "purchase",
    })  # fmt: skip
    known = rows["person"][rows["time"] < CUT - timedelta(days=AGES[-1])].unique()
    bought = rows[(rows["time"] >= CUT) & rows["bought"] & rows["person"].isin(known)]
    bought = bought[["person", "item"]].drop_duplicates()
    people, place = np.unique(bought["person"], return_inverse=True)
    shape = (len(people), int(rows["item"].max()) + 1)
    wanted = np.zeros(shape, bool)
    wanted[place, bought["item"]] = True
    found = []
    for age in AGES:
        before = rows[rows["time"] < CUT - timedelta(days=age)]
        days = (CUT - timedelta(days=age) - before["time"]) / timedelta(days=1)
        lately = np.bincount(before["item"][days < 28], minlength=shape[1])
        score = np.tile(lately / lately.sum(), (len(people), 1))
        own = before["person"].isin(people)
        at = np.searchsorted(people, before["person"][own])
        seen = before["weight"][own] * 0.5 ** (days[own] / HALF_LIFE_DAYS)
        np.add.at(score, (at, before["item"][own]), seen)
        listed = np.argsort(-score, axis=1, kind="stable")[:, :PLACES]
        person, rank = np.indices(listed.shape)
        found.append(metrics.ndcg(
            person.ravel(), rank.ravel(), np.take_along_axis(wanted, listed, axis=1).ravel(),
            wanted.sum(axis=1), PLACES,
        ))  # fmt: skip
    return np.stack(found, axis=1)


def measured(tmp_path: Path, taste_days: float) -> curves.Decay | None:
    simulated.convert(f"events=400000,people=2000,items=600,taste_days={taste_days}", tmp_path)
    values = ndcg_by_age(tmp_path)
    assert len(values) > 1_000
    return curves.decay(curves.curve(AGES, values, curves.draws(len(values), 1_000, 1)))


def test_the_planted_life_of_tastes_is_found(tmp_path):
    found = measured(tmp_path, 30)
    assert found is not None
    assert found.low <= 30 <= found.high
    assert found.high / found.low < 2, "an interval that says something"
    assert found.tau == pytest.approx(30, rel=0.25)


def test_tastes_that_live_four_times_as_long_are_told_apart(tmp_path):
    found = measured(tmp_path, 120)
    assert found is not None
    assert found.low > 45
    assert found.low <= 120 <= found.high
