"""What events and the people table name: keys, and what is known of the persons behind them."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs import io
from jobs.signals import named
from jobs.signals.named import Named
from jobs.sources import contract
from jobs.tables import TABLES
from tests.conftest import AS_OF

COLUMNS = ("key_type", "key", "event_time", "region", "first_received")
EVENTS = pa.schema([TABLES["events"].schema.field(name) for name in COLUMNS])


def keys_of(*rows: tuple[str, str, str, str]) -> pa.Table:
    names = ("key_type", "key", "person_id", "household_id")
    schema = pa.schema([(name, pa.string()) for name in names])
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema)


def events_of(folder: Path, *rows: tuple[Any, ...], files: int = 1) -> Path:
    """Received when they happened, where nothing else is said."""
    whole = [row if len(row) == 5 else (*row, row[2]) for row in rows]
    for number in range(files):
        mine = [dict(zip(COLUMNS, row, strict=True)) for row in whole[number::files]]
        io.write_arrow(folder / "events", pa.Table.from_pylist(mine, EVENTS), number)
    return folder / "events"


def test_the_stricter_word_counts_where_keys_of_one_person_disagree(tmp_path):
    resolved = keys_of(
        ("account", "1", "account:1", "h"),
        ("device", "d", "account:1", "h"),
        ("account", "2", "account:2", "h"),
    )
    told = pa.Table.from_pylist(
        [
            {"key_type": "account", "key": "1", "region": "north", "restrictions": ["alcohol"]},
            {"key_type": "device", "key": "d", "consents": ["email"], "restrictions": ["tobacco"]},
        ],
        contract.schema("people"),
    )
    day = datetime(2017, 11, 1, tzinfo=UTC)
    regions = ("south", "south", "east", None, None, None)
    events = events_of(tmp_path, *(("account", "2", day, region) for region in regions))
    rows = Named(events, told, AS_OF).persons(resolved)
    found = {row["person_id"]: row for row in rows.to_pylist()}
    assert found["account:1"]["personalised"] is False
    assert found["account:1"]["restrictions"] == ["alcohol", "tobacco"]
    assert (found["account:1"]["region"], found["account:1"]["keys"]) == ("north", 2)
    assert (found["account:2"]["region"], found["account:2"]["personalised"]) == ("south", True)


def test_only_consents_that_are_null_as_a_whole_are_all_given(tmp_path):
    given = {
        "none": None, "empty": [], "null": [None], "other": ["analytics", None],
        "named": [None, "personalisation"],
    }  # fmt: skip
    keys = [(name, f"account:{name}") for name in given]
    keys += [("one", "account:both"), ("two", "account:both")]
    resolved = keys_of(*(("account", key, person, person) for key, person in keys))
    told = [
        {"key_type": "account", "key": key, "consents": consents}
        for key, consents in (given | {"one": [None], "two": ["personalisation"]}).items()
    ]
    people = pa.Table.from_pylist(told, contract.schema("people"))
    rows = Named(events_of(tmp_path), people, AS_OF).persons(resolved).to_pylist()
    assert {row["person_id"].removeprefix("account:"): row["personalised"] for row in rows} == {
        "none": True, "empty": False, "null": False, "other": False, "named": True, "both": False,
    }  # fmt: skip


def test_keys_are_those_that_events_before_the_cut_and_people_name(tmp_path):
    day = timedelta(days=1)
    events = events_of(
        tmp_path,
        ("account", "1", AS_OF - day, None, AS_OF - 2 * day),
        ("account", "1", AS_OF - day, None, AS_OF - 3 * day),
        ("account", "2", AS_OF - day, None, AS_OF),
        ("account:1", "", AS_OF - day, None, AS_OF - day),
    )
    names = (("account", "1"), ("account", "3"), ("account", "3"), ("account", " "),
             (" ", "4"), ("account", None), (None, "5"))  # fmt: skip
    rows = [{"key_type": kind, "key": key} for kind, key in names]
    people = pa.Table.from_pylist(rows, contract.schema("people"))
    found = Named(events, people, AS_OF).keys().to_pylist()
    assert {(row["key_type"], row["key"]): row["first_seen"] for row in found} == {
        ("account", "1"): AS_OF - 3 * day,
        ("account:1", ""): AS_OF - day,
        ("account", "3"): None,
    }
    assert len(found) == 3
    assert Named(events, None, AS_OF - 5 * day).keys().num_rows == 0


@pytest.mark.parametrize("seed", range(4))
def test_persons_of_many_are_what_a_plain_count_says(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(named, "ROWS", 50)
    draw = random.Random(seed)
    keys = [(kind, f"{n}:{kind}") for kind in ("account", "cookie") for n in range(40)]
    person = {key: f"p{draw.randrange(30)}" for key in keys[:-5]}
    home = {one: f"h{draw.randrange(9)}" for one in person.values()}
    resolved = keys_of(*((*key, one, home[one]) for key, one in person.items()))
    start = datetime(2017, 11, 1, tzinfo=UTC)
    rows = [
        (*draw.choice(keys), start + timedelta(seconds=draw.randrange(10**6)),
         draw.choice(["north", "south", "Süd", "east", None]),
         start + timedelta(seconds=draw.randrange(2 * 10**6)))
        for _ in range(600)
    ]  # fmt: skip
    cut = start + timedelta(seconds=10**6)
    told = [
        {"key_type": kind, "key": key, "region": draw.choice(["west", "north", None, None]),
         "segment": draw.choice(["b", "a", None]),
         "consents": draw.choice([None, ["personalisation"], ["personalisation"], ["email"]]),
         "restrictions": draw.choice([None, [], ["b", "a"], ["c", None, "c"], ["a"]])}
        for kind, key in draw.choices(keys, k=60)
    ]  # fmt: skip
    people = pa.Table.from_pylist(told, contract.schema("people"))
    found = Named(events_of(tmp_path, *rows, files=3), people, cut).persons(resolved)
    expected = []
    for one in sorted(set(person.values())):
        mine = [row for row in rows if person.get(row[:2]) == one and row[4] < cut]
        said = [row for row in told if person.get((row["key_type"], row["key"])) == one]
        regions = Counter(row[3] for row in mine if row[3] is not None)
        most = min(regions, key=lambda name: (-regions[name], name.encode()), default=None)
        limits = {limit for row in said for limit in row["restrictions"] or ()}
        expected.append({
            "person_id": one,
            "household_id": home[one],
            "region": min((row["region"] for row in said if row["region"]), default=most),
            "segment": min((row["segment"] for row in said if row["segment"]), default=None),
            "personalised": all(row["consents"] in (None, ["personalisation"]) for row in said),
            "restrictions": sorted(limits, key=lambda limit: (limit is None, limit or "")),
            "keys": Counter(person.values())[one],
            "first_seen": min((row[2] for row in mine), default=None),
            "last_seen": max((row[2] for row in mine), default=None),
        })  # fmt: skip
    assert found.to_pylist() == expected
    assert found.schema.equals(TABLES["persons"].schema)


def test_nobody_is_known_where_there_are_no_keys(tmp_path):
    none = keys_of(("account", "1", "account:1", "h")).slice(0, 0)
    events = events_of(tmp_path, ("account", "1", AS_OF - timedelta(days=1), "north"))
    assert Named(events, None, AS_OF).persons(none).num_rows == 0
