"""The step ``served`` on a hand-written log: what was shown, to whom, and what came of it."""

from __future__ import annotations

import shutil
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

from jobs import gate, io, tables
from jobs.diagnosis import definitions
from jobs.diagnosis.experiments.exposure import SEVERAL, exposed
from jobs.diagnosis.log import intake, served
from jobs.errors import Fault
from jobs.io import Lake
from jobs.night import Night
from jobs.release import releases
from jobs.sources import contract
from tests.conftest import AS_OF
from tests.expectations.good_diagnosis import AGREED, RELEASE

RETIRED = "20171120T060000Z-0123456789"  # a refresh whose tables are gone
AGAIN = RELEASE[:-1] + "0"  # the same night, before it was run again
KNOWN = datetime(2017, 11, 20, tzinfo=AS_OF.tzinfo)
NOW = AS_OF - timedelta(days=9)
HOUR = timedelta(hours=1)


def asked(request: str, items: list[str], when: datetime = NOW, **given: Any) -> list[dict]:
    """The rows of one answer."""
    return [
        {
            "request_id": request, "request_time": when, "surface": "homepage",
            "key_type": "account", "key": "1", "position": place, "item_id": item,
            "propensity": 1.0, "release_id": RELEASE, "score": 0.3,
            "features": [("baskets", float(place))], "feature_version": "v",
            "feature_hash": "h", "shown_position": place, **given,
        }
        for place, item in enumerate(items, start=1)
    ]  # fmt: skip


def event(name: str, kind: str, item: str, when: datetime, **given: Any) -> dict[str, Any]:
    return {
        "event_id": name, "revision": 0, "event_time": when, "received_time": when,
        "first_received": when, "key_type": "account", "key": "1", "event_type": kind,
        "item_id": item, "quantity": 1.0, "value": 5.0 if kind in ("purchase", "return") else None,
        "channel": "web", "event_date": when.date(), "session_id": f"s-{name}", **given,
    }  # fmt: skip


LOG = [
    *asked("r1", ["i1", "i2"]),
    *asked("r2", ["i1", "i3"], NOW - timedelta(days=20)),
    *asked("r3", ["i2"], key="9", release_id="20170101T000000Z-0123456789"),
    *asked("r4", ["i2"], key="2", fallback="no list", features=None, score=None),
    *asked("r5", ["i1"], AS_OF - timedelta(days=1), experiment="winter", arm="new"),
    *asked("r6", ["i1"], AS_OF - timedelta(days=2), experiment="winter", arm="old"),
    *asked("r8", ["i5"], release_id=RETIRED),
    *asked("r9", ["i5"], release_id=AGAIN),
    *asked("r1", ["i1"]),  # delivered twice
    {**asked("r7", ["i1"])[0], "item_id": None},
    *asked("future", ["i1"], AS_OF + HOUR),
    *asked("old", ["i1"], AS_OF - timedelta(days=100)),
]
EVENTS = [
    event("e0", "purchase", "i9", NOW - timedelta(days=60)),
    event("e1", "click", "i1", NOW + HOUR, request_id="r1"),
    event(
        "e2",
        "purchase",
        "i1",
        NOW + 2 * HOUR,
        request_id="r1",
        revision=1,
        received_time=NOW + timedelta(days=8),
    ),
    event("e3", "return", "i1", NOW + timedelta(days=4), value=2.0),
    event("e4", "purchase", "i2", NOW + timedelta(days=6), request_id="r1"),  # too late
    event("e5", "purchase", "i3", NOW - timedelta(days=21), request_id="r2"),  # before
    event("e6", "click", "i7", NOW + HOUR, request_id="r1"),  # an item it did not show
    event("e7", "purchase", "i2", NOW + HOUR, key="9"),  # named by nobody
    event("e8", "click", "i2", NOW + HOUR, key="2", channel="app"),
]


def publish(lake: Lake, step: str, label: datetime, **rows: list[dict[str, Any]]) -> None:
    for table in tables.of_step(step):
        found = pa.Table.from_pylist(rows.get(table.name, []), table.schema)
        io.write_arrow(lake.staged(step, label) / table.name, found)
    io.write_json(lake.staged(step, label) / "manifest.json", {"as_of": label.isoformat()})
    lake.publish(step, label, "one")


@pytest.fixture
def shop(lake: Lake, tmp_path: Path) -> Lake:
    folder = tmp_path / "shop"
    rows = pa.Table.from_pylist(LOG, contract.schema("recommendation_log"))
    io.write_arrow(folder / "recommendation_log", rows)
    (folder / "metrics.yaml").write_text(yaml.safe_dump(AGREED))
    staged = lake.staged("source", AS_OF)
    staged.mkdir(parents=True)
    io.write_json(staged / "source.json", {"folder": str(folder)})
    io.write_json(staged / "manifest.json", {})
    lake.publish("source", AS_OF, "one")
    items = [
        {"item_id": f"i{n}", "position": n, "category": "food > bread", "available": True,
         "flags": []}
        for n in range(10)
    ]  # fmt: skip
    keys = [
        {"key_type": "account", "key": key, "person_id": f"account:{key}",
         "household_id": f"account:{key}", "component": f"account:{key}"}
        for key in ("1", "2")
    ]  # fmt: skip
    people = [
        {"person_id": f"account:{key}", "household_id": f"account:{key}", "region": "north",
         "personalised": True, "restrictions": [], "keys": 1}
        for key in ("1", "2")
    ]  # fmt: skip
    publish(lake, "events", AS_OF, events=EVENTS)
    publish(lake, "catalogue", AS_OF, items=items)
    publish(lake, "catalogue", KNOWN, items=[items[1] | {"category": "bread"}, *items[2:]])
    publish(lake, "identities", KNOWN, identities=keys, persons=people)
    publish(lake, "recommendations", KNOWN)
    made = lake.staged("release", KNOWN)
    made.mkdir(parents=True)
    io.write_json(made / "release.json", {"id": RELEASE})
    io.write_json(made / "manifest.json", {})
    lake.publish("release", KNOWN, "one")
    retired = {"what": "publish", "from": None, "to": RETIRED}
    releases.record(lake, **retired)
    agreed = Night(lake, AS_OF, "one", "shop", "definitions")
    agreed.reset()
    definitions.run(agreed, definitions.Params())
    agreed.close(definitions.Params(), "test")
    gate.judge(agreed)
    return lake


def run(lake: Lake, **params: Any) -> Night:
    step = Night(lake, AS_OF, "one", "shop", "served", {"served": params})
    step.reset()
    served.run(step, step.params_of("served"))
    step.close(step.params_of("served"), "test")
    return step


def by_place(step: Night) -> dict[tuple[str, int], dict[str, Any]]:
    rows = io.read_arrow(step.staged / "served").to_pylist()
    return {(row["request_id"], row["position"]): row for row in rows}


def test_a_log_is_told_with_its_outcomes_and_passes_its_gate(shop: Lake) -> None:
    run(shop)
    gate.judge(Night(shop, AS_OF, "one", "shop", "served"))
    found = shop.published("served", AS_OF)
    rows = {
        (row["request_id"], row["position"]): row
        for row in io.read_arrow(found.table("served")).to_pylist()
    }
    # What is of the future, of before the periods, broken or a repeat is not there.
    assert set(rows) == {
        ("r1", 1), ("r1", 2), ("r2", 1), ("r2", 2), ("r3", 1), ("r4", 1), ("r5", 1), ("r6", 1),
        ("r8", 1), ("r9", 1),
    }  # fmt: skip
    first = rows["r1", 1]
    assert (first["clicked"], first["bought"], first["returned"]) == (True, True, True)
    assert first["value"] == 3.0  # 5 paid, 2 given back
    assert first["bought_time"] == NOW + 2 * HOUR
    assert first["bought_received"] == NOW + 2 * HOUR  # and corrected a week later
    assert (first["period"], first["mature"]) == ("current", True)
    assert (first["person_id"], first["region"], first["channel"]) == ("account:1", "north", "web")
    assert first["category"] == "bread"  # as its night had it
    assert first["tenure"] == "known"
    # Neither too late an answer counts, nor one before its request, nor one without its name.
    assert not any(rows[place]["bought"] for place in [("r1", 2), ("r2", 2), ("r3", 1)])
    assert (rows["r2", 1]["period"], rows["r5", 1]["mature"]) == ("reference", False)
    unknown = rows["r3", 1]
    assert (unknown["night"], unknown["person_id"]) == (None, None)
    assert (unknown["visitor"], unknown["region"]) == ("account:9", "unknown")
    assert unknown["category"] == "food"  # as it is now
    # What was published and is gone is not unknown, and its people are told by the night before;
    # what lies under the date of a night that was run again is not what was served.
    retired, again = rows["r8", 1], rows["r9", 1]
    assert (retired["published"], retired["night"]) == (True, None)
    assert (again["published"], again["night"]) == (False, None)
    assert retired["person_id"] == again["person_id"] == "account:1"
    assert (rows["r1", 1]["published"], unknown["published"]) == (True, False)
    assert rows["r4", 1]["channel"] == "app"
    counts: Counter[str] = Counter()
    for row in io.read_arrow(found.table("log_counts")).to_pylist():
        counts[row["outcome"]] += row["rows"]
    assert counts[intake.READ] == 12
    assert (counts[intake.KEPT], counts[intake.REPEATED], counts[intake.INCOMPLETE]) == (10, 1, 1)
    assert (counts[intake.NO_RELEASE], counts[intake.NO_PERSON]) == (2, 1)
    assert counts[intake.RETIRED] == 1
    assert counts[intake.NO_FEATURES] == 0  # the fallback has none to have
    assert (counts[intake.ANSWERS], counts[intake.BEFORE], counts[intake.TOO_LATE]) == (2, 1, 1)
    assert counts[intake.STRAY] == 1
    assert counts[intake.TWO_ARMS] == 1
    features = io.read_arrow(found.table("served_features"))
    assert pc.all(pc.equal(features["baskets"], features["position"].cast(pa.float32()))).as_py()
    assert "r4" not in features["request_id"].to_pylist()
    visits = io.read_arrow(found.table("visits")).to_pylist()
    mine = {(row["visitor"], row["day"], row["experiment"]): row for row in visits}
    day = mine["account:1", NOW.date(), ""]
    assert (day["requests"], day["clicks"], day["orders"]) == (3, 1, 1)
    assert (day["revenue"], day["attributed"], day["returning"]) == (5.0, 3.0, True)
    assert day["before_value"] == 5.0  # e0, in the 28 days before the reference
    arms = {row["arm"] for row in visits if row["experiment"] == "winter"}
    assert arms == {"several"}


def agree(shop: Lake, **changed: Any) -> None:
    """The team agrees on something else."""
    file = Path(io.read_json(shop.published("source", AS_OF).table("source.json"))["folder"])
    (file / "metrics.yaml").write_text(yaml.safe_dump(AGREED | changed))
    agreed = Night(shop, AS_OF, "two", "shop", "definitions")
    agreed.reset()
    definitions.run(agreed, definitions.Params())
    agreed.close(definitions.Params(), "test")
    gate.judge(agreed)


def test_arms_are_counted_from_the_experiments_first_day_on_and_not_of_last_year(
    shop: Lake,
) -> None:
    """A rehearsal put key 1 in the other arm, and an experiment of that name did a year ago."""
    starts = (AS_OF - timedelta(days=5)).date()
    agree(shop, experiments=[AGREED["experiments"][0] | {"starts": starts.isoformat()}])
    winter: dict[str, Any] = {"experiment": "winter"}
    began = datetime.combine(starts, datetime.min.time(), AS_OF.tzinfo)
    log = [
        *asked("w1", ["i1"], began - timedelta(days=365), arm="old", **winter),
        *asked("w2", ["i1"], began - HOUR, arm="old", **winter),
        *asked("w3", ["i1"], began, arm="new", **winter),
        *asked("w4", ["i1"], AS_OF - HOUR, arm="new", **winter),
        *asked("w5", ["i1"], began + HOUR, key="2", arm="old", **winter),
        *asked("w6", ["i1"], AS_OF - 2 * HOUR, key="2", arm="new", **winter),
    ]
    folder = Path(io.read_json(shop.published("source", AS_OF).table("source.json"))["folder"])
    shutil.rmtree(folder / "recommendation_log")
    io.write_arrow(
        folder / "recommendation_log",
        pa.Table.from_pylist(log, contract.schema("recommendation_log")),
    )
    rows = io.read_arrow(run(shop).staged / "visits").to_pylist()
    arms = {(row["visitor"], row["day"]): row["arm"] for row in rows}
    day = timedelta(days=1)
    assert arms == {
        ("account:1", starts - 365 * day): "old", ("account:1", starts - day): "old",
        ("account:1", starts): "new", ("account:1", AS_OF.date() - day): "new",
        ("account:2", starts): "several", ("account:2", AS_OF.date() - day): "several",
    }  # fmt: skip
    (one,) = definitions.read(Night(shop, AS_OF, "one", "shop", "experiments")).experiments
    of_today = [row for row in rows if row["period"] != "last_year"]
    who = exposed(pa.Table.from_pylist(of_today, tables.TABLES["visits"].schema), one, [])
    in_arm = dict(zip(who.visitor.to_pylist(), who.arm.tolist(), strict=True))
    assert in_arm == {"account:1": who.arms.index("new"), "account:2": SEVERAL}


def test_a_window_counts_what_was_bought_without_the_link(shop: Lake) -> None:
    agree(shop, label=AGREED["label"] | {"attribution": "window"})
    rows = by_place(run(shop))
    assert rows["r3", 1]["bought"]
    assert rows["r1", 1]["value"] == 3.0  # once, not once more by the window


def counted(step: Night) -> dict[tuple[str, str], int]:
    rows = io.read_arrow(step.staged / "log_counts").to_pylist()
    return {(row["period"], row["outcome"]): row["rows"] for row in rows}


def test_rows_without_a_time_count_for_the_weeks_of_their_release_alone(shop: Lake) -> None:
    folder = Path(io.read_json(shop.published("source", AS_OF).table("source.json"))["folder"])
    before = counted(run(shop))
    untimed = [
        *asked("t1", ["i1", "i2"], release_id="20161120T000000Z-0123456789"),  # a year ago
        *asked("t2", ["i1", "i2", "i3"]),  # of a release that served now
        *asked("t3", ["i1"], release_id="20171125T000000Z-00000000aa"),  # made now
        *asked("t4", ["i1"], release_id="20171105T000000Z-00000000aa"),  # made before
        *asked("t5", ["i1", "i2"], release_id=None),
        *asked("t6", ["i1"], release_id="release one"),
    ]
    schema = contract.schema("recommendation_log")
    rows = pa.Table.from_pylist([one | {"request_time": None} for one in untimed], schema)
    io.write_arrow(folder / "recommendation_log", rows, part=1)
    now = counted(run(shop))
    lost = {period: now[period, intake.INCOMPLETE] - before[period, intake.INCOMPLETE]
            for period in ("current", "reference")}  # fmt: skip
    assert lost == {"current": 4, "reference": 1}
    assert now["current", intake.READ] == before["current", intake.READ] + 4
    assert now["current", intake.UNDATED] == 3


def test_what_a_log_lacks_is_counted_by_period_and_told(shop: Lake) -> None:
    folder = Path(io.read_json(shop.published("source", AS_OF).table("source.json"))["folder"])
    before = counted(run(shop))
    bare: dict[str, Any] = {"features": None, "feature_version": None, "feature_hash": None}
    lacking = [
        *asked("b1", ["i1", "i2", "i3"], **bare),  # on a day of answers with features
        *asked("b2", ["i1", "i2"], propensity=None),
        *asked("b3", ["i1"], NOW - timedelta(days=20), **bare, propensity=None),
    ]
    rows = pa.Table.from_pylist(lacking, contract.schema("recommendation_log"))
    io.write_arrow(folder / "recommendation_log", rows, part=1)
    step = run(shop)
    now = counted(step)
    more = {key: now[key] - before.get(key, 0) for key in now}
    assert more["current", intake.NO_FEATURES] == 3
    assert more["reference", intake.NO_FEATURES] == 1
    assert more["current", intake.NO_PROPENSITY] == 2
    assert more["reference", intake.NO_PROPENSITY] == 1
    assert (more["current", intake.TWO_FORMS], more["reference", intake.TWO_FORMS]) == (1, 1)
    told = {row["subject"]: row for row in
            io.read_arrow(step.staged / "served_symptoms").to_pylist()}  # fmt: skip
    assert (told[intake.NO_FEATURES]["kind"], told[intake.NO_FEATURES]["warning"]) == (
        "incomplete_log", False,
    )  # fmt: skip
    assert told[intake.TWO_FORMS]["sentence"].startswith("On 1 days scored places were logged")


def test_a_source_without_a_log_is_refused_with_what_to_do(shop: Lake) -> None:
    folder = Path(io.read_json(shop.published("source", AS_OF).table("source.json"))["folder"])
    shutil.rmtree(folder / "recommendation_log")
    with pytest.raises(Fault, match=r"recommendation_log; record what serving answers"):
        run(shop)


def test_a_log_that_ended_long_ago_is_refused(shop: Lake) -> None:
    folder = Path(io.read_json(shop.published("source", AS_OF).table("source.json"))["folder"])
    shutil.rmtree(folder / "recommendation_log")
    old = pa.Table.from_pylist(
        asked("old", ["i1"], AS_OF - timedelta(days=100)), contract.schema("recommendation_log")
    )
    io.write_arrow(folder / "recommendation_log", old)
    with pytest.raises(Fault, match=r"holds no whole answer of the 14 days before 2017-12-01"):
        run(shop)


def test_a_return_is_of_the_last_purchase_before_it_and_without_an_amount_whole(
    shop: Lake,
) -> None:
    later = NOW + timedelta(days=5)
    again = [
        event("e20", "purchase", "i1", later),  # at the counter
        event("e21", "return", "i1", later + HOUR, value=5.0),
        event("e22", "click", "i2", NOW + HOUR, request_id="r1"),
        event("e23", "purchase", "i2", NOW + 2 * HOUR, request_id="r1", value=10.0),
        event("e24", "return", "i2", NOW + 3 * HOUR, value=3.0),
        event("e25", "return", "i2", NOW + 4 * HOUR, value=4.0),
        event("e26", "purchase", "i3", NOW - timedelta(days=20) + HOUR, request_id="r2"),
        event("e27", "return", "i3", NOW - timedelta(days=19), value=None),
    ]
    kept = [one for one in EVENTS if one["event_id"] not in ("e3", "e4", "e5")]
    publish(shop, "events", AS_OF, events=[*kept, *again])
    rows = by_place(run(shop))
    assert (rows["r1", 1]["returned"], rows["r1", 1]["value"]) == (False, 5.0)
    assert (rows["r1", 2]["returned"], rows["r1", 2]["value"]) == (True, 3.0)
    assert (rows["r2", 2]["returned"], rows["r2", 2]["value"]) == (True, 0.0)


def test_a_maturity_that_leaves_no_whole_week_is_refused_with_the_period_that_would(
    shop: Lake,
) -> None:
    with pytest.raises(Fault, match=r"set served.current_days to 14"):
        run(shop, current_days=7)


@pytest.mark.parametrize("days", [0.5, 6.5, 7.0, 7.5, 13.1, 14.0])
def test_the_period_that_is_named_leaves_a_whole_week_and_no_shorter_one_does(days: float) -> None:
    label = definitions.Label("purchase", "request", 72, days, "subtract")

    def current(length: int) -> served.Span:
        return served.Span("current", AS_OF - timedelta(days=length), AS_OF)

    with pytest.raises(Fault) as refused:
        served.ripe_before(current(7), label)
    told = int(str(refused.value).rsplit(" ", 1)[1])
    assert served.ripe_before(current(told), label) > current(told).start
    with pytest.raises(Fault):
        served.ripe_before(current(told - 7), label)
