"""Examples of earlier cuts: what was known then, and what people did after."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobs import io, steps
from jobs.io import Lake
from jobs.night import engine_file
from jobs.scoring import examples
from jobs.scoring.examples import Params
from jobs.tables import FEATURES
from tests.conftest import AS_OF
from tests.signals.graphs import DAY, Shop, event

PEOPLE = [f"account:p{n:02d}" for n in range(24)]
ITEMS = [f"i{n:02d}" for n in range(16)]
CUT = AS_OF - 28 * DAY
BEFORE = ("catalogue", "identities", "sessions", "content_embeddings")


def purchases(seed: int = 5, days: int = 130) -> list[dict]:
    """Everybody buys two of their own items every eight days or so."""
    generator = np.random.default_rng(seed)
    rows = []
    for number, person in enumerate(PEOPLE):
        own = [ITEMS[(number + step) % len(ITEMS)] for step in range(4)]
        for day in range(1 + number % 5, days, 8):
            for item in generator.choice(own, 2, replace=False):
                rows.append(bought(person, str(item), day + 0.5))
    return rows


def bought(person: str, item: str, days_ago: float, kind: str = "purchase", **changes) -> dict:
    return event(
        person, days_ago, item_id=item, event_type=kind, value=3.0,
        event_id=f"{person}|{item}|{kind}|{days_ago}", **changes,
    )  # fmt: skip


def examples_of(
    lake: Lake, folder: Path, events: list[dict], params: Params
) -> tuple[pa.Table, pa.Table, dict]:
    """``examples`` and ``example_people`` of a shop's night, by its real steps; and the notes."""
    shop = Shop(lake, folder, events)
    for step in (*BEFORE, "examples"):
        night = shop.night(step=step)
        night.overrides = {"ranker": {"scored": 100}}
        chosen = params if step == "examples" else steps.module(step).Params()
        steps.module(step).run(night, chosen)
        night.close(chosen, "test")
        if step != "examples":
            lake.publish(step, AS_OF, "test-run")
    folder = night.staged
    return io.read_arrow(folder / "examples"), io.read_arrow(folder / "example_people"), night.notes


def by_pair(rows: pa.Table, cut=CUT) -> dict[tuple[str, str], dict]:
    return {
        (row["person_id"], row["item_id"]): row for row in rows.to_pylist() if row["as_of"] == cut
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory, engine):
    home = tmp_path_factory.mktemp("examples")
    lake = Lake(home / "lake").open()
    engine.save(engine_file(lake))
    return examples_of(lake, home / "source", purchases(), Params(cuts=2))


def test_what_happens_after_the_cut_labels_and_changes_no_feature(plain, lake, tmp_path):
    rare = (PEOPLE[0], ITEMS[9])
    # Bought by the person, and by everybody else too: i09 would shine if anything leaked.
    later = [bought(person, ITEMS[9], 3.25) for person in PEOPLE]
    # Happened before the cut, and came to be known after it.
    came_late = bought(PEOPLE[1], ITEMS[9], 60.25, received_time=AS_OF - 2 * DAY)
    rows, people, _ = examples_of(
        lake, tmp_path / "source", [*purchases(), *later, came_late], Params(cuts=1)
    )
    before, after = by_pair(plain[0]), by_pair(rows)
    assert before.keys() == after.keys()
    for pair, row in after.items():
        for name in FEATURES:
            assert row[name] == before[pair][name], (pair, name)
    changed = {pair for pair in after if after[pair]["bought"] != before[pair]["bought"]}
    assert changed
    assert {item for _, item in changed} == {ITEMS[9]}
    wanted = {r["person_id"]: r["wanted"] for r in plain[1].to_pylist() if r["as_of"] == CUT}
    assert rare[0] in wanted
    assert sum(r["wanted"] for r in people.to_pylist()) > sum(wanted.values())


def test_labels_are_what_people_did_in_the_horizon(lake, tmp_path):
    extra = [
        bought(PEOPLE[0], ITEMS[10], 5.25, "add_to_cart"),
        bought(PEOPLE[0], ITEMS[11], 5.25, "view"),
        bought(PEOPLE[0], ITEMS[10], 45.25, "view"),
        bought(PEOPLE[0], ITEMS[11], 45.25, "view"),
    ]
    events = purchases()
    rows, people, _ = examples_of(
        lake,
        tmp_path / "source",
        [*events, *extra],
        Params(cuts=1, cart_label=0.2, look_label=0.05),
    )
    found = by_pair(rows)
    moment = {True: "after", False: "before"}
    did: dict[str, set] = {"after": set(), "before": set()}
    for row in events:
        did[moment[row["event_time"] >= CUT]].add((f"account:{row['key']}", row["item_id"]))
    assert any(row["bought"] for row in found.values())
    for pair, row in found.items():
        assert row["bought"] == (pair in did["after"]), pair
        if row["bought"]:
            assert row["label"] == 1
            assert row["weight"] > 1
    assert found[PEOPLE[0], ITEMS[10]]["label"] == 0.2
    assert found[PEOPLE[0], ITEMS[11]]["label"] == 0.05
    asked = {row["person_id"]: row for row in people.to_pylist()}
    for person, row in asked.items():
        mine = {item for who, item in did["after"] if who == person}
        known = {item for who, item in did["before"] if who == person}
        assert (row["wanted"], row["wanted_new"]) == (len(mine), len(mine - known))


def test_older_cuts_keep_a_share_of_what_was_not_bought_at_its_weight(plain):
    rows, _, notes = plain
    assert notes["cuts"] == [CUT.isoformat(), (CUT - 28 * DAY).isoformat()]
    newest, older = by_pair(rows), by_pair(rows, CUT - 28 * DAY)
    assert len(older) < len(newest)
    assert all(row["trained"] for row in older.values())
    params = Params()
    for row in older.values():
        if row["label"] == 0:
            assert row["weight"] == pytest.approx(params.cut_weight / params.kept_share)
    left = [row for row in newest.values() if not row["trained"]]
    assert left
    assert not any(row["bought"] for row in left)


def test_features_are_as_of_their_own_cut(plain):
    rows, _, _ = plain
    newest, older = by_pair(rows), by_pair(rows, CUT - 28 * DAY)
    both = [pair for pair in newest if pair in older and older[pair]["baskets"]]
    assert both
    for pair in both:
        assert newest[pair]["baskets"] >= older[pair]["baskets"]
        assert newest[pair]["days_since_first"] == pytest.approx(
            older[pair]["days_since_first"] + 28
        )


def test_a_cut_after_which_nobody_bought_has_no_examples(lake, tmp_path):
    events = [row for row in purchases() if row["event_time"] < CUT]
    rows, people, notes = examples_of(lake, tmp_path / "source", events, Params(cuts=2))
    assert len(notes["cuts"]) == 2
    assert {row["as_of"] for row in people.to_pylist()} == {CUT - 28 * DAY}
    assert {row["as_of"] for row in rows.to_pylist()} == {CUT - 28 * DAY}


def test_an_hour_of_history_has_no_cut_and_the_step_still_ends(lake, tmp_path):
    rows, people, notes = examples_of(
        lake, tmp_path / "source", [bought(PEOPLE[0], ITEMS[0], 0.04)], Params()
    )
    assert rows.num_rows == people.num_rows == 0
    assert notes["cuts"] == []


def test_cuts_stand_a_horizon_apart_with_two_before_each(session):
    def history(days: int):
        return session.createDataFrame([(AS_OF - timedelta(days=days),)], "event_time timestamp")

    def found(days: int, count: int = 9) -> list[int]:
        chosen, horizon = examples.cuts(history(days), AS_OF, Params(cuts=count))
        assert all((AS_OF - cut) % horizon == timedelta() for cut in chosen)
        return [(AS_OF - cut).days for cut in chosen]

    assert found(300, 3) == [28, 56, 84]
    assert found(120) == [28, 56]
    assert found(40) == [10, 20], "a quarter of a short history is its horizon"
    assert found(4) == [1, 2]
    assert found(1) == []


def test_the_sample_is_the_same_whatever_the_order_of_the_rows(session):
    ids = [f"account:{i}" for i in range(50)]
    forward = session.createDataFrame([(i,) for i in ids], "person_id string")
    backward = session.createDataFrame([(i,) for i in ids[::-1]], "person_id string")
    one = examples.sample(forward, forward, seed=1, count=10)
    assert one.to_pylist() == sorted(one.to_pylist())
    assert one.equals(examples.sample(backward, backward, seed=1, count=10))
    assert not one.equals(examples.sample(forward, forward, seed=2, count=10))
