"""Planted leaks shine, strong honest features do not, and the log says what it could not see."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs import io, tables
from jobs.diagnosis.parity import leakage, log_bias, of_the_past, samples
from jobs.diagnosis.parity.divergence import Estimate
from jobs.diagnosis.parity.leakage import Params
from jobs.diagnosis.replay.rebuilding import Made
from jobs.io import Lake
from jobs.night import Night
from jobs.scoring import features
from jobs.tables import FEATURES
from tests.diagnosis.simulated_log import (
    CUTS,
    NIGHT,
    World,
    as_examples,
    as_features,
    changed,
    drawn,
    stage,
    stage_catalogue,
    stage_night,
)
from tests.expectations.good import AS_OF

WORLD = World(4, people=500, items=120)
GOODS = {f"i{n}": f"c{n % 6}" for n in range(200)}


@pytest.fixture(scope="module")
def learned() -> pa.Table:
    return drawn(WORLD, "reference", 1_200, 1)


@pytest.fixture(scope="module")
def served() -> pa.Table:
    return drawn(WORLD, "current", 1_000, 2)


def leaking(rows: pa.Table, strength: float, feature: str = "taste") -> pa.Table:
    """The label, this many standard deviations of the feature's noise apart."""
    label = rows["bought"].to_numpy()
    noise = np.random.default_rng(5).normal(size=len(rows))
    return changed(rows, **{feature: np.exp(noise + strength * label)})


def symptoms(learned: pa.Table, served: pa.Table) -> list[str]:
    training, here = samples.of_served(learned), samples.of_served(served)
    return [one.subject for one in leakage.leaked(leakage.probed(training, here, Params()))]


# --- probes ----------------------------------------------------------------------------------
@pytest.mark.parametrize("strength", [1.0, 1.5, 2.5, 4.0])
def test_a_feature_that_knew_the_label_in_training_is_named(learned, served, strength):
    assert symptoms(leaking(learned, strength), served) == ["taste"]


def test_an_honest_feature_that_leaked_besides_is_named(learned, served):
    def honest(rows: pa.Table, leak: float) -> pa.Table:
        noise = np.random.default_rng(6).normal(size=len(rows))
        known = 1.0 * rows["bought"].to_numpy()
        return changed(rows, baskets=np.exp(noise + known * (1 + leak)))

    assert symptoms(honest(learned, 0.0), honest(served, 0.0)) == []
    assert symptoms(honest(learned, 1.0), honest(served, 0.0)) == ["baskets"]


ROWS = 1_000
TOGETHER = {
    "future_only taste": (0.92, 0.91, 0.93, False),
    "future_only baskets": (0.72, 0.71, 0.73, False),
    "training_served taste": (0.07, 0.045, 0.095, False),
    "shuffled_time taste": (0.35, 0.33, 0.37, True),
}


@pytest.mark.parametrize(
    ("instead", "named"),
    [
        ({}, ["taste"]),
        # An interest of yesterday that serving keeps.
        ({"training_served taste": (0.02, -0.005, 0.045, False)}, []),
        # It tells the past as well.
        ({"shuffled_time taste": (0.1, 0.08, 0.12, False)}, []),
        # Honest features of another kind tell as much.
        ({"future_only baskets": (0.89, 0.88, 0.9, False)}, []),
    ],
)
def test_three_probes_together_convict_and_no_two_of_them(instead, named):
    probes = []
    for name, (value, low, high, shines) in (TOGETHER | instead).items():
        probe, _, feature = name.partition(" ")
        probes.append(leakage._row(probe, feature, value, low, high, 0.2, ROWS, shines))
    found = leakage.leaked(probes)
    assert [one.subject for one in found] == named
    assert all(not one.warning and one.severity > 1 for one in found)


def test_two_leaks_do_not_hide_each_other(learned, served):
    both = leaking(leaking(learned, 2.0), 1.5, "affinity")
    assert set(symptoms(both, served)) == {"taste", "affinity"}


@pytest.mark.parametrize("strength", [0.0, 1.5])
def test_a_feature_as_strong_in_serving_is_honest(learned, served, strength):
    sides = [leaking(rows, strength, "days_since") for rows in (learned, served)]
    training = samples.of_served(sides[0])
    area = leakage.area(training, "days_since").value
    assert area == pytest.approx({0.0: 0.5, 1.5: 0.855}[strength], abs=0.03)
    assert symptoms(*sides) == []


def test_features_that_selection_weakens_are_honest(learned, served):
    # Candidates of all kinds in training; in serving, only what a ranker put on top.
    many = pa.concat_tables([learned, drawn(WORLD, "reference", 1_200, 7)])
    top = drawn(WORLD, "current", 3_000, 8)
    assert symptoms(many, top.filter(pc.less_equal(top["position"], 3))) == []


def test_clean_days_raise_nothing(learned):
    for seed in range(4):
        world = World(20 + seed, people=400, items=100)
        assert symptoms(drawn(world, "reference", 700, 1), drawn(world, "current", 700, 2)) == []


def test_a_value_that_only_purchases_have_shines_by_itself(learned, served):
    label = learned["bought"].to_numpy()
    half = np.random.default_rng(1).random(len(label)) < 0.5
    marked = np.where(label & half, 3.0, learned["place"].to_numpy())
    assert leakage.only_bought(marked, label) == pytest.approx(0.5, abs=0.05)
    assert symptoms(changed(learned, place=marked), served) == ["place"]
    assert leakage.only_bought(learned["place"].to_numpy(), label) == 0.0


def test_the_usual_loss_is_what_the_other_features_lose():
    names = FEATURES[:12]
    learned = {name: Estimate(0.5, 0.01) for name in FEATURES}
    learned |= {name: Estimate(0.7, 0.01) for name in names}
    here = learned | {name: Estimate(0.6, 0.01) for name in names}
    here[names[0]] = Estimate(0.5, 0.01)
    rows = {row["feature"]: row for row in leakage.training_served(learned, here, 9, Params())}
    assert rows[names[1]]["value"] == pytest.approx(0.0)
    assert rows[names[0]]["value"] == pytest.approx(0.1)
    assert not rows[names[0]]["shines"]  # 0.1 of AUC is below the limit


# --- made again of the past ------------------------------------------------------------------
def beside(
    learned: pa.Table, changed_rows: np.ndarray, unmade: tuple[str, ...] = ()
) -> of_the_past.Traced:
    """Rows of training beside the same made again, where ``taste`` is another one in some."""
    again = features.read(learned)
    again[changed_rows, FEATURES.index("taste")] += 1.0
    return of_the_past.compared(learned, Made(again, np.ones(len(again), bool), unmade))


def convicted(traced: of_the_past.Traced) -> list[tuple[str, float]]:
    rows = leakage.made_from_past(traced, Params())
    return [(one.subject, one.effect) for one in leakage.leaked(rows, traced)]


def test_what_people_who_changed_may_be_why_is_a_warning_and_hides_no_leak(learned):
    traced = beside(learned, np.arange(len(learned)))
    doubted = replace(traced, doubts="the source's people are others than that night read")
    rows = leakage.made_from_past(doubted, Params())
    (one,) = leakage.leaked(rows, doubted)
    assert (one.subject, one.warning) == ("taste", True)
    assert one.sentence.endswith("are others than that night read, which may be why.")
    # A probe that shines by itself stays a fault, on whichever side of it the warning stands.
    bright = {"probe": "only_bought", "feature": "taste", "value": 0.3, "low": None, "high": None,
              "limit": 0.2, "rows": 900, "shines": True}  # fmt: skip
    for probes in ([bright, *rows], [*rows, bright]):
        (one,) = leakage.leaked(probes, doubted)
        assert (one.warning, one.effect) == (False, 0.3)


def test_a_feature_that_the_past_does_not_give_is_convicted_however_faint(learned):
    some = np.flatnonzero(np.arange(len(learned)) % 50 == 7)
    traced = beside(learned, some)
    share = len(some) / len(learned)
    assert convicted(traced) == [("taste", pytest.approx(share))]
    (one,) = leakage.leaked(leakage.made_from_past(traced, Params()), traced)
    was = features.read(learned)[some[0], FEATURES.index("taste")]
    item = learned["item_id"][int(some[0])].as_py()
    assert one.sentence == (
        f"taste is not what had been received before the cut gives, in {100 * share:.1f} % of "
        f"{len(learned):,} rows of training: {was:g} where that gives {was + 1:g}, of item {item}."
    )
    assert (one.kind, one.warning) == ("leaked_feature", False)


def test_every_feature_has_its_own_proof(learned):
    rows = leakage.made_from_past(beside(learned, np.zeros(0, int)), Params())
    assert [row["feature"] for row in rows] == list(FEATURES)
    assert {(row["value"], row["rows"], row["shines"]) for row in rows} == {
        (0.0, len(learned), False)
    }


def test_few_rows_or_two_people_who_changed_convict_nothing(learned):
    assert convicted(beside(learned, np.arange(len(learned) // 1_000))) == []
    people = learned["person_id"].to_numpy(zero_copy_only=False)
    some = learned.filter(pa.array(np.isin(people, np.unique(people)[:40])))
    whose = some["person_id"].to_numpy(zero_copy_only=False)
    two, three = (np.flatnonzero(np.isin(whose, np.unique(whose)[:n])) for n in (2, 3))
    assert len(two) > 0.01 * len(some)
    assert convicted(beside(some, two)) == []
    assert [name for name, _ in convicted(beside(some, three))] == ["taste"]


def test_what_is_not_made_again_proves_and_convicts_nothing(learned):
    traced = beside(learned, np.arange(len(learned)), unmade=("taste",))
    assert "taste" not in traced.share
    assert convicted(traced) == []


def test_too_few_people_as_they_were_are_a_warning(learned):
    people = learned["person_id"].to_numpy(zero_copy_only=False)
    few = np.isin(people, np.unique(people)[:10])
    traced = of_the_past.compared(learned, Made(features.read(learned), few))
    assert (traced.held, traced.rows) == (10, int(few.sum()))
    (one,) = of_the_past.unproved(traced)
    assert (one.kind, one.warning) == ("leakage_unjudged", True)
    assert f"of {traced.drawn:,} people drawn only 10 are known" in one.sentence
    whole = of_the_past.compared(learned, Made(features.read(learned), np.ones(len(few), bool)))
    assert list(of_the_past.unproved(whole)) == []


# --- exposure --------------------------------------------------------------------------------
def test_gini_is_known_by_hand():
    assert log_bias.gini(np.array([5.0, 5.0, 5.0])) == 0.0
    assert log_bias.gini(np.array([0.0, 0.0, 0.0, 8.0])) == 0.75
    assert log_bias.gini(np.zeros(3)) == 0.0


def test_outcomes_by_place_are_held_against_the_first():
    rows, hits = np.array([0.0, 400.0, 400.0]), np.array([0.0, 100.0, 50.0])
    found = {
        (row["measure"], row["place"]): row for row in log_bias.by_place("clicked", rows, hits)
    }
    assert found["clicked_rate", 2]["value"] == 0.125
    ratio = found["clicked_to_first", 2]
    assert ratio["value"] == 0.5
    assert ratio["low"] == pytest.approx(0.5 * np.exp(-1.96 * (0.02 + 0.01 - 0.005) ** 0.5))
    assert ("clicked_to_first", 1) not in found


# --- the step --------------------------------------------------------------------------------
def run(lake: Lake) -> tuple[Night, dict[str, list[dict]]]:
    night = Night(lake, AS_OF, "one", "small", "leakage")
    night.reset()
    leakage.run(night, Params())
    names = [one.name for one in tables.of_step("leakage")]
    return night, {name: io.read_arrow(night.staged / name).to_pylist() for name in names}


def test_a_day_is_probed_and_again_the_same(tmp_path, learned, served):
    lake = Lake(tmp_path).open()
    stage(lake, served)
    once = pc.index_in(pc.unique(samples.pairs(learned)), value_set=samples.pairs(learned))
    learned = learned.take(once)
    newest, before = as_examples(leaking(learned, 2.0)), as_examples(learned, CUTS[1])
    past = np.random.default_rng(3).permutation(before["bought"].to_numpy())
    place = before.schema.get_field_index("bought")
    before = before.set_column(place, before.schema.field("bought"), pa.array(past))
    stage_night(lake, pa.concat_tables([newest, before]), as_features(served), GOODS)
    stage_catalogue(lake, GOODS)
    rows = run(lake)[1]
    symptom, unproved = rows["leakage_symptoms"]
    assert (symptom["kind"], symptom["subject"]) == ("leaked_feature", "taste")
    assert symptom["sentence"].endswith("it does not tell the outcomes of the cut before.")
    assert (unproved["kind"], unproved["warning"]) == ("leakage_unjudged", True)
    assert "these are gone: source, events" in unproved["sentence"]
    probed = {row["probe"] for row in rows["leakage_probes"]}
    assert probed == set(leakage.PROBES) - {"made_from_past"}
    early = {row["feature"]: row for row in rows["leakage_probes"]
             if row["probe"] == "before_its_night"}  # fmt: skip
    assert (early["2017-11-16"]["value"], early["2017-11-16"]["shines"]) == (0.0, False)
    seen = {(row["measure"], row["place"]): row["value"] for row in rows["exposure_bias"]}
    assert seen["catalogue_shown", 0] == 120 / 200
    assert seen["bought_to_first", 10] < 0.5
    assert 0.4 < seen["gini_of_catalogue", 0] < 0.6
    assert run(lake)[1] == rows


def test_what_is_stamped_or_served_out_of_its_time_is_named(tmp_path, served):
    lake = Lake(tmp_path).open()
    late = as_features(served)
    place = late.schema.get_field_index("event_timestamp")
    stamps = pa.repeat(pa.scalar(NIGHT + timedelta(days=1), late.schema.types[place]), len(late))
    late = late.set_column(place, late.schema.field("event_timestamp"), stamps)
    stage(lake, served)
    stage_night(lake, None, late, GOODS)
    stage_catalogue(lake, GOODS)
    told = {row["subject"]: row for row in run(lake)[1]["leakage_symptoms"]}
    assert {name: row["warning"] for name, row in told.items()} == {
        "the night 2017-11-16": False, "leaks": True, "training": True,
    }  # fmt: skip
    assert "stamped later" in told["the night 2017-11-16"]["sentence"]


def test_without_features_or_examples_the_step_says_so(tmp_path):
    lake = Lake(tmp_path).open()
    stage(lake, tables.TABLES["served_features"].schema.empty_table())
    stage_catalogue(lake, GOODS)
    rows = run(lake)[1]
    # Nothing seen is not nothing wrong: it is what `retrain` asks a person about.
    told = {row["subject"]: row for row in rows.pop("leakage_symptoms")}
    assert {(row["kind"], row["warning"]) for row in told.values()} == {
        ("not_compared", True), ("leakage_unjudged", True),
    }  # fmt: skip
    assert "no night that served has kept its examples" in told["leaks"]["sentence"]
    assert told["training"]["sentence"] == (
        "That features of training are of the past is not proved: the examples of no night that "
        "served are here."
    )
    assert set(map(len, rows.values())) == {0}


def test_a_year_ago_and_empty_examples_are_not_probed(tmp_path, learned):
    lake = Lake(tmp_path).open()
    stage(lake, drawn(WORLD, "last_year", 1_000, 2))
    stage_night(lake, as_examples(learned).slice(0, 0), None, GOODS)
    stage_catalogue(lake, GOODS)
    rows = run(lake)[1]
    assert rows["leakage_probes"] == []
    told = {row["subject"]: row["sentence"] for row in rows["leakage_symptoms"]}
    assert "has kept its examples" in told["leaks"]
    stage(lake, drawn(WORLD, "current", 1_000, 2))
    rows = run(lake)[1]
    assert {row["probe"] for row in rows["leakage_probes"]} == {"before_its_night"}
    told = {row["subject"]: row["sentence"] for row in rows["leakage_symptoms"]}
    assert "the newest cut of training has 0 purchases; 50 are needed." in told["leaks"]


def test_training_is_not_held_against_clicks(tmp_path, learned, served):
    lake = Lake(tmp_path).open()
    stage(lake, served, event="click")
    stage_night(lake, as_examples(leaking(learned, 2.0)), as_features(served), GOODS)
    stage_catalogue(lake, GOODS)
    night, rows = run(lake)
    probes = {row["probe"] for row in rows["leakage_probes"]}
    assert {"future_only", "only_bought"} <= probes
    assert "training_served" not in probes
    assert "training_served" in night.notes["not_judged"]


def test_what_the_page_hid_is_no_place_without_outcomes():
    def batch(surface: str, *shown: int | None) -> pa.RecordBatch:
        size = len(shown)
        return pa.RecordBatch.from_pydict({
            "item_id": [f"{surface}{n}" for n in range(size)], "surface": [surface] * size,
            "position": pa.array(range(1, size + 1), pa.int32()),
            "shown_position": pa.array(shown, pa.int32()),
            "clicked": [n == 0 for n in range(size)], "bought": [False] * size,
            "mature": [True] * size,
        })  # fmt: skip

    # The second batch of home hides all, and is home's all the same; mail never says.
    batches = [batch("home", 1, None, None), batch("home", None, None), batch("mail", None, None)]
    telling = log_bias.telling(batches)
    found = log_bias.Exposure.of(batches, telling)
    assert telling == {"home"}
    assert found.items == {"home0": 1, "mail0": 1, "mail1": 1}
    assert found.shown[:4].tolist() == [0.0, 2.0, 1.0, 0.0]
    assert found.clicked[:4].tolist() == [0.0, 2.0, 0.0, 0.0]
