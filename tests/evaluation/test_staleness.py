"""A shop that drifts at a known rate is found to; bad input is told what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.compute as pc
import pytest

from jobs import io, lock, params
from jobs.__main__ import command
from jobs.errors import Fault
from jobs.evaluation import advice, staleness
from jobs.evaluation.staleness import Params
from jobs.io import Lake
from jobs.night import Night
from jobs.pages import docs
from tests import small_shop
from tests.evaluation import drifting_shop
from tests.evaluation.drifting_shop import AS_OF

TASTE_DAYS = 25.0


@pytest.fixture(scope="module")
def drifting(engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the staleness of a drifting shop lies: 400 people, 50 of them new in the last week."""
    from jobs.spark import engine_file

    lake = Lake(tmp_path_factory.mktemp("drifting") / "lake").open()
    engine.save(engine_file(lake))
    drifting_shop.publish(lake, TASTE_DAYS, newcomers=50)
    made = Night(lake, AS_OF, "test-run", "drift:x=1/../é", "staleness")
    made.reset()
    # Ages far beyond the rate show the floor, without which gain and rate are not told apart.
    return staleness.run(made, Params(ages=(0, 7, 14, 28, 56, 84), cuts=1))


def test_the_planted_rate_of_drift_is_found(drifting: Path):
    facts, _ = advice.read(drifting)
    assert facts["verdict"] == "measured"
    assert facts["tau_low"] <= TASTE_DAYS <= facts["tau_high"]
    assert facts["tau_high"] / facts["tau_low"] < 1.5, "an interval that says something"
    assert facts["low"] <= facts["drift_window_days"] <= facts["high"] < 7
    assert facts["tau_days"] == pytest.approx(TASTE_DAYS, rel=0.2)


def test_the_curve_has_every_table_tier_and_age_and_falls(drifting: Path):
    facts, rows = advice.read(drifting)
    assert rows.schema.equals(advice.CURVE.schema)
    assert set(rows["kind"].to_pylist()) == {"interactions", "candidates", "embeddings"}
    whole = rows.filter((pc.field("kind") == "interactions") & (pc.field("tier") == "all"))
    ndcg = whole["ndcg"].to_pylist()
    assert whole["age_days"].to_pylist() == [0, 7, 14, 28, 56, 84]
    assert ndcg == sorted(ndcg, reverse=True)
    for name in ("ndcg", "recall", "loss", "recall_loss"):
        low, middle, high = (rows[f"{name}{end}"].to_numpy() for end in ("_low", "", "_high"))
        assert ((low <= middle) & (middle <= high)).all(), name
    fresh = rows.filter((pc.field("age_days") == 0) & (pc.field("tier") == "all"))
    assert len(set(fresh["ndcg"].to_pylist())) == 1, "at age 0 nothing has aged"
    assert {(row["table"], row["tier"]) for row in facts["cadence"]} == {
        (row["kind"], row["tier"]) for row in rows.to_pylist()
    }


def test_newcomers_are_not_in_the_curve_and_are_counted_beside_it(drifting: Path):
    facts, rows = advice.read(drifting)
    assert facts["people"] <= 350
    waiting = dict(zip(rows["age_days"].to_pylist(), rows["no_list_yet"].to_pylist(), strict=True))
    # The newcomers' first visit is in the judged week.
    assert waiting[0] == pytest.approx(50 / 400, abs=0.02)
    assert waiting[84] >= waiting[0]


def test_weights_are_tuned_before_anything_that_is_judged(drifting: Path):
    facts, _ = advice.read(drifting)
    assert sum(facts["weights"].values()) == pytest.approx(1)
    until = datetime.fromisoformat(facts["weights_from"].rpartition(" ")[2]).replace(tzinfo=UTC)
    assert until <= datetime.fromisoformat(facts["cuts"][0]) == AS_OF - timedelta(days=7)


def test_the_place_is_one_folder_that_holds_the_whole(drifting: Path):
    assert drifting.parts[-3:] == ("staleness", "drift_x_1_..__", "2024-03-01")
    assert {path.name for path in drifting.iterdir()} == {"curve", "staleness.json"}
    lake = Lake(drifting.parents[2])
    assert not lake.staged("staleness", AS_OF).exists(), "nothing is left behind"


def test_it_is_told_in_words_and_drawn_on_a_page(drifting: Path, tmp_path: Path):
    lines = list(advice.told(*advice.read(drifting)))
    assert any(line.startswith("Drift window: ") for line in lines)
    assert sum(line.startswith("Refresh ") for line in lines) >= 9
    index = docs.build(Lake(drifting.parents[2]), tmp_path)
    page = tmp_path / advice.page(drifting)
    assert f'href="{page.name}"' in index.read_text()
    assert page.read_text().count("<svg") == 5
    assert "drift:x=1/../é" in page.read_text()


def test_measured_again_it_is_replaced_by_the_same(lake: Lake):
    drifting_shop.publish(lake, TASTE_DAYS, people=80, items=60, days=60)
    chosen = Params(ages=(0, 2, 4), cuts=2, history_days=14, horizon_days=2)
    results = []
    for run_id in ("one", "two"):
        made = Night(lake, AS_OF, run_id, "test", "staleness")
        made.reset()
        found = staleness.run(made, chosen)
        results.append((io.read_json(found / "staleness.json"), advice.read(found)[1]))
    assert results[0][0] == results[1][0]
    assert results[0][1].equals(results[1][1])


# --- bad input -------------------------------------------------------------------------------
def history(session, *rows: tuple[str, str, str, int]):
    """Rows of person, item, event type and days before ``AS_OF``."""
    made = [
        (person, item, kind, AS_OF - timedelta(days=days), AS_OF - timedelta(days=days))
        for person, item, kind, days in rows
    ]
    return session.createDataFrame(
        made,
        "person_id string, item_id string, event_type string, event_time timestamp, "
        "received_time timestamp",
    )


def cuts_of(chosen: Params) -> list[datetime]:
    return [AS_OF - timedelta(days=7 * number) for number in range(chosen.cuts, 0, -1)]


def test_a_run_date_too_early_for_the_ages_names_the_first_that_would_do(session):
    chosen = Params(cuts=1)
    rows = history(session, ("a", "x", "view", 50), ("a", "x", "purchase", 1))
    with pytest.raises(Fault, match=r"too early; the history begins on 2024-01-11.*63 days") as it:
        staleness.check_days(rows, AS_OF, cuts_of(chosen), chosen)
    usable = datetime.fromisoformat(str(it.value).partition("usable date is ")[2][:10])
    assert usable.date() == (AS_OF + timedelta(days=14)).date()
    later = usable.replace(tzinfo=UTC)
    enough = history(session, ("a", "x", "view", 50), ("a", "x", "purchase", -13))
    staleness.check_days(enough, later, [later - timedelta(days=7)], chosen)


def test_a_source_without_purchases_is_refused(session):
    rows = history(session, ("a", "x", "view", 200), ("a", "x", "add_to_cart", 2))
    with pytest.raises(Fault, match="no purchases before the run date"):
        staleness.check_days(rows, AS_OF, cuts_of(Params()), Params())


def test_judged_days_without_purchases_name_the_last_one(session):
    rows = history(session, ("a", "x", "purchase", 200), ("a", "x", "purchase", 30))
    with pytest.raises(Fault, match=r"last purchase is of 2024-01-31.*up to 2024-02-01"):
        staleness.check_days(rows, AS_OF, cuts_of(Params()), Params())


def test_too_few_people_are_refused(session):
    rows = history(session, *[(f"p{n}", "x", "purchase", d) for n in range(39) for d in (90, 3)])
    oldest = AS_OF - timedelta(days=49)
    then = staleness.received(rows, oldest)
    with pytest.raises(Fault, match=r"39 people had signals.*at least 40 are needed"):
        staleness.sample(rows, then, cuts_of(Params()), oldest, AS_OF, 1, Params())


def test_who_goes_by_another_id_than_then_is_in_no_sample(session):
    rows = history(session, *[(f"p{n}", "x", "purchase", d) for n in range(41) for d in (90, 3)])
    oldest = AS_OF - timedelta(days=49)
    then = staleness.received(rows, oldest)
    # p0 was found to be somebody else's key since.
    then = then.replace("p0", "q0", "person_id")
    found = staleness.sample(rows, then, cuts_of(Params()), oldest, AS_OF, 1, Params())
    assert sorted(found.to_pylist()) == sorted(f"p{n}" for n in range(1, 41))


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"ages": [1, 2, 3]}, "ages must rise from 0"),
        ({"ages": [0, 3, 3]}, "ages must rise from 0"),
        ({"ages": [0, 3]}, "at least 3"),
        ({"ages": [0, "3", 7]}, "numbers of days"),
        ({"accepted_loss": 1.5}, "between 0 and 1"),
        ({"cuts": 0}, "cuts must be at least 1"),
        ({"age": [0, 1, 2]}, "staleness has no parameter 'age'"),
    ],
)
def test_parameters_that_cannot_be_are_named(given: dict, fault: str):
    assert fault in " ".join(params.faults("staleness", Params, given))


def test_a_lake_in_use_and_a_lake_of_another_source_are_refused(lake: Lake):
    line = ["staleness", "--lake", str(lake.root), "--as-of", "2024-03-01", "--source"]
    drifting_shop.publish(lake, TASTE_DAYS, people=20, items=20, days=5)
    with pytest.raises(Fault, match="of the source test, not of other; give another LAKE"):
        command([*line, "other"])
    lock.acquire(lake, "a-night")
    (lake.root / ".night" / "engine.json").unlink()
    with pytest.raises(Fault, match="in use by the run a-night"):
        command([*line, "test"])


# --- the command -----------------------------------------------------------------------------
def test_the_command_makes_what_is_missing_measures_and_ends_its_engine(tmp_path: Path):
    shop = small_shop.write(tmp_path / "shop")
    asked = {"staleness": {"ages": [0, 3, 7], "cuts": 1, "draws": 200}}
    lake = Lake(tmp_path / "lake")
    # In a process of its own: the command ends its session, and the tests share theirs.
    done = subprocess.run(
        [
            sys.executable, "-m", "jobs", "staleness", "--lake", str(lake.root),
            "--as-of", f"{shop.as_of:%Y-%m-%d}", "--source", str(shop.folder),
            "--params", json.dumps(asked), "--conf", "spark.driver.memory=2g",
            "--conf", "spark.sql.shuffle.partitions=2",
        ], capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = done.stdout
    assert "Drift window: " in told
    found = lake.staleness(str(shop.folder), shop.as_of)
    assert f"measured: {found}" in told
    assert advice.read(found)[0]["people"] >= 40
    assert lake.at("interactions", "2024-03-01") is not None
    assert lake.at("embeddings", "2024-03-01") is None, "nothing is made that is not read"
    assert lock.holder_of(lake) is None
    assert not (lake.root / ".night" / "engine.json").exists()
