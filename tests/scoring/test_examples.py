"""Examples see the past as it was known at each cut, and the days after it only as answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs import io, spark
from jobs.io import Lake
from jobs.night import Night
from jobs.retrieval import content_embeddings
from jobs.scoring import examples
from jobs.scoring.examples import Asked, Params
from jobs.scoring.features import Pairs
from jobs.signals import sessions
from jobs.spark import engine_file
from jobs.tables import FEATURES, SOURCES
from tests.conftest import AS_OF
from tests.retrieval.conftest import catalogue
from tests.signals.graphs import DAY, Shop, event, link

ITEMS = [f"i{number:02d}" for number in range(16)]
PEOPLE = 24
STRANGER = "cookie:x"  # shops like everybody else, as a person of its own
DAYS = 40
NEWEST, OLDER = AS_OF - 10 * DAY, AS_OF - 20 * DAY
SMALL = {
    "embeddings": {"factors": 4},
    "content_embeddings": {"dim": 4},
    "examples": {"cuts": 2, "kept_share": 0.5},
}


def visit(person: int, item: int, days_ago: float, kind: str = "purchase", **changes: Any) -> dict:
    """An event of one person with one item; a purchase of 2 pieces for 3.00."""
    bought = {"quantity": 2.0, "value": 3.0} if kind == "purchase" else {}
    about = {
        "event_type": kind, "item_id": ITEMS[item],
        "event_id": f"{person}-{item}-{days_ago}-{kind}",
    }  # fmt: skip
    key = STRANGER if person == PEOPLE else f"account:{person:02d}"
    return event(key, days_ago, **about | bought | changes)


def regulars() -> list[dict]:
    """Everybody buys a staple every 5 days and another one every 9, and looks at a third item."""
    rows = [visit(2, 2, DAYS)]
    for person in range(PEOPLE + 1):
        start = 0.25 + person / (PEOPLE + 1)
        rows += [visit(person, person % 6, day + start) for day in range(0, DAYS - 1, 5)]
        rows += [visit(person, 6 + person % 5, day + start) for day in range(3, DAYS - 1, 9)]
        rows += [visit(person, 11 + person % 5, day + start, "view") for day in (4, 14, 24, 34)]
    return rows


def published(
    lake: Lake, folder: Path, events: list[dict], links: Iterable[dict] = ()
) -> Callable[..., Night]:
    """Runs what comes before the examples; makes contexts of the step ``examples``."""
    made = Shop(lake, folder, events, links)
    made.run()
    make = partial(Night, lake, AS_OF, "test-run", "test")
    night = made.night(step="sessions")
    sessions.run(night, sessions.Params())
    close(night, sessions.Params())
    night = make("catalogue", {})
    night.reset()
    paths = [f"food > shelf {number % 3} > {number % 5}" for number in range(len(ITEMS))]
    night.write("items", catalogue(ITEMS, category=paths, title=[f"thing {p}" for p in paths]))
    night.write(
        "editorial",
        pa.table({
            "list_id": ["spring"], "surface": pa.nulls(1, pa.string()),
            "position": pa.array([1], pa.int32()), "item_id": [ITEMS[15]],
        }),
    )  # fmt: skip
    close(night, sessions.Params())
    night = make("content_embeddings", SMALL)
    night.reset()
    content_embeddings.run(night, night.params_of("content_embeddings"))
    close(night, night.params_of("content_embeddings"))
    return lambda **changes: make("examples", SMALL | changes)


def close(night: Night, params: Any) -> None:
    night.close(params, "test")
    night.lake.publish(night.step, AS_OF, "test-run")


def run(night: Night) -> dict[str, list[dict]]:
    """Run the step; its tables by name."""
    night.reset()
    examples.run(night, night.params_of("examples"))
    return {
        name: io.read_arrow(night.staged / name).to_pylist()
        for name in ("examples", "example_people")
    }


@pytest.fixture(scope="module")
def lakes(
    engine: spark.Engine, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], tuple[Lake, Path]]:
    """Makes lakes that the tests of this module share."""

    def make() -> tuple[Lake, Path]:
        folder = tmp_path_factory.mktemp("examples")
        made = Lake(folder / "lake").open()
        engine.save(engine_file(made))
        return made, folder / "source"

    return make


# Happened after the newest cut, and after the older one.
AFTER = visit(0, 9, 8.5, event_id="planted after the cut", value=50.0)
# Happened between the cuts, and came to be known after the newest.
LATE = visit(
    1, 14, 12.5, event_id="planted late", received_time=AS_OF - 5 * DAY,
    first_received=AS_OF - 5 * DAY,
)  # fmt: skip


# Since five days ago the stranger's cookie is known to be an account's.
LINK = link(STRANGER, "account:02", 5.0)


@pytest.fixture(scope="module")
def plain_night(lakes) -> Callable[..., Night]:
    return published(*lakes(), regulars())


@pytest.fixture(scope="module")
def plain(plain_night):
    return run(plain_night())


@pytest.fixture(scope="module")
def planted(lakes):
    """The same shop in another order of its events, with ``AFTER``, ``LATE`` and ``LINK``."""
    return run(published(*lakes(), [AFTER, LATE, *regulars()[::-1]], [LINK])())


@pytest.fixture(scope="module")
def answers(lakes) -> Callable[..., Night]:
    """Two people known at the newest cut, and three with all that can be done after it."""
    rows = [visit(0, 1, 30.0), visit(1, 1, 30.0)]
    rows += [
        visit(0, 1, 5.0), visit(0, 1, 4.0, value=4.0), visit(0, 1, 3.0, "view"),
        visit(0, 2, 5.0, "add_to_cart"), visit(0, 2, 4.0, "click"),
        visit(0, 3, 5.0, "view"), visit(0, 4, 5.0, "remove_from_cart"),
        visit(1, 5, 6.0, value=None), visit(1, 1, 10.0), visit(2, 6, 2.0),
    ]  # fmt: skip
    return published(*lakes(), rows)


def of_cut(found: dict, cut, table: str = "examples") -> dict[tuple, dict]:
    """Rows of a cut by their key."""
    return {
        (row["person_id"], row.get("item_id")): row for row in found[table] if row["as_of"] == cut
    }


def measured(row: dict) -> list:
    return [row[name] for name in FEATURES]


def test_what_is_bought_after_a_cut_changes_labels_and_not_one_feature_of_the_cut(plain, planted):
    before, after = of_cut(plain, NEWEST), of_cut(planted, NEWEST)
    assert list(before) == list(after)
    assert [measured(row) for row in before.values()] == [measured(row) for row in after.values()]
    changed = {
        key for key in before
        if any(before[key][name] != after[key][name] for name in ("bought", "label"))
    }  # fmt: skip
    assert changed == {("account:00", ITEMS[9])}
    row = after["account:00", ITEMS[9]]
    assert (row["bought"], row["label"]) == (True, 1.0)
    assert row["weight"] == pytest.approx(1 + 0.1 * np.log1p(50.0))


def test_what_happened_before_a_cut_and_was_received_after_it_is_not_seen(plain, planted):
    key = ("account:01", ITEMS[14])
    assert of_cut(planted, NEWEST)[key] == of_cut(plain, NEWEST)[key]
    assert of_cut(planted, NEWEST)[key]["baskets"] == 0
    # An older cut's days after it hold the event: there it is an answer.
    assert of_cut(planted, OLDER)[key]["bought"]
    assert key not in of_cut(plain, OLDER) or not of_cut(plain, OLDER)[key]["bought"]


def test_a_link_that_came_after_a_cut_merges_nobody_at_it(plain, planted):
    for cut in (NEWEST, OLDER):
        mine = [row for row in of_cut(planted, cut).values() if row["person_id"] == STRANGER]
        assert len(mine) > 0
        same = [row for row in of_cut(plain, cut).values() if row["person_id"] == STRANGER]
        assert [measured(row) for row in mine] == [measured(row) for row in same]


def test_no_cut_measures_what_a_later_cut_may(plain):
    rows = of_cut(plain, OLDER)
    later = of_cut(plain, NEWEST)
    # Ten days between the cuts hold two more baskets of every staple.
    staples = {(f"account:{person:02d}", ITEMS[person % 6]) for person in range(PEOPLE)}
    gained = [later[key]["baskets"] - rows[key]["baskets"] for key in staples]
    assert gained == [2.0] * PEOPLE


def test_the_older_cuts_negatives_that_were_kept_stand_for_those_that_were_not(plain):
    rows = of_cut(plain, OLDER).values()
    unwanted = [row for row in rows if row["label"] == 0]
    np.testing.assert_allclose([row["weight"] for row in unwanted], 0.9 / 0.5)
    bought = [row["weight"] for row in rows if row["bought"]]
    assert min(bought) == pytest.approx(0.9 * (1 + 0.1 * np.log1p(3.0)))
    looked = [row["weight"] for row in rows if row["label"] == 0.01]
    np.testing.assert_allclose(looked, 0.9)
    assert bought
    assert looked
    assert all(row["trained"] for row in rows)
    # At the newest cut all are kept, since lists are judged there, and a share is trained on.
    newest = [row for row in of_cut(plain, NEWEST).values() if row["label"] == 0]
    np.testing.assert_allclose([row["weight"] for row in newest], 1 / 0.5)
    trained = sum(row["trained"] for row in newest)
    assert 0.3 * len(newest) < trained < 0.7 * len(newest)
    assert 0.3 * len(newest) < len(unwanted) < 0.7 * len(newest)
    assert all(row["trained"] for row in of_cut(plain, NEWEST).values() if row["label"] > 0)


def test_wanted_counts_what_was_bought_in_the_days_after_the_cut(plain, planted):
    in_window: dict[str, set[str]] = {}
    for row in regulars():
        if row["event_type"] == "purchase" and row["event_time"] >= NEWEST:
            person = f"{row['key_type']}:{row['key']}"
            in_window.setdefault(person, set()).add(row["item_id"])
    people = of_cut(plain, NEWEST, "example_people")
    assert {key[0]: row["wanted"] for key, row in people.items()} == {
        person: len(items) for person, items in in_window.items()
    }
    assert len(people) == PEOPLE + 1
    # Regulars had bought their staples before; what was planted is new to its buyer.
    assert {row["wanted_new"] for row in people.values()} == {0}
    bought = of_cut(planted, NEWEST, "example_people")["account:00", None]
    assert (bought["wanted"], bought["wanted_new"]) == (len(in_window["account:00"]) + 1, 1)


def test_who_was_asked_is_described_as_known_at_the_cut(plain):
    people = of_cut(plain, NEWEST, "example_people")
    before: dict[str, int] = {}
    for row in regulars():
        if row["event_time"] < NEWEST:
            person = f"{row['key_type']}:{row['key']}"
            before[person] = before.get(person, 0) + 1
    assert {key[0]: row["events"] for key, row in people.items()} == {
        key[0]: before[key[0]] for key in people
    }
    assert all(row["first_seen"] < NEWEST for row in people.values())


def test_a_step_run_twice_leaves_the_same_rows(plain_night, plain):
    night = plain_night(examples={"cuts": 1, "kept_share": 0.5})
    assert list(of_cut(run(night), NEWEST).values()) == list(of_cut(plain, NEWEST).values())
    assert night.notes["cuts"] == [NEWEST.isoformat()]
    assert night.notes["horizon_days"] == 10


def test_a_cut_after_which_nobody_bought_has_no_examples(answers):
    night = answers(examples={"cuts": 1, "horizon_days": 1})
    assert run(night) == {"examples": [], "example_people": []}
    assert night.notes["cuts"] == [(AS_OF - DAY).isoformat()]


def test_a_history_of_two_days_has_no_cut_and_no_examples(lakes):
    night = published(*lakes(), [visit(0, 1, 2.5), visit(0, 2, 0.5)])()
    assert run(night) == {"examples": [], "example_people": []}
    assert night.notes["cuts"] == []


# --- the parts ---------------------------------------------------------------------------------
def begun(session, days: float):
    return session.createDataFrame([(AS_OF - timedelta(days=days),)], "event_time timestamp")


def test_cuts_stand_a_horizon_apart_and_have_two_horizons_before_them(session):
    found, horizon = examples.cuts(begun(session, 300), AS_OF, Params())
    assert horizon == 28 * DAY
    assert found == [AS_OF - 28 * DAY, AS_OF - 56 * DAY, AS_OF - 84 * DAY]
    # Four horizons of the history: the third cut would have one before it.
    found, horizon = examples.cuts(begun(session, 112), AS_OF, Params())
    assert found == [AS_OF - 28 * DAY, AS_OF - 56 * DAY]


def test_a_short_history_gives_a_quarter_of_itself_as_the_horizon(session):
    found, horizon = examples.cuts(begun(session, 40), AS_OF, Params())
    assert (horizon, found) == (10 * DAY, [AS_OF - 10 * DAY, AS_OF - 20 * DAY])
    assert examples.cuts(begun(session, 3), AS_OF, Params()) == ([AS_OF - DAY], DAY)
    assert examples.cuts(begun(session, 2.9), AS_OF, Params())[0] == []
    assert examples.cuts(begun(session, 1).limit(0), AS_OF, Params())[0] == []


def test_the_sample_is_the_same_whatever_the_order_of_the_rows(session):
    ids = [f"account:{i}" for i in range(50)]
    forward = session.createDataFrame([(i,) for i in ids], "person_id string")
    backward = session.createDataFrame([(i,) for i in ids[::-1] * 2], "person_id string")
    one = examples.sample(forward, forward, seed=1, count=10).to_pylist()
    assert one == sorted(one)
    assert one == examples.sample(backward, backward, seed=1, count=10).to_pylist()
    assert one != examples.sample(forward, forward, seed=2, count=10).to_pylist()


def test_only_who_was_known_before_the_cut_is_asked(session):
    before = session.createDataFrame([("a",), ("b",)], "person_id string")
    after = session.createDataFrame([("b",), ("c",), ("b",)], "person_id string")
    assert examples.sample(before, after, seed=1, count=10).to_pylist() == ["b"]


def test_a_pair_is_labelled_by_the_most_that_was_done_with_it(answers):
    night = answers()
    asked = examples.ask(night, sessions.at(night, NEWEST), NEWEST, 10 * DAY, Params())
    # Person 2 was unknown at the cut.
    assert asked.people.to_pylist() == ["account:00", "account:01"]
    found = zip(
        asked.person.tolist(), asked.item_id.to_pylist(), asked.label.tolist(),
        asked.bought.tolist(), asked.spent.tolist(), strict=True,
    )  # fmt: skip
    assert list(found) == [
        (0, ITEMS[1], 1.0, True, 7.0),
        (0, ITEMS[2], 0.1, False, 0.0),
        (0, ITEMS[3], 0.01, False, 0.0),
        (1, ITEMS[1], 1.0, True, 3.0),
        (1, ITEMS[5], 1.0, True, 0.0),
    ]


def test_answers_stand_beside_the_pairs_they_are_about():
    pairs = Pairs(
        np.array([0, 0, 1]), np.array([0, 2, 1]), np.zeros((3, len(SOURCES))), np.arange(3)
    )
    asked = Asked(
        cut=AS_OF, people=pa.array(["p", "q"]),
        person=np.array([1, 1, 0, 0]), item_id=pa.chunked_array([["b", "a", "c", "gone"]]),
        bought=np.array([True, True, False, True]), label=np.array([1.0, 1.0, 0.1, 1.0]),
        spent=np.array([2.0, 3.0, 0.0, 5.0]),
    )  # fmt: skip
    label, bought, spent = examples.answers_of(pairs, asked, pa.array(["a", "b", "c"]))
    assert label.tolist() == [0.0, 0.1, 1.0]
    assert bought.tolist() == [False, False, True]
    assert spent.tolist() == [0.0, 0.0, 2.0]
    silent = dataclasses.replace(
        asked, person=np.zeros(0, int), item_id=pa.chunked_array([pa.array([], pa.string())]),
        bought=np.zeros(0, bool), label=np.zeros(0), spent=np.zeros(0),
    )  # fmt: skip
    assert examples.answers_of(pairs, silent, pa.array(["a", "b", "c"]))[0].tolist() == [0, 0, 0]
