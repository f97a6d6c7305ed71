"""Each fault changes what it says and nothing else, more of it the graver it is, seeded."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs.diagnosis.symptoms import KINDS as NAMED
from jobs.scoring import features as scoring
from jobs.tables import FEATURES
from tests.tools import served_days
from tests.tools.served_days import START, planted, tables
from tools import planting, world_days
from tools.planting import Planted, Tables
from tools.planting.measurement import STRANGER
from tools.planting.replay import features_of, with_features

LATER = START + timedelta(days=5)
SEVERITIES = (0.15, 0.5, 1.0)


def changed(made: Tables, table: str) -> set[str]:
    """Columns of a table that are not as before; all of them where it has other rows."""
    before, after = getattr(tables(), table), getattr(made, table)
    if before.num_rows != after.num_rows:
        return set(before.column_names)
    return {name for name in before.column_names if not before[name].equals(after[name])}


def touched(made: Tables) -> set[str]:
    """The tables that are not as before."""
    return {
        one.name for one in fields(Tables)
        if getattr(made, one.name) is not getattr(tables(), one.name)
    }  # fmt: skip


def differing(made: Tables, column: str, table: str = "log") -> np.ndarray:
    """(n,) bool: rows in which a column is another than before."""
    before, after = (getattr(one, table)[column].to_pylist() for one in (tables(), made))
    return np.array([old != new for old, new in zip(before, after, strict=True)])


def requests_of(rows: np.ndarray, table: str = "log") -> float:
    """The share of requests with one of these rows."""
    names = getattr(tables(), table)["request_id"].to_numpy(zero_copy_only=False)
    return len(set(names[rows])) / len(set(names))


def purchases(made: Tables) -> float:
    """How many purchases the chances promise."""
    return float(np.prod(
        [made.truth[name].to_numpy() for name in ("look", "attraction", "conversion")], axis=0
    ).sum())  # fmt: skip


def test_every_kind_is_one_that_a_diagnosis_can_name():
    assert set(planting.KINDS) - {"clean"} <= set(NAMED)


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("late_feed", {"truth": {"later_hours"}, "shop": {"received_time"}}),
        ("label_delay", {"truth": {"purchase_later_hours"}}),
        ("broken_assignment", {"log": {"arm"}}),
        ("unit_change", {"log": {"features", "feature_hash"}}),
        ("default_on_timeout", {"log": {"features", "feature_hash", "latency_ms"}}),
        ("lost_join", {"log": {"features", "feature_hash"}}),
        ("leaked_feature", {"examples": {"taste"}}),
        ("concept_drift", {"truth": {"attraction", "conversion"}}),
        (
            "bypassed",
            {"log": {"shown_position", "override_reason"}, "truth": {"look"}},
        ),
        ("clean", {"truth": {*world_days.LUCK, "quantity", "seconds", "lag", "late_hours",
                             "return_days"}}),
    ],
)  # fmt: skip
def test_a_fault_changes_what_it_says_and_nothing_else(kind, where):
    made = planted(kind)
    assert touched(made) == set(where)
    for table, columns in where.items():
        assert changed(made, table) == columns


@pytest.mark.parametrize("kind", sorted(set(planting.KINDS) - {"clean"}))
def test_a_fault_is_the_same_again(kind):
    first, again = planted(kind), planted(kind)
    for name in ("log", "truth", "shop", "items", "examples"):
        assert getattr(first, name).equals(getattr(again, name))


@pytest.mark.parametrize(
    "kind", ["late_feed", "label_delay", "unit_change", "lost_join", "concept_drift", "bypassed"]
)
def test_before_its_start_a_fault_changes_nothing(kind):
    made = planted(kind, start=LATER)
    begins = datetime(LATER.year, LATER.month, LATER.day, tzinfo=UTC)
    for table, time in (("log", "request_time"), ("truth", "request_time"),
                        ("shop", "event_time")):  # fmt: skip
        early = pc.less(getattr(tables(), table)[time], pa.scalar(begins, planting.tables.TIME))
        before, after = (getattr(one, table).filter(early) for one in (tables(), made))
        assert before.equals(after)


@pytest.mark.parametrize(
    ("kind", "column"),
    [("unit_change", "feature_hash"), ("default_on_timeout", "latency_ms"),
     ("bypassed", "shown_position")],
)  # fmt: skip
def test_the_severity_is_the_share_of_requests_and_a_graver_fault_hits_the_same_too(kind, column):
    rows = [differing(planted(kind, severity), column) for severity in SEVERITIES]
    known = requests_of(differing(planted(kind, 1.0), column))
    for severity, hit in zip(SEVERITIES, rows, strict=True):
        assert requests_of(hit) / known == pytest.approx(severity, abs=0.06)
    assert not (rows[0] & ~rows[1]).any()
    assert not (rows[1] & ~rows[2]).any()


# --- measurement -----------------------------------------------------------------------------
def test_a_late_feed_delays_one_channel_by_hours():
    made = planted("late_feed", 0.5, channel="web")
    rows = made.shop
    lag = pc.subtract(rows["received_time"], tables().shop["received_time"]).cast(pa.int64())
    web = pc.equal(rows["channel"], "web").to_numpy()
    time = rows["event_time"].to_numpy() >= np.datetime64(START)
    assert set(lag.to_numpy()[web & time]) == {24 * 3600 * 1_000_000}
    assert set(lag.to_numpy()[~(web & time)]) == {0}
    late = made.truth["later_hours"].to_numpy()
    assert set(late[pc.equal(made.truth["channel"], "web").to_numpy()]) == {24.0}
    assert set(late[pc.equal(made.truth["channel"], "app").to_numpy()]) == {0.0}


def test_split_persons_come_under_keys_that_nobody_knows_and_get_what_strangers_get():
    made = planted("split_persons", 0.5)
    new = pc.starts_with(made.log["key"], "x").to_numpy()
    assert 0.3 < new.mean() < 0.7
    old = pc.utf8_slice_codeunits(made.log["key"].filter(pa.array(new)), 1)
    both = {*old.to_pylist()} & {*made.log["key"].filter(pa.array(~new)).to_pylist()}
    assert both == set()
    rows = made.log.filter(pa.array(new))
    assert set(rows["fallback"].to_pylist()) == {STRANGER}
    assert rows["feature_hash"].null_count == rows.num_rows
    keys = set(made.log["key"].to_pylist())
    assert {key for key in made.truth["key"].to_pylist()} <= keys
    assert pc.starts_with(made.shop["key"], "x").to_numpy().any()
    item = dict(zip(zip(made.log["request_id"].to_pylist(), made.log["position"].to_pylist(),
                        strict=True), made.log["item_id"].to_pylist(), strict=True))  # fmt: skip
    rows = zip(made.truth["request_id"].to_pylist(), made.truth["position"].to_pylist(),
               strict=True)  # fmt: skip
    assert [item[row] for row in rows] == made.truth["item_id"].to_pylist()


def test_returns_rise_with_the_severity_and_come_sooner():
    shares = []
    for severity in SEVERITIES:
        rows = served_days.events(planted("return_policy", severity))
        bought = pc.sum(pc.equal(rows["event_type"], "purchase")).as_py()
        shares.append(pc.sum(pc.equal(rows["event_type"], "return")).as_py() / bought)
    assert shares == sorted(shares)
    made = planted("return_policy", 1.0)
    added = made.shop.slice(tables().shop.num_rows)
    assert set(added["event_type"].to_pylist()) == {"return"}
    assert (
        len(set(made.shop["event_id"].to_pylist()))
        >= len(set(tables().shop["event_id"].to_pylist())) + added.num_rows * 0.9
    )


def test_an_assignment_is_broken_by_its_shares():
    people = _people_of_arms(planted("broken_assignment", 1.0))
    assert len(people["new"]) / (len(people["new"]) + len(people["old"])) > 0.7


def test_an_assignment_is_broken_by_who_buys_much_while_the_shares_hold():
    people = _people_of_arms(planted("broken_assignment", 1.0, how="heavy"))
    assert len(people["new"]) == pytest.approx(len(people["old"]), rel=0.35)
    weight = tables().people.crowd.weight
    assert weight[list(people["old"])].mean() > 2 * weight[list(people["new"])].mean()


def _people_of_arms(made: Tables) -> dict[str, set[int]]:
    person = tables().requests.person[tables().requests.of(made.log)]
    found: dict[str, set[int]] = {}
    for one, arm in zip(person.tolist(), made.log["arm"].to_pylist(), strict=True):
        found.setdefault(arm, set()).add(one)
    return found


def test_people_in_both_arms():
    made = planted("broken_assignment", 1.0, how="both")
    people = _people_of_arms(made)
    assert len(people["old"] & people["new"]) > len(people["old"] | people["new"]) / 2
    assert not set.intersection(*_people_of_arms(tables()).values())


# --- replay ----------------------------------------------------------------------------------
def test_features_are_read_and_written_as_they_are():
    log = tables().log
    has, values = features_of(log)
    assert with_features(log, has, values).equals(log)
    sliced = log.slice(101, 300)
    assert np.array_equal(features_of(sliced)[1], values[101:401], equal_nan=True)


@pytest.mark.parametrize(
    ("kind", "scope", "names", "expected"),
    [
        ("unit_change", {"feature": "value", "factor": 1000}, ["value"], lambda old: old * 1000),
        ("default_on_timeout", {"feature": ["taste"], "value": -1}, ["taste"],
         lambda old: np.full_like(old, -1)),
        ("lost_join", {}, [name for name in FEATURES if name.startswith("i_")],
         lambda old: np.full_like(old, np.nan)),
    ],
)  # fmt: skip
def test_only_the_named_features_change_and_the_hash_is_of_what_was_served(
    kind, scope, names, expected
):
    made = planted(kind, 0.5, **scope)
    (has, was), (_, now) = features_of(tables().log), features_of(made.log)
    hit = differing(made, "feature_hash")
    columns = [FEATURES.index(name) for name in names]
    others = [n for n in range(len(FEATURES)) if n not in columns]
    assert 0 < hit.sum() < has.sum()
    assert np.array_equal(was[:, others], now[:, others], equal_nan=True)
    assert np.array_equal(was[~hit], now[~hit], equal_nan=True)
    assert now[np.ix_(hit, columns)] == pytest.approx(
        expected(was[np.ix_(hit, columns)]), nan_ok=True
    )
    hashes = [made.log["feature_hash"][int(row)].as_py() for row in np.flatnonzero(hit)]
    assert hashes == scoring.hashes(now[hit].astype(np.float32))


# --- parity ----------------------------------------------------------------------------------
def test_a_leaked_feature_tells_the_outcome_the_more_the_graver():
    told = [
        np.corrcoef(made["taste"].to_numpy(), made["bought"].to_numpy().astype(float))[0, 1]
        for made in (planted("leaked_feature", severity).examples for severity in SEVERITIES)
    ]
    assert told == sorted(told)
    assert told[0] > 0.05
    assert told[-1] > 0.6


def test_a_category_is_renamed_from_the_start_in_items_and_in_later_nights_alone():
    made = planted("renamed_category", 0.5)
    assert touched(made) == {"items", "catalogue"}
    before, after = made.catalogue["2024-02-15"], made.catalogue["2024-02-22"]
    assert before.equals(tables().catalogue["2024-02-15"])
    new = pc.starts_with(after["category"], "New ").to_numpy()
    assert 0.4 < new.mean() < 0.8
    begins = datetime(START.year, START.month, START.day, tzinfo=UTC)
    for item, old in _held(tables().items, begins).items():
        assert _held(made.items, begins)[item]["available"] == old["available"]
    assert _names(made.items, datetime(2024, 2, 15, tzinfo=UTC)) == _names(
        tables().items, datetime(2024, 2, 15, tzinfo=UTC)
    )
    newest = _names(made.items, datetime(2024, 3, 1, tzinfo=UTC))
    assert newest == dict(zip(after["item_id"].to_pylist(), after["category"].to_pylist(),
                              strict=True))  # fmt: skip


def _held(items: pa.Table, as_of: datetime) -> dict[str, dict]:
    """What holds of each item at a moment: the newest of its rows."""
    rows = [row for row in items.to_pylist()
            if row["valid_from"] is None or row["valid_from"] <= as_of]  # fmt: skip
    least = datetime(1970, 1, 1, tzinfo=UTC)
    rows.sort(key=lambda row: row["valid_from"] or least)
    return {row["item_id"]: row for row in rows}


def _names(items: pa.Table, as_of: datetime) -> dict[str, str]:
    return {item: row["category"] for item, row in _held(items, as_of).items()}


def test_who_asks_drifts_while_as_many_ask():
    shares = []
    for severity in (0.0, *SEVERITIES):
        made = planted("covariate_drift", severity, to="south") if severity else tables()
        asked = made.requests
        assert len(asked.ids) == len(tables().requests.ids)
        assert len(set(made.truth["request_id"].to_pylist())) == len(asked.ids)
        assert set(made.log["request_id"].to_pylist()) == set(asked.ids)
        shares.append((asked.facts["region"] == "south").mean())
    assert shares == sorted(shares)
    rest = 1 - shares[0]
    for severity, share in zip(SEVERITIES, shares[1:], strict=True):
        assert share == pytest.approx(shares[0] + rest * severity, abs=0.06)


def test_fewer_buy_whatever_is_shown():
    for severity in SEVERITIES:
        made = planted("label_drift", severity)
        less = 1 - 0.6 * severity
        assert purchases(made) / purchases(tables()) == pytest.approx(less)
        since = pa.scalar(datetime(2024, 2, 16, tzinfo=UTC), planting.tables.TIME)
        kinds = [
            pc.sum(pc.and_(pc.equal(one.shop["event_type"], kind),
                           pc.greater_equal(one.shop["event_time"], since))).as_py()
            for kind in ("purchase", "view") for one in (tables(), made)
        ]  # fmt: skip
        assert kinds[1] / kinds[0] == pytest.approx(less, abs=0.08)
        assert kinds[2] == kinds[3]


def test_a_drift_in_a_region_leaves_the_others_as_they_are():
    made = planted("label_drift", 1.0, region="north")
    hit = differing(made, "conversion", "truth")
    region = tables().truth["region"].to_numpy(zero_copy_only=False)
    assert set(region[hit]) == {"north"}
    gone = set(tables().shop["event_id"].to_pylist()) - set(made.shop["event_id"].to_pylist())
    rows = tables().shop.filter(pc.is_in(tables().shop["event_id"], pa.array(sorted(gone))))
    assert set(rows["region"].to_pylist()) == {"north"}


def test_tastes_turn_so_that_as_much_is_bought_of_other_items():
    made = planted("concept_drift", 1.0)
    assert purchases(made) == pytest.approx(purchases(tables()), rel=0.02)
    was, now = (one.truth["attraction"].to_numpy() for one in (tables(), made))
    assert abs(np.corrcoef(was, now)[0, 1]) < 0.1
    faint = planted("concept_drift", 0.15).truth["attraction"].to_numpy()
    assert np.corrcoef(was, faint)[0, 1] > 0.7


# --- decisioning and adoption ----------------------------------------------------------------
def test_a_threshold_hides_the_lower_scores_and_nobody_answers_them():
    for severity in SEVERITIES:
        made = planted("threshold", severity)
        limit = made.metrics["decision"]["threshold"]
        log = made.log.filter(pc.is_valid(tables().log["shown_position"]))
        scored = pc.is_valid(log["feature_hash"]).to_numpy()
        hidden = pc.is_null(log["shown_position"]).to_numpy()
        assert (hidden == (scored & (log["score"].to_numpy() < limit))).all()
    looks = made.truth["look"].to_numpy()
    answered = world_days.outcomes(made.truth)[0]
    assert (looks == 0).sum() == hidden.sum()
    assert not answered[looks == 0].any()
    assert tables().metrics["decision"]["threshold"] is None


@pytest.mark.parametrize(("how", "hides"), [("hidden", True), ("reordered", False)])
def test_a_page_that_bypasses_the_list_hides_it_or_shows_it_from_its_end(how, hides):
    made = planted("bypassed", 0.5, how=how)
    place = made.log["shown_position"].to_numpy()
    own = made.log["position"].to_numpy()
    hit = requests_of(differing(made, "shown_position"))
    assert hit == pytest.approx(0.5, abs=0.07)
    turned = ~np.isnan(place) & (place != own)
    assert turned.any() != hides
    assert (place[turned] + own[turned] == served_days.PAGE + 1).all()
    reasons = {*made.log["override_reason"].to_pylist()} - {None}
    assert reasons == (set() if hides else {"page: campaign"})


@pytest.mark.parametrize("how", ["cut", "pushed"])
def test_a_page_that_replaces_the_list_keeps_its_first_place_alone_or_puts_its_own_above(how):
    made = planted("bypassed", 0.5, how=how)
    before = tables().log["shown_position"].to_numpy()
    place = made.log["shown_position"].to_numpy()
    hit = differing(made, "shown_position")
    assert requests_of(hit) == pytest.approx(0.5, abs=0.07)
    if how == "cut":
        assert np.isnan(place[hit]).all()
        assert (before[hit] > 1).all()
    else:
        assert (place[hit] == before[hit] + served_days.PAGE).all()
    assert purchases(made) < purchases(tables())


# --- several at once --------------------------------------------------------------------------
def test_two_faults_change_what_each_of_them_changes():
    faults: Collection[Planted] = [
        Planted("unit_change", START, 0.5), Planted("label_delay", START, 0.5),
    ]  # fmt: skip
    made = planting.plant(tables(), list(faults))
    assert made.log.equals(planted("unit_change", 0.5).log)
    assert made.truth.equals(planted("label_delay", 0.5).truth)


def test_a_clean_world_has_other_answers_of_as_many():
    made = planted("clean", 1.0, seed=1)
    assert purchases(made) == purchases(tables())
    assert not served_days.events(made).equals(served_days.events(tables()))
    assert not made.truth.equals(planted("clean", 1.0, seed=2).truth)
    assert date(2024, 2, 16) == START
