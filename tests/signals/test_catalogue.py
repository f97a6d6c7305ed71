"""Items and their places in the id map."""

from __future__ import annotations

import dataclasses
import shutil
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from jobs import io
from jobs.refresh.route import Refresh
from jobs.signals import catalogue
from jobs.sources import contract
from jobs.tables import TABLES, TIME
from tests.conftest import AS_OF

EARLY = datetime(2017, 11, 1, tzinfo=UTC)


def items(*rows: dict) -> pa.Table:
    return pa.Table.from_pylist(list(rows), contract.schema("items"))


def seen(*ids: str) -> pa.Table:
    return pa.table(
        {"item_id": list(ids), "first_seen": [EARLY] * len(ids), "paid": [2.0] * len(ids)},
        pa.schema([("item_id", pa.string()), ("first_seen", TIME), ("paid", pa.float64())]),
    )


def known(found: pa.Table) -> dict[str, dict]:
    return {row["item_id"]: row for row in found.to_pylist()}


def test_items_are_those_of_the_catalogue_and_of_the_events():
    found = known(
        catalogue.join_catalogue(
            seen("sold", "unlisted"),
            items({"item_id": "sold", "price": 5.0}, {"item_id": "unsold"}),
            AS_OF,
        )
    )
    assert set(found) == {"sold", "unlisted", "unsold"}
    assert [found[one]["price"] for one in ("sold", "unlisted", "unsold")] == [5.0, 2.0, None]
    assert all(row["available"] and row["flags"] == [] for row in found.values())


def test_the_row_valid_at_the_run_date_counts():
    rows = [
        {"item_id": "a", "title": "first", "valid_from": datetime(2017, 1, 1, tzinfo=UTC)},
        {"item_id": "a", "title": "now", "valid_from": datetime(2017, 11, 30, tzinfo=UTC)},
        {"item_id": "a", "title": "next", "valid_from": AS_OF},
        {"item_id": "b", "title": "unborn", "created_time": datetime(2018, 1, 1, tzinfo=UTC)},
    ]
    found = known(catalogue.join_catalogue(seen(), items(*rows), AS_OF))
    assert {name: row["title"] for name, row in found.items()} == {"a": "now"}


def test_positions_are_kept_from_yesterday_and_new_items_are_appended():
    first = catalogue.place(catalogue.join_catalogue(seen("b", "d"), None, AS_OF), None)
    second = catalogue.place(catalogue.join_catalogue(seen("a", "c", "d"), None, AS_OF), first)
    places = {name: row["position"] for name, row in known(second).items()}
    assert {name: row["position"] for name, row in known(first).items()} == {"b": 0, "d": 1}
    assert places == {"b": 0, "d": 1, "a": 2, "c": 3}
    assert not known(second)["b"]["available"]


@pytest.mark.parametrize("valid_from", [None, EARLY])
def test_of_rows_from_the_same_instant_the_one_that_withholds_most_counts(valid_from):
    plain = {"item_id": "a", "title": "same", "valid_from": valid_from}
    pairs = (
        ({"available": False}, {"available": True}),
        ({"flags": ["recalled"]}, {"flags": []}),
        ({"flags": ["recalled", "food"]}, {"flags": ["food"]}),
        ({"regions": ["north"]}, {"regions": None}),
        ({"seller": "one"}, {"seller": "two"}),
        ({"attributes": {"size": "l"}}, {"attributes": {"size": "s"}}),
    )
    for counts, other in pairs:
        rows = [plain | counts, plain | other]
        for given in (rows, rows[::-1]):
            table = items(*given)
            found = known(catalogue.join_catalogue(seen(), table, AS_OF))["a"]
            name = next(iter(counts))
            value = dict(found[name]) if name == "attributes" else found[name]
            assert value == counts[name], given
        assert catalogue.duplicates(items(*rows, {"item_id": "b"})) == 1


# --- what left the catalogue -----------------------------------------------------------------
WINE = {
    "item_id": "wine", "title": "Red wine", "category": "DRINKS > WINE", "price": 9.0,
    "flags": ["alcohol"], "regions": ["north"], "attributes": {"size": "l"},
}  # fmt: skip


@pytest.fixture
def shop(lake, night, tmp_path):
    """The items of the step, published: ``shop(as_of, catalogue rows or None)``, of a shop that
    sells wine and an item that no catalogue names."""

    def run(as_of: datetime, rows: list[dict] | None, base: datetime | None = None):
        folder = tmp_path / "source" / "items"
        shutil.rmtree(folder, ignore_errors=True)
        if rows is not None:
            io.write_arrow(folder, pa.Table.from_pylist(rows, contract.schema("items")))
        source = lake.staged("source", as_of)
        io.write_json(source / "source.json", {"folder": str(tmp_path / "source")})
        sold = [
            {"event_id": item, "revision": 0, "event_time": EARLY, "received_time": EARLY,
             "first_received": EARLY, "key_type": "account", "key": "1", "event_type": "purchase",
             "item_id": item, "quantity": 1.0, "value": 2.0, "event_date": EARLY.date()}
            for item in ("wine", "unlisted")
        ]  # fmt: skip
        events = pa.Table.from_pylist(sold, TABLES["events"].schema)
        io.write_arrow(lake.staged("events", as_of) / "events", events)
        refresh = Refresh(io.label(base), io.label(AS_OF)) if base else None
        says = {"refresh": dataclasses.asdict(refresh) if refresh else None}
        for step in ("source", "events"):
            io.write_json(lake.staged(step, as_of) / "manifest.json", says)
            lake.publish(step, as_of, "test-run")
        made = night("catalogue", as_of=as_of)
        made.refresh = refresh
        catalogue.run(made, catalogue.Params())
        made.close(catalogue.Params(), "test")
        lake.publish("catalogue", as_of, "test-run")
        found = io.read_arrow(lake.published("catalogue", as_of).table("items")).to_pylist()
        return {row["item_id"]: row for row in found}

    return run


BREAD = {"item_id": "bread", "title": "Bread"}
HOUR = timedelta(hours=1)


def test_a_sold_item_that_leaves_the_catalogue_is_unavailable_and_keeps_its_description(shop):
    first = shop(AS_OF, [WINE, BREAD])
    assert first["wine"]["available"]
    second = shop(AS_OF + 24 * HOUR, [BREAD])
    assert second["wine"] == first["wine"] | {"available": False}
    assert second["unlisted"] == first["unlisted"]
    assert (second["unlisted"]["available"], second["unlisted"]["catalogued"]) == (True, False)
    # And stays so the night after, until the catalogue names it again.
    third = shop(AS_OF + 48 * HOUR, [BREAD])
    assert third["wine"] == second["wine"]
    fourth = shop(AS_OF + 72 * HOUR, [{"item_id": "wine", "title": "Red wine"}])
    assert (fourth["wine"]["available"], fourth["wine"]["flags"]) == (True, [])
    # One that nobody ever touched leaves in the same way.
    assert fourth["bread"] == first["bread"] | {"available": False}


def test_an_item_leaves_in_a_refresh_as_in_a_night_from_the_same_catalogue(shop):
    shop(AS_OF, [WINE, BREAD])
    night = shop(AS_OF + 4 * HOUR, [BREAD])
    hours = [shop(AS_OF + n * HOUR, [BREAD], AS_OF + (n - 1) * HOUR) for n in (1, 2)]
    assert hours == [night, night]
    assert not night["wine"]["available"]


def test_without_a_night_before_nobody_knows_that_an_item_was_in_the_catalogue(shop):
    found = shop(AS_OF, [BREAD, WINE | {"valid_from": AS_OF}])
    assert (found["wine"]["available"], found["wine"]["catalogued"]) == (True, False)
    assert (found["wine"]["title"], found["wine"]["flags"]) == (None, [])
    second = shop(AS_OF + HOUR, [BREAD, WINE | {"valid_from": AS_OF}])
    assert second["wine"]["available"]


def test_an_item_whose_rows_all_hold_from_later_on_stays_as_it_was(shop, lake):
    later = {"valid_from": AS_OF + 3 * HOUR, "title": "Another name"}
    old = BREAD | {"available": False}
    first = shop(AS_OF, [WINE, old])
    night = shop(AS_OF + 2 * HOUR, [WINE | later, BREAD | later])
    assert night == first
    assert (night["wine"]["available"], night["bread"]["available"]) == (True, False)
    made = io.read_json(lake.published("catalogue", AS_OF + 2 * HOUR).folder / "manifest.json")
    assert made["notes"]["catalogue_not_in_force"] == 2
    # An hour before as in a night from the same catalogue, and from its instant as it says.
    assert shop(AS_OF + HOUR, [WINE | later, BREAD | later], AS_OF) == night
    then = shop(AS_OF + 4 * HOUR, [WINE | later, BREAD | later])
    assert (then["wine"]["title"], then["bread"]["available"]) == ("Another name", True)
    # What had left is back when a row says so, not before.
    gone = shop(AS_OF + 5 * HOUR, [BREAD])
    back = shop(AS_OF + 6 * HOUR, [BREAD, WINE | {"valid_from": AS_OF + 7 * HOUR}])
    assert back == gone
    assert not back["wine"]["available"]


def test_items_of_a_lake_that_does_not_say_what_was_catalogued_leave_too(shop, lake):
    first = shop(AS_OF, [WINE, BREAD])
    folder = lake.published("catalogue", AS_OF).table("items")
    # Without Spark's own schema beside them, which would still name the column.
    older = io.read_arrow(folder).drop_columns(["catalogued"]).replace_schema_metadata()
    shutil.rmtree(folder)
    io.write_arrow(folder, older)
    second = shop(AS_OF + HOUR, [BREAD])
    assert second["wine"] == first["wine"] | {"available": False}
    assert second["unlisted"] == first["unlisted"]


def test_a_source_without_a_catalogue_knows_items_by_their_events_alone(shop):
    shop(AS_OF, [WINE, BREAD])
    second = shop(AS_OF + HOUR, None)
    assert (second["wine"]["available"], second["bread"]["available"]) == (True, False)
    assert second["wine"]["catalogued"]


def test_the_price_is_the_median_paid_per_unit_before_the_run_date(tmp_path):
    rows = [
        ("a", "purchase", EARLY, 2.0, 6.0), ("a", "purchase", EARLY, 1.0, 3.0),
        ("a", "purchase", datetime(2016, 1, 1, tzinfo=UTC), 1.0, 99.0),
        ("a", "view", EARLY, 1.0, 50.0), ("a", "purchase", EARLY, 1.0, 8.0),
        ("a", "purchase", EARLY, 1.0, None), ("b", "purchase", EARLY, 1.0, 0.0),
    ]  # fmt: skip
    names = ["item_id", "event_type", "event_time", "quantity", "value"]
    found = [dict(zip(names, row, strict=True)) for row in rows]
    schema = pa.schema([TABLES["events"].schema.field(name) for name in names])
    io.write_arrow(tmp_path, pa.Table.from_pylist(found, schema))
    assert known(catalogue.seen(tmp_path, AS_OF, catalogue.Params())) == {
        "a": {"item_id": "a", "first_seen": datetime(2016, 1, 1, tzinfo=UTC), "paid": 3.0},
        "b": {"item_id": "b", "first_seen": EARLY, "paid": None},
    }


def test_lists_out_of_force_and_unknown_items_are_left_out():
    rows = [
        {"list_id": "now", "position": 1, "item_id": "a"},
        {"list_id": "over", "position": 1, "item_id": "a", "ends": EARLY},
        {
            "list_id": "soon",
            "position": 1,
            "item_id": "a",
            "starts": datetime(2018, 1, 1, tzinfo=UTC),
        },
        {"list_id": "unknown", "position": 1, "item_id": "nowhere"},
    ]
    lists = pa.Table.from_pylist(rows, contract.schema("editorial"))
    found = catalogue.editorial(lists, seen("a"), AS_OF).to_pylist()
    assert [row["list_id"] for row in found] == ["now"]


def test_rules_are_judged_on_the_items_of_the_night(night, tmp_path):
    source = tmp_path / "source"
    (source / "events").mkdir(parents=True)
    (source / "rules.yaml").write_text(
        "- {rule_id: r1, kind: ban, scope: a, reason: recalled}\n"
        "- {rule_id: r2, kind: ban, scope: item:z, reason: gone}\n"
        "- {rule_id: r3, kind: ban, scope: a, reason: over, ends: 2017-12-01}\n"
        "- {rule_id: r4, kind: ban, scope: a, reason: elsewhere, surface: basket}\n"
    )
    made = night("catalogue")
    schema = TABLES["items"].schema
    row = {"item_id": "a", "position": 0, "available": True, "flags": []}
    io.write_arrow(made.staged / "items", pa.Table.from_pylist([row], schema))
    rows = catalogue.rules_in_force(made, source, AS_OF).to_pylist()
    assert {row["rule_id"]: row["outcome"] for row in rows} == {
        "r1": "in force", "r2": "unknown item", "r3": "expired", "r4": "unknown surface",
    }  # fmt: skip
    assert made.notes["rules"]["in force"] == 1
    rows = catalogue.rules_in_force(made, source, AS_OF - HOUR).to_pylist()
    assert {row["rule_id"]: row["outcome"] for row in rows}["r3"] == "in force"


def test_without_rules_the_table_is_empty(night, tmp_path):
    assert catalogue.rules_in_force(night("catalogue"), tmp_path, AS_OF).num_rows == 0
