"""The ranker learns what no source knows, is judged on later days, and steps back in time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs import io, tables
from jobs.io import Lake
from jobs.night import Night
from jobs.scoring import ranker, scorer
from jobs.scoring.ranker import Examples, Params
from jobs.tables import FEATURES, SOURCES
from tests.conftest import AS_OF
from tests.scoring import learnable

SMALL = Params(trees=40, min_leaf=5.0, min_ranker_people=50)


def trained(lake: Lake, made: dict[str, pa.Table], params: Params = SMALL) -> dict[str, Any]:
    """The tables and notes of the step on these examples."""
    folder = lake.staged("examples", AS_OF)
    for name, rows in made.items():
        io.write_arrow(folder / name, rows)
    io.write_json(folder / "manifest.json", {})
    lake.publish("examples", AS_OF, "one")
    night = Night(lake, AS_OF, "one", "test", "ranker")
    night.reset()
    ranker.run(night, params)
    found: dict[str, Any] = {
        table.name: io.read_arrow(night.staged / table.name) for table in tables.of_step("ranker")
    }
    return found | {"notes": night.notes}


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    lake = Lake(tmp_path_factory.mktemp("ranker") / "lake").open()
    return trained(lake, learnable.tables(150))


def evidence(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["ranking"]: row for row in found["ranking_evidence"].to_pylist()}


def test_what_two_features_say_together_is_ranked_better_than_by_the_source_that_sees_one(learned):
    rows = evidence(learned)
    assert set(rows) == {"ranker", "blend", *SOURCES}
    assert [name for name, row in rows.items() if row["published"]] == ["ranker"]
    assert rows["ranker"]["ndcg_at_10"] > rows["buy_again"]["ndcg_at_10"] + 0.1
    assert rows["ranker"]["difference_low"] > 0.1
    assert rows["ranker"]["new_ndcg_at_10"] > rows["buy_again"]["new_ndcg_at_10"]
    assert rows["ranker"]["people"] == 150
    gains = {row["feature"]: row["gain"] for row in learned["feature_importance"].to_pylist()}
    assert gains["due"] + gains["affinity"] > 0.5
    assert sum(gains.values()) == pytest.approx(1.0)
    assert set(gains) == set(FEATURES)


def test_kinds_of_people_are_judged_apart_and_together_are_everybody(learned):
    whole = evidence(learned)
    rows = {(row["ranking"], row["slice_kind"], row["slice"]): row
            for row in learned["slice_evidence"].to_pylist()}  # fmt: skip
    assert {kind for _, kind, _ in rows} == {"region", "activity", "tenure"}
    assert {name for name, _, _ in rows} == set(whole)
    parts = {"region": ("north", "south"), "activity": ("heavy", "light"),
             "tenure": ("new", "returning")}  # fmt: skip
    for ranking in ("ranker", "buy_again"):
        for kind, values in parts.items():
            found = [rows[ranking, kind, value] for value in values]
            assert sum(row["people"] for row in found) == 150
            mean = sum(row["people"] * row["ndcg_at_10"] for row in found) / 150
            assert mean == pytest.approx(whole[ranking]["ndcg_at_10"])
            assert all(row["ndcg_low"] <= row["ndcg_at_10"] <= row["ndcg_high"] for row in found)
    south = rows["ranker", "region", "south"]
    assert south["people"] == 38, "every fourth of 150"


def test_probabilities_come_true_on_people_that_calibration_did_not_see(learned):
    rows = learned["reliability"].to_pylist()
    assert len(rows) == 10
    for row in rows[3:]:
        assert row["predicted"] == pytest.approx(row["bought"], abs=0.06)
        assert row["bought_low"] < row["bought"] < row["bought_high"]
    assert rows[0]["off"] == 0, "too few purchases foretold to tell"


def test_the_same_examples_give_the_same_model_whatever_their_order(learned, tmp_path):
    made = learnable.tables(150)
    order = pa.array(range(made["examples"].num_rows - 1, -1, -1))
    turned = {"examples": made["examples"].take(order), "example_people": made["example_people"]}
    again = trained(Lake(tmp_path / "lake").open(), turned)
    for table in tables.of_step("ranker"):
        assert again[table.name].equals(learned[table.name]), table.name


def test_noise_is_not_learned_and_nobody_is_judged_by_what_learned_from_their_answers(lake):
    found = trained(lake, learnable.tables(150, noise=True))
    rows = evidence(found)
    chance = rows["buy_again"]["ndcg_at_10"]
    for name in ("ranker", "blend"):
        if name in rows:
            assert rows[name]["ndcg_at_10"] == pytest.approx(chance, abs=0.05)


def test_the_days_after_the_newest_cut_are_not_trained_on_before_they_judge(lake, monkeypatch):
    seen = []
    real = ranker.train

    def watched(examples, params, seed):
        seen.append(len(examples.label))
        return real(examples, params, seed)

    monkeypatch.setattr(ranker, "train", watched)
    made = learnable.tables(60, cuts=3)
    trained(lake, made)
    whole = made["examples"].num_rows
    assert seen == [whole * 2 // 3, whole], "first the older two cuts, then all"


def test_what_is_only_judged_is_not_trained_on(lake, monkeypatch):
    seen = []
    real = ranker.train

    def watched(examples, params, seed):
        seen.append(bool(examples.trained.all()))
        return real(examples, params, seed)

    monkeypatch.setattr(ranker, "train", watched)
    made = learnable.tables(60)
    rows = made["examples"]
    kept = pa.array([n % 3 > 0 for n in range(rows.num_rows)])
    place = rows.schema.get_field_index("trained")
    trained(lake, {**made, "examples": rows.set_column(place, "trained", kept)})
    assert seen == [True, True]


def test_a_split_draws_its_share_of_the_features_that_tell_something():
    values = np.array([[1.0, np.nan, 2.0, np.nan], [1.0, np.nan, 3.0, 4.0]], np.float32)
    assert ranker.varying(values).tolist() == [False, False, True, True]
    assert not ranker.varying(values[:0]).any()
    for count in range(1, 93):
        telling = np.arange(92) < count
        for share in (0.1, 0.4, 0.5, 1.0):
            asked = np.float32(ranker.drawn_share(telling, share))
            assert int(asked * np.float32(92)) == max(1, int(share * count + 1e-9))


def test_what_tells_nothing_is_not_learned_from():
    generator = np.random.default_rng(3)
    values = np.full((4_000, len(FEATURES)), np.nan, np.float32)
    values[:, :3] = generator.normal(size=(4_000, 3))
    bought = values[:, 0] + generator.normal(size=4_000) > 0
    rows = Examples(values, np.ones(4_000, bool), bought, bought * 1.0, np.ones(4_000))
    params = Params(trees=20, members=1, feature_share=0.34)
    (member,) = ranker.train(rows, params, 7)
    assert set(member.get_score()) <= {"f0", "f1", "f2"}
    assert member.num_boosted_rounds() == 20
    assert len(member.get_dump()[0].splitlines()) > 1, "one feature of three is drawn at each split"


def test_too_few_people_for_trees_leave_the_blend_to_rank(lake):
    found = trained(lake, learnable.tables(45), Params(min_ranker_people=50))
    rows = evidence(found)
    assert [name for name, row in rows.items() if row["published"]] == ["blend"]
    assert found["ranker_models"].num_rows == 0
    assert found["calibration"].num_rows > 0
    assert found["notes"]["no_ranker"] == "45 people, 50 needed"
    weights = dict(zip(*found["blend_weights"].to_pydict().values(), strict=True))
    assert max(weights, key=lambda source: weights[source]) == "buy_again"


def test_where_the_blend_ranks_its_weights_are_those_that_were_judged_and_calibrated(lake):
    made = learnable.tables(45)
    rows = made["examples"].sort_by([("as_of", "descending"), ("person_id", "ascending"),
                                     ("item_id", "ascending")])  # fmt: skip
    newest = pc.equal(rows["as_of"], pc.max(rows["as_of"])).to_numpy()
    # At the newest cut alone another source knows what is bought, so other weights are best there.
    known = np.where(newest & rows["bought"].to_numpy(), 1.0, 0.25).astype(np.float32)
    place = rows.schema.get_field_index("popular_signal")
    rows = rows.set_column(place, rows.schema.field(place), pa.array(known))
    params = Params(min_ranker_people=50, prior={})
    found = trained(lake, {**made, "examples": rows}, params)
    judged = Examples.of(rows).rows(newest)
    weights = found["blend_weights"]["weight"].to_numpy()
    then = scorer.calibrate(judged.signals @ weights, judged.bought)
    assert found["calibration"].equals(then)
    assert [name for name, row in evidence(found).items() if row["published"]] == ["blend"]


@pytest.mark.parametrize("made", [learnable.tables(10), learnable.tables(60, cuts=1)])
def test_too_little_for_anything_leaves_the_prior_weights(lake, made):
    found = trained(lake, made)
    assert [*evidence(found)] == ["prior"]
    assert found["ranker_models"].num_rows == found["calibration"].num_rows == 0
    weights = dict(zip(*found["blend_weights"].to_pydict().values(), strict=True))
    assert weights["buy_again"] == Params().prior["buy_again"]
    assert "2 needed" in found["notes"]["untuned"]


def test_a_shop_without_cuts_has_the_prior_too(lake):
    nothing = {name: tables.TABLES[name].schema.empty_table() for name in (
        "examples", "example_people",
    )}  # fmt: skip
    assert [*evidence(trained(lake, nothing))] == ["prior"]


def test_the_night_says_which_cut_its_promise_is_of(learned):
    assert learned["notes"]["cut"] == (AS_OF - timedelta(days=28)).isoformat()
    assert learned["notes"]["best_single_source"] == "buy_again"
