"""Persons from night to night: what changes, what is touched, and on which engine."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobs import io
from jobs.io import Lake
from jobs.signals import identities, resolution
from jobs.signals.components import Caps
from jobs.signals.continuing import Before
from jobs.spark import engine_file
from tests.conftest import AS_OF
from tests.signals.graphs import (
    DAY,
    TIGHT,
    Shop,
    counted,
    event,
    in_order,
    link,
    persons,
    random_shop,
)  # fmt: skip


@pytest.mark.parametrize(("least", "way"), [(0, ("incremental", None)), (1_000, ("full", "size"))])
def test_a_merge_and_an_unlink_are_rows_and_the_founding_key_keeps_the_id(shop, least, way):
    made = shop(
        [event("cookie:c", 30), event("account:1", 25), event("device:d", 20)],
        [link("cookie:c", "account:1", 12), link("cookie:c", "account:1", 4, action="unlink"),
         link("account:1", "device:d", 18)],
    )  # fmt: skip
    first = made.run(AS_OF - 15 * DAY)
    assert first["identity_changes"] == []
    assert made.notes["full_for"] == "first"
    second = made.run(AS_OF - 10 * DAY, incremental_links=least)
    assert set(persons(second).values()) == {"cookie:c"}
    third = made.run(incremental_links=least)
    assert persons(third) == {
        "cookie:c": "cookie:c", "account:1": "account:1", "device:d": "account:1",
    }  # fmt: skip
    assert (made.notes["mode"], made.notes["full_for"]) == way
    assert counted(third)[f"mode: {way[0]}"] == 1
    same = {
        "key_type_a": "account", "key_a": "1", "key_type_b": "cookie", "key_b": "c",
        "link_source": "login",
    }  # fmt: skip
    assert sorted(third["identity_changes"], key=lambda row: row["as_of"]) == [
        {"kind": "merge", "from_person": "account:1", "to_person": "cookie:c", "cause": "link",
         "changed_at": AS_OF - 12 * DAY, "as_of": AS_OF - 10 * DAY, **same},
        {"kind": "split", "from_person": "cookie:c", "to_person": "account:1", "cause": "unlink",
         "changed_at": AS_OF - 4 * DAY, "as_of": AS_OF, **same},
    ]  # fmt: skip
    again = made.run(incremental_links=least)
    assert in_order(again["identity_changes"]) == in_order(third["identity_changes"])


def test_a_cap_that_a_new_link_breaks_splits_and_names_that_link(shop):
    made = shop(
        [event("account:1", 30), event("device:d", 25), event("account:2", 24)],
        [link("account:1", "device:d", 20), link("account:2", "device:d", 3)],
    )
    made.run(AS_OF - 10 * DAY)
    found = made.run()
    assert found["identity_changes"] == [
        {"kind": "split", "from_person": "account:1", "to_person": "device:d", "cause": "cap",
         "changed_at": AS_OF - 3 * DAY, "key_type_a": "account", "key_a": "2",
         "key_type_b": "device", "key_b": "d", "link_source": "login", "as_of": AS_OF}
    ]  # fmt: skip


def test_another_policy_or_another_past_makes_a_full_run_and_is_named_as_the_cause(shop):
    events = [event("account:1", 30), event("cookie:c", 25), event("device:d", 24)]
    guess = link("account:1", "cookie:c", 20, source="probabilistic", confidence=0.92)
    made = shop(events, [guess])
    made.run(AS_OF - 10 * DAY)
    found = made.run(min_confidence=0.95)
    assert (made.notes["mode"], made.notes["differs"]) == ("full", "policy")
    assert [(r["kind"], r["cause"]) for r in found["identity_changes"]] == [("split", "policy")]
    made.put(identity_links=[guess, link("account:1", "device:d", 20)])
    later = made.run(AS_OF + DAY, min_confidence=0.95)
    assert (made.notes["mode"], made.notes["differs"]) == ("full", "data")
    assert {(r["kind"], r["cause"]) for r in later["identity_changes"]} == {
        ("split", "policy"), ("merge", "data"),
    }  # fmt: skip


@pytest.mark.parametrize(("seed", "on"), [(1, "array"), (2, "array"), (2, "spark")])
def test_nights_in_a_row_end_where_one_full_run_ends(engine, tmp_path, seed, on):
    rows = random_shop(seed)

    def shop(name: str) -> Shop:
        lake = Lake(tmp_path / name).open()
        engine.save(engine_file(lake))
        return Shop(lake, tmp_path / f"{name}-source", *rows.values())

    nights = shop("nights")
    for days in (20, 11, 4):
        found = nights.run(AS_OF - days * DAY, engine=on, **TIGHT)
    assert (nights.notes["mode"], nights.notes["engine"]) == ("incremental", on)
    touched, everything = nights.notes["touched"]["keys"], len(found["identities"])
    assert 0 < touched < everything
    once = shop("once").run(AS_OF - 4 * DAY, **TIGHT)
    for name in ("identities", "identity_links", "persons"):
        assert in_order(found[name]) == in_order(once[name]), name
    hit = {outcome for outcome in counted(once) if outcome.startswith("link: ")}
    assert {
        "link: admitted", "link: unlinked", "link: too_many_of_type", "link: would_join_two",
        "link: unknown_key", "link: below_threshold", "link: household", "link: self_link",
        "link: confidence_outside_0_1",
    } <= hit  # fmt: skip
    assert accounts_per_person(found) == 1


@pytest.mark.parametrize("seed", [5, 6])
def test_a_night_touches_only_the_groups_that_its_new_links_touch(engine, tmp_path, seed):
    worlds, changed = 100, 3
    rows = random_shop(seed, worlds)
    # What becomes known later than this is tonight's alone: new links in three worlds of a hundred.
    quiet = [row for row in rows["links"] if _known(row) < AS_OF - 5 * DAY]
    events = [row for row in rows["events"] if row["first_received"] < AS_OF - 5 * DAY]
    keys = [f"{row['key_type']}:{row['key']}" for row in events]
    random = np.random.default_rng(seed)
    fresh = []
    of_world = [sorted({key for key in keys if key.partition(":")[2].startswith(f"{world}-")})
                for world in range(worlds)]  # fmt: skip
    several = [world for world in range(worlds) if len(of_world[world]) > 2]
    for world in random.choice(several, changed, replace=False):
        fresh += [
            link(*random.choice(of_world[world], 2, replace=False), 1.0) for _ in range(2)
        ]  # fmt: skip

    def shop(name: str) -> Shop:
        lake = Lake(tmp_path / name).open()
        engine.save(engine_file(lake))
        return Shop(lake, tmp_path / f"{name}-source", events, quiet + fresh, rows["people"])

    nights = shop("nights")
    before = nights.run(AS_OF - 4 * DAY, **TIGHT)
    found = nights.run(AS_OF, **TIGHT)
    assert (nights.notes["mode"], nights.notes["full_for"]) == ("incremental", None)
    ends = {(row[f"key_type_{end}"], row[f"key_{end}"]) for row in fresh for end in "ab"}
    group = {(row["key_type"], row["key"]): row["component"] for row in before["identities"]}
    reached = {group[key] for key in ends if key in group}
    within = [key for key, component in group.items() if component in reached]
    assert nights.notes["touched"]["keys"] <= len(within) < len(group) / 10
    once = shop("once").run(AS_OF, **TIGHT)
    for name in ("identities", "identity_links", "persons"):
        assert in_order(found[name]) == in_order(once[name]), name


def _known(row: dict) -> datetime:
    return row.get("received_time") or row["observed_time"]


def accounts_per_person(found: dict[str, list[dict]]) -> int:
    owners = [r["person_id"] for r in found["identities"] if r["key_type"] == "account"]
    return max(owners.count(owner) for owner in owners)


def test_a_day_run_again_in_another_order_gives_the_same_rows(shop):
    rows = random_shop(3, worlds=10)
    made = shop(*rows.values())
    first = made.run(**TIGHT)
    made.put(identity_links=rows["links"][::-1])
    again = made.run(**TIGHT)
    for name in ("identities", "identity_links", "persons", "identity_counts"):
        assert in_order(again[name]) == in_order(first[name]), name


def test_spark_and_arrays_find_the_same(session, tmp_path):
    """Two hundred random graphs in one run: what becomes of one depends on no other."""
    rows = {
        # Cards found persons here as accounts do: two types do, and either may break a cap.
        name: [{k: "member" if v == "loyalty_card" else v for k, v in one.items()} for one in part]
        for name, part in random_shop(4, worlds=200).items()
    }
    seen = {}
    for one in rows["events"]:
        key = (one["key_type"], one["key"])
        seen[key] = min(seen.get(key, AS_OF), one["first_received"])
    candidates = [
        {**one, "guess": one["source"] == "probabilistic"}
        for one in rows["links"]
        if {(one["key_type_a"], one["key_a"]), (one["key_type_b"], one["key_b"])} <= set(seen)
        and (one["key_type_a"], one["key_a"]) < (one["key_type_b"], one["key_b"])
        and one["confidence"] <= 1
    ]
    unique = {tuple(one[name] for name in [*identities.PAIR, "source"]): one for one in candidates}
    keys = pa.table({
        "key_type": [kind for kind, _ in seen], "key": [key for _, key in seen],
        "first_seen": pa.array(list(seen.values()), pa.timestamp("us", tz="UTC")),
    })  # fmt: skip
    table = pa.Table.from_pylist(list(unique.values())).select(resolution.CANDIDATE)
    io.write_arrow(tmp_path / "keys", keys)
    io.write_arrow(tmp_path / "links", table)
    joined = {"account": 1, "member": 1, "cookie>device": 1, **TIGHT["max_joined"]}
    caps = Caps.of(joined, {"account": 1, "member": 1}, 3)
    found, groups = {}, {}
    for engine in ("array", "spark"):
        out = tmp_path / engine
        ran, groups[engine] = resolution.resolve(
            session, tmp_path / "keys", tmp_path / "links", out, caps, engine, 1
        )
        assert ran == engine
        found[engine] = {
            name: in_order(io.read_arrow(out / name).to_pylist()) for name in ("keys", "links")
        }
    assert found["spark"] == found["array"]
    assert groups["spark"] == groups["array"] > 100
    assert {row["outcome"] for row in found["array"]["links"]} >= {
        "admitted", "too_many_of_type", "would_join_two", "person_too_large",
    }  # fmt: skip


def test_a_refresh_looks_for_what_is_touched_only_where_links_do_not_fit_in_memory():
    before = Before(AS_OF, Path(), pa.table({}), {})
    many, params = 5_000_000, identities.Params()
    assert identities.full_for(before, None, many, params) is None
    assert identities.full_for(before, None, many, params, of_refresh=True) == "refresh"
    assert identities.full_for(before, "data", many, params, of_refresh=True) == "data"
    assert identities.full_for(None, None, many, params, of_refresh=True) == "first"


def test_the_engine_is_chosen_by_size_and_named(shop):
    made = shop([event("account:1", 3), event("cookie:c", 2)], [link("account:1", "cookie:c")])
    assert set(persons(made.run(array_links=1)).values()) == {"account:1"}
    assert made.notes["engine"] == "spark"
