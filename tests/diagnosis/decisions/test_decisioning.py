"""Calibration and thresholds: hand-known answers, clean shops, and a fault at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs.diagnosis import seen
from jobs.diagnosis.decisions import calibration, decisioning, thresholds
from jobs.diagnosis.decisions.calibration import Shown
from jobs.diagnosis.decisions.thresholds import Places
from jobs.diagnosis.definitions import Decision
from tests.diagnosis import small_log

FREE = Decision(None, 5, 1.0, 0.0)


def named(tmp_path: Path, served: pa.Table, decision: dict | None = None) -> list[dict[str, Any]]:
    return everything(tmp_path, served, decision)["decisioning_symptoms"]


def everything(
    tmp_path: Path, served: pa.Table, decision: dict | None = None
) -> dict[str, list[dict[str, Any]]]:
    defined = small_log.DEFINED
    if decision:
        text = json.dumps(json.loads(defined["decision"]) | decision)
        defined = defined | {"decision": text}
    rows = [{"name": name, "value": value, "fault": None} for name, value in defined.items()]
    schema = small_log.tables.TABLES["definitions"].schema
    made = small_log.lake(
        tmp_path, served=served, definitions=pa.Table.from_pylist(rows, schema)
    )  # fmt: skip
    return small_log.ran(made, "decisioning", decisioning)[1]


def sums(shown: Shown) -> tuple[calibration.Sums, int]:
    borders = calibration.edges(shown.score)
    cell = np.searchsorted(borders, shown.score, side="right")
    factor = calibration.place_factors(shown)
    return calibration.sums(shown, cell, len(borders) + 1, factor), len(borders) + 1


def shown(seed: int, times: float = 1.0, rows: int = 20_000) -> Shown:
    """Two periods of scores that come true by half at place 2; ``times``: outcomes of now."""
    rng = np.random.default_rng(seed)
    score, place = rng.beta(1, 6, rows), rng.integers(1, 3, rows)
    current, person = rng.random(rows) < 0.4, rng.integers(0, 800, rows)
    mood = rng.gamma(3, 1 / 3, 800)[person]
    chance = score * mood / place * np.where(current, times, 1.0)
    return Shown(score, rng.random(rows) < chance, current, place, person % 100)


def test_the_mean_error_of_the_bins_is_the_expected_calibration_error() -> None:
    score = np.r_[np.full(100, 0.2), np.full(100, 0.8)]
    hit = np.r_[np.arange(100) < 40, np.arange(100) < 80]
    made = Shown(score, hit, np.ones(200, bool), np.ones(200, int), np.arange(200) % 100)
    cell = (score > 0.5).astype(int)
    found = calibration.sums(made, cell, 2, calibration.place_factors(made))
    table = {row["bin"]: row for row in calibration.rows("all", ["all"], found, 2)}
    assert table[0]["error"] == pytest.approx(0.2)
    assert table[1]["error"] == pytest.approx(0.0)
    assert table[-1]["error"] == pytest.approx(0.1)
    assert table[-1]["observed"] == pytest.approx(0.6)
    assert table[-1]["before"] is None


def test_places_that_are_seen_less_are_no_miscalibration() -> None:
    made = shown(1)
    factor = calibration.place_factors(made)
    assert factor[2] / factor[1] == pytest.approx(0.5, rel=0.1)
    # Now nearly all stand at the second place: half the outcomes, and nothing is wrong.
    moved = Shown(made.score, made.hit, made.current, made.place, made.group)
    kept = ~made.current | (made.place == 2) | (np.arange(len(made.place)) % 9 == 0)
    moved = Shown(*(getattr(moved, name)[kept] for name in Shown.__dataclass_fields__))
    assert calibration.judge(sums(moved)[0]) == []


def pushed(made: Shown, often: float) -> Shown:
    """A share of the current places stands ten further down, and brings a tenth."""
    luck = np.random.default_rng(7).random((2, len(made.place)))
    below = made.current & (luck[0] < often)
    return Shown(made.score, made.hit & ~(below & (luck[1] < 0.9)), made.current,
                 made.place + 10 * below, made.group)  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_expected_of_places_where_nothing_was_shown_before(seed: int) -> None:
    made = pushed(shown(seed), 0.5)
    alike = calibration.comparable(made)
    assert not alike[made.place > 10].any()
    assert alike[made.place <= 2].all()
    # Held against what places bring on the average, a page that pushes is a model that fails.
    assert [one.subject for one in calibration.judge(sums(made)[0])] == ["all"]
    assert calibration.judge(sums(made.of(alike))[0]) == []


def test_without_a_reference_all_places_are_looked_at() -> None:
    made = shown(1)
    assert calibration.comparable(made.of(made.current)).all()


def test_rare_places_bring_what_rare_places_brought() -> None:
    made = shown(1, rows=60_000)
    rare = np.random.default_rng(1).random(len(made.place)) < 0.1
    far = Shown(made.score, made.hit & (~rare | (made.group % 5 == 0)), made.current,
                np.where(rare, 3 + np.arange(len(rare)) % 40, made.place), made.group)  # fmt: skip
    factor = calibration.place_factors(far)
    assert np.ptp(factor[3:43]) == 0
    then = ~far.current & rare
    assert factor[3] == pytest.approx(far.hit[then].sum() / far.score[then].sum())


def test_clean_periods_raise_nothing() -> None:
    for seed in range(60):
        found = calibration.judge(sums(shown(seed))[0])
        assert [one for one in found if not one.warning] == []


@pytest.mark.parametrize("times", [0.5, 2.0])
@pytest.mark.parametrize("seed", range(5))
def test_scores_that_come_true_half_or_twice_as_often_are_told(seed: int, times: float) -> None:
    (found,) = calibration.judge(sums(shown(seed, times))[0])
    assert (found.kind, found.subject, found.warning) == ("miscalibrated", "all", False)
    assert found.effect == pytest.approx(2.0, rel=0.25)


def test_scores_that_were_always_grossly_off_are_a_warning() -> None:
    made = shown(3)
    made = Shown(made.score * 0.2, made.hit, made.current, made.place, made.group)
    (found,) = calibration.judge(sums(made)[0])
    assert (found.subject, found.warning) == ("level", True)


def test_a_bent_curve_is_told_though_as_much_came() -> None:
    rng = np.random.default_rng(0)
    made = shown(3, rows=40_000)
    chance = np.where(made.current, made.score[rng.permutation(40_000)], made.score)
    bent = Shown(made.score, rng.random(40_000) < chance, made.current, made.place * 0 + 1,
                 made.group)  # fmt: skip
    assert [one.subject for one in calibration.judge(sums(bent)[0])] == ["curve"]


def test_outcomes_that_vanished_are_a_miscalibration_of_the_whole() -> None:
    made = shown(1, rows=40_000)
    gone = Shown(made.score, made.hit & ~made.current, made.current, made.place, made.group)
    (found,) = calibration.judge(sums(gone)[0])
    assert (found.kind, found.subject, found.warning) == ("miscalibrated", "all", False)
    assert found.severity > 10
    assert "no outcome at all" in found.sentence


def test_scores_of_nothing_are_not_judged() -> None:
    made = shown(1)
    none = Shown(made.score * 0, made.hit, made.current, made.place, made.group)
    (told,) = calibration.judge(sums(none)[0])
    assert (told.kind, told.subject, told.warning) == ("decisions_unjudged", "outcomes", True)


@pytest.mark.parametrize(
    ("now", "said"), [(lambda score: score * 30, "outside 0 to 1"), (lambda s: s * 0, "are 0")]
)
def test_scores_that_were_probabilities_and_are_none_now_are_a_fault(tmp_path, now, said) -> None:
    log = small_log.served(small_log.places(5))
    current = pc.equal(log["period"], "current").to_numpy()
    score = log["score"].to_numpy()
    place = log.column_names.index("score")
    made = pa.array(np.where(current, now(score), score), log["score"].type)
    fallen, unjudged = everything(tmp_path, log.set_column(place, "score", made))[
        "decisioning_symptoms"
    ]
    assert (fallen["kind"], fallen["subject"], fallen["warning"]) == (
        "miscalibrated", "scale", False,
    )  # fmt: skip
    assert said in fallen["sentence"]
    assert (unjudged["kind"], unjudged["warning"]) == ("decisions_unjudged", True)


def test_a_surface_that_never_says_what_it_showed_showed_all() -> None:
    rows = pa.table({
        "surface": ["home", "home", "mail", "mail", "home", "home"],
        "period": ["current"] * 4 + ["reference"] * 2,
        "shown_position": pa.array([1, None, None, None, None, None], pa.int32()),
    })  # fmt: skip
    assert seen.shown(rows).tolist() == [True, False, True, True, True, True]
    assert seen.shown(rows.slice(0, 0)).tolist() == []


# --- thresholds ------------------------------------------------------------------------------
def listed(score: list[float], hit: list[int], hidden: float = 0.0) -> Places:
    score = np.array(score)
    return Places(score, np.array(hit, bool) & (score >= hidden), score >= hidden,
                  np.ones(len(score), bool), np.arange(len(score)) % 100, 10)  # fmt: skip


def test_the_net_value_of_a_threshold_is_its_outcomes_less_its_places() -> None:
    places = listed([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1])
    found = thresholds.costs(places, None, 0.0, (0.25,))
    decision = Decision(None, 5, 2.0, 0.5)
    table = {row["threshold"]: row for row in thresholds.rows(found, decision)}
    assert (table[0.0]["shown"], table[0.0]["net"]) == (4, 2 * 2 - 4 * 0.5)
    assert (table[0.25]["shown"], table[0.25]["net"]) == (2, 2 * 2 - 2 * 0.5)
    assert table[0.0]["is_set"]
    assert not table[0.25]["is_set"]
    assert sum(row["is_best"] for row in table.values()) == 1
    best = max(table.values(), key=lambda row: row["net"])
    assert 0.2 < best["threshold"] <= 0.3


@pytest.mark.parametrize("past", [0, 100])
def test_showing_all_at_a_loss_is_a_warning_where_no_past_says_otherwise(past: int) -> None:
    rng = np.random.default_rng(1)
    score = rng.random(20_000)
    now = thresholds.costs(listed(score, rng.random(20_000) < score / 5), None, 0.0, ())
    few = listed(score[:past], rng.random(past) < score[:past] / 5)
    then = thresholds.costs(few, None, 0.0, tuple(now.thresholds)) if past else None
    (found,) = thresholds.judge(now, then, Decision(None, 5, 1.0, 0.1))
    assert (found.subject, found.warning) == ("set", True)
    (found,) = thresholds.judge(now, then, Decision(0.0, 5, 1.0, 0.1))
    assert not found.warning


def test_the_used_threshold_is_read_from_what_is_hidden() -> None:
    rng = np.random.default_rng(1)
    score = rng.random(2_000)
    assert thresholds.used(listed(score, rng.random(2_000) < score), None) == 0.0
    found = thresholds.used(listed(score, rng.random(2_000) < score, hidden=0.4), None)
    assert found == pytest.approx(0.4, abs=0.01)


def test_places_that_are_hidden_at_random_are_no_threshold() -> None:
    rng = np.random.default_rng(1)
    score = rng.random(2_000)
    made = Places(score, score > 2, rng.random(2_000) < 0.6, score >= 0, np.zeros(2_000, int),
                  400)  # fmt: skip
    assert thresholds.used(made, None) == 0.0


def test_the_used_threshold_is_read_from_answers_that_grew_shorter() -> None:
    rng = np.random.default_rng(2)
    score = rng.random(2_000)
    before = listed(score, rng.random(2_000) < score)
    kept = score >= 0.3
    now = Places(score[kept], before.hit[kept], before.shown[kept], before.mature[kept],
                 before.group[kept], 10)  # fmt: skip
    assert thresholds.used(now, before) == pytest.approx(0.3, abs=0.02)
    risen = Places(score * 0.7 + 0.3, before.hit, before.shown, before.mature, before.group, 10)
    assert thresholds.used(risen, before) == 0.0


# --- the step --------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(8))
def test_a_clean_shop_has_no_symptom(tmp_path: Path, seed: int) -> None:
    found = everything(tmp_path, small_log.served(small_log.places(seed)))
    assert [row for row in found["decisioning_symptoms"] if not row["warning"]] == []
    assert {row["slice_kind"] for row in found["calibration_slices"]} == {
        "all", "surface", "region", "segment", "category", "tenure",
    }  # fmt: skip
    assert sum(row["is_set"] for row in found["threshold_costs"]) == 1
    assert not any(row["extrapolated"] for row in found["threshold_costs"])


def test_a_page_that_moved_every_list_is_told_as_not_judged(tmp_path: Path) -> None:
    log = small_log.served(small_log.places(3))
    now = pc.equal(log["period"], "current")
    below = pc.if_else(now, pc.add(log["shown_position"], 30), log["shown_position"])
    place = log.column_names.index("shown_position")
    log = log.set_column(place, "shown_position", below.cast(log["shown_position"].type))
    told = {row["subject"]: row for row in everything(tmp_path, log)["decisioning_symptoms"]}
    assert {(row["kind"], row["warning"]) for row in told.values()} == {
        ("decisions_unjudged", True)
    }
    assert set(told) == {"outcomes", "places"}
    assert told["places"]["effect"] == 0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("logged", [True, False])
def test_a_threshold_that_cuts_half_the_value_is_named(
    tmp_path: Path, seed: int, logged: bool
) -> None:
    made = small_log.places(seed)
    below = made["score"] < 0.22
    truth = made["chance"][below].sum() / made["chance"].sum()
    log = small_log.served(made, threshold=0.22)
    if not logged:
        log = log.filter(pc.is_valid(log["shown_position"]))
    found = everything(tmp_path, log)
    (one,) = [row for row in found["decisioning_symptoms"] if not row["warning"]]
    assert (one["kind"], one["subject"]) == ("threshold", "used")
    assert one["effect"] == pytest.approx(truth, abs=0.06)
    assert truth == pytest.approx(0.5, abs=0.08)
    assert [row["threshold"] for row in found["threshold_costs"] if row["is_used"]] == [
        pytest.approx(0.22, abs=0.01)
    ]
    assert any(row["extrapolated"] for row in found["threshold_costs"])


@pytest.mark.parametrize("seed", range(4))
def test_a_threshold_that_is_set_against_the_costs_is_named(tmp_path: Path, seed: int) -> None:
    log = small_log.served(small_log.places(seed))
    (one,) = named(tmp_path, log, {"threshold": 0.0, "cost_of_show": 0.1})
    assert (one["kind"], one["subject"], one["warning"]) == ("threshold", "set", False)
    (one,) = named(tmp_path, log, {"threshold": None, "cost_of_show": 0.1})
    assert one["warning"]


@pytest.mark.parametrize("seed", range(3))
def test_lists_that_the_page_turned_round_are_no_miscalibration(tmp_path: Path, seed: int) -> None:
    made = small_log.places(seed)
    now = made["age"] < 14
    shown = np.where(now, 6 - made["position"], made["position"])
    chance = np.where(now, made["chance"] * (shown / made["position"]) ** -0.3, made["chance"])
    log = small_log.served(made | {"shown": shown.astype(float), "chance": chance})
    assert [row for row in named(tmp_path, log) if not row["warning"]] == []


def test_a_threshold_that_is_set_and_not_applied_is_told(tmp_path: Path) -> None:
    found = named(tmp_path, small_log.served(small_log.places(1)), {"threshold": 0.05})
    assert [(row["subject"], row["warning"]) for row in found] == [("ignored", True)]


def test_scores_that_are_no_probabilities_are_told_and_not_judged(tmp_path: Path) -> None:
    made = small_log.places(1)
    log = small_log.served(made | {"score": made["score"] * 9})
    night, found = small_log.ran(small_log.lake(tmp_path, served=log), "decisioning", decisioning)
    (one,) = found.pop("decisioning_symptoms")
    assert all(rows == [] for rows in found.values())
    assert (one["kind"], one["warning"]) == ("decisions_unjudged", True)
    assert "no probabilities" in one["sentence"]
    assert "no probabilities" in night.notes["decisioning"]


def test_scores_that_are_all_nothing_are_told_and_not_judged(tmp_path: Path) -> None:
    made = small_log.places(1)
    log = small_log.served(made | {"score": made["score"] * 0})
    night, found = small_log.ran(small_log.lake(tmp_path, served=log), "decisioning", decisioning)
    (one,) = found.pop("decisioning_symptoms")
    assert all(rows == [] for rows in found.values())
    assert (one["kind"], one["warning"]) == ("decisions_unjudged", True)
    assert "all of them are 0" in one["sentence"]
    assert "all of them are 0" in night.notes["decisioning"]


def test_outcomes_that_vanished_are_named_by_the_step(tmp_path: Path) -> None:
    made = small_log.places(1)
    log = small_log.served(made | {"chance": np.where(made["age"] < 14, 0.0, made["chance"])})
    found = [row for row in named(tmp_path, log) if not row["warning"]]
    assert [(row["kind"], row["subject"]) for row in found] == [("miscalibrated", "all")]


def test_a_log_with_few_mature_places_or_without_scores_is_warned_of(tmp_path: Path) -> None:
    log = small_log.served(small_log.places(1, requests=50))
    (one,) = named(tmp_path / "few", log)
    assert (one["kind"], one["warning"]) == ("decisions_unjudged", True)
    assert "current places are mature" in one["sentence"]
    place = log.schema.get_field_index("score")
    log = log.set_column(place, log.schema.field("score"), pa.nulls(log.num_rows, pa.float64()))
    (one,) = named(tmp_path, log)
    assert (one["kind"], one["warning"]) == ("decisions_unjudged", True)
    assert "no place of the log has a score" in one["sentence"]
