"""Parity tells faults from selection: units, what went missing, and names that changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs import io, tables
from jobs.diagnosis.parity import categories, parity, samples
from jobs.diagnosis.parity.categories import Catalogue, Shown
from jobs.diagnosis.parity.parity import NIGHT_SERVED, TRAINING_SERVED, Params
from jobs.io import Lake
from jobs.night import Night
from jobs.signals import measures
from jobs.tables import FEATURES
from tests.diagnosis.simulated_log import (
    CUTS,
    World,
    as_examples,
    as_features,
    changed,
    drawn,
    items,
    stage,
    stage_catalogue,
    stage_night,
)
from tests.expectations.good import AS_OF

WORLD = World(3, people=300, items=60)
GOODS = {f"i{n}": f"c{n % 6} > shelf {n % 12}" for n in range(60)}


@pytest.fixture(scope="module")
def served() -> pa.Table:
    return drawn(WORLD, "current", 500, 1)


def catalogue(goods: dict[str, str | None]) -> Catalogue:
    return Catalogue.of(items(goods))


def shown(rows: int = 60) -> Shown:
    each = pa.table({"item_id": list(GOODS), "rows": [1] * rows})
    names = {f"c{n}": 10 for n in range(6)}
    return Shown({"current": names, "reference": names}, {"current": each, "reference": each},
                 {"current": rows, "reference": rows})  # fmt: skip


# --- categories ------------------------------------------------------------------------------
def test_every_feature_is_of_a_family_that_units_are_looked_for_in():
    assert set(samples.FAMILY) == set(FEATURES)


def test_a_renamed_step_is_told_once_and_not_for_every_path_below_it():
    after = {item: path.replace("c2 >", "drinks >") for item, path in GOODS.items()}
    (move,) = categories.renames(catalogue(GOODS), catalogue(after))
    assert (move.level, move.old, move.new, move.held, move.gone) == (
        "broad", "c2", "drinks", 10, True,
    )  # fmt: skip
    (symptom,) = categories.symptoms([move], shown())
    assert (symptom.kind, symptom.subject) == ("renamed_category", "c2")
    assert symptom.effect == pytest.approx(1 / 6)
    assert "10 of its 10 items have the new name; the old name is gone" in symptom.sentence


def test_a_renamed_shelf_is_told_by_its_path():
    after = {item: path.replace("shelf 8", "cold shelf") for item, path in GOODS.items()}
    (move,) = categories.renames(catalogue(GOODS), catalogue(after))
    assert (move.level, move.old, move.new) == ("path", "c2 > shelf 8", "c2 > cold shelf")


def test_half_a_category_under_a_new_name_is_a_rename_that_is_not_through():
    half = [item for item, path in GOODS.items() if path.startswith("c2")][::2]
    after = GOODS | {item: "drinks" for item in half}
    moves = categories.renames(catalogue(GOODS), catalogue(after))
    assert [
        (one.old, one.new, len(one.items), one.gone) for one in moves if one.level == "broad"
    ] == [("c2", "drinks", 5, False)]


@pytest.mark.parametrize(
    "after",
    [
        GOODS,
        GOODS | {"i60": "novelties", "i61": "novelties", "i62": "novelties"},
        {item: path for item, path in GOODS.items() if not path.startswith("c2")},
        {item: path.replace("c2 >", "c3 >") for item, path in GOODS.items()},
        GOODS | {"i2": "elsewhere"},
        GOODS | {f"i{n}": "sale" for n in range(30)},
    ],
    ids=["the same", "new goods", "goods gone", "merged", "one item", "of all categories"],
)
def test_other_changes_of_the_catalogue_are_no_rename(after):
    moves = categories.renames(catalogue(GOODS), catalogue(after))
    assert [move for move in moves if move.level == "broad"] == []


def test_an_item_without_a_category_neither_comes_nor_goes():
    assert (
        categories.renames(catalogue(GOODS | {"i0": None}), catalogue(GOODS | {"i1": None})) == []
    )


def rows_of(after: dict[str, str | None], now: dict[str, int], rows: int = 600) -> tuple:
    """Rows of ``category_parity`` and what was shown, where each category took 10 places of 60."""
    before = {f"c{n}": 10 for n in range(6)}
    seen = Shown({"current": now, "reference": before}, {}, {"current": rows, "reference": 60})
    moves = categories.renames(catalogue(GOODS), catalogue(after))
    return categories.rows_of(catalogue(GOODS), catalogue(after), seen, moves), seen


def test_a_category_that_took_much_and_is_gone_is_warned_of_unless_it_was_renamed():
    rest = {f"c{n}": 120 for n in range(6) if n != 2}
    gone = {item: path for item, path in GOODS.items() if not path.startswith("c2")}
    (one,) = categories.vanished(*rows_of(gone, rest))
    assert (one.kind, one.subject, one.warning) == ("vanished_category", "c2", True)
    assert one.effect == pytest.approx(1 / 6)
    assert "took 16.7 % of what was served before; it is no longer in the catalogue" in one.sentence
    (hidden,) = categories.vanished(*rows_of(GOODS, rest))
    assert "in the catalogue and no longer served" in hidden.sentence
    drinks = {item: path.replace("c2 >", "drinks >") for item, path in GOODS.items()}
    assert categories.vanished(*rows_of(drinks, rest | {"drinks": 120})) == []
    assert categories.vanished(*rows_of(GOODS, rest | {"c2": 1})) == []
    # Of few places a category may be missing by chance.
    assert categories.vanished(*rows_of(GOODS, rest, rows=60)) == []


def test_a_category_that_takes_much_and_was_not_there_is_warned_of_unless_it_is_another_name():
    def told(after: dict[str, str | None], now: dict[str, int], reference: int = 600) -> list:
        before = {f"c{n}": reference // 6 for n in range(6)}
        seen = Shown({"current": now, "reference": before}, {},
                     {"current": 600, "reference": reference})  # fmt: skip
        moves = categories.renames(catalogue(GOODS), catalogue(after))
        rows = categories.rows_of(catalogue(GOODS), catalogue(after), seen, moves)
        return categories.new(rows, moves, seen)

    rest = {f"c{n}": 90 for n in range(6)}
    more = GOODS | {f"j{n}": "toys > shelf 1" for n in range(20)}
    (one,) = told(more, rest | {"toys": 60})
    assert (one.kind, one.subject, one.warning) == ("new_category", "toys", True)
    assert "takes 10.0 % of what is served, and nothing was served under this" in one.sentence
    assert told(more, rest | {"unknown": 60}) == []
    assert told(more, rest | {"toys": 2}) == []
    assert told(more, rest | {"toys": 60}, reference=60) == []
    drinks = {item: path.replace("c2 >", "drinks >") for item, path in GOODS.items()}
    assert told(drinks, {name: 90 for name in rest if name != "c2"} | {"drinks": 90}) == []


# --- features --------------------------------------------------------------------------------
def pairs(left: pa.Table, right: pa.Table, pair: str = NIGHT_SERVED):
    found: list = []
    both = (samples.of_served(left), samples.of_served(right))
    rows = parity.compared({pair: both}, Params(), found)
    return {row["feature"]: row for row in rows}, [(one.kind, one.subject) for one in found]


def test_equal_sides_show_nothing(served):
    rows, found = pairs(served, served)
    assert found == []
    assert rows["due"]["psi"] == rows["due"]["ks"] == 0.0
    assert rows["due"]["scale_ratio"] == 1.0
    assert {row["finding"] for row in rows.values()} == {None}


@pytest.mark.parametrize("factor", [100.0, 0.001, 24.0])
@pytest.mark.parametrize("pair", [NIGHT_SERVED, TRAINING_SERVED])
def test_a_feature_in_another_unit_is_named(served, factor, pair):
    values = served["i_paid"].to_numpy() * factor
    rows, found = pairs(served, changed(served, i_paid=values), pair)
    assert found == [("unit_change", "i_paid")]
    assert "at every quantile" in rows["i_paid"]["finding"]


def test_a_family_that_grew_as_a_whole_is_selected_and_in_no_other_unit(served):
    grown = {name: served[name].to_numpy() * 10 for name in measures.PERSON}
    assert pairs(served, changed(served, **grown), TRAINING_SERVED)[1] == []


def test_the_top_of_lists_differs_from_candidates_without_a_fault(served):
    top = served.filter(pc.less_equal(served["position"], 3))
    rows, found = pairs(served, top, TRAINING_SERVED)
    assert max(row["psi"] for row in rows.values()) > 0.3
    assert found == []


def test_a_join_that_loses_rows_and_a_default_are_told_apart(served):
    lost = np.random.default_rng(1).random(len(served)) < 0.4
    values = served["due"].to_numpy()
    gaps = changed(served, due=np.where(lost, np.nan, values))
    assert pairs(served, gaps)[1] == [("lost_join", "due")]
    stuck = changed(served, due=np.where(lost, 7.0, values))
    assert pairs(served, stuck)[1] == [("default_on_timeout", "due")]
    few = np.random.default_rng(1).random(len(served)) < 0.05
    assert pairs(served, changed(served, due=np.where(few, np.nan, values)))[1] == []


def test_against_training_only_what_is_gone_altogether_is_a_fault(served):
    values = served["due"].to_numpy()
    lost = np.random.default_rng(1).random(len(served)) < 0.6
    gaps = changed(served, due=np.where(lost, np.nan, values))
    assert pairs(served, gaps, TRAINING_SERVED)[1] == []
    nothing = changed(served, due=np.full(len(served), np.nan))
    assert pairs(served, nothing, TRAINING_SERVED)[1] == [("lost_join", "due")]


# --- the step --------------------------------------------------------------------------------
def run(lake: Lake) -> tuple[Night, dict[str, list[dict]]]:
    night = Night(lake, AS_OF, "one", "small", "parity")
    night.reset()
    parity.run(night, Params())
    names = [one.name for one in tables.of_step("parity")]
    return night, {name: io.read_arrow(night.staged / name).to_pylist() for name in names}


def test_the_sides_of_a_day_are_compared_and_again_the_same(tmp_path, served):
    lake = Lake(tmp_path).open()
    learned = drawn(WORLD, "reference", 400, 3)
    cents = changed(served, i_paid=served["i_paid"].to_numpy() * 100)
    stage(lake, cents, learned)
    newest = as_examples(drawn(WORLD, "reference", 300, 4), CUTS[0] + timedelta(days=28))
    examples = pa.concat_tables([as_examples(learned), newest])
    stage_night(lake, examples, as_features(served), GOODS)
    stage_catalogue(lake, {item: path.replace("c1 >", "tea >") for item, path in GOODS.items()})
    night, rows = run(lake)
    kinds = {(row["kind"], row["subject"]) for row in rows["parity_symptoms"]}
    assert kinds == {("renamed_category", "c1"), ("unit_change", "i_paid")}
    assert {row["pair"] for row in rows["feature_parity"]} == set(parity.PAIRS)
    assert len(rows["feature_parity"]) == len(parity.PAIRS) * len(FEATURES)
    renamed = {row["category"]: row for row in rows["category_parity"]}["c1"]
    assert (renamed["renamed_to"], renamed["catalogue_then"], renamed["catalogue_now"]) == (
        "tea", True, False,
    )  # fmt: skip
    assert "examples@2017-11-16" in night.inputs
    assert night.notes["absent"] == []
    assert run(lake)[1] == rows


def untrained(rows: pa.Table) -> pa.Table:
    """Examples that nobody learned from."""
    place = rows.schema.get_field_index("trained")
    none = pa.array(np.zeros(len(rows), bool))
    return rows.set_column(place, rows.schema.field(place), none)


def test_a_night_that_was_judged_by_other_features_than_it_learned_from_is_named(tmp_path, served):
    lake = Lake(tmp_path).open()
    learned = as_examples(drawn(WORLD, "reference", 400, 3))
    cents = drawn(WORLD, "reference", 300, 4)
    cents = changed(cents, i_paid=cents["i_paid"].to_numpy() * 100)
    newest = as_examples(cents, CUTS[0] + timedelta(days=28))
    # As in a night: of the newest cut a third is learned from in the end, too.
    judged = pa.concat_tables([newest.slice(0, 500), untrained(newest.slice(500))])
    stage(lake, served)
    stage_night(lake, pa.concat_tables([learned, judged]), as_features(served), GOODS)
    stage_catalogue(lake, GOODS)
    night, rows = run(lake)
    sample = samples.backtest(night, "2017-11-16", 60_000)
    assert len(sample) == len(judged)
    assert set(sample.weight.tolist()) == {1.0}
    (told,) = rows["parity_symptoms"]
    assert (told["kind"], told["subject"]) == ("unit_change", "i_paid")
    found = {row["pair"]: row["finding"] for row in rows["feature_parity"]
             if row["feature"] == "i_paid"}  # fmt: skip
    assert "in the backtest rows what it is in the training rows" in found["training-backtest"]
    assert "in the served rows what it is in the backtest rows" in found["backtest-served"]
    assert found[TRAINING_SERVED] is None


def test_of_one_cut_nothing_was_judged_by_what_was_learned_before(tmp_path, served):
    lake = Lake(tmp_path).open()
    stage(lake, served)
    stage_night(lake, as_examples(drawn(WORLD, "reference", 400, 3)), as_features(served), GOODS)
    stage_catalogue(lake, GOODS)
    _, rows = run(lake)
    assert {row["pair"] for row in rows["feature_parity"]} == {*parity.PAIRS} - {
        parity.TRAINING_BACKTEST
    }
    assert rows["parity_symptoms"] == []


def test_nothing_is_said_of_serving_where_few_places_have_features(tmp_path, served):
    lake = Lake(tmp_path).open()
    stage(lake, drawn(WORLD, "current", 10, 9))
    older = as_examples(drawn(WORLD, "reference", 400, 3))
    newest = as_examples(drawn(WORLD, "reference", 400, 4), CUTS[0] + timedelta(days=28))
    stage_night(lake, pa.concat_tables([older, newest]), as_features(served), GOODS)
    stage_catalogue(lake, GOODS)
    (told,) = run(lake)[1]["parity_symptoms"]
    assert told["sentence"].startswith("Nothing says whether the model sees in serving")


def test_features_of_another_type_are_named_and_not_compared(tmp_path, served):
    lake = Lake(tmp_path).open()
    stage(lake, served)
    published = as_features(served)
    place = published.schema.get_field_index("i_paid")
    texts = published["i_paid"].cast(pa.string())
    stage_night(lake, None, published.set_column(place, "i_paid", texts), GOODS)
    stage_catalogue(lake, GOODS)
    night, rows = run(lake)
    unseen, told = rows["parity_symptoms"]
    assert (told["kind"], told["subject"], told["warning"]) == (
        "not_compared", "types of features", True,
    )  # fmt: skip
    assert (unseen["subject"], unseen["warning"]) == ("sides", True)
    assert "features of 2017-11-16 i_paid is string, expected float" in told["sentence"]
    assert rows["feature_parity"] == []
    assert "features of a night that served" in night.notes["absent"]


def test_what_is_absent_is_said_and_leaves_empty_tables(tmp_path):
    lake = Lake(tmp_path).open()
    stage(lake, tables.TABLES["served_features"].schema.empty_table())
    stage_catalogue(lake, GOODS)
    night, rows = run(lake)
    assert rows["feature_parity"] == []
    assert len(rows["category_parity"]) == 6
    assert len(night.notes["absent"]) == 3
    told = {row["subject"]: row for row in rows["parity_symptoms"]}
    assert {name: (row["kind"], row["warning"]) for name, row in told.items()} == {
        "sides": ("not_compared", True), "catalogue": ("not_compared", True),
    }  # fmt: skip
    assert "no served rows with features, no examples" in told["sides"]["sentence"]


def of_night(rows: pa.Table, label: str) -> pa.Table:
    place = rows.schema.get_field_index("night")
    nights = pa.array([label] * len(rows), pa.string())
    return rows.set_column(place, rows.schema.field("night"), nights)


def test_a_night_of_many_rows_is_compared_before_an_hour_of_few(tmp_path, served):
    lake = Lake(tmp_path).open()
    hour = of_night(drawn(WORLD, "current", 10, 9), "2017-11-30T060000")
    stage(lake, served, hour)
    stage_night(lake, None, as_features(served), GOODS)
    moment = io.parse_as_of("2017-11-30T06:00:00")
    io.write_arrow(lake.staged("recommendations", moment) / "features", as_features(hour))
    lake.publish("recommendations", moment, "one")
    stage_catalogue(lake, GOODS)
    night, _ = run(lake)
    assert night.notes["published"] == "2017-11-16"


def test_a_side_of_few_rows_is_told_as_not_compared(tmp_path, served):
    lake = Lake(tmp_path).open()
    stage(lake, served)
    few = as_examples(drawn(WORLD, "reference", 20, 3))
    stage_night(lake, few, as_features(served), GOODS)
    stage_catalogue(lake, GOODS)
    (told,) = run(lake)[1]["parity_symptoms"]
    assert (told["kind"], told["subject"], told["warning"]) == ("not_compared", "sides", True)
    assert f"training-served has {len(few):,} rows of one side" in told["sentence"]


def test_a_category_that_was_renamed_since_last_year_is_an_old_story(tmp_path, served):
    lake = Lake(tmp_path).open()
    stage(lake, served, of_night(drawn(WORLD, "last_year", 100, 3), "2016-11-17"))
    now = {item: path.replace("c1 >", "tea >") for item, path in GOODS.items()}
    stage_night(lake, None, as_features(served), now)
    year_ago = datetime(2016, 11, 17, tzinfo=UTC)
    io.write_arrow(lake.staged("catalogue", year_ago) / "items", items(GOODS))
    lake.publish("catalogue", year_ago, "one")
    stage_catalogue(lake, now)
    assert [row["subject"] for row in run(lake)[1]["parity_symptoms"]] == ["sides"]


def test_training_has_no_clicks_to_hold_against(tmp_path, served):
    lake = Lake(tmp_path).open()
    stage(lake, served, event="click")
    stage_night(lake, as_examples(drawn(WORLD, "reference", 400, 3)), as_features(served), GOODS)
    stage_catalogue(lake, GOODS)
    night, rows = run(lake)
    known = {row["pair"]: row["auc_right"] for row in rows["feature_parity"]}
    assert known[TRAINING_SERVED] is None
    assert "training" in night.notes["not_judged"]
