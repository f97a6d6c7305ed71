"""What an experiment could find: held against experiments that find it, or do not."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from jobs.__main__ import command
from jobs.diagnosis.experiments import effects, plan
from jobs.diagnosis.experiments.experiments import CONVERSION, CTR, PRIMARY
from jobs.errors import Fault
from jobs.io import Lake
from tests.diagnosis import visit_log
from tests.diagnosis.visit_log import AGREED, TODAY, published

PEOPLE = 1_500


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake(tmp_path / "lake").open()


def visits(days: int = 28, people: int = PEOPLE, **given: object) -> pa.Table:
    """Visitors of different tastes who come every third day."""
    generator = np.random.default_rng(3)
    day, person = (part.ravel() for part in np.mgrid[0:days, 0:people])
    came = (day + person) % 3 == 0
    day, person = day[came], person[came]
    taste = generator.lognormal(0, 0.8, people)
    bought = generator.random(len(day)) < 0.2
    return visit_log.visits({
        "visitor": [f"account:{n}" for n in person],
        "day": [TODAY - timedelta(days=int(days - 1 - n)) for n in day],
        "orders": bought.astype(int).tolist(),
        "revenue": (bought * taste[person] * generator.lognormal(2, 0.4, len(day))).tolist(),
        "clicks": generator.binomial(2, 0.3, len(day)).tolist(), "requests": 2,
        "before_value": (taste[person] * 20).tolist(), **given,
    })  # fmt: skip


def test_the_least_effect_is_found_in_four_of_five_experiments():
    rows = visits()
    least = next(one for one in plan.powers(rows, 2) if one.days == 28 and one.measure == PRIMARY)
    person = np.unique(rows["visitor"].to_pylist(), return_inverse=True)[1]
    revenue = np.bincount(person, rows["revenue"].to_numpy())
    before = np.zeros(PEOPLE)
    before[person] = rows["before_value"].to_numpy()
    generator = np.random.default_rng(4)
    found = []
    for _ in range(400):
        arm = generator.permutation(PEOPLE) % 2
        lifted = revenue * (1 + least.least * arm)
        told, _ = effects.compare(arm, lifted, np.bincount(person).astype(float), 0.05, before)
        found.append(float(told.apart.p_value()[0]) < effects.ALPHA)
    assert 0.72 < np.mean(found) < 0.88


def test_longer_and_fewer_arms_find_smaller_effects_and_every_measure_is_told():
    found = {(one.days, one.measure): one for one in plan.powers(visits(), 2)}
    assert set(found) == {(d, m) for d in (14, 21, 28) for m in (PRIMARY, CONVERSION, CTR)}
    for measure in (PRIMARY, CONVERSION, CTR):
        assert found[14, measure].least > found[21, measure].least > found[28, measure].least
    three = next(plan.powers(visits(), 3))
    assert three.least > 1.2 * found[14, PRIMARY].least
    assert found[14, CTR].mean == pytest.approx(0.3, abs=0.02)
    assert found[14, PRIMARY].visitors == PEOPLE


def test_a_visitor_in_two_experiments_counts_once():
    rows = visits()
    twice = pa.concat_tables([rows, visits(experiment="other")])
    assert list(plan.powers(twice, 2)) == list(plan.powers(rows, 2))


def test_clicks_and_requests_of_two_experiments_are_summed_whatever_the_order_of_rows():
    # Twice a day without an experiment, and three times in one, where half the visits click on all.
    rows = visits(clicks=0)
    clicks = (3 * (np.arange(rows.num_rows) % 2)).tolist()
    other = visits(clicks=clicks, requests=3, experiment="other", before_value=0.0)
    found = list(plan.powers(pa.concat_tables([rows, other]), 2))
    assert found == list(plan.powers(pa.concat_tables([other, rows]), 2))
    told = {one.measure: one for one in found}
    assert told[CTR].mean == pytest.approx(0.3, abs=0.01)
    assert told[PRIMARY] == {one.measure: one for one in plan.powers(rows, 2)}[PRIMARY]


def test_durations_that_the_log_does_not_reach_are_not_promised():
    assert {one.days for one in plan.powers(visits(days=20), 2)} == {14}


def test_the_command_prints_what_there_is_to_find(lake, capsys):
    published(lake, AGREED, 3, visits=visits())
    command(["plan", f"--lake={lake.root}", "--effect=0.5"])
    said = " ".join(capsys.readouterr().out.split())
    assert "An effect of 50.0% on money a visit is found in 14 days, four times in five." in said
    assert "revenue per session" in said
    command(["plan", f"--lake={lake.root}", "--effect=0.01"])
    said = " ".join(capsys.readouterr().out.split())
    assert "is not found in 28 days: that takes" in said


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (["--effect=5"], "EFFECT must be a share above 0 and below 1"),
        (["--arms=1"], "ARMS must be 2 to 20"),
        ([], "has no diagnosis, which says who visits; run `make diagnose` first"),
    ],
)
def test_what_cannot_be_planned_is_said(lake, line, fault):
    with pytest.raises(Fault, match=fault):
        command(["plan", f"--lake={lake.root}", *line])


def test_too_few_visitors_are_no_experiment(lake):
    published(lake, AGREED, 3, visits=visits(people=90))
    with pytest.raises(Fault, match="fewer than 200 visitors"):
        command(["plan", f"--lake={lake.root}"])


def test_every_arm_needs_its_people(lake):
    published(lake, AGREED, 3, visits=visits(people=250))
    command(["plan", f"--lake={lake.root}", "--arms=2"])
    with pytest.raises(Fault, match="fewer than 300 visitors, 100 an arm"):
        command(["plan", f"--lake={lake.root}", "--arms=3"])


@pytest.mark.parametrize("days", [0, 10])
def test_a_log_that_is_too_short_is_called_so(lake, days):
    short = visits(days=10)
    published(lake, AGREED, 3, visits=short if days else short.slice(0, 0))
    with pytest.raises(Fault, match=f"reaches over {days} days of visits; .* at least 14"):
        command(["plan", f"--lake={lake.root}"])
