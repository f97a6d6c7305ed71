"""A refresh changes what changed and nothing else, and equals what the night would have made."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from jobs import io, tables
from jobs.__main__ import command
from jobs.diagnosis.parity import leakage, of_the_past
from jobs.diagnosis.replay import rebuilding, replay
from jobs.errors import Fault, NightNeeded
from jobs.io import Lake
from jobs.night import Night
from jobs.ordering import planning, recommendations, relisting
from jobs.ordering.surfaces import SURFACES
from jobs.refresh import changes, onward, route
from jobs.release import releases, rollback, standing
from jobs.release.entries import Entry
from jobs.release.reader import Reader
from jobs.release.standing import Standing
from jobs.release.stores import LmdbStore
from jobs.retrieval import candidates, embeddings, index, matrix
from jobs.scoring import features
from jobs.signals import sessions
from jobs.tables import FEATURES
from tests import small_shop
from tests.refresh.conftest import (
    AS_OF,
    PARAMS,
    Shop,
    current,
    hour,
    lists,
    moved,
    rewrite,
    rows,
    touched,
)


def test_a_refresh_serves_in_place_of_its_night_and_names_it(refreshed: Shop) -> None:
    release = current(refreshed)
    assert release.manifest["kind"] == "hourly"
    assert release.manifest["night"] == io.label(AS_OF) == release.manifest["base"]
    assert release.as_of == hour(6)
    assert Reader.open(refreshed.lake.root).as_of == hour(6)
    night = next(one for one in releases.readable(refreshed.lake) if one.as_of == AS_OF)
    assert release.manifest["embedding_version"] == night.manifest["embedding_version"]


def test_people_are_touched_by_what_was_received_and_by_nothing_else(refreshed: Shop) -> None:
    now, then = (refreshed.table("history", at) for at in (hour(6), AS_OF))
    new = set(now["event_id"].to_pylist()) ^ set(then["event_id"].to_pylist())
    acted = {
        person
        for table in (now, then)
        for event, person in rows(table, "event_id", "person_id")
        if event in new
    }
    found = {p for p, reason in rows(refreshed.table("touched_people", hour(6)))
             if reason == "events"}  # fmt: skip
    assert acted <= found
    # A login or a link may give a person's older events to another one: theirs changed as well.
    moved = {
        person
        for event, person in set(rows(now, "event_id", "person_id"))
        ^ set(rows(then, "event_id", "person_id"))
    }
    sessions = {
        person
        for _, person in set(rows(now, "event_id", "session"))
        ^ set(rows(then, "event_id", "session"))
    }
    assert found <= acted | moved | {s.split("|")[0] for s in sessions}
    assert 0 < len(found) < 60


def test_whose_events_are_others_is_found_alike_among_all_and_among_those_made_again(
    refreshed: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    night, base = refreshed.context("changes", hour(6)), refreshed.lake.published("sessions", AS_OF)
    assert night.published("sessions").table(sessions.AGAIN).is_file()
    monkeypatch.setattr(changes, "PEOPLE", 3)
    of_some = sorted(changes._acted(night, base).to_pylist())
    monkeypatch.setattr(sessions, "AGAIN", "nothing such")
    assert sorted(changes._acted(night, base).to_pylist()) == of_some
    assert len(of_some) > 6


def test_everybody_elses_lists_are_the_bases_to_the_last_bit(refreshed: Shop) -> None:
    apart = pa.array(sorted(touched(refreshed, hour(6))))
    for name in ("recommendations", "features", "candidates", "person_factors"):
        now, then = (refreshed.table(name, at) for at in (hour(6), AS_OF))
        kept = [t.filter(pc.invert(pc.is_in(t["person_id"], value_set=apart))) for t in (now, then)]
        key = [(column, "ascending") for column in tables.TABLES[name].key]
        assert kept[0].num_rows > 0
        blocked = set(rows(refreshed.table("blocked_pairs", hour(6)), "person_id", "item_id"))
        if name in ("recommendations", "features"):
            lost = {pair for pair in rows(kept[1], "person_id", "item_id") if pair in blocked}
            assert not lost, "this shop's other people lose nothing in six hours"
        assert kept[0].sort_by(key).equals(kept[1].sort_by(key)), name


def test_a_refresh_that_goes_on_asks_for_no_engine(
    refreshed: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(night: Night) -> None:
        raise AssertionError(f"{night.step} asks for an engine")

    monkeypatch.setattr(Night, "spark", property(none))
    shop = moved(refreshed, tmp_path)
    shop.refresh(hour(9))
    assert current(shop).as_of == hour(9)


def test_lists_of_touched_people_are_those_that_the_night_would_have_made(
    refreshed: Shop, tmp_path: Any
) -> None:
    people = pa.array(sorted(touched(refreshed, hour(6))))
    context = refreshed.context("candidates", hour(6))
    seen = candidates.of_night(context)
    everybody = pa.concat_tables(candidates.personal(context, seen, candidates.Params()))
    everybody = candidates.without_items(everybody, candidates.for_nobody(context))
    made = refreshed.table("candidates", hour(6))
    own, made = (t.filter(pc.is_in(t["person_id"], value_set=people)) for t in (everybody, made))
    columns = ("person_id", "source", "rank", "item_id")
    assert rows(made, *columns) == rows(own, *columns)
    night = refreshed.context("recommendations", hour(6))
    night.reset()
    params = night.params_of("recommendations")
    recommendations.run(night, params)
    whole = io.read_arrow(night.staged / "recommendations")
    expected, found = lists(whole), lists(refreshed.table("recommendations", hour(6)))
    for (surface, person), items in found.items():
        if person in people.to_pylist() and params.surfaces[surface].cadence == "hourly":
            # Behind the tenth place a homepage looks at what other people are shown.
            depth = 10 if surface == "homepage" else len(items)
            assert items[:depth] == expected[surface, person][:depth], (surface, person)


def test_touched_people_have_the_vectors_that_all_they_ever_did_gives(refreshed: Shop) -> None:
    at = hour(6)
    solver = refreshed.context("embeddings", at).params_of("embeddings").solver
    facts = io.read_json(refreshed.lake.published("embeddings", at).table(embeddings.FILE))
    now, then = (
        matrix.build(refreshed.table("interactions", one).select(embeddings.OF_INTERACTIONS))
        for one in (at, AS_OF)
    )
    factors = {
        name: dict(rows(refreshed.table(f"{name}_factors", at))) for name in ("item", "person")
    }
    items = np.array([factors["item"][one] for one in now.item_ids.to_pylist()], np.float32)
    place = {one: number for number, one in enumerate(now.person_ids.to_pylist())}
    people = sorted(touched(refreshed, at) & set(then.person_ids.to_pylist()) & set(place))
    mine = np.array([place[one] for one in people])
    assert len(mine) > 5
    found = np.array([factors["person"][one] for one in people], np.float32)
    whole = solver.fold_in(now.matrix[mine], items, facts["mean_weight"])
    np.testing.assert_array_equal(found, whole)
    # What they did in these hours alone says something else of them.
    before = sp.csr_matrix(now.matrix.shape, dtype=now.matrix.dtype).tolil()
    old = np.array([place.get(one, -1) for one in then.person_ids.to_pylist()])
    columns = matrix.positions(then.item_ids, now.item_ids)
    coo = then.matrix.tocoo()
    kept = (old[coo.row] >= 0) & (columns[coo.col] >= 0)
    before[old[coo.row[kept]], columns[coo.col[kept]]] = 1.0
    delta = now.matrix[mine] - now.matrix[mine].multiply(before.tocsr()[mine])
    alone = solver.fold_in(delta, items, facts["mean_weight"])
    assert (np.abs(alone - whole).max(axis=1) > 0.01).mean() > 0.5


def test_hours_are_told_apart_and_missed_ones_are_healed(refreshed: Shop) -> None:
    found = refreshed.table("intervals", hour(6)).sort_by("started").to_pylist()
    assert [row["started"] for row in found] == [hour(n) for n in range(6)]
    assert [row["state"] for row in found] == ["healed"] * 5 + ["read"]
    now = refreshed.table("events", hour(6))
    received = [t for t in now["received_time"].to_pylist() if t >= AS_OF]
    assert sum(row["events"] for row in found) == len(received) > 0


# --- two hours in which much happens -----------------------------------------------------------
NEW, RECALLED, DELISTED, LATE = "brand-new", "recalled", "delisted", "late"


@dataclass(frozen=True)
class Story:
    """In the first hour an item comes and is bought, the most listed one is recalled and another
    is delisted. In the second that one comes back, an event of the first is delivered late, who did
    it turns down what stood first in the list, and a boost of what is listed least comes into
    force, and a ban of what is listed most."""

    shop: Shop
    recalled: str
    delisted: str
    late: str
    rejected: str
    banned: str


@pytest.fixture(scope="module")
def story(published: Shop, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """The night with both hours refreshed; no test changes it."""
    shop = moved(published, tmp_path_factory.mktemp("story"))
    listed = shop.table("recommendations", AS_OF)["item_id"].to_pylist()
    recalled = max(sorted(set(listed)), key=listed.count)
    indexed = shop.table("item_vectors", AS_OF)["item_id"].to_pylist()
    delisted = next(item for item in indexed if item != recalled)
    schema = small_shop.ITEMS.append(pa.field("valid_from", small_shop.TIME))

    def happen(items: pa.Table) -> pa.Table:
        found = [{**row, "valid_from": None} for row in items.to_pylist()]
        old = {row["item_id"]: row for row in found}
        found += [
            {**found[3], "item_id": NEW, "created_time": hour(0.2)},
            {**old[recalled], "flags": ["recalled"], "valid_from": hour(0.5)},
            {**old[delisted], "available": False, "valid_from": hour(0.5)},
            {**old[delisted], "available": True, "valid_from": hour(1.5)},
        ]
        return pa.Table.from_pylist(found, schema)

    bought = [row for row in small_shop.read_table(shop.source, "events").to_pylist()
              if row["event_type"] == "purchase" and row["key_type"] == "account"]  # fmt: skip

    def deliver(event_id: str, **changed: Any) -> None:
        row = {**bought[0], "event_id": event_id, "revision": 0, **changed}
        more = pa.Table.from_pylist([row], small_shop.EVENTS)
        rewrite(shop, "events", lambda events: pa.concat_tables([events, more]))

    rewrite(shop, "items", happen)
    deliver("fresh", item_id=NEW, event_time=hour(0.5), received_time=hour(0.5))
    shop.refresh(hour(1))
    deliver(LATE, event_time=hour(0.3), received_time=hour(0.4))
    late, placed = f"account:{bought[0]['key']}", shop.table("recommendations", hour(1))
    rejected = lists(placed)["homepage", late][0]
    deliver("no", item_id=rejected, event_type="reject", event_time=hour(1.2),
            received_time=hour(1.2))  # fmt: skip
    seen = placed["item_id"].to_pylist()
    banned, *_, least = sorted(sorted(set(seen)), key=seen.count, reverse=True)
    small_shop.write_table(shop.source, "rules", pa.table({
        "rule_id": ["push", "stop"], "kind": ["boost", "ban"], "strength": [9.0, None],
        "scope": [f"item:{least}", f"item:{banned}"],
        "starts": pa.array([hour(1.5)] * 2, small_shop.TIME), "reason": ["test"] * 2,
    }))  # fmt: skip
    shop.refresh(hour(2))
    return Story(shop, recalled, delisted, late, rejected, banned)


def test_a_recalled_item_is_out_of_everything_and_nothing_else_moves(story: Story) -> None:
    shop, gone = story.shop, {story.recalled, story.delisted}
    before, after = (lists(shop.table("recommendations", at)) for at in (AS_OF, hour(1)))
    anew = touched(shop, hour(1))
    assert sum(story.recalled in items for items in before.values()) > 20
    for key, items in after.items():
        assert not gone & set(items)
        if key[1] in anew:
            continue
        stays = [item for item in before[key] if item not in gone]
        assert items[: len(stays)] == stays, "who did nothing keeps what may stay, in its order"
        assert len(items) == len(before[key]), "and the place is filled"
    for name, column in (("context_lists", "item_id"), ("item_lists", "listed_item_id"),
                         ("features", "item_id")):  # fmt: skip
        assert not gone & set(shop.table(name, hour(1))[column].to_pylist()), name
    release = next(one for one in releases.readable(shop.lake) if one.as_of == hour(1))
    pools = io.read_arrow(release.path("pools"))
    assert story.recalled not in pools["item_id"].to_pylist()


def test_what_nobody_may_get_leaves_everybodys_candidates_and_all_else_keeps_its_place(
    story: Story,
) -> None:
    shop, gone = story.shop, {story.recalled, story.delisted}
    columns = ("person_id", "source", "rank", "item_id")
    before, after = (rows(shop.table("candidates", at), *columns) for at in (AS_OF, hour(1)))
    sold_out = {item for item, there in rows(shop.table("items", AS_OF), "item_id", "available")
                if not there}  # fmt: skip
    assert sold_out
    assert not sold_out & {row[3] for row in before}
    assert not gone & {row[3] for row in after}
    anew = touched(shop, hour(1))
    left = [row for row in before if row[0] not in anew and row[3] not in gone]
    assert len({row[0] for row in before if row[3] in gone}) > 20
    assert [row for row in after if row[0] not in anew] == left


def test_what_is_delisted_leaves_the_index_and_what_comes_back_returns(story: Story) -> None:
    shop = story.shop
    then, first, second = (
        dict(rows(shop.table("item_vectors", at), "item_id", "vector"))
        for at in (AS_OF, hour(1), hour(2))
    )
    assert set(then) ^ set(first) == {story.delisted, NEW}
    notes = shop.lake.published("index", hour(1)).manifest["notes"]["index"]
    assert (notes["added"], notes["removed"], notes["built_again"]) == (1, 1, [])
    held = index.load(shop.lake.published("index", hour(1)).table(index.BUNDLE))
    assert held.index.ntotal == len(first)
    assert second[story.delisted] == then[story.delisted]


def test_a_new_item_has_a_vector_in_the_nights_space_and_nothing_else_moves(story: Story) -> None:
    shop = story.shop
    then, now = (dict(rows(shop.table("content_vectors", at))) for at in (AS_OF, hour(1)))
    assert set(now) - set(then) == {NEW}
    changed = {row["item_id"] for row in shop.table("touched_items", hour(1)).to_pylist()}
    assert all(now[item] == then[item] for item in then if item not in changed)
    factors = [dict(rows(shop.table("item_factors", at))) for at in (AS_OF, hour(1), hour(2))]
    assert all(factors[1][item] == factors[0][item] for item in factors[1] if item in factors[0])
    facts = io.read_json(shop.lake.published("embeddings", hour(1)).table("embedding.json"))
    assert facts["guessed_items"] == [NEW]
    # The next hour still knows that this vector is a guess, and learns nothing from it.
    assert factors[2][NEW] == factors[1][NEW]


def test_an_event_that_was_delivered_late_is_found_and_said(story: Story) -> None:
    first, second = story.shop.table("intervals", hour(2)).sort_by("started").to_pylist()
    assert (first["late"], second["late"]) == (1, 0)
    assert (first["state"], second["state"]) == ("read", "read")
    assert story.late in touched(story.shop, hour(2))


def test_a_boost_that_comes_into_force_makes_all_lists_anew_and_is_counted(story: Story) -> None:
    shop = story.shop
    (work,) = shop.table("list_work", hour(2)).to_pylist()
    assert work["anew"] == work["known"] == shop.table("persons", hour(2)).num_rows
    causes = set(shop.table("overrides", hour(2))["cause"].to_pylist())
    assert "push" in causes - set(shop.table("overrides", hour(1))["cause"].to_pylist())


def test_behind_a_night_hours_are_read_that_refreshes_of_the_one_before_had_read_in_time(
    story: Story, tmp_path: Path
) -> None:
    shop = moved(story.shop, tmp_path)
    # What the refresh of the night's own run date had read is no hour since.
    chain = route.Refresh(io.label(AS_OF - timedelta(days=1)), io.label(AS_OF - timedelta(days=1)))
    route.carry(shop.lake, shop.lake.published("changes", hour(1)), AS_OF, "midnight", chain)
    shop.night(AS_OF)
    brings_nothing_back(shop, story)
    with pytest.raises(Fault, match="it would bring back what was taken out since"):
        shop.refresh(hour(1))
    shop.refresh(hour(4))
    assert (current(shop).as_of, current(shop).manifest["base"]) == (hour(4), io.label(AS_OF))
    found = shop.table("intervals", hour(4)).sort_by("started")
    assert found["state"].to_pylist() == ["read", "read", "healed", "read"]


def brings_nothing_back(shop: Shop, story: Story) -> None:
    """The night, in the place of a refresh that has read two hours more, shows nothing that this
    took out."""
    served = current(shop)
    assert (served.as_of, served.manifest["shown_as_of"]) == (AS_OF, hour(2).isoformat())
    for name, column in (("recommendations", "item_id"), ("context_lists", "item_id"),
                         ("item_lists", "listed_item_id"), ("pools", "item_id")):  # fmt: skip
        listed = set(io.read_arrow(served.path(name))[column].to_pylist())
        assert not {story.recalled, story.banned} & listed, name
    for (_, person), items in lists(shop.table("recommendations", AS_OF)).items():
        assert person != story.late or story.rejected not in items
    blocked = rows(shop.table("blocked_pairs", AS_OF), "person_id", "item_id", "reason")
    assert (story.late, story.rejected, "blocked_since") in blocked
    # What people did is the night's all the same.
    assert max(shop.table("events", AS_OF)["received_time"].to_pylist()) < AS_OF
    in_force = dict(rows(shop.table("rules_in_force", AS_OF), "rule_id", "outcome"))
    assert in_force["stop"] == "in force"


def test_what_was_rolled_back_is_nothing_to_go_on_from(story: Story, tmp_path: Path) -> None:
    shop = moved(story.shop, tmp_path)
    assert route.base_of(shop.lake, hour(3)).as_of == hour(2)
    night = next(one for one in releases.readable(shop.lake) if one.as_of == AS_OF)
    rollback.rollback(shop.lake, night.id, None, "test")
    assert route.base_of(shop.lake, hour(3)).id == night.id


def test_a_released_hour_whose_tables_were_made_anew_in_part_is_no_base(
    story: Story, tmp_path: Path
) -> None:
    shop = moved(story.shop, tmp_path)
    shop.refresh(hour(2), until="catalogue", run="again")
    assert route.base_of(shop.lake, hour(3)).as_of == hour(1)


# --- what goes wrong -------------------------------------------------------------------------
def test_tables_of_retired_refreshes_go_and_those_of_nights_stay(shop: Shop) -> None:
    then = shop.lake.published("ranker", AS_OF)
    chain = route.Refresh(io.label(AS_OF), io.label(AS_OF))
    for number in (1, 2, 3):
        route.carry(shop.lake, then, hour(number), "run", chain)
    # A night of another hour of the day is a night.
    odd = shop.lake.root / "tables" / "ranker" / io.label(hour(4)) / "run"
    shutil.copytree(then.folder, odd)
    (odd.parent / "PUBLISHED").write_text("run\n")
    assert route.forget(shop.lake, AS_OF) == [io.label(hour(n)) for n in (1, 2, 3)]
    assert shop.lake.at("ranker", io.label(AS_OF)) is not None
    assert shop.lake.at("ranker", io.label(hour(4))) is not None
    assert shop.lake.at("ranker", io.label(hour(1))) is None


def test_what_a_refresh_cannot_go_on_from_is_refused(
    shop: Shop, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = Lake(tmp_path / "empty").open()
    source = str(shop.source)
    with pytest.raises(Fault, match="no release of a night before"):
        route.open_refresh(empty, hour(1), "run", source, PARAMS)
    with pytest.raises(Fault, match=r"is made from .* not from elsewhere"):
        route.open_refresh(shop.lake, hour(1), "run", "elsewhere", PARAMS)
    with pytest.raises(Fault, match="is not after"):
        route.open_refresh(shop.lake, AS_OF, "run", source, PARAMS)
    changed = {**PARAMS, "embeddings": {"factors": 16}}
    with pytest.raises(Fault, match="the parameters of embeddings are others"):
        route.open_refresh(shop.lake, hour(1), "run", source, changed)
    monkeypatch.setattr(features, "VERSION", "behaviour-99")
    with pytest.raises(NightNeeded, match="learnt by features of behaviour-"):
        route.open_refresh(shop.lake, hour(1), "run", source, PARAMS)
    assert route.under_way(shop.lake, "run") is None


def test_the_route_knows_every_step_and_asks_each_for_what_it_has() -> None:
    from jobs import steps

    assert set(route.ROUTE) == set(steps.STEPS | steps.REFRESH)
    for step, how in route.ROUTE.items():
        assert hasattr(steps.module(step), "refresh") == (how == route.ONWARD), step


def test_an_hour_is_cut_where_the_base_read_up_to() -> None:
    from jobs.refresh.changes import hours

    half = AS_OF + timedelta(minutes=90)
    assert hours(AS_OF, half, hour(3)) == [
        (AS_OF, hour(1)), (hour(1), half), (half, hour(2)), (hour(2), hour(3)),
    ]  # fmt: skip


def test_a_refresh_killed_while_it_takes_over_leaves_the_base_as_it_was(shop: Shop) -> None:
    base = shop.lake.published("ranker", AS_OF)
    chain = route.Refresh(io.label(AS_OF), io.label(AS_OF))
    names = sorted(releases.files_of(base.folder))
    before = [(base.folder / name).read_bytes() for name in names]
    staged = shop.lake.staged("ranker", hour(1))
    for name in names[:2]:
        releases.link(base.folder / name, staged / name)
    (staged / "stray.parquet").write_text("of a red night of this hour")
    route.carry(shop.lake, base, hour(1), "run", chain)
    assert [(base.folder / name).read_bytes() for name in names] == before
    assert releases.files_of(shop.lake.published("ranker", hour(1)).folder) == set(names)
    with pytest.raises(FileExistsError):
        releases.link(base.folder / names[0], base.folder / names[1])


def test_features_of_some_people_made_again_are_the_published_ones_until_one_is_changed(
    shop: Shop,
) -> None:
    people = shop.table("persons", AS_OF).filter(pc.field("personalised"))["person_id"]
    sample = pa.table({"person_id": people, "night": [io.label(AS_OF)] * len(people)})

    def again() -> replay.Replayed:
        one = replay.Replayed(io.label(AS_OF))
        assert replay.rebuild(shop.context("replay", AS_OF), one, sample, 30) is None
        assert one.rebuilt_people == 30
        return one

    whole = again()
    assert whole.rebuilt_features_same == 1.0
    assert (whole.rebuilt_lists_same or 0.0) > 0.9
    # Published is another value for every second pair: the code of today does not give it.
    folder = shop.lake.published("recommendations", AS_OF).table("features")
    rows = io.read_arrow(folder)
    odd = pa.array([n % 2 == 1 for n in range(rows.num_rows)])
    changed = pc.if_else(odd, pc.add(rows["p_baskets_28"], 1), rows["p_baskets_28"])
    place = rows.schema.get_field_index("p_baskets_28")
    for path in io.parquet_files(folder):
        path.unlink()  # a name of a file that other lakes share
    io.write_arrow(folder, rows.set_column(place, rows.schema.field(place), changed))
    assert again().rebuilt_features_same == pytest.approx(0.5, abs=0.1)
    told = replay.wrong([again()], [], replay.Shown(500, 5_000, 0, 5_000))
    (one,) = [one for one in told if one.subject == "rebuilt_features_same"]
    assert "tables are other ones: p_baskets_28 in " in one.sentence
    rows = {row["feature"]: row for row in replay._rebuilt_rows([again()]).to_pylist()}
    assert list(rows) == list(FEATURES)
    assert rows.pop("p_baskets_28")["same"] == pytest.approx(0.5, abs=0.1)
    assert {row["same"] for row in rows.values()} == {1.0}


def diagnosed_by(shop: Shop, code_version: str | None) -> None:
    """A log was joined with its outcomes by this code."""
    staged = shop.lake.staged("served", AS_OF)
    io.write_json(staged / "manifest.json", {"run_id": "one", "code_version": code_version})
    shop.lake.publish("served", AS_OF, "one")


def test_a_night_of_other_code_is_not_held_against_what_this_makes(shop: Shop) -> None:
    diagnosed_by(shop, "another")
    traced = of_the_past.trace(shop.context("leakage", AS_OF), io.label(AS_OF), 20)
    assert traced.unjudged is not None
    assert traced.unjudged.endswith("where this is another")
    assert traced.share == {}


def test_what_was_learned_from_is_what_was_known_at_the_cut_until_a_feature_leaks(
    shop: Shop,
) -> None:
    night_code = shop.lake.published("examples", AS_OF).manifest.get("code_version")
    diagnosed_by(shop, night_code)

    def convicted() -> list[str]:
        night = shop.context("leakage", AS_OF)
        traced = of_the_past.trace(night, io.label(AS_OF), 20)
        assert (traced.unjudged, traced.drawn, traced.held) == (None, 20, 20)
        assert list(of_the_past.unproved(traced)) == []
        probes = leakage.made_from_past(traced, leakage.Params())
        assert [row["feature"] for row in probes] == list(FEATURES)
        return [one.subject for one in leakage.leaked(probes, traced)]

    assert convicted() == []
    # A feature of those pairs alone that were bought knows a little more than it may.
    folder = shop.lake.published("examples", AS_OF).table("examples")
    rows = io.read_arrow(folder)
    more = pc.add(rows["i_paid"], 0.01).cast(pa.float32())
    leaked = pc.if_else(rows["bought"], more, rows["i_paid"])
    place = rows.schema.get_field_index("i_paid")
    for path in io.parquet_files(folder):
        path.unlink()  # a name of a file that other lakes share
    io.write_arrow(folder, rows.set_column(place, rows.schema.field(place), leaked))
    assert convicted() == ["i_paid"]


def test_examples_of_a_night_whose_tables_are_gone_are_not_called_proved(shop: Shop) -> None:
    night = shop.context("leakage", AS_OF)
    shutil.rmtree(shop.lake.root / "tables" / "sessions")
    traced = of_the_past.trace(night, io.label(AS_OF), 20)
    assert traced.unjudged is not None
    assert "sessions" in traced.unjudged
    assert traced.share == {}


def test_a_nights_lists_of_some_people_made_again_are_its_own(published: Shop) -> None:
    people = published.table("persons", AS_OF).filter(pc.field("personalised"))["person_id"]
    some = onward.both(people.slice(0, 40))
    made = rebuilding.again(published.context("replay", AS_OF), io.label(AS_OF), some)
    assert made is not None
    ours, theirs = lists(made["recommendations"]), lists(
        published.table("recommendations", AS_OF).filter(
            pc.is_in(published.table("recommendations", AS_OF)["person_id"], value_set=some)
        )
    )  # fmt: skip
    assert ours.keys() == theirs.keys()
    assert len(ours) > 40
    for (surface, person), items in ours.items():
        # From there on a list looks at what other people are shown.
        depth = (SURFACES[surface].tail_from or 1_000) - 1
        assert items[:depth] == theirs[surface, person][:depth], (surface, person)
    pairs = [
        {(row["person_id"], row["item_id"]): row["feature_hash"] for row in table.to_pylist()}
        for table in (made["features"], published.table("features", AS_OF))
    ]
    both = pairs[0].keys() & pairs[1].keys()
    assert len(both) > 0.9 * len(pairs[0])
    assert all(pairs[0][pair] == pairs[1][pair] for pair in both)


def test_lists_that_nothing_is_done_with_still_count_as_shown(tmp_path: Path) -> None:
    places = [("homepage", "a", "x"), ("homepage", "b", "y"), ("digest", "a", "z"),
              ("digest", "b", "x"), ("homepage", "c", "w")]  # fmt: skip
    names = ["surface", "person_id", "item_id"]
    table = pa.table({name: [row[n] for row in places] for n, name in enumerate(names)})
    io.write_arrow(tmp_path / "base", table)
    nobody, none = pa.array([], pa.string()), table.slice(0, 0)
    made = {"homepage": pa.array(["a"]), "digest": nobody}
    merged = pa.array(["a", "b"])
    plan = planning.Plan(
        relisting.Anew(nobody, nobody, ()), none, none, merged, made, merged, merged[:1], False
    )
    found = rows(plan.standing(tmp_path / "base", list(made)), *names)
    assert found == [("digest", "a", "z"), ("digest", "b", "x"), ("homepage", "b", "y")]


def test_entries_of_lists_that_stand_are_those_of_the_base_and_the_same_as_made_anew(
    refreshed: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def entries_of(shop: Shop) -> dict[bytes, bytes]:
        return dict(LmdbStore(current(shop).path("kv")).items())

    shop, last = moved(refreshed, tmp_path), hour(7)
    taken: list[int] = []
    entries = Standing.entries

    def counted(found: Standing) -> Iterator[Entry]:
        for entry in entries(found):
            taken.append(len(entry[1]))
            yield entry

    monkeypatch.setattr(Standing, "entries", counted)
    shop.refresh(last)
    made = entries_of(shop)
    lists = [key for key in made if key.startswith(b"r/")]
    again = shop.lake.published("recommendations", last).table(recommendations.AGAIN)
    own = {one.encode() for one in pq.read_table(again)["person_id"].to_pylist()}
    assert len(taken) == sum(key.split(b"/", 2)[2] not in own for key in lists) > 100
    monkeypatch.setattr(standing, "find", lambda *asked: None)
    taken.clear()
    with shop.held(last, "refresh", PARAMS) as line:
        chain = shop.lake.published("recommendations", last).manifest["refresh"]
        io.write_json(route.file(shop.lake), {"run_id": f"refresh {last}", **chain})
        command(["run", "release", *line])
        command(["gate", "release", *line])
    assert not taken
    assert entries_of(shop) == made


def test_entries_are_made_anew_where_those_of_the_base_are_not_as_they_would_be(
    refreshed: Shop, tmp_path: Path
) -> None:
    shop, last = moved(refreshed, tmp_path), hour(6)
    night = shop.context("release", last)
    manifest = shop.lake.published("recommendations", last).manifest
    night.refresh = route.Refresh(**manifest["refresh"])
    persons = [name for name, one in night.params_of("recommendations").surfaces.items()
               if one.grain == "person"]  # fmt: skip
    found = [standing.find(night, persons, drawn) for drawn in (True, False)]
    assert [one is not None for one in found].count(True) == 1
    drawn = found[0] is not None
    assert standing.find(night, persons[1:], drawn) is None
    base = next(one for one in releases.readable(shop.lake) if one.as_of == AS_OF)
    kept = base.path("kv") / "data.mdb"
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    kept.unlink()  # the file is shared with the other lake
    kept.write_bytes(content)
    assert standing.find(night, persons, drawn) is None
    night.refresh = None
    assert standing.find(night, persons, drawn) is None
