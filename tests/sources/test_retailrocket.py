"""RetailRocket: the shared subset, the publisher's own form, and dirt."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

from jobs.sources import contract, retailrocket
from tests.sources import shared


def test_the_real_subset_keeps_every_line_under_the_contracts_names(tmp_path):
    folder = shared.real("retailrocket_subset")
    assert retailrocket.convert(str(folder), tmp_path)["events"] == 97_381
    contract.check(tmp_path)
    kinds = Counter(shared.column(tmp_path, "events", "event_type"))
    assert kinds == {"view": 75_374, "add_to_cart": 12_456, "purchase": 9_551}
    first = shared.rows(tmp_path, "events")[0]
    assert (first["key_type"], first["key"], first["item_id"]) == ("account", "1176", "6768")
    assert first["event_time"] == datetime(2015, 5, 3, 3, 25, 10, tzinfo=UTC)
    ids = shared.column(tmp_path, "events", "event_id")
    assert len(set(ids)) == len(ids)


def test_dirt_is_carried_for_the_events_step_to_judge(tmp_path):
    (tmp_path / "events.csv").write_bytes(
        b"user_id,item_id,event,timestamp\n"
        b"1,10,view,1430623510\n"
        b"1,10,view,1430623510\n"  # an equal repeat
        b",11,view,1430623511\n"  # nobody
        b'2,"../a""b\nc",stare,1430623512\n'  # a kind and an item nobody knows
        b"3,caf\xe9,view,soon\n"  # not UTF-8, no time
        b"4,10\n"  # broken off
    )
    counts = retailrocket.convert(str(tmp_path / "events.csv"), tmp_path)
    assert counts == {"events": 5, "broken_lines_left_out": 1}
    repeat, again, nobody, strange, timeless = shared.rows(tmp_path, "events")
    assert repeat == again
    assert nobody["key"] is None
    assert (strange["event_type"], strange["item_id"]) == ("stare", '../a"b\nc')
    assert (timeless["item_id"], timeless["event_time"]) == ("café", None)


def test_the_publishers_columns_and_milliseconds_are_read(tmp_path):
    (tmp_path / "events.csv").write_text(
        "timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\n"
    )
    (tmp_path / "item_properties_part1.csv").write_text("timestamp,itemid,property,value\n")
    assert retailrocket.convert(str(tmp_path), tmp_path)["events"] == 1
    (row,) = shared.rows(tmp_path, "events")
    assert (row["key"], row["item_id"]) == ("257597", "355908")
    assert row["event_time"] == datetime(2015, 6, 2, 5, 2, 12, 117000, tzinfo=UTC)
