"""What releases promised and what came true: one promise kept, one broken, known by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs import io
from jobs.evaluation import metrics
from jobs.io import Lake
from jobs.signals.audits import promises
from jobs.signals.audits.audits import Params
from jobs.signals.audits.promises import Outcome, Promise
from jobs.tables import SOURCES, TABLES, TIME
from tests.conftest import AS_OF

RELEASED = AS_OF - timedelta(days=30)
PARAMS = Params(min_slice=1)
WEIGHTS = {"buy_again": 0.8, "popular": 0.2}


def promise(released: datetime = RELEASED, promised: float = 0.5, **changes: Any) -> Promise:
    rankings = {promises.PROMISED_AS: (promised, promised - 0.02, promised + 0.02)}
    made = Promise(
        released, 28.0, rankings, kind="ranker", features=frozenset({"due"}), weights=WEIGHTS,
        moved=0.1,
    )  # fmt: skip
    return replace(made, **changes)


def came_true(values: list[float], **slices: list[bool]) -> Outcome:
    members = {("all", ""): np.ones(len(values), bool)}
    members |= {("region", name): np.array(flags) for name, flags in slices.items()}
    return Outcome({"published": np.array(values)}, members)


def rows(made: Promise, found: Outcome, as_of: datetime = AS_OF) -> list[dict[str, Any]]:
    return promises.rows_of(made, found, as_of, 1, PARAMS)


def history(*gaps: tuple[float, Promise]) -> tuple[list[dict[str, Any]], dict[datetime, Promise]]:
    """Rows of releases whose outcome fell short of the promise by these gaps."""
    found = []
    for short, made in gaps:
        promised = made.rankings[promises.PROMISED_AS][0]
        found += rows(made, came_true([promised - short] * 50))
    return found, {made.released: made for _, made in gaps}


def flags(*gaps: tuple[float, Promise]) -> list[str | None]:
    found, made = history(*gaps)
    return [row["flag"] for row in promises.flagged(found, made, set(made), PARAMS)]


# --- which releases --------------------------------------------------------------------------
def test_a_release_is_due_when_it_is_ripe_and_those_that_become_final_come_first():
    shelf = [promise(AS_OF - timedelta(days=days)) for days in (3, 7, 9, 29, 30, 40)]

    def chosen(count: int) -> list[int]:
        found = promises.due(shelf, AS_OF, Params(max_releases=count))
        return [(AS_OF - one.released).days for one in found]

    assert chosen(1) == [30]
    assert chosen(2) == [40, 30]
    assert chosen(3) == [40, 30, 7]
    assert chosen(9) == [40, 30, 29, 9, 7]


def test_a_release_is_final_when_its_horizon_is_over_and_late_events_had_their_time():
    assert not promises.is_final(promise(AS_OF - timedelta(days=29)), AS_OF, PARAMS)
    assert promises.is_final(promise(AS_OF - timedelta(days=30)), AS_OF, PARAMS)


# --- the rows --------------------------------------------------------------------------------
def test_a_promise_that_is_kept_has_no_gap_beyond_its_interval():
    row = rows(promise(), came_true([0.4, 0.6] * 40))[0]
    assert (row["ranking"], row["slice_kind"], row["people"]) == ("published", "all", 80)
    assert (row["promised"], row["promised_low"]) == (0.5, 0.48)
    assert row["realised"] == pytest.approx(0.5)
    assert row["gap_low"] < 0 < row["gap_high"]
    assert (row["horizon_days"], row["final"]) == (28.0, True)


def test_a_promise_that_is_broken_has_a_gap_above_zero():
    row = rows(promise(), came_true([0.1, 0.3] * 40))[0]
    assert row["gap"] == pytest.approx(0.3)
    assert 0.25 < row["gap_low"] < row["gap"] < row["gap_high"] < 0.35


def test_before_its_horizon_is_over_a_release_has_an_outcome_and_no_gap():
    row = rows(promise(AS_OF - timedelta(days=9)), came_true([0.1] * 10))[0]
    assert (row["realised"], row["gap"], row["horizon_days"]) == (pytest.approx(0.1), None, 9.0)
    assert row["final"] is False


def test_slices_have_their_own_outcome_and_a_gap_where_they_were_promised_something():
    slices = {(promises.PROMISED_AS, "region", "north"): (0.4, 0.3, 0.5)}
    north, south = [True, False, False], [False, True, True]
    found = rows(promise(slices=slices), came_true([0.1, 0.9, 0.9], north=north, south=south))
    shown = [(row["slice"], row["people"], row["promised"]) for row in found]
    assert shown == [("", 3, 0.5), ("north", 1, 0.4), ("south", 2, None)]
    assert found[1]["realised"] == pytest.approx(0.1)
    assert found[1]["gap"] == pytest.approx(0.3)
    assert found[2]["gap"] is None


def test_a_slice_that_falls_short_is_shown_and_the_whole_is_what_is_flagged():
    slices = {(promises.PROMISED_AS, "region", "north"): (0.9, 0.88, 0.92)}
    made = promise(slices=slices)
    found = rows(made, came_true([0.5] * 40, north=[True] * 20 + [False] * 20))
    told = promises.flagged(found, {made.released: made}, {made.released}, PARAMS)
    assert [(row["slice"], row["flag"]) for row in told] == [("", None), ("north", None)]
    assert told[1]["gap_low"] > 0.3


def test_a_release_after_which_nobody_bought_is_told_as_such():
    row = rows(promise(), came_true([]))[0]
    assert (row["people"], row["realised"], row["gap"]) == (0, 0.0, None)


def test_the_interval_agrees_with_the_metrics_own():
    values = np.random.default_rng(5).random(400)
    mean, low, high = metrics.intervals(values[:, None], 3)
    assert mean[0] == pytest.approx(values.mean())
    assert (low[0], high[0]) == pytest.approx(metrics.interval(values, 4), abs=0.004)


def test_intervals_of_the_gap_hold_the_truth_as_often_as_they_say():
    generator, held = np.random.default_rng(0), 0
    for _ in range(200):
        sides = []
        for truth in (0.5, 0.4):
            values = generator.normal(truth, 0.2, 100)
            half = 1.96 * 0.2 / 10
            sides.append((values.mean(), values.mean() - half, values.mean() + half))
        _, low, high = promises.gap(*sides)
        held += low <= 0.1 <= high
    assert held >= 180


# --- flags -----------------------------------------------------------------------------------
def nights(*moved: float) -> list[Promise]:
    size = len(moved)
    return [
        promise(AS_OF - timedelta(days=30 + size - n), moved=share) for n, share in enumerate(moved)
    ]


def test_a_steady_gap_is_what_the_rules_cost_and_is_not_flagged_again():
    one, two, three = nights(0.1, 0.1, 0.1)
    assert flags((0.1, one), (0.1, two), (0.11, three)) == ["broken", None, None]


def test_a_gap_that_widens_under_a_stable_model_is_the_pipelines():
    one, two, three = nights(0.1, 0.1, 0.1)
    assert flags((0.0, one), (0.0, two), (0.2, three)) == [None, None, "pipeline"]


@pytest.mark.parametrize(
    "change",
    [
        {"moved": 0.9},
        {"weights": {"buy_again": 0.3, "popular": 0.7}},
        {"rankings": {promises.PROMISED_AS: (0.8, 0.78, 0.82)}},
        {"kind": "blend"},
        {"features": frozenset({"due", "affinity"})},
    ],
)
def test_a_gap_that_widens_under_a_model_that_changed_is_the_models(change):
    one, two = nights(0.1, 0.1)
    assert flags((0.0, one), (0.2, replace(two, **change))) == [None, "model"]


def test_without_an_earlier_release_a_broken_promise_has_no_cause_yet():
    (one,) = nights(0.1)
    assert flags((0.2, one)) == ["broken"]
    assert flags((0.02, one)) == [None]


def test_a_release_whose_night_is_gone_clears_no_model():
    one, two = nights(0.1, 0.1)
    found, made = history((0.0, one), (0.2, two))
    del made[one.released]
    flagged = promises.flagged(found, made, {two.released}, PARAMS)
    assert [row["flag"] for row in flagged] == [None, "model"]


def test_rows_of_earlier_nights_keep_the_flag_they_have():
    one, two = nights(0.1, 0.1)
    found, made = history((0.0, one), (0.2, two))
    assert all(r["flag"] is None for r in promises.flagged(found, made, set(), PARAMS))


# --- what people then did --------------------------------------------------------------------
def test_outcomes_are_of_the_key_as_the_release_knew_it(session):
    def frame(columns: str, *found: tuple) -> Any:
        return session.createDataFrame(list(found), columns)

    day = timedelta(days=1)
    purchases = frame(
        "key_type string, key string, person_id string, item_id string, event_time timestamp, "
        "resolved_by string",
        ("account", "ann", "account:ann", "tea", RELEASED + day, "key"),
        ("account", "ann", "account:ann", "tea", RELEASED + 2 * day, "key"),
        ("account", "ann", "account:ann", "early", RELEASED - day, "key"),
        ("account", "ann", "account:ann", "after", RELEASED + 28 * day, "key"),
        # Was a person of its own at the release, and is ann's only since.
        ("cookie", "merged", "account:ann", "milk", RELEASED + day, "key"),
        # Unknown at the release; belongs tonight to ann, who was known.
        ("cookie", "new", "account:ann", "rice", RELEASED + day, "key"),
        # Ann had logged in on what was no key of hers.
        ("cookie", "merged", "account:ann", "salt", RELEASED + day, "login"),
        # Unknown altogether.
        ("account", "zoe", "account:zoe", "wine", RELEASED + day, "key"),
    )
    then = frame(
        "key_type string, key string, person_id string",
        ("account", "ann", "account:ann"), ("cookie", "merged", "cookie:merged"),
    )  # fmt: skip
    known = frame("person_id string", ("account:ann",), ("cookie:merged",))
    found = promises.bought(purchases, then, known, RELEASED, RELEASED + 28 * day).toArrow()
    assert {(row["person_id"], row["item_id"]) for row in found.to_pylist()} == {
        ("account:ann", "tea"), ("account:ann", "rice"), ("cookie:merged", "milk"),
        ("account:ann", "salt"),
    }  # fmt: skip
    assert found.num_rows == 4


def test_a_ranking_reaches_what_the_metric_says():
    ids = pa.array(["a", "b", "c"])
    truth = pa.table({"person_id": ["a", "a", "b"], "item_id": ["x", "y", "x"]})
    listed = pa.table({
        "person_id": ["a", "a", "b", "b"], "item_id": ["x", "z", "z", "x"],
        "rank": pa.array([1, 2, 1, 2], pa.int32()),
    })  # fmt: skip
    truth = pa.concat_tables([truth, pa.table({"person_id": ["c"], "item_id": ["x"]})])
    ideal_of_two = 1 + 1 / np.log2(3)
    assert promises.reached(listed, truth, ids) == pytest.approx(
        [1 / ideal_of_two, 1 / np.log2(3), 0.0]
    )
    # Two curated lists may each have a first item; only one of them stands first.
    firsts = pa.table({
        "person_id": ["a", "a"], "item_id": ["y", "x"], "rank": pa.array([1, 1], pa.int32()),
    })  # fmt: skip
    assert promises.reached(firsts, truth, ids) == pytest.approx([1.0, 0.0, 0.0])


# --- a release of the lake -------------------------------------------------------------------
PEOPLE = [f"account:p{n}" for n in range(30)]


def publish(lake: Lake, released: datetime, listed: str, promised: float) -> None:
    """A release that listed one item to everybody, and promised so much."""

    def write(step: str, **tables: list[dict[str, Any]]) -> None:
        folder = lake.staged(step, released)
        for name, found in tables.items():
            io.write_arrow(folder / name, declared(name, found))
        cut = released - timedelta(days=28)
        notes = {"cut": cut.isoformat()} if step == "ranker" else {}
        io.write_json(folder / "manifest.json", {"as_of": released.isoformat(), "notes": notes})
        lake.publish(step, released, "one")

    long_ago = released - timedelta(days=200)
    write(
        "identities",
        identities=[
            {"key_type": "account", "key": p[8:], "person_id": p} for p in PEOPLE
        ],
        persons=[
            {"person_id": p, "region": "north" if n % 2 else "south", "personalised": n != 0,
             "restrictions": [], "keys": 1, "first_seen": long_ago}
            for n, p in enumerate(PEOPLE)
        ],
    )  # fmt: skip
    write("interactions", interactions=[
        {"person_id": p, "item_id": "tea", "weight": 1.0, "purchases": 1.0, "events": n,
         "first_time": long_ago, "last_time": long_ago}
        for n, p in enumerate(PEOPLE)
    ])  # fmt: skip
    write("embeddings", embedding_report=[{"measure": "moved_share", "value": 0.1}])
    write(
        "candidates",
        candidates=[
            {"person_id": p, "item_id": "tea", "source": "buy_again", "rank": 1, "score": 1.0}
            for p in PEOPLE
        ],
        pools=[{"source": "popular", "context_kind": "all", "context": "", "rank": rank,
                "item_id": item, "score": 1.0} for rank, item in ((1, "wine"), (2, "tea"))],
    )  # fmt: skip
    write(
        "ranker",
        blend_weights=[{"source": s, "weight": WEIGHTS.get(s, 0.0)} for s in SOURCES],
        ranking_evidence=[
            {"ranking": name, "people": 500, "ndcg_at_10": promised, "ndcg_low": promised - 0.02,
             "ndcg_high": promised + 0.02, "recall_at_20": 0.2, "new_ndcg_at_10": 0.1,
             "difference_low": 0.0, "published": name == "ranker"}
            for name in ("ranker", "buy_again")
        ],
        slice_evidence=[
            {"ranking": name, "slice_kind": "region", "slice": "south", "people": 250,
             "ndcg_at_10": promised / 2, "ndcg_low": promised / 2 - 0.05,
             "ndcg_high": promised / 2 + 0.05}
            for name in ("ranker", "buy_again")
        ],
        feature_importance=[{"feature": "due", "gain": 1.0}],
    )  # fmt: skip
    write("recommendations", recommendations=[
        {"surface": "homepage", "person_id": p, "rank": 1, "item_id": listed, "score": 1.0,
         "sources": ["buy_again"], "provenance": [], "propensity": 1.0, "placed_by": "model"}
        for p in PEOPLE
    ])  # fmt: skip
    write("release")


def test_a_release_is_judged_by_its_lists_its_sources_and_its_slices(lake, night, session):
    publish(lake, RELEASED, "tea", promised=0.8)
    audits = tonight(lake, night)
    found = {(r["ranking"], r["slice_kind"], r["slice"]): r for r in promises_of(audits)}
    published = found["published", "all", ""]
    # p0 refused personalisation; the other 29 bought tea, and every second of them wine as well.
    both = 1 / (1 + 1 / np.log2(3))
    assert published["people"] == 29
    assert published["realised"] == pytest.approx((15 + 14 * both) / 29)
    assert found["buy_again", "all", ""]["realised"] == pytest.approx(published["realised"])
    assert found["buy_again", "all", ""]["promised"] == 0.8
    assert found["collaborative", "all", ""]["realised"] == 0.0
    assert found["collaborative", "all", ""]["promised"] is None
    assert found["popular", "region", "south"]["realised"] == 1.0
    for ranking in ("published", "buy_again"):
        south = found[ranking, "region", "south"]
        assert south["promised"] == 0.4
        assert south["gap"] == pytest.approx(0.4 - south["realised"])
        assert found[ranking, "region", "north"]["promised"] is None
    assert {kind for _, kind, _ in found} == {"all", "region", "activity"}
    assert {r["flag"] for r in found.values()} == {None}


def test_a_broken_promise_is_flagged_and_a_final_one_is_copied_not_judged_again(lake, night):
    publish(lake, RELEASED, "tea", promised=0.8)
    first = tonight(lake, night)
    rows = promises_of(first)
    assert promises_of(tonight(lake, night)) == rows, "the same night again"
    lake.publish("audits", AS_OF, "one")
    publish(lake, RELEASED + timedelta(days=2), "nothing", promised=0.8)
    later = AS_OF + timedelta(days=2)
    second = tonight(lake, night, as_of=later)
    found = promises_of(second)
    assert [r for r in found if r["released"] == RELEASED] == rows
    assert second.notes["releases_judged"] == [(RELEASED + timedelta(days=2)).isoformat()]
    flagged = [(r["released"], r["ranking"], r["flag"]) for r in found if r["flag"]]
    assert flagged == [(RELEASED + timedelta(days=2), "published", "pipeline")]


def tonight(lake: Lake, night: Any, as_of: datetime = AS_OF) -> Any:
    """The promises of a night whose events are purchases some days after each release."""
    step = night("audits", as_of=as_of)
    purchases = [
        {"event_id": f"{day}{item}{n}", "event_time": RELEASED + timedelta(days=day),
         "received_time": RELEASED + timedelta(days=day), "key_type": "account", "key": p[8:],
         "person_id": p, "resolved_by": "key", "session": p, "basket": p,
         "event_type": "purchase", "item_id": item, "quantity": 1.0,
         "event_date": (RELEASED + timedelta(days=day)).date()}
        for day in (5, 29) for item in ("tea", "wine") for n, p in enumerate(PEOPLE)
        # p0 refused personalisation: none of it is in the history.
        if n and (item == "tea" or n % 2 == 0)
    ]  # fmt: skip
    for name, tables in {
        "sessions": {"history": purchases},
        "identities": {
            "identities": [{"key_type": "account", "key": p[8:], "person_id": p} for p in PEOPLE],
            "persons": [
                {"person_id": p, "personalised": n != 0, "restrictions": [], "keys": 1}
                for n, p in enumerate(PEOPLE)
            ],
        },
    }.items():
        folder = lake.staged(name, as_of)
        for table, found in tables.items():
            io.write_arrow(folder / table, declared(table, found))
        io.write_json(folder / "manifest.json", {"as_of": as_of.isoformat()})
        lake.publish(name, as_of, "one")
    step.write("promises", promises.run(step, replace(PARAMS, min_slice=5)))
    return step


def declared(name: str, found: list[dict[str, Any]]) -> pa.Table:
    """Rows as the declared table; columns that nothing here reads are filled."""
    schema = TABLES[name].schema
    blank = {pa.string(): "", TIME: RELEASED}
    unread = {f.name: blank[f.type] for f in schema if f.type in blank and not f.nullable}
    return pa.Table.from_pylist([unread | row for row in found], schema)


def promises_of(step: Any) -> list[dict[str, Any]]:
    return io.read_arrow(step.staged / "promises").to_pylist()
