"""What follows from the curves is complete, honest about noise, and readable as text and page."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from jobs import io
from jobs.evaluation import advice, ageing, curves
from jobs.io import Lake
from jobs.pages import docs
from tests.evaluation.test_curves import AGES, fading
from tests.test_docs import NASTY, Whole

AS_OF = datetime(2017, 12, 1, tzinfo=UTC)
PEOPLE = 600


@pytest.fixture(scope="module")
def measured() -> list[advice.Found]:
    """Interactions fade; candidates stay; embeddings are noise. Few people bought cold items."""
    random = np.random.default_rng(1)
    values = np.empty((3, 2, 4, PEOPLE, len(AGES)))
    values[0] = fading(PEOPLE, 10.0, 3)
    values[1] = 0.4 + random.normal(0, 0.1, (PEOPLE, 1))
    values[2] = 0.1 + random.normal(0, 0.3, (2, 4, PEOPLE, len(AGES)))
    values[:, :, ageing.COLD, 30:] = np.nan
    return advice.estimated(values, AGES, curves.draws(PEOPLE, 300, 1), min_people=40)


@pytest.fixture
def facts(measured: list[advice.Found]) -> dict:
    about = {
        "source": NASTY,
        "people": PEOPLE,
        "cuts": ["2017-11-24"],
        "params": {"hot_share": 0.5},
    }
    return about | advice.conclusions(measured, 0.02)


def test_a_tier_with_too_few_people_has_no_curve_and_no_advice(measured, facts):
    assert [(each.kind, each.tier) for each in measured] == [
        (kind, tier) for kind in ageing.KINDS for tier in ("all", "hot", "warm")
    ]
    assert [row["tier"] for row in facts["cadence"]] == ["all", "hot", "warm"] * 3


def test_the_drift_window_is_that_of_the_interactions_of_all_items(facts):
    first = facts["cadence"][0]
    assert (first["table"], first["tier"]) == ("interactions", "all")
    assert facts["drift_window_days"] == first["window_days"] < 2
    assert (facts["low"], facts["high"]) == (first["low"], first["high"])
    assert facts["tau_low"] < 10 < facts["tau_high"]


def test_what_does_not_fall_has_no_rate_and_says_whether_it_is_flat_or_noise(facts):
    verdicts = {row["table"]: row["verdict"] for row in facts["cadence"]}
    assert verdicts == {"interactions": "measured", "candidates": "flat", "embeddings": "unclear"}
    still = [row for row in facts["cadence"] if row["table"] != "interactions"]
    assert all(row["tau_days"] is row["tau_low"] is row["tau_high"] is None for row in still)
    assert all(row["window_days"] == 28 for row in still)


def test_facts_are_plain_json(facts):
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_a_rate_too_slow_to_measure_is_told_by_its_lower_end():
    slow = np.broadcast_to(fading(2_000, 300.0, 2), (3, 2, 4, 2_000, len(AGES)))
    found = advice.estimated(slow, AGES, curves.draws(2_000, 300, 1), min_people=40)
    facts = {"source": "test"} | advice.conclusions(found, 0.02)
    assert facts["tau_high"] is None
    assert " days or more" in next(s for s in advice.sentences(facts) if "fades" in s)


def test_every_line_that_is_told_is_whole(measured, facts):
    rows = advice.rows_of(measured, AGES.tolist(), np.linspace(0, 0.1, len(AGES)))
    text = "\n".join(advice.told(facts, rows))
    assert "Buyers without a list yet, by the age of the lists: 0 d 0.0%" in text
    assert "28 d 10.0%" in text
    assert "interactions, cold items: too few people" in text
    assert "Refresh candidates for hot items every 4 weeks" in text
    assert "no drift measurable" in text
    assert "None" not in text
    assert "nan" not in text


def test_the_page_is_whole_and_loads_nothing(measured, facts, tmp_path: Path):
    rows = advice.rows_of(measured, AGES.tolist(), np.zeros(len(AGES)))
    lake = Lake(tmp_path / "lake").open()
    folder = lake.staleness(NASTY, AS_OF)
    io.write_arrow(folder / "curve", rows)
    io.write_json(folder / "staleness.json", facts)
    index = Whole(docs.build(lake, tmp_path / "out").read_text())
    name = advice.page(folder)
    assert name in index.targets
    text = (tmp_path / "out" / name).read_text()
    page = Whole(text)
    assert page.open == []
    assert not page.tags & {"script", "link", "iframe", "img", "object"}
    assert page.targets == {"index.html"}
    assert "<script" not in text
    assert text.count("<svg") == 5
