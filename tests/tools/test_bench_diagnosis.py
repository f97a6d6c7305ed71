"""The benchmark's log is one that the diagnosis works on: of a published release, with its features
in its order, and with chances by which other lists can be judged."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs import io
from jobs.diagnosis.policies import policies
from jobs.io import Lake
from jobs.scoring import features
from jobs.sources import contract
from jobs.sources.simulated.crowd import SEGMENTS
from jobs.sources.simulated.requests import CANDIDATES
from jobs.sources.simulated.requests import PLACES as DRAWN
from jobs.tables import FEATURES
from tools import bench_diagnosis
from tools.bench_diagnosis import DAYS, PLACES, SHOWN, Asked, Published
from tools.world import World

SHOP = "events=20000,people=300,days=120,requests=0,end=2024-03-01"
WORLD = World(SHOP, DAYS, DAYS, length=PLACES, page=SHOWN, night=bench_diagnosis.NIGHT)
RELEASE = "20240119T000000Z-0123456789"
PEOPLE = [f"p{number:02d}" for number in range(40)]
UNSCORED = "i3"  # stands in every list by a rule


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Lake:
    """What the benchmark reads of a night: lists of 12 to 20 places, of people of whom all but one
    have a segment."""
    shelf = Lake(tmp_path_factory.mktemp("lake")).open()
    as_of = io.parse_as_of(WORLD.nights()[0].isoformat())
    rng = np.random.default_rng(1)
    length = rng.integers(12, PLACES + 1, len(PEOPLE))
    person = np.repeat(PEOPLE, length)
    rank = np.concatenate([np.arange(1, n + 1) for n in length])
    item = np.concatenate([
        np.r_[[UNSCORED], np.char.add("i", rng.permutation(np.arange(4, 70))[: n - 1].astype(str))]
        for n in length
    ])  # fmt: skip
    scored = item != UNSCORED
    lists = pa.table({
        "surface": ["homepage"] * len(item), "person_id": person, "rank": rank.astype(np.int32),
        "item_id": item, "score": pa.array(0.2 / (1 + rank), mask=~scored),
        "propensity": np.ones(len(item)),
    })  # fmt: skip
    values = rng.normal(size=(int(scored.sum()), len(FEATURES))).astype(np.float32)
    values[rng.random(values.shape) < 0.3] = np.nan
    made = pa.table({
        "person_id": person[scored], "item_id": item[scored],
        "feature_version": [features.VERSION] * len(values),
        "feature_hash": features.hashes(values),
        **{name: pa.array(values[:, n], from_pandas=True) for n, name in enumerate(FEATURES)},
    })  # fmt: skip
    keys = {"key_type": ["account"] * len(PEOPLE), "key": PEOPLE, "person_id": PEOPLE}
    facts = {"person_id": PEOPLE, "segment": [None, *rng.choice(SEGMENTS, len(PEOPLE) - 1)]}
    shuffled = rng.permutation(lists.num_rows)
    for step, tables in {
        "recommendations": {"recommendations": lists.take(pa.array(shuffled)), "features": made},
        "identities": {"identities": pa.table(keys), "persons": pa.table(facts)},
        "release": {},
    }.items():
        for name, rows in tables.items():
            io.write_arrow(shelf.staged(step, as_of) / name, rows)
        if step == "release":
            io.write_json(shelf.staged(step, as_of) / "release.json", {"id": RELEASE})
        shelf.publish(step, as_of, "one")
    return shelf


@pytest.fixture(scope="module")
def given(lake) -> Published:
    return bench_diagnosis.published(lake.root, WORLD)


@pytest.fixture(scope="module")
def asked(given) -> Asked:
    return Asked(np.random.default_rng(2), given, "a", 3_000)


@pytest.fixture(scope="module")
def log(asked) -> pa.Table:
    return asked.log()


def test_lists_are_given_as_they_were_published_with_what_they_were_scored_from(lake, log):
    as_of = io.parse_as_of(WORLD.nights()[0].isoformat())
    lists = io.read_arrow(lake.published("recommendations", as_of).table("recommendations"))
    ranks = dict(zip(zip(lists["person_id"].to_pylist(), lists["item_id"].to_pylist(), strict=True),
                     lists["rank"].to_pylist(), strict=True))  # fmt: skip
    own = log.filter(pc.is_null(log["fallback"]))
    assert 0.7 < own.num_rows / log.num_rows < 0.85
    assert pc.unique(own["release_id"]).to_pylist() == [RELEASE]
    assert PEOPLE[0] not in own["key"].to_pylist()  # whose segment nobody knows
    pairs = zip(own["key"].to_pylist(), own["item_id"].to_pylist(), strict=True)
    assert [ranks[pair] for pair in pairs] == own["position"].to_pylist()
    scored = own.filter(pc.is_valid(own["score"]))
    assert scored["features"].null_count == 0
    assert own.filter(pc.is_null(own["score"]))["features"].null_count > 0
    some = scored.slice(0, 500)
    values = np.full((500, len(FEATURES)), np.nan, np.float32)
    for row, known in enumerate(some["features"].to_pylist()):
        for name, value in known:
            values[row, FEATURES.index(name)] = value
    assert features.hashes(values) == some["feature_hash"].to_pylist()


def test_the_first_places_by_lot_can_be_judged_and_the_rest_stands(given, log):
    rows = log.append_column("segment", pc.index_in(
        log["key"], value_set=given.people["key"].combine_chunks()).cast(pa.string()))  # fmt: skip
    segment = given.people["segment"].cast(pa.string()).take(rows["segment"].cast(pa.int32()))
    rows = rows.set_column(rows.schema.get_field_index("segment"), "segment", segment)
    request = pc.index_in(rows["request_id"], value_set=pc.unique(rows["request_id"])).to_numpy()
    outcome = policies.outcomes(rows, request, PLACES)
    by_lot = pc.is_valid(rows["fallback"]).to_numpy()
    drawn = by_lot & (rows["position"].to_numpy() <= DRAWN)
    assert set(outcome[drawn]) == {policies.OUTCOMES.index(policies.JUDGED)}
    assert set(outcome[~drawn]) == {policies.OUTCOMES.index(policies.CERTAIN)}
    # What a chance says comes true: the inverse counts the candidates.
    inverse = 1 / rows["propensity"].to_numpy()[drawn]
    assert inverse.mean() == pytest.approx(CANDIDATES, rel=0.1)
    lists = pa.table({"request": request[by_lot], "item": rows["item_id"].filter(pa.array(by_lot))})
    assert lists.group_by(["request", "item"]).aggregate([]).num_rows == lists.num_rows


def test_people_buy_what_was_shown_to_them_after_they_clicked_on_it(asked, log):
    events = asked.events()
    assert events.schema.equals(contract.schema("events"))
    assert log.schema.equals(contract.schema("recommendation_log"))
    both = events.join(
        log.select(["request_id", "item_id", "request_time", "shown_position"]),
        ["request_id", "item_id"], join_type="left outer",
    )  # fmt: skip
    assert both.num_rows == events.num_rows
    assert both["shown_position"].null_count == 0
    assert pc.all(pc.greater(both["event_time"], both["request_time"])).as_py()
    counts = {
        one["values"]: one["counts"] for one in pc.value_counts(events["event_type"]).to_pylist()
    }
    shown = log.num_rows - log["shown_position"].null_count
    assert 0.01 < counts["click"] / shown < 0.1
    assert 0.3 < counts["purchase"] / counts["click"] < 0.5
    assert len(set(events["event_id"].to_pylist())) == events.num_rows


def test_a_log_has_the_rows_that_were_asked_for(given, tmp_path):
    bench_diagnosis.write(tmp_path, given, 30_000, name="first")
    bench_diagnosis.write(tmp_path, given, 10_000, name="rest")
    log = io.read_arrow(tmp_path / "recommendation_log")
    assert log.num_rows == pytest.approx(40_000, rel=0.02)
    whole = log.group_by(["request_id", "position"]).aggregate([])
    assert whole.num_rows == log.num_rows
    assert io.count_rows(tmp_path / "events") > 0


def test_the_table_tells_how_each_step_grows():
    def measured(rows: int, seconds: float) -> SimpleNamespace:
        spent = {"events": 0.0, "served": seconds}
        return SimpleNamespace(
            events=rows, processor=spent, of_steps=lambda of=None: spent, total=seconds,
            peak=rows * 1_000,
        )  # fmt: skip

    lines = bench_diagnosis.table([measured(1_000_000, 10.0), measured(3_000_000, 60.0)])
    assert "| step | 1 M | 3 M | growth 1 M → 3 M |" in lines
    assert "| served | 10.0 | 60.0 | 2.00 |" in lines
    assert "| events | 0.0 | 0.0 |  |" in lines
    assert "| **total** | 10 | 60 | 2.00 |" in lines
