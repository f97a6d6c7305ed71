"""The step labels as a whole: on a clean shop, and on one with a fault at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs.diagnosis.labels import labels, outcomes
from jobs.diagnosis.labels.outcomes import Window
from tests.diagnosis import small_log


def named(tmp_path: Path, served: pa.Table, events: pa.Table) -> list[tuple[str, str]]:
    found = everything(tmp_path, served, events)["labels_symptoms"]
    return [(row["kind"], row["subject"]) for row in found]


def everything(tmp_path: Path, served: pa.Table, events: pa.Table) -> dict[str, list[dict]]:
    made = small_log.lake(tmp_path, served=served, events=events)
    return small_log.ran(made, "labels", labels)[1]


def later(events: pa.Table, of: Any, hours: float) -> pa.Table:
    """Events of the last two weeks that ``of`` chooses, received by so much later if at all."""
    moment = events["event_time"]
    since = pa.scalar(small_log.AS_OF, moment.type).as_py() - small_log.timedelta(days=14)
    late = pc.and_(of, pc.greater_equal(moment, pa.scalar(since, moment.type)))
    shift = pa.scalar(small_log.timedelta(hours=hours), pa.duration("us"))
    for name in ("first_received", "received_time"):
        moved = pc.if_else(late, pc.add(events[name], shift), events[name])
        place = events.schema.get_field_index(name)
        events = events.set_column(place, events.schema.field(name), moved)
    return events.filter(pc.less(events["received_time"], pa.scalar(small_log.AS_OF, moment.type)))


@pytest.mark.parametrize("seed", range(6))
def test_a_clean_shop_has_no_symptom(tmp_path: Path, seed: int) -> None:
    made = small_log.places(seed)
    found = everything(tmp_path, small_log.served(made), small_log.events(made, seed))
    assert found["labels_symptoms"] == []
    assert all(row["passed"] for row in found["label_checks"])
    whole = [row for row in found["label_delays"] if row["segment_kind"] == "all"]
    assert {(row["population"], row["period"]) for row in whole} == {
        (population, period)
        for population in ("feed", "outcome")
        for period in ("current", "reference")
    }
    keys = [(row["check"], row["subject"]) for row in found["label_checks"]]
    assert len(keys) == len(set(keys))


def test_a_late_channel_is_a_late_feed_though_its_outcomes_are_late_too(tmp_path: Path) -> None:
    made = small_log.places(1)
    log = small_log.served(made | {"lag": late_where(made, made["channel"] == "store")})
    events = small_log.events(made)
    events = later(events, pc.equal(events["channel"], "store"), 24)
    assert named(tmp_path, log, events) == [("late_feed", "channel store")]


def test_late_answers_beside_feeds_in_time_are_a_label_delay(tmp_path: Path) -> None:
    made = small_log.places(2)
    log = small_log.served(made | {"lag": late_where(made, made["age"] >= 0)})
    events = small_log.events(made)
    events = later(events, pc.is_valid(events["request_id"]), 24)
    found = everything(tmp_path, log, events)
    assert [(row["kind"], row["subject"]) for row in found["labels_symptoms"]] == [
        ("label_delay", "outcomes")
    ]
    assert found["labels_symptoms"][0]["effect"] == pytest.approx(24, abs=3)


def test_all_purchases_late_beside_views_in_time_are_a_label_delay(tmp_path: Path) -> None:
    made = small_log.places(3)
    log = small_log.served(made | {"lag": late_where(made, made["age"] >= 0)})
    events = small_log.events(made)
    events = later(events, pc.equal(events["event_type"], "purchase"), 24)
    assert named(tmp_path, log, events) == [("label_delay", "outcomes")]


def with_stragglers(made: dict, of: np.ndarray) -> dict:
    """A few of these purchases, too few to be a delay, arrive a week later."""
    some = np.random.default_rng(9).random(len(made["age"])) < 0.04
    return made | {"lag": np.where(of & some, made["lag"] + 7, made["lag"])}


def test_outcomes_that_are_still_to_come_on_the_agreed_day_fail(tmp_path: Path) -> None:
    made = small_log.places(2, requests=12_000)
    late = with_stragglers(made, made["age"] < 14)
    found = everything(tmp_path, small_log.served(late), small_log.events(made))
    (one,) = found["labels_symptoms"]
    assert (one["kind"], one["subject"], one["warning"]) == ("label_delay", "maturity", False)
    assert "the metrics file waits 5" in one["sentence"]
    (check,) = [row for row in found["label_checks"] if row["check"] == "maturity"]
    assert not check["passed"]


def test_an_agreed_day_that_was_always_too_early_is_a_warning(tmp_path: Path) -> None:
    made = small_log.places(2, requests=12_000)
    late = with_stragglers(made, made["age"] >= 0)
    found = everything(tmp_path, small_log.served(late), small_log.events(made))
    (one,) = found["labels_symptoms"]
    assert (one["subject"], one["warning"]) == ("maturity", True)


def told(rng: np.random.Generator, daily: int, late: float) -> tuple[float, int]:
    """What is still to come after five days of so many outcomes a day over 14 days, of which a
    share is late; one of the first hours comes on the last day."""
    age = rng.uniform(0, 14, 14 * daily)
    lag = np.where(rng.random(len(age)) < late, rng.uniform(5, 9, len(age)), 0.01)
    age, lag = np.r_[age[lag < age], 13.99], np.r_[lag[lag < age], 13.9]
    log = small_log.columns("served", {
        "period": "current", "bought": True, "request_time": small_log._times(age),
        "bought_received": small_log._times(age - lag),
    }, len(age))  # fmt: skip
    window = Window(
        small_log.AS_OF - 3 * small_log.timedelta(days=14),
        small_log.AS_OF - small_log.timedelta(days=14), small_log.AS_OF,
    )  # fmt: skip
    return outcomes.later_than(log, window, 5.0)["current"]


@pytest.mark.parametrize("daily", [300, 1_000])
def test_one_outcome_at_the_edge_of_the_period_is_no_delay(daily: int) -> None:
    rng = np.random.default_rng(daily)
    for _ in range(20):
        found = told(rng, daily, 0.004)
        assert found[0] < 0.01
        assert labels.maturity([], {"current": found}, 5.0).passed
    assert not labels.maturity([], {"current": told(rng, daily, 0.04)}, 5.0).passed


@pytest.mark.parametrize(
    ("share", "was", "passed", "always"),
    [
        (0.0115, 0.0095, True, False), (0.018, 0.0095, False, False), (0.018, 0.014, False, True),
        (0.06, 0.012, False, False), (0.06, 0.05, False, True),
    ],
)  # fmt: skip
def test_outcomes_still_to_come_are_told_beyond_a_margin(
    share: float, was: float, passed: bool, always: bool
) -> None:
    later = {"current": (share, 100_000), "reference": (was, 200_000)}
    found = labels.maturity([], later, 5.0)
    assert found.passed == passed
    assert passed or found.always == always


def late_where(made: dict, of: np.ndarray) -> np.ndarray:
    return np.where(of & (made["age"] < 14), made["lag"] + 1, made["lag"])


def test_twice_the_returns_are_another_policy(tmp_path: Path) -> None:
    made = small_log.places(4)
    events = small_log.events(made, 4, returns=0.12, views=60_000)
    back = pc.equal(events["event_type"], "return")
    old = pc.less(
        events["event_time"],
        pa.scalar(small_log.AS_OF - small_log.timedelta(days=14), events["event_time"].type),
    )
    # Half of the returns before the last two weeks never were.
    odd = np.arange(events.num_rows) % 2 == 0
    events = events.filter(pc.invert(pc.and_(pc.and_(back, old), pa.array(odd))))
    assert named(tmp_path, small_log.served(made), events) == [("return_policy", "all purchases")]
    lake = small_log.lake(tmp_path / "again", served=small_log.served(made), events=events)
    checks = small_log.ran(lake, "labels", labels)[1]["label_checks"]
    failed = {(row["check"], row["subject"]) for row in checks if not row["passed"]}
    assert ("returns of purchases of the period, any age", "all purchases") in failed


def of_returns(events: pa.Table, channel: str, days: float) -> pa.Array:
    since = small_log.AS_OF - small_log.timedelta(days=days)
    mine = pc.and_(pc.equal(events["event_type"], "return"), pc.equal(events["channel"], channel))
    return pc.and_(
        mine, pc.greater_equal(events["event_time"], pa.scalar(since, events["event_time"].type))
    )


@pytest.mark.parametrize(
    ("times", "check"), [(0.5, "refund of a part"), (0.0, "return without money")]
)
def test_a_channel_that_pays_back_less_than_the_others_is_inconsistent(
    tmp_path: Path, times: float, check: str
) -> None:
    made = small_log.places(4)
    events = small_log.events(made, 4, returns=0.2, views=60_000)
    less = pc.if_else(of_returns(events, "store", 14), pc.multiply(events["value"], times),
                      events["value"])  # fmt: skip
    place = events.schema.get_field_index("value")
    events = events.set_column(place, events.schema.field("value"), less)
    assert named(tmp_path, small_log.served(made), events) == [
        ("inconsistent_labels", f"{check}: channel store")
    ]


def test_cancellations_that_one_channel_books_as_returns_are_inconsistent(tmp_path: Path) -> None:
    made = small_log.places(4)
    events = small_log.events(made, 4, returns=0.2, views=60_000, soon="app")
    # They come at once, so that more have come by now: of that the return policy tells, too.
    found = named(tmp_path, small_log.served(made), events)
    assert ("inconsistent_labels", "cancelled: channel app") in found


def test_a_channel_that_has_never_recorded_a_return_is_a_warning(tmp_path: Path) -> None:
    made = small_log.places(4)
    events = small_log.events(made, 4, returns=0.2, views=60_000)
    events = events.filter(pc.invert(of_returns(events, "store", 1_000)))
    found = everything(tmp_path, small_log.served(made), events)["labels_symptoms"]
    assert [(row["kind"], row["subject"], row["warning"]) for row in found] == [
        ("inconsistent_labels", "no returns: channel store", True)
    ]


def test_purchases_of_the_reference_rewritten_yesterday_are_inconsistent(tmp_path: Path) -> None:
    made = small_log.places(4)
    events = small_log.events(made, 4)
    now = small_log.AS_OF
    age = [(now - moment).total_seconds() / 86_400 for moment in events["event_time"].to_pylist()]
    hit = pc.and_(
        pc.equal(events["event_type"], "purchase"), pa.array([14 < days < 42 for days in age])
    )
    yesterday = pa.scalar(now - small_log.timedelta(days=1), events["received_time"].type)
    for name, value in (("revision", pa.scalar(1, events["revision"].type)),
                        ("received_time", yesterday)):  # fmt: skip
        place = events.schema.get_field_index(name)
        changed = pc.if_else(hit, value, events[name])
        events = events.set_column(place, events.schema.field(name), changed)
    assert named(tmp_path, small_log.served(made), events) == [
        ("inconsistent_labels", "rewritten weeks after: purchases")
    ]


@pytest.mark.parametrize("seed", range(3))
def test_returns_that_are_always_told_a_week_late_are_no_other_policy(
    tmp_path: Path, seed: int
) -> None:
    made = small_log.places(seed)
    events = small_log.events(made, seed, returns=0.12, views=60_000)
    late = pa.scalar(small_log.timedelta(days=7), pa.duration("us"))
    back = pc.equal(events["event_type"], "return")
    for name in ("first_received", "received_time"):
        moved = pc.if_else(back, pc.add(events[name], late), events[name])
        place = events.schema.get_field_index(name)
        events = events.set_column(place, events.schema.field(name), moved)
    now = pa.scalar(small_log.AS_OF, events["received_time"].type)
    events = events.filter(pc.less(events["received_time"], now))
    assert named(tmp_path, small_log.served(made), events) == []


def test_a_log_without_a_reference_is_told_and_not_compared(tmp_path: Path) -> None:
    made = small_log.places(5)
    log = small_log.served(made)
    made_lake = small_log.lake(
        tmp_path, served=log.filter(pc.equal(log["period"], "current")),
        events=small_log.events(made),
    )  # fmt: skip
    night, found = small_log.ran(made_lake, "labels", labels)
    (one,) = found.pop("labels_symptoms")
    assert (one["kind"], one["warning"]) == ("labels_unjudged", True)
    assert all(rows == [] for rows in found.values())
    assert "not compared" in night.notes["labels"]


def test_a_log_without_outcomes_or_events_raises_nothing(tmp_path: Path) -> None:
    made = small_log.places(6, requests=300)
    log = small_log.served(made | {"chance": np.zeros(len(made["age"]))})
    assert named(tmp_path, log, small_log.events(made).slice(0, 0)) == []
