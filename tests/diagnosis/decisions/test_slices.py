"""Slices, cases and the library: hand-known answers, clean shops, and one slice that loses."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs import io, tables
from jobs.diagnosis import symptoms
from jobs.diagnosis.decisions import counterexamples, misses, slices
from jobs.diagnosis.kpis import kpis
from jobs.io import Lake
from jobs.tables import FEATURES, TABLES
from tests.conftest import AS_OF
from tests.diagnosis import small_log


class First:
    """A scorer that gives the first feature, as the simulated log does."""

    def of_features(self, rows: np.ndarray) -> np.ndarray:
        return rows[:, 0].astype(float)


def case(name: str, observed: int, score: float) -> dict[str, Any]:
    return {
        "release_id": "one", "case": name, "surface": "home", "position": 1, "item_id": "i",
        "category": "beds", "predicted": 0.5, "observed": observed, "why": "x",
        "top_features": "x", FEATURES[0]: score,
    }  # fmt: skip


def test_a_case_is_still_wrong_where_the_item_would_stand_there_again() -> None:
    rows = [case("a", 0, 0.95), case("b", 0, 0.5), case("c", 1, 0.1), case("d", 1, 0.9)]
    known = pa.Table.from_pylist(rows, TABLES["counterexamples"].schema)
    found = counterexamples.check(known, First(), np.linspace(0, 1, 101))
    assert found["still_wrong"].to_pylist() == [True, False, True, False]
    assert found["new_score"].to_pylist() == pytest.approx([0.95, 0.5, 0.1, 0.9])
    assert found["place"].to_pylist() == pytest.approx([0.95, 0.5, 0.1, 0.9], abs=0.02)
    # Without anything to rank among, a case is judged by whether its score moved the right way.
    alone = counterexamples.check(known, First(), np.zeros(0))
    assert alone["still_wrong"].to_pylist() == [True, True, True, False]


def test_the_worst_misses_are_chosen_where_the_score_promised_most() -> None:
    score = np.array([0.9, 0.8, 0.7, 0.1, 0.2])
    hit = np.array([False, False, True, True, False])
    cell = np.array([0, 0, 0, 1, 1])
    position = np.array([1, 2, 3, 9, 4])
    name = np.array(list("abcde"), object)
    promised, missed = counterexamples.choose(score, hit, position, cell, name)
    assert promised.tolist() == [0, 1]
    assert missed.tolist() == [3]


def test_what_drives_a_score_is_told_with_what_it_adds() -> None:
    values = np.full((3, len(FEATURES)), 10.0, np.float32)
    parts = np.zeros(values.shape)
    parts[0, [2, 3, 4, 5]], values[0, 3] = [0.5, -0.75, 0.25, 0.125], np.nan
    parts[1] = np.nan
    assert counterexamples.told(values, parts, {FEATURES[2]: "a doubt"}) == [
        f"{FEATURES[3]} = unknown (-0.75); {FEATURES[2]} = 10 (+0.50, a doubt); "
        f"{FEATURES[4]} = 10 (+0.25)",
        None,
        "no feature adds to it",
    ]


def checked(wrong: list[bool]) -> pa.Table:
    cases = [f"r{n}/1" for n in range(len(wrong))]
    return pa.table({"release_id": ["one"] * len(wrong), "case": cases, "still_wrong": wrong})


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ([True] * 30 + [False] * 10, 15),  # fifteen lost, none won
        ([True] * 15 + [False] * 25, None),  # none lost
        ([False] * 15 + [True] * 15 + [False] * 10, None),  # as many lost as won
        ([True] * 17 + [False] * 23, None),  # two lost
    ],
)
def test_cases_that_turn_wrong_are_warned_of_beyond_those_that_turn_right(
    now: list[bool], told: int | None
) -> None:
    then = [True] * 15 + [False] * 25
    found = counterexamples.beside(checked(now), checked(then).slice(0, 40))
    assert found["wrong_before"].to_pylist() == then
    one = counterexamples.regression(found)
    assert (one is None) == (told is None)
    if one is not None:
        assert (one.warning, one.effect) == (True, pytest.approx(told / 40))
        assert f"wrong again on {told} that the one before had right" in one.sentence


def test_a_case_that_the_release_before_was_not_asked_about_did_not_turn() -> None:
    found = counterexamples.beside(checked([True] * 4), checked([False]))
    assert found["wrong_before"].to_pylist() == [False, None, None, None]
    assert found["regressed"].to_pylist() == [True, False, False, False]


def test_a_case_of_two_runs_is_asked_about_once() -> None:
    rows = pa.Table.from_pylist([case("a", 0, 0.9)], TABLES["counterexamples"].schema)
    found = counterexamples.once([(rows, AS_OF), (rows, AS_OF - timedelta(days=1))])
    assert found["found"].to_pylist() == [AS_OF]


# --- the step --------------------------------------------------------------------------------
def shop(folder: Path, made: dict) -> Lake:
    return lake(folder, made)


def lake(folder: Path, made: dict, **more: pa.Table) -> Lake:
    found = {
        "served": small_log.served(made), "visits": small_log.visits(made),
        "served_features": small_log.features(made),
        "leakage_symptoms": TABLES["leakage_symptoms"].schema.empty_table(),
    }  # fmt: skip
    return small_log.lake(folder, **(found | more))


def ran(folder: Path, made: dict) -> dict[str, list[dict[str, Any]]]:
    return small_log.ran(shop(folder, made), "slices", slices)[1]


def losing(made: dict, of: np.ndarray, times: float = 0.5) -> dict:
    """With the chance of these rows, of now, changed."""
    chance = np.where(of & (made["age"] < 14), made["chance"] * times, made["chance"])
    return made | {"chance": chance}


@pytest.mark.parametrize("seed", range(10))
def test_a_clean_shop_has_no_losing_slice(tmp_path: Path, seed: int) -> None:
    found = ran(tmp_path, small_log.places(seed))
    assert found["slices_symptoms"] == []
    assert {row["rank"] for row in found["slice_losses"]} >= {0, 1}
    keys = [(row["kinds"], row["slice"]) for row in found["slice_losses"]]
    assert len(keys) == len(set(keys)) > 100


def test_a_surface_that_never_says_what_it_showed_is_compared_all_the_same(
    tmp_path: Path,
) -> None:
    made = small_log.places(1)
    silent = (made["surface"] == "basket") | (made["age"] >= 14)
    found = ran(tmp_path, made | {"shown": np.where(silent, np.nan, made["shown"])})
    rows = {row["slice"]: row["rows"] for row in found["slice_losses"] if row["kinds"] == "surface"}
    assert rows["basket"] == pytest.approx(rows["home"], rel=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_a_uniform_fall_is_no_losing_slice(tmp_path: Path, seed: int) -> None:
    made = small_log.places(seed)
    found = ran(tmp_path, losing(made, made["age"] >= 0))
    assert found["slices_symptoms"] == []


@pytest.mark.parametrize("seed", range(3))
def test_a_slice_that_halves_is_named(tmp_path: Path, seed: int) -> None:
    made = small_log.places(seed, requests=24_000, people=4_000)
    found = ran(tmp_path, losing(made, made["category"] == "chairs"))
    assert [row["subject"] for row in found["slices_symptoms"]] == ["category chairs"]
    (first,) = [row for row in found["slice_losses"] if row["rank"] == 1]
    assert "chairs" in first["slice"]
    whole = [row for row in found["slice_losses"] if row["kinds"] == "category"]
    assert sum(row["contribution"] for row in whole) < 0


def test_returning_customers_are_decomposed_as_the_kpi_is_reported(tmp_path: Path) -> None:
    made = small_log.places(2)
    visits = small_log.visits(made)
    back = pa.array(np.arange(visits.num_rows) % 3 == 0)
    place = visits.schema.get_field_index("returning")
    visits = visits.set_column(place, visits.schema.field(place), back)
    agreed = [
        {"name": name, "value": '"returning_customers"' if name == "kpi" else value}
        for name, value in small_log.DEFINED.items()
    ]
    found = lake(
        tmp_path, made, visits=visits, items=TABLES["items"].schema.empty_table(),
        definitions=pa.Table.from_pylist(agreed, TABLES["definitions"].schema),
    )  # fmt: skip
    _, kpi = small_log.ran(found, "kpis", kpis)
    told = {
        row["segment"]: row["value"] for row in kpi["kpis"]
        if row["measure"] == "returning_customers" and row["group_kind"] == "all"
        and row["segment_kind"] == "region" and row["period"] == "current"
    }  # fmt: skip
    _, told_again = small_log.ran(found, "slices", slices)
    rows = [row for row in told_again["slice_losses"] if row["kinds"] == "region"]
    assert {row["slice"]: row["after"] for row in rows} == pytest.approx(told)
    assert {row["measure"] for row in rows} == {"returning_customers, of visits with an order"}


def test_a_pair_that_halves_is_named_as_a_pair(tmp_path: Path) -> None:
    made = small_log.places(5, requests=40_000, people=6_000)
    found = ran(
        tmp_path,
        losing(made, (made["region"] == "north") & (made["category"] == "beds"), 0.4),
    )
    assert [row["subject"] for row in found["slices_symptoms"]] == ["region north, category beds"]


def test_places_that_the_page_pushed_down_are_no_losing_slice(tmp_path: Path) -> None:
    made = small_log.places(6, requests=16_000)
    of = (made["surface"] == "home") & (made["age"] < 14)
    shown = np.where(of, 6 - made["position"], made["position"])
    chance = np.where(of, made["chance"] * (shown / made["position"]) ** -0.3, made["chance"])
    found = ran(tmp_path, made | {"shown": shown.astype(float), "chance": chance})
    assert found["slices_symptoms"] == []


def test_cases_are_told_with_their_features_and_without_persons(tmp_path: Path) -> None:
    found = ran(tmp_path, small_log.places(7, requests=2_000))
    cases = found["counterexamples"]
    assert 60 <= len(cases) <= 100
    assert len({(row["release_id"], row["case"]) for row in cases}) == len(cases)
    promised = [row for row in cases if row["observed"] == 0]
    assert min(row["predicted"] for row in promised) > 0.2
    assert all(row[FEATURES[0]] == pytest.approx(row["predicted"]) for row in cases)
    assert not any("v1" in str(row["case"]) for row in cases)
    assert found == ran(tmp_path / "again", small_log.places(7, requests=2_000))


def test_a_default_that_came_up_and_drives_the_score_is_suspicious() -> None:
    rng = np.random.default_rng(0)
    rows = {name: rng.normal(0, 1, 4_000) for name in FEATURES} | {"score": rng.random(4_000)}
    names = [*FEATURES, "score"]
    before = pa.table({name: rows[name] for name in names})
    late = rng.random(4_000) < 0.3
    rows[FEATURES[1]] = np.where(late, 0.0, rows[FEATURES[1]])
    rows["score"] = np.where(late, rows["score"] * 0.3, rows["score"])
    found = misses.drivers(pa.table({name: rows[name] for name in names}), before).to_pylist()
    assert [row["feature"] for row in found if row["suspicious"]] == [FEATURES[1]]
    assert found[1]["share"] == pytest.approx(0.3, abs=0.03)


NIGHT = AS_OF - timedelta(days=20)


def ranked_by(made: Lake, weights: dict[str, float], when: datetime = NIGHT) -> None:
    """A night whose blend has these weights."""
    stamped = TABLES["features"].schema.empty_table()
    blend = pa.table({"source": list(weights), "weight": list(weights.values())})
    for step, name, rows in (("recommendations", "features", stamped),
                             ("ranker", "blend_weights", blend)):  # fmt: skip
        for table in tables.of_step(step):
            one = rows if table.name == name else table.schema.empty_table()
            io.write_arrow(made.staged(step, when) / table.name, one)
        io.write_json(made.staged(step, when) / "manifest.json", {"as_of": when.isoformat()})
        made.publish(step, when, "one")


def test_the_worst_misses_are_told_with_what_the_model_of_their_night_made_of_them(
    tmp_path: Path,
) -> None:
    rows = small_log.features(small_log.places(7, requests=2_000))
    names = rows.schema.names
    of = np.arange(rows.num_rows) % 2 == 0
    rows = rows.set_column(
        names.index("night"), "night", pa.array(np.where(of, io.label(NIGHT), None), pa.string())
    )
    leaked = symptoms.table([symptoms.Symptom(
        "leaked_feature", "popular_signal", 0.5, 0.1, 5.0, 900, "It knew the outcome.",
    )])  # fmt: skip
    made = lake(
        tmp_path, small_log.places(7, requests=2_000), served_features=rows, leakage_symptoms=leaked
    )
    ranked_by(made, {"popular": 2.0, "buy_again": 0.0})
    _, found = small_log.ran(made, "slices", slices)
    even = [row for row in found["counterexamples"] if row["top_features"] is not None]
    assert 0 < len(even) < len(found["counterexamples"])
    for row in even:
        value = row["popular_signal"]
        said = f"popular_signal = {value:.4g} ({2 * value:+.2f}, knew the outcome in training)"
        assert row["top_features"] == said
    (told,) = found["slices_symptoms"]
    assert (told["kind"], told["subject"], told["warning"]) == (
        "suspicious_driver", "popular_signal", True,
    )  # fmt: skip
    assert told["sentence"].endswith(f"{len(even)} of {len(even)} worst misses.")


def test_a_default_that_drives_the_score_is_warned_of(tmp_path: Path) -> None:
    made = small_log.places(7, requests=2_000)
    rows = small_log.features(made)
    late = (made["age"][: rows.num_rows] < 14) & (made["score"][: rows.num_rows] < 0.1)
    values = np.where(late, np.float32(-1), rows[FEATURES[1]].to_numpy())
    place = rows.schema.names.index(FEATURES[1])
    rows = rows.set_column(place, rows.schema.field(place), pa.array(values, pa.float32()))
    _, found = small_log.ran(lake(tmp_path, made, served_features=rows), "slices", slices)
    assert [(row["kind"], row["subject"], row["warning"]) for row in found["slices_symptoms"]] == [
        ("suspicious_driver", FEATURES[1], True)
    ]


def test_an_agreed_segment_that_nothing_has_is_red(tmp_path: Path) -> None:
    made = small_log.places(8, requests=500)
    made["region"] = np.full(len(made["region"]), "unknown")
    told = {row["kind"]: row for row in ran(tmp_path, made)["slices_symptoms"]}
    assert (told["empty_segment"]["subject"], told["empty_segment"]["warning"]) == ("region", False)
    assert "none of" in told["empty_segment"]["sentence"]


def test_later_releases_are_asked_about_earlier_cases(tmp_path: Path) -> None:
    made = shop(tmp_path, small_log.places(8, requests=500))
    earlier = AS_OF - timedelta(days=1)
    known = {
        "counterexamples": [case("r1/1", 0, 0.9)],
        "counterexample_checks": [{
            "release_id": "one", "case": "r1/1", "found": earlier, "checked_release": "older",
            "predicted": 0.5, "observed": 0, "new_score": 0.1, "place": 0.2, "still_wrong": False,
            "regressed": False,
        }],
    }  # fmt: skip
    for table in tables.of_step("slices"):
        rows = pa.Table.from_pylist(known.get(table.name, []), table.schema)
        io.write_arrow(made.staged("slices", earlier) / table.name, rows)
    io.write_json(made.staged("slices", earlier) / "manifest.json", {})
    made.publish("slices", earlier, "one")
    _, found = small_log.ran(made, "slices", slices)
    assert found["counterexample_checks"] == []
    unasked = [row for row in found["slices_symptoms"] if row["subject"] == "counterexamples"]
    assert [(row["kind"], row["warning"]) for row in unasked] == [("decisions_unjudged", True)]
    assert "earlier counterexamples: none is published" in unasked[0]["sentence"]
    release(made)
    _, found = small_log.ran(made, "slices", slices)
    assert "counterexamples" not in {row["subject"] for row in found["slices_symptoms"]}
    (row,) = found["counterexample_checks"]
    assert (row["case"], row["found"], row["checked_release"]) == ("r1/1", earlier, RELEASE)
    assert row["wrong_before"] is False
    assert row["regressed"] == row["still_wrong"]


RELEASE = "20171201T000000Z-0123456789"


def release(made: Lake) -> None:
    """A release of which only the scorer is there: the blend's sum of the sources' signals."""
    from jobs.release import releases
    from jobs.scoring import scorer

    folder = releases.root(made) / RELEASE
    weights = pa.table({"source": ["popular"], "weight": [1.0]})
    empty = TABLES["calibration"].schema.empty_table()
    scorer.save(folder / "scorer", TABLES["ranker_models"].schema.empty_table(), weights, empty)
    io.write_json(folder / "manifest.json", {
        "format": releases.FORMAT, "id": RELEASE, "as_of": AS_OF.isoformat(), "files": {},
        "tables": {},
    })  # fmt: skip


def test_a_log_of_one_period_or_of_none_is_warned_of(tmp_path: Path) -> None:
    made = small_log.places(9, requests=100)
    old = made | {"age": made["age"] + 20}
    for number, log in enumerate((small_log.served(old), small_log.served(old).slice(0, 0))):
        empty = {
            name: TABLES[name].schema.empty_table()
            for name in ("visits", "served_features", "leakage_symptoms")
        }
        night, found = small_log.ran(
            small_log.lake(tmp_path / str(number), served=log, **empty), "slices", slices
        )
        (one,) = found.pop("slices_symptoms")
        assert (one["kind"], one["warning"]) == ("decisions_unjudged", True)
        assert all(rows == [] for rows in found.values())
        assert "no slice is compared" in night.notes["slices"]
