"""Drift is named by its kind, and clean weeks raise nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy import special
from sklearn.linear_model import LogisticRegression

from jobs import io, tables
from jobs.diagnosis.parity import divergence, drift, equal_inputs, mixes, relations, samples
from jobs.diagnosis.parity.divergence import Estimate
from jobs.diagnosis.parity.drift import Params
from jobs.diagnosis.parity.samples import Sample
from jobs.diagnosis.symptoms import Symptom
from jobs.io import Lake
from jobs.night import Night
from jobs.scoring import features
from jobs.tables import FEATURES
from tests.diagnosis import simulated_log
from tests.diagnosis.simulated_log import Planted, World, changed, drawn, stage
from tests.expectations.good import AS_OF

REQUESTS = 1_200
CLEAN_PAIRS = 5  # many more were looked at while building: no alarm in forty and more


def periods(*parts: pa.Table) -> dict[str, Sample]:
    every = samples.of_served(pa.concat_tables(parts))
    return {one: every.of(pc.equal(every.table["period"], one).to_numpy())
            for one in ("reference", "current", "last_year")}  # fmt: skip


def found(*parts: pa.Table) -> list[Symptom]:
    """The symptoms of these periods, the gravest first."""
    of = periods(*parts)
    before, after, year = of["reference"], of["current"], of["last_year"]
    rows = drift.inputs(before, after, year, Params())
    _, outcome = outcomes(of)
    symptoms = drift.covariate(rows, Params()) + drift.of_other_names(before, after)
    symptoms += [outcome] if outcome else []
    return sorted(symptoms, key=lambda one: -one.severity)


def outcomes(of: dict[str, Sample]) -> tuple[list[dict], Symptom | None]:
    every = of["reference"], of["current"], of["last_year"]
    shown = [one.table["position"].to_numpy() for one in every]
    return equal_inputs.moved(*every, shown, Params())


def put(rows: pa.Table, name: str, values: list) -> pa.Table:
    place, field = rows.schema.get_field_index(name), rows.schema.field(name)
    return rows.set_column(place, field, pa.array(values, field.type))


# --- the methods -----------------------------------------------------------------------------
def test_recalibration_is_a_logistic_regression_on_the_logit():
    generator = np.random.default_rng(1)
    logit = generator.normal(-1, 1.5, 4_000)
    label = generator.random(4_000) < special.expit(-0.3 + 0.7 * logit)
    weight = generator.integers(1, 4, 4_000).astype(float)
    found = relations.recalibrated(logit, label, weight, 0.0)
    known = LogisticRegression(C=1e9, tol=1e-10, max_iter=1_000)
    known.fit(logit[:, None], label, sample_weight=weight)
    assert found.slope.value == pytest.approx(known.coef_[0, 0], rel=1e-4)
    assert found.intercept.value == pytest.approx(known.intercept_[0], rel=1e-4)
    assert abs(found.slope.value - 0.7) < 3 * found.slope.error


def test_a_held_slope_gives_the_log_odds_by_which_all_are_off():
    generator = np.random.default_rng(2)
    logit = generator.normal(-2, 1, 20_000)
    label = generator.random(20_000) < special.expit(logit - 0.4)
    offset = relations.recalibrated(logit, label, np.ones(20_000), 0.0).offset
    assert abs(offset.value + 0.4) < 3 * offset.error < 0.15


def test_slices_that_moved_alike_are_not_apart_and_others_are_by_how_much():
    alike = [Estimate(-0.3 + e, 0.1) for e in (-0.1, 0.0, 0.1)]
    assert relations.heterogeneity(alike) == pytest.approx((0.0, np.exp(-1)), abs=1e-6)
    apart, p_value = relations.heterogeneity([Estimate(-1.0, 0.1), Estimate(1.0, 0.1)])
    assert apart == pytest.approx((2 - 0.01) ** 0.5)
    assert p_value < 1e-9


def test_weights_turn_the_reference_into_the_present():
    generator = np.random.default_rng(3)
    before, after = generator.normal(0, 1, (5_000, 2)), generator.normal(0.5, 1, (5_000, 2))
    who = np.arange(5_000)
    ratio = relations.density_ratio(before, after, np.ones(5_000), np.ones(5_000), who, who)
    means = np.average(before, axis=0, weights=ratio)
    np.testing.assert_allclose(means, 0.5, atol=0.08)
    assert ratio.mean() == pytest.approx(1.0)


def test_a_missing_input_is_the_mean_and_says_that_it_is_missing():
    columns = np.array([[1.0, 5.0], [3.0, 5.0], [np.nan, 5.0]])
    inputs = relations.Standard.of(columns).apply(columns)
    assert inputs.shape == (3, 3)
    assert inputs[2].tolist() == pytest.approx([0.0, 0.0, 1.0], abs=1e-6)


def test_a_score_that_is_no_probability_is_standardised():
    first, second = equal_inputs._as_logits([np.array([1.0, 3.0]), np.array([2.0])])
    assert (first.tolist(), second.tolist()) == ([-1.0, 1.0], [0.0])
    assert equal_inputs._as_logits([np.array([0.5])])[0].tolist() == [0.0]


# --- what is named ---------------------------------------------------------------------------
def test_clean_weeks_raise_nothing():
    alarms = []
    for seed in range(CLEAN_PAIRS):
        world = World(seed, people=500, items=120)
        alarms += found(drawn(world, "reference", REQUESTS, 1), drawn(world, "current", 800, 2))
    assert alarms == []


def test_one_feature_that_moved_far_is_a_warning():
    world = World(5)
    moved = Planted(shift={FEATURES[0]: 3.0})
    symptoms = found(
        drawn(world, "reference", 1_600, 1), drawn(world, "current", REQUESTS, 2, moved)
    )
    (told,) = (one for one in symptoms if one.kind == "covariate_drift")
    assert told.warning
    said = f"Of what the model sees, 1 of {len(FEATURES)} features have moved far"
    assert told.sentence.startswith(said)
    assert FEATURES[0] in told.sentence
    less = Planted(shift={FEATURES[0]: 0.5})
    symptoms = found(
        drawn(world, "reference", 1_600, 1), drawn(world, "current", REQUESTS, 2, less)
    )
    assert [one for one in symptoms if one.kind == "covariate_drift"] == []


@pytest.mark.parametrize(
    ("planted", "kind"),
    [
        (Planted(rate=0.7), "label_drift"),
        (Planted(rate=1.4), "label_drift"),
        (Planted(slope=0.5), "concept_drift"),
        (Planted(by_region=(0.5, -0.5, 0.0)), "concept_drift"),
        (Planted(shift=dict.fromkeys(FEATURES[::3], 0.5)), "covariate_drift"),
        (Planted(regions=(0.2, 0.3, 0.5)), "covariate_drift"),
    ],
    ids=["fewer", "more", "flat", "apart", "moved", "others ask"],
)
def test_what_moved_is_named_and_nothing_else(planted, kind):
    world = World(5)
    symptoms = found(
        drawn(world, "reference", 1_600, 1), drawn(world, "current", REQUESTS, 2, planted)
    )
    assert [(one.kind, one.warning) for one in symptoms] == [(kind, False)]
    assert symptoms[0].severity > 1


@pytest.mark.parametrize(
    ("planted", "kind"),
    [
        (Planted(rate=0.65), "label_drift"),
        (Planted(slope=0.4), "concept_drift"),
        (Planted(by_region=(0.6, -0.6, 0.0)), "concept_drift"),
    ],
    ids=["fewer", "flat", "apart"],
)
def test_seven_days_of_mature_outcomes_are_enough(planted, kind, monkeypatch):
    monkeypatch.setitem(simulated_log.DAYS, "current", 7)
    world = World(5)
    symptoms = found(
        drawn(world, "reference", 1_600, 1), drawn(world, "current", REQUESTS, 2, planted)
    )
    assert [(one.kind, one.warning) for one in symptoms] == [(kind, False)]


def test_a_small_change_of_all_may_be_season_where_there_is_no_year_before():
    world = World(8, people=1_400)
    before = drawn(world, "reference", 3_200, 1)
    # In log-odds 0.2 less, of which 0.15 is told and 0.3 is no season.
    small = before, drawn(world, "current", 4_800, 2, Planted(rate=0.85))
    (symptom,) = found(*small)
    assert (symptom.kind, symptom.warning) == ("label_drift", True)
    assert "may be the season" in symptom.sentence
    # A year ago it was as in the reference: no season.
    (symptom,) = found(*small, drawn(world, "last_year", 4_000, 3))
    assert (symptom.kind, symptom.warning) == ("label_drift", False)
    (symptom,) = found(before, drawn(world, "current", 4_800, 2, Planted(rate=0.7)))
    assert (symptom.kind, symptom.warning) == ("label_drift", False)


def test_a_rate_that_is_where_it_was_a_year_ago_is_season():
    world, winter = World(5), Planted(rate=1.5)
    parts = (drawn(world, "reference", 1_600, 1), drawn(world, "current", REQUESTS, 2, winter))
    assert [one.warning for one in found(*parts)] == [False]
    (symptom,) = found(*parts, drawn(world, "last_year", REQUESTS, 3, winter))
    assert (symptom.kind, symptom.warning) == ("label_drift", True)
    assert symptom.sentence.endswith("it is as a year ago: season.")


# --- mixes -----------------------------------------------------------------------------------
@pytest.mark.parametrize("column", ["surface", "region", "segment", "key_type"])
def test_a_new_name_is_told_and_fails_nothing(column):
    world = World(7, people=400)
    before, after = drawn(world, "reference", 600, 1), drawn(world, "current", 600, 2)
    names = after[column].to_pylist()
    names[:240] = ["new one"] * 240  # of 6,000
    of = periods(before, put(after, column, names))
    rows = drift.inputs(of["reference"], of["current"], of["last_year"], Params())
    assert drift.covariate(rows, Params()) == []
    (symptom,) = drift.of_other_names(of["reference"], of["current"])
    assert (symptom.subject, symptom.warning) == (f"new {column}", True)
    assert "4.0 %" in symptom.sentence
    (row,) = [row for row in rows if row["feature"] == column]
    assert row["psi"] is None or row["psi"] < 0.1
    assert row["typed"] == "new: 'new one' 4.0 %"


def test_a_name_that_nothing_has_any_more_is_told():
    world = World(7, people=400)
    before, after = drawn(world, "reference", 600, 1), drawn(world, "current", 600, 2)
    names = ["app"] * 600 + before["surface"].to_pylist()[600:]  # of 6,000
    of = periods(put(before, "surface", names), after)
    (symptom,) = drift.of_other_names(of["reference"], of["current"])
    assert (symptom.subject, symptom.warning) == ("gone surface", True)
    assert symptom.sentence.startswith("10.0 % of what was served before had a surface that")
    assert symptom.rows == 600


def test_customers_whom_the_calendar_makes_known_are_a_warning():
    world = World(7, people=400)
    before, after = drawn(world, "reference", 800, 1), drawn(world, "current", 800, 2)
    aged = put(after, "tenure", ["long"] * 3_000 + after["tenure"].to_pylist()[3_000:])
    before = put(before, "tenure", ["long"] * 500 + before["tenure"].to_pylist()[500:])
    of = periods(before, aged)
    rows = drift.inputs(of["reference"], of["current"], of["last_year"], Params())
    symptoms = drift.covariate(rows, Params())
    assert [(one.subject, one.warning) for one in symptoms] == [("tenure", True)]


def test_periods_without_a_common_name_are_not_compared():
    world = World(7, people=400)
    before, after = drawn(world, "reference", 100, 1), drawn(world, "current", 100, 2)
    of = periods(before, put(after, "category", ["other"] * len(after)))
    row = mixes.mix("category", of["reference"], of["current"], of["last_year"])
    assert (row["psi"], row["p_value"], row["rows_before"]) == (None, 1.0, len(before))


def test_inputs_that_are_where_they_were_a_year_ago_are_season():
    world, winter = World(6), Planted(shift=dict.fromkeys(FEATURES[::3], 0.6))
    parts = (drawn(world, "reference", REQUESTS, 1), drawn(world, "current", REQUESTS, 2, winter))
    assert [one.kind for one in found(*parts)] == ["covariate_drift"]
    assert found(*parts, drawn(world, "last_year", REQUESTS, 3, winter)) == []


def test_a_renamed_category_is_no_change_of_the_mix():
    world = World(7, people=300)
    before, after = drawn(world, "reference", 400, 1), drawn(world, "current", 400, 2)
    names = pc.replace_substring(after["category"], "c1", "other")
    place = after.schema.get_field_index("category")
    of = periods(before, after.set_column(place, after.schema.field("category"), names))
    row = mixes.mix("category", of["reference"], of["current"], of["last_year"])
    assert row["psi"] < 0.05


# --- the step --------------------------------------------------------------------------------
def run(lake: Lake) -> tuple[Night, dict[str, list[dict]]]:
    night = Night(lake, AS_OF, "one", "small", "drift")
    night.reset()
    drift.run(night, Params())
    names = [one.name for one in tables.of_step("drift")]
    return night, {name: io.read_arrow(night.staged / name).to_pylist() for name in names}


def test_a_day_is_judged_and_again_the_same(tmp_path):
    lake, world = Lake(tmp_path).open(), World(8)
    after = drawn(world, "current", REQUESTS, 2, Planted(rate=0.6))
    stage(lake, drawn(world, "reference", REQUESTS, 1), after)
    rows = run(lake)[1]
    assert [row["kind"] for row in rows["drift_symptoms"]] == ["label_drift"]
    assert "times what they were in the reference" in rows["drift_symptoms"][0]["sentence"]
    assert {row["feature"] for row in rows["feature_drift"]} == {*FEATURES, *drift.MIX}
    measures = {row["measure"] for row in rows["outcome_drift"]}
    assert {"base_rate", "auc_of_score", equal_inputs.RATE, equal_inputs.BETWEEN} <= measures
    assert [row["measure"] for row in rows["outcome_drift"] if row["moved"]] == [equal_inputs.RATE]
    assert run(lake)[1] == rows


def test_without_features_nothing_is_judged_and_it_is_said(tmp_path):
    lake = Lake(tmp_path).open()
    stage(lake, tables.TABLES["served_features"].schema.empty_table())
    night, rows = run(lake)
    (symptom,) = rows.pop("drift_symptoms")
    assert set(map(len, rows.values())) == {0}
    assert "served rows" in night.notes["absent"]
    assert (symptom["kind"], symptom["subject"], symptom["warning"]) == (
        "not_compared", "features", True,
    )  # fmt: skip
    assert "0 places of the reference" in symptom["sentence"]


def test_outcomes_too_few_leave_the_base_rate_alone():
    world = World(9, level=-7.0)
    of = periods(drawn(world, "reference", 200, 1), drawn(world, "current", 200, 2))
    rows, symptom = outcomes(of)
    assert [row["measure"] for row in rows] == ["base_rate"]
    assert (symptom.kind, symptom.subject, symptom.warning) == ("not_compared", "outcomes", True)
    assert "2,000 mature places of the reference" in symptom.sentence
    assert np.isfinite(rows[0]["change"])
    assert divergence.kish(of["current"].weight) == 2_000


def test_rows_whose_outcomes_are_not_mature_move_inputs_and_no_outcome(tmp_path):
    lake, world = Lake(tmp_path).open(), World(10, people=200)
    after = drawn(world, "current", 200, 2)
    for name, values in (("mature", [False] * len(after)), ("score", [None] * len(after))):
        place = after.schema.get_field_index(name)
        field = after.schema.field(name)
        after = after.set_column(place, field, pa.array(values, field.type))
    stage(lake, drawn(world, "reference", 200, 1), after)
    night, rows = run(lake)
    assert rows["outcome_drift"] == []
    assert len(rows["feature_drift"]) == len(FEATURES) + len(drift.MIX)
    assert night.notes["outcomes"][1] == 0
    assert [row["subject"] for row in rows["drift_symptoms"]] == ["outcomes"]


def test_outcomes_of_the_people_of_one_fold_leave_the_base_rate_alone():
    world = World(9, people=200)
    before, after = drawn(world, "reference", 400, 1), drawn(world, "current", 400, 2)
    fold = samples.codes(before["person_id"]) % relations.FOLDS
    bought = before["bought"].to_numpy(zero_copy_only=False) & (fold == 0)
    rows, symptom = outcomes(periods(put(before, "bought", bought.tolist()), after))
    assert bought.sum() >= equal_inputs.FEW_OUTCOMES
    assert [row["measure"] for row in rows] == ["base_rate"]
    assert symptom.kind == "not_compared"


def test_outcomes_are_clicks_where_these_are_agreed_on(tmp_path):
    lake, world = Lake(tmp_path).open(), World(8)
    after = drawn(world, "current", REQUESTS, 2, Planted(rate=0.6))
    parts = [put(one, "bought", [False] * len(one))
             for one in (drawn(world, "reference", REQUESTS, 1), after)]  # fmt: skip
    stage(lake, *parts, event="click")
    (symptom,) = run(lake)[1]["drift_symptoms"]
    assert symptom["kind"] == "label_drift"
    assert "odds of a click" in symptom["sentence"]


@pytest.mark.parametrize(("threshold", "kinds"), [(None, {"label_drift"}), (0.5, set())])
def test_what_a_threshold_hides_is_compared_with_nothing(tmp_path, threshold, kinds):
    """Below it the page shows nothing any more, so that nobody buys there."""
    lake, world = Lake(tmp_path).open(), World(8)
    parts = []
    for period, seed in (("reference", 1), ("current", 2)):
        rows = drawn(world, period, REQUESTS, seed)
        above = np.random.default_rng(seed).random(len(rows)) < 0.6
        rows = put(rows, "score", np.where(above, 0.9, 0.1).tolist())
        if period == "current":
            bought = rows["bought"].to_numpy(zero_copy_only=False) & above
            rows = put(rows, "bought", bought.tolist())
        parts.append(rows)
    stage(lake, *parts, threshold=threshold)
    assert {one["kind"] for one in run(lake)[1]["drift_symptoms"]} == kinds


def test_rows_without_a_score_are_above_any_threshold():
    rows = drawn(World(9, people=200), "current", 40, 1).slice(0, 3)
    sample = samples.of_served(put(rows, "score", [None, 0.2, 0.8]))
    assert drift.above(sample, 0.5).tolist() == [True, False, True]
    assert drift.above(sample, None).tolist() == [True, True, True]


# --- rows that serving altered ---------------------------------------------------------------
def hashed(rows: pa.Table) -> pa.Table:
    rows = put(rows, "feature_version", [features.VERSION] * len(rows))
    return put(rows, "feature_hash", features.hashes(features.read(rows)))


def test_rows_served_with_other_features_than_was_logged_move_nothing(tmp_path):
    world = World(8)
    before = hashed(drawn(world, "reference", REQUESTS, 1))
    after = hashed(drawn(world, "current", REQUESTS, 2))
    wrong = np.random.default_rng(1).random(len(after)) < 0.7
    units = {name: np.where(wrong, 1_000, 1) * after[name].to_numpy() for name in FEATURES[:12]}
    served = changed(after, **units)
    assert found(before, served) != []
    lake = Lake(tmp_path).open()
    stage(lake, before, served)
    night, rows = run(lake)
    assert rows["drift_symptoms"] == []
    assert night.notes["altered"] == int(wrong.sum())


def test_a_row_whose_hash_cannot_be_made_again_is_kept():
    rows = hashed(drawn(World(8, people=50), "current", 2, 1))
    rows = changed(rows, due=np.zeros(len(rows)))
    rows = put(rows, "feature_hash", [None] * 5 + rows["feature_hash"].to_pylist()[5:])
    rows = put(rows, "feature_version", [features.VERSION] * 15 + ["before"] * 5)
    told = samples.altered(samples.of_served(rows))
    assert told.tolist() == [False] * 5 + [True] * 10 + [False] * 5


def test_scores_that_an_early_log_lacks_are_left_out_of_the_evidence():
    world = World(11, people=300)
    before = drawn(world, "reference", 600, 1)
    place, field = before.schema.get_field_index("score"), before.schema.field("score")
    of = periods(before.set_column(place, field, pa.nulls(len(before), field.type)),
                 drawn(world, "current", 600, 2))  # fmt: skip
    rows, _ = outcomes(of)
    measures = {row["measure"] for row in rows}
    assert "auc_of_score" not in measures
    assert equal_inputs.AUC in measures


# --- arithmetic that a gate would trip over, or that would call chance a change ---------------
def test_a_feature_that_is_missing_everywhere_is_missing_in_no_more_than_all_rows():
    world = World(8)
    before, after = (drawn(world, period, REQUESTS, 1) for period in ("reference", "current"))
    of = periods(before, changed(after, i_paid=np.full(len(after), np.nan)))
    for seed in range(20):
        weight = np.random.default_rng(seed).choice([1.0, 1.37, 2.9, 1 / 3], len(after))
        row = drift.feature("i_paid", of["reference"], replace(of["current"], weight=weight),
                            of["last_year"])  # fmt: skip
        assert row["missing_after"] == 1.0


def test_a_slice_without_an_outcome_is_as_unsure_as_no_outcome_is():
    rng = np.random.default_rng(0)
    expected, person = np.full(1_000, 0.01), np.arange(1_000) // 10
    none = relations.log_ratio(expected, np.zeros(1_000, bool), np.ones(1_000), person)
    assert none.error == pytest.approx(2**0.5)
    # Ten outcomes are expected of each of two slices: none in one of them is chance.
    calm = relations.log_ratio(expected, rng.random(1_000) < 0.01, np.ones(1_000), person)
    assert relations.heterogeneity([none, calm])[1] > 0.01


def test_meanings_that_were_exchanged_are_seen_where_weights_leave_little_to_see_them_by():
    """Inputs moved, so that few rows of the reference are like those of now."""
    tests = [
        {"measure": measure, "change": change, "limit": limit, "p_value": p_value, "before": 0.8,
         "after": 0.4, "low": 0.0, "high": 0.0, "slice_kind": "all"}
        for measure, change, limit, p_value in (
            (equal_inputs.RATE, 0.01, 0.15, 0.9), (equal_inputs.SLOPE, -0.35, 0.15, 5e-3),
            (equal_inputs.AUC, -0.07, 0.03, 4e-3), ("slope_as_seen", -0.38, 0.15, 5e-5),
            ("auc_as_seen", -0.07, 0.03, 7e-4),
        )
    ]  # fmt: skip
    sample = periods(*(drawn(World(8, people=50), period, 2, 1) for period in
                       ("reference", "current")))["current"]  # fmt: skip
    symptom = equal_inputs.named(tests, sample, None)
    assert (symptom.kind, symptom.subject) == ("concept_drift", "slope_as_seen")
    # At equal inputs it did not move, or the other way: the inputs did.
    for at_equal in (-0.2, 0.7):
        tests[1]["change"], tests[2]["change"] = 0.5 * at_equal, 0.1 * at_equal
        assert equal_inputs.named(tests, sample, None) is None
