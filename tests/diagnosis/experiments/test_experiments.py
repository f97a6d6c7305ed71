"""The step on a small log: checks, results, guardrails, and no experiments at all."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs import io
from jobs.diagnosis import definitions
from jobs.diagnosis.experiments import effects, experiments
from jobs.diagnosis.experiments.assignment import assign_all
from jobs.diagnosis.experiments.experiments import Params
from jobs.io import Lake
from jobs.night import Night
from tests.conftest import AS_OF
from tests.diagnosis import visit_log
from tests.diagnosis.visit_log import AGREED, TODAY, published

HOMEPAGE = {
    "name": "homepage", "salt": "winter", "starts": "2017-11-03", "control": "old",
    "arms": {"old": 0.5, "new": 0.5},
}  # fmt: skip
WITH = AGREED | {
    "experiments": [HOMEPAGE],
    "guardrails": ["latency_ms", "returns", "coverage"],
}
PEOPLE, DAYS = 1_200, 28


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake(tmp_path / "lake").open()


def log(
    lift: float = 1.0, arms: dict[str, float] = HOMEPAGE["arms"], slower: float = 0.0
) -> tuple[pa.Table, pa.Table]:
    """Each visitor comes every fourth day for four weeks; ``new`` spends more by ``lift``, a share,
    and waits for ``slower`` milliseconds more than 50."""
    generator = np.random.default_rng(0)
    names = [f"account:{n}" for n in range(PEOPLE)]
    code = assign_all("winter", names, arms)
    day, person = (part.ravel() for part in np.mgrid[0:DAYS, 0:PEOPLE])
    came = (day + person) % 4 == 0
    day, person = day[came], person[came]
    taste = generator.lognormal(0, 0.6, PEOPLE)
    new = code[person] == sorted(arms).index("new")
    bought = generator.random(len(day)) < 0.3
    money = bought * taste[person] * generator.lognormal(2, 0.4, len(day)) * (1 + lift * new)
    shared = {
        "visitor": [names[n] for n in person],
        "day": [TODAY - timedelta(days=int(DAYS - 1 - n)) for n in day],
        "period": np.where(day < 14, "reference", "current").tolist(),
        "experiment": "homepage", "arm": np.array(sorted(arms))[code][person].tolist(),
        "region": np.where(person % 3, "north", "south").tolist(),
    }  # fmt: skip
    visits = visit_log.visits(shared | {
        "orders": bought.astype(int).tolist(), "revenue": money.tolist(), "clicks": 1,
        "requests": 2, "before_value": (taste[person] * 20).tolist(),
    })  # fmt: skip
    served = visit_log.served(shared | {
        "request_id": [f"r{n}" for n in range(len(day))],
        "item_id": [f"i{n}" for n in generator.integers(0, 40, len(day))],
        "latency_ms": (50 + slower * new + generator.normal(0, 5, len(day))).tolist(),
        "bought": bought.tolist(), "returned": (bought & (day % 5 == 0)).tolist(),
    })  # fmt: skip
    return served, visits


def run(lake: Lake, agreed: dict[str, Any], served: pa.Table, visits: pa.Table, **params) -> Night:
    published(lake, agreed, 40, served=served, visits=visits)
    step = Night(lake, AS_OF, "one", "small", "experiments", {"experiments": params})
    step.reset()
    experiments.run(step, step.params_of("experiments"))
    return step


def rows(step: Night, table: str) -> list[dict[str, Any]]:
    return io.read_arrow(step.staged / table).to_pylist()


def results(step: Night) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["measure"], one["segment"]): one for one in rows(step, "experiment_results")}


def test_params_are_whole_weeks_of_14_to_30_days():
    for days in (7, 15, 35):
        with pytest.raises(ValueError, match="whole weeks"):
            Params(planned_days=days)


def test_without_experiments_the_tables_are_empty_and_a_note_says_so(lake):
    step = run(lake, AGREED, *log())
    for name in ("experiment_checks", "experiment_results", "experiments_symptoms"):
        assert rows(step, name) == []
    assert step.notes["experiments"] == 0


def test_an_experiment_that_has_not_begun_is_left_for_later(lake):
    later = WITH | {"experiments": [HOMEPAGE | {"starts": "2017-12-01"}]}
    step = run(lake, later, *log())
    assert rows(step, "experiment_checks") == []
    assert step.notes["experiments_not_begun"] == 1


def test_on_the_planned_day_the_fixed_interval_decides(lake):
    step = run(lake, WITH, *log())
    assert rows(step, "experiments_symptoms") == []
    found = results(step)
    money = found["revenue_per_session", "all"]
    assert money["verdict"] == "better"
    assert money["visitors"] == PEOPLE
    truth = 0.3 * np.exp(0.6**2 / 2) * np.exp(2 + 0.4**2 / 2)  # what the control spends, again
    assert money["always_low"] < truth < money["always_high"]
    assert money["always_low"] < money["low"] < money["high"] < money["always_high"]
    assert money["method"].endswith("; fixed interval valid today")
    assert "CUPED (variance -" in money["method"]
    assert found["revenue_per_session", "south"]["verdict"] == "better"
    assert found["revenue_per_session", "south"]["q_value"] is not None
    assert found["conversion", "all"]["verdict"] == "insufficient evidence"
    assert found["ctr", "all"]["difference"] == 0
    assert found["latency_ms", "all"]["verdict"] == "not worse"
    assert found["coverage", "all"]["verdict"] == "not worse"
    assert found["returns", "all"]["verdict"] in ("not worse", "insufficient evidence")
    assert found["novelty", "all"]["verdict"] == "insufficient evidence"


def test_a_guardrail_that_an_arm_breaks_fails_the_gate_decisioning_with_its_numbers(lake):
    step = run(lake, WITH, *log(slower=40.0))
    row = results(step)["latency_ms", "all"]
    assert row["verdict"] == "worse"
    (symptom,) = rows(step, "experiments_symptoms")
    assert (symptom["kind"], symptom["subject"], symptom["gate"], symptom["warning"]) == (
        "guardrail_broken", "homepage, new: latency_ms", "decisioning", False,
    )  # fmt: skip
    assert symptom["effect"] == pytest.approx(40, abs=1)
    assert symptom["limit"] == pytest.approx(0.05 * row["mean_control"])
    assert symptom["severity"] == pytest.approx(symptom["effect"] / symptom["limit"])
    assert symptom["rows"] == PEOPLE
    for said in (
        "homepage", "latency_ms", " in new ", f"{row['difference']:+.4g} ({row['low']:+.4g} to "
        f"{row['high']:+.4g} ", f"{symptom['limit']:.4g} at most, 5% of",
    ):  # fmt: skip
        assert said in symptom["sentence"]


def test_before_the_planned_day_a_broken_guardrail_is_told_by_the_interval_of_every_day(lake):
    step = run(lake, WITH, *log(slower=40.0), planned_days=14)
    row = results(step)["latency_ms", "all"]
    (symptom,) = rows(step, "experiments_symptoms")
    assert f"({row['always_low']:+.4g} to {row['always_high']:+.4g} " in symptom["sentence"]


def test_a_guardrail_that_falls_where_more_is_better_is_broken_too(lake):
    served, visits = log()
    place = served.schema.get_field_index("item_id")
    few = [
        "i0" if arm == "new" else item
        for arm, item in zip(served["arm"].to_pylist(), served["item_id"].to_pylist(), strict=True)
    ]
    step = run(lake, WITH, served.set_column(place, served.schema.field(place), [few]), visits)
    (symptom,) = rows(step, "experiments_symptoms")
    assert (symptom["kind"], symptom["subject"]) == ("guardrail_broken", "homepage, new: coverage")
    assert symptom["effect"] > symptom["limit"] > 0


def test_a_guardrail_within_its_margin_or_that_nobody_can_tell_is_no_symptom(lake):
    step = run(lake, WITH, *log(slower=1.0))  # 2 % of 50 milliseconds, where 5 % may be
    assert results(step)["latency_ms", "all"]["difference"] > 0
    assert rows(step, "experiments_symptoms") == []
    wide = run(Lake(lake.root / "wide").open(), WITH, *log(slower=3.0), margin=0.06)
    assert results(wide)["latency_ms", "all"]["verdict"] == "insufficient evidence"
    assert rows(wide, "experiments_symptoms") == []


def test_an_arm_that_brings_less_money_is_a_warning(lake):
    step = run(lake, WITH, *log(lift=-0.5))
    row = results(step)["revenue_per_session", "all"]
    (symptom,) = rows(step, "experiments_symptoms")
    assert (symptom["kind"], symptom["subject"], symptom["gate"], symptom["warning"]) == (
        "losing_arm", "homepage, new: revenue_per_session", "decisioning", True,
    )  # fmt: skip
    assert symptom["effect"] == pytest.approx(-row["difference"])
    assert symptom["severity"] > 1
    assert f"({row['low']:+.4g} to {row['high']:+.4g} " in symptom["sentence"]
    assert symptom["p_value"] == row["p_value"]


THREE = HOMEPAGE | {"arms": {"new": 0.375, "old": 0.375, "third": 0.25}}


def of_money(step: Night) -> dict[str, dict[str, Any]]:
    """The primary's row of each arm, for everybody."""
    return {
        one["arm"]: one for one in rows(step, "experiment_results")
        if (one["measure"], one["segment"]) == ("revenue_per_session", "all")
    }  # fmt: skip


def test_of_several_arms_money_is_corrected_over_the_arms_and_of_one_it_is_not(lake):
    """The lift lies between both levels: 5 % would call the arm better, 5 % over two does not."""
    found = of_money(
        run(lake, WITH | {"experiments": [THREE]}, *log(lift=0.02, arms=THREE["arms"]))
    )
    assert set(found) == {"new", "third"}
    new, third = found["new"], found["third"]
    assert 0.025 < new["p_value"] < 0.05 < third["p_value"]
    assert new["q_value"] == pytest.approx(2 * new["p_value"])
    assert new["verdict"] == "insufficient evidence"
    assert new["low"] < 0 < new["high"]
    assert new["method"].endswith(
        "Hall's interval at 95 % over 2 arms together; fixed interval valid today"
    )
    alone = of_money(run(Lake(lake.root / "alone").open(), WITH, *log(lift=0.18)))["new"]
    assert alone["q_value"] is None
    assert "together" not in alone["method"]


def test_an_arm_that_is_worse_by_holm_and_not_by_its_interval_is_at_the_limit():
    """Of two arms the second is held against 5 %, its interval against 2.5 %."""
    terms = effects.Terms(at_end=True, broken=False, effect=0.05, margin=0.05)
    row = {
        "arm": "new", "measure": "revenue_per_session", "segment_kind": "all", "verdict": "worse",
        "mean_control": 5.0, "mean_arm": 4.0, "difference": -1.0, "low": -2.1, "high": 0.1,
        "p_value": 0.03, "q_value": 0.04, "visitors": 900,
    }  # fmt: skip
    defined = definitions.build(WITH).experiments[0]
    (symptom,) = experiments.harms(defined, [row], terms)
    assert (symptom.severity, symptom.p_value) == (1.0, 0.04)
    assert (symptom.effect, symptom.limit) == (1.0, pytest.approx(1.1))


def test_an_arm_of_too_few_people_counts_among_the_tests(lake):
    arms = {"new": 0.48, "old": 0.48, "rare": 0.04}
    agreed = WITH | {"experiments": [HOMEPAGE | {"arms": arms}]}
    found = of_money(run(lake, agreed, *log(arms=arms)))
    assert (found["rare"]["verdict"], found["rare"]["q_value"]) == ("insufficient evidence", None)
    assert found["new"]["q_value"] == pytest.approx(2 * found["new"]["p_value"])


def test_power_is_told_at_the_level_that_the_arms_are_read_at(lake):
    """Of two arms as wide as the one: by 2.241 standard errors for 1.960, and 0.842 for power."""
    two = HOMEPAGE | {"arms": {"old": 0.4, "new": 0.4, "green": 0.2}}
    served, visits = log(lift=0.0, arms=two["arms"])
    told = run(lake, WITH | {"experiments": [two]}, served, visits)
    apart = max(
        (one["high"] - one["low"]) / 2 / 2.241 / one["mean_control"]
        for one in of_money(told).values()
    )
    assert power(told)["value"] == pytest.approx((2.241 + 0.842) * apart, rel=0.03)


def test_on_any_other_day_the_always_valid_interval_decides(lake):
    step = run(lake, WITH, *log(lift=0.0), planned_days=14)
    money = results(step)["revenue_per_session", "all"]
    assert money["method"].endswith("; always-valid interval holds today")
    assert money["verdict"] == "insufficient evidence"
    assert money["p_value"] > 0.05


def test_the_checks_say_what_could_be_found_by_the_planned_day(lake):
    found = {one["check"]: one for one in rows(run(lake, WITH, *log()), "experiment_checks")}
    assert list(found) == [
        "empty_arm", "unknown_arm", "two_arms", "sample_ratio", "by_the_salt", "before_value",
        "returning", "power",
    ]  # fmt: skip
    assert not found["power"]["passed"]
    assert found["power"]["sentence"].startswith("By day 28 a difference of ")
    assert "Not possible within 30 days" in found["power"]["sentence"]


def test_a_broken_assignment_is_named_and_its_results_are_not_to_be_read(lake):
    served, visits = log(lift=-0.5, arms={"old": 0.6, "new": 0.4}, slower=40.0)
    step = run(lake, WITH, served, visits)
    symptoms = rows(step, "experiments_symptoms")
    assert [(one["kind"], one["subject"], one["warning"]) for one in symptoms] == [
        ("broken_assignment", "homepage", False)
    ]
    assert {one["verdict"] for one in rows(step, "experiment_results")} == {"not to be read"}


def test_a_defined_arm_without_anybody_is_named_and_has_no_results(lake):
    three = HOMEPAGE | {"arms": {"old": 0.4, "new": 0.4, "third": 0.2}}
    step = run(lake, WITH | {"experiments": [three]}, *log())
    (symptom,) = rows(step, "experiments_symptoms")
    assert "nobody is in third" in symptom["sentence"]
    assert {one["arm"] for one in rows(step, "experiment_results")} == {"new"}


def test_an_experiment_from_before_the_window_is_never_read_at_its_end(lake):
    earlier = WITH | {"experiments": [HOMEPAGE | {"starts": "2017-10-27"}]}
    step = run(lake, earlier, *log())
    found = results(step)
    assert ("novelty", "all") not in found
    assert "always-valid" in found["revenue_per_session", "all"]["method"]


def power(step: Night) -> dict[str, Any]:
    return next(one for one in rows(step, "experiment_checks") if one["check"] == "power")


def test_what_could_be_found_is_told_by_the_days_that_were_seen(lake):
    """What began before the window was seen in it alone, as what began with it."""
    before = WITH | {"experiments": [HOMEPAGE | {"starts": "2017-10-06"}]}
    told, earlier = power(run(lake, WITH, *log())), power(run(lake, before, *log()))
    assert earlier["value"] == pytest.approx(told["value"])
    assert earlier["sentence"] == told["sentence"]


def test_a_guardrail_that_the_log_lacks_is_named(lake):
    served, visits = log()
    place = served.schema.get_field_index("latency_ms")
    nothing = pa.nulls(served.num_rows, pa.float64())
    step = run(lake, WITH, served.set_column(place, served.schema.field(place), nothing), visits)
    (check,) = [one for one in rows(step, "experiment_checks") if "guardrail" in one["check"]]
    assert (check["check"], check["passed"]) == ("guardrail latency_ms", False)
    (symptom,) = rows(step, "experiments_symptoms")
    assert (symptom["kind"], symptom["subject"], symptom["warning"]) == (
        "incomplete_log", "homepage: guardrail latency_ms", False,
    )  # fmt: skip
    assert "latency_ms" not in {one["measure"] for one in rows(step, "experiment_results")}
    assert results(step)["revenue_per_session", "all"]["verdict"] == "better"


def test_an_arm_of_few_people_without_a_guardrail_is_a_warning_however_many_the_control_has(lake):
    for few, warning in ((0.02, True), (0.2, False)):
        arms = {"old": 0.7 - few, "new": 0.3, "rare": few}
        served, visits = log(arms=arms)
        place = served.schema.get_field_index("latency_ms")
        told = [
            None if arm == "rare" else value
            for arm, value in zip(*(served[n].to_pylist() for n in ("arm", "latency_ms")),
                                  strict=True)
        ]  # fmt: skip
        served = served.set_column(place, served.schema.field(place), pa.array(told, pa.float64()))
        agreed = WITH | {"experiments": [HOMEPAGE | {"arms": arms}]}
        step = run(Lake(lake.root / str(few)).open(), agreed, served, visits)
        found = {one["subject"]: one["warning"] for one in rows(step, "experiments_symptoms")}
        assert found["homepage: guardrail latency_ms"] is warning


def test_returns_that_are_still_to_come_are_a_warning(lake):
    served, visits = log()
    place = served.schema.get_field_index("mature")
    young = pa.array([False] * served.num_rows)
    step = run(lake, WITH, served.set_column(place, served.schema.field(place), young), visits)
    (symptom,) = rows(step, "experiments_symptoms")
    assert (symptom["subject"], symptom["warning"]) == ("homepage: guardrail returns", True)


def test_a_night_again_leaves_equal_rows(lake):
    first = rows(run(lake, WITH, *log()), "experiment_results")
    assert rows(run(lake, WITH, *log()), "experiment_results") == first


def test_an_experiment_that_nobody_is_in_is_warned_of_and_has_no_results(lake):
    served, visits = log()
    other = WITH | {"experiments": [HOMEPAGE | {"name": "basket"}]}
    step = run(lake, other, served, visits)
    assert [one["warning"] for one in rows(step, "experiments_symptoms")] == [True]
    assert [one["check"] for one in rows(step, "experiment_checks")] == ["exposed"]
    assert rows(step, "experiment_results") == []
