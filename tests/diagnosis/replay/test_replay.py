"""What was served beside what was published: values, hashes, scores, order and outcomes."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs import io, tables
from jobs.diagnosis import definitions
from jobs.diagnosis.replay import promises, replay
from jobs.io import Lake
from jobs.night import Night
from jobs.scoring import features
from jobs.scoring.scorer import Scorer
from jobs.tables import FEATURES, SOURCES, TABLES, TIME
from tests.conftest import AS_OF
from tests.expectations.good_diagnosis import AGREED, RELEASE

NIGHT = AS_OF - timedelta(days=10)
PEOPLE, LISTED = 60, 10


def publish(
    lake: Lake, step: str, label: datetime, notes: dict[str, str] | None = None, **rows: pa.Table
) -> None:
    for table in tables.of_step(step):
        found = rows.get(table.name, table.schema.empty_table())
        io.write_arrow(lake.staged(step, label) / table.name, found.select(table.schema.names))
    io.write_json(lake.staged(step, label) / "manifest.json", {
        "as_of": label.isoformat(), "notes": notes or {},
    })  # fmt: skip
    lake.publish(step, label, "one")


class Shop:
    """People with ten places each, published and served alike until a test changes the served."""

    def __init__(self) -> None:
        rng = np.random.default_rng(11)
        self.rows = PEOPLE * LISTED
        self.values = rng.lognormal(0, 1, (self.rows, len(FEATURES))).astype(np.float32)
        self.values[rng.random(self.values.shape) < 0.1] = np.nan
        signals = [FEATURES.index(name) for name in features.SIGNALS]
        self.values[:, signals] = rng.random((self.rows, len(signals)))
        self.weights = pa.table(
            {"source": list(SOURCES), "weight": np.linspace(0.1, 1, len(SOURCES))}
        )
        nothing = TABLES["calibration"].schema.empty_table()
        self.scorer = Scorer.of(TABLES["ranker_models"].schema.empty_table(), self.weights, nothing)
        score = self.scorer.of_features(self.values)
        self.person = np.repeat([f"account:{n:03d}" for n in range(PEOPLE)], LISTED)
        order = np.lexsort((-score, self.person))
        self.values, self.score = self.values[order], score[order]
        self.item = np.array([f"i{n % LISTED}" for n in range(self.rows)])
        self.rank = np.arange(self.rows) % LISTED + 1
        self.served = self.values.copy()
        self.served_score = self.score.copy()
        self.position = self.rank.copy()
        self.bought = self.rank == 1
        self.elsewhere = 0  # items that each person buys and no list has
        self.horizon_days = 2
        self.agreed = dict(AGREED)
        self.more: dict[str, Any] = {}  # columns of the log

    def columns(self) -> dict[str, Any]:
        when = AS_OF - timedelta(days=9)
        return {
            "request_id": np.char.add("r-", self.person), "position": self.position,
            "day": [when.date()] * self.rows, "request_time": [when] * self.rows,
            "period": ["current"] * self.rows, "mature": [True] * self.rows,
            "surface": ["homepage"] * self.rows, "person_id": self.person,
            "visitor": self.person, "key": self.person, "item_id": self.item,
            "release_id": [RELEASE] * self.rows, "night": [io.label(NIGHT)] * self.rows,
            "score": self.served_score, "bought": self.bought, "clicked": self.bought,
            "value": self.bought * 1.0, "revenue": self.bought * 1.0,
            "returned": [False] * self.rows,
            "shown_position": self.position, "weight": np.ones(self.rows),
            "feature_hash": features.hashes(self.values),
            **dict.fromkeys(("region", "segment", "tenure", "key_type", "category", "channel"),
                            ["x"] * self.rows),
            **self.more,
        }  # fmt: skip

    def events(self) -> pa.Table:
        """Purchases a day after the list: of what was bought from it, and of what it had not."""
        who = np.r_[self.person[self.bought], np.repeat(np.unique(self.person), self.elsewhere)]
        item = np.r_[self.item[self.bought], np.full(PEOPLE * self.elsewhere, "elsewhere")]
        when = AS_OF - timedelta(days=8)
        return filled("events", {
            "event_id": [f"e{n}" for n in range(len(who))], "key_type": ["x"] * len(who),
            "key": who, "item_id": item, "event_type": ["purchase"] * len(who),
            "event_time": [when] * len(who),
        })  # fmt: skip

    def run(self, tmp_path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]], list[Any]]:
        """The night's row, the features' rows, the symptoms."""
        lake = Lake(tmp_path / "lake").open()
        stamped = features.stamped(pa.array(self.person), pa.array(self.item), self.values, NIGHT)
        listed = {
            "surface": ["homepage"] * self.rows, "person_id": self.person, "rank": self.rank,
            "item_id": self.item,
        }  # fmt: skip
        publish(
            lake, "recommendations", NIGHT, features=stamped,
            recommendations=filled("recommendations", listed),
        )  # fmt: skip
        evidence = filled(
            "ranking_evidence",
            {"ranking": ["blend"], "published": [True], "ndcg_at_10": [0.4], "recall_at_20": [0.6]},
        )
        cut = NIGHT - timedelta(days=self.horizon_days)
        publish(
            lake, "ranker", NIGHT, {"cut": cut.isoformat()}, blend_weights=self.weights,
            ranking_evidence=evidence,
        )  # fmt: skip
        publish(lake, "events", AS_OF, events=self.events())
        agreed = [{"name": n, "value": definitions.json.dumps(v)} for n, v in self.agreed.items()]
        publish(
            lake, "definitions", AS_OF,
            definitions=pa.Table.from_pylist(agreed, TABLES["definitions"].schema),
        )  # fmt: skip
        columns = self.columns()
        sample = {**columns, **features.columns_of(self.served)}
        publish(
            lake, "served", AS_OF, served=filled("served", columns),
            served_features=filled("served_features", sample),
        )  # fmt: skip
        step = Night(lake, AS_OF, "one", "shop", "replay")
        step.reset()
        replay.run(step, replay.Params())
        step.close(replay.Params(), "test")
        read = {
            t.name: io.read_arrow(step.staged / t.name).to_pylist()
            for t in tables.of_step("replay")
        }
        by_feature = {row["feature"]: row for row in read["replay_features"]}
        told = read["replay_symptoms"]
        # The tables that a night is made again from are never there.
        unproved = [row for row in told if row["kind"] == "replay_unjudged"]
        assert len(unproved) == any(row["compared"] for row in read["replayed"])
        assert all("are not all there any more" in row["sentence"] for row in unproved)
        return read["replayed"][0], by_feature, [row for row in told if row not in unproved]


def filled(name: str, columns: dict[str, Any]) -> pa.Table:
    """The table with these columns, the others null, whether they may be or not."""
    schema = pa.schema([field.with_nullable(True) for field in TABLES[name].schema])
    size = len(next(iter(columns.values())))
    arrays = [
        pa.array(columns[field.name], field.type, from_pandas=True)
        if field.name in columns
        else pa.nulls(size, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def test_what_is_served_as_published_is_the_same_in_everything(tmp_path: Path) -> None:
    night, by_feature, wrong = Shop().run(tmp_path)
    assert wrong == []
    alike = ("features_same", "hash_same", "score_same", "order_same")
    assert [night[name] for name in alike] == [1.0] * 4
    assert (night["compared"], night["unpublished"]) == (PEOPLE * LISTED, 0)
    assert (night["promised"], night["realised"]) == (0.4, 1.0)
    assert all(row["way"] is None for row in by_feature.values())
    assert night["rebuilt_people"] == 0  # the tables that it takes are not there


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("unit_change", lambda value: value * 100),
        ("default_on_timeout", lambda value: np.where(np.isnan(value), value, -1)),
        ("lost_join", lambda value: np.full_like(value, np.nan)),
        ("unlike_release", lambda value: value + np.sin(np.arange(len(value))) * 0.1),
    ],
)
def test_a_feature_that_is_served_otherwise_is_named_by_its_way(
    tmp_path: Path, kind: str, change: Any
) -> None:
    shop = Shop()
    at, some = FEATURES.index("p_paid"), np.arange(shop.rows) % 3 == 0
    before = shop.served[:, at].copy()
    shop.served[some, at] = change(shop.served[some, at])
    night, by_feature, wrong = shop.run(tmp_path)
    assert (wrong[0]["kind"], wrong[0]["subject"]) == (kind, "p_paid")
    # What nobody knew before is missing afterwards, too, whatever was added to it.
    same = np.isclose(shop.served[:, at], before, equal_nan=True).mean()
    assert night["features_same"] == pytest.approx(same, abs=0.02)
    assert night["hash_same"] == pytest.approx(same, abs=0.02)
    assert night["score_same"] == 1.0  # of the rows whose features are the same
    assert [name for name, row in by_feature.items() if row["way"]] == ["p_paid"]


def test_scores_of_another_model_are_named_where_the_features_are_right(tmp_path: Path) -> None:
    shop = Shop()
    shop.served_score = shop.served_score * 1.1
    night, _, wrong = shop.run(tmp_path)
    assert night["score_same"] == 0.0
    assert [row["subject"] for row in wrong] == ["score_same"]


def test_an_order_that_is_not_the_published_one_is_named(tmp_path: Path) -> None:
    shop = Shop()
    shop.position = LISTED + 1 - shop.rank
    night, _, wrong = shop.run(tmp_path)
    assert night["order_same"] == 0.0
    # What was bought stands last then, and that is less than was promised.
    assert [(row["subject"], row["warning"]) for row in wrong] == [
        ("order_same", False), ("ndcg@10", True),
    ]  # fmt: skip


def test_places_that_a_filter_takes_out_change_no_order(tmp_path: Path) -> None:
    shop = Shop()
    sample = filled("served_features", {**shop.columns(), **features.columns_of(shop.served)})
    kept = sample.filter(pa.array(shop.rank != 2))
    listed = {"surface": ["homepage"] * shop.rows, "person_id": shop.person, "rank": shop.rank,
              "item_id": shop.item}  # fmt: skip
    assert replay.order_same(kept, filled("recommendations", listed)) == 1.0


def test_what_came_is_of_all_that_a_visitor_bought_in_the_horizon(tmp_path: Path) -> None:
    shop = Shop()
    # Half of the visitors buy what stands second, and as much that no list has.
    shop.bought = (shop.rank == 2) & (np.arange(shop.rows) < shop.rows // 2)
    shop.elsewhere = 1
    night, _, _ = shop.run(tmp_path)
    ideal = 1 + 1 / np.log2(3)
    # The others bought elsewhere alone: they count, and their lists had nothing of it.
    assert night["realised"] == pytest.approx(0.5 / np.log2(3) / ideal)


def test_an_item_bought_twice_before_or_after_the_horizon_counts_as_the_promise_counts() -> None:
    shown = promises.Lists(
        pa.array(["a", "b"]), np.array([0, 0]), np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]),
        pa.array(["x", "y", "x", "y"]),
    )  # fmt: skip
    day = 24 * 3_600_000_000
    bought = [("a", "x", 1), ("a", "x", 2), ("a", "y", 8), ("a", "z", -1), ("b", "y", 7),
              ("c", "x", 1)]  # fmt: skip
    rows = pa.table({
        "visitor": [who for who, _, _ in bought], "item_id": [item for _, item, _ in bought],
        "event_time": pa.array([n * day for _, _, n in bought], pa.int64()).cast(TIME),
    })  # fmt: skip

    def reached(metric: str, at: int) -> list[float]:
        agreed = definitions.build(AGREED | {"model_metric": {"name": metric, "at": at}})
        return promises.of_lists(shown, rows, timedelta(days=7), agreed).tolist()

    assert reached("ndcg", 10) == pytest.approx([1.0, 1 / np.log2(3)])
    assert reached("recall", 20) == [1.0, 1.0]
    assert reached("hit_rate", 1) == [1.0, 0.0]


def test_a_visitors_first_list_that_is_no_fallback_is_judged() -> None:
    when = [3, 3, 1, 1, 2, 2, 1]
    rows = pa.table({
        "request_id": ["late", "late", "none", "none", "first", "first", "other"],
        "request_time": pa.array(when, pa.int64()).cast(TIME),
        "position": pa.array([1, 2, 1, 2, 2, 1, 1], pa.int32()),
        "surface": ["homepage"] * 6 + ["feed"], "visitor": ["v"] * 7,
        "item_id": ["a", "b", "c", "d", "e", "f", "g"],
        "fallback": pa.array([None, None, "stranger", "stranger", None, "filled", None]),
    })  # fmt: skip
    found = promises.first_lists(rows, 1)
    assert (found.visitors.to_pylist(), found.begun.tolist()) == (["v"], [2])
    assert dict(zip(found.item_id.to_pylist(), found.rank.tolist(), strict=True)) == {
        "e": 1, "f": 0,
    }  # fmt: skip
    assert found.longest == 2


@pytest.mark.parametrize("version", [features.VERSION, "of-another-night", None])
def test_another_version_of_the_features_than_the_releases_is_named(
    tmp_path: Path, version: str | None
) -> None:
    shop = Shop()
    shop.more = {"feature_version": [version] * shop.rows}
    night, _, wrong = shop.run(tmp_path)
    other = version == "of-another-night"
    assert night["version_same"] == (None if version is None else float(not other))
    assert [row["subject"] for row in wrong] == (["version_same"] if other else [])


def test_a_promise_is_held_against_what_came_by_the_same_metric_alone(tmp_path: Path) -> None:
    shop = Shop()
    shop.agreed["model_metric"] = {"name": "hit_rate", "at": 3}
    night, _, wrong = shop.run(tmp_path)
    assert (night["promised"], night["realised"]) == (None, 1.0)
    assert wrong == []


def test_what_came_below_the_promise_is_warned_of(tmp_path: Path) -> None:
    shop = Shop()
    shop.bought = shop.rank == LISTED  # NDCG of 1 / log2(11), less than the 0.4 promised
    night, _, wrong = shop.run(tmp_path)
    assert night["realised_high"] < night["promised"]
    assert [(row["kind"], row["subject"], row["warning"]) for row in wrong] == [
        ("below_promise", "ndcg@10", True)
    ]
    assert "60 visitors of 1 releases who bought" in wrong[0]["sentence"]


def test_answers_that_are_a_fallback_break_no_promise(tmp_path: Path) -> None:
    shop = Shop()
    stranger = np.arange(shop.rows) >= shop.rows - 9 * LISTED
    shop.bought = np.where(stranger, shop.rank == LISTED, shop.rank == 1)
    shop.more = {"fallback": np.where(stranger, "stranger", None)}
    night, _, wrong = shop.run(tmp_path)
    assert night["realised"] == 1.0
    assert wrong == []


def test_nights_that_gave_nothing_but_fallbacks_are_not_judged(tmp_path: Path) -> None:
    shop = Shop()
    shop.more = {"fallback": np.full(shop.rows, "stranger")}
    night, _, wrong = shop.run(tmp_path)
    assert (night["promised"], night["realised"]) == (0.4, None)
    assert {row["kind"]: row["warning"] for row in wrong}["promise_unjudged"]


def test_a_promise_whose_horizon_is_not_over_is_not_judged(tmp_path: Path) -> None:
    shop = Shop()
    shop.horizon_days = 3  # and a week until purchases are mature, of lists of nine days ago
    night, _, wrong = shop.run(tmp_path)
    assert (night["promised"], night["realised"]) == (0.4, None)
    assert [(row["kind"], row["rows"], row["warning"]) for row in wrong] == [
        ("promise_unjudged", 0, True)
    ]


def test_lists_shorter_than_the_metric_keep_and_break_no_promise(tmp_path: Path) -> None:
    shop = Shop()
    shop.agreed["model_metric"] = {"name": "recall", "at": 20}
    night, _, wrong = shop.run(tmp_path)
    assert (night["promised"], night["realised"]) == (0.6, 1.0)
    (one,) = wrong
    assert (one["kind"], one["subject"], one["warning"]) == ("promise_unjudged", "recall@20", True)
    assert one["sentence"] == (
        "recall@20 is promised of 20 places and lists were served with 10 at most, so that no "
        "promise is held against them."
    )


def test_a_night_that_served_in_the_reference_alone_has_a_row_once_it_is_due(
    tmp_path: Path,
) -> None:
    shop = Shop()
    shop.more = {"period": ["reference"] * shop.rows}
    night, _, wrong = shop.run(tmp_path)
    assert (night["requests"], night["compared"], night["realised"]) == (0, 0, 1.0)
    assert [row["kind"] for row in wrong] == ["not_replayed"]  # nothing was served of late


def test_places_that_were_never_published_are_named() -> None:
    one = replay.Replayed("2017-11-21", compared=150, unpublished=50_000)
    told = replay.wrong([one], [], replay.Shown(5_000, 50_150, 0, 50_150))
    assert [row.subject for row in told] == ["published_at_all"]


def test_a_fault_that_stands_is_one_incident_though_nights_leave_the_period() -> None:
    def night(day: int) -> replay.Replayed:
        held = 0.9 if day == 20 else 0.95
        return replay.Replayed(f"2017-11-{day}", compared=1_000, score_same=held)

    shown = replay.Shown(5_000, 50_000, 0, 50_000)
    (today,) = replay.wrong([night(day) for day in (20, 21, 22)], [], shown)
    (tomorrow,) = replay.wrong([night(day) for day in (21, 22, 23)], [], shown)
    assert today.subject == tomorrow.subject == "score_same"
    assert today.sentence == (
        "Of the release of 2017-11-20, the worst of 3 such, 10.0% of the scores are not those that "
        "the served features give."
    )
    assert "2017-11-23" in tomorrow.sentence


def pooled(*nights: tuple[int, float], what: str = "score_same") -> list[Any]:
    """What is told of nights of so many places and such a share of the same."""
    found = [
        replay.Replayed(f"2017-11-{n:02d}", compared=rows, **{what: same})  # type: ignore[arg-type]
        for n, (rows, same) in enumerate(nights, start=1)
    ]
    return replay.wrong(found, [], replay.Shown(5_000, 50_000, 0, 50_000))


@pytest.mark.parametrize("what", ["score_same", "order_same", "version_same", "hash_kept"])
def test_many_nights_of_few_places_are_judged_together(what: str) -> None:
    (told,) = pooled(*[(150, 0.9)] * 14, what=what)
    assert (told.kind, told.subject, told.rows) == ("unlike_release", what, 2_100)
    assert told.effect == pytest.approx(0.1)
    assert told.sentence.startswith(
        "Of 14 releases of fewer than 200 places each, 2,100 together, 10.0% of the "
    )


def test_places_that_many_small_nights_never_published_are_named_too() -> None:
    found = [replay.Replayed(f"2017-11-{n}", compared=100, unpublished=50) for n in range(10, 24)]
    told = replay.wrong(found, [], replay.Shown(500, 2_100, 0, 2_100))
    assert [(row.subject, row.rows) for row in told] == [("published_at_all", 2_100)]


def test_a_night_of_many_places_is_judged_alone() -> None:
    # Together with a hundred thousand right ones, 50 of 1,000 would be below the limit.
    (told,) = pooled((1_000, 0.95), (100_000, 1.0), (150, 1.0), (150, 1.0))
    assert told.sentence.startswith("Of the release of 2017-11-01, 5.0% of the scores")
    # What small nights have wrong is no part of the great one's, and not hidden by it.
    (told,) = pooled((100_000, 1.0), (150, 0.5), (150, 1.0))
    assert (told.rows, told.effect) == (300, pytest.approx(0.25))


def test_few_places_of_few_nights_convict_nobody() -> None:
    assert [row.kind for row in pooled((99, 0.0), (100, 0.0))] == ["not_replayed"]


def test_a_log_of_which_nothing_can_be_replayed_is_no_go() -> None:
    told = replay.wrong([], [], replay.Shown(5_000, 50_000))
    assert [(row.kind, row.warning) for row in told] == [("not_replayed", False)]
    assert [row.kind for row in replay.wrong([], [], replay.Shown(5_000, 0))] == ["not_replayed"]


def shares(**shown: float) -> list[tuple[str, str, bool]]:
    one = replay.Replayed("2017-11-21", compared=250)
    told = replay.wrong([one], [], replay.Shown(500_000, **shown))  # type: ignore[arg-type]
    return [(row.kind, row.subject, row.warning) for row in told]


def test_a_few_places_that_can_be_replayed_do_not_speak_for_the_rest() -> None:
    known = {"scored": 5_000_000, "replayable": 250.0}
    assert shares(**known) == [("not_replayed", "places", False)]
    # The log's own limits leave some without features, and some of releases that nobody knows.
    assert shares(scored=5_000_000, replayable=4_300_000.0) == []


def test_a_share_of_few_requests_drawn_is_not_called_little() -> None:
    assert shares(scored=5_000_000, replayable=4_000_000.0, error=0.05) == []
    assert shares(scored=5_000_000, replayable=4_000_000.0, error=0.01) == [
        ("not_replayed", "places", False)
    ]


def test_places_of_retired_refreshes_are_told_and_fail_nothing() -> None:
    assert shares(scored=5_000_000, retired=4_900_000, replayable=100_000.0) == [
        ("not_replayed", "retired", True)
    ]
    assert shares(scored=5_000_000, retired=2_000_000, replayable=3_000_000.0) == []


def test_what_the_limits_of_the_log_leave_out_is_not_little_beside_retired_places() -> None:
    # Two in a hundred places of unknown releases, and 95 of refreshes that were retired.
    known = {"scored": 1_000_000, "retired": 950_000}
    assert shares(**known, replayable=30_000.0) == [("not_replayed", "retired", True)]
    known = {"scored": 1_000_000, "retired": 400_000}
    assert shares(**known, replayable=500_000.0) == []
    assert shares(**known, replayable=400_000.0) == [("not_replayed", "places", False)]


def test_what_can_be_replayed_is_counted_over_all_scored_places(tmp_path: Path) -> None:
    shop = Shop()
    columns = shop.columns
    half = [None if n % 2 else io.label(NIGHT) for n in range(shop.rows)]
    known = [n % 4 < 2 for n in range(shop.rows)]
    rows = filled("served", columns() | {"night": half, "published": known})
    sample = filled("served_features", columns()).filter(pa.array(shop.rank == 1))
    shown = replay.shown_of(rows, sample)
    assert (shown.requests, shown.scored, shown.retired) == (PEOPLE, shop.rows, shop.rows // 4)
    assert (shown.replayable, shown.error) == (PEOPLE, 0.0)


def test_hashes_of_other_features_are_named_where_the_features_are_right(tmp_path: Path) -> None:
    shop = Shop()
    columns = shop.columns
    shop.columns = lambda: columns() | {"feature_hash": ["0"] * shop.rows}  # type: ignore[method-assign]
    night, _, wrong = shop.run(tmp_path)
    assert night["hash_same"] == 0.0
    assert [row["subject"] for row in wrong] == ["hash_kept"]


def test_a_default_where_nothing_was_published_is_named(tmp_path: Path) -> None:
    shop = Shop()
    at = FEATURES.index("p_paid")
    shop.values[:, at] = np.nan
    shop.served[:, at] = 0.0
    _, by_feature, wrong = shop.run(tmp_path)
    assert by_feature["p_paid"]["differs"] == 1.0
    assert (wrong[0]["kind"], wrong[0]["subject"]) == ("default_on_timeout", "p_paid")
