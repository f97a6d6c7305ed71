"""After any sequence of refreshes the tables and the index are those of one run over the same data.

The sequences are drawn from a seed: what happens to a shop in two or three refreshes, hours apart.
The one run goes from the night straight to the last hour. Events come in files of their own, from
which a refresh goes on, or all of them in the one file, which is judged anew.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from jobs import io
from jobs.io import Lake
from jobs.ordering.surfaces import PERSON, SURFACES
from jobs.refresh import changes, onward
from jobs.retrieval import index
from jobs.signals import events as judging
from tests import small_shop
from tests.refresh.conftest import AS_OF, Shop, hour, lists, moved, rewrite, rows

EXACT = (
    "events", "events_rejected", "items", "identities", "persons", "history", "sessions",
    "interactions", "ineligible_items", "blocked_pairs",
)  # fmt: skip
# The steps that make them.
SIGNALS = ("source", "events", "catalogue", "identities", "sessions", "interactions", "filters")
# What the release says of its vectors, in the space of the night.
OF_SPACE = ("content_vectors", "item_factors", "item_vectors")
LINKS = small_shop.LINKS.append(pa.field("action", pa.string()))
ITEMS = small_shop.ITEMS.append(pa.field("valid_from", small_shop.TIME))
Row = dict[str, Any]


@dataclass
class Happening:
    """What happens to a shop between one refresh and the next; ``added``: whether events come in
    files of their own."""

    shop: Shop
    random: np.random.Generator
    since: datetime
    until: datetime
    number: int
    dropped: list[str]
    added: bool

    def at(self, share: float) -> datetime:
        """An instant of these hours."""
        return self.since + share * (self.until - self.since)

    def one_of(self, found: list[Any]) -> Any:
        return found[int(self.random.integers(len(found)))]

    def change(self, name: str, schema: pa.Schema, change: Callable[[list[Row]], None]) -> None:
        def changed(table: pa.Table) -> pa.Table:
            found = [{field.name: row.get(field.name) for field in schema}
                     for row in table.to_pylist()]  # fmt: skip
            change(found)
            return pa.Table.from_pylist(found, schema)

        rewrite(self.shop, name, changed)

    # --- what may happen -------------------------------------------------------------------------
    def deliver(self, add: Callable[[list[Row]], None]) -> None:
        """Write the events that ``add`` adds."""
        if not self.added:
            self.change("events", small_shop.EVENTS, add)
            return
        folder = self.shop.source / "events"
        every = pq.read_table(folder, schema=small_shop.EVENTS).to_pylist()
        known = len(every)
        add(every)
        new = pa.Table.from_pylist(every[known:], small_shop.EVENTS)
        pq.write_table(new, folder / f"part-{len(list(folder.iterdir()))}.parquet")

    def buys(self, events: list[Row]) -> None:
        for place in range(8):
            row = self.one_of(events)
            at = self.at(self.random.random())
            events.append({**row, "event_id": f"new-{self.number}-{place}", "revision": None,
                           "event_time": at, "received_time": at})  # fmt: skip
        at = self.at(0.5)
        events.append({**row, "event_id": f"first-{self.number}", "item_id": f"new-{self.number}",
                       "revision": None, "event_time": at, "received_time": at})  # fmt: skip

    def is_late(self, events: list[Row]) -> None:
        """What happened before the night, or in an hour that was refreshed, is received now."""
        for place, ago in enumerate((200.0, 30.0, 0.5)):
            row = self.one_of(events)
            happened = self.since + (hour(0) - hour(ago))
            events.append({**row, "event_id": f"late-{self.number}-{place}", "revision": None,
                           "event_time": happened, "received_time": self.at(0.5)})  # fmt: skip

    def is_delivered_twice(self, events: list[Row]) -> None:
        events += [{**self.one_of(events), "received_time": self.at(0.9)} for _ in range(4)]

    def is_revised(self, events: list[Row]) -> None:
        row = self.one_of([row for row in events if row["event_type"] == "purchase"])
        events.append({**row, "revision": 7 + self.number, "quantity": 9.0,
                       "received_time": self.at(0.3)})  # fmt: skip

    def links(self, links: list[Row]) -> None:
        """A cookie is somebody's who had none, and another link is taken back."""
        number = 1001 + 4 * int(self.random.integers(30)) + int(self.random.integers(3))
        at = self.at(0.2)
        links.append({"key_type_a": "cookie", "key_a": f"c-{self.one_of(links)['key_b']}",
                      "key_type_b": "account", "key_b": str(number), "source": "login",
                      "confidence": 1.0, "observed_time": at, "action": None})  # fmt: skip
        links.append({**self.one_of(links), "observed_time": self.at(0.6), "action": "unlink"})

    def is_offered(self, items: list[Row]) -> None:
        new = f"new-{self.number}"
        items.append({**self.one_of(items), "item_id": new, "created_time": self.at(0.1),
                      "available": True, "valid_from": None})  # fmt: skip
        changed = [
            {"available": False}, {"flags": ["recalled"]}, {"price": 1.23},
            {"title": f"renamed {self.number}"}, {"available": True},
        ]  # fmt: skip
        items += [{**self.one_of(items), **one, "valid_from": self.at(0.4)} for one in changed]
        for row in [row for row in items if row["item_id"] == f"new-{self.number - 1}"]:
            other = self.one_of(items)["category"]
            items.append({**row, "category": other, "valid_from": self.at(0.4)})

    def is_dropped(self, items: list[Row]) -> None:
        """An item that was sold, and never described otherwise, is in the catalogue no more."""
        events = small_shop.read_table(self.shop.source, "events")
        sold = set(events.filter(pc.less(events["event_time"], AS_OF))["item_id"].to_pylist())
        times = Counter(row["item_id"] for row in items)
        found = sorted(row["item_id"] for row in items if times[row["item_id"]] == 1
                       and row["item_id"] in sold and row["price"] is not None
                       and row["available"] is not False)  # fmt: skip
        gone = found[len(found) // 2]
        self.dropped.append(gone)
        items[:] = [row for row in items if row["item_id"] != gone]

    def asks_to_be_forgotten(self, people: list[Row]) -> None:
        self.one_of(people)["consents"] = ["analytics"]
        self.one_of(people)["restrictions"] = ["alcohol"]
        self.one_of(people)["region"] = "west"

    def all(self) -> None:
        """Some of it, in a drawn order."""
        of_events = [self.is_late, self.is_delivered_twice, self.is_revised]
        for happens in [self.buys, *(each for each in of_events if self.random.random() < 0.7)]:
            self.deliver(happens)
        for name, schema, happens in (
            ("identity_links", LINKS, self.links), ("items", ITEMS, self.is_offered),
            ("people", small_shop.PEOPLE, self.asks_to_be_forgotten),
        ):  # fmt: skip
            if self.random.random() < 0.8:
                self.change(name, schema, happens)
        self.change("items", ITEMS, self.is_dropped)


@dataclass(frozen=True)
class Sequence:
    """A lake that was refreshed step by step, one that went the whole way at once, the last hour,
    the items that left the catalogue on the way, and whether events came in files of their own."""

    shop: Shop
    once: Shop
    now: datetime
    dropped: list[str]
    added: bool


@pytest.fixture(scope="module", params=[(3, True), (8, False)], ids=["added", "rewritten"])
def sequence(request: Any, published: Shop, tmp_path_factory: pytest.TempPathFactory) -> Sequence:
    seed, added = request.param
    random = np.random.default_rng(seed)
    shop = moved(published, tmp_path_factory.mktemp("steps"))
    since, dropped = AS_OF, []
    for number in range(int(random.integers(2, 4))):
        until = since + (hour(1) - hour(0)) * int(random.integers(1, 9))
        Happening(shop, random, since, until, number, dropped, added).all()
        shop.refresh(until)
        since = until
    once = moved(published, tmp_path_factory.mktemp("once"))
    # With the times of writing, by which a file that was read before is told.
    shutil.copytree(shop.source, once.source, dirs_exist_ok=True)
    once.refresh(since, until="recommendations")
    return Sequence(shop, once, since, dropped, added)


def without(table: pa.Table, *names: str) -> pa.Table:
    return table.drop_columns([name for name in names if name in table.schema.names])


def test_events_in_files_of_their_own_are_judged_alone(sequence: Sequence) -> None:
    known = sequence.shop.table("events", sequence.now).num_rows
    for lake in (sequence.shop.lake, sequence.once.lake):
        note = lake.published("events", sequence.now).manifest["notes"][judging.NOTE]
        assert ("again" in note) == sequence.added
        assert note.get("again", 1) < known / 4


def test_tables_are_those_of_one_run_over_the_same_data(
    sequence: Sequence,
) -> None:
    shop, once, now = sequence.shop, sequence.once, sequence.now
    for name in EXACT:
        # An item's position is by when it came first, which is held from run to run.
        ours, theirs = (without(lake.table(name, now), "position") for lake in (shop, once))
        assert ours.num_rows > 0, name
        assert rows(ours) == rows(theirs), name


def test_tables_are_those_of_a_rebuild_that_knows_no_night_before(
    sequence: Sequence, tmp_path: Path
) -> None:
    shop, once, now = sequence.shop, sequence.once, sequence.now
    rebuilt = Shop(Lake(tmp_path / "lake").open(), once.source, once.engine)
    rebuilt.night(now, [*SIGNALS])
    for name in EXACT:
        ours, theirs = (without(lake.table(name, now), "position") for lake in (shop, rebuilt))
        if name in ("items", "ineligible_items"):
            # Who knows no night before does not know that they were in the catalogue.
            apart = pc.field("item_id").isin(sequence.dropped)
            ours, theirs = ours.filter(~apart), theirs.filter(~apart)
        assert rows(ours) == rows(theirs), name
    # Its masks are by position.
    kinds = [rows(lake.table("eligibility", now), "kind", "value") for lake in (shop, rebuilt)]
    assert kinds[0] == kinds[1]


def test_what_left_the_catalogue_is_described_as_before_and_for_nobody(sequence: Sequence) -> None:
    assert sequence.dropped
    gone = pc.field("item_id").isin(sequence.dropped)
    before = sequence.shop.table("items", AS_OF).filter(gone)
    assert before.num_rows == len(sequence.dropped)
    for lake in (sequence.shop, sequence.once):
        found = lake.table("items", sequence.now).filter(gone)
        names = ("available", "first_seen")
        assert rows(without(found, *names)) == rows(without(before, *names))
        assert not any(found["available"].to_pylist())
        assert lake.table("item_vectors", sequence.now).filter(gone).num_rows == 0
    assert sequence.shop.table("recommendations", sequence.now).filter(gone).num_rows == 0


def test_everybody_may_get_the_same(sequence: Sequence) -> None:
    from jobs.filtering import filters

    shop, once, now = sequence.shop, sequence.once, sequence.now
    may = []
    for lake in (shop, once):
        items = lake.table("items", now).sort_by("item_id")
        who = {(row["region"], tuple(sorted(row["restrictions"])))
               for row in lake.table("persons", now).to_pylist()}  # fmt: skip
        eligible = lake.table("eligibility", now)
        place = items["position"].to_numpy()
        may.append({one: filters.allowed_mask(eligible, *one)[place].tolist() for one in who})
    assert len(may[0]) > 3
    assert may[0] == may[1]


def test_the_index_holds_the_same_ids_at_the_same_vectors(
    sequence: Sequence,
) -> None:
    shop, once, now = sequence.shop, sequence.once, sequence.now
    for name in OF_SPACE:
        ours, theirs = (
            dict(rows(without(lake.table(name, now), "position", "origin"), "item_id", "vector"))
            for lake in (shop, once)
        )
        assert ours == theirs, name
    held = []
    for lake in (shop, once):
        bundle = index.load(lake.lake.published("index", now).table(index.BUNDLE))
        ids = dict(rows(lake.table("items", now), "position", "item_id"))
        held.append({ids[place]: vector for place, vector in contents(bundle.index)})
    assert held[0].keys() == held[1].keys()
    assert held[0].keys() == set(shop.table("item_vectors", now)["item_id"].to_pylist())
    # The sphere's bound is the night's in both, so that points are the same to the last bit.
    assert all(np.array_equal(held[0][item], held[1][item]) for item in held[0])


def contents(held: Any) -> list[tuple[int, np.ndarray]]:
    """Ids and points of a FAISS index of cells."""
    import faiss

    lists_of, found = held.invlists, []
    for cell in range(held.nlist):
        size = lists_of.list_size(cell)
        if size:
            ids = faiss.rev_swig_ptr(lists_of.get_ids(cell), size).copy()
            codes = faiss.rev_swig_ptr(lists_of.get_codes(cell), size * held.code_size)
            points = codes.copy().view(np.float32).reshape(size, -1)
            found += list(zip(ids.tolist(), points, strict=True))
    return found


def test_who_was_touched_in_the_last_step_has_the_candidates_of_one_run(
    sequence: Sequence,
) -> None:
    shop, once, now = sequence.shop, sequence.once, sequence.now
    people = changes.people(shop.context("candidates", now))
    assert len(people) > 0
    found = [lake.table("candidates", now) for lake in (shop, once)]
    mine = [rows(one.filter(pc.is_in(one["person_id"], value_set=people))) for one in found]
    assert len(mine[0]) > 0
    assert mine[0] == mine[1]


def test_whoever_was_folded_in_in_the_last_step_has_the_vector_of_one_run(
    sequence: Sequence,
) -> None:
    shop, once, now = sequence.shop, sequence.once, sequence.now
    base = io.parse_as_of(shop.lake.published("embeddings", now).manifest["refresh"]["base"])
    before, after = (dict(rows(shop.table("item_factors", at))) for at in (base, now))
    moved = [item for item in after if item in before and after[item] != before[item]]
    chose = shop.table("interactions", now).filter(pc.field("item_id").isin(moved))["person_id"]
    people = onward.both(changes.people(shop.context("candidates", now)), chose)
    found = [lake.table("person_factors", now) for lake in (shop, once)]
    mine = [rows(one.filter(pc.is_in(one["person_id"], value_set=people))) for one in found]
    assert len(mine[0]) > 0
    assert mine[0] == mine[1]


def test_who_was_touched_in_the_last_step_has_the_hourly_lists_of_one_run(
    sequence: Sequence,
) -> None:
    shop, once, now = sequence.shop, sequence.once, sequence.now
    people = changes.people(shop.context("recommendations", now)).to_pylist()
    ours = lists(shop.table("recommendations", now))
    theirs = lists(io.read_arrow(once.lake.staged("recommendations", now) / "recommendations"))
    for surface in (name for name, one in SURFACES.items() if one.follows and one.grain == PERSON):
        # From there on a list looks at what other people are shown.
        depth = (SURFACES[surface].tail_from or 1_000) - 1
        for person in people:
            key = surface, person
            assert len(ours[key]) > 0
            assert ours[key][:depth] == theirs[key][:depth], key


def test_nothing_forbidden_or_unknown_is_in_any_list(
    sequence: Sequence,
) -> None:
    shop, now = sequence.shop, sequence.now
    persons = {row["person_id"]: row for row in shop.table("persons", now).to_pylist()}
    gone = set(shop.table("ineligible_items", now).filter(
        pc.field("kind") == "availability")["item_id"].to_pylist())  # fmt: skip
    flagged = {row["item_id"] for row in shop.table("items", now).to_pylist()
               if "alcohol" in (row["flags"] or [])}  # fmt: skip
    found = lists(shop.table("recommendations", now))
    assert {person for _, person in found} <= persons.keys()
    for (_, person), items in found.items():
        assert not gone & set(items)
        if "alcohol" in (persons[person]["restrictions"] or []):
            assert not flagged & set(items)
