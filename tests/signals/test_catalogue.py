"""Items and their places in the id map."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
from pyspark.sql import functions as F

from jobs import io
from jobs.signals import catalogue
from jobs.sources import contract
from jobs.tables import TABLES
from tests.conftest import AS_OF

EARLY = datetime(2017, 11, 1, tzinfo=UTC)


def items(session, *rows: dict):
    return session.createDataFrame(pa.Table.from_pylist(list(rows), contract.schema("items")))


def seen(session, *ids: str):
    return session.createDataFrame(
        [(one, EARLY, 2.0) for one in ids], "item_id string, first_seen timestamp, paid double"
    )


def known(frame) -> dict[str, dict]:
    return {row["item_id"]: row for row in frame.toArrow().to_pylist()}


def test_items_are_those_of_the_catalogue_and_of_the_events(session):
    found = known(
        catalogue.join_catalogue(
            seen(session, "sold", "unlisted"),
            items(session, {"item_id": "sold", "price": 5.0}, {"item_id": "unsold"}),
            AS_OF,
        )
    )
    assert set(found) == {"sold", "unlisted", "unsold"}
    assert [found[one]["price"] for one in ("sold", "unlisted", "unsold")] == [5.0, 2.0, None]
    assert all(row["available"] and row["flags"] == [] for row in found.values())


def test_the_row_valid_at_the_run_date_counts(session):
    rows = [
        {"item_id": "a", "title": "first", "valid_from": datetime(2017, 1, 1, tzinfo=UTC)},
        {"item_id": "a", "title": "now", "valid_from": datetime(2017, 11, 30, tzinfo=UTC)},
        {"item_id": "a", "title": "next", "valid_from": AS_OF},
        {"item_id": "b", "title": "unborn", "created_time": datetime(2018, 1, 1, tzinfo=UTC)},
    ]
    found = known(catalogue.join_catalogue(seen(session), items(session, *rows), AS_OF))
    assert {name: row["title"] for name, row in found.items()} == {"a": "now"}


def test_positions_are_kept_from_yesterday_and_new_items_are_appended(session):
    first = catalogue.place(catalogue.join_catalogue(seen(session, "b", "d"), None, AS_OF), None)
    second = catalogue.place(
        catalogue.join_catalogue(seen(session, "a", "c", "d"), None, AS_OF), first
    )
    places = {name: row["position"] for name, row in known(second).items()}
    assert {name: row["position"] for name, row in known(first).items()} == {"b": 0, "d": 1}
    assert places == {"b": 0, "d": 1, "a": 2, "c": 3}
    assert not known(second)["b"]["available"]


def test_the_price_is_the_median_paid_per_unit_before_the_run_date(session):
    rows = [
        ("a", "purchase", EARLY, 2.0, 6.0), ("a", "purchase", EARLY, 1.0, 3.0),
        ("a", "purchase", datetime(2016, 1, 1, tzinfo=UTC), 1.0, 99.0),
        ("a", "view", EARLY, 1.0, 50.0),
    ]  # fmt: skip
    events = session.createDataFrame(
        rows,
        "item_id string, event_type string, event_time timestamp, quantity double, value double",
    )
    found = known(catalogue.seen(events, AS_OF, catalogue.Params()))
    assert found["a"]["paid"] == 3.0


def test_lists_out_of_force_and_unknown_items_are_left_out(session):
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
    lists = session.createDataFrame(pa.Table.from_pylist(rows, contract.schema("editorial")))
    items_known = seen(session, "a").select("item_id", F.lit(0).alias("position"))
    found = catalogue.editorial_in_force(lists, items_known, AS_OF).toArrow().to_pylist()
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
    rows = catalogue.rules_in_force(made, source).to_pylist()
    assert {row["rule_id"]: row["outcome"] for row in rows} == {
        "r1": "in force", "r2": "unknown item", "r3": "expired", "r4": "unknown surface",
    }  # fmt: skip
    assert made.notes["rules"]["in force"] == 1


def test_without_rules_the_table_is_empty(night, tmp_path):
    assert catalogue.rules_in_force(night("catalogue"), tmp_path).num_rows == 0
